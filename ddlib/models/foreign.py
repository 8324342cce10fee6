"""Networks of others: a reader's own `nn.Module`, or a package's such as torchvision's, among ours.

A network is named by a builder, `package.module:function`, or by what `register` called one.  The builder is a class or
function that is called with those of these arguments that its signature has, and with the options:

    num_classes: K; every builder takes it.
    shape, or channels (in_channels, in_chans) and size: (C, H, W), or C and (H, W), of the images.

and gives a module, images (B, C, H, W) -> logits (B, K), with fresh weights of its own law.  A module that has a method
`features`, images -> (maps, embedding) as `layers.Features` says, can be matched in too.
"""

import copy
import hashlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ddlib import ROOT
from ddlib.models.layers import Features, Network
from ddlib.seeding import scoped

Builder = Callable[..., nn.Module]

REGISTERED: dict[str, Builder] = {}
"""What `register` was told."""

GIVEN = ("num_classes", "shape", "channels", "in_channels", "in_chans", "size")
"""Arguments of a builder that are given to it, and are no options."""


class Foreign(Network):
    """A module of others as a network of ours.

    fresh: a generator -> the module anew, on the CPU, with weights drawn from the stream.
    elements: of the largest output of one of its layers, for one image.
    draws: whether it draws random numbers in training, as dropout does.

    Counts of batches, integers that only norms without a momentum use, are left out of its buffers.
    """

    def __init__(self, name: str, module: nn.Module, shape: tuple[int, int, int], num_classes: int, fresh: Callable):
        super().__init__(shape, num_classes)
        self.name, self.fresh = name, fresh
        self.elements, self.draws = _tried(name, module, shape, num_classes)
        self.module = _without_counts(module)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W) by the module's `features`; a ValueError where it offers none."""
        self.check_features()
        features = Features(*self.module.features(images))
        if maps is not None:
            maps += features.maps
        return features.embedding

    def check_features(self) -> None:
        """Refuse a module that offers no features with a ValueError; torchvision's `features` are layers, no method."""
        if not inspect.ismethod(getattr(self.module, "features", None)):
            raise ValueError(
                f"network {self.name!r} offers no features to match; allowed: a module with a method features, "
                "images -> (maps, embedding)"
            )

    def check_repeats(self) -> None:
        """Refuse a module that draws random numbers, which would be those of no stream, with a ValueError."""
        if self.draws:
            raise ValueError(f"network {self.name!r} draws random numbers (dropout); allowed: none, to distil with it")

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        self._check(images)
        return self.module(images)

    @torch.no_grad()
    def redraw(self, generator: torch.Generator) -> None:
        """Draw all weights anew, in place, by building the module once more."""
        self.module.load_state_dict(_without_counts(self.fresh(generator)).state_dict())


def register(name: str, builder: Builder) -> None:
    """Make a network known as `name` in this process; what runs in others needs its dotted name.

    Raises:
        ValueError: the name has a dot or a colon, or the builder takes no `num_classes`.
    """
    if not name or "." in name or ":" in name:
        raise ValueError(f"name={name!r}; it must be a text without dots and colons")
    check_builder(name, builder)
    REGISTERED[name] = builder


def find(name: str) -> Builder | None:
    """The builder of a registered or dotted name; None where it is neither.

    Raises:
        ValueError: the name is dotted, and there is no such module, nothing of this name in it, or no builder.
    """
    if name in REGISTERED:
        return REGISTERED[name]
    return _imported(name) if isinstance(name, str) and ("." in name or ":" in name) else None


@cache
def _imported(name: str) -> Builder:
    """The builder of a dotted name; modules are looked for in the repository, too, wherever the process runs."""
    path, _, attribute = name.rpartition(":" if ":" in name else ".")
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    try:
        builder = getattr(importlib.import_module(path), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"network {name!r} cannot be imported: {error}; allowed: package.module:builder") from error
    check_builder(name, builder)
    return builder


