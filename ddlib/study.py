"""From a table's cell to its record: what must be made beforehand, the distillation, the evaluation.

`run` takes what is finished from the store and computes the rest; the same call serves JupyterLab, papermill, and a
notebook whose cells were computed before.
"""

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from ddlib import OUTPUT, datasets, estimate, evaluate, files, pieces, results, store, synthetic
from ddlib.cells import Cell, cells, deviations
from ddlib.datasets import ImageSet
from ddlib.files import Damaged
from ddlib.locks import holder, locked
from ddlib.pieces import Piece, Workplace
from ddlib.provenance import provenance
from ddlib.results import Record
from ddlib.settings import settings
from ddlib.synthetic import SyntheticSet

__all__ = ["Cell", "Workplace", "cells", "deviations", "keep", "outlook", "run", "settings", "synthetic_set"]

VERSION = 1
"""Raised when what all methods share (data, augmentation, networks, distances) comes to give other numbers."""


def run(cells: Sequence[Cell], workplace: Workplace, *, budget_hours: float | None = None) -> list[Record]:
    """The record of every cell, in order: from the store where it is finished, else computed now.

    A cell that another process works on comes last, so that several processes share one table.

    Args:
        budget_hours: cells that, by estimate, would not finish within what is left of this are not begun; their
            verdict is NOT RUN and their cost states the estimate.  None: no limit.
    """
    begin = time.perf_counter()
    records: dict[int, Record] = {}
    while len(records) < len(cells):
        position = _next(cells, records, workplace)
        cell = cells[position]
        left = None if budget_hours is None else budget_hours - (time.perf_counter() - begin) / 3600
        fits = left is None or finished(cell, workplace) or _estimate(cell, workplace) <= left
        records[position] = (_compute if fits else _not_run)(cell, workplace)
    return [records[position] for position in range(len(cells))]


def _next(cells: Sequence[Cell], done: Container[int], workplace: Workplace) -> int:
    """The position of the first cell to do that no other process works on, or else of the first to do."""
    todo = [position for position in range(len(cells)) if position not in done]
    return next((position for position in todo if not _under_way(cells[position], workplace)), todo[0])


def _under_way(cell: Cell, workplace: Workplace) -> bool:
    folders = [_folder(cell, seed, workplace) for seed in cell.seeds if not seed_finished(cell, seed, workplace)]
    return any(holder(lock) is not None for folder in folders for lock in folder.glob(".*lock"))


def keep(records: Sequence[Record], experiment: str, profile: str) -> Path:
    """Write the records of an experiment ("atom/accuracy") where reports look for them, and return the path."""
    path = OUTPUT / "results" / f"{experiment}.{profile}.json"
    results.write(records, path)
    return path


def synthetic_set(cell: Cell, seed: int, workplace: Workplace) -> SyntheticSet:
    """What the cell's method distils at `seed`: from the store, or made now and kept there."""
    return pieces.product(_distillation(cell, seed, workplace), workplace).to(workplace.device)


def _distillation(cell: Cell, seed: int, workplace: Workplace) -> Piece:
    def start() -> Any:
        needs = {name: _prerequisite(cell, builder, workplace) for name, builder in cell.method.needs.items()}
        return cell.method.start(train_set(cell, workplace), needs, seed)

    return Piece(
        folder=_folder(cell, seed, workplace),
        name=f"{cell.label}, {cell.dataset}, IPC {cell.ipc}, seed {seed}",
        product="synthetic.safetensors",
        job=cell.method,
        start=start,
        save=synthetic.save,
        load=synthetic.load,
        about={"settings": cell.settings(), "seed": seed},
        size=lambda made: made.bytes_stored,
    )


