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

    sets: over the means of the distillation seeds, so that networks trained on one set count as one: the t interval of
        the differences seed by seed where both rows have the same seeds, whose networks begin alike; else Welch.
    networks: Welch over all networks of all distillation seeds, as published deviations are taken.
    p_sets, p_networks: their p by Holm's correction for all pairs of the ranking; None where nothing is known of the
        spread, as of one seed or one network.
    """

    above: Record
    below: Record
    sets: Comparison
    networks: Comparison
    p_sets: float | None
    p_networks: float | None

    def significant(self, level: float = 0.05) -> bool:
        """Whether `above` is above `below` by `p_sets`, with all pairs of the ranking together wrong at `level`."""
        return self.p_sets is not None and self.p_sets < level


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
    sets = [_by_sets(a, b) for a, b in pairs]
    networks = [welch(Sample.of(a.accuracies), Sample.of(b.accuracies)) for a, b in pairs]
    corrected = zip(_corrected(sets), _corrected(networks), strict=True)
    return [
        Pair(*pair, by_sets, by_networks, *p)
        for pair, by_sets, by_networks, p in zip(pairs, sets, networks, corrected, strict=True)
    ]


def _by_sets(a: Record, b: Record) -> Comparison:
    """Mean(a) - mean(b) over the distillation seeds, in pairs where they have the same."""
    means = seed_means(a), seed_means(b)
    if list(a.cell["seeds"]) != list(b.cell["seeds"]):
        return welch(*map(Sample.of, means))
    return welch(Sample.of([x - y for x, y in zip(*means, strict=True)]), Sample(0.0, None, 1))


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
