"""Whether a paper's claim holds in the records: directions, tested with Welch's interval."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

from ddlib.results import reported
from ddlib.results.provenances import provenance
from ddlib.results.records import Record, compare
from ddlib.results.references import Claim
from ddlib.results.sides import OR, Place, Rows, alike, standing, the_one
from ddlib.results.verdicts import Comparison


@dataclass(frozen=True)
class ClaimTest:
    """One comparison that bears on a claim: what is claimed to be higher minus the other.

    where: data set, images per class, the network unless it is a ConvNet, and the rows where they are reduced ones.
    """

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
    """A claim with every comparison that the records allow.

    provenance: where the numbers compared come from.
    """

    claim: Claim
    tests: tuple[ClaimTest, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def outcome(self) -> str:
        """ "fails" if one test fails, "holds" if there are tests and all hold, else "undecided"."""
        found = {test.outcome for test in self.tests}
        if "fails" in found:
            return "fails"
        return "holds" if found == {"holds"} else "undecided"


def check_claim(claim: Claim, records: Sequence[Record], *, confidence: float = 0.95) -> ClaimCheck:
    """Test a claim's direction wherever the records have both of its sides.

    A row stands for a side if its label is the side's name, in either case; if no label is of that name, the row of
    the method so called.  Where no such row was run, a *reduced* one may stand: its label has the name's parts and
    others beyond them, as "DiM, width 64" and "DiM, width 64, lambda = 0" are of "dim" and of "dim, lambda = 0" (a
    label is of the longest name that a known claim has for it).  Reduced rows are compared with the other side's row
    that has the same beyond its name, or with real images, which nothing reduces; never with a row that was distilled
    in full.  `ClaimTest.where` names them.  A rise is followed along one row.

    Images per class and networks are the claim's own.  The data set need not be, unless the claim is about its own
    alone: a reduced setting tests the direction on another one.  Where the lower side is the whole training set, its
    one record stands at every number of images.  A claim that is but shown in a notebook has no tests.

    Raises:
        ValueError: two rows stand for one side at one place, and cannot be told apart; the message names them.
    """
    records = [r for r in records if r.network in claim.networks and r.ipc in (*claim.ipc, None)]
    if claim.own_data:
        records = [r for r in records if r.dataset in claim.datasets]
    pairs = [] if claim.shown_in else list(_rising(claim, records) if claim.rises else _above(claim, records))
    tests = tuple(ClaimTest(where, compare(a, b, confidence)) for where, a, b in pairs)
    return ClaimCheck(claim, tests, provenance([record for _, *both in pairs for record in both]))


def side_names(claim: Claim) -> tuple[str, ...]:
    """What the claim's sides are called, each by all its names."""
    return tuple(name for side in (claim.higher, claim.lower, claim.rises) if side for name in side.split(OR))


@cache
def _known_names() -> tuple[str, ...]:
    known = [claim for paper in reported.papers() for claim in reported.claims(paper)]
    return tuple(dict.fromkeys(name for claim in known for name in side_names(claim)))


def _standing(side: str, claim: Claim, records: Sequence[Record]) -> dict[Place, Rows]:
    return standing(side, records, (*_known_names(), *side_names(claim)))


def _above(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    higher, lower = (_standing(side, claim, records) for side in (claim.higher, claim.lower))
    for place, above in higher.items():
        below = lower.get(place) or lower.get((*place[:2], None), {})
        found = alike(above, below)
        rows = [row for left in found for row in above[left]], [r for f in found for r in below.get(f) or below[()]]
        if found:
            a, b = the_one(claim.higher, place, rows[0]), the_one(claim.lower, place, rows[1])
            yield _where(*place) + (f": {a.label} against {b.label}" if found[0] else ""), a, b


def _rising(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    """Neighbours in images per class on one network, or in the claim's order of networks at one number of images."""
    side, at = _standing(claim.rises, claim, records), 1 if claim.along == "networks" else 2
    lines: dict[tuple, dict[tuple, list[Place]]] = defaultdict(lambda: defaultdict(list))
    for place in sorted(side, key=lambda place: claim.networks.index(place[1])):
        for left in side[place]:
            lines[place[:at] + place[at + 1 :]][left].append(place)
    for line in lines.values():
        long = {left: places for left, places in line.items() if len(places) > 1}
        chosen = {(): long[()]} if () in long else long
        for less, more in pairwise(next(iter(chosen.values()), ())):
            found = [[row for left in chosen for row in side[place].get(left, ())] for place in (more, less)]
            a, b = the_one(claim.rises, more, found[0]), the_one(claim.rises, less, found[1])
            yield f"{_where(*less)} to {more[at]}" + (f": {a.label}" if () not in chosen else ""), a, b


def _where(dataset: str, network: str, ipc: int) -> str:
    on = "" if network == "convnet" else f", {network}"
    return f"{dataset}{on}, IPC {ipc}"
