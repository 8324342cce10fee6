"""Learning the pixels of synthetic images: what feature and gradient matching share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import coresets
from ddlib.methods.contract import Method
from ddlib.models.layers import BatchNorm2d
from ddlib.models.state import State
from ddlib.pretraining.classifier import Embedding

INITS = ("real", "noise", "herding")
PRECISIONS = ("float32", "bfloat16")

PIECE_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Size of the largest map of a piece: a CPU works out of its cache, a GPU out of its memory."""


@dataclass
class PixelState(State):
    """What changes while pixels are learnt.

    images: (K*m, C, H, W) float32 in the space of `train`, class-major, requires grad.
    velocity: the momentum buffer, of the same shape.
    network: the network of the current step; whoever needs it re-draws it.
    forward: (b, C, H, W) -> the network's vectors of b images; set by the methods that match such.
    batch_real: real images per class and step.
    piece: images that pass the network together, where its norm lets them pass apart; None: all.
    step: pixel steps taken.
    """

    train: ImageSet
    seed: int
    images: Tensor
    velocity: Tensor
    network: nn.Module
    strategy: str
    rows_by_class: tuple[Tensor, ...]
    batch_real: int
    piece: int | None
    forward: Callable[[Tensor], list[Tensor]] | None = None
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class PixelMatching(Method):
    """Settings that every method with learnable pixels has.

    ipc: images per class, m >= 1.
    batch_real: real images per class and step, n >= 1; capped at the size of the smallest class.
    lr_images: step size of the pixels, > 0.
    momentum: of the pixels' SGD, in [0, 1).
    init: "real" (random real images), "noise" (standard normal), "herding" (the herding coreset).
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    network, norm, width, depth: the network matched in; None keeps the network's default.
    precision: of convolutions and products; statistics, losses and pixels are float32 always.
    """

    ipc: int
    batch_real: int = 256
    lr_images: float = 1.0
    momentum: float = 0.5
    init: str = "real"
    strategy: str | None = None
    network: str = "convnet"
    norm: str = "instance"
    width: int | None = None
    depth: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        self.require("ipc batch_real", lambda value: value >= 1, ">= 1")
        self.require("lr_images", lambda value: value > 0, "> 0")
        self.require("momentum", lambda value: 0 <= value < 1, "in [0, 1)")
        self.require("network", lambda value: value in models.names(), f"one of {', '.join(models.names())}")
        self.require("init", lambda value: value in INITS, f"one of {', '.join(INITS)}")
        self.require("precision", lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}")

    @property
    def needs(self) -> Mapping[str, Any]:
        """The embedding network, for `init="herding"`."""
        return {"embedding": Embedding(width=self.width, depth=self.depth)} if self.init == "herding" else {}

    @property
    def network_options(self) -> dict[str, Any]:
        """Options of `ddlib.models.build` that this method sets."""
        options = {"norm": self.norm, "width": self.width, "depth": self.depth}
        known = models.options_of(self.network)
        return {key: value for key, value in options.items() if value is not None and key in known}

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> PixelState:
        """Initial images, and a network that is not drawn yet.

        Raises:
            ValueError: `ipc` outside the class sizes, or an unknown network, option or DSA family.
        """
        images = self.initial_images(train, prerequisites, seed).contiguous().requires_grad_()
        rows = tuple(rows.cpu() for rows in train.class_indices)
        network = models.build(
            self.network,
            shape=train.shape,
            num_classes=train.num_classes,
            generator=seeding.generator(seed, "network", 0),
            **self.network_options,
        ).to(train.device)
        if has_batch_statistics(network):  # pieces cannot stay in the cache; channels last is then the faster format
            network = network.to(memory_format=torch.channels_last)
        strategy = augmentation.strategy_for(train.name) if self.strategy is None else self.strategy
        size = train.shape[1:]
        augmentation.draw(1, 1, size=size, strategy=strategy, generator=torch.Generator())  # refuses unknown families
        batch = min(self.batch_real, *(len(r) for r in rows))
        piece = piece_size(network, images[:1])
        return PixelState(train, seed, images, torch.zeros_like(images), network, strategy, rows, batch, piece)

    def initial_images(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Tensor:
        """The images before the first step, (K*m, C, H, W) in the space of `train`, class-major."""
        coresets.check_ipc(self.ipc, train)
        if self.init == "noise":
            shape = (train.num_classes * self.ipc, *train.shape)
            return torch.randn(shape, generator=seeding.generator(seed, "init")).to(train.device)
        if self.init == "herding":
            vectors = self.needs["embedding"].embed(train, prerequisites["embedding"])
            return train.take(coresets.rows_by_class(train, vectors, lambda v: coresets.herd(v, self.ipc)))
        return train.take(coresets.random_rows(train, self.ipc, seed))

    def descend(self, state: PixelState, gradient: Tensor) -> None:
        """One step of SGD with momentum on the pixels, in place; no decay, no clamping."""
        with torch.no_grad():
            state.velocity.mul_(self.momentum).add_(gradient)
            state.images.sub_(state.velocity, alpha=self.lr_images)
        state.step += 1

    def finish(self, state: PixelState) -> SyntheticSet:
        """The images as they stand, with labels, value space and where they came from."""
        train = state.train
        provenance = {"method": self.name, "seed": state.seed, "dataset": train.name, "iterations": state.step}
        return SyntheticSet(
            images=state.images.detach().clone(),
            labels=coresets.class_major_labels(train, self.ipc),
            class_names=train.class_names,
            space=train.space,
            strategy=augmentation.strategy_for(train.name) if self.strategy is None else self.strategy,
            provenance=provenance | {"batch_real": state.batch_real},
        )

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which the network runs: bfloat16 products where `precision` says so."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether images that pass `network` together influence one another in training mode."""
    return any(isinstance(module, BatchNorm2d) for module in network.modules())


@torch.no_grad()
def piece_size(network: nn.Module, image: Tensor) -> int | None:
    """How many images pass `network` at a time so that its largest map stays within `PIECE_BYTES`.

    None for a network with batch statistics, whose batch must not be cut.
    """
    if has_batch_statistics(network):
        return None
    largest = max((m.numel() for m in network.features(image).maps), default=image.numel())
    return max(1, PIECE_BYTES.get(image.device.type, PIECE_BYTES["cuda"]) // (4 * largest))


def real_batch(state: PixelState) -> Tensor:
    """n real images of each class, drawn without replacement for this step: (K*n, C, H, W), class-major."""
    stream = seeding.generator(state.seed, "real", state.step)
    n = state.batch_real
    rows = [rows[torch.randperm(len(rows), generator=stream)[:n]] for rows in state.rows_by_class]
    return state.train.take(torch.cat(rows).to(state.train.device))


def siamese(state: PixelState, *batches: Tensor) -> list[Tensor]:
    """DSA with one draw a class and step, shared by that class's images in every batch (Zhao & Bilen 2021, siamese).

    Args:
        batches: class-major tensors (K*n, C, H, W), n of any size.
    """
    K = state.train.num_classes
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(K, 1, size=state.train.shape[1:], strategy=state.strategy, generator=stream)
    classes = torch.arange(K)
    return [augmentation.augment(x, draws.rows(classes.repeat_interleave(len(x) // K))) for x in batches]
