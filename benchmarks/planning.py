"""What a plan says against what a run takes: quick cells, each predicted and then run in fresh processes.

    python -m benchmarks.planning [--rounds 3] [--cells 4]

The prediction is the total of the plan of one cell: reading the data, first steps, three distillations and their
evaluations; the run's time is that of the same, from a store with nothing in it.  Importing is in neither.  Other
processes only ever add time, to either, so that the least of the rounds are compared; processor time over wall time,
"of a core", tells how far they did: on a quiet machine with one thread it is near 1.  Exits with 1 if a prediction is
more than 30 % off.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib import study
from ddlib.store.progress import peak_memory
from ddlib.study import notebooks, planning

CELLS = (
    ("atom/accuracy", "Random", 10),
    ("atom/accuracy", "DM", 10),
    ("atom/accuracy", "ATOM", 10),
    ("compare/tour", "DSA", 1),
)
"""Notebook, row and images per class; the settings are the notebook's own defaults."""

OFF = 0.3
"""Largest relative error of a prediction."""


@dataclass(frozen=True)
class Taken:
    """What a process found: seconds (predicted or taken), bytes of memory; and its own wall and processor time."""

    seconds: float
    memory: int
    wall: float
    processor: float


def find(notebook: str, label: str, ipc: int) -> study.Cell:
    """The cell of a notebook at its quick defaults."""
    (cell,) = [c for c in notebooks.cells(notebook, "quick") if (c.label, c.ipc) == (label, ipc)]
    return cell


def predict(chosen: tuple[str, str, int], folder: str) -> Taken:
    """What the plan says of the cell."""
    cell, (workplace, wall, processor) = find(*chosen), _begin(folder)
    totals = study.plan([cell], workplace).totals
    return Taken(totals.seconds, totals.memory, time.perf_counter() - wall, time.process_time() - processor)


def measure(chosen: tuple[str, str, int], folder: str) -> Taken:
    """What the cell takes."""
    cell, (workplace, wall, processor) = find(*chosen), _begin(folder)
    (record,) = study.run([cell], workplace)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    if record.n != len(record.cell["seeds"]) * record.cell["protocol"]["num_networks"]:
        raise SystemExit(f"{chosen} was not run whole; no ratio is worth printing")
    return Taken(wall, peak_memory("cpu"), wall, processor)


def _begin(folder: str) -> tuple[study.Workplace, float, float]:
    return study.Workplace("cpu", Path(folder), progress="none"), time.perf_counter(), time.process_time()


def apart(work: Callable[..., Any], *told: Any) -> Any:
    """What `work` returns, in a process that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ddlib.study.notebooks", "ddlib.study"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *told).result()


def compare(chosen: tuple[str, str, int]) -> tuple[float, float]:
    """Predict, run, print a line; the two times in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        plan, run = apart(predict, chosen, folder), apart(measure, chosen, folder)
    name = f"{chosen[0]}, {chosen[1]} at IPC {chosen[2]}"
    times = f"{plan.seconds:9.1f} s {run.seconds:9.1f} s {plan.seconds / run.seconds:6.2f}"
    shares = f"{plan.processor / plan.wall:8.2f} {run.processor / run.wall:5.2f}"
    memories = f"{planning.size(plan.memory):>11} {planning.size(run.memory):>11}"
    print(f"{name:<32} {times} {shares} {memories} {plan.wall:10.1f} s", flush=True)
    return plan.seconds, run.seconds


def judge(pairs: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """Least prediction over least run, and whether that is within `OFF` of 1."""
    predicted, taken = (min(seconds) for seconds in zip(*pairs, strict=True))
    return predicted / taken, abs(predicted / taken - 1) <= OFF


def main() -> int:
    """Compare every cell and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is compared (default: %(default)s)")
    parser.add_argument("--cells", type=int, default=len(CELLS), help="the first so many cells alone")
    told = parser.parse_args()
    head = ("predicted", "measured", "ratio", "of a core", "memory", "measured", "planning")
    print(
        f"{'cell':<32} " + " ".join(f"{text:>{n}}" for text, n in zip(head, (11, 11, 6, 14, 11, 11, 12), strict=True))
    )
    code = 0
    for chosen in CELLS[: told.cells]:
        ratio, fits = judge([compare(chosen) for _ in range(told.rounds)])
        print(f"    least over least: {ratio:.2f}" + ("" if fits else f"; allowed: {1 - OFF} to {1 + OFF}"), flush=True)
        code = code if fits else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
