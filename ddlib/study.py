"""From a table's cell to its record: what must be made beforehand, the distillation, the evaluation.

`run` takes what is finished from the store and computes the rest; the same call serves JupyterLab, papermill, and a
notebook whose cells were computed before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ddlib import OUTPUT, datasets, evaluate, loop, planning, results, store, synthetic
from ddlib.cells import Cell, cells, deviations
from ddlib.datasets import ImageSet
from ddlib.planning import Plan
from ddlib.provenance import peak_memory, provenance, reset_peak_memory
from ddlib.results import Record
from ddlib.settings import settings
from ddlib.synthetic import SyntheticSet

__all__ = ["Cell", "Workplace", "cells", "deviations", "keep", "outlook", "plan", "run", "settings", "synthetic_set"]

VERSION = 1
"""Raised when what all methods share (data, augmentation, networks, distances) comes to give other numbers."""


@dataclass(frozen=True)
class Workplace:
    """Where a study computes and keeps what it has computed.

    device: "cpu", "cuda", "cuda:1", ...
    folder: the store.
    progress: whether loops show a bar.
    """

    device: str = "cpu"
    folder: Path = field(default_factory=lambda: OUTPUT / "runs")
    progress: bool = True

    def __post_init__(self) -> None:
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device={self.device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        for folder in (self.folder, OUTPUT / "results", OUTPUT / "figures"):
            store.check_writable(folder)


def run(cells: Sequence[Cell], workplace: Workplace, *, budget_hours: float | None = None) -> list[Record]:
    """The record of every cell, in order: from the store where it is finished, else computed now.

    Args:
        budget_hours: cells that, by estimate, would not finish within what is left of this are not begun; their
            verdict is NOT RUN and their cost states the estimate.  None: no limit.
    """
    begin = time.perf_counter()
    records = []
    for cell in cells:
        if budget_hours is not None and not finished(cell, workplace):
            left = budget_hours - (time.perf_counter() - begin) / 3600
            if _estimate(cell, workplace) > left:
                records.append(_not_run(cell, workplace))
                continue
        records.append(_compute(cell, workplace))
    return records


def keep(records: Sequence[Record], experiment: str, profile: str) -> Path:
    """Write the records of an experiment ("atom/accuracy") where reports look for them, and return the path."""
    path = OUTPUT / "results" / f"{experiment}.{profile}.json"
    results.write(records, path)
    return path


def synthetic_set(cell: Cell, seed: int, workplace: Workplace) -> SyntheticSet:
    """What the cell's method distils at `seed`: from the store, or made now and kept there."""
    folder = _folder(cell, seed, workplace)
    path = folder / "synthetic.safetensors"
    if _distilled(cell, seed, workplace):
        return synthetic.load(path).to(workplace.device)
    train = train_set(cell, workplace)
    prerequisites = {name: _prerequisite(cell, builder, workplace) for name, builder in cell.method.needs.items()}
    reset_peak_memory(workplace.device)
    begin = time.perf_counter()
    state = cell.method.start(train, prerequisites, seed)
    name = f"{cell.label}, {cell.dataset}, IPC {cell.ipc}, seed {seed}"
    outcome = loop.run(cell.method, state, name=name, progress=workplace.progress)
    synthetic.save(outcome.product, path)
    made = {
        "settings": cell.settings(),
        "seed": seed,
        "steps": cell.method.iterations,
        "seconds": time.perf_counter() - begin,
        "history": outcome.history,
        "bytes_stored": outcome.product.bytes_stored,
        "peak_memory_bytes": peak_memory(workplace.device),
    }
    store.write_json(folder / "run.json", made | {"provenance": provenance(workplace.device)})
    return outcome.product


def loss_course(cell: Cell, seed: int, workplace: Workplace) -> list[tuple[int, float]]:
    """(step, loss) while the cell's set was distilled at `seed`; empty for a method without a loss."""
    return [tuple(point) for point in _made(cell, seed, workplace)["history"].get("loss", [])]


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters."""
    return store.key(vars(chosen))


def evaluation(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """Accuracies (percent) of fresh networks trained on the cell's synthetic set, and what that took."""
    path = evaluation_path(cell, seed, workplace)
    kept = store.read_json(path)
    if kept is None:
        test = _load(cell, "test", workplace)
        found = evaluate.evaluate(synthetic_set(cell, seed, workplace), test, cell.protocol, seed=seed)
        kept = asdict(found) | {"protocol": asdict(cell.protocol), "provenance": provenance(workplace.device)}
        store.write_json(path, kept)
    return kept


def _made(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """What is known of a distillation in the store."""
    synthetic_set(cell, seed, workplace)
    return store.read_json(_folder(cell, seed, workplace) / "run.json")


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
    path = _prerequisite_path(cell, builder, workplace)
    if not path.exists():
        state = builder.start(train_set(cell, workplace), {}, builder.seed)
        outcome = loop.run(builder, state, name=f"{builder.name}, {cell.dataset}", progress=workplace.progress)
        store.write_tensors(path, outcome.product)
    return store.read_tensors(path, workplace.device)


def _prerequisite_path(cell: Cell, builder: Any, workplace: Workplace) -> Path:
    content = _identity(builder) | {"data": _fingerprint(cell, "train"), "whitened": cell.whitened}
    return workplace.folder / builder.name / f"{store.key(content)}.safetensors"


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
    return planning.line(plan(cells, workplace))


def plan(cells: Sequence[Cell], workplace: Workplace) -> Plan:
    """What a run of `cells` would take from here, cell by cell, from a few steps of each kind of its work.

    Raises:
        FileNotFoundError, ValueError: as `planning.plan`.
    """
    return planning.plan([_missing(cell, workplace) for cell in cells], workplace.device)


def _missing(cell: Cell, workplace: Workplace) -> planning.Missing:
    """What the store lacks of the cell."""
    planning.read(cell, workplace.device, whitened=False)  # the store names work by the data
    missing = [seed for seed in cell.seeds if not evaluation_path(cell, seed, workplace).exists()]
    distil = [seed for seed in missing if not _distilled(cell, seed, workplace)]
    needs = {_prerequisite_path(cell, b, workplace): b for b in cell.method.needs.values()} if distil else {}
    return planning.Missing(
        cell,
        needs={str(path): builder for path, builder in needs.items() if not path.exists()},
        distil=tuple(str(_folder(cell, seed, workplace)) for seed in distil),
        evaluate=tuple(str(evaluation_path(cell, seed, workplace)) for seed in missing),
    )


def _distilled(cell: Cell, seed: int, workplace: Workplace) -> bool:
    folder = _folder(cell, seed, workplace)
    return (folder / "synthetic.safetensors").exists() and (folder / "run.json").exists()


def finished(cell: Cell, workplace: Workplace) -> bool:
    """Whether every seed of the cell is distilled and evaluated."""
    return all(evaluation_path(cell, seed, workplace).exists() for seed in cell.seeds)


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
    """Hours that what the store does not have of the cell would take, with the data at hand."""
    return plan([cell], workplace).rows[0].totals.seconds / 3600
