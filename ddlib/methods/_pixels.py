"""What the methods that move the pixels of synthetic images share: settings, state, draws and the pixel step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _selection as selection
from ddlib.methods.herding import herd
from ddlib.models.layers import BatchNorm2d
from ddlib.pretraining.classifier import Embedding

INITS = ("real", "noise", "herding")
PRECISIONS = ("float32", "bfloat16")

PIECE_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Size of the largest map of a piece: a CPU works out of its cache, a GPU out of its memory."""


@dataclass(frozen=True, kw_only=True)
class PixelMatching:
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

    whitened: ClassVar[tuple[str, ...]] = ()
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
        require("ipc", self.ipc, self.ipc >= 1, ">= 1")
        require("batch_real", self.batch_real, self.batch_real >= 1, ">= 1")
        require("lr_images", self.lr_images, self.lr_images > 0, "> 0")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        require("network", self.network, self.network in models.names(), f"one of {', '.join(models.names())}")
        require("init", self.init, self.init in INITS, f"one of {', '.join(INITS)}")
        require("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")

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


def require(name: str, value: Any, holds: bool, allowed: str) -> None:
    """Raise a ValueError that names the setting, its value and what is allowed, unless `holds`."""
    if not holds:
        raise ValueError(f"{name}={value!r}; it must be {allowed}")


@dataclass
class PixelState:
    """What changes while pixels are learnt.

    images: (K*m, C, H, W) float32 in the space of `train`, class-major, requires grad.
    velocity: the momentum buffer, of the same shape.
    network: the network of the current step; whoever needs it re-draws it.
    forward: (b, C, H, W) -> the network's vectors of b images; set by the methods that match such.
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

    def state_dict(self) -> dict[str, Tensor]:
        """Images, momentum, step, and the network's parameters and buffers."""
        network = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        return {"images": self.images.detach(), "velocity": self.velocity, "step": torch.tensor(self.step)} | network

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        with torch.no_grad():
            self.images.copy_(saved["images"])
            self.velocity.copy_(saved["velocity"])
        self.step = int(saved["step"])
        prefix = "network."
        self.network.load_state_dict({k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})


def start(method: PixelMatching, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> PixelState:
    """The state before the first step: initial images, an undrawn network, and the rows of each class.

    Raises:
        ValueError: `ipc` outside the class sizes, or an unknown network, option or DSA family.
    """
    images = initial_images(method, train, prerequisites, seed).contiguous().requires_grad_()
    rows = tuple(rows.cpu() for rows in train.class_indices)
    network = models.build(
        method.network,
        shape=train.shape,
        num_classes=train.num_classes,
        generator=seeding.generator(seed, "network", 0),
        **method.network_options,
    ).to(train.device)
    if has_batch_statistics(network):  # pieces cannot stay in the cache; channels last is then the faster format
        network = network.to(memory_format=torch.channels_last)
    strategy = augmentation.strategy_for(train.name) if method.strategy is None else method.strategy
    augmentation.draw(
        1, 1, size=train.shape[1:], strategy=strategy, generator=torch.Generator()
    )  # refuses unknown families
    batch = min(method.batch_real, *(len(r) for r in rows))
    piece = piece_size(network, images[:1])
    return PixelState(train, seed, images, torch.zeros_like(images), network, strategy, rows, batch, piece)


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


def initial_images(method: PixelMatching, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Tensor:
    """The images before the first step, (K*m, C, H, W) in the space of `train`, class-major."""
    selection.check_ipc(method.ipc, train)
    if method.init == "noise":
        shape = (train.num_classes * method.ipc, *train.shape)
        return torch.randn(shape, generator=seeding.generator(seed, "init")).to(train.device)
    if method.init == "herding":
        vectors = method.needs["embedding"].embed(train, prerequisites["embedding"])
        return train.take(selection.rows_by_class(train, vectors, lambda v: herd(v, method.ipc)))
    return train.take(selection.random_rows(train, method.ipc, seed))


def real_batch(state: PixelState) -> Tensor:
    """n real images of each class, drawn without replacement for this step: (K*n, C, H, W), class-major."""
    stream = seeding.generator(state.seed, "real", state.step)
    n = state.batch_real
    rows = [rows[torch.randperm(len(rows), generator=stream)[:n]] for rows in state.rows_by_class]
    return state.train.take(torch.cat(rows).to(state.train.device))


def siamese(state: PixelState, *batches: Tensor) -> list[Tensor]:
    """DSA with one draw a class and step, shared by that class's images in every batch (atom.md, Siamese).

    Args:
        batches: class-major tensors (K*n, C, H, W), n of any size.
    """
    K = state.train.num_classes
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(K, 1, size=state.train.shape[1:], strategy=state.strategy, generator=stream)
    classes = torch.arange(K)
    return [augmentation.augment(x, draws.rows(classes.repeat_interleave(len(x) // K))) for x in batches]


def autocast(method: PixelMatching, device: torch.device) -> torch.autocast:
    """The context in which the network runs: bfloat16 products where `method.precision` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=method.precision == "bfloat16")


def in_pieces(method: PixelMatching, state: PixelState, images: Tensor) -> list[Tensor]:
    """`state.forward` over a batch, in pieces where the network allows it.

    Without batch statistics an image's vectors depend on that image alone, so the pieces change nothing but speed.

    Args:
        images: (B, C, H, W).

    Returns:
        What `state.forward` gives for the whole batch.
    """
    pieces = [images] if state.piece is None else images.split(state.piece)
    with autocast(method, images.device):
        found = [state.forward(piece) for piece in pieces]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def descend(method: PixelMatching, state: PixelState, gradient: Tensor) -> None:
    """One step of SGD with momentum on the pixels, in place; no decay, no clamping."""
    with torch.no_grad():
        state.velocity.mul_(method.momentum).add_(gradient)
        state.images.sub_(state.velocity, alpha=method.lr_images)
    state.step += 1


def finish(method: PixelMatching, state: PixelState) -> SyntheticSet:
    """The images as they stand, with labels, value space and where they came from."""
    made = {"method": method.name, "seed": state.seed, "dataset": state.train.name, "iterations": state.step}
    return SyntheticSet(
        images=state.images.detach().clone(),
        labels=selection.class_major_labels(state.train, method.ipc),
        class_names=state.train.class_names,
        space=state.train.space,
        strategy=augmentation.strategy_for(state.train.name) if method.strategy is None else method.strategy,
        provenance=made | {"batch_real": state.batch_real},
    )
