"""Networks trained to classify the real training set: what coresets choose in, and teachers of soft labels."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.models.passes import known_options
from ddlib.models.state import State
from ddlib.pretraining import Prerequisite


@dataclass
class Training(State):
    """State of a classifier: a network in training, one step an epoch."""

    train: ImageSet
    seed: int
    network: nn.Module
    optimizer: torch.optim.SGD
    step: int = 0


class Classifier(Prerequisite):
    """A builder of a network, trained by SGD with a constant learning rate; a subclass has the settings as fields.

    Every random stream begins with the builder's name, so that an embedding, a teacher and its students share none.
    """

    sweeps: ClassVar[bool] = True

    @property
    def iterations(self) -> int:
        """One step an epoch."""
        return self.epochs

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """An untrained network."""
        network = self._network(train, seeding.generator(seed, self.name, "network")).train()
        optimizer = torch.optim.SGD(
            network.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return Training(train, seed, network, optimizer)

    def step(self, state: Training) -> dict[str, Tensor]:
        """One epoch; returns the mean cross-entropy over its images, as they were augmented."""
        train, total = state.train, torch.zeros((), device=state.train.device)
        order = torch.randperm(len(train), generator=seeding.generator(state.seed, self.name, "shuffle", state.step))
        stream = seeding.generator(state.seed, self.name, "augmentation", state.step)
        with seeding.scoped(state.seed, self.name, "dropout", state.step):
            for rows in order.to(train.device).split(self.batch_size):
                images = train.take(rows)
                if self.augmentation:  # one family a mini-batch, parameters of its own for each image
                    strategy = augmentation.strategy_for(train.name)
                    draws = augmentation.draw(1, len(rows), size=train.shape[1:], strategy=strategy, generator=stream)
                    images = augmentation.augment(images, draws)
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
        network = self._network(images, seeding.generator(0)).eval()
        network.load_state_dict(weights)
        return network.requires_grad_(False)

    def _network(self, images: ImageSet, stream: torch.Generator) -> nn.Module:
        network = models.build(
            self.network, shape=images.shape, num_classes=images.num_classes, generator=stream, **self.options
        )
        return network.to(images.device)


@dataclass(frozen=True, kw_only=True)
class Embedding(Classifier):
    """A ConvNet trained on the real training set without augmentation, whose pooled features coresets choose in.

    The papers do not say which extractor their Herding and K-Center columns used; one network, trained once with a
    fixed seed and shared by all coresets of a data set, is this project's choice.
    """

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    network: ClassVar[str] = "convnet"
    augmentation: ClassVar[bool] = False
    width: int | None = None
    depth: int | None = None
    epochs: int = 20
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    @property
    def options(self) -> dict[str, int]:
        """Width and depth, where they are given."""
        return known_options(self.network, width=self.width, depth=self.depth)

    @torch.no_grad()
    def embed(self, train: ImageSet, weights: Mapping[str, Tensor]) -> Tensor:
        """Embeddings of every image of `train` under the trained network: (N, F) float32."""
        network = self.frozen(train, weights)
        rows = torch.arange(len(train), device=train.device).split(self.batch_size)
        return torch.cat([network.features(train.take(r)).embedding for r in rows])


@dataclass(frozen=True, kw_only=True)
class Teacher(Classifier):
    """A network whose answers take the place of labels: trained on the real training set with DSA, then frozen.

    DD-Ranking has pretrained teachers; that each data set has one, of the students' own kind, trained here once with a
    fixed seed and asked by all rows of a table, is this project's choice.

    network, options: as `ddlib.models.build` takes them.
    augmentation: whether with the data set's DSA, one family a mini-batch, as students have it.
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
        def between(low: float, high: float) -> Callable[[Any], bool]:
            return lambda value: type(value) in (int, float) and low <= value < high

        self.require("network", models.known, f"one of {', '.join(models.names())}, or dotted")
        self.require("epochs batch_size", lambda value: type(value) is int and value >= 1, "an integer >= 1")
        self.require("seed", lambda value: type(value) is int and value >= 0, "an integer >= 0")
        self.require("lr", between(math.ulp(0), math.inf), "a number > 0")
        self.require("momentum", between(0, 1), "a number in [0, 1)")
        self.require("weight_decay", between(0, math.inf), "a number >= 0")
        self.require("augmentation", lambda value: type(value) is bool, "True or False")
