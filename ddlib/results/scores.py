"""Scores that do not depend on an evaluation's help: LRS and ARS of DD-Ranking (Li et al. 2025), on fractions.

    found = lrs(full=whole, hard=hard, own=own, random=random)
    found.estimate.value, found.components["HLR"].low

HLR is what hard labels lose against the whole training set, IOR what the method's own recipe gains over a random
subset of the same size; d_aug and d_noaug are that gain with and without augmentation.  The scale is compressed:
nothing lost and nothing gained gives 0.269, and 90 points gained without a loss 0.51.  So components stand beside it.

The published code puts percent into the exponentials, which leaves [0, 1]; here accuracies are divided by 100 first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from ddlib.results.records import Record
from ddlib.results.statistics import half_width, satterthwaite, seed_means

CONFIDENCE = 0.95
"""Of all intervals here."""

Side = Record | Sequence[float]
"""Accuracies in percent: one a round, or a record.

The rounds of a record are its distillation seeds, each with the mean of its networks, for networks trained on one set
are not independent; where it has one seed alone, or names none, they are its networks.
"""


@dataclass(frozen=True)
class Estimate:
    """A number with its two-sided 95 % interval.

    value, low, high: a score in [0, 1], or a difference of accuracies as fractions, in [-1, 1]; the interval is cut to
        that range, and is all of it where one side has a single round.
    n: rounds behind it; where the sides have different ones, those of the side with the fewest.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Score:
    """A score with what it is made of.

    name: "LRS" or "ARS".
    estimate: in [0, 1]; higher is better.
    components: "HLR" (lower is better) and "IOR", or "d_aug" and "d_noaug", in [-1, 1].
    """

    name: str
    estimate: Estimate
    components: Mapping[str, Estimate]


def label_robust(hlr: float, ior: float, weight: float = 0.5) -> float:
    """Label robust score: (e^a - e^-1) / (e - e^-1) with a = weight IOR - (1 - weight) HLR (DD-Ranking).

    Args:
        hlr: accuracy on the whole training set minus that on the distilled one, both with hard labels; in [-1, 1].
        ior: accuracy by the method's own recipe minus that of a random subset of its size by the same; in [-1, 1].
        weight: of `ior`, in [0, 1].

    Returns:
        In [0, 1].

    Raises:
        ValueError: an argument is out of its range, as percent are.
    """
    _check_difference("hlr", hlr)
    _check_difference("ior", ior)
    return _scaled(math.exp(_checked_weight(weight) * ior - (1 - weight) * hlr))


def augmentation_robust(d_aug: float, d_noaug: float, weight: float = 0.5) -> float:
    """Augmentation robust score: (e^b - e^-1) / (e - e^-1) with b = weight d_aug + (1 - weight) d_noaug (DD-Ranking).

    Args:
        d_aug, d_noaug: accuracy minus that of a random subset, with and without augmentation; in [-1, 1].
        weight: of `d_aug`, in [0, 1].

    Returns:
        In [0, 1].

    Raises:
        ValueError: an argument is out of its range, as percent are.
    """
    _check_difference("d_aug", d_aug)
    _check_difference("d_noaug", d_noaug)
    return _scaled(math.exp(_checked_weight(weight) * d_aug + (1 - weight) * d_noaug))


def lrs(*, full: Side, hard: Side, own: Side, random: Side, weight: float = 0.5) -> Score:
    """LRS with HLR and IOR, each with its interval; see `label_robust`.

    The interval comes from the rounds (see `Side`) and not from their means.  Sides with the same rounds (records of
    the same seeds, whose networks begin alike; sequences of one length) are taken together, round by round.  Between
    sides of different rounds every round of the one goes with every round of the other, which are independent: the
    score is the mean over all of these, its error by the delta method with the degrees of freedom of Welch and
    Satterthwaite.  Where all sides are paired, that is the t interval of the scores of the rounds.

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
    _checked_weight(weight)
    sides = {"full": full, "hard": hard, "own": own, "random": random}
    _check_alike(sides)
    rounds = {name: _rounds(name, side) for name, side in sides.items()}
    parts = {"HLR": {"full": 1.0, "hard": -1.0}, "IOR": {"own": 1.0, "random": -1.0}}
    return _score("LRS", rounds, parts, {"HLR": weight - 1, "IOR": weight})


def ars(*, aug: Side, noaug: Side, random_aug: Side, random_noaug: Side, weight: float = 0.5) -> Score:
    """ARS with d_aug and d_noaug, each with its interval; see `augmentation_robust`, and `lrs` for the intervals.

    Args:
        aug, noaug: the method with and without augmentation.
        random_aug, random_noaug: real images, as many as the method has, likewise.
        weight: of d_aug, in [0, 1].

    Raises:
        ValueError: as `lrs`.
    """
    _checked_weight(weight)
    sides = {"aug": aug, "noaug": noaug, "random_aug": random_aug, "random_noaug": random_noaug}
    _check_alike(sides)
    rounds = {name: _rounds(name, side) for name, side in sides.items()}
    parts = {"d_aug": {"aug": 1.0, "random_aug": -1.0}, "d_noaug": {"noaug": 1.0, "random_noaug": -1.0}}
    return _score("ARS", rounds, parts, {"d_aug": weight, "d_noaug": 1 - weight})


def gain(*, own: Side, other: Side) -> Estimate:
    """Accuracy minus that of other images, as a fraction: IOR where these are random ones, however many they are.

    So a row that stores a generator can be held against as many real images as take its bytes; `lrs` wants as many
    images.

    Args:
        own: the method by its own recipe.
        other: what it is held against.

    Raises:
        ValueError: as `lrs`, but that images per class may differ.
    """
    sides = {"own": own, "other": other}
    records = {name: side for name, side in sides.items() if isinstance(side, Record)}
    for what in ("dataset", "network"):
        _check_one(what, records)
    return _difference(
        _blocks({name: _rounds(name, side) for name, side in sides.items()}, {"own": 1.0, "other": -1.0})
    )


Rounds = tuple[tuple, tuple[float, ...]]
"""What names the rounds of a side, equal where sides are paired, and their accuracies as fractions."""


def _score(
    name: str, rounds: Mapping[str, Rounds], parts: Mapping[str, Mapping[str, float]], weights: Mapping[str, float]
) -> Score:
    """The score of a weighted sum of components, each a difference of two sides."""
    exponent = dict.fromkeys(rounds, 0.0)
    for part, signs in parts.items():
        exponent |= {side: weights[part] * sign for side, sign in signs.items()}
    components = {part: _difference(_blocks(rounds, signs)) for part, signs in parts.items()}
    return Score(name, _exponential(_blocks(rounds, exponent)), components)


def _blocks(rounds: Mapping[str, Rounds], weights: Mapping[str, float]) -> list[list[float]]:
    """The weighted sum of sides, as independent blocks: sides with the same rounds are added up round by round."""
    blocks: dict[tuple, list[float]] = {}
    for side in (side for side, weight in weights.items() if weight):
        key, values = rounds[side]
        before = blocks.get(key, [0.0] * len(values))
        blocks[key] = [total + weights[side] * value for total, value in zip(before, values, strict=True)]
    return list(blocks.values())


def _difference(blocks: Sequence[Sequence[float]]) -> Estimate:
    """The sum of the blocks' means."""
    half = _half_width([_variance(block) for block in blocks], [len(block) for block in blocks])
    return _estimate(sum(map(fmean, blocks)), half, blocks, low=-1.0)


