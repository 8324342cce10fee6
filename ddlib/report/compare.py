"""Did it come out the same?  Two folders of results beside each other, row by row and claim by claim.

Another kind of processor rounds otherwise, and small differences grow as networks train: the same notebooks then give
other accuracies.  So rows agree where the difference of their means is none that their networks' spread would not
explain, and claims where they come out the same.
"""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ddlib import results
from ddlib.report import evidence
from ddlib.report.evidence import Run
from ddlib.results import Record
from ddlib.results.statistics import Sample, welch

Contents = Mapping[str, Run]
"""Notebook and profile, such as "atom/accuracy.quick" -> its results."""

BELOW = 20
"""Differences that are listed before the rest is counted."""


@dataclass
class Agreement:
    """What two contents have in common.

    rows, equal: rows that stand in both, and how many of them to the last digit.
    moved: the largest difference of two means, in points.
    claims: outcomes of claims, a notebook each, that both can tell.
    differing, changed, alone: rows that do not agree, claims of another outcome, and what only one side has, in words.
    """

    rows: int = 0
    equal: int = 0
    moved: float = 0.0
    claims: int = 0
    differing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    alone: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows, claims = self.rows - len(self.differing), self.claims - len(self.changed)
        head = (
            f"{rows} of {self.rows} rows agree (the 95 % interval of their difference holds zero; {self.equal} are "
            f"equal to the last digit, means differ by up to {self.moved:.1f} points); "
            f"{claims} of {self.claims} claims, each in its notebook, have the same outcome"
        )
        lines = [*self.changed, *self.differing, *self.alone]
        rest = [f"... and {len(lines) - BELOW} more"] if len(lines) > BELOW else []
        return "\n  ".join([head, *lines[:BELOW], *rest])


def read(folder: str | Path) -> Contents:
    """The results in a folder, as notebooks write them into `results/`.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: a file is damaged; the message names it.
    """
    paths = sorted(Path(folder).glob("*/*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results, which are <paper>/<experiment>.<profile>.json")
    return dict(map(_named, paths))


def readable(paths: Iterable[Path]) -> Contents:
    """What lies in those of the files that are there and whole."""
    contents = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ValueError):
            name, run = _named(path)
            contents[name] = run
    return contents


def _named(path: Path) -> tuple[str, Run]:
    return f"{path.parent.name}/{path.stem}", evidence.read_run(path)


def agreement(before: Contents, after: Contents) -> Agreement:
    """What the notebooks that stand in both contents agree on, and where they differ."""
    whole = Agreement()
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            whole.alone.append(f"{name}: only {'before' if name in before else 'after'}")
            continue
        _compare_rows(name, before[name], after[name], whole)
        outcomes, new = _outcomes(before[name]), _outcomes(after[name])
        both = [statement for statement in outcomes if statement in new]
        whole.claims += len(both)
        changed = [statement for statement in both if outcomes[statement] != new[statement]]
        whole.changed += [f"{name}: {each}: {outcomes[each]} -> {new[each]}" for each in changed]
    return whole


def _compare_rows(name: str, before: Run, after: Run, whole: Agreement) -> None:
    """Count the rows of one notebook in both, and name those that differ or stand alone."""
    old, new = _rows(before), _rows(after)
    for row in [*old, *(row for row in new if row not in old)]:
        label, dataset, ipc, network = row
        where = f"{name}: {label}, {dataset}, {'all images' if ipc is None else f'IPC {ipc}'}, {network}"
        if row not in old or row not in new:
            whole.alone.append(f"{where}: only {'before' if row in old else 'after'}")
            continue
        difference = welch(*(Sample.of(row_of[row].accuracies) for row_of in (new, old)))
        whole.rows += 1
        whole.equal += new[row].accuracies == old[row].accuracies
        whole.moved = max(whole.moved, abs(difference.difference))
        if difference.significant:
            means = f"{old[row].accuracy_mean:.1f} -> {new[row].accuracy_mean:.1f}"
            whole.differing.append(f"{where}: {means} [{difference.low:+.1f}, {difference.high:+.1f}]")


def _rows(run: Run) -> dict[tuple, Record]:
    """The rows that were run, by what tells them apart; measurements have none."""
    return {(record.label, record.dataset, record.ipc, record.network): record for record in run.records if record.n}


def _outcomes(run: Run) -> dict[str, str]:
    """Every claim that the notebook's results test -> how it comes out there."""
    verdicts = [verdict for paper in results.papers() for verdict in evidence.verdicts(paper, [run])]
    return {verdict.claim.statement: check.outcome for verdict in verdicts for _, check in verdict.evidence}
