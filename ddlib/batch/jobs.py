"""The cells of a notebook as pieces of work that stand alone: named, listed, and computed one at a time."""

from collections.abc import Sequence

from ddlib import study
from ddlib.batch import gpus, reproduce
from ddlib.batch.reproduce import Run
from ddlib.results import Record
from ddlib.store import files
from ddlib.study import notebooks
from ddlib.study.cell import Cell


def identity(cell: Cell) -> str:
    """A short stable name of everything that decides the cell's numbers; notebooks that share a cell share it."""
    return files.key(cell.settings())


def describe(cell: Cell) -> str:
    """Row, data, images per class and, of several, the network, for people."""
    return str(cell)


def cells_of(run: Run) -> dict[str, Cell]:
    """The cells that a run computes, by identity, in the notebook's order."""
    return {identity(cell): cell for cell in notebooks.cells(run.name, run.profile, reproduce.told(run))}


def listing(run: Run) -> list[tuple[str, str, str]]:
    """Of each cell of a run its identity, what it is, and "in the store" or "to do"."""
    here = study.Workplace("cpu")
    states = {True: "in the store", False: "to do"}
    return [(name, describe(cell), states[study.finished(cell, here)]) for name, cell in cells_of(run).items()]


def compute(run: Run, wanted: str, names: Sequence[str] = ()) -> Record:
    """Compute one cell of a notebook into the store, within the notebook's `budget_hours`, and return its record.

    Args:
        wanted: the cell's `identity`.
        names: GPUs, of which a free one is taken; empty: as CUDA chooses.

    Raises:
        ValueError: the notebook has no such cell; its cells are listed.
    """
    found = cells_of(run)
    if wanted not in found:
        known = "; ".join(f"{name} ({describe(cell)})" for name, cell in found.items())
        raise ValueError(f"unknown cell {wanted!r} of {run.name} at {run.profile}; known: {known}")
    parameters = notebooks.parameters(run.name, run.profile, reproduce.told(run))
    with gpus.pinned(names):
        workplace = study.Workplace(parameters["device"])
        (record,) = study.run([found[wanted]], workplace, budget_hours=parameters.get("budget_hours"))
    return record
