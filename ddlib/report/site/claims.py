"""Every claim of every paper, with what the results at hand say of it."""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ddlib import results
from ddlib.report.site.runs import Run
from ddlib.results import Claim, ClaimCheck, Record

NOT_RUN, NOT_TESTED = "not run", "not tested"


@dataclass(frozen=True)
class Evidence:
    """One run that a claim was tested in.

    also: other runs of the profile with the very same comparisons, or some of them, for they share its cells.
    """

    run: Run
    check: ClaimCheck
    also: tuple[Run, ...] = ()

    @property
    def unit(self) -> str:
        """Of the differences: points, or what the claim's table measures."""
        return self.check.claim.measured.unit if self.check.claim.measured else "points"

    @property
    def summary(self) -> str:
        """How many of the comparisons hold, and between what their differences lie."""
        tests = self.check.tests
        holding = sum(test.outcome == "holds" for test in tests)
        differences = sorted(test.comparison.difference for test in tests)
        span = " to ".join(dict.fromkeys(signed(differences[i]) for i in (0, -1)))
        if len(tests) == 1:
            found = tests[0].comparison
            return f"{tests[0].where}: {span} {self.unit} [{signed(found.low)}, {signed(found.high)}]"
        return f"{holding} of {len(tests)} comparisons hold, {span} {self.unit}"


def signed(number: float) -> str:
    """A difference with its sign, in print."""
    return f"{number:+.1f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Waiting:
    """Rows of a claim that a run names and did not run.

    hours: the sum of their estimates, each of which has in it whatever they share: the most that they take.
    device: the one that the estimates are for.
    """

    run: Run
    hours: float
    device: str


