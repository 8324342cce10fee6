"""Which rows of a table stand for the sides of a claim."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ddlib.results.records import Record

OR = " | "
"""Between the names of a claim's side that is called differently in different notebooks."""

UNDISTILLED = ("random", "whole")
"""Methods that choose real images, whose rows have nothing that could be reduced."""

Place = tuple[str, str, int | None]
"""Data set, network, images per class."""

Rows = Mapping[tuple[str, ...], Sequence[Record]]
"""What a row's label has beyond the side's name (nothing: the side itself) -> the rows called so."""


def beyond(name: str, label: str) -> tuple[str, ...] | None:
    """The parts of a label, between ", ", that a side's name lacks; None where the label is not of that name.

    It is where it begins with the name's first part and has the others in their order, in either case: "DiM, width 64,
    lambda = 0" is of "dim, lambda = 0", and "width 64" is beyond it.
    """
    (first, *wanted), (begin, *told) = (text.casefold().split(", ") for text in (name, label))
    left = []
    for part in told:
        if wanted and part == wanted[0]:
            wanted.pop(0)
        else:
            left.append(part)
    return None if wanted or first != begin else tuple(left)


def standing(side: str, records: Sequence[Record], names: Sequence[str]) -> dict[Place, Rows]:
    """The rows that were run and stand for a side of a claim, at each place.

    Args:
        side: the claim's name for it, or several with " | " between them.
        names: of all sides that are known; a label is of the longest of them that it fits.
    """
    found: dict[Place, dict[tuple, list]] = defaultdict(lambda: defaultdict(list))
    for record, left in _of(side.split(OR), records, names):
        if record.n:
            found[record.dataset, record.network, record.ipc][left].append(record)
    return {place: found[place] for place in sorted(found, key=lambda at: (at[0], at[1], at[2] or 0))}


def _of(names: Sequence[str], records: Sequence[Record], known: Sequence[str]) -> list[tuple[Record, tuple[str, ...]]]:
    """The records called so, with what their labels have beyond it; where there is none, those of the method."""
    called = [(r, name, beyond(name, r.label)) for name in names for r in records]
    found = [(r, left) for r, name, left in called if left is not None and not _is_longer(r.label, name, known)]
    methods = {name.partition(", ")[0] for name in names} & {r.method for r in records}
    found = [(r, left) for r, left in found if not left or not methods or r.method in methods]
    return found or [(r, ()) for r in records if r.method in names]


def _is_longer(label: str, name: str, known: Sequence[str]) -> bool:
    """Whether another side's name says more of the label."""
    longer = (other for other in known if other.count(", ") > name.count(", "))
    return any(beyond(other, label) is not None for other in longer)


def alike(higher: Rows, lower: Rows) -> list[tuple[str, ...]]:
    """What the rows to be compared have beyond the sides' names: see `check_claim`."""
    if () in higher and () in lower:
        return [()]
    real = any(record.method in UNDISTILLED for record in lower.get((), ()))
    return [left for left in higher if left in lower] or [left for left in higher if left and real]


def the_one(side: str, place: Place, rows: Sequence[Record]) -> Record:
    """The only row of a side at a place.

    Raises:
        ValueError: there are several.
    """
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        raise ValueError(f"several records of {side!r} at {place}: {labels}; pass those that the claim is about")
    return rows[0]
