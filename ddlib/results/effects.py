"""What one choice is worth, all else equal: mean differences of records that differ in that choice alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ddlib.results.ranking import seed_means
from ddlib.results.records import Record
from ddlib.results.verdicts import Comparison, Sample, welch

BETWEEN = ", "
"""What stands between the levels in a label."""

Levels = tuple[str, ...]


@dataclass(frozen=True)
class Effect:
    """Accuracy at one level of a factor minus that at its base, over all pairs that are equal otherwise.

    difference: in points, with the t interval over the distillation seeds, for each of which the pairs are averaged.
    least, most: the smallest and the largest difference of a pair, over all its networks.
    pairs: how many there are.
    of: the level of another factor that all of them have; "" where they have any.
    """

    factor: str
    level: str
    base: str
    difference: Comparison
    least: float
    most: float
    pairs: int
    of: str = ""


def main_effects(records: Sequence[Record], factors: Sequence[str], *, apart: str | None = None) -> list[Effect]:
    """The effect of every level of every factor that a pair of records tells; those that were not run tell nothing.

    Seeds, not networks, are what varies here: a seed draws the initial images and the real batches of all cells, so
    that its pairs are not independent.

    Args:
        records: whose labels are one level of each factor, such as "ATOM, BN, ZCA, herding"; at one number of images
            per class.  The levels of the first record are the bases.
        factors: what the parts of a label are called, in order.
        apart: a level that is not of the kind of the others, such as real images among distilled ones: records that
            have it tell nothing of the other factors, whose effects on them follow as effects of their own.

    Raises:
        ValueError: a label has another number of parts or stands twice, seeds or numbers of networks differ, the latter
            is not the same for each seed, or no label has `apart`.
    """
    cells: dict[Levels, Record] = {}
    for record in records:
        levels = tuple(record.label.split(BETWEEN))
        if len(levels) != len(factors) or levels in cells:
            what = "stands twice" if levels in cells else f"has {len(levels)} parts"
            raise ValueError(f"label {record.label!r} {what}; allowed: one level of each of {', '.join(factors)}")
        cells[levels] = record
    bases = next(iter(cells), ())
    known = {level: place for levels in cells for place, level in enumerate(levels)}
    if cells and apart is not None and apart not in known:
        raise ValueError(f"apart={apart!r}; allowed: a level that a label has: {', '.join(known)}")
    run = {levels: record for levels, record in cells.items() if record.n}
    _check_alike(list(run.values()))
    others, theirs = ({key: r for key, r in run.items() if (apart in key) is has} for has in (False, True))
    places = [(place, factor, place == known.get(apart)) for place, factor in enumerate(factors)]
    found = [e for place, factor, own in places for e in _of_factor(place, factor, bases, run if own else others)]
    return found + [
        replace(effect, of=apart)
        for place, factor, own in places
        if not own
        for effect in _of_factor(place, factor, bases, theirs)
    ]


def _of_factor(place: int, factor: str, bases: Sequence[str], run: Mapping[Levels, Record]) -> Iterator[Effect]:
    """The effects of one factor, in the order in which its levels stand."""
    for level in dict.fromkeys(levels[place] for levels in run):
        equal = {levels: levels[:place] + bases[place : place + 1] + levels[place + 1 :] for levels in run}
        pairs = [(r, run[equal[key]]) for key, r in run.items() if key[place] == level and equal[key] in run]
        if level != bases[place] and pairs:
            yield _effect(factor, level, bases[place], pairs)


def _check_alike(records: Sequence[Record]) -> None:
    for name, value in (("seeds", lambda r: tuple(r.cell["seeds"])), ("networks", lambda r: r.n)):
        if len(values := {value(record) for record in records}) > 1:
            raise ValueError(f"records have different {name}: {sorted(values)}; allowed: the same for all")


def _effect(factor: str, level: str, base: str, pairs: Sequence[tuple[Record, Record]]) -> Effect:
    by_pair = [[a - b for a, b in zip(seed_means(r), seed_means(s), strict=True)] for r, s in pairs]
    by_seed = [fmean(differences) for differences in zip(*by_pair, strict=True)]
    means = [fmean(differences) for differences in by_pair]
    return Effect(
        factor, level, base, welch(Sample.of(by_seed), Sample(0.0, None, 1)), min(means), max(means), len(pairs)
    )
