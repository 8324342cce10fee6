"""What the results at hand say of the papers' claims: each claim with the runs that test it, at any profile."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddlib import results
from ddlib.results import Claim, ClaimCheck, Measurements, Record
from ddlib.study import notebooks

NOT_RUN, NOT_TESTED = "not run", "not tested"
ONLY_MEASURED, AMBIGUOUS = "shown, not tested", "cannot be told apart"


@dataclass(frozen=True)
class Run:
    """The results of a notebook at a profile: `records`, or the tables that it `measured`.

    name: `paper/experiment`, or one of its `notebooks.variants`.
    """

    name: str
    profile: str
    records: tuple[Record, ...] = ()
    measured: Measurements | None = None

    @property
    def paper(self) -> str:
        """The folder that the notebook lies in: a paper, or "compare"."""
        return self.name.partition("/")[0]

    @property
    def slug(self) -> str:
        """Such as "atom/accuracy.quick", as its files are called."""
        return f"{self.name}.{self.profile}"

    @property
    def notebook(self) -> str:
        """`paper/experiment` of the notebook's file, which its variants share."""
        return self.name.partition(".")[0]


def read_run(path: Path) -> Run:
    """A results file; raises ValueError where it is damaged."""
    name, _, profile = path.stem.rpartition(".")
    measured = results.read_measurements(path)
    return Run(f"{path.parent.name}/{name}", profile, () if measured else tuple(results.read(path)), measured)


def claims_of(notebook: str) -> list[str]:
    """The ids of the claims that a notebook tests at some profile, by its metadata; none where it says nothing."""
    path = notebooks.path_of(notebook)
    if not path.is_file():
        return []
    return json.loads(path.read_text(encoding="utf-8"))["metadata"].get("ddlib", {}).get("claims", [])


@dataclass(frozen=True)
class Verdict:
    """A claim, the runs that test it with what they say, and those that bear on it and cannot test it, with the reason.

    gaps: (run, `ONLY_MEASURED` or `AMBIGUOUS`, the reason).
    """

    claim: Claim
    evidence: tuple[tuple[Run, ClaimCheck], ...] = ()
    gaps: tuple[tuple[Run, str, str], ...] = ()

    @property
    def untested(self) -> str:
        """The word for no evidence: "not tested" if no record or table can test the claim, else "not run"."""
        return NOT_TESTED if self.claim.shown_in and not self.claim.measured else NOT_RUN

    @property
    def outcome(self) -> str:
        """What all decided evidence says; "undecided" where it differs or decides nothing, `untested` without any."""
        outcomes = {check.outcome for _, check in self.evidence}
        decided = outcomes - {"undecided"}
        if not outcomes:
            return self.untested
        return decided.pop() if len(decided) == 1 else "undecided"


def verdicts(paper: str, runs: Sequence[Run]) -> list[Verdict]:
    """Every claim of `paper` (ValueError if unknown), tested in each of its runs and in those that compare papers."""
    near = [(run, claims_of(run.notebook)) for run in runs if run.paper in (paper, "compare")]
    judged = []
    for claim in results.claims(paper):
        if claim.shown_in:
            testers = [run for run, _ in near if run.notebook == claim.shown_in]
        else:
            testers = [run for run, ids in near if claim.id in ids or not ids]
        judged.append(_verdict(claim, testers))
    return judged


def _verdict(claim: Claim, runs: Sequence[Run]) -> Verdict:
    evidence, gaps = [], []
    for run in runs:
        try:
            check = _check(claim, run)
        except (ValueError, OSError) as error:
            gaps.append((run, AMBIGUOUS, str(error)))
            continue
        if check.tests:
            evidence.append((run, check))
    if not evidence and claim.shown_in:
        why = "its tables have not both sides" if claim.measured else "it measures what no record can test"
        gaps += [(run, ONLY_MEASURED, why) for run in runs if run.measured]
    return Verdict(claim, tuple(_without_repeats(evidence)), tuple(gaps))


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


def _without_repeats(evidence: Sequence[tuple[Run, ClaimCheck]]) -> list[tuple[Run, ClaimCheck]]:
    """Less the runs that test nothing beyond another of the same profile: notebooks share cells."""
    tests = [{(t.where, t.comparison) for t in check.tests} for _, check in evidence]

    def repeats(i: int, j: int) -> bool:
        """Whether i says nothing beyond j; of two that say the same the earlier stays."""
        same_profile = evidence[i][0].profile == evidence[j][0].profile
        return same_profile and (tests[i] < tests[j] or (tests[i] == tests[j] and j < i))

    places = range(len(evidence))
    return [evidence[i] for i in places if not any(repeats(i, j) for j in places)]
