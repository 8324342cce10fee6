"""What a method of distillation is, and how one is built from plain values."""

import dataclasses
import difflib
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_type_hints

from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet, SyntheticStream

RANGES: Mapping[str, Callable[[Any], bool]] = {
    ">= 0": lambda value: value >= 0,
    ">= 1": lambda value: value >= 1,
    "> 0": lambda value: value > 0,
    "in [0, 1)": lambda value: 0 <= value < 1,
}
"""Range, as errors state it -> whether a value lies in it."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods: a frozen dataclass of hyper-parameters under the paper's names, with its values as defaults.

    A method does no I/O, sees no test data, and draws from named streams of the seed alone.

    name: as rows call it.
    version: raised when its numbers change.
    iterations: how many steps it takes; a hyper-parameter, a constant or a property.
    ipc: images per class; None: it takes the whole training set.
    whitened: the data sets that its paper ZCA-whitens.
    whitening: what is whitened there: True, normalised images; "pixels", pixels as they are.
    evaluation: settings of the evaluation that are its paper's, where they are not the protocol's.
    norm: of the networks that it matches in, which evaluation takes over.
    batch_real: real images of a class that a step takes.
    matching_steps: the period after which steps cost the same again (T of DC).
    sweeps: whether its start and steps go over all training images, so that they take longer with more of them.
    deployment: hyper-parameters that decide only how what is distilled is used: the fields of its `SyntheticStream` of
        the same names, set when it is read; cells that differ in them alone share a distillation.
    retired: hyper-parameters that were taken away -> the value that they always had, still in the names of results.
    later: hyper-parameters that came when results lay in stores -> the value at which they are no part of names.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    whitened: ClassVar[tuple[str, ...]] = ()
    whitening: ClassVar[bool | str] = True
    evaluation: ClassVar[Mapping[str, Any]] = {}
    norm: ClassVar[str] = "instance"
    batch_real: ClassVar[int] = 0
    matching_steps: ClassVar[int] = 1
    sweeps: ClassVar[bool] = False
    deployment: ClassVar[tuple[str, ...]] = ()
    retired: ClassVar[Mapping[str, Any]] = {}
    later: ClassVar[Mapping[str, Any]] = {}

    @property
    def needs(self) -> Mapping[str, Any]:
        """Name -> `Prerequisite` that builds an artefact made beforehand."""
        return {}

    @property
    def condition(self) -> str:
        """Which of the rows that a paper reports under the method's name it is, such as the loss that it matches by."""
        return ""

    @property
    def rehearsal(self) -> "Method":
        """The method in a form whose steps, of equal cost, can be taken with untrained artefacts."""
        return self

    @property
    def fingerprint(self) -> str | None:
        """Of files that the method reads, which decide its numbers as settings do; None: it reads none."""
        return None

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse images of `shape` (C, H, W), or a number of classes, that the method cannot work on; none are read."""
        self.bytes_stored(shape, num_classes)

    def check_train(self, train: ImageSet) -> None:  # noqa: B027 - most can start from any
        """Refuse a training set that it cannot start from, before anything is made of it."""

    def bytes_stored(self, shape: tuple[int, int, int], num_classes: int) -> int | None:
        """Bytes of the generator that it stores for images of `shape` (C, H, W); None: it gives images."""
        return None

    @abstractmethod
    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Any:
        """The state before the first step: a `ddlib.models.state.State`, or what has its methods and `step`."""

    @abstractmethod
    def step(self, state: Any) -> Mapping[str, Any]:
        """One outer update, in place; returns metrics, tensors or floats, which are read seldom."""

    @abstractmethod
    def finish(self, state: Any) -> SyntheticSet | SyntheticStream:
        """The last iterate, never the one that scored best on test data."""

    def distilled(
        self,
        state: Any,
        images: Tensor,
        labels: Tensor,
        *,
        strategy: str,
        learning_rate: float | None = None,
        **provenance: Any,
    ) -> SyntheticSet:
        """The set of these images (n, C, H, W) and labels, with what the state's training set says of it."""
        train = state.train
        return SyntheticSet(
            images=images,
            labels=labels,
            class_names=train.class_names,
            space=train.space,
            strategy=strategy,
            learning_rate=learning_rate,
            provenance={"method": self.name, "seed": state.seed, "dataset": train.name, **provenance},
        )

    def check(self, allowed: str, *names: str) -> None:
        """Refuse hyper-parameters outside a range of `RANGES`; with ", or None" behind it, None is allowed too."""
        holds, optional = RANGES[allowed.removesuffix(", or None")], allowed.endswith(", or None")
        for name in names:
            value = getattr(self, name)
            require(name, value, optional if value is None else holds(value), allowed)

    def check_choice(self, name: str, choices: Collection[str]) -> None:
        """Refuse a hyper-parameter that is none of `choices`."""
        require(name, getattr(self, name), getattr(self, name) in choices, f"one of {', '.join(map(str, choices))}")


def require(name: str, value: Any, holds: bool, allowed: str) -> None:
    """Raise a ValueError that names the setting, its value and what is allowed, unless `holds`."""
    if not holds:
        raise ValueError(f"{name}={value!r}; it must be {allowed}")


def number(name: str, value: Any, kind: type) -> Any:
    """`value`, also one of numpy, as a number of this kind; text, truth values, fractions for integers are refused."""
    if isinstance(value, str):
        raise ValueError(f"{name}={value!r} is text, not a number; in YAML write 1.0e-3 with the dot, without quotes")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}={value!r} is {type(value).__name__}; it must be {kind.__name__}")
    if not math.isfinite(value):
        raise ValueError(f"{name}={value!r}; it must be finite")
    if kind is int and not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r}; it must be an integer")
    return kind(value)


def fill(kind: type, what: str, values: Mapping[str, Any]) -> Any:
    """The dataclass `kind` built from `values`, whose names and types are checked against its fields first.

    `what` names it in errors, e.g. "method 'dm'".
    """
    hints = get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in fields:
            raise ValueError(f"unknown setting {name!r} of {what}{nearest(name, fields)}; known: {', '.join(fields)}")
    return kind(**{name: _typed(f"{name} of {what}", value, hints[name]) for name, value in values.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` in the type that the hint of a field names; kinds that YAML cannot mix up pass as they are."""
    allowed = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if (value is None and NoneType in allowed) or (len(allowed) > 1 and type(value) in allowed):
        return value
    for kind in (bool, float, int, str):
        if kind in allowed:
            if kind in (int, float):
                return number(name, value, kind)
            if not isinstance(value, kind):
                raise ValueError(f"{name}={value!r} is {type(value).__name__}; it must be {kind.__name__}")
    return value


def nearest(name: str, known: Collection[str]) -> str:
    """The known name that is nearest to `name`, as a question to put behind an error; "" where none is near."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
