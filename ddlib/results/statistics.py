"""Intervals, tests and verdicts: what the spread of a few accuracies allows one to say.

Tests are written on what a published number states too: mean, deviation and number.  Distributions are those of
scipy.stats, which takes a second to import and is imported where it is used.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from ddlib.results.papers import Reference

if TYPE_CHECKING:
    import pandas

    from ddlib.results.records import Record

VERDICTS = ("REPRODUCED", "CLOSE", "ABOVE", "BELOW", "INCONCLUSIVE", "PROXY", "NOT RUN", "NO REFERENCE")

DELTA = 1.0
"""Half the width of the band of equivalence, in percentage points, where a reference states none."""

ASSUMED_N = 5
"""How many networks are taken to lie behind a published deviation that does not say."""


@dataclass(frozen=True)
class Sample:
    """Mean, sample deviation (ddof 1; None for a number taken as exact) and number of some values."""

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """That of at least one value."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    @property
    def variance(self) -> float:
        """Variance of the mean; infinite for a single value, zero for an exact number."""
        if self.std is None:
            return 0.0
        return self.std**2 / self.n if self.n > 1 else math.inf


ZERO = Sample(0.0, None, 1)
"""Zero, exactly: Welch's t against it is the one-sample t."""


@dataclass(frozen=True)
class Comparison:
    """A difference of two means, in percentage points, with its two-sided 95 % interval and test.

    low, high: infinite where one side is a single value.
    p: two-sided, that the means are equal.
    error: standard error of the difference.
    df: degrees of freedom (Welch, Satterthwaite).
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    df: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def welch(a: Sample, b: Sample = ZERO) -> Comparison:
    """Welch's t for mean(a) - mean(b); with an exact number on one side, the one-sample t.

    Without spread on either side the interval has no width; with a single value on one side it is the whole line.
    """
    from scipy.stats import t

    difference, variance = a.mean - b.mean, a.variance + b.variance
    if math.isinf(variance):
        return Comparison(difference, -math.inf, math.inf, p=1.0, error=math.inf, df=math.nan)
    error, df = math.sqrt(variance), satterthwaite([a.variance, b.variance], [a.n, b.n])
    half = half_width(error, df)
    p = 2 * float(t.sf(abs(difference) / error, df)) if error else float(difference == 0)
    return Comparison(difference, difference - half, difference + half, p, error, df)


def satterthwaite(variances: Iterable[float], counts: Iterable[int]) -> float:
    """Degrees of freedom of a sum of independent means with these variances: (sum v)^2 / sum v^2 / (n - 1).

    Means without spread do not count; nan where none has any.  (scipy.stats and statsmodels want raw values.)
    """
    spread = [(v, n) for v, n in zip(variances, counts, strict=True) if v]
    return sum(v for v, _ in spread) ** 2 / sum(v**2 / (n - 1) for v, n in spread) if spread else math.nan


def half_width(error: float, df: float, confidence: float = 0.95) -> float:
    """Half of a two-sided t interval; 0 where there is no spread."""
    from scipy.stats import t

    return error * float(t.ppf((1 + confidence) / 2, df)) if error else 0.0


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % t interval of the mean of `values`; the whole line for a single one.  seaborn takes it as `errorbar`."""
    if not len(values):
        raise ValueError("values is empty; an interval needs at least one")
    comparison = welch(Sample.of(values))
    return comparison.low, comparison.high


