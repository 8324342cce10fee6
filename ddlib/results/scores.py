"""Scores that do not depend on an evaluation's help: LRS and ARS of DD-Ranking (Li et al. 2025), on fractions.

HLR is what hard labels lose against the whole training set, IOR what the method's own recipe gains over a random
subset of the same size; d_aug and d_noaug are that gain with and without augmentation.  The scale is compressed
(nothing lost and nothing gained gives 0.269), so components stand beside it.  The published code puts percent into the
exponentials, which leaves [0, 1]; here accuracies are divided by 100 first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from ddlib.results.records import Record
from ddlib.results.statistics import half_width, satterthwaite, seed_means

Side = Record | Sequence[float]
"""Accuracies in percent: one a round, or a record, whose rounds are its distillation seeds, each with the mean of its
networks (those trained on one set are not independent), or its networks where it has one seed or names none."""


@dataclass(frozen=True)
class Estimate:
    """A score in [0, 1], or a difference of accuracies as fractions, with its two-sided 95 % interval.

    low, high: cut to the range of the value, and all of it where one side has a single round.
    n: rounds behind it, of the side with the fewest.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Score:
    """LRS or ARS (higher is better), with "HLR" (lower is better) and "IOR", or "d_aug" and "d_noaug", in [-1, 1]."""

    estimate: Estimate
    components: Mapping[str, Estimate]


def lrs(*, full: Side, hard: Side, own: Side, random: Side, weight: float = 0.5) -> Score:
    """Label robust score (e^a - e^-1) / (e - e^-1), a = weight IOR - (1 - weight) HLR, with HLR and IOR (DD-Ranking).

    The interval comes from the rounds (see `Side`).  Sides with the same rounds (records of the same seeds; sequences
    of one length) are paired, round by round; sides of different rounds are independent.  The score is the mean over
    all combinations, its error by the delta method with the degrees of freedom of Welch and Satterthwaite: where all
    sides are paired, the t interval of the scores of the rounds.

    Args:
        full: the whole training set with hard labels.
        hard: the method with hard labels.
        own: the method by its own recipe; for one with hard labels the same as `hard`.
        random: real images, as many as the method has, by the method's own recipe.
        weight: of IOR, in [0, 1].

    Raises:
        ValueError: there is no round, an accuracy lies outside [0, 100], `weight` outside [0, 1], a record's
            accuracies are not as many for each seed, or records are of different data sets, networks or, but for
            `full`, images per class.
    """
    sides = {"full": full, "hard": hard, "own": own, "random": random}
    return _score(sides, {"HLR": (weight - 1, "full", "hard"), "IOR": (weight, "own", "random")}, weight)


def ars(*, aug: Side, noaug: Side, random_aug: Side, random_noaug: Side, weight: float = 0.5) -> Score:
    """Augmentation robust score (e^b - e^-1) / (e - e^-1), b = weight d_aug + (1 - weight) d_noaug (DD-Ranking).

    Intervals and errors are those of `lrs`.

    Args:
        aug, noaug: the method with and without augmentation.
        random_aug, random_noaug: real images, as many as the method has, likewise.
    """
    sides = {"aug": aug, "noaug": noaug, "random_aug": random_aug, "random_noaug": random_noaug}
    parts = {"d_aug": (weight, "aug", "random_aug"), "d_noaug": (1 - weight, "noaug", "random_noaug")}
    return _score(sides, parts, weight)


def gain(*, own: Side, other: Side) -> Estimate:
    """Accuracy minus that of other images, as a fraction: IOR where these are random ones, however many they are.

    So a row that stores a generator can be held against the real images of as many bytes.  Raises as `lrs`.
    """
    sides = {"own": own, "other": other}
    for what in ("dataset", "network"):
        _check_same(what, sides)
    rounds = {name: _rounds(name, side) for name, side in sides.items()}
    return _difference(_blocks(rounds, {"own": 1.0, "other": -1.0}))


Rounds = tuple[tuple, tuple[float, ...]]
"""What names the rounds of a side, equal where sides are paired, and their accuracies as fractions."""


