"""The loop drives anything with step and finish."""

from dataclasses import dataclass

import pytest

from ddlib import loop


@dataclass
class Count:
    step: int = 0


@dataclass(frozen=True)
class Counting:
    iterations: int = 10
    bad_at: int | None = None

    def step(self, state):
        state.step += 1
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
    outcome = loop.run(Counting(), Count(), snapshot=lambda state: state.step * 10, snapshot_steps=(0, 5, 10))
    assert outcome.snapshots == {0: 0, 5: 50, 10: 100}


def test_no_steps_is_a_valid_job():
    assert loop.run(Counting(iterations=0), Count()).product == "took 0"


def test_a_loss_that_is_not_finite_stops_it_by_name():
    with pytest.raises(FloatingPointError, match=r"atom on digits: loss is nan at step 3"):
        loop.run(Counting(bad_at=3), Count(), every=1, name="atom on digits")
