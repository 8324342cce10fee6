"""The one loop that drives whatever has `start`, `step` and `finish`."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm


class Job(Protocol):
    """What the loop drives: a method, or the builder of something that a method needs."""

    iterations: int

    def step(self, state: Any) -> Mapping[str, Any]: ...

    def finish(self, state: Any) -> Any: ...


@dataclass(frozen=True)
class Outcome:
    """What a finished job leaves: its product, its course and its cost.

    product: what `finish` returned.
    history: metric name -> list of (step, value), sampled every `every` steps, first and last included.
    snapshots: step -> what `snapshot` returned there.
    seconds: wall time of the steps.
    """

    product: Any
    history: dict[str, list[tuple[int, float]]]
    snapshots: dict[int, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run(
    job: Job,
    state: Any,
    *,
    name: str = "",
    every: int | None = None,
    snapshot: Callable[[Any], Any] | None = None,
    snapshot_steps: tuple[int, ...] = (),
    progress: bool = False,
) -> Outcome:
    """Take the remaining steps of `job` from `state`, then finish it.

    Args:
        job: has `iterations`, `step(state)` and `finish(state)`; `state.step` counts the steps taken.
        name: shown beside the progress bar and in errors.
        every: metrics are read, and checked to be finite, every so many steps (None: about 100 times in all),
            so that an accelerator is not made to wait at each step.
        snapshot: called with the state after each step named in `snapshot_steps`; step 0 is the start.
        progress: show a bar once the job takes longer than ten seconds, refreshed every ten at most.

    Raises:
        FloatingPointError: a metric is not finite; the message names the job, the step and the metric.
    """
    every = every or max(1, job.iterations // 100)
    history: dict[str, list[tuple[int, float]]] = {}
    snapshots: dict[int, Any] = {}
    begin = time.perf_counter()
    with tqdm(total=job.iterations, desc=name, disable=not progress, delay=10, mininterval=10) as bar:
        while True:
            if snapshot is not None and state.step in snapshot_steps:
                snapshots[state.step] = snapshot(state)
            if state.step >= job.iterations:
                break
            metrics = job.step(state)
            bar.update()
            if state.step % every == 0 or state.step in (1, job.iterations):
                _note(history, metrics, name=name, step=state.step)
    seconds = time.perf_counter() - begin
    return Outcome(job.finish(state), history, snapshots, seconds)


def _note(history: dict, metrics: Mapping[str, Any], *, name: str, step: int) -> None:
    for key, value in metrics.items():
        number = float(value)
        if not math.isfinite(number):
            raise FloatingPointError(
                f"{name or 'job'}: {key} is {number} at step {step}; a smaller learning rate may help"
            )
        history.setdefault(key, []).append((step, number))
