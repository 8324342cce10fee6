"""Every claim of every paper, with what the results at hand say of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ddlib import results
from ddlib.report.site.runs import Run
from ddlib.report.tables import duration
from ddlib.results import Claim, ClaimCheck
from ddlib.study import notebooks

NOT_RUN, NOT_TESTED = "not run", "not tested"
SHOWN, UNCLEAR = "shown, not tested", "cannot be told apart"


@dataclass(frozen=True)
class Evidence:
    """One run that a claim was tested in.

    also: other runs of the profile with the same comparisons, or some of them, for they share its cells.
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
        differences = sorted(test.comparison.difference for test in tests)
        if len(tests) == 1:
            interval = f"[{signed(tests[0].comparison.low)}, {signed(tests[0].comparison.high)}]"
            return f"{tests[0].where}: {signed(differences[0])} {self.unit} {interval}"
        holding = sum(test.outcome == "holds" for test in tests)
        span = " to ".join(dict.fromkeys([signed(differences[0]), signed(differences[-1])]))
        return f"{holding} of {len(tests)} comparisons hold, {span} {self.unit}"


def signed(number: float) -> str:
    """A difference with its sign, in print."""
    return f"{number:+.1f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Gap:
    """A run that bears on a claim and does not test it.

    word: `SHOWN` (measured, in no form that can test it), `UNCLEAR` (several rows fit one side) or `NOT_RUN`.
    why: the reason, or what the run would take.
    """

    run: Run
    word: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """A claim with all evidence on it and the gaps in it, each from the first run to the last."""

    claim: Claim
    evidence: tuple[Evidence, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def outcome(self) -> str:
        """What all decided evidence says; "undecided" where it differs or decides nothing.

        Without evidence it is "not run", or "not tested" if no record or table can test the claim.
        """
        outcomes = {item.check.outcome for item in self.evidence}
        if not outcomes:
            return NOT_TESTED if self.claim.shown_in and not self.claim.measured else NOT_RUN
        decided = outcomes - {"undecided"}
        return decided.pop() if len(decided) == 1 else "undecided"

    @property
    def on_digits_alone(self) -> bool:
        """Whether all that was compared are digits, the small images of the quick profile."""
        places = [test.where for item in self.evidence for test in item.check.tests]
        return bool(places) and all(place.startswith("digits,") for place in places)


def verdicts(paper: str, runs: Sequence[Run]) -> list[Verdict]:
    """Every claim of `paper`, tested in each of its runs, and in those that compare papers, as far as they bear on it.

    Raises:
        ValueError: no such paper (the known ones are listed).
    """
    near = [run for run in runs if run.paper in (paper, "compare")]
    return [_verdict(claim, near) for claim in results.claims(paper)]


def _verdict(claim: Claim, runs: Sequence[Run]) -> Verdict:
    if claim.shown_in:
        runs = [run for run in runs if run.file_name == claim.shown_in]
    else:
        runs = [run for run in runs if claim.id in run.claims or not run.claims]
    evidence, gaps = [], []
    for run in runs:
        try:
            check = _check(claim, run)
        except (ValueError, OSError) as error:
            gaps.append(Gap(run, UNCLEAR, str(error)))
            continue
        if check.tests:
            evidence.append(Evidence(run, check))
    if not evidence:
        gaps += _gaps(claim, runs)
    return Verdict(claim, _without_repeats(evidence), tuple(gaps))


def _check(claim: Claim, run: Run) -> ClaimCheck:
    """Test a claim in what a run measured, or in its records: on unseen networks in the means over all of them."""
    if claim.shown_in:
        if not run.measured:
            return ClaimCheck(claim, ())
        dataset = notebooks.parameters(run.name, run.profile)["dataset"]
        return results.check_measured(claim, run.measured, dataset)
    names = results.side_names(claim)
    rows = [r for r in run.records if r.method in names or any(results.beyond(n, r.label) is not None for n in names)]
    seen = results.convnets(rows)
    if results.UNSEEN in claim.networks and any(record.network not in seen for record in rows):
        return results.check_claim(claim, [*run.records, *results.unseen(rows, seen)])
    return results.check_claim(claim, run.records)


def _gaps(claim: Claim, runs: Sequence[Run]) -> Iterator[Gap]:
    """Where a claim without evidence was shown, and where it would be tested, with what that takes."""
    names = {name.casefold() for name in results.side_names(claim)}
    for run in runs:
        missing = [r for r in run.records if not r.n and r.ipc in (*claim.ipc, None) and r.network in claim.networks]
        missing = [r for r in missing if r.label.casefold() in names and "estimated_hours" in r.cost]
        if claim.shown_in and run.measured:
            why = "its tables have not both sides" if claim.measured else "it measures what no record can test"
            yield Gap(run, SHOWN, why)
        elif missing:
            hours = sum(record.cost["estimated_hours"] for record in missing)
            devices = dict.fromkeys(str(r.provenance.get("device", "an unknown device")) for r in missing)
            yield Gap(run, NOT_RUN, f"would take up to about {duration(hours)} on {' and '.join(devices)}")
        elif run.profile == "paper" and claim.id in run.claims and not run.records:
            yield Gap(run, NOT_RUN, f"would take {run.cost}")


def _without_repeats(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """The evidence with each measurement once: notebooks share cells, and the same numbers are no second test.

    A run that has no comparison beyond those of another run of its profile is named in that one's `also`.
    """
    comparisons = [
        {(t.where, t.comparison.difference, t.comparison.low, t.comparison.high) for t in item.check.tests}
        for item in evidence
    ]
    also: dict[int, list[Run]] = {}
    for i in sorted(range(len(evidence)), key=lambda i: -len(comparisons[i])):
        same = (j for j in also if evidence[j].run.profile == evidence[i].run.profile)
        host = next((j for j in same if comparisons[i] <= comparisons[j]), None)
        if host is None:
            also[i] = []
        else:
            also[host].append(evidence[i].run)
    return tuple(replace(evidence[i], also=tuple(also[i])) for i in sorted(also))
