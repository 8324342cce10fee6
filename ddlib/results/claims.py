"""Whether a paper's claim holds in the records: directions, tested with Welch's interval."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from ddlib.results.provenances import provenance
from ddlib.results.records import Record, compare
from ddlib.results.references import Claim
from ddlib.results.verdicts import Comparison


@dataclass(frozen=True)
class ClaimTest:
    """One comparison that bears on a claim: what is claimed to be higher minus the other.

    where: data set, images per class, and the network unless it is a ConvNet.
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

    A method of the claim is a record's label, in either case, or, where no label is so called, its method; records
    that were not run count for their labels, so that no reduced row or control stands in for one of them.  Images
    per class and networks are the claim's own.  The data set need not be, unless the claim is about its own alone: a
    reduced setting tests the direction on another one.  Where the lower side is the whole training set, its one record
    stands at every number of images.

    Raises:
        ValueError: two records stand for one side at one place.
    """
    records = [r for r in records if r.network in claim.networks and r.ipc in (*claim.ipc, None)]
    if claim.own_data:
        records = [r for r in records if r.dataset in claim.datasets]
    pairs = list(_rising(claim, records) if claim.rises else _above(claim, records))
    tests = tuple(ClaimTest(where, compare(a, b, confidence)) for where, a, b in pairs)
    return ClaimCheck(claim, tests, provenance([record for _, *both in pairs for record in both]))


def _side(name: str, records: Sequence[Record]) -> dict[tuple, Record]:
    """The records of one side of a claim by place, in order of images per class within a data set."""
    side = [r for r in records if r.label.casefold() == name.casefold()] or [r for r in records if r.method == name]
    side = [r for r in side if r.n]
    places = Counter((r.dataset, r.network, r.ipc) for r in side)
    twice = [place for place, count in places.items() if count > 1]
    if twice:
        raise ValueError(f"several records of {name!r} at {twice[0]}; pass those that the claim is about")
    return {(r.dataset, r.network, r.ipc): r for r in sorted(side, key=lambda r: (r.dataset, r.network, r.ipc or 0))}


def _above(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    higher, lower = _side(claim.higher, records), _side(claim.lower, records)
    for (dataset, network, ipc), record in higher.items():
        other = lower.get((dataset, network, ipc)) or lower.get((dataset, network, None))
        if other:
            yield _where(dataset, network, ipc), record, other


def _rising(claim: Claim, records: Sequence[Record]) -> Iterator[tuple[str, Record, Record]]:
    """Neighbours in images per class on one network, or in the claim's order of networks at one number of images."""
    side, at = _side(claim.rises, records), 1 if claim.along == "networks" else 2
    lines: dict[tuple, list[tuple]] = defaultdict(list)
    for place in sorted(side, key=lambda place: claim.networks.index(place[1])):
        lines[place[:at] + place[at + 1 :]].append(place)
    for line in lines.values():
        for less, more in pairwise(line):
            yield f"{_where(*less)} to {more[at]}", side[more], side[less]


def _where(dataset: str, network: str, ipc: int) -> str:
    on = "" if network == "convnet" else f", {network}"
    return f"{dataset}{on}, IPC {ipc}"
