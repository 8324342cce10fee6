"""The teacher whose answers take the place of labels: one network trained on the real training set, then frozen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.pretraining.embedding import Training

STREAM = "teacher"
"""First name of every random stream of its training, which shares none with the students'."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network trained on the real training set, one step an epoch: SGD with a constant learning rate and DSA.

    DD-Ranking has pretrained teachers; that each data set has one, of the students' own kind, trained here once with a
    fixed seed and asked by all rows of a table, is this project's choice.

    Args:
        network, options: of `ddlib.models`.
        epochs: passes over the training set, >= 1.
        batch_size, lr, momentum, weight_decay: of its SGD.
        augmentation: whether with the data set's DSA, one family a mini-batch, as students have it.
        seed: of its weights, shuffles and augmentation.

    Raises:
        ValueError: an argument is not as above.
    """

    name: ClassVar[str] = "teacher"
    version: ClassVar[int] = 1
    network: str = "convnet"
    options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 50
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: bool = True
    seed: int = 0

    def __post_init__(self):
        if self.network not in models.names():
            raise ValueError(f"unknown network {self.network!r} of the teacher; known: {', '.join(models.names())}")
        for name, low in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} of the teacher must be an integer of at least {low}, got {value!r}")
        allowed = {"lr": (0, math.inf), "momentum": (0, 1), "weight_decay": (0, math.inf)}
        for name, (low, high) in allowed.items():
            value = getattr(self, name)
            if isinstance(value, str | bool) or not low <= value < high or (name == "lr" and not value):
                raise ValueError(f"{name} of the teacher must be a number from {low} to below {high}, got {value!r}")
        if not isinstance(self.augmentation, bool):
            raise ValueError(f"augmentation of the teacher must be True or False, got {self.augmentation!r}")

    @property
    def iterations(self) -> int:
        """One step an epoch."""
        return self.epochs

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """An untrained network."""
        network = self._built(train, seeding.generator(seed, STREAM, "network")).train()
        settings = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return Training(train, seed, network, torch.optim.SGD(network.parameters(), **settings))

    def step(self, state: Training) -> dict[str, Tensor]:
        """One epoch; returns the mean training loss over the (augmented) images."""
        train, total = state.train, torch.zeros((), device=state.train.device)
        order = torch.randperm(len(train), generator=seeding.generator(state.seed, STREAM, "shuffle", state.step))
        stream = seeding.generator(state.seed, STREAM, "augmentation", state.step)
        noise = seeding.scoped(state.seed, STREAM, "dropout", state.step)
        with noise:
            for rows in order.to(train.device).split(self.batch_size):
                images = self._augmented(train.take(rows), train.name, stream)
                loss = F.cross_entropy(state.network(images), train.labels[rows])
                state.optimizer.zero_grad()
                loss.backward()
                state.optimizer.step()
                total += loss.detach() * len(rows)
        state.step += 1
        return {"loss": total / len(order)}

    def finish(self, state: Training) -> dict[str, Tensor]:
        """The network's parameters and buffers by name."""
        return {key: value.detach().clone() for key, value in state.network.state_dict().items()}

    def frozen(self, images: ImageSet, weights: Mapping[str, Tensor]) -> nn.Module:
        """The trained network in evaluation mode, for such images and on their device; nothing of it learns."""
        network = self._built(images, seeding.generator(0)).eval()
        network.load_state_dict(weights)
        return network.requires_grad_(False)

    def _built(self, images: ImageSet, stream: torch.Generator) -> nn.Module:
        of = {"shape": images.shape, "num_classes": images.num_classes, "generator": stream}
        return models.build(self.network, **of, **self.options).to(images.device)

    def _augmented(self, images: Tensor, dataset: str, stream: torch.Generator) -> Tensor:
        if not self.augmentation:
            return images
        of = {"size": tuple(images.shape[-2:]), "strategy": augmentation.strategy_for(dataset)}
        return augmentation.augment(images, augmentation.draw(1, len(images), generator=stream, **of))
