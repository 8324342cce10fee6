"""How long a cell would take on this device, from a few steps of each kind of its work."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ddlib import evaluate, methods
from ddlib.cells import Cell
from ddlib.datasets import ImageSet

SAMPLE = 512
"""Images of a data set that stand for the whole of it."""


_MEASURED: dict[str, float] = {}


def seconds(cell: Cell, train: ImageSet, test: ImageSet) -> float:
    """Seconds for one seed of `cell`: what it needs beforehand, its distillation, its evaluation.

    Measured once a process for each cell and device.  An artefact that several cells share is counted with each.
    """
    kind = f"{cell} on {train.device}"
    if kind not in _MEASURED:
        beforehand = sum(_training(builder, train) for builder in cell.method.needs.values())
        _MEASURED[kind] = beforehand + _distillation(cell, train) + _evaluation(cell, train, test)
    return _MEASURED[kind]


def _training(builder: Any, train: ImageSet) -> float:
    sample = _first(train, SAMPLE)
    state = builder.start(sample, {}, builder.seed)
    return _timed(lambda: builder.step(state)) * builder.iterations * len(train) / len(sample)


def _distillation(cell: Cell, train: ImageSet) -> float:
    if cell.method.needs:  # a choice among embeddings, or one that costs as much as from random images
        return 0.0 if cell.method.iterations == 1 else _distillation(_from_random(cell), train)
    state = cell.method.start(train, {}, 0)
    if cell.method.iterations == 1:
        return _timed(lambda: cell.method.step(state))
    return _timed(lambda: cell.method.step(state), repeats=2) * cell.method.iterations


def _evaluation(cell: Cell, train: ImageSet, test: ImageSet) -> float:
    chosen = methods.build("random", ipc=cell.ipc)
    state = chosen.start(train, {}, 0)
    chosen.step(state)
    shown, sample = chosen.finish(state), _first(test, SAMPLE)

    def train_for(epochs: int) -> float:
        short = replace(cell.protocol, epochs=epochs)
        return _timed(lambda: evaluate.evaluate(shown, sample, short, seed=0), warm=epochs == 1)

    once, thrice = train_for(1), train_for(3)
    return max(once, (thrice - once) / 2 * cell.protocol.epochs)


def _from_random(cell: Cell) -> Cell:
    return replace(cell, method=replace(cell.method, init="real"))


def _first(images: ImageSet, count: int) -> ImageSet:
    """The first `count` images of a set, in an order that mixes the classes."""
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count].to(images.device)
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def _timed(work: Callable[[], Any], *, repeats: int = 1, warm: bool = True) -> float:
    if warm:
        work()
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
        if torch.cuda.is_initialized():
            for device in range(torch.cuda.device_count()):
                torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / repeats
