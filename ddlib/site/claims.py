"""Every claim of every paper, with what the results at hand say of it."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddlib import results
from ddlib.results import Claim, ClaimCheck, Record
from ddlib.site.runs import Run

NOT_RUN = "not run"


@dataclass(frozen=True)
class Evidence:
    """One run that a claim was tested in."""

    run: Run
    check: ClaimCheck

    @property
    def summary(self) -> str:
        """How many of the comparisons hold, and between what their differences lie."""
        tests = self.check.tests
        holding = sum(test.outcome == "holds" for test in tests)
        differences = sorted(test.comparison.difference for test in tests)
        span = " to ".join(dict.fromkeys(signed(differences[i]) for i in (0, -1)))
        if len(tests) == 1:
            found = tests[0].comparison
            return f"{tests[0].where}: {span} points [{signed(found.low)}, {signed(found.high)}]"
        return f"{holding} of {len(tests)} comparisons hold, {span} points"


def signed(number: float) -> str:
    """A difference with its sign, in print."""
    return f"{number:+.1f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Verdict:
    """A claim and all evidence on it, from the smallest profile to the largest.

    waiting: runs whose records name a side of the claim that was not run, with the hours that these would take.
    """

    claim: Claim
    evidence: tuple[Evidence, ...]
    waiting: tuple[tuple[Run, float], ...] = ()

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The different outcomes, "not run" where there is no evidence."""
        return tuple(dict.fromkeys(one.check.outcome for one in self.evidence)) or (NOT_RUN,)

    @property
    def outcome(self) -> str:
        """One word on the claim: what all decided evidence says; "undecided" where it differs or there is none."""
        decided = [outcome for outcome in self.outcomes if outcome != "undecided"]
        return decided[0] if len(decided) == 1 else "undecided"


def verdicts(paper: str, runs: Sequence[Run]) -> list[Verdict]:
    """Every claim of `paper`, tested in each of its runs, and in those that compare papers, as far as they bear on it.

    A notebook that names the claims that it tests is asked for these alone: its rows stand for nothing else.

    Raises:
        ValueError: no such paper (the known ones are listed).
    """
    tested = [run for run in runs if run.records and run.paper in (paper, "compare")]
    found = [(claim, tuple(_evidence(claim, tested))) for claim in results.claims(paper)]
    return [Verdict(claim, known, () if known else tuple(_waiting(claim, tested))) for claim, known in found]


def _waiting(claim: Claim, runs: Sequence[Run]) -> Iterator[tuple[Run, float]]:
    sides = {side.casefold() for side in (claim.higher, claim.lower, claim.rises) if side}
    for run in runs:
        missing = [r for r in run.records if not r.n and r.ipc in (*claim.ipc, None) and r.network in claim.networks]
        missing = [r for r in missing if r.label.casefold() in sides and "estimated_hours" in r.cost]
        if missing:
            yield run, sum(r.cost["estimated_hours"] for r in missing)


def _evidence(claim: Claim, runs: Sequence[Run]) -> Iterator[Evidence]:
    for run in runs:
        named = _named(run, claim.paper)
        if named is not None and claim.id not in named:
            continue
        try:
            check = results.check_claim(claim, _with_means(run.records))
        except ValueError:
            continue  # several rows stand for one side: the notebook is about something else
        if check.tests:
            yield Evidence(run, check)


def _with_means(records: Sequence[Record]) -> list[Record]:
    """The records, and their means over unseen networks where there are such."""
    try:
        return [*records, *results.unseen(records)]
    except ValueError:
        return [*records]


def _named(run: Run, paper: str) -> set[str] | None:
    """The claims of `paper` that a notebook names in its code; None if it names none."""
    known = {claim.id for claim in results.claims(paper)}
    source = "\n".join(cell.source for cell in run.notebook.cells if cell.cell_type == "code") if run.notebook else ""
    texts = {ast.literal_eval(text) for text in re.findall(r'"\w+"', source)}
    return texts & known or None
