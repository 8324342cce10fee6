"""The work behind a cell of a table, as artefacts of the store: what it needs, its distillation, its evaluation.

Each has its place in the store, named by everything that its numbers depend on, and is computed once.  No data are read
to learn such a name, and no tensors to learn whether an artefact is finished.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from ddlib import evaluation, models
from ddlib.data import datasets, synthetic
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.pretraining import Prerequisite
from ddlib.store import artefacts, codeprint, files
from ddlib.store.artefacts import Artefact, Stepwise, Workplace, holder
from ddlib.store.files import Damaged, read_seal
from ddlib.store.provenance import provenance
from ddlib.study.planning import Missing
from ddlib.study.rows import Cell

VERSION = 1
"""Raised when what all methods share (data, augmentation, networks, distances) comes to give other numbers."""


# --- products and records ----------------------------------------------------------------------------------------


def synthetic_set(cell: Cell, seed: int, workplace: Workplace) -> SyntheticSet | SyntheticStream:
    """What the cell's method distils at `seed`: from the store, or made now and kept there.

    What is distilled once for cells that differ in how it is deployed alone is given as this cell deploys it.
    """
    _share_needs(cell, seed, workplace)
    distilled = artefacts.get(distillation(cell, seed, workplace), workplace)
    return replace(distilled, **cell.deployed) if cell.deployed else distilled


def distillation_record(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """What `run.json` says of a distillation, which is made now where the store does not have it whole."""
    _share_needs(cell, seed, workplace)
    return artefacts.facts(distillation(cell, seed, workplace), workplace)


def history(cell: Cell, seed: int, workplace: Workplace) -> dict[str, list[tuple[int, float]]]:
    """What was measured while the cell's set was distilled at `seed`: metric -> (step, value), in order."""
    metrics = distillation_record(cell, seed, workplace)["history"]
    return {metric: [tuple(point) for point in points] for metric, points in metrics.items()}


def evaluated(cell: Cell, seed: int, workplace: Workplace) -> dict[str, Any]:
    """Accuracies (percent) of fresh networks trained on the cell's synthetic set, and what that took."""
    return artefacts.get(Accuracies(cell, seed, workplace), workplace)


def prerequisites(cell: Cell, workplace: Workplace) -> dict[str, Any]:
    """What the cell's method needs beforehand, by name, such as shards of experts: from the store, or made now."""
    return {name: artefacts.get(need, workplace) for name, need in _needs(cell, workplace).items()}


def pretraining_seconds(cell: Cell, builders: Iterable[Prerequisite], workplace: Workplace) -> float | None:
    """Seconds that the products of `builders` took to make; None where the store does not have one (any more)."""
    try:
        records = [prerequisite(cell, builder, "", workplace).record() for builder in builders]
    except Damaged:
        return None
    return None if None in records else round(sum((record["seconds"] for record in records), 0.0), 2)


def bytes_stored(cell: Cell, workplace: Workplace) -> int:
    """Bytes needed to train as the cell's evaluation does; see `evaluation.bytes_stored`."""
    seed = cell.seeds[0]
    if cell.protocol.labels is None and cell.deployed.get("redraw", 1) is not None:
        return distillation_record(cell, seed, workplace)["bytes_stored"]
    teacher = _teacher(cell, workplace)
    teacher_bytes = sum(tensor.nbytes for tensor in teacher.state_dict().values()) if teacher else 0
    distilled = synthetic_set(cell, seed, workplace)
    return evaluation.bytes_stored(distilled, cell.protocol.labels, teacher_bytes=teacher_bytes)


def real_set(cell: Cell, split: str, workplace: Workplace) -> ImageSet:
    """The real set of the cell, its "train" or "test", in the space that its networks see."""
    return datasets.load(cell.dataset, split, zca=cell.whitened, device=workplace.device)


# --- what the store has ------------------------------------------------------------------------------------------


def finished(cell: Cell, workplace: Workplace) -> bool:
    """Whether every seed of the cell is distilled and evaluated.  Damaged JSON counts as nothing; no tensor is read."""
    return not _unfinished(cell, workplace)


def missing(cell: Cell, workplace: Workplace) -> Missing:
    """What the store lacks of the cell."""
    evaluations = _unfinished(cell, workplace)
    distillations = [each.distilled for each in evaluations if not each.distilled.finished()]
    builders = list(cell.method.needs.values()) if distillations else []
    if evaluations and cell.protocol.taught_by:
        builders.append(cell.protocol.taught_by)
    needs = [prerequisite(cell, builder, "", workplace) for builder in builders]
    needs = [need for need in needs if not need.finished()]
    return Missing(
        cell=cell,
        needs={str(need.path): need.job for need in needs},
        distil=tuple(str(each.path) for each in distillations),
        evaluate=tuple(str(each.path) for each in evaluations),
        left={str(each.path): each.left() for each in (*needs, *distillations, *evaluations)},
    )


