"""What one step of a distillation costs, in time and in memory, for any method."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ddlib.data.datasets import ImageSet
from ddlib.methods import Method
from ddlib.store import progress
from ddlib.study.estimate import timed, untrained
from ddlib.study.rows import Cell


@dataclass
class Runner:
    """A method under way: its steps are taken one after another, and it begins anew where it is at its end."""

    method: Method
    train: ImageSet
    needs: Mapping[str, Any]
    seed: int
    state: Any = None

    def step(self) -> None:
        """One step."""
        if self.state is None or self.state.step >= self.method.iterations:
            self.state = self.method.start(self.train, self.needs, self.seed)
        self.method.step(self.state)


def measure(
    cells: Sequence[Cell], spaces: Mapping[bool | str, ImageSet], *, repeats: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Time and memory of one step of each cell's method, with what it needs untrained, which costs as much.

    The cells of one number of images take turns, so that what disturbs the machine disturbs all of them.  A step is
    what the method calls so; one of DC and DSA is a pixel step with the training of the network that follows, of
    which `steps` make up one network's.

    Args:
        cells: of one data set.
        spaces: the training set by what a cell's `whitened` says.
        repeats: timed steps of each, >= 1, after one that is not timed.

    Returns:
        A row each: "method", the cell's label; "ipc"; "steps", T of DC and DSA, else 1; "seconds", the median of a
        step, and "bytes", the most that tensors held at once beyond what was there before it; both None where the
        device's memory did not do.

    Raises:
        ValueError: `repeats` is below 1, or a cell's training set is missing.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}; it must be >= 1")
    if missing := [cell.whitened for cell in cells if cell.whitened not in spaces]:
        raise ValueError(f"spaces lacks whitened={missing[0]!r}; it has {', '.join(map(repr, spaces))}")
    rows = []
    for ipc in dict.fromkeys(cell.ipc for cell in cells):
        rows += _measured([cell for cell in cells if cell.ipc == ipc], spaces, repeats, seed)
    return rows


def _measured(
    cells: Sequence[Cell], spaces: Mapping[bool | str, ImageSet], repeats: int, seed: int
) -> list[dict[str, Any]]:
    runners = [_runner(cell, spaces[cell.whitened], seed) for cell in cells]
    opening = [_survives(runner.step) for runner in runners]
    taken: list[list[float]] = [[] for _ in cells]
    for _ in range(repeats):
        for runner, fits, seconds in zip(runners, opening, taken, strict=True):
            if fits:
                seconds.append(timed(runner.step, runner.train.device)[1])
    return [
        {
            "method": cell.label,
            "ipc": cell.ipc,
            "steps": getattr(cell.method, "matching_steps", 1),
            "seconds": statistics.median(seconds) if fits else None,
            "bytes": progress.peak_of_tensors(runner.step, runner.train.device) if fits else None,
        }
        for cell, runner, fits, seconds in zip(cells, runners, opening, taken, strict=True)
    ]


def _runner(cell: Cell, train: ImageSet, seed: int) -> Runner:
    method = getattr(cell.method, "rehearsal", cell.method)
    return Runner(method, train, untrained(method, train), seed)


def _survives(work: Any) -> bool:
    """Whether the device's memory does for `work`."""
    try:
        work()
    except torch.OutOfMemoryError:
        return False
    return True
