"""The results of a run as rows of texts: ours beside the paper's, cells that were not run with their cost."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddlib import report
from ddlib.report.site.runs import Run
from ddlib.report.tables import grouped
from ddlib.report.tables import reported as theirs
from ddlib.results import VERDICTS, Record

COLUMNS = ("method", "IPC", "paper, %", "ours, %", "n", "verdict")


@dataclass(frozen=True)
class Sheet:
    """Columns, rows under headings, and notes; if it is `judged`, the last column is the verdict."""

    columns: Sequence[str]
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]]
    notes: Sequence[str] = ()
    judged: bool = False


def sheets(run: Run) -> list[Sheet]:
    """The tables of a run: its records, or each table that it measured."""
    if run.measured:
        return [_measured(name, rows) for name, rows in run.measured.tables.items()]
    notes = report.table(run.records).notes if run.records else ()
    return [Sheet(COLUMNS, grouped(run.records, _row), notes, judged=True)] if run.records else []


def _measured(name: str, rows: Sequence[Mapping[str, Any]]) -> Sheet:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    texts = [[_plain(row.get(column)) for column in columns] for row in rows]
    return Sheet([column.replace("_", " ") for column in columns], [(name.replace("_", " "), texts)])


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(record: Record) -> tuple[str, ...]:
    ipc = "all" if record.ipc is None else str(record.ipc)
    ours = _number(record.accuracy_mean, record.accuracy_std) if record.n else f"not run: {cost(record)}"
    return record.label, ipc, theirs(record.reference, _number, "–"), ours, str(record.n or "–"), record.verdict


def _number(mean: float, std: float | None) -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def cost(record: Record) -> str:
    """What a cell that was not run would take, in words."""
    found = record.cost.get("estimated_hours")
    return "cost not estimated" if found is None else hours(found)


def hours(number: float) -> str:
    """A time to two figures: in minutes below an hour, in days above two."""
    if number < 1:
        return f"about {max(1, round(60 * number))} min"
    return f"about {number:.2g} h" if number <= 48 else f"about {number / 24:.0f} days"


def not_run(run: Run) -> list[Record]:
    """The records of cells that were not run."""
    return [record for record in run.records if not record.n]


def counts(runs: Iterable[Run]) -> dict[str, int]:
    """Verdict -> how many cells came to it, in the order of `VERDICTS`, those that none came to included."""
    found = Counter(record.verdict for run in runs for record in run.records)
    return {verdict: found[verdict] for verdict in VERDICTS}
