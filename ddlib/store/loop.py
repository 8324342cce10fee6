"""The one loop that drives whatever has `start`, `step` and `finish`."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from ddlib.store.checkpoint import Checkpoint
from ddlib.store.interrupts import Deferred


class Job(Protocol):
    """What the loop drives: a method, or the builder of something that a method needs."""

    iterations: int

    def step(self, state: Any) -> Mapping[str, Any]: ...

    def finish(self, state: Any) -> Any: ...


class Report(Protocol):
    """Whoever is told how far the job is."""

    def __call__(self, step: int, loss: float | None) -> object: ...

    def note(self, text: str) -> object: ...


@dataclass
class Outcome:
    """What a finished job leaves: its product, its course and its cost.

    product: what `finish` returned.
    history: metric name -> list of (step, value), sampled every `every` steps, first and last included.
    snapshots: step -> what `snapshot` returned there.
    seconds: wall time of the steps, over all sittings, without that of the snapshots.
    sittings: the step at which each began and what was said of it; more than one where the job was killed and went on.
    """

    product: Any = None
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    snapshots: dict[int, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    sittings: list[dict[str, Any]] = field(default_factory=list)


def run(
    job: Job,
    state: Any,
    *,
    name: str = "",
    every: int | None = None,
    snapshot: Callable[[Any], Tensor] | None = None,
    snapshot_steps: tuple[int, ...] = (),
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    sitting: Mapping[str, Any] | None = None,
    wait: Callable[[], object] = lambda: None,
) -> Outcome:
    """Take the remaining steps of `job` from `state`, or from its checkpoint, then finish it.

    With a checkpoint, SIGINT and SIGTERM wait until the step at hand is over and its state is saved.  A job that was
    killed goes on from its checkpoint, and its product is, bit by bit, the one that it would have been.

    Args:
        job: has `iterations`, `step(state)` and `finish(state)`; `state.step` counts the steps taken.
        state: as `job.start` gave it; a checkpoint that is there is loaded into it.
        name: of the job, in errors.
        every: metrics are read, and checked to be finite, every so many steps (None: about 100 times in all),
            so that an accelerator is not made to wait at each step.
        snapshot: called with the state after each step named in `snapshot_steps`; step 0 is the start.
        report: called after each step with the steps taken and the last loss that was read.
        checkpoint: where the state is saved, now and then.  It is left there, for whoever keeps the product.
        sitting: said of this sitting in the outcome, as plain JSON.
        wait: returns when the device has done what it was given; called before a snapshot, whose time is left out.

    Raises:
        FloatingPointError: a metric is not finite; the message names the job, the step and the metric.  Such a state
            is not saved.
        OSError: the checkpoint cannot be written; the one before it is still there.
    """
    every = every or max(1, job.iterations // 100)
    outcome = _resumed(state, checkpoint)
    outcome.sittings.append({"step": state.step, **(sitting or {})})
    begin = time.perf_counter() - outcome.seconds
    with Deferred() if checkpoint is not None else _Never() as interrupt:
        while True:
            if snapshot is not None and state.step in snapshot_steps:
                wait()
                paused = time.perf_counter()
                outcome.snapshots[state.step] = snapshot(state)
                begin += time.perf_counter() - paused
            if state.step >= job.iterations:
                break
            metrics = job.step(state)
            if state.step % every == 0 or state.step in (1, job.iterations):
                _note(outcome.history, metrics, name=name, step=state.step)
            if report is not None:
                report(state.step, _last(outcome.history))
            if checkpoint is not None and (interrupt.pending or checkpoint.due()):
                _finite(metrics, name=name, step=state.step)
                _finite_state(state, name=name)
                outcome.seconds = time.perf_counter() - begin
                tensors, about = _saved(state, outcome)
                checkpoint.write(tensors, about | {"name": name, "iterations": job.iterations})
            if interrupt.pending:
                _tell(report, f"signal {interrupt.pending} at step {state.step}: saved")
                interrupt.deliver()
    if checkpoint is not None:
        _finite_state(state, name=name)
    outcome.seconds = time.perf_counter() - begin
    outcome.product = job.finish(state)
    return outcome


def _tell(report: Report | None, text: str) -> None:
    if report is not None:
        report.note(text)


class _Never:
    """In place of `Deferred`, where signals take their usual effect."""

    pending = None

    def __enter__(self) -> "_Never":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _saved(state: Any, outcome: Outcome) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state and the course so far, as tensors and plain JSON."""
    tensors = {f"state.{name}": tensor for name, tensor in state.state_dict().items()}
    tensors |= {f"snapshot.{step}": tensor for step, tensor in outcome.snapshots.items()}
    about = {"history": outcome.history, "seconds": outcome.seconds, "sittings": outcome.sittings, "step": state.step}
    return tensors, about


def _resumed(state: Any, checkpoint: Checkpoint | None) -> Outcome:
    """The course so far, with `state` brought to where the checkpoint stands."""
    found = checkpoint.read() if checkpoint is not None else None
    if found is None:
        return Outcome()
    tensors, about = found
    try:
        state.load_state_dict({n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")})
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{checkpoint.path} is of another state than the job has now ({error}); delete it to begin anew, and raise "
            "the version of the method whose state has changed"
        ) from error
    snapshots = {int(n.removeprefix("snapshot.")): t for n, t in tensors.items() if n.startswith("snapshot.")}
    history = {name: [tuple(point) for point in points] for name, points in about["history"].items()}
    return Outcome(None, history, snapshots, about["seconds"], about["sittings"])


def _note(history: dict, metrics: Mapping[str, Any], *, name: str, step: int) -> None:
    for key, number in _finite(metrics, name=name, step=step).items():
        history.setdefault(key, []).append((step, number))


def _finite(metrics: Mapping[str, Any], *, name: str, step: int) -> dict[str, float]:
    """The metrics as floats.

    Raises:
        FloatingPointError: one is not finite.
    """
    numbers = {key: float(value) for key, value in metrics.items()}
    for key, number in numbers.items():
        if not math.isfinite(number):
            raise FloatingPointError(
                f"{name or 'job'}: {key} is {number} at step {step}; a smaller learning rate may help"
            )
    return numbers


def _finite_state(state: Any, *, name: str) -> None:
    """Refuse a state that the last update has spoilt, which its metrics, taken before it, do not show.

    Raises:
        FloatingPointError: a tensor of the state is not finite.
    """
    for key, tensor in state.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FloatingPointError(
                f"{name or 'job'}: {key} is not finite after step {state.step}; a smaller learning rate may help"
            )


def _last(history: Mapping[str, list[tuple[int, float]]]) -> float | None:
    return history["loss"][-1][1] if "loss" in history else None
