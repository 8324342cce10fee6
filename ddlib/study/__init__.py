"""From a table's cell to its record: what must be made beforehand, the distillation, the evaluation.

`run` takes what is finished from the store and computes the rest; the same call serves JupyterLab, papermill, and a
notebook whose cells were computed before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from ddlib import OUTPUT, results
from ddlib.data import datasets
from ddlib.data.datasets import ImageSet
from ddlib.evaluation import Protocol
from ddlib.results import Measurements, Record
from ddlib.store.artefacts import Workplace, in_turn
from ddlib.store.provenance import provenance
from ddlib.study import planning, work
from ddlib.study.parameters import settings
from ddlib.study.planning import Plan
from ddlib.study.rows import NETWORK, Cell, cells, fingerprint, for_network, whitening
from ddlib.study.work import finished, history, prerequisites, synthetic_set

SPEED = (
    *("precision", "expert_precision", "compiled", "at_once", "num_networks"),
    *("shard", "kept_epochs", "chunk", "checkpointed"),
)
"""Settings that change how fast, how often or in what parts, not what: a cell that differs in them alone is the
paper's cell."""


def run(cells: Sequence[Cell], workplace: Workplace, *, budget_hours: float | None = None) -> list[Record]:
    """The record of every cell, in order: from the store where it is finished, else computed now.

    A cell that another process works on comes last, so that several processes share one table.

    Args:
        budget_hours: cells that, by estimate, would not finish within what is left of this are not begun; their
            verdict is NOT RUN and their cost states the estimate.  None: no limit.

    Raises:
        ValueError, FileNotFoundError: a cell cannot be begun, as where its data or its prior are not there; it is said
            before any is.
        FloatingPointError: cells came to numbers that are not finite; they are named, once all others are done.
    """
    begin = time.perf_counter()
    for cell in cells:
        work.check(cell, workplace)
    records: dict[int, Record] = {}
    failures = []
    for position in in_turn(range(len(cells)), lambda position: work.under_way(cells[position], workplace)):
        cell = cells[position]
        hours = 0.0 if budget_hours is None else plan([cell], workplace).seconds / 3600  # none, where it is finished
        if hours and hours > budget_hours - (time.perf_counter() - begin) / 3600:
            cost = {"estimated_hours": float(f"{hours:.2g}")}
            records[position] = _record(cell, [], cost, provenance(workplace.device))
            continue
        try:
            records[position] = _computed(cell, workplace)
        except FloatingPointError as error:
            failures.append(f"{cell.set_name}: {error}")
    if failures:
        raise FloatingPointError("; ".join(failures))
    return [records[position] for position in range(len(cells))]


def keep(measured: Sequence[Record] | Measurements, experiment: str, profile: str) -> Path:
    """Write what an experiment ("atom/accuracy") came to where reports look for it, and return the path."""
    path = OUTPUT / "results" / f"{experiment}.{profile}.json"
    write = results.write_measurements if isinstance(measured, Measurements) else results.write
    return write(measured, path)


def measured(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], chosen: SimpleNamespace, train: ImageSet, *modules: str
) -> Measurements:
    """Tables that a notebook with settings `chosen` measured on `train`, and where they come from.

    Args:
        tables: name -> rows of plain values.
        modules: of ddlib, dotted, that computed them.
    """
    origin = provenance(str(train.device), modules) | {"parameters": fingerprint(chosen), "data": train.fingerprint}
    return Measurements(tables, modules, origin)


def outlook(cells: Sequence[Cell], workplace: Workplace) -> str:
    """How much of `cells` is in the store, how much is to be made and where, in one line; no step is taken for it."""
    return f"{planning.counts([work.missing(cell, workplace) for cell in cells])}, on {workplace.device}"


def plan(cells: Sequence[Cell], workplace: Workplace) -> Plan:
    """What a run of `cells` would take from here, cell by cell; see `planning.plan`."""
    return planning.plan([work.missing(cell, workplace) for cell in cells], workplace.device)


