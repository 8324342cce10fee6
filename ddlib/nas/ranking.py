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

from ddlib.seeding import generator

KINDS = ("spearman", "kendall")
LEAST = 3
"""Networks that a correlation needs."""

TOP_SHARE, TOP = 0.2, 10
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with its percentile interval of 95 %; nan where it is undefined, as where all accuracies are equal."""

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
    a, b = _checked([ours], full)
    return float(_weighted(_signs(a[0]), _signs(b), np.ones((1, len(b))), _known(kind))[0])


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


def agreement(
    searches: Sequence[Sequence[float]], full: Sequence[float], kind: str = "spearman", *, seed: int = 0
) -> Interval:
    """Mean correlation of several searches (draws, seeds) with the full ranking, and its bootstrap interval.

    The bootstrap draws networks, the same for all searches, and searches, with replacement, 1,000 times.  The full
    ranking is taken as it is.  Draws in which a correlation is undefined are left out.

    Args:
        searches: (S, n) accuracies, one row a search.
        full: (n,) accuracies on all data.
        kind: as of `correlation`.
        seed: of the bootstrap; networks drawn are the same for all calls with equal n and seed.

    Raises:
        ValueError: as `correlation`.
    """
    values = _resampled(searches, full, kind, seed)
    return _interval(values)


def gain(
    ours: Sequence[Sequence[float]],
    other: Sequence[Sequence[float]],
    full: Sequence[float],
    kind: str = "spearman",
    *,
    seed: int = 0,
) -> Interval:
    """`agreement` of `ours` less that of `other`; the bootstrap draws the same networks for both.

    Raises:
        ValueError: as `correlation`.
    """
    return _interval(_resampled(ours, full, kind, seed) - _resampled(other, full, kind, seed, stream="other"))


def among_repeats(
    repeats: Sequence[Sequence[float]], kind: str = "spearman", *, among: str = "all", seed: int = 0
) -> Interval | None:
    """How well the training on all data agrees with itself: each repeat with the mean of the others, which ranks.

    It says how much of a ranking by so few repeats is noise.  None where there is but one repeat.

    Args:
        repeats: (S, n) accuracies on all data of all networks, one row a repeat.
        among: one of `levels`, by the mean of the others: by that of all, the repeats would be chosen by themselves.
    """
    table = np.asarray(repeats, dtype=float)
    if len(table) < 2:
        return None
    parts = []
    for i, one in enumerate(table):
        others = np.delete(table, i, axis=0).mean(0)
        chosen = levels(others)[among]
        parts.append(_resampled([one[chosen]], others[chosen], kind, seed))
    return _interval(np.mean(parts, axis=0))


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


def correlations(
    accuracies: Mapping[str, np.ndarray], reference: str, *, baseline: str | None = None
) -> list[dict[str, Any]]:
    """Agreement with the full ranking for each proxy, among all networks and the best: rows of plain values.

    Args:
        accuracies: label -> (S, n).
        reference: the label of the whole data, whose mean over its repeats ranks.
        baseline: the label to which the others are compared; None: to none.

    Returns:
        Rows of "method", "among", "networks", "kind", "value", "low", "high", "searches", "gain", "gain_low" and
        "gain_high" (over the baseline; None where undefined), one for each label, level and kind; the reference's are
        `among_repeats`.
    """
    full = np.mean(accuracies[reference], axis=0)
    parts = itertools.product(accuracies, levels(full).items(), KINDS)
    rows = [_row(accuracies, full, part, reference=reference, baseline=baseline) for part in parts]
    return [row for row in rows if row is not None]


def _row(accuracies, full, part, *, reference, baseline) -> dict[str, Any] | None:
    """A row of `correlations`; None of a reference that was not repeated."""
    label, (among, chosen), kind = part
    table, better = accuracies[label][:, chosen], None
    if label == reference:
        found = among_repeats(accuracies[label], kind, among=among)
    else:
        found = agreement(table, full[chosen], kind)
        if baseline not in (None, label):
            better = gain(table, accuracies[baseline][:, chosen], full[chosen], kind)
    if found is None:
        return None
    row = {"method": label, "among": among, "networks": len(chosen), "kind": kind, "searches": len(table)}
    return row | _plain("", found) | _plain("gain", better)


def _plain(name: str, found: Interval | None) -> dict[str, float | None]:
    keys = ("value", "low", "high") if not name else (name, f"{name}_low", f"{name}_high")
    values = (math.nan,) * 3 if found is None else (found.value, found.low, found.high)
    return {key: round(value, 4) if math.isfinite(value) else None for key, value in zip(keys, values, strict=True)}


def _resampled(
    searches: Sequence[Sequence[float]], full: Sequence[float], kind: str, seed: int, *, stream: str = "searches"
) -> np.ndarray:
    """The statistic as it is, and then in every draw of the bootstrap: (1 + RESAMPLES,)."""
    tables, target = _checked(searches, full)
    n, count = len(target), len(tables)
    which = _draws(n, generator(seed, "bootstrap", "networks", n))
    weights = np.concatenate([np.ones((1, n)), np.stack([np.bincount(draw, minlength=n) for draw in which])])
    signs = _signs(target)
    each = np.stack([_weighted(_signs(one), signs, weights, _known(kind)) for one in tables])
    picked = _draws(count, generator(seed, "bootstrap", stream, count))
    rest = np.take_along_axis(each[:, 1:].T, picked, axis=1).mean(1)
    return np.concatenate([[each[:, 0].mean()], rest])


def _draws(count: int, stream: Any) -> np.ndarray:
    """(RESAMPLES, count) positions, each row drawn with replacement."""
    return torch.randint(count, (RESAMPLES, count), generator=stream).numpy()


def _interval(values: np.ndarray) -> Interval:
    drawn = values[1:][np.isfinite(values[1:])]
    if not len(drawn):
        return Interval(float(values[0]), math.nan, math.nan)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(values[0]), float(low), float(high))


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


def _checked(searches: Sequence[Sequence[float]], full: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    tables, target = np.asarray(searches, dtype=float), np.asarray(full, dtype=float)
    if len(target) < LEAST:
        raise ValueError(f"{len(target)} networks to correlate; at least {LEAST} are needed")
    if tables.ndim != 2 or tables.shape[1] != len(target) or not len(tables):
        raise ValueError(f"accuracies of shape {tables.shape} beside {len(target)} of the full data; allowed: as many")
    if not (np.isfinite(tables).all() and np.isfinite(target).all()):
        raise ValueError("accuracies hold values that are not finite")
    return tables, target
