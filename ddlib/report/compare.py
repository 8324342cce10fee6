"""Did it come out the same?  Two folders of results beside each other, row by row and claim by claim.

Another kind of processor rounds otherwise, and small differences grow as networks train: the same notebooks then give
other accuracies.  So rows agree where the difference of their means is none that their networks' spread would not
explain, and claims where they come out the same.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ddlib import results
from ddlib.report import evidence
from ddlib.report.evidence import Run
from ddlib.results import Record
from ddlib.results.statistics import Sample, welch

T = TypeVar("T")

BELOW = 20
"""Differences that are listed before the rest is counted."""


def read(folder: str | Path) -> list[Run]:
    """The results in a folder, as notebooks write them into `results/`.

    Raises:
        FileNotFoundError: the folder has none.
        ValueError: a file is damaged; the message names it.
    """
    paths = sorted(Path(folder).glob("*/*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results, which are <paper>/<experiment>.<profile>.json")
    return [*map(evidence.read_run, paths)]


def readable(paths: Iterable[Path]) -> list[Run]:
    """What lies in those of the files that are there and whole."""
    runs = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ValueError):
            runs.append(evidence.read_run(path))
    return runs


def agreement(before: Sequence[Run], after: Sequence[Run]) -> str:
    """What the notebooks on both sides agree on, and where they differ, in words; of two runs of one the later counts.

    Rows agree where the 95 % interval of the difference of their means holds zero; claims count once a notebook.
    """
    differing, changed, alone = [], [], []
    moved, equal, claims = [0.0], 0, 0
    runs = ({run.slug: run for run in side} for side in (before, after))
    for name, old, new in _beside(*runs, alone):
        for where, then, now in _beside(_rows(old), _rows(new), alone):
            difference = welch(Sample.of(now.accuracies), Sample.of(then.accuracies))
            moved.append(abs(difference.difference))
            equal += now.accuracies == then.accuracies
            if difference.significant:
                span = f"[{difference.low:+.1f}, {difference.high:+.1f}]"
                differing.append(f"{where}: {then.accuracy_mean:.1f} -> {now.accuracy_mean:.1f} {span}")
        outcomes, later = _outcomes(old), _outcomes(new)
        for statement in [statement for statement in outcomes if statement in later]:
            claims += 1
            if outcomes[statement] != later[statement]:
                changed.append(f"{name}: {statement}: {outcomes[statement]} -> {later[statement]}")
    rows = len(moved) - 1
    head = (
        f"{rows - len(differing)} of {rows} rows agree (the 95 % interval of their difference holds zero; {equal} are "
        f"equal to the last digit, means differ by up to {max(moved):.1f} points); "
        f"{claims - len(changed)} of {claims} claims, each in its notebook, have the same outcome"
    )
    lines = [*changed, *differing, *alone]
    rest = [f"... and {len(lines) - BELOW} more"] if len(lines) > BELOW else []
    return "\n  ".join([head, *lines[:BELOW], *rest])


def _beside(before: Mapping[str, T], after: Mapping[str, T], alone: list[str]) -> Iterator[tuple[str, T, T]]:
    """What stands on both sides, with its name; what only one side has is named in `alone`."""
    for name in before | after:
        if name in before and name in after:
            yield name, before[name], after[name]
        else:
            alone.append(f"{name}: only {'before' if name in before else 'after'}")


def _rows(run: Run) -> dict[str, Record]:
    """The rows that were run, by what tells them apart; measurements have none."""
    rows = {}
    for record in run.records:
        images = "all images" if record.ipc is None else f"IPC {record.ipc}"
        if record.n:
            rows[f"{run.slug}: {record.label}, {record.dataset}, {images}, {record.network}"] = record
    return rows


def _outcomes(run: Run) -> dict[str, str]:
    """Every claim that the notebook's results test -> how it comes out there."""
    verdicts = [verdict for paper in results.papers() for verdict in evidence.verdicts(paper, [run])]
    return {verdict.claim.statement: check.outcome for verdict in verdicts for _, check in verdict.evidence}