def check(cell: Cell, workplace: Workplace) -> None:
    """Refuse a cell that is to be distilled and cannot be, for its data, their number or its prior; nothing is made."""
    if missing(cell, workplace).distil:
        cell.method.check_train(datasets.load(cell.dataset, "train", device=workplace.device))


def under_way(cell: Cell, workplace: Workplace) -> bool:
    """Whether another process works on what the cell lacks."""
    return any(holder(part.lock) for each in _unfinished(cell, workplace) for part in (each.distilled, each))


def _unfinished(cell: Cell, workplace: Workplace) -> list["Accuracies"]:
    """The evaluations of the cell that are not finished."""
    evaluations = [Accuracies(cell, seed, workplace) for seed in cell.seeds]
    return [each for each in evaluations if not each.finished()]


# --- artefacts ---------------------------------------------------------------------------------------------------


class SyntheticFile:
    """A distilled set or stream in one file, the same whichever of the cells that share it is computed first.

    deployed: the hyper-parameters of the cell that say how a stream is used, and are left out of the file.
    """

    def __init__(self, deployed: Iterable[str]):
        self.product, self.deployed = "synthetic.safetensors", tuple(deployed)

    def save(self, product: SyntheticSet | SyntheticStream, path: Path) -> None:
        """Write it to `path`, whole or not at all."""
        synthetic.save(replace(product, **dict.fromkeys(self.deployed, 1)) if self.deployed else product, path)

    def load(self, path: Path, device: str) -> SyntheticSet | SyntheticStream:
        """Read it from `path` to `device`."""
        return synthetic.load(path).to(device)

    def size(self, product: SyntheticSet | SyntheticStream) -> int:
        """Bytes of images and labels, or of the generator."""
        return product.bytes_stored


def distillation(cell: Cell, seed: int, workplace: Workplace) -> Stepwise:
    """The cell's synthetic set, or stream, at `seed`.

    Named by the method's settings and version, the data's fingerprint and the seed; the evaluation counts not.
    """
    method, left_out = cell.method, ("protocol", "tested_on", "seeds")
    content = {name: value for name, value in cell.settings(deployed=False).items() if name not in left_out}
    content["needs"] = {name: _identity(builder) for name, builder in method.needs.items()}
    content |= {"data": datasets.fingerprint_of(cell.dataset, "train"), "seed": seed, "code": VERSION}
    if (fingerprint := method.fingerprint) is not None:
        content["found"] = fingerprint  # the name stays: those of the store depend on it
    content |= _source(method)
    return Stepwise(
        folder=workplace.folder / "distilled" / files.key(content),
        name=f"{f'{cell.label}, {cell.dataset}' if 'ipc' in cell.deployed else cell.set_name}, seed {seed}",
        job=method,
        start=lambda: method.start(real_set(cell, "train", workplace), prerequisites(cell, workplace), seed),
        keeping=SyntheticFile(cell.deployed),
        device=workplace.device,
        about={"settings": cell.settings(deployed=False), "seed": seed},
        code=codeprint.distillation(type(method)),
    )


def prerequisite(cell: Cell, builder: Prerequisite, name: str, workplace: Workplace) -> Stepwise:
    """What `builder` makes of the cell's data; shared by all cells that ask for the same settings on the same data."""
    content = _identity_on_data(cell, builder)
    return Stepwise(
        folder=workplace.folder / builder.name / files.key(content),
        name=f"{name}, {cell.dataset}",
        job=builder,
        start=lambda: builder.start(real_set(cell, "train", workplace), {}, builder.seed),
        keeping=builder,
        device=workplace.device,
        about={"settings": content, "seed": builder.seed},
        code=codeprint.distillation(type(builder)),
    )


def _identity(builder: Prerequisite) -> dict[str, Any]:
    """What decides the product of a builder, besides the data of the cell."""
    identity = {"name": builder.name, "version": builder.version, "settings": asdict(builder), "code": VERSION}
    of = {"of": datasets.fingerprint_of(builder.data, "train")} if builder.data else {}
    return identity | of | _source(builder)


def _source(uses: Any) -> dict[str, str]:
    """What tells the network of a method, builder or protocol from another of its name; {} for our own networks."""
    source = models.fingerprint(getattr(uses, "network", "convnet"))
    return {} if source is None else {"network": source}


def _identity_on_data(cell: Cell, builder: Prerequisite) -> dict[str, Any]:
    """What decides the product of a builder on the data of the cell."""
    return _identity(builder) | {"data": datasets.fingerprint_of(cell.dataset, "train"), "whitened": cell.whitened}


def _needs(cell: Cell, workplace: Workplace) -> dict[str, Stepwise]:
    """The artefacts that the cell's method needs beforehand, by name."""
    return {name: prerequisite(cell, builder, name, workplace) for name, builder in cell.method.needs.items()}


