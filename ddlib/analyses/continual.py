"""Continual learning: classes come in steps, and what is kept of them is a memory of distilled images.

As in the experiment of DM (Zhao & Bilen 2023) after GDumb (Prabhu et al. 2020): at each step a method distils the new
classes alone, from all of their real images, into the same number of images a class.  The memory is the union of
what was distilled so far; a fresh network is trained from scratch on all of it, and tested on all classes seen.  No
network is carried from step to step, so that there is nothing it could forget, and no measure of forgetting.

A method sees what it always sees, a training set: the part of the data set that has the classes of the step.  What it
distils lies in the store, named by its settings, these classes and the order's seed, and so does every evaluation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import torch

from ddlib import evaluation, models, results, seeding, study
from ddlib.data import datasets
from ddlib.data.datasets import ImageSet, part_name
from ddlib.data.synthetic import SyntheticSet, joined
from ddlib.results.statistics import Comparison
from ddlib.store import files
from ddlib.store.artefacts import Workplace, get, holder, in_turn
from ddlib.store.files import read_seal
from ddlib.study import work
from ddlib.study.rows import Cell

PAPER, TABLE = "atom", "continual"
"""Where the published numbers stand."""


@dataclass(frozen=True)
class Stage:
    """One row after one of its `steps`, for one order of the classes.

    order: the seed that drew the order, of the distillations and of the networks.
    seen: the classes of each step so far.
    """

    cell: Cell
    order: int
    steps: int
    seen: tuple[tuple[int, ...], ...]

    @property
    def parts(self) -> list[Cell]:
        """What is distilled: the row on the classes of each step."""
        names = [part_name(self.cell.dataset, classes) for classes in self.seen]
        return [replace(self.cell, dataset=name, seeds=(self.order,)) for name in names]

    @property
    def classes(self) -> tuple[int, ...]:
        """All classes seen, as they came."""
        return sum(self.seen, ())

    def __str__(self) -> str:
        return f"{self.cell.set_name}, order {self.order}, {len(self.classes)} classes seen"


def rows(chosen: SimpleNamespace) -> list[Cell]:
    """The rows that a notebook's parameters describe, as `ddlib.study.cells`; `chosen.seeds` are orders of the classes.

    Raises:
        ValueError: as there, or: more than one number of images per class, steps that do not divide the classes, a row
            that is whitened, taught, tested on several networks, or whose method gives a generator and not a set.
    """
    if len(chosen.ipcs) != 1:
        raise ValueError(f"ipcs={chosen.ipcs!r}; allowed: one number of images per class")
    cells = study.cells(chosen, paper=PAPER, table=TABLE)
    for steps in chosen.steps:
        arrivals(datasets.describe(chosen.dataset).num_classes, steps, chosen.seeds[0])
    for cell in cells:
        row = repr(cell.label)
        if cell.whitened:
            raise ValueError(f"{row} is whitened, by classes that have not come yet; allowed: whitened: false")
        if cell.protocol.taught_by:
            raise ValueError(f"{row}: labels={cell.protocol.labels!r} asks a teacher; allowed: None or hard")
        if cell.tested_on:
            raise ValueError(f"{row} is tested on {cell.tested_on!r} of several networks; allowed: one network")
        if cell.method.deployment:
            raise ValueError(
                f"{row}: {cell.method.name!r} gives a stream of a generator's images; allowed: methods that give a set "
                "of images, which joins those of other steps"
            )
    return cells


def arrivals(num_classes: int, steps: int, order: int) -> list[tuple[int, ...]]:
    """The classes of each step: all of them in an order drawn by the seed `order`, in `steps` equal parts."""
    allowed = [count for count in range(1, num_classes + 1) if num_classes % count == 0]
    if steps not in allowed:
        raise ValueError(f"steps={steps} of {num_classes} classes; allowed: {', '.join(map(str, allowed))}")
    drawn = torch.randperm(num_classes, generator=seeding.generator(order, "classes")).tolist()
    size = num_classes // steps
    return [tuple(drawn[first : first + size]) for first in range(0, num_classes, size)]


def stages(cell: Cell, steps: int, order: int) -> list[Stage]:
    """The row after each of `steps` steps, for one order of the classes."""
    classes = arrivals(datasets.describe(cell.dataset).num_classes, steps, order)
    return [Stage(cell, order, steps, tuple(classes[: step + 1])) for step in range(steps)]


def run(rows: Sequence[Cell], workplace: Workplace, *, steps: Sequence[int]) -> list[dict[str, Any]]:
    """The accuracy of every row after each step, from the store where it is there, else computed now.

    What another process works on comes last, so that several share one table.

    Args:
        steps: numbers of steps, each a course of its own through the same classes in the same orders.

    Returns:
        A mapping for each row, number of steps and step, in this order: label, method, ipc, steps, classes (how many
        were seen), orders, accuracies in percent (order by order, networks in each), reference (what was published, or
        None) and verdict.
    """
    courses = [[stages(cell, count, order) for order in cell.seeds] for count in steps for cell in rows]
    parts = [(part, course[-1].order) for orders in courses for course in orders for part in course[-1].parts]
    for part, order in in_turn(parts, lambda each: work.under_way(each[0], workplace)):
        work.synthetic_set(part, order, workplace)
    every = [stage for orders in courses for course in orders for stage in course]
    for stage in in_turn(every, lambda each: holder(_judging(each, workplace).lock)):
        _accuracies(stage, workplace)
    return [_row(reached, workplace) for orders in courses for reached in zip(*orders, strict=True)]


def _row(reached: Sequence[Stage], workplace: Workplace) -> dict[str, Any]:
    """What a row came to after one step, over the orders."""
    first = reached[0]
    cell, classes = first.cell, len(first.classes)
    accuracies = [accuracy for stage in reached for accuracy in _accuracies(stage, workplace)]
    where = {"table": TABLE, "method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    condition = f"{classes} classes in {first.steps} steps"
    reference = results.find(PAPER, **where, condition=condition) if cell.reported else None
    return {
        "label": cell.label,
        "method": cell.method.name,
        "ipc": cell.ipc,
        "steps": first.steps,
        "classes": classes,
        "orders": [stage.order for stage in reached],
        "accuracies": accuracies,
        "reference": reference and reference.value,
        "verdict": results.verdict(accuracies, reference, deviations=study.deviations(cell)),
    }


def averages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The average incremental accuracy of every row and number of steps: rows of `run`, without classes.

    Accuracies and reference are means over the steps, the latter None where one is missing; the verdict is that of the
    last step.
    """
    place = itemgetter("label", "steps")
    means = []
    for key in dict.fromkeys(map(place, rows)):
        course = [row for row in rows if place(row) == key]
        references = [row["reference"] for row in course]
        mean = {name: value for name, value in course[-1].items() if name != "classes"}
        mean["accuracies"] = [fmean(values) for values in zip(*(row["accuracies"] for row in course), strict=True)]
        mean["reference"] = None if None in references else fmean(references)
        means.append(mean)
    return means


