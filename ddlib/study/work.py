"""The work behind a cell of a table: its distillation, what that needs beforehand, and its evaluation.

Each has its place in the store, named by everything that its numbers depend on, and is computed once.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from ddlib import evaluation
from ddlib.data import datasets, synthetic
from ddlib.data.datasets import ImageSet
from ddlib.data.snapshots import asked
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.store import artefacts, codeprint, files, loop
from ddlib.store.artefacts import Piece, Workplace, keeping
from ddlib.store.files import Damaged, read_seal
from ddlib.store.locks import holder, locked
from ddlib.store.provenance import provenance
from ddlib.study import planning
from ddlib.study.planning import Missing
from ddlib.study.rows import Cell

VERSION = 1
"""Raised when what all methods share (data, augmentation, networks, distances) comes to give other numbers."""


def synthetic_set(cell: Cell, seed: int, workplace: Workplace) -> SyntheticSet | SyntheticStream:
    """What the cell's method distils at `seed`: from the store, or made now and kept there.

    What is distilled once for cells that differ in how it is deployed alone is given as this cell deploys it.
    """
    _share(cell, seed, workplace)
    found = artefacts.product(_distillation(cell, seed, workplace), workplace).to(workplace.device)
    return replace(found, **cell.deployed) if cell.deployed else found


def _distillation(cell: Cell, seed: int, workplace: Workplace) -> Piece:
    def start() -> Any:
        return cell.method.start(train_set(cell, workplace), prerequisites(cell, workplace), seed)

    return Piece(
        folder=_folder(cell, seed, workplace),
        name=f"{cell.distilled_name}, seed {seed}",
        product="synthetic.safetensors",
        job=cell.method,
        start=start,
        save=lambda made, path: synthetic.save(_undeployed(made, cell), path),
        load=synthetic.load,
        about={"settings": cell.settings(deployed=False), "seed": seed},
        code=codeprint.distillation(type(cell.method)),
        size=lambda made: made.bytes_stored,
        **asked(cell.method),
    )


def _undeployed(made: SyntheticSet | SyntheticStream, cell: Cell) -> SyntheticSet | SyntheticStream:
    """The product as it is kept: the same whichever of the cells that share it came first."""
    return replace(made, **dict.fromkeys(cell.deployed, 1)) if cell.deployed else made


def prerequisites(cell: Cell, workplace: Workplace) -> dict[str, Any]:
    """What the cell's method needs beforehand, by name, such as shards of experts: from the store, or made now."""
    return {name: _prerequisite(cell, name, workplace) for name in cell.method.needs}


def prerequisite_seconds(cell: Cell, workplace: Workplace) -> float | None:
    """Seconds that what the cell's method needs took to make; None where the store does not have it (any more)."""
    return _seconds(cell, cell.method.needs.values(), workplace)


def teacher_seconds(cell: Cell, workplace: Workplace) -> float | None:
    """Seconds that the teacher of the cell's evaluation took to make; 0 without one, None as above."""
    return _seconds(cell, [builder for builder in [cell.protocol.taught_by] if builder], workplace)


def _seconds(cell: Cell, builders: Iterable[Any], workplace: Workplace) -> float | None:
    made = [files.read_json(_artefact_folder(cell, builder, workplace) / "run.json") for builder in builders]
    return None if None in made else round(sum((about["seconds"] for about in made), 0.0), 2)


def bytes_stored(cell: Cell, workplace: Workplace) -> int:
    """Bytes that whoever trains as the cell's evaluation does must be given; see `evaluation.bytes_stored`."""
    if cell.protocol.labels is None and cell.deployed.get("redraw", 1) is not None:
        return made(cell, cell.seeds[0], workplace)["bytes_stored"]
    asked = _teacher(cell, workplace)
    size = sum(tensor.nbytes for tensor in asked.state_dict().values()) if asked else 0
    shown = synthetic_set(cell, cell.seeds[0], workplace)
    return evaluation.bytes_stored(shown, cell.protocol.labels, teacher_bytes=size)


def history(cell: Cell, seed: int, workplace: Workplace) -> dict[str, list[tuple[int, float]]]:
    """What was measured while the cell's set was distilled at `seed`: metric -> (step, value), in order."""
    kept = made(cell, seed, workplace)["history"]
    return {metric: [tuple(point) for point in points] for metric, points in kept.items()}


