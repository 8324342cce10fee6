"""Architecture search with distilled sets in the place of all data (DC, DM, DataDAM; ATOM's abstract names it).

`space` gives the networks; `correlations` says how well a cheap ranking of them agrees with that on all data, and how
sure that is.

Spearman's and Kendall's coefficients are both correlations of signs (Daniels 1944).  With S_ij = sign(a_i - a_j), and T
likewise for the full data, Kendall's tau-b is the cosine of S and T, and Spearman's rho that of their row sums, which
are the (average) ranks up to scale.  Ties are zeros, and a network drawn twice by the bootstrap is tied with itself.
So all draws of a bootstrap are a few products of matrices, where scipy.stats would be called for each draw.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ddlib import models
from ddlib.results.statistics import ZERO, Sample, welch
from ddlib.seeding import generator

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
    chosen = {factor: _values(factor, values.get(factor, usual)) for factor, usual in FACTORS.items()}
    return tuple(Architecture(*combination) for combination in itertools.product(*chosen.values()))


def _values(factor: str, values: Any) -> list:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"space[{factor!r}]={values!r}; it must be a list of at least one value")
    if len(set(values)) < len(values):
        raise ValueError(f"space[{factor!r}]={values!r} has a value twice; allowed: each once")
    for value in values:
        if isinstance(value, bool) or type(value) is not type(FACTORS[factor][0]):
            kind = type(FACTORS[factor][0]).__name__
            raise ValueError(f"space[{factor!r}] has {value!r}; it must be {kind}, such as {FACTORS[factor][1]!r}")
        try:  # what no ConvNet takes is refused in the words of the network
            models.build("convnet", shape=(1, 64, 64), num_classes=2, **{"depth": 1, "width": 4, factor: value})
        except ValueError as error:
            raise ValueError(f"space[{factor!r}] has {value!r}: {error}") from error
    return list(values)


KINDS = ("spearman", "kendall")
LEAST = 3
"""Networks that a correlation needs."""

TOP_SHARE, TOP = 0.2, 10
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its interval of 95 %; nan where it is undefined, as where all accuracies are equal."""

    value: float
    low: float
    high: float


def correlation(ours: Sequence[float], full: Sequence[float], kind: str = "spearman") -> float:
    """Rank correlation of two lists of accuracies, in [-1, 1]; nan where one of them is constant.

    Args:
        kind: "spearman" (rho) or "kendall" (tau-b).

    Raises:
        ValueError: an unknown kind, fewer than three networks, lists of unequal length, or values that are not finite.
    """
    return float(_coefficients([ours], full, kind, draws=0)[0, 0])


def levels(full: Sequence[float]) -> dict[str, np.ndarray]:
    """Name -> positions of the networks among which correlations are reported, those with too few left out.

    "all"; "top 20 %" (rounded up) and "top 10" by the accuracy on all data.  Networks that tie with the last one are
    in too.
    """
    full = np.asarray(full, dtype=float)
    positions = {"all": np.arange(len(full))}
    for name, count in (("top 20 %", math.ceil(TOP_SHARE * len(full))), (f"top {TOP}", TOP)):
        if LEAST <= count < len(full):
            positions[name] = np.flatnonzero(full >= np.sort(full)[-count])
    return positions


def targets(repeats: Sequence[Sequence[float]]) -> np.ndarray:
    """(S, n): what is ranked against, for each repeat on all data the mean of the others; a single one as it is.

    A repeat may not be in what it is ranked by; and what a set is worth beside a repeat is told on the same targets,
    which hold the same noise.
    """
    table = np.asarray(repeats, dtype=float)
    if len(table) < 2:
        return table
    return np.stack([np.delete(table, i, axis=0).mean(0) for i in range(len(table))])


