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

    def state_dict(self):
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, saved):
        self.step = int(saved["step"])


@dataclass(frozen=True)
class Counting:
    iterations: int = 10
    bad_at: int | None = None
    signal_at: int | None = None

    def step(self, state):
        state.step += 1
        if state.step == self.signal_at:
            signal.raise_signal(signal.SIGTERM)
        return {"loss": float("nan") if state.step == self.bad_at else 1.0 / state.step}

    def finish(self, state):
        return f"took {state.step}"


def test_it_takes_every_step_and_finishes():
    outcome = loop.run(Counting(), Count())
    assert outcome.product == "took 10" and outcome.seconds > 0


def test_it_continues_from_where_the_state_stands():
    outcome = loop.run(Counting(), Count(step=7), every=1)
    assert [step for step, _ in outcome.history["loss"]] == [8, 9, 10]


def test_metrics_are_read_at_the_first_the_last_and_every_few_steps():
    outcome = loop.run(Counting(), Count(), every=4)
    assert outcome.history["loss"] == [(1, 1.0), (4, 0.25), (8, 0.125), (10, 0.1)]


def test_snapshots_are_taken_at_the_start_and_where_asked():
    outcome = loop.run(Counting(), Count(), snapshot=lambda state: torch.tensor(state.step), snapshot_steps=(0, 5, 10))
    assert outcome.snapshots == {0: 0, 5: 5, 10: 10}


def test_no_steps_is_a_valid_job():
    assert loop.run(Counting(iterations=0), Count()).product == "took 0"


def test_a_loss_that_is_not_finite_stops_it_by_name():
    with pytest.raises(FloatingPointError, match=r"atom on digits: loss is nan at step 3"):
        loop.run(Counting(bad_at=3), Count(), every=1, name="atom on digits")


@pytest.fixture
def signals():
    """What a handler of SIGTERM, installed before the loop, has been given."""
    arrived = []
    before = signal.signal(signal.SIGTERM, lambda number, _: arrived.append(number))
    yield arrived
    signal.signal(signal.SIGTERM, before)


class Told:
    """A report that remembers, and stops the work after a step."""

    def __init__(self, stop_at=None):
        self.stop_at, self.steps, self.notes = stop_at, [], []

    def __call__(self, step, loss):
        self.steps.append((step, loss))
        if step == self.stop_at:
            raise RuntimeError("cut")

    def note(self, text):
        self.notes.append(text)


def test_it_goes_on_from_its_checkpoint_with_course_snapshots_and_time(tmp_path):
    options = {"every": 2, "snapshot": lambda state: torch.tensor(state.step), "snapshot_steps": (0, 3, 7)}
    whole = loop.run(Counting(), Count(), **options)
    path = tmp_path / "checkpoint.safetensors"
    for stop_at in (4, 5, 9):
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(Counting(), Count(), checkpoint=Checkpoint(path, 0), report=Told(stop_at), **options)
    outcome = loop.run(Counting(), Count(), checkpoint=Checkpoint(path, 0), **options)
    assert (outcome.product, outcome.history) == (whole.product, whole.history)
    assert outcome.snapshots == whole.snapshots
    assert [sitting["step"] for sitting in outcome.sittings] == [0, 3, 4, 8] and outcome.seconds > Checkpoint(
        path, 0
    ).read()[1]["seconds"] > 0


def test_the_time_of_snapshots_is_left_out_in_every_sitting(tmp_path, monkeypatch):
    """Steps of 1 s that the device does when it is waited for, pictures of 100 s, and a cut after the second step."""
    now, queued = [0.0], [0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])

    def wait():
        now[0] += queued[0]
        queued[0] = 0

    def picture(state):
        wait()
        now[0] += 100.0
        return torch.tensor(state.step)

    class Queueing(Counting):
        def step(self, state):
            queued[0] += 1
            return super().step(state)

    def take(stop_at=None):
        told = Told(stop_at)
        options = {"snapshot": picture, "snapshot_steps": (0, 1, 3, 6), "wait": wait, "report": told}
        return loop.run(Queueing(iterations=6), Count(), checkpoint=Checkpoint(tmp_path / "c", 0), **options)

    with pytest.raises(RuntimeError, match="cut"):
        take(stop_at=3)
    wait()
    assert Checkpoint(tmp_path / "c", 0).read()[1]["seconds"] == 1.0, "the second step is still queued"
    outcome = take()
    assert outcome.seconds == 1.0 + 4.0 and sorted(outcome.snapshots) == [0, 1, 3, 6]


