"""What distillation makes, with all that training on it needs, and the one file that holds it.

    synthetic = load("cifar10.safetensors")
    synthetic.images, synthetic.labels        # of a set: what a network trains on, in synthetic.space
    synthetic.pixels()                        # what a reader looks at
    synthetic.frozen(seed=0)                  # of a stream: a set drawn from its generator
    synthetic.card                            # of one that was exported: its evaluation and accuracies

`SyntheticSet` holds images, `SyntheticStream` the generator that makes them (DiM, Wang et al. 2023).  The file is of
safetensors: `images`, `labels`, `zca.*` of a whitened set, and `latents.*` of a rendered one; or `generator.*`.  The
rest is JSON in the header under "ddlib", with a checksum over all of it; a set that travels has its card there too.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from ddlib.data.augmentation import draw
from ddlib.data.whitening import ZCA, ValueSpace
from ddlib.models import passes
from ddlib.models.gan import Generator
from ddlib.seeding import generator as random_stream
from ddlib.store.files import read_tensors, write_tensors


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a set or stream was judged, and what it reached: enough to judge it again."""

    name: str
    method: str
    dataset: str  # as `ddlib.data.datasets.load` takes it, and `whitened` its `zca`
    licence: str
    whitened: bool | str
    train_fingerprint: str
    test_fingerprint: str
    protocol: Mapping[str, Any]  # the settings of a `ddlib.evaluation.Protocol`
    seed: int
    networks: tuple[int, ...]  # indices of the networks that were trained
    accuracies: tuple[float, ...]  # of these, in percent
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluation_version: int = 1  # `ddlib.evaluation.VERSION` of the ddlib that judged

    def __post_init__(self):
        for name in ("networks", "accuracies"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.accuracies or len(self.accuracies) != len(self.networks):
            raise ValueError(f"accuracies must be one for each of the networks {self.networks}, got {self.accuracies}")
        if not all(math.isfinite(value) and 0 <= value <= 100 for value in self.accuracies):
            raise ValueError(f"accuracies must be percent, from 0 to 100, got {self.accuracies}")

    @property
    def mean(self) -> float:
        """Mean accuracy, percent."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample deviation (ddof 1) of the accuracies, points; None of one alone."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def n(self) -> int:
        """How many accuracies there are."""
        return len(self.accuracies)

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON, with the numbers that follow from its fields."""
        return asdict(self) | {"accuracy_mean": self.mean, "accuracy_std": self.std, "n": self.n}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Card":
        """The card that `to_json` wrote; what it does not know, such as the numbers that follow, is left out."""
        content = {"evaluation_version": 1} | dict(content)  # 1: of before evaluations had versions
        return cls(**{each.name: content[each.name] for each in fields(cls)})


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """A distilled (or chosen) set of labelled images.

    images: (N, C, H, W) float32 in `space`, N >= 1, finite.
    labels: (N,) int64 in [0, K), or soft ones, (N, K) float32 logits, finite: the target of an image is their softmax.
    class_names: the K names.
    space: what the images are in.
    strategy: the DSA strategy that training on the set goes with; see `ddlib.data.augmentation`.
    learning_rate: one that was learnt with the images, > 0, or None.
    provenance: where the set comes from, as plain JSON.
    latents: what the images were rendered from by a generator that is kept elsewhere, by name.

    What is not as above is refused with a ValueError.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    space: ValueSpace
    strategy: str
    learning_rate: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    card: Card | None = None

    def __post_init__(self):
        images = self.images
        if images.ndim != 4 or not len(images) or images.dtype != torch.float32:
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ValueError(f"images must be (N, C, H, W) float32, N >= 1, got {got}")
        if not images.isfinite().all():
            raise ValueError("images hold values that are not finite")
        self.space.require(self.shape)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check_labels(self.labels, images, self.num_classes)
        check_strategy(self.strategy, tuple(self.images.shape[2:]))
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be None or a finite number > 0, got {self.learning_rate}")
        check_provenance(self.provenance)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return tuple(self.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def is_soft(self) -> bool:
        """Whether the labels are logits."""
        return self.labels.ndim == 2

    @property
    def bytes_stored(self) -> int:
        """Bytes of images and labels; a ZCA belongs to the real data, and `latents` need their generator."""
        return self.images.nbytes + self.labels.nbytes

    def pixels(self) -> Tensor:
        """The images as pixels to look at: (N, C, H, W) float32, clipped to [0, 1]."""
        return self.space.decode(self.images).clamp(0, 1)

    def to(self, device: str | torch.device) -> "SyntheticSet":
        """The same set on `device`."""
        images, labels, space = (each.to(device) for each in (self.images, self.labels, self.space))
        latents = {name: tensor.to(device) for name, tensor in self.latents.items()}
        return replace(self, images=images, labels=labels, space=space, latents=latents)


def check_strategy(strategy: str, size: tuple[int, int]) -> None:
    """Refuse an unknown DSA strategy of images of `size` (H, W) with a ValueError."""
    draw(1, 1, size=size, strategy=str(strategy), generator=torch.Generator())


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Refuse what is not plain JSON with a ValueError."""
    try:
        json.dumps(provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must be plain JSON: {error}") from error


def _check_labels(labels: Tensor, images: Tensor, num_classes: int) -> None:
    hard = labels.shape == (len(images),) and labels.dtype == torch.int64
    soft = labels.shape == (len(images), num_classes) and labels.dtype == torch.float32
    if num_classes < 1 or not (hard or soft) or labels.device != images.device:
        raise ValueError(
            f"labels must be ({len(images)},) int64 or ({len(images)}, {num_classes}) float32 on {images.device}, "
            f"with at least one class, got {tuple(labels.shape)} {labels.dtype} on {labels.device}"
        )
    if soft and not labels.isfinite().all():
        raise ValueError("labels hold logits that are not finite")
    if soft and is_probabilities(labels):
        raise ValueError("labels are probabilities; allowed: logits, such as labels.clamp_min(1e-38).log()")
    if hard and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), got {int(labels.min())} to {int(labels.max())}")


def is_probabilities(labels: Tensor) -> bool:
    """Whether soft labels (N, K) are probabilities: none is negative, and each row sums to 1 up to rounding."""
    sums = labels.double().sum(1)
    return labels.shape[1] > 1 and bool((labels >= 0).all() and ((sums - 1).abs() < 1e-3).all())


@dataclass(frozen=True, eq=False, kw_only=True)
class SyntheticStream:
    """A generator of labelled images, and how many of them stand for the data.

    generator: name -> tensor of a `ddlib.models.gan.Generator` of this `width` and `latent`, float32, finite.
    shape: (C, H, W) of the images.
    class_names: the K names.
    space: what images are given in; not whitened.
    strategy: the DSA strategy that training on the stream goes with; see `ddlib.data.augmentation`.
    frozen_strategy: that of a set drawn from it, which is trained on as any other.
    ipc: images per class in an epoch, >= 1.
    redraw: after how many epochs the images are drawn anew: 1 = streaming, each image is shown once; None = never
        (frozen), K * ipc images are drawn once and are a set like any other.
    provenance: where the generator comes from, as plain JSON.

    What is not as above is refused with a ValueError.
    """

    learning_rate: ClassVar[None] = None
    """A stream has none of its own."""

    generator: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    width: int
    latent: int
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
        if self.space.zca is not None:
            raise ValueError(f"space is {self.space.name!r}; a generator makes pixels: allowed is 'normalised'")
        self.space.require(self.shape)
        for strategy in (self.strategy, self.frozen_strategy):
            check_strategy(strategy, self.shape[1:])
        if type(self.ipc) is not int or self.ipc < 1:
            raise ValueError(f"ipc must be an integer of at least 1, got {self.ipc!r}")
        if self.redraw is not None and (type(self.redraw) is not int or self.redraw < 1):
            raise ValueError(f"redraw must be an integer of at least 1, or None to draw once, got {self.redraw!r}")
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
        """Labels for `count` images, (count,) int64 on the CPU: blocks of every class once, or each drawn alone."""
        if not balanced:
            return torch.randint(self.num_classes, (count,), generator=stream)
        blocks = -(-count // self.num_classes)
        return torch.rand(blocks, self.num_classes, generator=stream).argsort(1).flatten()[:count]

    def noise(self, count: int, stream: torch.Generator) -> Tensor:
        """Standard normal noise for `count` images: (count, latent) on the CPU."""
        return torch.randn(count, self.latent, generator=stream)

    @torch.no_grad()
    def images(self, labels: Tensor, noise: Tensor, *, precision: str = "float32") -> Tensor:
        """Images (n, C, H, W) in `space` of labels (n,) and noise (n, latent), by the generator in evaluation mode."""
        network, weights = self._network(), dict(self.generator)
        for name, tensor in weights.items():  # in the layout in which a CPU convolves 1.1 to 1.3 times as fast
            if tensor.ndim == 4:
                weights[name] = tensor.to(memory_format=torch.channels_last)
        noises, labels = noise.to(self.device).split(self.pass_size), labels.to(self.device).split(self.pass_size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            passed = [functional_call(network, weights, inputs).float() for inputs in zip(noises, labels, strict=True)]
        return self.space.encode((torch.cat(passed).contiguous() + 1) / 2)

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
        return _network(self.shape, len(self.class_names), self.width, self.latent)


def generator_bytes(*, shape: tuple[int, int, int], num_classes: int, width: int = 196, latent: int = 100) -> int:
    """`bytes_stored` of a stream with such a generator (see `ddlib.models.gan.Generator`), without making one."""
    state = _network(tuple(shape), num_classes, width, latent).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


@functools.lru_cache(maxsize=8)
def _network(shape: tuple[int, int, int], num_classes: int, width: int, latent: int) -> Generator:
    """In evaluation mode, on no device: `functional_call` brings the values."""
    with torch.device("meta"):
        return Generator(shape=shape, num_classes=num_classes, width=width, latent=latent).eval()


def _check_tensors(tensors: Mapping[str, Tensor], network: Generator) -> None:
    expected, present = ({name: t.shape for name, t in each.items()} for each in (network.state_dict(), tensors))
    if wrong := sorted(name for name in expected | present if expected.get(name) != present.get(name)):
        name = wrong[0]
        raise ValueError(
            f"generator: {name} must be {expected.get(name)}, got {present.get(name)}; None: no such tensor"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not tensor.isfinite().all():
            raise ValueError(f"generator: {name} must be float32 and finite, got {tensor.dtype}")


SET, STREAM = "ddlib.synthetic", "ddlib.stream"
VERSIONS = {SET: 2, STREAM: 1}
"""What the header of a file calls its kind -> the newest version of its layout."""

SETTINGS = {
    SET: ("class_names", "strategy", "learning_rate", "provenance"),
    STREAM: ("class_names", "shape", "width", "latent", "strategy", "frozen_strategy", "ipc", "redraw", "provenance"),
}
"""Kind -> the fields that stand in the header as they are."""

ZCA_TENSORS = ("mean", "whitening", "unwhitening")
"""Of a ZCA, which stand in the file as "zca.mean", ..."""


def save(synthetic: SyntheticSet | SyntheticStream, path: str | Path) -> None:
    """Write `synthetic` to one safetensors file, whole or not at all; one that is there is replaced."""
    kind, space = STREAM if isinstance(synthetic, SyntheticStream) else SET, synthetic.space
    header = {name: getattr(synthetic, name) for name in SETTINGS[kind]}
    header |= {"format": kind, "version": VERSIONS[kind], "mean": space.mean, "std": space.std}
    if kind == STREAM:
        tensors, header["conditioning"] = _named("generator", synthetic.generator), "onehot"
    else:
        tensors = {"images": synthetic.images, "labels": synthetic.labels} | _named("latents", synthetic.latents)
        tensors |= {f"zca.{name}": getattr(space.zca, name) for name in ZCA_TENSORS if space.zca}
        header["zca_eps"] = space.zca and space.zca.eps
    if synthetic.card is not None:
        header |= {"card": synthetic.card.to_json(), "label_kind": label_kind(synthetic), "value_space": space.name}
    write_tensors(Path(path), tensors, header)


def label_kind(synthetic: SyntheticSet | SyntheticStream) -> str:
    """What the labels are: "class" numbers, or "logits", whose softmax is the target."""
    return "logits" if isinstance(synthetic, SyntheticSet) and synthetic.is_soft else "class"


def load(path: str | Path) -> SyntheticSet | SyntheticStream:
    """Read the set or the stream that `save` wrote onto the CPU.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is truncated or corrupt, another program's, or of a newer format.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no synthetic set at {path}")
    tensors, header = read_tensors(Path(path))
    kind = str(header.get("format"))
    if kind not in VERSIONS:
        known = " or ".join(map(repr, VERSIONS))
        raise ValueError(f"{path} holds no synthetic set: its header does not say {known}")
    try:
        if header["version"] > VERSIONS[kind]:
            raise ValueError(f"format version {header['version']}; this ddlib reads up to {VERSIONS[kind]}")
        zca = None
        if header.get("zca_eps") is not None:
            zca = ZCA(*(tensors[f"zca.{name}"] for name in ZCA_TENSORS), header["zca_eps"])
        fields = {name: header[name] for name in SETTINGS[kind]}
        fields["space"] = ValueSpace(tuple(header["mean"]), tuple(header["std"]), zca)
        fields["card"] = Card.from_json(header["card"]) if "card" in header else None
        if kind == SET:
            return SyntheticSet(tensors["images"], tensors["labels"], latents=_under("latents.", tensors), **fields)
        if header["conditioning"] != "onehot":
            raise ValueError(f"conditioning={header['conditioning']!r}; this ddlib reads generators of 'onehot'")
        return SyntheticStream(generator=_under("generator.", tensors), **fields)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def joined(parts: Sequence[SyntheticSet]) -> SyntheticSet:
    """The union of sets of different classes of one data set, in one value space: the classes of the first come first.

    Class k of a set becomes k plus the number of classes before; in a soft label the classes of other sets have
    probability 0.  Learning rates that were learnt are averaged.
    """
    first, class_names, labels = parts[0], sum((part.class_names for part in parts), ()), []
    start = 0
    for part in parts:
        after = len(class_names) - start - part.num_classes
        if part.is_soft:  # absent: a logit whose probability is 0 in float32
            labels.append(functional.pad(part.labels, (start, after), value=-1e4))
        else:
            labels.append(part.labels + start)
        start += part.num_classes
    rates = [part.learning_rate for part in parts if part.learning_rate is not None]
    return SyntheticSet(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat(labels),
        class_names=class_names,
        space=first.space,
        strategy=first.strategy,
        learning_rate=sum(rates) / len(rates) if rates else None,
        provenance={"joined": [dict(part.provenance) for part in parts]},
    )