def agreement(
    searches: Sequence[Sequence[float]],
    full: Sequence[float] | Sequence[Sequence[float]],
    kind: str = "spearman",
    *,
    among: str = "all",
    seed: int = 0,
) -> Interval:
    """Mean correlation of several searches (draws, seeds) with the full ranking, and its interval.

    The interval has two parts, whose half-widths add in quadrature.  Of the networks: the percentile interval of a
    bootstrap, which draws them with replacement, the same for all searches, 1,000 times; draws in which a correlation
    is undefined are left out.  Of the searches: Student's t, since so few of them cannot be drawn from; nothing where
    there is one.  The full ranking is taken as it is.  What searches have of the noise of the networks is in both
    parts, so that intervals are rather wide where searches hardly differ.

    Args:
        searches: (S, n) accuracies, one row a search.
        full: (n,) accuracies on all data, or (T, n) of `targets`, over which correlations are averaged.
        kind: as of `correlation`.
        among: one of `levels`, for each target by its own accuracies.
        seed: of the bootstrap; networks drawn are the same for all calls with equal n and seed.

    Raises:
        ValueError: as `correlation`.
    """
    return _interval(_coefficients(searches, full, kind, among=among, seed=seed))


def gain(
    ours: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    full: Sequence[float] | Sequence[Sequence[float]],
    kind: str = "spearman",
    *,
    among: str = "all",
    seed: int = 0,
) -> Interval:
    """`agreement` of `ours` less that of `other`: on the same drawn networks, and search by search if as many.

    Raises:
        ValueError: as `correlation`.
    """
    each, others = (_coefficients(table, full, kind, among=among, seed=seed) for table in (ours, other))
    return _interval(each, others)


def among_repeats(
    repeats: Sequence[Sequence[float]], kind: str = "spearman", *, among: str = "all", seed: int = 0
) -> Interval | None:
    """How well the training on all data agrees with itself: each repeat with the mean of the others, which ranks.

    It says how much of a ranking by so few repeats is noise.  None where there is but one repeat.  Repeats rank one
    another, so that they are not quite independent, as the interval takes them to be.

    Args:
        repeats: (S, n) accuracies on all data of all networks, one row a repeat.
        among: one of `levels`, by the mean of the others: by that of all, the repeats would be chosen by themselves.
    """
    if len(repeats) < 2:
        return None
    return _interval(_coefficients(repeats, targets(repeats), kind, among=among, seed=seed, own=True))


def winners(ours: Sequence[float]) -> np.ndarray:
    """Positions of the most accurate networks; several where they tie."""
    ours = np.asarray(ours, dtype=float)
    return np.flatnonzero(ours == ours.max())


def winner_accuracy(searches: Sequence[Sequence[float]], full: Sequence[float]) -> Interval:
    """Accuracy on all data of the network that a search finds, mean over searches; the mean of winners that tie.

    The interval is from the least to the greatest of the searches.
    """
    full = np.asarray(full, dtype=float)
    reached = [float(full[winners(search)].mean()) for search in searches]
    return Interval(float(np.mean(reached)), min(reached), max(reached))


def winner_among_repeats(repeats: Sequence[Sequence[float]]) -> Interval:
    """As `winner_accuracy` of the repeats on all data, each one's winner by the others; by itself if there is but one.

    By a mean that holds the repeat, its winner would be the maximum of its own noise.
    """
    pairs = zip(np.asarray(repeats, dtype=float), targets(repeats), strict=True)
    reached = [winner_accuracy([repeat], target).value for repeat, target in pairs]
    return Interval(float(np.mean(reached)), min(reached), max(reached))


def correlations(
    accuracies: Mapping[str, np.ndarray], reference: str, *, baseline: str | None = None
) -> list[dict[str, Any]]:
    """Agreement with the full ranking for each proxy, among all networks and the best: rows of plain values.

    Args:
        accuracies: label -> (S, n).
        reference: the label of the whole data, whose repeats rank: `targets`.
        baseline: the label to which the others are compared; None: to none.

    Returns:
        Rows of "method", "among", "networks" (the fewest, where targets have different ties), "kind", "value", "low",
        "high", "searches", "gain", "gain_low" and "gain_high" (over the baseline; None where undefined), one for each
        label, level and kind; the reference's are `among_repeats`, and left out where it was not repeated.
    """
    goals = targets(accuracies[reference])
    coefficients = {
        (label, among, kind): _coefficients(table, goals, kind, among=among, own=label == reference)
        for label, table in accuracies.items()
        for among, kind in itertools.product(levels(goals[0]), KINDS)
    }
    rows = []
    for (label, among, kind), each in coefficients.items():
        if label == reference and len(each) < 2:
            continue
        fewest = min(len(levels(goal)[among]) for goal in goals)
        row = {"method": label, "among": among, "networks": fewest, "kind": kind, "searches": len(each)}
        better = None
        if baseline not in (None, label):
            better = _interval(each, coefficients[baseline, among, kind])
        rows.append(row | _plain("", _interval(each)) | _plain("gain", better))
    return rows


