"""The loop drives anything with step and finish."""

import signal
from dataclasses import dataclass

import pytest
import torch

from ddlib.store import loop
from ddlib.store.loop import Checkpoint, Deferred


@dataclass
class Count:
    step: int = 0
    value: float = 0.0

    def state_dict(self):
        return {"step": torch.tensor(self.step), "value": torch.tensor(self.value)}

    def load_state_dict(self, saved):
        self.step = int(saved["step"])


@dataclass(frozen=True)
class Counting:
    iterations: int = 10
    bad_loss_at: int | None = None
    bad_state_at: int | None = None
    signal_at: int | None = None

    def step(self, state):
        state.step += 1
        state.value = float("nan") if state.step == self.bad_state_at else 0.0
        if state.step == self.signal_at:
            signal.raise_signal(signal.SIGTERM)
        return {"loss": float("nan") if state.step == self.bad_loss_at else 1.0 / state.step}

    def finish(self, state):
        return f"took {state.step}"


class Report:
    """A report that remembers, and stops the work after a step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.steps, self.notes = stop_at, [], []

    def __call__(self, step, loss):
        self.steps.append((step, loss))
        if step == self.stop_at:
            raise RuntimeError("cut")

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def path(tmp_path):
    """Of a checkpoint."""
    return tmp_path / "checkpoint.safetensors"


@pytest.fixture
def clock(monkeypatch):
    """The monotonic seconds of the loop, in a list."""
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("iterations", "step"), [(10, 0), (10, 7), (0, 0)])
def test_it_takes_every_step_that_is_left_and_finishes(iterations, step):
    outcome = loop.run(Counting(iterations), Count(step), every=1)
    assert outcome.product == f"took {iterations}" and outcome.seconds > 0
    assert [step for step, _ in outcome.history.get("loss", [])] == [*range(step + 1, iterations + 1)]


def test_metrics_are_read_at_the_first_the_last_and_every_few_steps_and_reported():
    report = Report()
    outcome = loop.run(Counting(), Count(), every=4, report=report)
    assert outcome.history["loss"] == [(1, 1.0), (4, 0.25), (8, 0.125), (10, 0.1)]
    assert report.steps == [(1, 1.0), (2, 1.0), (3, 1.0), *((n, 0.25) for n in range(4, 8)), (8, 1 / 8), (9, 1 / 8),
                            (10, 0.1)]  # fmt: skip


def test_it_goes_on_from_its_checkpoint_with_course_and_time(path):
    """Also from one of an earlier version, with pictures beside the state."""
    whole = loop.run(Counting(), Count(), every=2)
    for stop_at in (4, 5, 9):
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(Counting(), Count(), every=2, checkpoint=Checkpoint(path), report=Report(stop_at))
        tensors, about = Checkpoint(path).read()
        Checkpoint(path).write(tensors | {"snapshot.3": torch.tensor(3)}, about)
    outcome = loop.run(Counting(), Count(), every=2, checkpoint=Checkpoint(path))
    assert (outcome.product, outcome.history) == (whole.product, whole.history)
    assert [sitting["step"] for sitting in outcome.sittings] == [0, 3, 4, 8]
    assert outcome.seconds > Checkpoint(path).read()[1]["seconds"] > 0 and Checkpoint(path).steps() == (10, 10)


@pytest.mark.parametrize(
    ("job", "every", "match", "saved"),
    [
        (Counting(bad_loss_at=3), 1, "atom: loss is nan at step 3; a smaller learning rate", 2),
        (Counting(bad_loss_at=3), 10, "atom: loss is nan at step 3", 2),  # between two readings
        (Counting(bad_state_at=4), 1, "atom: value is not finite after step 4; a smaller learning rate", 3),
        (Counting(iterations=4, bad_state_at=4), 1, "atom: value is not finite after step 4", 3),
    ],
)
def test_what_is_not_finite_stops_the_work_by_name_and_is_not_saved(job, every, match, saved, path):
    with pytest.raises(FloatingPointError, match=match):
        loop.run(job, Count(), every=every, name="atom", checkpoint=Checkpoint(path))
    assert Checkpoint(path).read()[1]["step"] == saved
    if job.iterations == 4:  # nor is the end, which no checkpoint precedes
        with pytest.raises(FloatingPointError, match=match):
            loop.run(job, Count(), name="atom", checkpoint=Checkpoint(path.with_name("other"), 1000))


def test_checkpoints_keep_their_distance_however_long_they_take(path, clock, monkeypatch):
    def slow(*_):
        clock[0] += 3.0

    monkeypatch.setattr(loop, "write_tensors", slow)
    checkpoint = Checkpoint(path, 60)

    def due(now):
        clock[0] = now
        return checkpoint.due()

    assert [due(now) for now in (100.0, 159.0, 160.0)] == [False, False, True]
    checkpoint.write({}, {})
    assert [due(163.0 + now) for now in (149.0, 150.0)] == [False, True], "3 s of writing are 2 % of 150 s"


def test_a_checkpoint_of_another_state_is_refused_by_name(path):
    class Other(Count):
        def load_state_dict(self, saved):
            raise KeyError("velocity")

    with pytest.raises(RuntimeError, match="cut"):
        loop.run(Counting(), Count(), checkpoint=Checkpoint(path), report=Report(4))
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is of another state than the job has now"):
        loop.run(Counting(), Other(), checkpoint=Checkpoint(path))


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.fixture
def signals():
    """What a handler of SIGTERM, installed before the loop, has been given."""
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    yield arrived
    signal.signal(signal.SIGTERM, before)


def test_a_signal_waits_for_the_step_is_saved_and_then_has_its_usual_effect(path, signals):
    report = Report()
    outcome = loop.run(Counting(signal_at=4), Count(), checkpoint=Checkpoint(path, 1000), report=report)
    assert signals == [signal.SIGTERM] and report.notes == ["signal 15 at step 4: saved"]
    assert Checkpoint(path).read()[1]["step"] == 4
    assert outcome.product == "took 10", "a handler that returns lets the work go on"
    loop.run(Counting(signal_at=4), Count())
    assert signals == [signal.SIGTERM] * 2, "without a checkpoint nothing is held back"


def test_a_second_signal_is_not_held_back_unless_it_is_the_first_one_sent_twice(signals, clock):
    with Deferred() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        clock[0] = 101.9
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.pending == signal.SIGTERM and not signals
        clock[0] = 102.0
        signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM]
    assert signals == [signal.SIGTERM]


def test_a_signal_that_nobody_delivered_takes_effect_at_the_end_and_one_that_is_ignored_none(signals):
    with pytest.raises(ZeroDivisionError), Deferred():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError
    assert signals == [signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Deferred() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.pending is None
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
