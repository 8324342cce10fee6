"""Did it come out the same?  Two folders of results beside each other, row by row and claim by claim.

Another kind of processor rounds otherwise, and small differences grow as networks train: the same notebooks then give
other accuracies.  So rows agree where the difference of their means is none that their networks' spread would not
explain, and claims where they come out the same.
"""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddlib import results
from ddlib.report import evidence
from ddlib.report.evidence import Run
from ddlib.results import Record
from ddlib.results.statistics import Sample, welch

BELOW = 20
"""Differences that are listed before the rest is counted."""


def read(folder: str | Path) -> list[Run]:
    """The results in a folder, as notebooks write them into `results/`.

    FileNotFoundError where it has none; a ValueError names a damaged file.
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
    old_runs, new_runs = ({run.slug: run for run in side} for side in (before, after))
    shared = [slug for slug in old_runs if slug in new_runs]
    old_rows, new_rows = (_rows([runs[slug] for slug in shared]) for runs in (old_runs, new_runs))
    differing, distances, equal = [], [0.0], 0
    for where in [where for where in old_rows if where in new_rows]:
        then, now = old_rows[where], new_rows[where]
        difference = welch(Sample.of(now.accuracies), Sample.of(then.accuracies))
        distances.append(abs(difference.difference))
        equal += now.accuracies == then.accuracies
        if difference.significant:
            span = f"[{difference.low:+.1f}, {difference.high:+.1f}]"
            differing.append(f"{where}: {then.accuracy_mean:.1f} -> {now.accuracy_mean:.1f} {span}")
    then, now = (_outcomes([runs[slug] for slug in shared]) for runs in (old_runs, new_runs))
    claims = [claim for claim in then if claim in now]
    changed = [f"{claim}: {then[claim]} -> {now[claim]}" for claim in claims if then[claim] != now[claim]]
    rows = len(distances) - 1
    head = (
        f"{rows - len(differing)} of {rows} rows agree (the 95 % interval of their difference holds zero; {equal} are "
        f"equal to the last digit, means differ by up to {max(distances):.1f} points); "
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
        for verdict in [verdict for paper in results.papers() for verdict in evidence.verdicts(paper, [run])]:
            for _, check in verdict.evidence:
                outcomes[f"{run.slug}: {verdict.claim.statement}"] = check.outcome
    return outcomes