def _plain(name: str, interval: Interval | None) -> dict[str, float | None]:
    """The interval as columns, rounded; None where it is undefined."""
    keys = (name, f"{name}_low", f"{name}_high") if name else ("value", "low", "high")
    values = (interval.value, interval.low, interval.high) if interval else (math.nan,) * 3
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in zip(keys, values, strict=True)}


def _coefficients(
    searches: Any,
    full: Any,
    kind: str,
    *,
    among: str = "all",
    seed: int = 0,
    own: bool = False,
    draws: int | None = None,
) -> np.ndarray:
    """The coefficient of each search as it is, and then in every bootstrap draw of networks: (S, 1 + draws).

    Networks are drawn from all; those `among` count as often as they were drawn.

    Args:
        own: search i has target i; else each is averaged over all targets.
        draws: None for `RESAMPLES`.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of correlation; known: {', '.join(KINDS)}")
    tables, goals = np.asarray(searches, dtype=float), np.atleast_2d(np.asarray(full, dtype=float))
    n = goals.shape[1]
    if n < LEAST:
        raise ValueError(f"{n} networks to correlate; at least {LEAST} are needed")
    if tables.ndim != 2 or tables.shape[1] != n or not len(tables):
        raise ValueError(f"accuracies of shape {tables.shape} beside {n} of the full data; allowed: as many")
    if not (np.isfinite(tables).all() and np.isfinite(goals).all()):
        raise ValueError("accuracies hold values that are not finite")
    draws = RESAMPLES if draws is None else draws
    drawn = torch.randint(n, (draws, n), generator=generator(seed, "bootstrap", "networks", n)).numpy()
    counts = np.stack([np.ones(n), *(np.bincount(draw, minlength=n) for draw in drawn)])
    chosen = [levels(goal)[among] for goal in goals]
    coefficients = []
    for i, table in enumerate(tables):
        values = [
            _weighted(table[chosen[j]], goals[j][chosen[j]], counts[:, chosen[j]], kind)
            for j in ([i] if own else range(len(goals)))
        ]
        coefficients.append(np.mean(values, axis=0))
    return np.stack(coefficients)


def _weighted(ours: np.ndarray, full: np.ndarray, counts: np.ndarray, kind: str) -> np.ndarray:
    """The coefficient with each network counted as often as each row of `counts` (B, n) says: (B,)."""
    s, t = (np.sign(values[:, None] - values[None, :]) for values in (ours, full))
    if kind == "spearman":
        a, b = counts @ s.T, counts @ t.T
        products = [(counts * x).sum(1) for x in (a * b, a * a, b * b)]
    else:
        products = [((counts @ x) * counts).sum(1) for x in (s * t, s * s, t * t)]
    scale = np.sqrt(products[1] * products[2])
    return np.divide(products[0], scale, out=np.full(len(counts), math.nan), where=scale > 0)


def _interval(each: np.ndarray, other: np.ndarray | None = None) -> Interval:
    """Of the mean over searches of `_coefficients`, or of the difference of two; see `agreement`.

    Two are compared search by search where there are as many, for these begin from the same seeds.
    """
    limit = 1 if other is None else 2
    if other is not None and len(each) == len(other):
        each, other = each - other, None
    means = each.mean(0) - (0 if other is None else other.mean(0))
    value, drawn = float(means[0]), means[1:][np.isfinite(means[1:])]
    if not len(drawn) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    by_search = welch(_sample(each[:, 0]), ZERO if other is None else _sample(other[:, 0]))
    half = (by_search.high - by_search.low) / 2
    below, above = math.hypot(max(value - low, 0), half), math.hypot(max(high - value, 0), half)
    return Interval(value, max(-limit, value - below), min(limit, value + above))


def _sample(values: np.ndarray) -> Sample:
    """Of one search nothing is known of the spread: it is taken as it is."""
    return Sample.of([*map(float, values)]) if len(values) > 1 else Sample(float(values[0]), None, 1)
