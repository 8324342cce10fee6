"""What the results at hand say of the papers' claims, and whether two folders of them say the same.

Another kind of processor rounds otherwise, and small differences grow as networks train: the same notebooks then give
other accuracies.  So rows agree where the difference of their means is none that their networks' spread would not
explain, and claims where they come out the same.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib import results
from ddlib.results import Claim, ClaimCheck, Measurements, Record
from ddlib.results.statistics import Sample, welch
from ddlib.study import notebooks

NOT_RUN, NOT_TESTED = "not run", "not tested"
ONLY_MEASURED, AMBIGUOUS = "shown, not tested", "cannot be told apart"

BELOW = 20
"""Differences that are listed before the rest is counted."""


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


def read_runs(paths: Iterable[Path]) -> tuple[list[Run], dict[str, str]]:
    """The results in those of the files that are there, and of each damaged one the reason, by its `paper/name`."""
    runs, damaged = [], {}
    for path in filter(Path.is_file, paths):
        try:
            runs.append(read_run(path))
        except ValueError as error:
            damaged[f"{path.parent.name}/{path.stem}"] = str(error)
    return runs, damaged


def read(folder: str | Path) -> list[Run]:
    """The results in a folder, as notebooks write them into `results/`.

    FileNotFoundError where it has none; a ValueError names a damaged file.
    """
    paths = sorted(Path(folder).glob("*/*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results, which are <paper>/<experiment>.<profile>.json")
    return [*map(read_run, paths)]


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


def agreement(before: Sequence[Run], after: Sequence[Run]) -> str:
    """What the notebooks on both sides agree on, and where they differ, in words; of two runs of one the later counts.

    Rows agree where the 95 % interval of the difference of their means holds zero, of which one network alone tells
    nothing; claims count once a notebook.
    """
    old_runs, new_runs = ({run.slug: run for run in side} for side in (before, after))
    shared = [slug for slug in old_runs if slug in new_runs]
    old_rows, new_rows = (_rows([runs[slug] for slug in shared]) for runs in (old_runs, new_runs))
    differing, distances, equal, alone = [], [0.0], 0, 0
    for where in [where for where in old_rows if where in new_rows]:
        then, now = old_rows[where], new_rows[where]
        difference = welch(Sample.of(now.accuracies), Sample.of(then.accuracies))
        distances.append(abs(difference.difference))
        alone += math.isinf(difference.error)
        equal += now.accuracies == then.accuracies and math.isfinite(difference.error)
        if difference.significant:
            span = f"[{difference.low:+.1f}, {difference.high:+.1f}]"
            differing.append(f"{where}: {then.accuracy_mean:.1f} -> {now.accuracy_mean:.1f} {span}")
    then, now = (_outcomes([runs[slug] for slug in shared]) for runs in (old_runs, new_runs))
    claims = [claim for claim in then if claim in now]
    changed = [f"{claim}: {then[claim]} -> {now[claim]}" for claim in claims if then[claim] != now[claim]]
    rows = len(distances) - 1 - alone
    agreeing = (
        f"{rows - len(differing)} of {rows} rows agree (the 95 % interval of their difference holds zero; {equal} are "
        f"equal to the last digit, means differ by up to {max(distances):.1f} points"
        f"{f'; {alone} more are of one network, and tell nothing' if alone else ''}); "
    )
    head = (agreeing if rows or alone else "no rows to compare; ") + (
        f"{len(claims) - len(changed)} of {len(claims)} claims, each in its notebook, have the same outcome"
    )
    lines = [*changed, *differing, *_unpaired(old_runs, new_runs), *_unpaired(old_rows, new_rows)]
    rest = [f"... and {len(lines) - BELOW} more"] if len(lines) > BELOW else []
    return "\n  ".join([head, *lines[:BELOW], *rest])


def _unpaired(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What stands on one side only."""
    only_before = [f"{name}: only before" for name in before if name not in after]
    return only_before + [f"{name}: only after" for name in after if name not in before]


def _rows(runs: Sequence[Run]) -> dict[str, Record]:
    """The rows that were run, by what tells them apart; measurements have none."""
    rows = {}
    for run in runs:
        for record in [record for record in run.records if record.n]:
            images = "all images" if record.ipc is None else f"IPC {record.ipc}"
            rows[f"{run.slug}: {record.label}, {record.dataset}, {images}, {record.network}"] = record
    return rows


def _outcomes(runs: Sequence[Run]) -> dict[str, str]:
    """Every claim that the results of a notebook test -> how it comes out there."""
    outcomes = {}
    for run in runs:
        for verdict in [verdict for paper in results.papers() for verdict in verdicts(paper, [run])]:
            for _, check in verdict.evidence:
                outcomes[f"{run.slug}: {verdict.claim.statement}"] = check.outcome
    return outcomes
