"""Ours against theirs: Welch's t, an equivalence test, and the verdict that follows from both."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit  # scipy.stats has the same, and takes seconds to import

from ddlib.results.references import Reference

VERDICTS = ("REPRODUCED", "CLOSE", "ABOVE", "BELOW", "INCONCLUSIVE", "PROXY", "NOT RUN", "NO REFERENCE")

DELTA = 1.0
"""Half the width of the band of equivalence, in percentage points, where a reference states none."""

ASSUMED_N = 5
"""How many networks are taken to lie behind a published deviation that does not say."""


@dataclass(frozen=True)
class Sample:
    """What a t statistic needs of some values: mean, sample deviation (ddof 1) and number.

    std is None for a number taken as exact.  With n = 1 nothing is known of the spread.
    """

    mean: float
    std: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """The sample of `values`, at least one."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values))

    @property
    def variance(self) -> float:
        """Variance of the mean; infinite for a single value, zero for an exact number."""
        if self.std is None:
            return 0.0
        return self.std**2 / self.n if self.n > 1 else math.inf


@dataclass(frozen=True)
class Comparison:
    """A difference of two means with its two-sided interval.

    difference, low, high: in percentage points; infinite bounds where one side is a single value.
    p: two-sided, that the means are equal.
    error: standard error of the difference.
    df: degrees of freedom (Welch, Satterthwaite).
    """

    difference: float
    low: float
    high: float
    p: float
    confidence: float
    error: float
    df: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def equivalent(self, delta: float, level: float = 0.05) -> bool:
        """Whether two one-sided t tests at `level` both accept |difference| < `delta` (Schuirmann 1987)."""
        if not math.isfinite(self.error):
            return False
        return delta - abs(self.difference) > self.error * _quantile(1 - level, self.df)


def welch(a: Sample, b: Sample, confidence: float = 0.95) -> Comparison:
    """Welch's t for mean(a) - mean(b); with an exact number on one side, the one-sample t.

    Without spread on either side the interval has no width; with a single value on one side it is the whole line.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}; allowed: between 0 and 1")
    difference, variance = a.mean - b.mean, a.variance + b.variance
    if not math.isfinite(variance):
        return Comparison(difference, -math.inf, math.inf, 1.0, confidence, math.inf, math.nan)
    error, df = math.sqrt(variance), _freedom(a, b)
    half = error * _quantile((1 + confidence) / 2, df)
    p = 2 * float(stdtr(df, -abs(difference) / error)) if error else float(difference == 0)
    return Comparison(difference, difference - half, difference + half, p, confidence, error, df)


def _freedom(a: Sample, b: Sample) -> float:
    """Satterthwaite's degrees of freedom; nan where there is no spread at all."""
    below = sum(s.variance**2 / (s.n - 1) for s in (a, b) if s.variance)
    return (a.variance + b.variance) ** 2 / below if below else math.nan


def _quantile(probability: float, df: float) -> float:
    """Quantile of t; 0 without spread, where it is multiplied by an error of 0."""
    return 0.0 if math.isnan(df) else float(stdtrit(df, probability))


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The t interval of the mean of `values`; the whole line for a single one.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("values is empty; an interval needs at least one")
    comparison = welch(Sample.of(values), Sample(0.0, None, 1), confidence)
    return comparison.low, comparison.high


def against(accuracies: Sequence[float], reference: Reference) -> Comparison:
    """Ours minus the reference's value, Welch at 95 %.

    A reference with a deviation but without n is taken to have `ASSUMED_N` networks; one without a deviation is
    taken as an exact number, so that the test has one sample.
    """
    theirs = Sample(reference.value, reference.std, reference.n or ASSUMED_N)
    return welch(Sample.of(accuracies), theirs)


def verdict(
    accuracies: Sequence[float],
    reference: Reference | None,
    *,
    deviations: Collection[str] = (),
    run: bool = True,
) -> str:
    """The verdict on one cell, one of `VERDICTS`, from all its single accuracies.

    The first line that applies decides; d is our mean minus the reference's, delta the reference's (or `DELTA`).

        NOT RUN       `run` is false, or there is no accuracy
        PROXY         the setting deviates from the paper's: only directions are tested, no numbers
        NO REFERENCE  no reference, or one whose value was not found
        PROXY         the reference is not comparable
        REPRODUCED    two one-sided Welch tests at 5 % accept |d| < delta, even where d is significant
        ABOVE, BELOW  the 95 % interval of d (Welch) leaves out zero, even where |d| < delta
        INCONCLUSIVE  half the interval's width is more than 2 delta; always so with one accuracy alone
        CLOSE         what remains; there zero lies in the interval, so that |d| <= 2 delta

    A reference without n is taken to rest on `ASSUMED_N` networks, one without a deviation to be exact.  Accuracies
    of networks trained on one synthetic set are not independent of one another; taking them so, as the published
    deviations do, makes intervals somewhat too narrow.

    Args:
        accuracies: distillation seeds x evaluation networks, in percent.
        reference: what the paper reports, or None.
        deviations: in what the setting differs from the paper's, one phrase each.
        run: whether the cell was computed.
    """
    if not run or not accuracies:
        return "NOT RUN"
    if deviations:
        return "PROXY"
    if reference is None or reference.value is None:
        return "NO REFERENCE"
    if not reference.comparable:
        return "PROXY"
    delta = DELTA if reference.delta is None else reference.delta
    found = against(accuracies, reference)
    if found.equivalent(delta):
        return "REPRODUCED"
    if found.significant:
        return "ABOVE" if found.difference > 0 else "BELOW"
    return "INCONCLUSIVE" if found.high - found.low > 4 * delta else "CLOSE"
