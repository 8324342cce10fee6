"""Rows in the order of their accuracy, and whether each is above the next by more than the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ddlib.results.records import Record
from ddlib.results.verdicts import Comparison, Sample, welch


@dataclass(frozen=True)
class Pair:
    """Two rows that follow one another in a ranking: `above` minus `below`, tested in two ways.

    networks: Welch over all networks of all distillation seeds, as published deviations are taken.
    sets: Welch over the means of the distillation seeds, so that networks trained on one set count as one.
    p_networks, p_sets: their p by Holm's correction for all pairs of the ranking; None where a side has one value.
    """

    above: Record
    below: Record
    networks: Comparison
    sets: Comparison
    p_networks: float | None
    p_sets: float | None

    def significant(self, level: float = 0.05) -> bool:
        """Whether `above` is above `below` by `p_networks`, with all pairs of the ranking together wrong at `level`."""
        return self.p_networks is not None and self.p_networks < level


def ranked(records: Sequence[Record]) -> list[Record]:
    """The records that were run, the highest mean accuracy first; of equal ones the earlier."""
    return sorted((record for record in records if record.n), key=lambda record: -record.accuracy_mean)


def seed_means(record: Record) -> tuple[float, ...]:
    """The mean accuracy of each distillation seed, in percent.

    Raises:
        ValueError: the accuracies are not as many for each of the seeds, or the record does not say these.
    """
    seeds = len(record.cell.get("seeds", ()))
    if not seeds or not record.n or record.n % seeds:
        raise ValueError(
            f"{record.label!r} has {record.n} accuracies of {seeds} seeds; allowed: as many for each, at least one"
        )
    each = record.n // seeds
    return tuple(fmean(record.accuracies[i : i + each]) for i in range(0, record.n, each))


def neighbours(records: Sequence[Record]) -> list[Pair]:
    """Each pair of neighbours in the ranking of `records`, the highest first.

    Where pairs are chosen by the ranking, their means differ by selection too; Holm's correction does not undo this.

    Raises:
        ValueError: as `seed_means`.
    """
    pairs = list(pairwise(ranked(records)))
    networks = [welch(Sample.of(a.accuracies), Sample.of(b.accuracies)) for a, b in pairs]
    sets = [welch(Sample.of(seed_means(a)), Sample.of(seed_means(b))) for a, b in pairs]
    corrected = zip(_corrected(networks), _corrected(sets), strict=True)
    return [
        Pair(*pair, by_networks, by_sets, *p)
        for pair, by_networks, by_sets, p in zip(pairs, networks, sets, corrected, strict=True)
    ]


def holm(values: Sequence[float]) -> list[float]:
    """p values by Holm's step-down correction (1979): at level a, all together are wrong with probability <= a.

    The i-th smallest of m, from 0 on, is multiplied by m - i, no less than the one before, and at most 1.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    if wrong := [value for value in values if not 0 <= value <= 1]:
        raise ValueError(f"values contain {wrong[0]!r}; allowed: p values, from 0 to 1")
    found, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        least = found[place] = max(least, min(1.0, (len(values) - rank) * values[place]))
    return found


def _corrected(comparisons: Sequence[Comparison]) -> list[float | None]:
    """Holm over the comparisons that can be tested; None for the others."""
    tested = [comparison.error < float("inf") for comparison in comparisons]
    left = iter(holm([c.p for c, possible in zip(comparisons, tested, strict=True) if possible]))
    return [next(left) if possible else None for possible in tested]
