"""The space of ConvNets of the architecture search of DC, DM and DataDAM, as data."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from ddlib import models

FACTORS: Mapping[str, tuple] = MappingProxyType(
    {
        "depth": (1, 2, 3, 4),
        "width": (32, 64, 128, 256),
        "activation": ("sigmoid", "relu", "leaky_relu"),
        "norm": ("none", "batch", "layer", "instance", "group"),
        "pooling": ("none", "max", "avg"),
    }
)
"""Factor -> its values: 4 * 4 * 3 * 5 * 3 = 720 networks.

The values are the switches of the published code of DC, DSA and DM, the number is FTD's.
"""

SLICE: Mapping[str, tuple] = MappingProxyType(
    {"depth": (2, 3, 4), "width": (64, 128), "norm": ("batch", "instance"), "pooling": ("max", "avg")}
)
"""The 72 networks of the `hour` profile: those of the middle, cheap because all of them pool."""


@dataclass(frozen=True)
class Architecture:
    """One ConvNet of the space; the factors are options of `ddlib.models.convnets.ConvNet`."""

    depth: int
    width: int
    activation: str
    norm: str
    pooling: str

    @property
    def name(self) -> str:
        """As tables and figures call it, such as "d3-w64-relu-batch-max"."""
        return f"d{self.depth}-w{self.width}-{self.activation}-{self.norm}-{self.pooling}"

    @property
    def options(self) -> dict[str, Any]:
        """Of the network."""
        return asdict(self)

    def operations(self, shape: tuple[int, int, int]) -> int:
        """Multiply-adds of the convolutions for one image of `shape` (C, H, W)."""
        channels, height, width = shape
        total = 0
        for _ in range(self.depth):
            total += 9 * channels * self.width * height * width
            channels = self.width
            if self.pooling != "none":
                height, width = height // 2, width // 2
        return total


def space(values: Mapping[str, Sequence] = MappingProxyType({})) -> tuple[Architecture, ...]:
    """The networks with the given values of the factors, the first factor slowest; all 720 where nothing is given.

    Args:
        values: factor -> its values, in any order; factors left out have all those of `FACTORS`.

    Raises:
        ValueError: an unknown factor, one without values, with one twice, or with one that no ConvNet has.
    """
    for factor in values:
        if factor not in FACTORS:
            raise ValueError(f"unknown factor {factor!r} of the space; known: {', '.join(FACTORS)}")
    chosen = {factor: _checked(factor, values.get(factor, usual)) for factor, usual in FACTORS.items()}
    return tuple(Architecture(*combination) for combination in itertools.product(*chosen.values()))


def _checked(factor: str, values: Any) -> list:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"space[{factor!r}]={values!r}; it must be a list of at least one value")
    if len(set(values)) < len(values):
        raise ValueError(f"space[{factor!r}]={values!r} has a value twice; allowed: each once")
    for value in values:
        if isinstance(value, bool) or type(value) is not type(FACTORS[factor][0]):
            kind = type(FACTORS[factor][0]).__name__
            raise ValueError(f"space[{factor!r}] has {value!r}; it must be {kind}, such as {FACTORS[factor][1]!r}")
        _check_option(factor, value)
    return list(values)


def _check_option(factor: str, value: Any) -> None:
    """Refuse what no ConvNet takes, in the words of the network."""
    options = {"depth": 1, "width": 4, factor: value}
    try:
        models.build(
            "convnet", shape=(1, 64, 64), num_classes=2, **(options if factor != "depth" else {"depth": value})
        )
    except ValueError as error:
        raise ValueError(f"space[{factor!r}] has {value!r}: {error}") from error