def _computed(cell: Cell, workplace: Workplace) -> Record:
    """The record of a cell, whose sets and evaluations are made where the store does not have them."""
    # An evaluation distils first where the store lacks its set (`work.Accuracies.make`).
    evaluations = [work.evaluated(cell, seed, workplace) for seed in cell.seeds]
    distillations = [work.distillation_record(cell, seed, workplace) for seed in cell.seeds]
    seconds = sum(distillation["seconds"] for distillation in distillations)
    stored = work.bytes_stored(cell, workplace)
    cost = {
        "distil_seconds": round(seconds, 2),
        "prerequisite_seconds": work.pretraining_seconds(cell, cell.method.needs.values(), workplace),
        "evaluate_seconds": round(sum(e["seconds"] for e in evaluations), 2),
        "generation_seconds": round(sum(e.get("generation_seconds", 0.0) for e in evaluations), 3),
        "steps_per_second": round(sum(distillation["steps"] for distillation in distillations) / seconds, 3),
        "peak_memory_bytes": max(distillation["peak_memory_bytes"] for distillation in distillations),
        "bytes_stored": stored,
        "bits_per_class": 8 * stored / datasets.describe(cell.dataset).num_classes,
        "images_shown": evaluations[0]["images_shown"],
        "updates": evaluations[0]["updates"],
    }
    if balanced := [accuracy for e in evaluations for accuracy in e.get("balanced", ())]:
        cost["balanced_accuracy"] = round(fmean(balanced), 3)
    if cell.protocol.taught_by:
        cost["teacher_seconds"] = work.pretraining_seconds(cell, [cell.protocol.taught_by], workplace)
    accuracies = [accuracy for e in evaluations for accuracy in e["accuracies"]]
    judged = results.joined(sitting["provenance"] for e in evaluations for sitting in e["sittings"])
    distilled = results.joined(sitting["provenance"] for d in distillations for sitting in d["sittings"])
    return _record(cell, accuracies, cost, judged | {"distilled": distilled})


def _record(cell: Cell, accuracies: list[float], cost: Mapping[str, Any], origin: Mapping[str, Any]) -> Record:
    """The record of a cell, beside what its paper reports."""
    where = {"table": cell.table, "method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    where |= {"network": cell.tested_on or "convnet", "condition": cell.method.condition}
    data = datasets.fingerprint_of(cell.dataset, "train")
    return Record(
        accuracies=accuracies,
        label=cell.label,
        method=cell.method.name,
        dataset=cell.dataset,
        ipc=cell.ipc,
        cell=cell.settings(),
        reference=results.find(cell.paper, **where) if cell.reported else None,
        deviations=deviations(cell),
        cost=cost,
        provenance={**origin, "parameters": cell.parameters, "data": data, "seeds": list(cell.seeds)},
    )


def deviations(cell: Cell) -> list[str]:
    """In what a cell differs from its paper's setting, one short phrase each; empty if it is the paper's cell.

    The paper's setting is what its file states for the cell, and the method's and the protocol's defaults for the rest.
    """
    place = {"method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    place |= {"condition": cell.method.condition} if cell.method.condition else {}
    stated = results.published(cell.paper, **place)
    kind = type(cell.method)
    whitened = whitening("whitened", stated.pop("whitened", cell.reference_dataset in kind.whitened), kind)
    protocol = Protocol(**for_network([kind.evaluation, stated.pop("evaluation", {})], cell.tested_on))
    phrases = []
    if cell.dataset != cell.reference_dataset:
        phrases.append(f"{cell.dataset} instead of {cell.reference_dataset}")
    if cell.whitened != whitened:
        ways = {False: "not whitened", True: "whitened" + " after normalisation" * bool(whitened)}
        phrases.append(ways.get(cell.whitened, "whitened without normalisation"))
    defaults = kind() if cell.ipc is None else kind(ipc=cell.ipc)
    phrases += _differences("", asdict(cell.method), asdict(defaults) | stated)
    ours, paper = asdict(cell.protocol), asdict(protocol) | {"norm": cell.method.norm}
    options = {key: value for key, value in ours.pop("options").items() if key not in asdict(cell.method)}
    if cell.tested_on:  # what the name stands for is no deviation; how wide the notebook makes its ConvNets may be
        options = {key: options[key] for key in NETWORK if key in options and ours["network"] == "convnet"}
        del ours["network"]
    return phrases + _differences("evaluation ", options | ours, paper)


def _differences(where: str, ours: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting of ours that is not the paper's; what changes speed alone does not count."""
    unset = {"compat": "none", "ema": "none", "labels": "those stored"}
    return [
        f"{where}{name} {value} (default: {unset.get(name, 'by data') if paper.get(name) is None else paper[name]})"
        for name, value in ours.items()
        if value != paper.get(name) and name not in SPEED
    ]
