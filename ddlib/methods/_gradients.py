"""What DC and DSA share: matching the gradients of a network that is trained on the synthetic images meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _pixels as pixels
from ddlib.methods import _selection as selection
from ddlib.methods import objectives
from ddlib.models.passes import at_least_float32

LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""IPC -> (T, zeta): matching steps a network, and epochs of training between them."""

STATISTICS_BATCH = 16
"""Real images a class from which a BatchNorm network takes its running statistics before it is frozen."""


@dataclass(frozen=True, kw_only=True)
class GradientMatching(pixels.PixelMatching):
    """Match, class by class, the gradients that real and synthetic images give the same weights.

    For each of `restarts` networks, T times: one pixel step on sum_k D(g_syn,k, g_real,k), with D the distance of
    `objectives.gradient_distance`; then, but for the last time, zeta epochs of training of the network on the
    synthetic images (SGD without momentum).  One `step` is one of the restarts x T pixel steps.

    restarts: networks in all, >= 1.
    matching_steps: T >= 1; None takes the published value for `ipc` (1, 10, 20, 30, 40 or 50).
    network_epochs: zeta >= 1; None likewise.
    lr_network: of the network's SGD, > 0.
    batch_network: its batch size, >= 1.
    """

    augmented: ClassVar[bool] = False
    restarts: int = 1_000
    matching_steps: int | None = None
    network_epochs: int | None = None
    lr_images: float = 0.1
    lr_network: float = 0.01
    batch_network: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, published in zip(("matching_steps", "network_epochs"), LOOPS.get(self.ipc, (None,) * 2), strict=True):
            if getattr(self, name) is None:
                known = ", ".join(map(str, LOOPS))
                pixels.require(name, None, published is not None, f"given at ipc={self.ipc}; published for ipc {known}")
                object.__setattr__(self, name, published)
            pixels.require(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("restarts", "batch_network"):
            pixels.require(name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        pixels.require("lr_network", self.lr_network, self.lr_network > 0, "> 0")

    @property
    def iterations(self) -> int:
        """Pixel steps in all: restarts x T."""
        return self.restarts * self.matching_steps

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> pixels.PixelState:
        """Initial images and an undrawn network."""
        state = pixels.start(self, train, prerequisites, seed)
        if not self.augmented:
            state.strategy = "none"
        return state

    def step(self, state: pixels.PixelState) -> dict[str, Tensor]:
        """One matching step and, unless the network's time is up, its training; returns the distance before it."""
        loss, gradient = self.slope(state)
        trained = (state.step + 1) % self.matching_steps > 0
        pixels.descend(self, state, gradient)
        if trained:
            self.train_network(state)
        return {"loss": loss}

    def slope(self, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
        """The distance of this step, and its gradient in the synthetic images; a restart draws its network here."""
        if state.step % self.matching_steps == 0:
            restart = state.step // self.matching_steps
            models.reset(state.network, seeding.generator(state.seed, "network", restart))
        freeze_statistics(state)
        real, syn = pixels.siamese(state, pixels.real_batch(state), state.images)
        targets = [g.detach() for g in self.class_gradients(state, real)]
        loss = objectives.gradient_distance(targets, self.class_gradients(state, syn)).sum()
        (gradient,) = torch.autograd.grad(loss, state.images)
        return loss.detach(), gradient

    def finish(self, state: pixels.PixelState) -> SyntheticSet:
        """The images as they stand."""
        return pixels.finish(self, state)

    def class_gradients(self, state: pixels.PixelState, images: Tensor) -> list[Tensor]:
        """Cross-entropy gradients of each class of a class-major batch: one (K, *shape) tensor a parameter."""
        parameters = {name: p.detach() for name, p in state.network.named_parameters()}
        K = state.train.num_classes

        def loss(parameters: dict[str, Tensor], batch: Tensor, label: Tensor) -> Tensor:
            with pixels.autocast(self, batch.device):
                logits = functional_call(state.network, parameters, (batch,))
            return F.cross_entropy(at_least_float32(logits), label.expand(len(batch)))

        labels = torch.arange(K, device=images.device)
        together = max(1, state.piece * K // len(images)) if state.piece else None  # classes a pass
        found = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=together)(
            parameters, images.unflatten(0, (K, -1)), labels
        )
        return list(found.values())

    def train_network(self, state: pixels.PixelState) -> None:
        """zeta epochs of SGD on the synthetic images as they stand."""
        images, labels = state.images.detach(), selection.class_major_labels(state.train, self.ipc)
        optimizer = torch.optim.SGD(state.network.parameters(), lr=self.lr_network)
        stream = seeding.generator(state.seed, "training", state.step)
        size = tuple(state.train.shape[1:])
        state.network.train()
        for _ in range(self.network_epochs):
            for rows in torch.randperm(len(images), generator=stream).split(self.batch_network):
                draws = augmentation.draw(1, len(rows), size=size, strategy=state.strategy, generator=stream)
                batch = augmentation.augment(images[rows.to(images.device)], draws)
                with pixels.autocast(self, images.device):
                    logits = state.network(batch)
                optimizer.zero_grad()
                F.cross_entropy(at_least_float32(logits), labels[rows.to(labels.device)]).backward()
                optimizer.step()


@torch.no_grad()
def freeze_statistics(state: pixels.PixelState) -> None:
    """BatchNorm networks: update running statistics from real images, 16 a class, and match with them, frozen.

    As published: one pass in training mode, which moves the statistics a tenth of the way (the layers' momentum).
    """
    if pixels.has_batch_statistics(state.network):
        stream = seeding.generator(state.seed, "statistics", state.step)
        rows = [r[torch.randperm(len(r), generator=stream)[:STATISTICS_BATCH]] for r in state.rows_by_class]
        state.network.train()
        state.network(state.train.take(torch.cat(rows).to(state.train.device)))
    state.network.eval()