@dataclass(frozen=True)
class Verdict:
    """A claim and all evidence on it, from the smallest profile to the largest.

    waiting: where there is no evidence, the runs whose records name both sides of the claim, one of them not run.
    untold: runs whose rows bear on the claim and cannot be told apart, with the reason.
    shown: runs that measured what no record can test.
    planned: where there is no evidence and nothing waits, the paper profile of the notebook that would test it.
    """

    claim: Claim
    evidence: tuple[Evidence, ...]
    waiting: tuple[Waiting, ...] = ()
    untold: tuple[tuple[Run, str], ...] = ()
    shown: tuple[Run, ...] = ()
    planned: Run | None = None

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The different outcomes; where there is no evidence "not run", or "not tested" if nothing can test it."""
        claim = self.claim
        none = NOT_TESTED if claim and claim.shown_in and not claim.measured else NOT_RUN
        return tuple(dict.fromkeys(one.check.outcome for one in self.evidence)) or (none,)

    @property
    def outcome(self) -> str:
        """One word on the claim: what all decided evidence says; "undecided" where it differs or there is none."""
        decided = [outcome for outcome in self.outcomes if outcome != "undecided"]
        return decided[0] if len(decided) == 1 else "undecided"

    @property
    def on_digits_alone(self) -> bool:
        """Whether all that was compared are digits, the small images of the quick profile."""
        places = [test.where for one in self.evidence for test in one.check.tests]
        return bool(places) and all(place.startswith("digits,") for place in places)


def verdicts(paper: str, runs: Sequence[Run]) -> list[Verdict]:
    """Every claim of `paper`, tested in each of its runs, and in those that compare papers, as far as they bear on it.

    A notebook that names the claims that it tests is asked for these alone: its rows stand for nothing else.

    Raises:
        ValueError: no such paper (the known ones are listed).
    """
    own = [run for run in runs if run.paper in (paper, "compare")]
    return [_verdict(claim, own) for claim in results.claims(paper)]


def _verdict(claim: Claim, runs: Sequence[Run]) -> Verdict:
    if claim.shown_in:
        there = [run for run in runs if run.name.partition(".")[0] == claim.shown_in]
        found, untold = _gathered(there, lambda run: _measured(claim, run))
        shown = () if found else tuple(run for run in there if run.measured)
        planned = next((run for run in there if run.profile == "paper"), None)
        return Verdict(claim, tuple(found), untold=tuple(untold), shown=shown, planned=planned)
    asked = [run for run in runs if run.records and claim.id in _named(run, claim)]
    found, untold = _gathered(asked, lambda run: results.check_claim(claim, _with_means(claim, run.records)))
    waiting = () if found else tuple(_waiting(claim, asked))
    planned = None if found or waiting else next((run for run in runs if _plans(run, claim)), None)
    return Verdict(claim, tuple(_merged(found)), waiting, tuple(untold), planned=planned)


def _waiting(claim: Claim, runs: Sequence[Run]) -> Iterator[Waiting]:
    sides = {side.casefold() for side in results.side_names(claim)}
    for run in (run for run in runs if _would_test(claim, [_as_if_run(record) for record in run.records])):
        missing = [r for r in run.records if not r.n and r.ipc in (*claim.ipc, None) and r.network in claim.networks]
        missing = [r for r in missing if r.label.casefold() in sides and "estimated_hours" in r.cost]
        if missing:
            devices = dict.fromkeys(str(r.provenance.get("device", "a device not told")) for r in missing)
            yield Waiting(run, sum(r.cost["estimated_hours"] for r in missing), " and ".join(devices))


def _gathered(runs: Sequence[Run], check: Callable[[Run], ClaimCheck]) -> tuple[list[Evidence], list[tuple[Run, str]]]:
    """What the runs say of a claim, and why some of them cannot say it."""
    found, untold = [], []
    for run in runs:
        try:
            checked = check(run)
        except ValueError as error:
            untold.append((run, str(error)))
            continue
        if checked.tests:
            found.append(Evidence(run, checked))
    return found, untold


def _measured(claim: Claim, run: Run) -> ClaimCheck:
    return results.check_measured(claim, run.measured, run.dataset) if run.measured else ClaimCheck(claim, ())


def _merged(evidence: Sequence[Evidence]) -> list[Evidence]:
    """The evidence with each measurement once: notebooks share cells, and the same numbers are no second test.

    What has no comparison that another of the profile lacks stands beside that one.
    """
    told = [
        (one.run.profile, {(t.where, c.difference, c.low, c.high) for t in one.check.tests for c in [t.comparison]})
        for one in evidence
    ]
    kept: dict[int, list[Run]] = {}
    for i in sorted(range(len(evidence)), key=lambda i: -len(told[i][1])):
        profile, own = told[i]
        host = next((k for k in kept if told[k][0] == profile and own <= told[k][1]), None)
        if host is None:
            kept[i] = []
        else:
            kept[host].append(evidence[i].run)
    return [replace(evidence[i], also=tuple(kept[i])) for i in sorted(kept)]


def _with_means(claim: Claim, records: Sequence[Record]) -> list[Record]:
    """The records and, for a claim on unseen networks, the means over those that are no ConvNets."""
    sides = results.side_names(claim)
    rows = [r for r in records if any(r.method == side or results.beyond(side, r.label) is not None for side in sides)]
    seen = results.convnets(rows)
    if results.UNSEEN not in claim.networks or all(record.network in seen for record in rows):
        return [*records]
    return [*records, *results.unseen(rows, seen)]


def _plans(run: Run, claim: Claim) -> bool:
    """Whether the run is the paper profile of a notebook whose cells would test the claim."""
    meant = run.profile == "paper" and run.paper == claim.paper and claim.id in _named(run, claim)
    return meant and _would_test(claim, run.planned)


def _would_test(claim: Claim, records: Sequence[Record]) -> bool:
    try:
        return bool(results.check_claim(claim, _with_means(claim, records)).tests)
    except ValueError:
        return False


def _as_if_run(record: Record) -> Record:
    return record if record.n else replace(record, accuracies=(50.0, 50.0))


def _named(run: Run, claim: Claim) -> set[str]:
    """The claims of the paper that a notebook names in its code; all of them if it names none."""
    known = {one.id for one in results.claims(claim.paper)}
    source = "\n".join(cell.source for cell in run.notebook.cells if cell.cell_type == "code") if run.notebook else ""
    texts = {ast.literal_eval(text) for text in re.findall(r'"\w+"', source)}
    return texts & known or known