def check_builder(name: str, builder: Any) -> None:
    """Refuse what is no builder, or what cannot be told from another one, with a ValueError."""
    if not (inspect.isfunction(builder) or inspect.isclass(builder)) or not takes(builder, "num_classes"):
        raise ValueError(f"network {name!r} is no builder; allowed: a class or function that takes num_classes")
    try:
        source(builder)
    except (OSError, TypeError) as error:
        raise ValueError(f"network {name!r}: its source cannot be read ({error}); put the builder in a file") from error


def options_of(builder: Builder) -> tuple[str, ...]:
    """The options that a builder names in its signature."""
    kinds = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    parameters = inspect.signature(builder).parameters.items()
    return tuple(key for key, parameter in parameters if key not in GIVEN and parameter.kind not in kinds)


def takes(builder: Builder, option: str) -> bool:
    """Whether a builder may be called with an option: it names it, or takes any keyword."""
    parameters = inspect.signature(builder).parameters
    return option in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def build(
    name: str,
    builder: Builder,
    shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator | None,
    options: Mapping[str, Any],
) -> Foreign:
    """A fresh network of a builder on the default device; see `ddlib.models.build`.

    Raises:
        ValueError: the builder refuses its arguments, or the module does not give logits (B, K) of such images.
    """
    channels, *size = shape
    known = dict(zip(GIVEN, (num_classes, shape, channels, channels, channels, tuple(size)), strict=True))
    named = inspect.signature(builder).parameters
    arguments = {key: value for key, value in known.items() if key in named or key == "num_classes"} | dict(options)
    device = torch.get_default_device()

    def fresh(stream: torch.Generator | None) -> nn.Module:
        seed = 0  # without values, nothing is to be drawn
        if stream is not None or device.type != "meta":
            seed = int(torch.randint(2**62, (), generator=stream, device=stream.device if stream else "cpu"))
        with scoped(seed, "network"), torch.device("cpu"):
            return builder(**arguments).train()

    try:
        module = fresh(generator)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"network {name!r} cannot be built with {arguments}: {error}") from error
    return Foreign(name, module, shape, num_classes, fresh).to(device)


def _without_counts(module: nn.Module) -> nn.Module:
    """The module, whose norms with a momentum count no batches any more."""
    for part in module.modules():
        if isinstance(part, _NormBase) and part.momentum is not None:
            part.num_batches_tracked = None
    return module


@torch.no_grad()
def _tried(name: str, module: nn.Module, shape: tuple[int, int, int], num_classes: int) -> tuple[int, bool]:
    """`elements` and `draws` of `Foreign`, from two images of noise; a module without logits (B, K) is refused.

    In training mode, in which some give more than logits; the module itself stays as it is.
    """
    sizes, tried = [2 * math.prod(shape)], copy.deepcopy(module)
    for part in tried.modules():
        part.register_forward_hook(lambda _, __, out: sizes.append(out.numel()) if isinstance(out, Tensor) else None)
    outputs = []
    for seed in (0, 1):
        with scoped(seed, "network"), torch.device("cpu"):
            images = torch.randn(2, *shape, generator=torch.Generator())
            try:
                outputs.append(tried(images))
            except (RuntimeError, ValueError, TypeError) as error:
                raise ValueError(f"network {name!r} does not take images of {tuple(shape)}: {error}") from error
    logits = outputs[0]
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"network {name!r} gives {got} for two images; allowed: logits (2, {num_classes})")
    return max(sizes) // 2, not torch.equal(*outputs)


def fingerprint(name: str) -> str | None:
    """What tells a network of others from another of its name, see `source`; None for a name that is none of theirs."""
    builder = find(name)
    return None if builder is None else source(builder)


@cache
def source(builder: Builder) -> str:
    """Of an installed package its name and version, else 16 hex digits of the SHA-256 of the builder's module.

    Of a builder that a notebook defines it is that of the builder alone.  What a module imports does not count.

    Raises:
        OSError, TypeError: the source cannot be read.
    """
    file = getattr(sys.modules.get(builder.__module__), "__file__", None)
    if file and {"site-packages", "dist-packages"} & {*Path(file).parts}:
        package = builder.__module__.partition(".")[0]
        distribution = metadata.packages_distributions().get(package, [package])[0]
        return f"{distribution} {metadata.version(distribution)}"
    text = Path(file).read_text(encoding="utf-8") if file else inspect.getsource(builder)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
