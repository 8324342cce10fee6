"""The embedding network learns, is repeatable, and gives one vector an image."""

import pytest
import torch

from ddlib.data import datasets
from ddlib.pretraining.classifier import Embedding
from ddlib.store import loop


@pytest.fixture(scope="module")
def train():
    """The digits."""
    return datasets.load("digits", "train")


def test_training_lowers_the_loss_and_separates_the_classes(train):
    builder = Embedding(width=16, depth=2, epochs=8)
    outcome = loop.run(builder, builder.start(train, {}, builder.seed), every=1)
    losses = [value for _, value in outcome.history["loss"]]
    assert losses[-1] < 0.5 * losses[0]
    vectors = builder.embed(train, outcome.product)
    assert vectors.shape == (len(train), 16 * 4 * 4)
    means = torch.stack([vectors[rows].mean(0) for rows in train.class_indices])
    nearest = torch.cdist(vectors, means).argmin(1)
    assert (nearest == train.labels).float().mean() > 0.9


def test_one_seed_gives_one_network(train):
    builder = Embedding(width=8, depth=2, epochs=1)
    first, second = (loop.run(builder, builder.start(train, {}, 3)).product for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
