"""What a plan says against what a run takes: quick cells, each predicted and then run in fresh processes.

    python -m benchmarks.planning [--rounds 3] [--cells 4]

The prediction is the total of the plan of one cell: three distillations and their evaluations.  The run's time is that
of the same, from a store with nothing in it, with reading the data and what first steps take more; importing is not in
it.  Other
processes only ever add time, to either, so that the least of the rounds are compared; processor time over wall time,
"of a core", tells how far they did: on a quiet machine with one thread it is near 1.  Exits with 1 if a prediction is
more than 30 % off.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import harness
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


class Cost(NamedTuple):
    """Seconds (predicted or taken) and bytes of memory; and wall and processor time of the process that says so."""

    seconds: float
    memory: int
    wall: float
    processor: float


def cost(chosen: tuple[str, str, int], folder: str, predicted: bool) -> Cost:
    """What the plan says of the cell, or what the cell takes.

    Raises:
        SystemExit: the cell was not run whole.
    """
    notebook, label, ipc = chosen
    (cell,) = [c for c in notebooks.cells(notebook, "quick") if (c.label, c.ipc) == (label, ipc)]
    workplace = study.Workplace("cpu", Path(folder), progress="none")
    wall, processor = time.perf_counter(), time.process_time()
    result = study.plan([cell], workplace) if predicted else study.run([cell], workplace)[0]
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    if predicted:
        return Cost(result.seconds, result.memory, wall, processor)
    if result.n != len(cell.seeds) * cell.protocol.num_networks:
        raise SystemExit(f"{chosen} was not run whole; no ratio is worth printing")
    return Cost(wall, peak_memory("cpu"), wall, processor)


def compare(chosen: tuple[str, str, int]) -> tuple[float, float]:
    """Predict, run, print a line; the two times in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        plan, run = (harness.apart(cost, chosen, folder, predicted) for predicted in (True, False))
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
    options = parser.parse_args()
    print(f"{'cell':<32}   predicted    measured  ratio      of a core      memory    measured     planning")
    code = 0
    for chosen in CELLS[: options.cells]:
        ratio, fits = judge([compare(chosen) for _ in range(options.rounds)])
        print(f"    least over least: {ratio:.2f}" + ("" if fits else f"; allowed: {1 - OFF} to {1 + OFF}"), flush=True)
        code = code if fits else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
