"""Gradient matching: DC and DSA make synthetic images pull at a network's weights as real images do.

The network is trained on the synthetic images meanwhile, so that its gradients are matched along its training.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.methods import coresets, objectives, pixels
from ddlib.methods.contract import require
from ddlib.methods.pixels import PixelMatching, PixelState
from ddlib.models.passes import at_least_float32, has_batch_statistics

PUBLISHED = {
    "matching_steps": {1: 1, 10: 10, 20: 20, 30: 30, 40: 40, 50: 50},
    "network_epochs": {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10},
}
"""T, matching steps a network, and zeta, epochs of training between them, by images per class."""

STATISTICS_BATCH = 16
"""Real images a class from which a BatchNorm network takes its running statistics before it is frozen."""


@dataclass(frozen=True, kw_only=True)
class GradientMatching(PixelMatching):
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

    restarts: int = 1_000
    matching_steps: int | None = None
    network_epochs: int | None = None
    lr_images: float = 0.1
    lr_network: float = 0.01
    batch_network: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, published in PUBLISHED.items():
            if getattr(self, name) is None:
                known = ", ".join(map(str, published))
                require(name, None, self.ipc in published, f"given at ipc={self.ipc}; published for ipc {known}")
                object.__setattr__(self, name, published[self.ipc])
        self.check(">= 1", "matching_steps", "network_epochs", "restarts", "batch_network")
        self.check("> 0", "lr_network")

    @property
    def iterations(self) -> int:
        """Pixel steps in all: restarts x T."""
        return self.restarts * self.matching_steps

    def step(self, state: PixelState) -> dict[str, Tensor]:
        """One pixel step and, unless the network's time is up, its training; returns the distance before it."""
        metrics, gradient = self.loss_and_gradient(state)
        self.descend(state, gradient)
        if state.step % self.matching_steps > 0:
            self.train_network(state)
        return metrics

    def loss_and_gradient(self, state: PixelState) -> tuple[dict[str, Tensor], Tensor]:
        """The distance, as a metric, and its gradient in the synthetic images; a restart draws its network here."""
        if state.step % self.matching_steps == 0:
            restart = state.step // self.matching_steps
            models.reset(state.network, seeding.generator(state.seed, "network", restart))
        freeze_statistics(state)
        sizes = pixels.real_sizes(state)
        real, syn = pixels.siamese(state, pixels.real_batch(state), state.images, sizes=sizes)  # (K*n, ...), (K*m, ...)
        targets = [g.detach() for g in self.class_gradients(state, real, sizes)]
        loss = objectives.gradient_distance(targets, self.class_gradients(state, syn)).sum()
        (gradient,) = torch.autograd.grad(loss, state.images)
        return {"loss": loss.detach()}, gradient

    def class_gradients(self, state: PixelState, images: Tensor, sizes: Sequence[int] | None = None) -> list[Tensor]:
        """Cross-entropy gradients of each class of a class-major batch: one (K, *shape) tensor a parameter.

        Small classes, equally many images each, go together under `torch.vmap`; each goes alone where `sizes` says how
        many it has, and where one fills a good part of a pass on a CPU, since grouped convolutions take longer there.
        """
        parameters = {name: p.detach() for name, p in state.network.named_parameters()}
        K = state.train.num_classes

        def loss(parameters: dict[str, Tensor], batch: Tensor, label: Tensor) -> Tensor:
            with self.autocast(batch.device):
                logits = functional_call(state.network, parameters, (batch,))
            return F.cross_entropy(at_least_float32(logits), label.expand(len(batch)))

        labels, size = torch.arange(K, device=images.device), len(images) // K
        if sizes or (state.piece and 4 * size >= state.piece and images.device.type == "cpu"):
            leaves = {name: p.requires_grad_() for name, p in parameters.items()}
            losses = map(partial(loss, leaves), images.split(sizes or size), labels)
            recorded = {"create_graph": images.requires_grad}
            by_class = [torch.autograd.grad(value, [*leaves.values()], **recorded) for value in losses]
            return [torch.stack(each) for each in zip(*by_class, strict=True)]
        together = max(1, state.piece * K // len(images)) if state.piece else None  # classes a pass
        gradients = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=together)
        return list(gradients(parameters, images.unflatten(0, (K, -1)), labels).values())

    def train_network(self, state: PixelState) -> None:
        """zeta epochs of SGD on the synthetic images as they stand."""
        images, labels = state.images.detach(), coresets.class_major_labels(state.train, self.ipc)
        optimizer = torch.optim.SGD(state.network.parameters(), lr=self.lr_network)
        stream = seeding.generator(state.seed, "training", state.step)
        size = tuple(state.train.shape[1:])
        state.network.train()
        for _ in range(self.network_epochs):
            for rows in torch.randperm(len(images), generator=stream).split(self.batch_network):
                draws = augmentation.draw(1, len(rows), size=size, strategy=state.strategy, generator=stream)
                batch = augmentation.augment(images[rows.to(images.device)], draws)
                with self.autocast(images.device):
                    logits = state.network(batch)
                optimizer.zero_grad()
                F.cross_entropy(at_least_float32(logits), labels[rows.to(labels.device)]).backward()
                optimizer.step()


@torch.no_grad()
def freeze_statistics(state: PixelState) -> None:
    """BatchNorm networks: update running statistics from real images, 16 a class, and match with them, frozen.

    As published: one pass in training mode, which moves the statistics a tenth of the way (the layers' momentum).
    """
    if has_batch_statistics(state.network):
        stream = seeding.generator(state.seed, "statistics", state.step)
        rows = [r[torch.randperm(len(r), generator=stream)[:STATISTICS_BATCH]] for r in state.rows_by_class]
        state.network.train()
        state.network(state.train.take(torch.cat(rows).to(state.train.device)))
    state.network.eval()


@dataclass(frozen=True, kw_only=True)
class DC(GradientMatching):
    """DC, dataset condensation (Zhao et al., ICLR 2021): from Gaussian noise, without augmentation while matching.

    Defaults: 1,000 restarts, n = 256, lr_images 0.1, T and zeta by images per class.

    Deviation: evaluated under the one protocol of this package (DSA, 1,000 epochs), not under DC's own (300 epochs,
    none); the published code's restarts end after the T-th pixel step, as here.
    """

    name: ClassVar[str] = "dc"
    version: ClassVar[int] = 1
    augmented: ClassVar[bool] = False
    init: str = "noise"


@dataclass(frozen=True, kw_only=True)
class DSA(GradientMatching):
    """DSA (Zhao & Bilen, ICML 2021): from real images, with one DSA draw a class for real and synthetic images alike.

    Defaults: as DC, but real initial images, and DSA in matching, in the network's training and in evaluation.
    """

    name: ClassVar[str] = "dsa"
    version: ClassVar[int] = 1
