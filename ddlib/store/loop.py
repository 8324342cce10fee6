"""The one loop that drives whatever has `iterations`, `step` and `finish`, its checkpoints, and signals that wait."""

import math
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from ddlib.store import files
from ddlib.store.files import Damaged, read_about, read_tensors, write_tensors

SHARE = 50
"""A checkpoint that takes t seconds to write is not renewed before 50 t: at most 2 % of the time goes into it."""


class Checkpoint:
    """The newest state of a job, in one file that is replaced whole.

    Args:
        seconds: least time between two writes; 0 asks for one after every step, whatever it costs.
    """

    def __init__(self, path: Path, seconds: float = 0.0):
        self.path, self.seconds = path, seconds
        self._next = time.monotonic() + seconds

    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() >= self._next

    def steps(self) -> tuple[int, int]:
        """Steps taken and steps in all, unchecked and without reading tensors; (0, 0) where nothing can be read."""
        try:
            about = read_about(self.path) or {}
        except Damaged:
            about = {}
        return about.get("step", 0), about.get("iterations", 0)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors last written, on the CPU, and what was said about them; None where nothing is left whole."""
        try:
            return read_tensors(self.path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            files.put_aside(self.path, error)
            return None

    def write(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is there; an OSError leaves the file before it."""
        begin = time.monotonic()
        write_tensors(self.path, tensors, about)
        now = time.monotonic()
        self._next = now + (max(self.seconds, SHARE * (now - begin)) if self.seconds else 0.0)

    def remove(self) -> None:
        """Delete the file: the job is done."""
        self.path.unlink(missing_ok=True)