def verdict(accuracies: Sequence[float], reference: Reference | None, *, deviations: Collection[str] = ()) -> str:
    """The verdict on one cell; the first line that applies decides.

    d is our mean minus the reference's, delta the reference's (or `DELTA`).

        NOT RUN       there is no accuracy
        PROXY         the setting deviates from the paper's: only directions are tested, no numbers
        NO REFERENCE  no reference, or one whose value was not found
        PROXY         the reference is not comparable
        REPRODUCED    two one-sided Welch tests at 5 % accept |d| < delta (Schuirmann 1987), even where d is significant
        ABOVE, BELOW  the 95 % interval of d (Welch) leaves out zero, even where |d| < delta
        INCONCLUSIVE  half the interval's width is more than 2 delta; always so with one accuracy alone
        CLOSE         what remains; there zero lies in the interval, so that |d| <= 2 delta

    A reference without n is taken to rest on `ASSUMED_N` networks, one without a deviation to be exact.  Accuracies
    of networks trained on one synthetic set are taken as independent, as published deviations do, which makes
    intervals somewhat too narrow.

    Args:
        accuracies: distillation seeds x evaluation networks, in percent.
        deviations: in what the setting differs from the paper's, one phrase each.
    """
    if not accuracies:
        return "NOT RUN"
    if deviations:
        return "PROXY"
    if reference is None or reference.value is None:
        return "NO REFERENCE"
    if not reference.comparable:
        return "PROXY"
    delta = DELTA if reference.delta is None else reference.delta
    d = welch(Sample.of(accuracies), Sample(reference.value, reference.std, reference.n or ASSUMED_N))
    if math.isfinite(d.error) and delta - abs(d.difference) > half_width(d.error, d.df, confidence=0.9):
        return "REPRODUCED"
    if d.significant:
        return "ABOVE" if d.difference > 0 else "BELOW"
    return "INCONCLUSIVE" if d.high - d.low > 4 * delta else "CLOSE"


def group_means(values: Sequence[float], groups: Sequence[int]) -> dict[int, float]:
    """Group -> the mean of its values, which stand group by group, as many for each (ValueError where not)."""
    if not groups or not values or len(values) % len(groups) or len(set(groups)) < len(groups):
        raise ValueError(f"{len(values)} values of the groups {[*groups]}; allowed: as many for each, at least one")
    each = len(values) // len(groups)
    return {group: fmean(values[i * each : (i + 1) * each]) for i, group in enumerate(groups)}


def paired(higher: Mapping[int, float], lower: Mapping[int, float]) -> Comparison:
    """The mean over groups of `higher` minus `lower`, with the paired 95 % t interval; the whole line for one group.

    A group is what varies most and both share: a seed, or an order in which classes come.  ValueError for other groups.
    """
    if not higher or higher.keys() != lower.keys():
        raise ValueError(f"the groups {[*higher]} cannot be paired with {[*lower]}; allowed: the same, at least one")
    return welch(Sample.of([higher[group] - lower[group] for group in higher]))


def seed_means(record: "Record") -> tuple[float, ...]:
    """The mean accuracy of each distillation seed, in percent; ValueError where they are not as many for each."""
    seeds = record.cell.get("seeds", ())
    if not seeds or not record.n or record.n % len(seeds):
        raise ValueError(f"{record.label!r} has {record.n} accuracies of {len(seeds)} seeds; allowed: as many for each")
    return tuple(group_means(record.accuracies, seeds).values())


def compare(a: "Record", b: "Record") -> Comparison:
    """Mean accuracy of `a` minus that of `b` by their distilled sets, which are what is independent.

    Rows with the same seeds share initial images and real batches, and are compared seed by seed (paired t); others by
    Welch's t.  Of a row of one set, such as the whole data, the networks count: the interval is conditional on it.  A
    ValueError names a row that was not run.
    """
    for name, record in (("a", a), ("b", b)):
        if not record.n:
            raise ValueError(f"{name}={record.label!r} was not run; allowed: records with accuracies")
    seeds = a.cell.get("seeds", ())
    if len(seeds) > 1 and seeds == b.cell.get("seeds", ()):
        return paired(*(group_means(record.accuracies, seeds) for record in (a, b)))
    units = [seed_means(r) if len(r.cell.get("seeds", ())) > 1 else r.accuracies for r in (a, b)]
    return welch(*map(Sample.of, units))


@dataclass(frozen=True)
class Pair:
    """Two rows that follow one another in a ranking: `above` minus `below`, tested in two ways.

    sets: `compare`.
    networks: Welch over all networks of all distillation seeds, as published deviations are taken.
    p_sets, p_networks: their p by Holm's correction for all pairs of the ranking; None where the spread is not known.
    """

    above: "Record"
    below: "Record"
    sets: Comparison
    networks: Comparison
    p_sets: float | None
    p_networks: float | None

    def significant(self) -> bool:
        """Whether `above` is above `below` by `p_sets`, with all pairs of the ranking together wrong at 5 %."""
        return self.p_sets is not None and self.p_sets < 0.05


