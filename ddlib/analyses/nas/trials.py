"""Every network of a space trained on every set of some cells, each result kept in the store as it is found.

A result lies where the evaluation of the cell with that network lies, so that it is computed once, whoever asks: a
search that was killed goes on with the networks that are missing, and several processes share one search, network by
network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddlib import results
from ddlib.analyses.architecture_search import LEAST, Architecture, winner_accuracy, winner_among_repeats, winners
from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.evaluation import Evaluation, evaluate_together, fits_together
from ddlib.store import artefacts, files
from ddlib.store.artefacts import Artefact, Workplace
from ddlib.store.locks import holder
from ddlib.study import work
from ddlib.study.rows import Cell

Task = tuple[Cell, int]
"""A cell whose protocol has the network in question, and a seed."""


@dataclass(frozen=True)
class Search:
    """What was found.

    architectures: the networks, in order.
    accuracies: label -> (S, n) percent, a row for each seed; means over the networks' initial weights.
    reference: the label of the whole data.
    spent: label -> "seconds" (training and testing all networks, per seed), "distil_seconds" (per seed), "images" and
        "bytes" stored, and "updates" of one network.
    provenance: where the accuracies come from.
    """

    architectures: tuple[Architecture, ...]
    accuracies: Mapping[str, np.ndarray]
    reference: str
    spent: Mapping[str, Mapping[str, float]]
    provenance: Mapping[str, Any]

    @property
    def full(self) -> np.ndarray:
        """(n,) accuracies on all data, by which networks are ranked: means over its repeats."""
        return self.accuracies[self.reference].mean(0)

    def networks(self) -> list[dict[str, Any]]:
        """A row for each network: "network", and its mean accuracy by each label."""
        means = {label: table.mean(0) for label, table in self.accuracies.items()}
        return [
            {"network": one.name} | {label: round(float(mean[i]), 3) for label, mean in means.items()}
            for i, one in enumerate(self.architectures)
        ]

    def winners(self) -> list[dict[str, Any]]:
        """A row for each label: "method", the network that each seed finds, its accuracy on all data, and the cost.

        A search selects on test data: networks are ranked by, and then judged by, the same test images; sets are
        distilled from all training images, so that no fold of these is left to rank by.  The winner of a repeat on all
        data is judged by the other repeats, so that it is not the maximum of its own noise.
        """
        rows = []
        for label, table in self.accuracies.items():
            own = label == self.reference
            found = winner_among_repeats(table) if own else winner_accuracy(table, self.full)
            names = [self.architectures[winners(one)[0]].name for one in table]
            accuracy = {"accuracy": found.value, "least": found.low, "most": found.high}
            rows.append({"method": label, "found": names} | {k: round(v, 3) for k, v in accuracy.items()})
            rows[-1] |= self.spent[label]
        return rows


def reference_of(cells: Sequence[Cell]) -> Cell:
    """The cell that trains on all data, whose ranking counts.

    Raises:
        ValueError: there is not exactly one, or a cell's images are of another data set or another number.
    """
    found = [cell for cell in cells if cell.ipc is None and cell.protocol.epoch_images is None]
    if len(found) != 1:
        told = ", ".join(repr(cell.label) for cell in found) or "none"
        raise ValueError(f"{told} of the cells trains on all data; a search needs one: {{'method': 'whole'}}")
    for name, of in (("data set", lambda cell: cell.dataset), ("number of images", lambda cell: cell.amount)):
        proxies = [cell for cell in cells if cell.ipc is not None] + (found if name == "data set" else [])
        if len(values := dict.fromkeys(map(of, proxies))) > 1:
            raise ValueError(f"proxies differ in their {name}: {', '.join(map(str, values))}; allowed: one")
    return found[0]


def search(cells: Sequence[Cell], architectures: Sequence[Architecture], workplace: Workplace) -> Search:
    """Train and test every network on every set: from the store where that is done, else now.

    A network that another process trains comes last.  Networks of one kind are trained at once on sets of one size, as
    `ddlib.evaluation.training.at_once` allows on the device.

    Args:
        cells: one of them the whole data (`reference_of`), the others proxies; the network of their protocols is
            replaced by each of the space.
        architectures: at least three.

    Raises:
        ValueError: too few networks, proxies of another shape or number of images, or no network of the whole data.
        FloatingPointError: a network's loss is not finite; what was trained before is kept.
    """
    reference = reference_of(cells)
    if len(architectures) < LEAST:
        raise ValueError(f"{len(architectures)} networks in the space; a ranking needs at least {LEAST}")
    sets = {_place(cell, seed): work.synthetic_set(cell, seed, workplace) for cell in cells for seed in cell.seeds}
    _check_shapes(cells, sets)
    trainings = [Training(one, tuple(_tasks(cells, one)), sets, workplace) for one in architectures]
    waiting = [(training, count) for training in trainings if (count := len(training.missing()))]
    total, done = sum(count for _, count in waiting), 0
    log = workplace.folder / "nas" / "log.txt"
    if waiting:
        with artefacts.progress("architecture search", total, workplace, log=log, unit="set") as report:
            for training, count in artefacts.in_turn(waiting, lambda pair: holder(pair[0].lock)):
                artefacts.get(training, workplace)
                done += count
                report(done)
    return _found(cells, architectures, reference, workplace)


def _tasks(cells: Sequence[Cell], architecture: Architecture) -> list[Task]:
    """The cells with the network in place of their own, seed by seed."""
    protocol = {"network": "convnet", "options": architecture.options}
    placed = [replace(cell, protocol=replace(cell.protocol, **protocol)) for cell in cells]
    return [(cell, seed) for cell in placed for seed in cell.seeds]


def missing(tasks: Sequence[Task], workplace: Workplace) -> list[Task]:
    """The tasks whose result the store does not have."""
    return [(cell, seed) for cell, seed in tasks if not work.seed_finished(cell, seed, workplace)]


def tasks_of(cells: Sequence[Cell], architectures: Sequence[Architecture]) -> list[Task]:
    """Every network on every set."""
    return [task for one in architectures for task in _tasks(cells, one)]


@dataclass(frozen=True, eq=False)
class Training(Artefact):
    """One network trained and tested on every set of a search; what it comes to lies with the evaluations of the cells.

    architecture: the network.
    tasks: the cells with this network, seed by seed.
    sets: what they train on, by `_place`.
    """

    architecture: Architecture
    tasks: tuple[Task, ...]
    sets: Mapping[str, SyntheticSet | SyntheticStream]
    workplace: Workplace

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.architecture.name} of the architecture search"

    @property
    def lock(self) -> Path:
        """One for all sets of a data set."""
        content = {"options": self.architecture.options, "dataset": self.tasks[0][0].dataset}
        return self.workplace.folder / "nas" / f".{files.key(content)}.lock"

    def missing(self) -> list[Task]:
        """The tasks whose accuracies the store does not have."""
        return missing(self.tasks, self.workplace)

    def finished(self) -> bool:
        """Whether the store has the accuracies on every set."""
        return not self.missing()

    def left(self) -> float:
        """The share of sets whose accuracies the store does not have."""
        return len(self.missing()) / len(self.tasks)

    def load(self) -> bool | None:
        """True where it is finished; the accuracies are read set by set."""
        return self.finished() or None

    def make(self, workplace: Workplace) -> bool:
        """Train the network on the sets that it was not trained on, as many at once as is quick."""
        groups: dict[tuple, list[Task]] = {}
        for cell, seed in self.missing():
            images = self.sets[_place(cell, seed)]
            alone = not fits_together(images, cell.protocol)
            kind = str(cell.protocol.settings()), *_kind(images), seed if alone else -1, alone
            groups.setdefault(kind, []).append((cell, seed))
        for (*_, alone), group in groups.items():
            if alone:
                for task in group:
                    work.evaluated(*task, workplace)
                continue
            with artefacts.deterministic():
                outcomes = evaluate_together(
                    [self.sets[_place(*task)] for task in group],
                    [work.test_set(cell, workplace) for cell, _ in group],
                    group[0][0].protocol,
                    seeds=[seed for _, seed in group],
                )
            for task, outcome in zip(group, outcomes, strict=True):
                _keep(task, outcome, workplace)
        return True


def _keep(task: Task, outcome: Evaluation, workplace: Workplace) -> None:
    """Write what all networks of a task came to, in the place of what there was."""
    work.Accuracies(*task, workplace).add(outcome)


def _place(cell: Cell, seed: int) -> str:
    """Names a set: the protocol that it is judged by does not count."""
    return files.key({"label": cell.label, "method": cell.settings()["hyperparameters"], "seed": seed})


def _kind(one: SyntheticSet | SyntheticStream) -> tuple:
    return type(one).__name__, len(one), getattr(one, "is_soft", None), one.strategy


def _check_shapes(cells: Sequence[Cell], sets: Mapping[str, SyntheticSet | SyntheticStream]) -> None:
    for cell in cells:
        shape = datasets.describe(cell.dataset).shape
        for seed in cell.seeds:
            if tuple(sets[_place(cell, seed)].shape) != tuple(shape):
                found = tuple(sets[_place(cell, seed)].shape)
                raise ValueError(f"{cell.label!r} has images of {found}; allowed: those of {cell.dataset}, {shape}")


def _found(cells, architectures, reference, workplace) -> Search:
    """The results, which the store has."""
    accuracies, spent, sittings = {}, {}, []
    for cell in cells:
        tables = [[work.evaluated(*task, workplace) for task in _tasks([cell], one)] for one in architectures]
        accuracies[cell.label] = np.array([[np.mean(e["accuracies"]) for e in row] for row in tables]).T
        made = [work.made(cell, seed, workplace) for seed in cell.seeds]
        sittings += [sitting["provenance"] for row in tables for e in row for sitting in e["sittings"]]
        count = datasets.describe(cell.dataset).num_classes * cell.ipc if cell.ipc else None
        spent[cell.label] = {
            "seconds": round(sum(e["seconds"] for row in tables for e in row) / len(cell.seeds), 2),
            "distil_seconds": round(sum(one["seconds"] for one in made) / len(made), 2),
            "images": count or len(work.train_set(cell, workplace)),
            "bytes": made[0]["bytes_stored"],
            "updates": tables[0][0]["updates"],
        }
    return Search(tuple(architectures), accuracies, reference.label, spent, results.joined(sittings))
