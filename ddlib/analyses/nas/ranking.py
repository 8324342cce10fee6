"""How well a cheap ranking of networks agrees with that on all data, and how sure that is.

Spearman's and Kendall's coefficients are both correlations of signs (Daniels 1944).  With S_ij = sign(a_i - a_j), and T
likewise for the full data, Kendall's tau-b is the cosine of S and T, and Spearman's rho that of their row sums, which
are the (average) ranks up to scale.  Ties are zeros, and a network drawn twice by the bootstrap is tied with itself.
`scipy.stats` gives the same values; it takes seconds to import, and has no weights.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ddlib.results.statistics import Sample, welch
from ddlib.seeding import generator

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
    (a,), (b,) = _checked([ours], full)
    return float(_weighted(_signs(a), _signs(b), np.ones((1, len(b))), _known(kind))[0])


def levels(full: Sequence[float]) -> dict[str, np.ndarray]:
    """Name -> positions of the networks among which correlations are reported, those with too few left out.

    "all"; "top 20 %" (rounded up) and "top 10" by the accuracy on all data.  Networks that tie with the last one are
    in too.
    """
    full = np.asarray(full, dtype=float)
    found = {"all": np.arange(len(full))}
    for name, count in (("top 20 %", math.ceil(TOP_SHARE * len(full))), (f"top {TOP}", TOP)):
        if LEAST <= count < len(full):
            found[name] = np.flatnonzero(full >= np.sort(full)[-count])
    return found


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
    return _interval(_resampled(searches, full, kind, seed, among=among))


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
    return _gain(*(_resampled(table, full, kind, seed, among=among) for table in (ours, other)))


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
    return _interval(_resampled(repeats, targets(repeats), kind, seed, among=among, own=True))


def winners(ours: Sequence[float]) -> np.ndarray:
    """Positions of the most accurate networks; several where they tie."""
    ours = np.asarray(ours, dtype=float)
    return np.flatnonzero(ours == ours.max())


def winner_accuracy(searches: Sequence[Sequence[float]], full: Sequence[float]) -> Interval:
    """Accuracy on all data of the network that a search finds, mean over searches; the mean of winners that tie.

    The interval is from the least to the greatest of the searches.
    """
    full = np.asarray(full, dtype=float)
    found = [float(full[winners(one)].mean()) for one in searches]
    return Interval(float(np.mean(found)), min(found), max(found))


def winner_among_repeats(repeats: Sequence[Sequence[float]]) -> Interval:
    """As `winner_accuracy` of the repeats on all data, each one's winner by the others; by itself if there is but one.

    By a mean that holds the repeat, its winner would be the maximum of its own noise.
    """
    pairs = zip(np.asarray(repeats, dtype=float), targets(repeats), strict=True)
    found = [winner_accuracy([one], target).value for one, target in pairs]
    return Interval(float(np.mean(found)), min(found), max(found))


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
    goals, rows = targets(accuracies[reference]), []
    shown = [label for label, table in accuracies.items() if label != reference or len(table) > 1]
    for label, among, kind in itertools.product(shown, levels(goals[0]), KINDS):
        drawn = {
            name: _resampled(accuracies[name], goals, kind, 0, among=among, own=name == reference)
            for name in (label, baseline)
            if name is not None
        }
        better = None if baseline in (None, label) else _gain(drawn[label], drawn[baseline])
        fewest = min(len(levels(goal)[among]) for goal in goals)
        row = {"method": label, "among": among, "networks": fewest, "kind": kind, "searches": len(drawn[label])}
        rows.append(row | _plain("", _interval(drawn[label])) | _plain("gain", better))
    return rows


def _plain(name: str, found: Interval | None) -> dict[str, float | None]:
    keys = ("value", "low", "high") if not name else (name, f"{name}_low", f"{name}_high")
    values = (math.nan,) * 3 if found is None else (found.value, found.low, found.high)
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in zip(keys, values, strict=True)}


def _resampled(searches: Any, full: Any, kind: str, seed: int, *, among: str, own: bool = False) -> np.ndarray:
    """The coefficient of each search as it is, and then in every draw of networks: (S, 1 + RESAMPLES).

    Networks are drawn from all; those `among` count as often as they were drawn.

    Args:
        own: each search has a target of its own; else each is averaged over all.
    """
    tables, goals = _checked(searches, full)
    n = goals.shape[1]
    which = torch.randint(n, (RESAMPLES, n), generator=generator(seed, "bootstrap", "networks", n)).numpy()
    weights = np.concatenate([np.ones((1, n)), np.stack([np.bincount(draw, minlength=n) for draw in which])])
    found = []
    for place, one in enumerate(tables):
        theirs = goals[[place]] if own else goals
        chosen = [(goal, levels(goal)[among]) for goal in theirs]
        values = [_weighted(_signs(one[k]), _signs(goal[k]), weights[:, k], _known(kind)) for goal, k in chosen]
        found.append(np.mean(values, axis=0))
    return np.stack(found)


def _interval(each: np.ndarray, other: np.ndarray | None = None, *, limit: float = 1) -> Interval:
    """Of the mean over searches of what `_resampled` gives, less that of `other`, within ± `limit`; see `agreement`."""
    values = each.mean(0) - (0 if other is None else other.mean(0))
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not len(drawn) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    searches = welch(_sample(each[:, 0]), Sample(0.0, None, 1) if other is None else _sample(other[:, 0]), CONFIDENCE)
    half = (searches.high - searches.low) / 2
    below, above = (math.hypot(max(part, 0), half) for part in (value - low, high - value))
    return Interval(value, max(-limit, value - below), min(limit, value + above))


def _gain(ours: np.ndarray, other: np.ndarray) -> Interval:
    """The difference, search by search where there are as many, which begin from the same seeds."""
    paired = len(ours) == len(other)
    return _interval(ours - other, limit=2) if paired else _interval(ours, other, limit=2)


def _sample(values: np.ndarray) -> Sample:
    """Of one search nothing is known of the spread: it is taken as it is."""
    return Sample.of([*map(float, values)]) if len(values) > 1 else Sample(float(values[0]), None, 1)


def _signs(values: np.ndarray) -> np.ndarray:
    return np.sign(values[:, None] - values[None, :])


def _weighted(ours: np.ndarray, full: np.ndarray, weights: np.ndarray, kind: str) -> np.ndarray:
    """The coefficient with each network counted as often as `weights` (B, n) say: (B,)."""
    if kind == "spearman":
        a, b = weights @ ours.T, weights @ full.T
        dots = [(weights * x).sum(1) for x in (a * b, a * a, b * b)]
    else:
        dots = [((weights @ x) * weights).sum(1) for x in (ours * full, ours * ours, full * full)]
    scale = np.sqrt(dots[1] * dots[2])
    return np.divide(dots[0], scale, out=np.full(len(weights), math.nan), where=scale > 0)


def _known(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of correlation; known: {', '.join(KINDS)}")
    return kind


def _checked(searches: Any, full: Any) -> tuple[np.ndarray, np.ndarray]:
    """(S, n) accuracies and (T, n) of the full data."""
    tables, goals = np.asarray(searches, dtype=float), np.atleast_2d(np.asarray(full, dtype=float))
    n = goals.shape[1]
    if n < LEAST:
        raise ValueError(f"{n} networks to correlate; at least {LEAST} are needed")
    if tables.ndim != 2 or tables.shape[1] != n or not len(tables):
        raise ValueError(f"accuracies of shape {tables.shape} beside {n} of the full data; allowed: as many")
    if not (np.isfinite(tables).all() and np.isfinite(goals).all()):
        raise ValueError("accuracies hold values that are not finite")
    return tables, goals
