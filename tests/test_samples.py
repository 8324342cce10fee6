"""Nearest real images against a search of all pairs, and walks through the noise of a generator."""

import dataclasses
import math

import pytest
import torch
from draws import pictures
from test_stream import make

from ddlib import seeding
from ddlib.analyses import samples
from ddlib.data.synthetic import SyntheticStream


@pytest.fixture(scope="module")
def real():
    """Pictures of three channels."""
    return pictures(50, (3, 8, 8), 2)


def encoded(train):
    """The same images as values that networks see."""
    return dataclasses.replace(train, images=train.take(range(len(train))))


@pytest.mark.parametrize("form", [lambda train: train, encoded], ids=["pixels", "encoded"])
@pytest.mark.parametrize("chunk", [7, 4096])
def test_nearest_images_are_those_of_a_search_of_all_pairs(monkeypatch, chunk, form, real):
    monkeypatch.setattr(samples, "CHUNK", chunk)
    train, all_pixels = form(real), real.images.double() / 255
    images = torch.rand(9, 3, 8, 8, generator=seeding.generator(1, "fakes"))
    images[4] = all_pixels[33].float()  # a copy
    images[5] = (all_pixels[2] + 0.01).float()
    rows, distances = samples.nearest(images, train)
    for image, row, distance in zip(images.double(), rows.tolist(), distances.tolist(), strict=True):
        found = [math.sqrt(float(((image - other) ** 2).mean())) for other in all_pixels]
        assert row == min(range(len(found)), key=found.__getitem__)
        assert distance == pytest.approx(found[row], abs=1e-6)
    assert (rows[4].item(), rows[5].item()) == (33, 2)
    assert distances[4] < 1e-6 and distances[5].item() == pytest.approx(0.01, abs=1e-6)


def test_of_equal_images_the_first_is_the_nearest(monkeypatch):
    monkeypatch.setattr(samples, "CHUNK", 4)
    train = pictures(20, (3, 8, 8), 2)
    train.images[[6, 11]] = train.images[3].clone()
    assert samples.nearest(samples.pixels(train, torch.tensor([11])), train)[0].tolist() == [3]


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 1, 8, 8), (0, 3, 8, 8), (3, 8, 8)])
def test_images_that_cannot_be_compared_are_refused(shape, real):
    with pytest.raises(ValueError, match=r"images are .*; allowed: \(n, 3, 8, 8\), n >= 1"):
        samples.nearest(torch.zeros(shape), real)


def test_pixels_are_those_before_the_encoding(real):
    rows = torch.tensor([5, 0])
    expected = real.images[rows] / 255
    assert torch.equal(samples.pixels(real, rows), expected)
    assert torch.allclose(samples.pixels(encoded(real), rows), expected, atol=1e-6)


def test_a_walk_goes_from_one_noise_to_another_and_keeps_its_class():
    made = make()
    walks = samples.walks(made, torch.tensor([2, 0]), steps=5, seed=3)
    assert walks.shape == (2, 5, 1, 8, 8) and walks.min() >= 0 and walks.max() <= 1
    for place, label in enumerate((2, 0)):
        ends = made.noise(2, seeding.generator(3, "samples", "walk", place))
        shown = made.space.decode(made.images(torch.tensor([label, label]), ends)).clamp(0, 1)
        assert torch.allclose(walks[place, [0, -1]], shown, atol=1e-5)
    alone = samples.walks(made, torch.tensor([2]), steps=5, seed=3)
    assert torch.allclose(alone[0], walks[0], atol=1e-6)
    others = [(torch.tensor([2]), 4), (torch.tensor([1]), 3)]
    assert all((samples.walks(made, y, steps=5, seed=seed) - alone).abs().max() > 1e-3 for y, seed in others)


def test_the_noise_of_a_walk_turns_by_equal_angles_at_equal_length(monkeypatch):
    seen = []
    made = make()
    monkeypatch.setattr(SyntheticStream, "noise", lambda self, n, g: torch.tensor([[3.0, 0, 0], [0, 3.0, 0]]))
    monkeypatch.setattr(SyntheticStream, "images", lambda s, y, z: seen.append((y, z)) or torch.zeros(len(y), 1, 2, 2))
    samples.walks(made, torch.tensor([1]), steps=4, seed=0)
    angles = [0, math.pi / 6, math.pi / 3, math.pi / 2]
    expected = torch.tensor([[3 * math.cos(a), 3 * math.sin(a), 0] for a in angles])
    ((labels, noise),) = seen
    assert labels.tolist() == [1, 1, 1, 1] and torch.allclose(noise, expected, atol=1e-6)


def test_a_walk_has_two_ends():
    with pytest.raises(ValueError, match="steps=1; allowed: from 2, both ends"):
        samples.walks(make(), torch.tensor([0]), steps=1, seed=0)
