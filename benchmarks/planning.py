"""What a plan says against what a run takes: quick cells, each predicted and then run in fresh processes.

    python -m benchmarks.planning [--rounds 1]

The prediction is the total of the plan of one cell: reading the data, first steps, three distillations and their
evaluations; the run's time is that of the same, from a store with nothing in it.  Importing is in neither.  Exits
with 1 if a prediction is more than 30 % off.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ddlib import notebooks, planning, study
from ddlib.provenance import peak_memory

CELLS = (
    ("atom/accuracy", "Random", 10),
    ("atom/accuracy", "DM", 10),
    ("atom/accuracy", "ATOM", 10),
    ("compare/tour", "DSA", 1),
)
"""Notebook, row and images per class; the settings are the notebook's own defaults."""

OFF = 0.3
"""Largest relative error of a prediction."""


def find(notebook: str, label: str, ipc: int) -> study.Cell:
    """The cell of a notebook at its quick defaults."""
    (cell,) = [c for c in notebooks.cells(notebook, "quick") if (c.label, c.ipc) == (label, ipc)]
    return cell


def predict(chosen: tuple[str, str, int], folder: str) -> tuple[float, int, float]:
    """Seconds and bytes of memory by the plan, and the seconds that planning took."""
    workplace, begin = study.Workplace("cpu", Path(folder), progress=False), time.perf_counter()
    totals = study.plan([find(*chosen)], workplace).totals
    return totals.seconds, totals.memory, time.perf_counter() - begin


def measure(chosen: tuple[str, str, int], folder: str) -> tuple[float, int]:
    """Seconds that the cell takes, and the most memory that the process came to hold."""
    workplace, begin = study.Workplace("cpu", Path(folder), progress=False), time.perf_counter()
    (record,) = study.run([find(*chosen)], workplace)
    assert record.n == len(record.cell["seeds"]) * record.cell["protocol"]["num_networks"]
    return time.perf_counter() - begin, peak_memory("cpu")


def apart(work: Callable[..., Any], *told: Any) -> Any:
    """What `work` returns, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *told).result()


def compare(chosen: tuple[str, str, int]) -> float:
    """Predict, run, print a line; the ratio of predicted and measured time."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory, planned = apart(predict, chosen, folder)
        taken, held = apart(measure, chosen, folder)
    name = f"{chosen[0]}, {chosen[1]} at IPC {chosen[2]}"
    times = f"{seconds:9.1f} s {taken:9.1f} s {seconds / taken:6.2f}"
    memories = f"{planning.size(memory):>11} {planning.size(held):>11}"
    print(f"{name:<32} {times} {memories} {planned:10.1f} s", flush=True)
    return seconds / taken


def main() -> int:
    """Compare every cell and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1, help="how often all cells are compared")
    rounds = parser.parse_args().rounds
    print(
        f"{'cell':<32} {'predicted':>11} {'measured':>11} {'ratio':>6} {'memory':>11} {'measured':>11} {'planning':>12}"
    )
    ratios = [compare(chosen) for _ in range(rounds) for chosen in CELLS]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1))
    print(f"the worst of {len(ratios)} ratios is {worst:.2f}; allowed: {1 - OFF:.2f} to {1 + OFF:.2f}")
    return 1 if abs(worst - 1) > OFF else 0


if __name__ == "__main__":
    sys.exit(main())
