"""What the families that match in networks share: their settings, and learning the pixels of images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet, check_strategy
from ddlib.methods import coresets
from ddlib.methods.contract import Method, require
from ddlib.models.foreign import Foreign
from ddlib.models.passes import PRECISIONS, has_batch_statistics, known_options
from ddlib.models.state import State
from ddlib.pretraining.classifier import Embedding

INITS = ("real", "noise", "herding")

PIECE_BYTES = {"cpu": 8 * 2**20, "cuda": 512 * 2**20}
"""Size of the largest map of a piece: a CPU works out of its cache, a GPU out of its memory."""


@dataclass(frozen=True, kw_only=True)
class NetworkMatching(Method):
    """Settings of every method that compares real and synthetic images by what a network makes of them.

    ipc: images per class, >= 1.
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    network, norm, width, depth: the network; None keeps its default.
    precision: of its convolutions and products; all else is float32 always.
    """

    ipc: int
    strategy: str | None = None
    network: str = "convnet"
    norm: str = "instance"
    width: int | None = None
    depth: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        self.check(">= 1", "ipc")
        require("network", self.network, models.known(self.network), f"one of {', '.join(models.names())}, or dotted")
        self.check_choice("precision", PRECISIONS)

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse images too small for the network, one of others that draws, and a strategy that is none."""
        super().check_images(shape, num_classes)
        network = models.check(self.network, shape=shape, num_classes=num_classes, **self.network_options)
        if isinstance(network, Foreign):
            network.check_repeats()
        if self.strategy is not None:
            check_strategy(self.strategy, shape[1:])

    def check_train(self, train: ImageSet) -> None:
        """Refuse more images per class than there are real ones."""
        coresets.check_ipc(self.ipc, train)

    @property
    def network_options(self) -> dict[str, Any]:
        """Options of `ddlib.models.build` that this method sets."""
        return known_options(self.network, norm=self.norm, width=self.width, depth=self.depth)

    def strategy_of(self, train: ImageSet) -> str:
        """The DSA families on these data."""
        return augmentation.strategy_for(train.name) if self.strategy is None else self.strategy

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context in which networks run: bfloat16 products where `precision` says so."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass
class PixelState(State):
    """What changes while pixels are learnt."""

    train: ImageSet
    seed: int
    images: Tensor  # (K*m, C, H, W) float32 in the space of `train`, class-major, requires grad
    velocity: Tensor  # the momentum buffer, of the same shape
    network: nn.Module  # of the current step; whoever needs it re-draws it
    strategy: str
    rows_by_class: tuple[Tensor, ...]  # of the real images, on the CPU
    batch_real: int
    piece: int | None  # images that pass the network together, where its norm lets them pass apart; None: all
    forward: Callable[[Tensor], list[Tensor]] | None = None  # (b, C, H, W) -> the vectors that are matched
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class PixelMatching(NetworkMatching):
    """Settings of feature and gradient matching, whose steps compare n real images of each class with all synthetic.

    batch_real: n >= 1; a class that has fewer gives all of its images, and with batch norm, whose statistics should
        be of equally many images of each class, n is at most the size of the smallest class.
    lr_images: step size of the pixels, > 0.
    momentum: of the pixels' SGD, in [0, 1).
    init: "real" (random real images), "noise" (standard normal), "herding" (the herding coreset).

    augmented: whether images are augmented by DSA while they are matched.
    """

    augmented: ClassVar[bool] = True
    batch_real: int = 256
    lr_images: float = 1.0
    momentum: float = 0.5
    init: str = "real"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(">= 1", "batch_real")
        self.check("> 0", "lr_images")
        self.check("in [0, 1)", "momentum")
        self.check_choice("init", INITS)

    @property
    def needs(self) -> Mapping[str, Any]:
        """The embedding network, for `init="herding"`."""
        return {"embedding": Embedding(width=self.width, depth=self.depth)} if self.init == "herding" else {}

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> PixelState:
        """Initial images, and a network that is not drawn yet; an `ipc` outside the class sizes is refused."""
        self.check_images(train.shape, train.num_classes)
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
        strategy = self.strategy_of(train) if self.augmented else "none"
        augmentation.draw(1, 1, size=train.shape[1:], strategy=strategy, generator=torch.Generator())  # or refuse it
        batch = min(self.batch_real, (min if has_batch_statistics(network) else max)(map(len, rows)))
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
        sgd(state.images, state.velocity, gradient, self.lr_images, self.momentum)
        state.step += 1

    def finish(self, state: PixelState) -> SyntheticSet:
        """The images as they stand, with labels, value space and where they came from."""
        images, labels = state.images.detach().clone(), coresets.class_major_labels(state.train, self.ipc)
        facts = {"iterations": state.step, "batch_real": state.batch_real}
        return self.distilled(state, images, labels, strategy=self.strategy_of(state.train), **facts)


@torch.no_grad()
def sgd(parameter: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    """v <- mu v + g, p <- p - lr v, in place."""
    velocity.mul_(momentum).add_(gradient)
    parameter.sub_(velocity, alpha=lr)


@torch.no_grad()
def piece_size(network: nn.Module, image: Tensor) -> int | None:
    """Images that pass `network` at a time so that its largest map stays within `PIECE_BYTES`; None: all.

    A batch whose statistics count must not be cut.
    """
    if has_batch_statistics(network):
        return None
    if isinstance(network, Foreign):
        return fitting(network.elements, image.device)
    return fitting(max((m.numel() for m in network.features(image).maps), default=image.numel()), image.device)


def fitting(elements: int, device: torch.device) -> int:
    """How many maps of so many elements are within `PIECE_BYTES`, at least 1."""
    return max(1, PIECE_BYTES.get(device.type, PIECE_BYTES["cuda"]) // (4 * elements))


def real_batch(state: PixelState) -> Tensor:
    """n real images of each class, or all it has, drawn without replacement for this step: class-major."""
    stream = seeding.generator(state.seed, "real", state.step)
    rows = [rows[torch.randperm(len(rows), generator=stream)[: state.batch_real]] for rows in state.rows_by_class]
    return state.train.take(torch.cat(rows).to(state.train.device))


def real_sizes(state: PixelState) -> list[int] | None:
    """Images of each class in `real_batch`; None: equally many."""
    sizes = [min(state.batch_real, len(rows)) for rows in state.rows_by_class]
    return sizes if len(set(sizes)) > 1 else None


def siamese(state: PixelState, *batches: Tensor, sizes: Sequence[int] | None = None) -> list[Tensor]:
    """DSA with one draw a class and step, shared by that class's images in every class-major batch (siamese DSA).

    sizes: images of each class in the first batch; None: equally many, as in all others.
    """
    K = state.train.num_classes
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(K, 1, size=state.train.shape[1:], strategy=state.strategy, generator=stream)
    counts = [torch.tensor([len(x) // K]) for x in batches]
    counts[0] = counts[0] if sizes is None else torch.tensor(sizes)
    rows = [torch.arange(K).repeat_interleave(count) for count in counts]
    return [augmentation.augment(x, draws.rows(each)) for x, each in zip(batches, rows, strict=True)]
