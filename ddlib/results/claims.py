"""Whether a paper's claim holds: a direction, in the records of cells or in a table that a notebook measured."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

from ddlib.results.papers import Claim, claims, papers
from ddlib.results.records import Measurements, Record, provenance
from ddlib.results.statistics import Comparison, Sample, compare, group_means, paired, welch

OR = " | "  # between the names of a side
UNDISTILLED = ("random", "whole")  # methods that choose real images, which nothing reduces


@dataclass(frozen=True)
class ClaimTest:
    """What is claimed to be higher minus the other, and where: data set, images per class, network, reduced rows."""

    where: str
    comparison: Comparison

    @property
    def outcome(self) -> str:
        """ "holds" or "fails" where the interval lies on one side of zero, else "undecided"."""
        if not self.comparison.significant:
            return "undecided"
        return "holds" if self.comparison.difference > 0 else "fails"


@dataclass(frozen=True)
class ClaimCheck:
    """A claim with every comparison that the records allow, and where their numbers come from."""

    claim: Claim
    tests: tuple[ClaimTest, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """ "fails" if one test fails, "holds" if there are tests and all hold, else "undecided"."""
        outcomes = {test.outcome for test in self.tests}
        if "fails" in outcomes:
            return "fails"
        return "holds" if outcomes == {"holds"} else "undecided"


class Place(NamedTuple):
    """Where rows are compared; ipc is None for the whole training set."""

    dataset: str
    network: str
    ipc: int | None

    def __str__(self) -> str:
        on = "" if self.network == "convnet" else f", {self.network}"
        return f"{self.dataset}{on}, IPC {self.ipc}"


def check_claim(claim: Claim, records: Sequence[Record]) -> ClaimCheck:
    """Test a claim's direction wherever the records have both of its sides.

    A row stands for a side if its label is the side's name, in either case; if no label is, the row of the method so
    called.  Where no such row was run, a *reduced* one may stand, whose label has parts beyond the name's, as "DiM,
    width 64" has of "dim".  It is compared with the other side's row that has the same beyond its name, or with real
    images; never with a row that was distilled in full.  A rise is followed along the row itself.

    Images per class and networks are the claim's own; the data set need not be.  The whole training set stands at every
    number of images.  A ValueError names rows that stand for one side at one place, and cannot be told apart.
    """
    records = [r for r in records if r.network in claim.networks and r.ipc in (*claim.ipc, None)]
    if claim.own_data:
        records = [r for r in records if r.dataset in claim.datasets]
    pairs: list[tuple[str, Record, Record]] = []
    if not claim.shown_in:
        pairs = list(_rising(claim, records) if claim.rises else _above(claim, records))
    tests = tuple(ClaimTest(where, compare(a, b)) for where, a, b in pairs)
    return ClaimCheck(claim, tests, provenance([record for _, a, b in pairs for record in (a, b)]))


def _above(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    """Where, a row of the higher side and the row of the lower one to hold it against."""
    higher, lower = _standing(claim.higher, claim, records), _standing(claim.lower, claim, records)
    for place, above in higher.items():
        below = lower.get(place) or lower.get(place._replace(ipc=None), {})
        extras = [()] if () in above and () in below else [extra for extra in above if extra in below]
        if not extras and any(record.method in UNDISTILLED for record in below.get((), ())):
            extras = [extra for extra in above if extra]
        if extras:
            a = _only(claim.higher, place, [row for extra in extras for row in above[extra]])
            b = _only(claim.lower, place, below.get(extras[0]) or below[()])
            yield f"{place}: {a.label} against {b.label}" if extras[0] else str(place), a, b


def _rising(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    """Where, and two neighbours along images per class or the claim's networks, the one that is to be higher first."""
    along = "network" if claim.along == "networks" else "ipc"
    side = {place: rows[()] for place, rows in _standing(claim.rises, claim, records).items() if () in rows}
    lines: dict[Place, list[Place]] = defaultdict(list)
    for place in sorted(side, key=lambda place: claim.networks.index(place.network)):
        lines[place._replace(**{along: None})].append(place)
    for less, more in (pair for line in lines.values() for pair in pairwise(line)):
        rows = (_only(claim.rises, place, side[place]) for place in (more, less))
        yield (f"{less} to {getattr(more, along)}", *rows)


def _only(side: str, place: Place, rows: Sequence[Record]) -> Record:
    """The only row of a side at a place."""
    if len(rows) > 1:
        labels = ", ".join(repr(row.label) for row in rows)
        raise ValueError(f"several records of {side!r} at {tuple(place)}: {labels}; pass those that the claim is about")
    return rows[0]