def loss_course(cell: Cell, seed: int, workplace: Workplace) -> list[tuple[int, float]]:
    """(step, loss) while the cell's set was distilled at `seed`; empty for a method without a loss."""
    return [tuple(point) for point in _made(cell, seed, workplace)["history"].get("loss", [])]


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters."""
    return store.key(vars(chosen))


def evaluation(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """Accuracies (percent) of fresh networks trained on the cell's synthetic set, and what that took.

    Kept network by network: one that was killed goes on with the networks that are missing.
    """
    path = evaluation_path(cell, seed, workplace)
    try:
        if _evaluated(path, cell):
            return files.read_json(path)
    except Damaged:
        pass  # looked at again, and put aside, by whoever holds the lock
    with locked(path.with_name(f".{path.stem}.lock"), f"evaluation of {cell.label}, IPC {cell.ipc}, seed {seed}"):
        return _evaluate(cell, seed, workplace, _mended(path))


def _mended(path: Path) -> dict[str, Any]:
    """What is kept of an evaluation; nothing where it is missing or damaged."""
    try:
        return files.read_json(path) or {}
    except Damaged as error:
        store.put_aside(path, error)
        return {}


def _evaluate(cell: Cell, seed: int, workplace: Workplace, kept: dict[str, Any]) -> dict[str, Any]:
    """Train and test the networks that `kept` lacks, and keep each group of them as it is done."""
    path = evaluation_path(cell, seed, workplace)
    shown, test = synthetic_set(cell, seed, workplace), _load(cell, "test", workplace)
    name = f"{cell.label}, {cell.dataset}, IPC {cell.ipc}, seed {seed}: evaluation"
    for group in evaluate.groups(shown, test, cell.protocol):
        if set(group) <= set(kept.get("networks", ())):
            continue
        epochs = len(group) * (cell.protocol.epochs + 1)
        with pieces.progress(name, epochs, workplace, log=path.parent / "log.txt", unit="epoch") as report:
            found = evaluate.evaluate(
                shown, test, cell.protocol, seed=seed, networks=group, on_epoch=lambda done, _: report(done)
            )
        kept = _joined(kept, asdict(found))
        kept |= {"protocol": asdict(cell.protocol), "provenance": provenance(workplace.device)}
        files.write_json(path, kept)
    return kept


def _joined(kept: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of one evaluation as one: networks beside networks, seconds added."""
    lists = ("networks", "accuracies", "train_losses")
    joined = {name: [*kept.get(name, ()), *found[name]] for name in lists}
    return {**found, **joined, "seconds": kept.get("seconds", 0.0) + found["seconds"]}


def _evaluated(path: Path, cell: Cell) -> bool:
    kept = files.read_json(path)
    return kept is not None and len(kept["networks"]) == cell.protocol.num_networks