def test_the_report_is_told_each_step_and_the_last_loss_read():
    told = Told()
    loop.run(Counting(iterations=4), Count(), every=3, report=told)
    assert told.steps == [(1, 1.0), (2, 1.0), (3, 1 / 3), (4, 0.25)]


def test_a_signal_waits_for_the_step_is_saved_and_then_has_its_usual_effect(tmp_path, signals):
    path, told = tmp_path / "checkpoint.safetensors", Told()
    outcome = loop.run(Counting(signal_at=4), Count(), checkpoint=Checkpoint(path, 1000), report=told)
    assert signals == [signal.SIGTERM] and told.notes == ["signal 15 at step 4: saved"]
    assert Checkpoint(path, 0).read()[1]["step"] == 4
    assert outcome.product == "took 10", "a handler that returns lets the work go on"


def test_without_a_checkpoint_signals_are_not_held_back(signals):
    loop.run(Counting(signal_at=4), Count())
    assert signals == [signal.SIGTERM]


def test_a_second_signal_is_not_held_back_unless_it_is_the_first_one_sent_twice(signals, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ddlib.store.loop.time.monotonic", lambda: now[0])
    with Deferred() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        now[0] = 101.9
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.pending == signal.SIGTERM and not signals
        now[0] = 102.0
        signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM]
    assert signals == [signal.SIGTERM]


def test_a_signal_that_nobody_delivered_takes_effect_at_the_end(signals):
    with pytest.raises(ZeroDivisionError), Deferred():
        signal.raise_signal(signal.SIGTERM)
        raise ZeroDivisionError
    assert signals == [signal.SIGTERM]


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Deferred() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.pending is None
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN


def test_numbers_that_are_not_finite_are_not_saved_even_between_readings(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(FloatingPointError, match="loss is nan at step 3"):
        loop.run(Counting(bad_at=3), Count(), every=10, checkpoint=Checkpoint(path, 0))
    assert Checkpoint(path, 0).read()[1]["step"] == 2


def test_checkpoints_keep_their_distance_however_long_they_take(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("ddlib.store.loop.time.monotonic", lambda: now[0])

    def slow(*_):
        now[0] += 3.0

    monkeypatch.setattr("ddlib.store.loop.write_tensors", slow)
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", 60)
    due = [(now.__setitem__(0, t), checkpoint.due())[1] for t in (100.0, 159.0, 160.0)]
    assert due == [False, False, True]
    checkpoint.write({}, {})
    due = [(now.__setitem__(0, t), checkpoint.due())[1] for t in (163.0 + 149.0, 163.0 + 150.0)]
    assert due == [False, True], "3 s of writing are 2 % of 150 s"


def test_a_state_that_the_last_update_spoilt_is_neither_saved_nor_finished(tmp_path):
    class Spoilt(Count):
        def state_dict(self):
            return super().state_dict() | {"x": torch.tensor(float("nan") if self.step == 4 else 0.0)}

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(FloatingPointError, match="work: x is not finite after step 4; a smaller learning rate"):
        loop.run(Counting(), Spoilt(), name="work", checkpoint=Checkpoint(path, 0))
    assert Checkpoint(path, 0).read()[1]["step"] == 3
    with pytest.raises(FloatingPointError, match="x is not finite after step 4"):
        loop.run(Counting(iterations=4), Spoilt(), checkpoint=Checkpoint(tmp_path / "other", 1000))


def test_a_checkpoint_of_another_state_is_refused_by_name(tmp_path):
    class Other(Count):
        def load_state_dict(self, saved):
            raise KeyError("velocity")

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(RuntimeError, match="cut"):
        loop.run(Counting(), Count(), checkpoint=Checkpoint(path, 0), report=Told(4))
    with pytest.raises(ValueError, match=r"checkpoint.safetensors is of another state than the job has now"):
        loop.run(Counting(), Other(), checkpoint=Checkpoint(path, 0))