def ranked(records: Sequence["Record"]) -> list["Record"]:
    """The records that were run, the highest mean accuracy first; of equal ones the earlier."""
    return sorted((record for record in records if record.n), key=lambda record: -record.accuracy_mean)


def neighbours(records: Sequence["Record"]) -> list[Pair]:
    """Each pair of neighbours in the ranking of `records`, the highest first; raises as `seed_means`.

    As the ranking chooses the pairs, their means differ by selection too; Holm's correction does not undo this.
    """
    pairs = list(pairwise(ranked(records)))
    sets = [compare(above, below) for above, below in pairs]
    networks = [welch(Sample.of(above.accuracies), Sample.of(below.accuracies)) for above, below in pairs]
    tests = zip(sets, networks, _holm(sets), _holm(networks), strict=True)
    return [Pair(above, below, *test) for (above, below), test in zip(pairs, tests, strict=True)]


def _holm(comparisons: Sequence[Comparison]) -> list[float | None]:
    """p by Holm's step-down correction (1979) over the comparisons that can be tested; None for the others."""
    corrected: list[float | None] = [None] * len(comparisons)
    testable = [place for place, comparison in enumerate(comparisons) if math.isfinite(comparison.error)]
    least = 0.0
    for rank, place in enumerate(sorted(testable, key=lambda place: comparisons[place].p)):
        least = corrected[place] = max(least, min(1.0, (len(testable) - rank) * comparisons[place].p))
    return corrected


def main_effects(
    records: Sequence["Record"], factors: Sequence[str], *, apart: str | None = None
) -> "pandas.DataFrame":
    """What one choice is worth, all else equal: accuracy at each level of a factor minus that at its base.

    A seed draws the initial images and the real batches of all cells, so that its pairs are not independent.

    Args:
        records: at one number of images per class, labelled by one level of each factor, such as "ATOM, BN, ZCA".  The
            levels of the first record are the bases; what was not run is left out.
        factors: what the parts of a label are called, in order.
        apart: a level that is not of the kind of the others, such as real images among distilled ones: records that
            have it tell nothing of the other factors, whose effects on them follow as effects of their own.

    Returns:
        A row an effect: effect ("BN for IN"), factor; difference in points over all pairs that are equal otherwise,
        with low and high of the t interval over the distillation seeds; least pair, most: of single pairs; pairs: how
        many.

    Raises:
        ValueError: a label has another number of parts or stands twice, or seeds or numbers of networks differ.
    """
    import pandas

    grid: dict[tuple[str, ...], Record] = {}
    for record in records:
        levels = tuple(record.label.split(", "))
        if len(levels) != len(factors) or levels in grid:
            what = "stands twice" if levels in grid else f"has {len(levels)} parts"
            raise ValueError(f"label {record.label!r} {what}; allowed: one level of each of {', '.join(factors)}")
        grid[levels] = record
    bases = next(iter(grid), ())
    run = {levels: record for levels, record in grid.items() if record.n}
    if len({(tuple(record.cell["seeds"]), record.n) for record in run.values()}) > 1:
        raise ValueError("records have different seeds or numbers of networks; allowed: the same for all")
    effects: dict[tuple[str, str, str], list[list[float]]] = {}  # differences: a row a pair, a column a seed
    for place, factor in enumerate(factors):
        for levels, record in run.items():
            before, after = levels[:place], levels[place + 1 :]
            base = run.get((*before, bases[place], *after))
            if base is not None and base is not record:
                of = f", {apart}" if apart in (*before, *after) else ""
                difference = [a - b for a, b in zip(seed_means(record), seed_means(base), strict=True)]
                effects.setdefault((of, f"{levels[place]} for {bases[place]}{of}", factor), []).append(difference)
    rows = []
    for (_, effect, factor), pairs in sorted(effects.items(), key=lambda entry: entry[0][0]):
        by_pair = [fmean(row) for row in pairs]
        by_seed = welch(Sample.of([fmean(column) for column in zip(*pairs, strict=True)]))
        span = by_seed.difference, by_seed.low, by_seed.high, min(by_pair), max(by_pair)
        rows.append((effect, factor, *span, len(pairs)))
    columns = ["effect", "factor", "difference", "low", "high", "least pair", "most", "pairs"]
    return pandas.DataFrame(rows, columns=columns)