def _score(sides: Mapping[str, Side], parts: Mapping[str, tuple[float, str, str]], weight: float) -> Score:
    """The score whose exponent is a weighted sum of `parts`: component -> weight, and the first side minus the second.

    `full` alone may have other images per class, and sides without augmentation another name of their network.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight!r}; allowed: from 0 to 1")
    _check_same("dataset", sides)
    _check_same("ipc", {side: of for side, of in sides.items() if side != "full"})
    for plain in (True, False):
        _check_same("network", {side: of for side, of in sides.items() if ("noaug" in side) == plain})
    rounds, exponent = {side: _rounds(side, of) for side, of in sides.items()}, dict.fromkeys(sides, 0.0)
    components = {}
    for part, (share, first, second) in parts.items():
        components[part] = _difference(_blocks(rounds, {first: 1.0, second: -1.0}))
        exponent |= {first: share, second: -share}
    return Score(_exponential(_blocks(rounds, exponent)), components)


def _check_same(what: str, sides: Mapping[str, Side]) -> None:
    """Refuse records of which not all have the same `what`."""
    values = {name: getattr(side, what) for name, side in sides.items() if isinstance(side, Record)}
    if len(set(values.values())) > 1:
        differing = ", ".join(f"{name} {value!r}" for name, value in values.items())
        raise ValueError(f"records are of different {what}: {differing}; allowed: one {what}")


def _rounds(name: str, side: Side) -> Rounds:
    values = tuple(side.accuracies if isinstance(side, Record) else side)
    if not values:
        raise ValueError(f"{name} has no rounds; allowed: accuracies of at least one network")
    if wrong := [value for value in values if not 0 <= value <= 100]:
        raise ValueError(f"{name} holds the accuracy {wrong[0]!r}; allowed: percent, from 0 to 100")
    seeds = tuple(side.cell.get("seeds", ())) if isinstance(side, Record) else ()
    if len(seeds) > 1:
        return ("seeds", *seeds), tuple(value / 100 for value in seed_means(side))
    return (len(values), *seeds), tuple(value / 100 for value in values)


def _blocks(rounds: Mapping[str, Rounds], weights: Mapping[str, float]) -> list[list[float]]:
    """The weighted sum of sides, as independent blocks: sides with the same rounds are added up round by round."""
    blocks: dict[tuple, list[float]] = {}
    for side, weight in weights.items():
        if weight:
            key, values = rounds[side]
            before = blocks.get(key, [0.0] * len(values))
            blocks[key] = [total + weight * value for total, value in zip(before, values, strict=True)]
    return list(blocks.values())


def _difference(blocks: Sequence[Sequence[float]]) -> Estimate:
    """The sum of the blocks' means."""
    return _estimate(sum(map(fmean, blocks)), _half_width(blocks, [1.0] * len(blocks)), blocks, low=-1.0)


def _exponential(blocks: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the scaled exponential of the blocks' sum over all combinations of rounds: exponentials factorise."""
    factors = [[math.exp(value) for value in block] for block in blocks]
    means = [fmean(factor) for factor in factors]
    product, scale = math.prod(means), math.e - 1 / math.e
    half = product * _half_width(factors, means) / scale
    return _estimate((product - 1 / math.e) / scale, half, blocks, low=0.0)


def _half_width(blocks: Sequence[Sequence[float]], scales: Sequence[float]) -> float:
    """Half a 95 % interval of the sum of the blocks' means, each divided by its scale (Welch, Satterthwaite)."""
    if any(len(block) == 1 for block in blocks):
        return math.inf
    variances = [variance(block) / len(block) / scale**2 for block, scale in zip(blocks, scales, strict=True)]
    return half_width(math.sqrt(sum(variances)), satterthwaite(variances, map(len, blocks)))


def _estimate(value: float, half: float, blocks: Sequence[Sequence[float]], *, low: float) -> Estimate:
    """With an interval cut to [`low`, 1]."""
    return Estimate(value, max(low, value - half), min(1.0, value + half), min(map(len, blocks)))
