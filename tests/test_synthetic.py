"""Synthetic sets: what is refused at birth, and the file that holds them."""

import json

import pytest
import safetensors.torch
import torch
from refusals import refuses
from safetensors import safe_open

from ddlib.data.synthetic import SyntheticSet, load, save
from ddlib.data.whitening import ZCA, ValueSpace
from ddlib.store.files import read_tensors, write_tensors

NAMES = ("cat", "dog", "eel")
STRATEGY = "color_crop_cutout_scale_rotate"


def make_zca(values):
    random = torch.randn(2, values, values, generator=torch.Generator().manual_seed(1))
    return ZCA(mean=random[0, 0], whitening=random[0], unwhitening=random[1], eps=0.1)


def make(soft=False, zca=False, **changes):
    stream = torch.Generator().manual_seed(0)
    fields = {
        "images": torch.randn(6, 2, 4, 4, generator=stream),
        "labels": torch.randn(6, 3, generator=stream) if soft else torch.tensor([0, 0, 1, 1, 2, 2]),
        "class_names": NAMES,
        "space": ValueSpace((0.1, 1 / 3), (0.2, 0.7), make_zca(32) if zca else None),
        "strategy": STRATEGY,
    }
    return SyntheticSet(**fields | changes)


@pytest.mark.parametrize(("soft", "zca"), [(False, True), (True, False)])
def test_the_file_gives_back_every_bit(tmp_path, soft, zca):
    synthetic = make(soft, zca, learning_rate=0.1 + 0.2, provenance={"method": "dm", "rows": [3, 1]})
    save(synthetic, tmp_path / "deep" / "set.safetensors")
    found = load(tmp_path / "deep" / "set.safetensors")
    torch.testing.assert_close([found.images, found.labels], [synthetic.images, synthetic.labels], rtol=0, atol=0)
    for name in ("class_names", "strategy", "learning_rate", "provenance"):
        assert getattr(found, name) == getattr(synthetic, name)
    ours, theirs = found.space, synthetic.space
    assert (ours.name, ours.mean, ours.std) == (theirs.name, theirs.mean, theirs.std)
    if zca:
        for name in ("eps", "mean", "whitening", "unwhitening"):
            torch.testing.assert_close(getattr(ours.zca, name), getattr(theirs.zca, name), rtol=0, atol=0)


def test_any_reader_of_safetensors_sees_the_images(tmp_path):
    images = torch.arange(6 * 2 * 4 * 8.0).view(6, 2, 4, 8).transpose(2, 3)[..., ::2]  # not contiguous
    save(make(images=images, provenance={"seed": 3}), tmp_path / "set.safetensors")
    assert torch.equal(safetensors.torch.load_file(tmp_path / "set.safetensors")["images"], images)
    with safe_open(tmp_path / "set.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["ddlib"])["about"]
    assert header["class_names"] == list(NAMES) and header["provenance"] == {"seed": 3}
    usual = "class_names format learning_rate mean provenance std strategy version zca_eps"
    assert sorted(header) == usual.split(), "of a set without a card as it was"


def test_pixels_are_decoded_and_clipped():
    space = ValueSpace((0.5,), (0.25,))
    images = torch.tensor([-4.0, -1.0, 1.0, 4.0]).view(1, 1, 2, 2)
    synthetic = make(images=images, labels=torch.zeros(1, dtype=torch.int64), space=space)
    assert synthetic.pixels().flatten().tolist() == [0, 0.25, 0.75, 1]


NAN = torch.full((6, 2, 4, 4), float("nan"))


test_what_is_not_a_synthetic_set_is_refused = refuses(
    make,
    [
        ({"images": torch.zeros(6, 2, 4)}, r"images must be \(N, C, H, W\) float32, N >= 1, got \(6, 2, 4\)"),
        ({"images": torch.zeros(0, 2, 4, 4)}, r"N >= 1, got \(0, 2, 4, 4\)"),
        ({"images": torch.zeros(6, 2, 4, 4, dtype=torch.float64)}, "float32, N >= 1, got .* torch.float64"),
        ({"images": NAN}, "images hold values that are not finite"),
        ({"images": torch.zeros(6, 3, 4, 4)}, "space is for 2 channels, images have 3"),
        ({"space": ValueSpace((0.5, 0.5), (1, 1), make_zca(8))}, "space whitens images of 8 values, images have 32"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels must be \(6,\) int64 or \(6, 3\) float32 .*\(5,\)"),
        ({"labels": torch.zeros(6, 2)}, r"labels must be .* got \(6, 2\)"),
        ({"labels": torch.zeros(6, 3) / 0}, "labels hold logits that are not finite"),
        ({"labels": torch.tensor([0, 1, 2, 3, 0, 0])}, r"labels must lie in \[0, 3\), got 0 to 3"),
        ({"labels": torch.tensor([0, 1, 2, -1, 0, 0])}, r"labels must lie in \[0, 3\), got -1 to 2"),
        ({"strategy": "color_twirl"}, "unknown strategy 'color_twirl'.*known: color, crop"),
        ({"learning_rate": 0.0}, "learning_rate must be None or a finite number > 0, got 0.0"),
        ({"learning_rate": float("inf")}, "learning_rate must be .* got inf"),
        ({"provenance": {"loss": float("nan")}}, "provenance must be plain JSON"),
        ({"provenance": {"rows": torch.zeros(2)}}, "provenance must be plain JSON: .*Tensor"),
    ],
)


@pytest.fixture
def path(tmp_path):
    save(make(zca=True), tmp_path / "set.safetensors")
    return tmp_path / "set.safetensors"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 3}, "set.safetensors cannot be read: format version 3; this ddlib reads up to 2"),
        ({"version": "x"}, "set.safetensors cannot be read: '>' not supported"),
        ({"format": "other"}, "set.safetensors holds no synthetic set: its header does not say 'ddlib.synthetic'"),
        ({"class_names": ["cat"]}, "set.safetensors cannot be read: labels must"),
        ({"mean": [0.5]}, "set.safetensors cannot be read: mean and std"),
        ({"strategy": None}, "set.safetensors cannot be read: unknown strategy 'None'"),
    ],
)
def test_a_header_that_cannot_be_is_refused(path, changes, match):
    tensors, header = read_tensors(path)
    write_tensors(path, tensors, header | changes)
    with pytest.raises(ValueError, match=match):
        load(path)


@pytest.mark.parametrize(
    ("write", "match"),
    [
        (lambda tensors, path: safetensors.torch.save_file(tensors, path), "is truncated or not a safetensors file of"),
        (lambda tensors, path: safetensors.torch.save_file(tensors, path, {"ddlib": "x"}), "is truncated or not"),
        (lambda tensors, path: write_tensors(path, tensors, {"kind": "checkpoint"}), "holds no synthetic set"),
    ],
)
def test_foreign_files_are_refused(tmp_path, write, match):
    with pytest.raises(FileNotFoundError, match="no synthetic set at .*set.safetensors"):
        load(tmp_path / "set.safetensors")
    write({"images": torch.zeros(3)}, tmp_path / "set.safetensors")
    with pytest.raises(ValueError, match=f"set.safetensors {match}"):
        load(tmp_path / "set.safetensors")