def difference(higher: Mapping[str, Any], lower: Mapping[str, Any]) -> Comparison:
    """One row of `run` or `averages` less another: mean over orders, which both must have, with its 95 % t interval."""
    return results.paired(*(results.group_means(row["accuracies"], row["orders"]) for row in (higher, lower)))


def memory(stage: Stage, workplace: Workplace) -> SyntheticSet:
    """What is kept of all classes seen: the sets of all steps so far, from the store or made now."""
    return joined([work.synthetic_set(part, stage.order, workplace) for part in stage.parts])


@dataclass(frozen=True)
class Remembered(work.Accuracies):
    """How accurate fresh networks are that train on the memory of a stage: a file beside the set of its last step."""

    stage: Stage

    @property
    def name(self) -> str:
        """For people."""
        return f"evaluation of {self.stage}"

    @cached_property
    def path(self) -> Path:
        """Of the file, named by everything that the accuracies depend on."""
        content = {
            "sets": self.seal,
            "protocol": self.cell.protocol.settings(),
            "test": datasets.fingerprint_of(part_name(self.stage.cell.dataset, self.stage.classes), "test"),
            "version": evaluation.VERSION,
        }
        if (source := models.fingerprint(self.cell.protocol.network)) is not None:
            content["network"] = source
        return self.distilled.folder / f"memory-{files.key(content)}.json"

    @property
    def seal(self) -> list[str]:
        """The checksums of the sets of all steps."""
        return [read_seal(work.distillation(part, self.seed, self.workplace).path) for part in self.stage.parts]

    def sets(self) -> tuple[SyntheticSet, ImageSet]:
        """The memory, and the real test images of all classes seen."""
        name = part_name(self.stage.cell.dataset, self.stage.classes)
        return memory(self.stage, self.workplace), datasets.load(name, "test", device=self.workplace.device)


def _judging(stage: Stage, workplace: Workplace) -> Remembered:
    """The evaluation of a stage whose sets are in the store; the order is the seed of its networks too."""
    return Remembered(stage.parts[-1], stage.order, workplace, stage)


def _accuracies(stage: Stage, workplace: Workplace) -> list[float]:
    """Accuracies (percent) of fresh networks trained on the memory of a stage whose sets are in the store."""
    return list(get(_judging(stage, workplace), workplace)["accuracies"])
