"""What a run would take from here, before it begins: cell by cell and in all, what is in the store left out.

`study.plan` says what is missing, this module what that costs: every piece once, however many cells share it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ddlib.data import datasets
from ddlib.data.datasets import ImageSet
from ddlib.store.progress import peak_memory, reset_peak_memory
from ddlib.study import estimate
from ddlib.study.estimate import Estimate
from ddlib.study.rows import Cell


@dataclass(frozen=True)
class Missing:
    """What the store lacks of a cell, each piece under the path that it will have there.

    cell: of a table.
    needs: the artefacts that are to be made beforehand: path -> builder.
    distil: the sets that are to be distilled, one a seed.
    evaluate: the evaluations that are to be made, one a seed.
    left: path -> the share of a piece that is still to do, where some of it is kept.
    """

    cell: Cell
    needs: Mapping[str, Any] = field(default_factory=dict)
    distil: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    left: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """What some pieces take, one after another.

    seconds: of all of them.
    memory: most bytes in use at a time.
    disk: bytes in the store at the most: what they leave, and the largest checkpoint.
    distillations, trainings: sets distilled, and networks trained to judge them.
    """

    seconds: float
    memory: int
    disk: int
    distillations: int
    trainings: int


@dataclass(frozen=True)
class Row:
    """A cell with what it takes.

    missing: of the cell.
    pieces: path -> what that piece takes.
    once: what is done once in a process, whatever number of cells need it, what for -> what it takes: reading the data,
        whitening them, the first step of a kind.
    """

    missing: Missing
    pieces: Mapping[str, Estimate]
    once: Mapping[str, Estimate]

    @property
    def totals(self) -> Totals:
        """What the cell takes on its own, in a process that has the data and has taken such steps before."""
        return _totals([self], once=False)

    def __str__(self) -> str:
        return _named(self.missing.cell)


@dataclass(frozen=True)
class Plan:
    """The cells in order."""

    rows: tuple[Row, ...]

    @property
    def totals(self) -> Totals:
        """What all takes in one process; a piece that several cells share counts once."""
        return _totals(self.rows)

    @property
    def once(self) -> float:
        """Seconds of `totals` for what is done once in a process."""
        return self.totals.seconds - _totals(self.rows, once=False).seconds


_READING: dict[str, Estimate] = {}


def read(cell: Cell, device: str, *, whitened: bool | str) -> tuple[ImageSet, ImageSet]:
    """The cell's training and test images; what that took, the first time, is part of every plan that needs them.

    Raises:
        FileNotFoundError: they are not there; the message names the command that gets them.
    """
    kind = _reading(cell, device, whitened)
    if kind not in _READING:
        reset_peak_memory(device)
    begin = time.perf_counter()
    train, test = (datasets.load(cell.dataset, split, zca=whitened, device=device) for split in ("train", "test"))
    if kind not in _READING:
        _READING[kind] = Estimate(kind, time.perf_counter() - begin, memory=peak_memory(device))
    return train, test


def plan(missing: Iterable[Missing], device: str) -> Plan:
    """What the cells take on `device`, from a few real steps of each kind of their work.

    Raises:
        FileNotFoundError: data are missing; the message names the command that gets them.
        ValueError: a step cannot be taken, as where it needs more memory than there is; the cell is named.
    """
    return Plan(tuple(_row(of, device) for of in missing))


def together(plans: Iterable[Plan]) -> Plan:
    """Several plans as one, carried out one after another in one process; equal cells are one."""
    rows = {str(row.missing.cell.settings()): row for plan in plans for row in plan.rows}
    return Plan(tuple(rows.values()))


def line(plan: Plan) -> str:
    """The plan in one line, for a notebook to show before it begins."""
    found, done = plan.totals, sum(not row.missing.evaluate for row in plan.rows)
    text = (
        f"{len(plan.rows)} cells, {done} of them in the store; to do: "
        f"{found.distillations} distillations and {found.trainings} trainings, "
        f"about {duration(found.seconds)} on this device"
    )
    return text + (f", peak memory {size(found.memory)}, {size(found.disk)} on disk" if found.seconds else "")


def table(plan: Plan) -> str:
    """The plan as text, a line for each cell; what cells share stands in the line of each."""
    lines = [("cell", "IPC", "in store", "trainings", "time", "memory", "disk")]
    for row in plan.rows:
        cell, found = row.missing.cell, row.totals
        cost = (str(found.trainings), duration(found.seconds), size(found.memory), size(found.disk))
        label = f"{cell.label}, {cell.tested_on}" if cell.tested_on else cell.label
        ipc = "all" if cell.ipc is None else str(cell.ipc)
        lines.append((label, ipc, _in_store(row.missing), *(cost if row.pieces else "----")))
    if plan.totals.seconds:
        lines.append(("once: data, first steps", "", "", "", duration(plan.once), "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join([f"{a:<{widths[0]}}", *map(str.rjust, rest, widths[1:])]).rstrip() for a, *rest in lines]
    return "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])


def refusals(plan: Plan, *, budget_hours: float | None = None, memory: int | None = None) -> list[str]:
    """Why cells do not fit, one sentence each, in order; empty where all do.

    A cell does not fit if it takes more bytes than `memory`, or if it would not be done within what the cells before
    it that fit leave of `budget_hours`.  None: no limit.
    """
    found, kept = [], []
    for row in plan.rows:
        cost = row.totals
        end = _totals([*kept, row]).seconds
        if memory is not None and cost.memory > memory:
            found.append(f"{row} takes {size(cost.memory)} of memory; allowed: {size(memory)}")
        elif budget_hours is not None and end > 3600 * budget_hours:
            found.append(f"{row} takes {duration(cost.seconds)}, done after {duration(end)}; allowed: {budget_hours} h")
        else:
            kept.append(row)
    return found


def duration(seconds: float) -> str:
    """Seconds to read: in the unit that fits them."""
    unit, length = next(((u, n) for u, n in (("h", 3600), ("min", 60)) if seconds >= n), ("s", 1))
    return f"{seconds / length:.1f} {unit}"


def size(count: float) -> str:
    """Bytes to read: in the decimal unit that fits them."""
    unit, length = next(((u, n) for u, n in (("GB", 1e9), ("MB", 1e6)) if count >= n), ("kB", 1e3))
    return f"{count / length:.1f} {unit}"


def _named(cell: Cell) -> str:
    on = f", tested on {cell.tested_on}" if cell.tested_on else ""
    return f"{cell.label} at {cell.amount} on {cell.dataset}{on}"


def _reading(cell: Cell, device: str, whitened: bool | str) -> str:
    what = {False: "reading", True: "whitening"}.get(whitened, f"whitening {whitened} of")
    return f"{what} {cell.dataset} for {device}"


def _row(missing: Missing, device: str) -> Row:
    cell = missing.cell
    if not (missing.needs or missing.distil or missing.evaluate):
        return Row(missing, {}, {})
    read(cell, device, whitened=False)  # timed apart from whitening
    train, test = read(cell, device, whitened=cell.whitened)
    try:
        pieces = {path: estimate.prerequisite(builder, train) for path, builder in missing.needs.items()}
        pieces |= _each(missing.distil, lambda: estimate.distillation(cell, train))
        pieces |= _each(missing.evaluate, lambda: estimate.judging_of(cell, train, test))
        pieces = {path: _left(piece, missing.left.get(path, 1.0)) for path, piece in pieces.items()}
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{cell.label!r} at {cell.amount} cannot be estimated on {device}: {reason}") from error
    once = {piece.kind: Estimate(piece.kind, piece.first) for piece in pieces.values()}
    reading = {_reading(cell, device, whitened) for whitened in (False, cell.whitened)}
    return Row(missing, pieces, once | {kind: _READING[kind] for kind in reading & _READING.keys()})


def _each(paths: Sequence[str], probe: Callable[[], Estimate]) -> dict[str, Estimate]:
    return dict.fromkeys(paths, probe()) if paths else {}


def _left(piece: Estimate, share: float) -> Estimate:
    """What is still to do of a piece."""
    return replace(piece, seconds=share * piece.seconds, trainings=round(share * piece.trainings))


def _totals(rows: Sequence[Row], *, once: bool = True) -> Totals:
    """Of the rows; `once`: whether the seconds of what is done once in a process count."""
    pieces = [*{path: piece for row in rows for path, piece in row.pieces.items()}.values()]
    before = [*{kind: piece for row in rows for kind, piece in row.once.items()}.values()]
    return Totals(
        seconds=sum(piece.seconds for piece in [*pieces, *(before if once else [])]),
        memory=max((piece.memory for piece in [*pieces, *before]), default=0),
        disk=sum(piece.disk for piece in pieces) + max((piece.checkpoint for piece in pieces), default=0),
        distillations=len({path for row in rows for path in row.missing.distil}),
        trainings=sum(piece.trainings for piece in pieces),
    )


def _in_store(missing: Missing) -> str:
    """Seeds done of all, and those of the rest that are distilled already."""
    seeds, left = len(missing.cell.seeds), len(missing.evaluate)
    half = left - len(missing.distil)
    return f"{seeds - left}/{seeds}" + (f" + {half} distilled" if half else "")