def _share(cell: Cell, seed: int, workplace: Workplace) -> None:
    """Make what the distillation needs, but for what other processes work on.

    Done before the distillation is locked: processes that come to the same cell each take what is free of its needs,
    and only then wait for one another.
    """
    if _distilled_whole(cell, seed, workplace):
        return
    folders = {name: _artefact_folder(cell, builder, workplace) for name, builder in cell.method.needs.items()}
    while free := [name for name, folder in folders.items() if _free(folder)]:
        _prerequisite(cell, free[0], workplace)


def _free(folder: Path) -> bool:
    """Whether a piece is neither finished nor under way."""
    return not (folder / "run.json").exists() and holder(folder / ".lock") is None


def made(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """What is known of a distillation in the store."""
    synthetic_set(cell, seed, workplace)
    return files.read_json(_folder(cell, seed, workplace) / "run.json")


def evaluated(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """Accuracies (percent) of fresh networks trained on the cell's synthetic set, and what that took.

    Kept network by network: one that was killed goes on with the networks that are missing.
    """
    path = evaluation_path(cell, seed, workplace)
    try:
        if seed_finished(cell, seed, workplace):
            return files.read_json(path)
    except Damaged:
        pass  # looked at again, and put aside, by whoever holds the lock
    with locked(path.with_name(f".{path.stem}.lock"), f"evaluation of {cell}, seed {seed}"):
        return _evaluate(cell, seed, workplace, artefacts.mended(path))


def _evaluate(cell: Cell, seed: int, workplace: Workplace, kept: dict[str, Any]) -> dict[str, Any]:
    """Train and test the networks that `kept` lacks, and keep each group of them as it is done."""
    path = evaluation_path(cell, seed, workplace)
    shown, test = synthetic_set(cell, seed, workplace), test_set(cell, workplace)
    teacher = _teacher(cell, workplace)
    seal = read_seal(path.with_name("synthetic.safetensors"))
    kept = kept if kept.get("of") == seal else {"of": seal}  # what judged another set says nothing of this one
    name = f"{cell}, seed {seed}: evaluation"
    for group in evaluation.groups(shown, test, cell.protocol):
        group = tuple(network for network in group if network not in kept.get("networks", ()))
        if not group:
            continue
        epochs = len(group) * cell.protocol.rounds
        with (
            artefacts.progress(name, epochs, workplace, log=path.parent / "log.txt", unit="epoch") as report,
            artefacts.deterministic(),
        ):
            how = {"networks": group, "teacher": teacher, "on_epoch": lambda done, _: report(done)}
            found = evaluation.evaluate(shown, test, cell.protocol, seed=seed, **how)
        sitting = {"networks": group, "provenance": provenance(workplace.device, codeprint.EVALUATION)}
        kept = artefacts.joined(kept, {**asdict(found), "sittings": [sitting]}) | {
            "of": seal,
            "protocol": cell.protocol.settings(),
        }
        files.write_json(path, kept)
    return kept


def finished(cell: Cell, workplace: Workplace) -> bool:
    """Whether every seed of the cell is distilled and evaluated.  Damaged JSON counts as nothing; no tensor is read."""
    return all(seed_finished(cell, seed, workplace) for seed in cell.seeds)


def seed_finished(cell: Cell, seed: int, workplace: Workplace) -> bool:
    """Whether one seed of the cell is distilled and evaluated."""
    try:
        return _distilled(cell, seed, workplace) and artefacts.complete(
            evaluation_path(cell, seed, workplace), cell.protocol.num_networks
        )
    except Damaged:
        return False


def missing(cell: Cell, workplace: Workplace) -> Missing:
    """What the store lacks of the cell."""
    planning.read(cell, workplace.device, whitened=False)  # the store names work by the data
    open_seeds = [seed for seed in cell.seeds if not seed_finished(cell, seed, workplace)]
    distil = [seed for seed in open_seeds if not _distilled_whole(cell, seed, workplace)]
    builders = [*(cell.method.needs.values() if distil else ()), *([cell.protocol.taught_by] if open_seeds else ())]
    needs = {_artefact_folder(cell, builder, workplace): builder for builder in builders if builder}
    needs = {str(folder): builder for folder, builder in needs.items() if not (folder / "run.json").exists()}
    sets = tuple(str(_folder(cell, seed, workplace)) for seed in distil)
    evaluations = tuple(str(evaluation_path(cell, seed, workplace)) for seed in open_seeds)
    left = {path: loop.share_left(Path(path) / "checkpoint.safetensors") for path in (*needs, *sets)}
    left |= {path: artefacts.share_left(Path(path), cell.protocol.num_networks) for path in evaluations}
    return Missing(cell, needs, sets, evaluations, left)


def _distilled(cell: Cell, seed: int, workplace: Workplace) -> bool:
    folder = _folder(cell, seed, workplace)
    return (folder / "synthetic.safetensors").exists() and files.read_json(folder / "run.json") is not None


def _distilled_whole(cell: Cell, seed: int, workplace: Workplace) -> bool:
    try:
        return _distilled(cell, seed, workplace)
    except Damaged:
        return False


def under_way(cell: Cell, workplace: Workplace) -> bool:
    """Whether another process works on what the cell lacks."""
    folders = [_folder(cell, seed, workplace) for seed in cell.seeds if not seed_finished(cell, seed, workplace)]
    return any(holder(lock) is not None for folder in folders for lock in folder.glob(".*lock"))


def train_set(cell: Cell, workplace: Workplace) -> ImageSet:
    """The real training set of the cell, in the space that its networks see."""
    return _load(cell, "train", workplace)


def test_set(cell: Cell, workplace: Workplace) -> ImageSet:
    """The real test set of the cell, in the space that its networks see."""
    return _load(cell, "test", workplace)


def _load(cell: Cell, split: str, workplace: Workplace) -> ImageSet:
    return datasets.load(cell.dataset, split, zca=cell.whitened, device=workplace.device)


def evaluation_path(cell: Cell, seed: int, workplace: Workplace) -> Path:
    """Where the evaluation of one seed of the cell is kept."""
    content = {
        "protocol": cell.protocol.settings(),
        "test": fingerprint_of(cell, "test"),
        "version": evaluation.VERSION,
    }
    content |= {"deployed": cell.deployed} if cell.deployed else {}
    content |= {"teacher": _artefact(cell, teacher)} if (teacher := cell.protocol.taught_by) else {}
    return _folder(cell, seed, workplace) / f"evaluation-{files.key(content)}.json"


def _folder(cell: Cell, seed: int, workplace: Workplace) -> Path:
    """Named by the method's settings and version, the data's fingerprint and the seed; the evaluation counts not."""
    content = {k: v for k, v in cell.settings(deployed=False).items() if k not in ("protocol", "tested_on", "seeds")}
    needs = {name: _identity(builder) for name, builder in cell.method.needs.items()}
    content |= {"needs": needs, "data": fingerprint_of(cell, "train"), "seed": seed, "code": VERSION}
    found = getattr(cell.method, "found", None)
    content |= {} if found is None else {"found": found}
    return workplace.folder / "distilled" / files.key(content)


def fingerprint_of(cell: Cell, split: str) -> str:
    """Of the pixels and labels; whitening, which takes minutes to fit, keeps it."""
    return datasets.load(cell.dataset, split).fingerprint


def _identity(builder: Any) -> dict[str, Any]:
    """What decides the artefact of a builder, besides the data of the cell."""
    other = getattr(builder, "data", None)
    of = {"of": datasets.load(other, "train").fingerprint} if other else {}
    return {"name": builder.name, "version": builder.version, "settings": asdict(builder), "code": VERSION} | of


def _artefact(cell: Cell, builder: Any) -> dict[str, Any]:
    return _identity(builder) | {"data": fingerprint_of(cell, "train"), "whitened": cell.whitened}


def _artefact_folder(cell: Cell, builder: Any, workplace: Workplace) -> Path:
    return workplace.folder / builder.name / files.key(_artefact(cell, builder))


def _prerequisite(cell: Cell, name: str, workplace: Workplace) -> Any:
    """An artefact that the method needs, shared by all cells that ask for the same settings on the same data."""
    return _built(cell, cell.method.needs[name], name, workplace)


def _teacher(cell: Cell, workplace: Workplace) -> nn.Module | None:
    """The frozen network that the cell's labels ask, shared likewise; None where they ask none."""
    builder = cell.protocol.taught_by
    return builder and builder.frozen(test_set(cell, workplace), _built(cell, builder, "teacher", workplace))


def _built(cell: Cell, builder: Any, name: str, workplace: Workplace) -> Any:
    content = _artefact(cell, builder)
    piece = Piece(
        folder=_artefact_folder(cell, builder, workplace),
        name=f"{name}, {cell.dataset}",
        job=builder,
        start=lambda: builder.start(train_set(cell, workplace), {}, builder.seed),
        about={"settings": content, "seed": builder.seed},
        code=codeprint.distillation(type(builder)),
        **vars(keeping(builder, workplace.device)),
    )
    return artefacts.product(piece, workplace)
