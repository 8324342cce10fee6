"""What checkpoints, log and progress cost: the same ATOM job in turns with them and without, in one run.

    python -m benchmarks.checkpointing [--minutes 10] [--pairs 30]

The job (CIFAR-10 shape, BatchNorm, 10 images per class, one real size) is cut into pairs of equal pieces, which run
one after the other, first without, then with, and the next time the other way round.  A piece that runs with them
writes a checkpoint a minute and its log lines, as `ddlib.store.artefacts` does.  Printed: wall and processor time of
both sides, their ratio, the ratios of the pairs, and the seconds that went into writing checkpoints.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import harness
from ddlib import methods
from ddlib.store import loop
from ddlib.store.loop import Checkpoint
from ddlib.store.progress import Progress


@dataclass
class Stretch:
    """A number of steps of a method, from wherever its state stands."""

    method: methods.Method
    iterations: int

    def step(self, state):
        """A step of the method."""
        return self.method.step(state)

    def finish(self, state):
        """Nothing: the next stretch goes on."""


class Timed(Checkpoint):
    """A checkpoint that remembers what it cost."""

    writing, writes = 0.0, 0

    def read(self):
        """Nothing: each stretch goes on from the state at hand."""

    def write(self, tensors, about):
        """As ever, with the time taken."""
        begin = time.perf_counter()
        super().write(tensors, about)
        self.writing += time.perf_counter() - begin
        self.writes += 1


def compare(method, state, steps: int, *, pairs: int, folder: Path) -> None:
    """Time both sides in turns, and print what came of it."""
    checkpoint = Timed(folder / "checkpoint.safetensors", 60.0)
    taken = {clock: {False: [], True: []} for clock in harness.CLOCKS}
    for pair in range(pairs):
        for saving in (False, True) if pair % 2 == 0 else (True, False):
            job = Stretch(method, state.step + steps)
            begin = {clock: read() for clock, read in harness.CLOCKS.items()}
            with Progress("benchmark", job.iterations, mode="lines", log=folder / "log.txt") as report:
                loop.run(job, state, **({"checkpoint": checkpoint, "report": report} if saving else {}))
            for clock, read in harness.CLOCKS.items():
                taken[clock][saving].append(read() - begin[clock])
    for clock, seconds in taken.items():
        without, saving = sum(seconds[False]), sum(seconds[True])
        ratios = [b / a for a, b in zip(seconds[False], seconds[True], strict=True)]
        spread = f"median {statistics.median(ratios):.4f}, {min(ratios):.3f} to {max(ratios):.3f}"
        print(
            f"{clock}: without {without:.1f} s, with {saving:.1f} s, ratio {saving / without:.4f}; of pairs: {spread}"
        )
    size, share = checkpoint.path.stat().st_size if checkpoint.writes else 0, sum(taken["wall"][True])
    print(f"{checkpoint.writes} checkpoints of {size / 1e6:.2f} MB took {checkpoint.writing:.2f} s in all, "
          f"{100 * checkpoint.writing / share:.3f} % of the time with them")  # fmt: skip


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of each side (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=30, help="pieces of each side (default: %(default)s)")
    options = parser.parse_args()
    method = methods.build("atom", ipc=10, iterations=1)
    state = method.start(harness.pictures(5000), {}, 0)
    loop.run(Stretch(method, 3), state)
    begin = time.perf_counter()
    loop.run(Stretch(method, 6), state)
    each = (time.perf_counter() - begin) / 3
    steps = max(1, round(60 * options.minutes / options.pairs / each))
    print(f"{options.pairs} pairs of {steps} steps of {each:.3f} s, {torch.get_num_threads()} threads", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        compare(method, state, steps, pairs=options.pairs, folder=Path(folder))


if __name__ == "__main__":
    main()