def _made(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """What is known of a distillation in the store."""
    synthetic_set(cell, seed, workplace)
    return files.read_json(_folder(cell, seed, workplace) / "run.json")


def train_set(cell: Cell, workplace: Workplace) -> ImageSet:
    """The real training set of the cell, in the space that its networks see."""
    return _load(cell, "train", workplace)


def _load(cell: Cell, split: str, workplace: Workplace) -> ImageSet:
    return datasets.load(cell.dataset, split, zca=cell.whitened, device=workplace.device)


def _folder(cell: Cell, seed: int, workplace: Workplace) -> Path:
    """Named by the method's settings and version, the data's fingerprint and the seed; the evaluation counts not."""
    content = {k: v for k, v in cell.settings().items() if k not in ("protocol", "seeds")}
    needs = {name: _identity(builder) for name, builder in cell.method.needs.items()}
    content |= {"needs": needs, "data": _fingerprint(cell, "train"), "seed": seed, "code": VERSION}
    return workplace.folder / "distilled" / store.key(content)


def _fingerprint(cell: Cell, split: str) -> str:
    """Of the pixels and labels; whitening, which takes minutes to fit, keeps it."""
    return datasets.load(cell.dataset, split).fingerprint


def _identity(builder: Any) -> dict[str, Any]:
    """What decides the artefact of a builder, besides the data."""
    return {"name": builder.name, "version": builder.version, "settings": asdict(builder), "code": VERSION}


def _prerequisite(cell: Cell, builder: Any, workplace: Workplace) -> dict[str, Tensor]:
    """The artefact of `builder`, shared by all cells that ask for the same settings on the same data."""
    content = _identity(builder) | {"data": _fingerprint(cell, "train"), "whitened": cell.whitened}
    piece = Piece(
        folder=workplace.folder / builder.name / store.key(content),
        name=f"{builder.name}, {cell.dataset}",
        product=f"{builder.name}.safetensors",
        job=builder,
        start=lambda: builder.start(train_set(cell, workplace), {}, builder.seed),
        save=lambda made, path: files.write_tensors(path, made),
        load=lambda path: files.read_tensors(path, workplace.device)[0],
        about={"settings": content, "seed": builder.seed},
        size=lambda made: sum(tensor.nbytes for tensor in made.values()),
    )
    return pieces.product(piece, workplace)


def evaluation_path(cell: Cell, seed: int, workplace: Workplace) -> Path:
    """Where the evaluation of one seed of the cell is kept."""
    content = {
        "protocol": asdict(cell.protocol),
        "test": _fingerprint(cell, "test"),
        "version": evaluate.VERSION,
    }
    return _folder(cell, seed, workplace) / f"evaluation-{store.key(content)}.json"


def outlook(cells: Sequence[Cell], workplace: Workplace) -> str:
    """What a run of `cells` would take from here: one line, for a notebook to show before it begins."""
    open_cells = [cell for cell in cells if not finished(cell, workplace)]
    hours = sum(_estimate(cell, workplace) for cell in open_cells)
    networks = sum(len(cell.seeds) * cell.protocol.num_networks for cell in open_cells)
    return (
        f"{len(cells)} cells, {len(cells) - len(open_cells)} of them in the store; to do: "
        f"{sum(len(cell.seeds) for cell in open_cells)} distillations and {networks} trainings, "
        f"about {hours:.2g} h on this device"
    )


def finished(cell: Cell, workplace: Workplace) -> bool:
    """Whether every seed of the cell is distilled and evaluated; damaged files count as nothing."""
    return all(seed_finished(cell, seed, workplace) for seed in cell.seeds)


def seed_finished(cell: Cell, seed: int, workplace: Workplace) -> bool:
    """Whether one seed of the cell is distilled and evaluated."""
    path = evaluation_path(cell, seed, workplace)
    names = ("run.json", "synthetic.safetensors")
    try:
        return all((path.parent / name).exists() for name in names) and _evaluated(path, cell)
    except Damaged:
        return False


def _compute(cell: Cell, workplace: Workplace) -> Record:
    evaluations = [evaluation(cell, seed, workplace) for seed in cell.seeds]
    runs = [_made(cell, seed, workplace) for seed in cell.seeds]
    seconds = sum(made["seconds"] for made in runs)
    cost = {
        "distil_seconds": round(seconds, 2),
        "evaluate_seconds": round(sum(e["seconds"] for e in evaluations), 2),
        "steps_per_second": round(sum(made["steps"] for made in runs) / seconds, 3),
        "peak_memory_bytes": max(made["peak_memory_bytes"] for made in runs),
        "bytes_stored": runs[0]["bytes_stored"],
        "images_shown": evaluations[0]["images_shown"],
    }
    accuracies = [accuracy for e in evaluations for accuracy in e["accuracies"]]
    made = {"data": train_set(cell, workplace).fingerprint, "distilled": runs[-1]["provenance"]}
    return _record(cell, accuracies, cost, evaluations[-1]["provenance"] | made)


def _not_run(cell: Cell, workplace: Workplace) -> Record:
    cost = {"estimated_hours": float(f"{_estimate(cell, workplace):.2g}")}
    return _record(cell, [], cost, provenance(workplace.device))


def _record(cell: Cell, accuracies: list[float], cost: Mapping[str, Any], made: Mapping[str, Any]) -> Record:
    where = {"table": cell.table, "method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    return Record.of(
        accuracies,
        label=cell.label,
        method=cell.method.name,
        dataset=cell.dataset,
        ipc=cell.ipc,
        cell=cell.settings(),
        reference=results.find(cell.paper, **where),
        deviations=deviations(cell),
        cost=cost,
        provenance=made,
    )


def _estimate(cell: Cell, workplace: Workplace) -> float:
    """Hours that the cell's open seeds would take, from a few steps of each kind of its work, measured once."""
    per_seed = estimate.seconds(cell, train_set(cell, workplace), _load(cell, "test", workplace))
    return per_seed * sum(not seed_finished(cell, seed, workplace) for seed in cell.seeds) / 3600
