"""The embedding in which coresets choose: one network trained on the whole real training set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data.datasets import ImageSet


@dataclass
class Training:
    """State of `Embedding`: a network in training, one step an epoch."""

    train: ImageSet
    seed: int
    network: nn.Module
    optimizer: torch.optim.SGD
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters, their momentum buffers and the step."""
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


@dataclass(frozen=True, kw_only=True)
class Embedding:
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

    @property
    def iterations(self) -> int:
        """One step an epoch."""
        return self.epochs

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """An untrained network."""
        network = self._network(train, seeding.generator(seed, "embedding", "network"))
        optimizer = torch.optim.SGD(
            network.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )
        return Training(train, seed, network, optimizer)

    def step(self, state: Training) -> dict[str, Tensor]:
        """One epoch; returns the mean training loss."""
        stream = seeding.generator(state.seed, "embedding", "shuffle", state.step)
        order = torch.randperm(len(state.train), generator=stream).to(state.train.device)
        state.network.train()
        total = torch.zeros((), device=state.train.device)
        for rows in order.split(self.batch_size):
            loss = F.cross_entropy(state.network(state.train.take(rows)), state.train.labels[rows])
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            total += loss.detach() * len(rows)
        state.step += 1
        return {"loss": total / len(order)}

    def finish(self, state: Training) -> dict[str, Tensor]:
        """The network's parameters and buffers by name."""
        return {key: value.detach().clone() for key, value in state.network.state_dict().items()}

    @torch.no_grad()
    def embed(self, train: ImageSet, weights: Mapping[str, Tensor]) -> Tensor:
        """Embeddings of every image of `train` under the trained network: (N, F) float32."""
        network = self._network(train, seeding.generator(0)).eval()
        network.load_state_dict(weights)
        rows = torch.arange(len(train), device=train.device).split(self.batch_size)
        return torch.cat([network.features(train.take(r)).embedding for r in rows])

    def _network(self, train: ImageSet, stream: torch.Generator) -> nn.Module:
        options = {key: value for key, value in {"width": self.width, "depth": self.depth}.items() if value is not None}
        network = models.build("convnet", shape=train.shape, num_classes=train.num_classes, generator=stream, **options)
        return network.to(train.device)
