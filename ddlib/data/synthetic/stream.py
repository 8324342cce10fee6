"""Synthetic streams: a generator that makes labelled images whenever they are asked for (DiM, Wang et al. 2023)."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from ddlib.models import passes
from ddlib.models.gan import Generator
from ddlib.seeding import generator as random_stream
from ddlib.data.synthetic.card import Card
from ddlib.data.synthetic.images import SyntheticSet, check_provenance, check_strategy
from ddlib.data.whitening import ValueSpace


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticStream:
    """A generator of labelled images, and how many of them stand for the data.

    An epoch has K * `ipc` images, `ipc` of each class.

    Args:
        generator: name -> tensor of a `ddlib.models.gan.Generator`, float32, finite.
        shape: (C, H, W) of the images.
        width, latent, conditioning: of the generator.
        class_names: the K names.
        space: what images are given in; not whitened.
        strategy: the DSA strategy that training on the stream goes with; see `ddlib.data.augmentation`.
        frozen_strategy: that of a set drawn from it, which is trained on as any other.
        ipc: images per class in an epoch, >= 1.
        redraw: after how many epochs the images are drawn anew: 1 = streaming, each image is shown once; None = never
            (frozen), K * ipc images are drawn once and are a set like any other.
        provenance: where the generator comes from, as plain JSON.
        card: how it was judged and what it reached, where it states that.

    Raises:
        ValueError: an argument is not as above, or the tensors are not those of such a generator.
    """

    learning_rate: ClassVar[None] = None
    """A stream has none of its own."""

    generator: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    width: int
    latent: int
    conditioning: str
    class_names: tuple[str, ...]
    space: ValueSpace
    strategy: str
    frozen_strategy: str
    ipc: int
    redraw: int | None = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None

    def __post_init__(self):
        for name in ("shape", "class_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_tensors(self.generator, self._network())
        _check_space(self.space, self.shape[0])
        for strategy in (self.strategy, self.frozen_strategy):
            check_strategy(strategy, self.shape[1:])
        _check_count("ipc", self.ipc)
        if self.redraw is not None:
            _check_count("redraw", self.redraw, ", or None to draw once")
        check_provenance(self.provenance)

    def __len__(self) -> int:
        """Images in an epoch."""
        return self.num_classes * self.ipc

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def bytes_stored(self) -> int:
        """Bytes of the generator as `save` writes it: weights and the running statistics of its batch norms."""
        return sum(tensor.nbytes for tensor in self.generator.values())

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(iter(self.generator.values())).device

    @property
    def pass_size(self) -> int:
        """How many images the generator makes at a time; see `ddlib.models.passes`."""
        return passes.most(self.width * self.shape[1] * self.shape[2], self.device)

    def to(self, device: str | torch.device) -> "SyntheticStream":
        """The same stream on `device`."""
        moved = {name: tensor.to(device) for name, tensor in self.generator.items()}
        return replace(self, generator=moved, space=self.space.to(device))

    def labels(self, count: int, stream: torch.Generator, *, balanced: bool = True) -> Tensor:
        """Labels for `count` images: (count,) int64 on the CPU.

        Args:
            count: >= 1.
            stream: on the CPU; all randomness is its.
            balanced: whether each block of K labels has every class once, in random order; else each label is drawn
                on its own, all classes alike.
        """
        if not balanced:
            return torch.randint(self.num_classes, (count,), generator=stream)
        blocks = -(-count // self.num_classes)
        return torch.rand(blocks, self.num_classes, generator=stream).argsort(1).flatten()[:count]

    def noise(self, count: int, stream: torch.Generator) -> Tensor:
        """Standard normal noise for `count` images: (count, latent) on the CPU."""
        return torch.randn(count, self.latent, generator=stream)

    @torch.no_grad()
    def images(self, labels: Tensor, noise: Tensor, *, precision: str = "float32") -> Tensor:
        """What the generator, in evaluation mode, makes of labels and noise.

        Args:
            labels: (n,) int64 in [0, K), n >= 1, on any device.
            noise: (n, latent), as from `noise`, on any device.
            precision: "float32", or "bfloat16": autocast.

        Returns:
            (n, C, H, W) float32 in `space`, on the device of the generator: (x + 1) / 2 are pixels.
        """
        weights, network, made = _channels_last(self.generator), self._network(), []
        parts = zip(
            noise.to(self.device).split(self.pass_size), labels.to(self.device).split(self.pass_size), strict=True
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            for inputs in parts:
                made.append(functional_call(network, weights, inputs).float())
        return self.space.encode((torch.cat(made).contiguous() + 1) / 2)

    def frozen(self, seed: int) -> SyntheticSet:
        """Exactly `ipc` images of each class, class by class, drawn once by `seed`: the same seed, the same set."""
        labels = torch.arange(self.num_classes).repeat_interleave(self.ipc)
        images = self.images(labels, self.noise(len(self), random_stream(seed, "evaluation", "frozen")))
        return SyntheticSet(
            images=images,
            labels=labels.to(images.device),
            class_names=self.class_names,
            space=self.space,
            strategy=self.frozen_strategy,
            provenance={**self.provenance, "frozen": {"ipc": self.ipc, "seed": seed}},
        )

    def _network(self) -> Generator:
        """The generator without values."""
        return _network(self.shape, len(self.class_names), self.width, self.latent, self.conditioning)


def generator_bytes(
    *, shape: tuple[int, int, int], num_classes: int, width: int = 196, latent: int = 100, conditioning: str = "onehot"
) -> int:
    """`bytes_stored` of a stream with such a generator (see `ddlib.models.gan.Generator`), without making one.

    Raises:
        ValueError: an argument that the generator refuses.
    """
    state = _network(tuple(shape), num_classes, width, latent, conditioning).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


@functools.lru_cache(maxsize=8)
def _network(shape: tuple[int, int, int], num_classes: int, width: int, latent: int, conditioning: str) -> Generator:
    """In evaluation mode, on no device: `functional_call` brings the values."""
    settings = {"width": width, "latent": latent, "conditioning": conditioning}
    with torch.device("meta"):
        return Generator(shape=shape, num_classes=num_classes, **settings).eval()


def _channels_last(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights in the layout in which a CPU convolves 1.1 to 1.3 times as fast."""
    return {name: w.to(memory_format=torch.channels_last) if w.ndim == 4 else w for name, w in weights.items()}


def _check_tensors(tensors: Mapping[str, Tensor], network: Generator) -> None:
    wanted = network.state_dict()
    missing, other = sorted(wanted.keys() - tensors.keys()), sorted(map(str, tensors.keys() - wanted.keys()))
    if missing or other:
        named = [f"{what} {', '.join(names[:3])}" for what, names in (("lacks", missing), ("has", other)) if names]
        raise ValueError(f"generator {' and '.join(named)}; allowed: the {len(wanted)} tensors of such a generator")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != torch.float32:
            expected = f"{tuple(wanted[name].shape)} float32"
            raise ValueError(f"generator: {name} must be {expected}, got {tuple(tensor.shape)} {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"generator: {name} holds values that are not finite")


def _check_space(space: ValueSpace, channels: int) -> None:
    if space.zca is not None:
        raise ValueError(f"space is {space.name!r}; a generator makes pixels: allowed is 'normalised'")
    if len(space.mean) != channels:
        raise ValueError(f"space is for {len(space.mean)} channels, images have {channels}")


def _check_count(name: str, value: Any, otherwise: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1{otherwise}, got {value!r}")
