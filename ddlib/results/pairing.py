"""Differences of accuracies that share what varies most: seeds, or orders in which classes come."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from ddlib.results.verdicts import Comparison, Sample, welch


def group_means(values: Sequence[float], groups: Sequence[int]) -> dict[int, float]:
    """Group -> the mean of its values, which stand group by group, as many for each.

    Raises:
        ValueError: a group stands twice, or the values are not as many for each.
    """
    if not groups or not values or len(values) % len(groups) or len(set(groups)) < len(groups):
        raise ValueError(f"{len(values)} values of the groups {[*groups]}; allowed: as many for each, at least one")
    each = len(values) // len(groups)
    return {group: fmean(values[i * each : (i + 1) * each]) for i, group in enumerate(groups)}


def paired(higher: Mapping[int, float], lower: Mapping[int, float]) -> Comparison:
    """The mean over groups of `higher` minus `lower`, with the paired 95 % t interval; the whole line for one group.

    Raises:
        ValueError: they have other groups.
    """
    if not higher or higher.keys() != lower.keys():
        raise ValueError(f"the groups {[*higher]} cannot be paired with {[*lower]}; allowed: the same, at least one")
    differences = [higher[group] - lower[group] for group in higher]
    return welch(Sample.of(differences), Sample(0.0, None, 1))