@dataclass
class Outcome:
    """What a finished job leaves: its product, its course and its cost.

    history: metric name -> list of (step, value), sampled every `every` steps, first and last included.
    seconds: wall time of the steps, over all sittings.
    sittings: the step at which each began and what was said of it; more than one where the job was killed and went on.
    """

    product: Any = None
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    sittings: list[dict[str, Any]] = field(default_factory=list)

    def note(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add what was measured after `step` to the history."""
        for name, number in metrics.items():
            self.history.setdefault(name, []).append((step, number))

    @property
    def loss(self) -> float | None:
        """The last that was read."""
        return self.history["loss"][-1][1] if "loss" in self.history else None


def run(
    job: Any,
    state: Any,
    *,
    name: str = "job",
    every: int | None = None,
    report: Any = None,
    checkpoint: Checkpoint | None = None,
    sitting: Mapping[str, Any] | None = None,
) -> Outcome:
    """Take the remaining steps of `job` from `state`, or from its checkpoint, then finish it.

    With a checkpoint, SIGINT and SIGTERM wait until the step at hand is over and its state is saved.  A job that was
    killed goes on from its checkpoint, and its product is, bit by bit, the one that it would have been.

    Args:
        job: a method or a builder: `iterations`, `step(state)` -> metrics, `finish(state)` -> product.
        state: as `job.start` gave it; a checkpoint that is there is loaded into it.  `state.step` counts the steps.
        every: metrics are read, and checked to be finite, every so many steps (None: about 100 times in all),
            so that a GPU is not made to wait at each step.
        report: a `Progress`, called after each step with the steps taken and the last loss read.
        checkpoint: where the state is saved, now and then.  It is left there, for whoever keeps the product.
        sitting: said of this sitting in the outcome, as plain JSON.

    Raises:
        FloatingPointError: a metric or the state is not finite; such a state is not saved.
        ValueError: the checkpoint is of another state than the job has.
    """
    every = every or max(1, job.iterations // 100)
    outcome = Outcome() if checkpoint is None else _resumed(state, checkpoint)
    outcome.sittings.append({"step": state.step, **(sitting or {})})
    begin = time.perf_counter() - outcome.seconds
    with Deferred(active=checkpoint is not None) as interrupt:
        while state.step < job.iterations:
            metrics = job.step(state)
            if state.step % every == 0 or state.step in (1, job.iterations):
                outcome.note(state.step, _finite(metrics, name, state.step))
            if report is not None:
                report(state.step, outcome.loss)
            if checkpoint is not None and (interrupt.pending or checkpoint.due()):
                _finite(metrics, name, state.step)
                outcome.seconds = time.perf_counter() - begin
                _save(checkpoint, state, outcome, name=name, iterations=job.iterations)
            if interrupt.pending and report is not None:
                report.note(f"signal {interrupt.pending} at step {state.step}: saved")
            if interrupt.pending:
                interrupt.deliver()
    if checkpoint is not None:
        _check_finite(state.state_dict(), name, state.step)
    outcome.seconds = time.perf_counter() - begin
    outcome.product = job.finish(state)
    return outcome


def _save(checkpoint: Checkpoint, state: Any, outcome: Outcome, *, name: str, iterations: int) -> None:
    """Write the state and the course so far; a state that the last update has spoilt is refused."""
    tensors = state.state_dict()
    _check_finite(tensors, name, state.step)
    tensors = {f"state.{key}": tensor for key, tensor in tensors.items()}
    course = {"history": outcome.history, "seconds": outcome.seconds, "sittings": outcome.sittings}
    checkpoint.write(tensors, course | {"step": state.step, "name": name, "iterations": iterations})


def _resumed(state: Any, checkpoint: Checkpoint) -> Outcome:
    """The course so far, with `state` brought to where the checkpoint stands."""
    saved = checkpoint.read()
    if saved is None:
        return Outcome()
    tensors, about = saved
    try:
        state.load_state_dict({n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")})
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{checkpoint.path} is of another state than the job has now ({error}); delete it to begin anew, and raise "
            "the version of the method whose state has changed"
        ) from error
    history = {name: [tuple(point) for point in points] for name, points in about["history"].items()}
    return Outcome(None, history, about["seconds"], about["sittings"])


def _finite(metrics: Mapping[str, Any], name: str, step: int) -> dict[str, float]:
    """The metrics as floats; FloatingPointError where one is not finite."""
    numbers = {metric: float(value) for metric, value in metrics.items()}
    for metric, number in numbers.items():
        if not math.isfinite(number):
            raise FloatingPointError(f"{name}: {metric} is {number} at step {step}; a smaller learning rate may help")
    return numbers


def _check_finite(tensors: Mapping[str, Tensor], name: str, step: int) -> None:
    """FloatingPointError where a tensor is not finite, which the metrics, taken before the update, do not show."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FloatingPointError(f"{name}: {key} is not finite after step {step}; a smaller learning rate may help")


SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and JupyterLab's stop button; what schedulers and `kill` send first."""

AT_ONCE = 2.0
"""Seconds within which a second signal is the first one again: schedulers and terminals often send it twice."""


class Deferred:
    """Inside the block the first signal waits in `pending`; one that comes `AT_ONCE` later takes its effect at once.

    `deliver` lets the signal have the effect that it had outside, and so does the end of the block.  Signals that are
    ignored stay ignored.  Outside of the main thread, where Python allows no handlers, nothing is held back.
    """

    def __init__(self, *, active: bool = True) -> None:
        self._active = active and threading.current_thread() is threading.main_thread()
        self.pending: int | None = None
        self._before: dict[int, Any] = {}
        self._since = 0.0

    def __enter__(self) -> "Deferred":
        if self._active:
            usual = {number: signal.getsignal(number) for number in SIGNALS}
            self._before = {n: handler for n, handler in usual.items() if handler not in (None, signal.SIG_IGN)}
            self._install()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        if self.pending is not None:
            signal.raise_signal(self.pending)

    def deliver(self) -> None:
        """Give the pending signal its effect; returns if its handler does, ready for the next one."""
        number, self.pending = self.pending, None
        self._restore()
        signal.raise_signal(number)
        self._install()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.pending is None:
            self.pending, self._since = number, time.monotonic()
        elif time.monotonic() - self._since >= AT_ONCE:
            self.pending = None
            self._restore()
            signal.raise_signal(number)

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
