"""What a search would take from here, from a few steps of three networks of the space."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ddlib import evaluation
from ddlib.analyses.architecture_search import Architecture
from ddlib.analyses.nas.trials import Task, missing, reference_of, tasks_of
from ddlib.data.synthetic import SyntheticSet
from ddlib.store.artefacts import Workplace
from ddlib.study import planning, work
from ddlib.study.rows import Cell

STEPS = 3
"""Updates that a network is watched for, after the first."""


def outlook(cells: Sequence[Cell], architectures: Sequence[Architecture], workplace: Workplace) -> str:
    """What `search` would take: one line, for a notebook to show before it begins.

    The seconds of an update are measured on real images for the least, the middle and the greatest network by
    multiply-adds, and drawn as a line between them for the others, on logarithmic scales.  Distillations are estimated
    as `planning.plan` does.

    Raises:
        ValueError: as `reference_of`.
        FileNotFoundError: data are missing; the message names the command that gets them.
    """
    reference_of(cells)
    tasks = tasks_of(cells, architectures)
    todo = missing(tasks, workplace)
    proxies = planning.plan(
        [replace(work.missing(cell, workplace), evaluate=()) for cell in cells], workplace.device
    ).totals
    seconds = proxies.seconds + _training(todo, workplace)
    return (
        f"{len(architectures)} networks on {sum(len(cell.seeds) for cell in cells)} sets: {len(tasks)} trainings by "
        f"{cells[0].protocol.num_networks}, {len(tasks) - len(todo)} of them in the store; to do: "
        f"{proxies.distillations} distillations and {len(todo)} trainings, about {planning.duration(seconds)} here"
    )


def _training(todo: Sequence[Task], workplace: Workplace) -> float:
    """Seconds of the trainings, one after another."""
    kinds: dict[str, list[Cell]] = {}
    for cell, _ in todo:
        kinds.setdefault(str((cell.ipc, replace(cell.protocol, options={}).settings())), []).append(cell)
    return sum(_of_kind(cells, workplace) for cells in kinds.values())


def _of_kind(cells: Sequence[Cell], workplace: Workplace) -> float:
    """Seconds of trainings that differ in the network alone."""
    shape = work.train_set(cells[0], workplace).shape
    sizes = np.array([Architecture(**cell.protocol.options).operations(shape) for cell in cells], dtype=float)
    order = np.argsort(sizes, kind="stable")
    seen = {sizes[i]: cells[i] for i in (order[0], order[len(order) // 2], order[-1])}
    seconds = [_seconds(cell, workplace) for cell in seen.values()]
    return float(np.exp(np.interp(np.log(sizes), np.log([*seen]), np.log(seconds))).sum())


def _seconds(cell: Cell, workplace: Workplace) -> float:
    """Of one training and test by the cell's protocol."""
    train, test = work.train_set(cell, workplace), work.test_set(cell, workplace)
    count = len(train) if cell.ipc is None else cell.ipc * train.num_classes
    count = min(count, cell.protocol.epoch_images or count)
    batch = min(count, cell.protocol.batch_size)
    images = SyntheticSet(
        train.take(torch.arange(batch, device=train.device)),
        train.labels[:batch],
        train.class_names,
        train.space,
        "none",
    )
    ticks = []
    protocol = replace(cell.protocol, epochs=STEPS, num_networks=1, schedule="step", compat=None, epoch_images=None)
    evaluation.evaluate(images, test, protocol, seed=0, on_epoch=lambda *_: ticks.append(time.perf_counter()))
    testing = time.perf_counter() - ticks[-1]
    update = (ticks[-1] - ticks[0]) / (len(ticks) - 1)
    return cell.protocol.num_networks * (cell.protocol.rounds * count / batch * update + testing)