def _share_needs(cell: Cell, seed: int, workplace: Workplace) -> None:
    """Make what the distillation needs, but for what other processes work on.

    Done before the distillation is locked: processes that come to the same cell each take what is free of its needs,
    and only then wait for one another.
    """
    if not distillation(cell, seed, workplace).finished():
        for need in _needs(cell, workplace).values():
            if not need.finished() and holder(need.lock) is None:
                artefacts.get(need, workplace)


def _teacher(cell: Cell, workplace: Workplace) -> nn.Module | None:
    """The frozen network that the cell's labels ask, shared likewise; None where they ask none."""
    builder = cell.protocol.taught_by
    if not builder:
        return None
    trained = artefacts.get(prerequisite(cell, builder, "teacher", workplace), workplace)
    return builder.frozen(real_set(cell, "test", workplace), trained)


@dataclass(frozen=True)
class Accuracies(Artefact):
    """How accurate fresh networks are that train on a cell's set: a JSON file beside the set.

    It is filled group by group: an evaluation that was killed goes on with the networks that are missing.
    """

    cell: Cell
    seed: int
    workplace: Workplace

    @property
    def name(self) -> str:
        """For people."""
        return f"evaluation of {self.cell}, seed {self.seed}"

    @cached_property
    def distilled(self) -> Stepwise:
        """The set that the networks train on."""
        return distillation(self.cell, self.seed, self.workplace)

    @cached_property
    def path(self) -> Path:
        """Of the file, named by everything that decides how the set is judged."""
        content = {
            "protocol": self.cell.protocol.settings(),
            "test": datasets.fingerprint_of(self.cell.dataset, "test"),
            "version": evaluation.VERSION,
        } | _source(self.cell.protocol)
        if self.cell.deployed:
            content["deployed"] = self.cell.deployed
        if self.cell.protocol.taught_by:
            content["teacher"] = _identity_on_data(self.cell, self.cell.protocol.taught_by)
        return self.distilled.folder / f"evaluation-{files.key(content)}.json"

    @property
    def lock(self) -> Path:
        """Beside the file."""
        return self.path.with_name(f".{self.path.stem}.lock")

    def record(self) -> dict[str, Any]:
        """What is kept for the set as it is now: what judged another says nothing of this one.  Raises `Damaged`."""
        record, seal = files.read_json(self.path) or {}, self.seal
        return record if record.get("of") == seal else {"of": seal}

    @property
    def seal(self) -> Any:
        """The checksum of what the networks train on; None where it is damaged."""
        try:
            return read_seal(self.distilled.path)
        except Damaged:
            return None

    def sets(self) -> tuple[SyntheticSet | SyntheticStream, ImageSet]:
        """What the networks train on, and the images that they are tested on."""
        return synthetic_set(self.cell, self.seed, self.workplace), real_set(self.cell, "test", self.workplace)

    def load(self) -> dict[str, Any] | None:
        """The record, if all networks judged the set."""
        record = self.record()
        return record if self.distilled.finished() and self._share(record) == 1 else None

    def finished(self) -> bool:
        """Whether all networks judged the set, which is there."""
        try:
            return self.load() is not None
        except Damaged:
            return False

    def left(self) -> float:
        """The share of networks that are not kept."""
        try:
            return 1.0 - self._share(self.record())
        except (Damaged, FileNotFoundError):
            return 1.0

    def _share(self, record: Mapping[str, Any]) -> float:
        return len(record.get("networks", ())) / self.cell.protocol.num_networks

    def make(self, workplace: Workplace) -> dict[str, Any]:
        """Train and test the networks that are missing, and keep each group of them as it is done."""
        cell, protocol = self.cell, self.cell.protocol
        distilled, test = self.sets()
        teacher, record = _teacher(cell, workplace), self.record()
        log = self.distilled.folder / artefacts.LOG_FILE
        for group in evaluation.groups(distilled, test, protocol):
            networks = tuple(network for network in group if network not in record.get("networks", ()))
            if not networks:
                continue
            epochs = len(networks) * protocol.rounds
            with workplace.watch(self.name, epochs, log=log, unit="epoch") as report, artefacts.deterministic():
                outcome = evaluation.evaluate(
                    distilled,
                    test,
                    protocol,
                    seed=self.seed,
                    networks=networks,
                    teacher=teacher,
                    on_epoch=lambda done, _, report=report: report(done),
                )
            record = self._added(outcome, record)
        return record

    def _added(self, outcome: evaluation.Evaluation, before: Mapping[str, Any]) -> dict[str, Any]:
        """Keep what some networks came to beside those of the record `before`; returns the new record."""
        code = provenance(self.workplace.device, codeprint.EVALUATION)
        after = asdict(outcome) | {"sittings": [{"networks": outcome.networks, "provenance": code}]}
        for name in ("networks", "accuracies", "balanced", "train_losses", "sittings"):
            after[name] = [*before.get(name, ()), *after[name]]
        for name in ("seconds", "generation_seconds"):
            after[name] += before.get(name, 0.0)
        after |= {"of": before["of"], "protocol": self.cell.protocol.settings()}
        files.write_json(self.path, after)
        return after