def _standing(side: str, claim: Claim, records: Sequence[Record]) -> dict[Place, dict[tuple[str, ...], list[Record]]]:
    """Place -> what a label has beyond the side's name (nothing: the side itself) -> those rows, if they were run."""
    names, known = side.split(OR), {*_known_names(), *side_names(claim)}
    methods = {name.partition(", ")[0] for name in names} & {record.method for record in records}
    called = []
    for name in names:
        longer = [other for other in known if other.count(", ") > name.count(", ")]
        for record in records:
            extra = beyond(name, record.label)
            if extra is None or any(beyond(other, record.label) is not None for other in longer):
                continue
            if not extra or not methods or record.method in methods:
                called.append((record, extra))
    rows: dict[Place, dict[tuple[str, ...], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record, extra in called or [(record, ()) for record in records if record.method in names]:
        if record.n:
            rows[Place(record.dataset, record.network, record.ipc)][extra].append(record)
    return {place: rows[place] for place in sorted(rows, key=lambda at: (at.dataset, at.network, at.ipc or 0))}


def beyond(name: str, label: str) -> tuple[str, ...] | None:
    """The parts of a label that a side's name lacks; None where the label does not have the name's parts in order.

    "DiM, width 64, lambda = 0" is of "dim, lambda = 0", and "width 64" is beyond it.
    """
    (first, *wanted), (begin, *parts) = (text.casefold().split(", ") for text in (name, label))
    extra = []
    for part in parts:
        if wanted and part == wanted[0]:
            wanted.pop(0)
        else:
            extra.append(part)
    return None if wanted or first != begin else tuple(extra)


def side_names(claim: Claim) -> tuple[str, ...]:
    """What the claim's sides are called, each by all its names."""
    return tuple(name for side in (claim.higher, claim.lower, claim.rises) if side for name in side.split(OR))


@cache
def _known_names() -> frozenset[str]:
    return frozenset(name for paper in papers() for claim in claims(paper) for name in side_names(claim))


MEASURED_AT = ("dataset", "networks", "steps", "classes", "ipc")
"""Columns that say where a row was measured; two rows are compared where they agree in all of them."""


def check_measured(claim: Claim, measurements: Measurements, dataset: str) -> ClaimCheck:
    """Test a claim's direction in the table of its `Measured`; no tests where the claim, or `measurements`, has none.

    Rows that name another number of images per class than the claim's are left out.  `dataset` is the one that the
    notebook worked on.  A ValueError says where rows lack the columns that the claim names, or two stand for one side.
    """
    table = claim.measured
    if table is None:
        return ClaimCheck(claim, ())
    fields = [table.field] if table.lower else [table.field, f"{table.field}_low", f"{table.field}_high"]
    needed = {table.column, *table.rows, *fields}
    places: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)  # where -> what a row is called -> the row
    for row in measurements.tables.get(table.table, ()):
        if not needed <= row.keys():
            raise ValueError(f"a row of {table.table!r} lacks {sorted(needed - row.keys())} of claim {claim.id!r}")
        if row.get("ipc", claim.ipc[0]) not in claim.ipc or any(row[key] != value for key, value in table.rows.items()):
            continue
        place = [f"IPC {row[c]}" if c == "ipc" else f"{row[c]} {c}" for c in MEASURED_AT if c in row]
        name, where = row[table.column].casefold(), ", ".join([dataset, *place])
        if name in places[where]:
            raise ValueError(f"two rows of {table.table!r} are called {row[table.column]!r} at {where}; allowed: one")
        places[where][name] = row
    tests = []
    for where, rows in places.items():
        higher, lower = rows.get(table.higher.casefold(), {}), rows.get((table.lower or "").casefold(), {})
        if table.lower and higher and lower.get(table.field):
            sides = [(row[table.field], row.get("orders")) for row in (higher, lower)]
            if None in [orders for _, orders in sides]:
                difference = welch(*(Sample.of(values) for values, _ in sides))
            else:  # what is independent, and shared by both
                difference = paired(*(group_means(*side) for side in sides))
            tests.append(ClaimTest(where, difference))
        elif not table.lower and higher.get(table.field) is not None:
            difference, low, high = (100 * higher[field] for field in fields)
            comparison = Comparison(difference, low, high, p=math.nan, error=math.nan, df=math.nan)
            tests.append(ClaimTest(where, comparison))
    return ClaimCheck(claim, tuple(tests), dict(measurements.provenance) if tests else {})
