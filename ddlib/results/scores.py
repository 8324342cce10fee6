"""Scores that do not depend on an evaluation's help: LRS and ARS of DD-Ranking (Li et al. 2025), on fractions.

HLR is what hard labels lose against the whole training set, IOR what the method's own recipe gains over a random
subset of the same size; d_aug and d_noaug are that gain with and without augmentation.  The scale is compressed
(nothing lost and nothing gained gives 0.269), so components stand beside it.  The published code puts percent into the
exponentials, which leaves [0, 1]; here accuracies are divided by 100 first.

A record's *rounds* are its distillation seeds, each with the mean of its networks (those trained on one set are not
independent), or its networks where it has one seed or names none.  Records with the same rounds are paired, round by
round; records of different rounds are independent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from ddlib.results.records import Record
from ddlib.results.statistics import half_width, satterthwaite, seed_means


@dataclass(frozen=True)
class Estimate:
    """A score in [0, 1], or a difference of accuracies as fractions, with its two-sided 95 % interval.

    low, high: cut to the range of the value, and all of it where a record has a single round.
    n: rounds behind it, of the record with the fewest.
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


def lrs(*, full: Record, hard: Record, own: Record, random: Record) -> Score:
    """Label robust score (e^a - e^-1) / (e - e^-1), a = (IOR - HLR) / 2, with HLR and IOR (DD-Ranking, weight 0.5).

    The score is the mean over all combinations of rounds, its error by the delta method with the degrees of freedom of
    Welch and Satterthwaite: where all records are paired, the t interval of the scores of the rounds.

    Args:
        full: the whole training set with hard labels.
        hard: the method with hard labels.
        own: the method by its own recipe; for one with hard labels the same as `hard`.
        random: real images, as many as the method has, by the method's own recipe.

    Raises:
        ValueError: a record was not run, its accuracies are not as many for each seed, or records are of different
            data sets, networks or, but for `full`, images per class.
    """
    rows = {"hard": hard, "own": own, "random": random}
    _check_same(rows, "ipc")
    _check_same({"full": full} | rows, "dataset", "network")
    return _score({"HLR": (-0.5, full, hard), "IOR": (0.5, own, random)})


def ars(*, aug: Record, noaug: Record, random_aug: Record, random_noaug: Record) -> Score:
    """Augmentation robust score (e^b - e^-1) / (e - e^-1), b = (d_aug + d_noaug) / 2 (DD-Ranking, weight 0.5).

    Intervals, errors and what is refused are those of `lrs`; without augmentation the network may be called otherwise.

    Args:
        aug, noaug: the method with and without augmentation.
        random_aug, random_noaug: real images, as many as the method has, likewise.
    """
    rows = {"aug": aug, "noaug": noaug, "random_aug": random_aug, "random_noaug": random_noaug}
    _check_same(rows, "dataset", "ipc")
    return _score({"d_aug": (0.5, aug, random_aug), "d_noaug": (0.5, noaug, random_noaug)})


def gain(*, own: Record, other: Record) -> Estimate:
    """Accuracy minus that of other images, as a fraction: IOR where these are random ones, however many they are.

    So a row that stores a generator can be held against the real images of as many bytes.  Raises as `lrs`.
    """
    _check_same({"own": own, "other": other}, "dataset", "network")
    blocks = _blocks([(1, own), (-1, other)])
    return _estimate(sum(map(fmean, blocks)), _half_width(blocks, [1.0] * len(blocks)), blocks, low=-1.0)


def _check_same(records: Mapping[str, Record], *what: str) -> None:
    """Refuse records that do not agree in all of `what`."""
    for name in what:
        values = {side: getattr(record, name) for side, record in records.items()}
        if len(set(values.values())) > 1:
            differing = ", ".join(f"{side} {value!r}" for side, value in values.items())
            raise ValueError(f"records are of different {name}: {differing}; allowed: one {name}")


def _score(parts: Mapping[str, tuple[float, Record, Record]]) -> Score:
    """The scaled exponential of a weighted sum of `parts`, each the first record minus the second.

    Its mean over all combinations of rounds is the product of the blocks' means, as exponentials factorise.
    """
    components, terms = {}, []
    for name, (weight, first, second) in parts.items():
        components[name] = gain(own=first, other=second)
        terms += [(weight, first), (-weight, second)]
    blocks = _blocks(terms)
    factors = [[math.exp(value) for value in block] for block in blocks]
    means = [fmean(factor) for factor in factors]
    product, scale = math.prod(means), math.e - 1 / math.e
    half = product * _half_width(factors, means) / scale
    return Score(_estimate((product - 1 / math.e) / scale, half, blocks, low=0.0), components)


def _blocks(terms: Sequence[tuple[float, Record]]) -> list[list[float]]:
    """The weighted sum of records, on fractions, as independent blocks: those with the same rounds add up."""
    blocks: dict[tuple, list[float]] = {}
    for weight, record in terms:
        seeds = record.cell.get("seeds", ())
        rounds = seed_means(record) if len(seeds) > 1 else record.accuracies
        if not rounds:
            raise ValueError(f"{record.label!r} was not run; allowed: records with accuracies")
        key = (len(rounds), *seeds)
        before = blocks.get(key, [0.0] * len(rounds))
        blocks[key] = [total + weight * value / 100 for total, value in zip(before, rounds, strict=True)]
    return list(blocks.values())


def _half_width(blocks: Sequence[Sequence[float]], scales: Sequence[float]) -> float:
    """Half a 95 % interval of the sum of the blocks' means, each divided by its scale (Welch, Satterthwaite)."""
    if any(len(block) == 1 for block in blocks):
        return math.inf
    variances = [variance(block) / len(block) / scale**2 for block, scale in zip(blocks, scales, strict=True)]
    return half_width(math.sqrt(sum(variances)), satterthwaite(variances, map(len, blocks)))


def _estimate(value: float, half: float, blocks: Sequence[Sequence[float]], *, low: float) -> Estimate:
    """With an interval cut to [`low`, 1]."""
    return Estimate(value, max(low, value - half), min(1.0, value + half), min(map(len, blocks)))