def _exponential(blocks: Sequence[Sequence[float]]) -> Estimate:
    """The mean of the scaled exponential of the blocks' sum, over all combinations of their rounds.

    That mean is the product of the blocks' means of exponentials, for these factorise.
    """
    factors = [[math.exp(value) for value in block] for block in blocks]
    product = math.prod(map(fmean, factors))
    shares = [_variance(factor) / fmean(factor) ** 2 for factor in factors]
    half = product * _half_width(shares, [len(block) for block in blocks]) / (math.e - 1 / math.e)
    return _estimate(_scaled(product), half, blocks, low=0.0)


def _variance(values: Sequence[float]) -> float:
    """Of the mean of `values`; infinite for a single one."""
    return variance(values) / len(values) if len(values) > 1 else math.inf


def _half_width(variances: Sequence[float], counts: Sequence[int]) -> float:
    """Half a 95 % interval from the variances of independent means of so many values (Welch, Satterthwaite)."""
    total = sum(variances)
    if total == 0 or math.isinf(total):
        return total
    return half_width(math.sqrt(total), satterthwaite(variances, counts), CONFIDENCE)


def _estimate(value: float, half: float, blocks: Sequence[Sequence[float]], *, low: float) -> Estimate:
    """With an interval cut to [`low`, 1]."""
    return Estimate(value, max(low, value - half), min(1.0, value + half), min(map(len, blocks)))


def _scaled(exponential: float) -> float:
    """[1/e, e] to [0, 1]."""
    return (exponential - 1 / math.e) / (math.e - 1 / math.e)


def _rounds(name: str, side: Side) -> Rounds:
    values = tuple(side.accuracies if isinstance(side, Record) else side)
    if not values:
        raise ValueError(f"{name} has no rounds; allowed: accuracies of at least one network")
    if wrong := [value for value in values if not 0 <= value <= 100]:
        raise ValueError(f"{name} holds the accuracy {wrong[0]!r}; allowed: percent, from 0 to 100")
    seeds = tuple(side.cell.get("seeds", ())) if isinstance(side, Record) else ()
    key = ("seeds", *seeds) if len(seeds) > 1 else (len(values), *seeds)
    return key, tuple(value / 100 for value in (seed_means(side) if len(seeds) > 1 else values))


def _check_alike(sides: Mapping[str, Side]) -> None:
    """Refuse records that cannot be compared.

    `full` alone may have other images per class, and sides without augmentation another name of their network.
    """
    records = {name: side for name, side in sides.items() if isinstance(side, Record)}
    _check_one("dataset", records)
    _check_one("ipc", {name: record for name, record in records.items() if name != "full"})
    for plain in (True, False):
        _check_one("network", {name: record for name, record in records.items() if ("noaug" in name) == plain})


def _check_one(what: str, records: Mapping[str, Record]) -> None:
    found = {name: getattr(record, what) for name, record in records.items()}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{name} {value!r}" for name, value in found.items())
        raise ValueError(f"records are of different {what}: {said}; allowed: one {what}")


def _check_difference(name: str, value: float) -> None:
    if not -1 <= value <= 1:
        raise ValueError(f"{name}={value!r}; allowed: a difference of fractions, from -1 to 1 (not percent)")


def _checked_weight(weight: float) -> float:
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight!r}; allowed: from 0 to 1")
    return weight
