"""Networks trained to classify the real training set: what coresets choose in, and teachers of soft labels."""

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
from ddlib.pretraining.prerequisite import Prerequisite


@dataclass
class Training:
    """State of a classifier: a network in training, one step an epoch."""

    train: ImageSet
    seed: int
    network: nn.Module
    optimizer: torch.optim.SGD
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters, buffers, momentum and the step."""
        momenta = {
            f"momentum.{i}": self.optimizer.state[p]["momentum_buffer"]
            for i, p in enumerate(self.network.parameters())
            if self.optimizer.state.get(p)
        }
        network = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        return {"step": torch.tensor(self.step)} | network | momenta

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = int(saved["step"])
        weights = {key.removeprefix("network."): value for key, value in saved.items() if key.startswith("network.")}
        self.network.load_state_dict(weights)
        for i, parameter in enumerate(self.network.parameters()):
            if f"momentum.{i}" in saved:
                buffer = saved[f"momentum.{i}"].to(parameter.device).clone()
                self.optimizer.state[parameter]["momentum_buffer"] = buffer


class Classifier(Prerequisite):
    """A builder of a network, trained by SGD with a constant learning rate; a subclass has the settings as fields.

    Every random stream begins with the builder's name, so that an embedding, a teacher and its students share none.
    """

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
        network = self._network(images, seeding.generator(0)).eval()
        network.load_state_dict(weights)
        return network.requires_grad_(False)

    def _network(self, images: ImageSet, stream: torch.Generator) -> nn.Module:
        raise NotImplementedError

    def _augmented(self, images: Tensor, dataset: str, stream: torch.Generator) -> Tensor:
        return images


@dataclass(frozen=True, kw_only=True)
class Embedding(Classifier):
    """A ConvNet trained on the real training set without augmentation, whose pooled features coresets choose in.

    The papers do not say which extractor their Herding and K-Center columns used; one network, trained once with a
    fixed seed and shared by all coresets of a data set, is this project's choice.

    width, depth: of the ConvNet; None keeps its default.
    epochs: passes over the training set, >= 1.
    batch_size, lr, momentum, weight_decay: of its SGD.
    seed: of its weights and shuffles, the same for every cell.
    """

    name: ClassVar[str] = "embedding"
    version: ClassVar[int] = 1
    width: int | None = None
    depth: int | None = None
    epochs: int = 20
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    @torch.no_grad()
    def embed(self, train: ImageSet, weights: Mapping[str, Tensor]) -> Tensor:
        """Embeddings of every image of `train` under the trained network: (N, F) float32."""
        network = self.frozen(train, weights)
        rows = torch.arange(len(train), device=train.device).split(self.batch_size)
        return torch.cat([network.features(train.take(r)).embedding for r in rows])

    def _network(self, images: ImageSet, stream: torch.Generator) -> nn.Module:
        options = {key: value for key, value in {"width": self.width, "depth": self.depth}.items() if value is not None}
        network = models.build(
            "convnet", shape=images.shape, num_classes=images.num_classes, generator=stream, **options
        )
        return network.to(images.device)


@dataclass(frozen=True, kw_only=True)
class Teacher(Classifier):
    """A network whose answers take the place of labels: trained on the real training set with DSA, then frozen.

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

    def _network(self, images: ImageSet, stream: torch.Generator) -> nn.Module:
        network = models.build(
            self.network, shape=images.shape, num_classes=images.num_classes, generator=stream, **self.options
        )
        return network.to(images.device)

    def _augmented(self, images: Tensor, dataset: str, stream: torch.Generator) -> Tensor:
        if not self.augmentation:
            return images
        strategy, size = augmentation.strategy_for(dataset), tuple(images.shape[-2:])
        return augmentation.augment(
            images, augmentation.draw(1, len(images), size=size, strategy=strategy, generator=stream)
        )
