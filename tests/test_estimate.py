"""What a piece of work takes, told from a few of its steps: with a clock of the test's own, the arithmetic is exact."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from ddlib import evaluation, methods, study
from ddlib.data import datasets
from ddlib.pretraining.classifier import Embedding
from ddlib.study import estimate


class Clock:
    """Stands still but for what `spend` adds."""

    def __init__(self):
        self.now = 0.0

    def spend(self, seconds):
        """Let time go by."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock of `estimate`, which has measured nothing yet; steps of the real work take no time by it."""
    clock = Clock()
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(estimate, "PACES", {})
    return clock


@pytest.fixture
def train():
    """Real images."""
    return datasets.load("digits", "train")


@dataclass
class State:
    """A state of `Timed`."""

    inner: object
    step: int = 0

    def state_dict(self):
        """100 bytes."""
        return {"x": torch.zeros(25)}


@dataclass(frozen=True, kw_only=True)
class Timed(methods.Method):
    """A method whose start takes 3 s by the clock, and whose steps take `each`; the first of all, 10 s more."""

    name: ClassVar[str] = "timed"
    version: ClassVar[int] = 1
    ipc: int = 1
    iterations: int = 100
    each: float = 1.0
    warming: float = 10.0
    log: list
    clock: Clock

    def start(self, train, needs, seed):
        """Draw images at random."""
        self.clock.spend(3.0 if self.each >= 1 else 0.03)
        chosen = methods.build("random", ipc=self.ipc)
        state = chosen.start(train, {}, seed)
        chosen.step(state)
        return State(chosen.finish(state))

    def step(self, state):
        """Let time go by."""
        assert state.step < self.iterations, "a step that the job does not have"
        self.clock.spend(self.each + (self.warming if not self.log else 0.0))
        self.log.append(state.step)
        state.step += 1
        return {}

    def finish(self, state):
        """The images, after half a second."""
        self.clock.spend(0.5)
        return state.inner


def cell(method, **protocol):
    """A cell of one seed on digits."""
    told = {"num_networks": 2, "epochs": 4, "options": {"width": 8, "depth": 2}} | protocol
    where = {"reference_dataset": "cifar10", "paper": "atom", "table": "main"}
    protocol = evaluation.Protocol(**told)
    return study.Cell(
        label="x", method=method, dataset="digits", whitened=False, seeds=(0,), protocol=protocol, **where
    )


def test_long_steps_are_taken_twice_and_add_up(clock, train):
    method = Timed(log=[], clock=clock)
    found = estimate.distillation(cell(method), train)
    assert method.log == [0, 1]
    assert found.seconds == pytest.approx(3 + 100 * 1 + 0.5) and found.first == pytest.approx(10)
    assert found.checkpoint == 100 and found.trainings == 0


def test_short_steps_are_taken_often_after_a_second_start(clock, train):
    method = Timed(log=[], clock=clock, each=0.01)
    found = estimate.distillation(cell(method), train)
    assert 10 < len(method.log) <= 2 + 1 + estimate.MOST
    assert found.seconds == pytest.approx(0.03 + 100 * 0.01 + 0.5) and found.first == pytest.approx(10)


def test_a_job_is_never_taken_further_than_it_goes(clock, train):
    method = Timed(log=[], clock=clock, each=0.01, iterations=3)
    assert estimate.distillation(cell(method), train).seconds == pytest.approx(0.03 + 3 * 0.01 + 0.5)
    assert set(method.log) == {0, 1, 2}


def test_one_disturbed_step_of_many_counts_for_nothing():
    assert estimate.typical([1.0] * 19 + [50.0]) == 1.0
    assert estimate.typical([1.0, 3.0]) == 2.0
    # where another process takes every other turn, the mean is what a run pays
    assert estimate.typical([1.0, 2.0] * 10) == 1.5


def test_a_kind_of_step_is_probed_once(clock, train, monkeypatch):
    probed = []
    monkeypatch.setattr(estimate, "paced", lambda kind, _: probed.append(kind) or estimate.Pace(1, 2, 3, 4, 5, 6))
    test = datasets.load("digits", "test")
    dm = cell(methods.build("dm", ipc=1, iterations=10))
    alike = replace(dm, label="y", seeds=(5, 6), method=replace(dm.method, iterations=20))
    other = replace(dm, method=replace(dm.method, lr_images=2.0))
    seconds = [estimate.distillation(c, train).seconds for c in (dm, alike, other)]
    assert probed[0] == probed[1] != probed[2] and seconds == [1 + 20 + 3, 1 + 40 + 3, 1 + 20 + 3]
    probed.clear()
    longer = replace(dm, protocol=replace(dm.protocol, epochs=9, num_networks=3))
    wider = replace(dm, protocol=replace(dm.protocol, batch_size=5))
    found = [estimate.judging_of(c, train, test) for c in (dm, longer, other, wider)]
    assert probed[0] == probed[1] == probed[2] != probed[3]
    # networks x (before + (epochs + 1) x mini-batches x update + after)
    assert [e.seconds for e in found] == [2 * (4 + 5 * 2), 3 * (4 + 10 * 2), 2 * (4 + 5 * 2), 2 * (4 + 5 * 2 * 2)]
    assert [e.trainings for e in found] == [2, 3, 2, 2]


def test_an_evaluation_is_made_of_epochs_and_of_a_test(clock, train, monkeypatch):
    """A network takes 0.5 s to build, 0.25 s an epoch and a millisecond a test image; the first epoch 7 s more."""
    calls = []

    def fake(shown, test, protocol, *, seed, networks, teacher, on_epoch):
        assert len(shown) == 8 and len(networks) == 1 and sorted(set(shown.labels.tolist())) == list(range(8))
        clock.spend(0.5 + (0.0 if calls else 7.0))
        calls.append(protocol.epochs)
        for epoch in range(protocol.epochs + 1):
            clock.spend(0.25)
            on_epoch(epoch + 1, protocol.epochs + 1)
        clock.spend(len(test) / 1000)

    monkeypatch.setattr(evaluation, "evaluate", fake)
    monkeypatch.setattr(estimate, "SAMPLE", {"cpu": 100})
    test = datasets.load("digits", "test")
    judged = cell(methods.build("random", ipc=2), batch_size=8, epochs=9, num_networks=3)
    found = estimate.judging_of(judged, train, test)
    updates = 10 * 20 / 8
    assert found.seconds == pytest.approx(3 * (0.5 + updates * 0.25 + len(test) / 1000))
    assert found.first == pytest.approx(7) and calls == [1, 2]


def test_a_warm_up_has_no_epoch_more_than_it_says(clock, train, monkeypatch):
    monkeypatch.setattr(estimate, "paced", lambda kind, _: estimate.Pace(1, 2, 3, 4, 5, 6))
    test = datasets.load("digits", "test")
    judged = cell(methods.build("random", ipc=1), schedule="warmup_cosine", ema=0.9, epochs=4)
    assert estimate.judging_of(judged, train, test).seconds == 2 * (1 + 4 * 2 + 3)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_warm_up_can_be_probed(train, epochs):
    test = datasets.load("digits", "test")
    judged = cell(methods.build("random", ipc=1), schedule="warmup_cosine", ema=0.9, epochs=epochs)
    found = estimate.judging_of(judged, train, test)
    assert found.seconds > 0 and "warmup_cosine" in found.kind


@pytest.mark.parametrize(("fixed", "factor"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_long_job_is_told_from_two_samples_of_its_data(clock, train, monkeypatch, fixed, factor):
    """A step that goes over all images grows with them; one that takes a mini-batch does not.  So does the memory."""
    monkeypatch.setattr(estimate, "SAMPLE", {"cpu": 200})
    seen = []

    def step(images):
        seen.append(len(images))
        each = fixed + factor * len(images) / 100
        return estimate.Pace(0.0, each, 0.0, 0.0, memory=1000 + 7 * len(images), disk=0, rows=7 * len(images))

    found = estimate.on_all(step, train)
    assert seen == [200, 400] and found.step == pytest.approx(fixed + factor * len(train) / 100)
    assert found.memory == 1000 + 7 * len(train)


def test_a_short_job_is_seen_on_all_of_its_data(clock, train, monkeypatch):
    monkeypatch.setattr(estimate, "SAMPLE", {"cpu": 200})
    seen = []
    estimate.on_all(lambda images: seen.append(len(images)) or estimate.Pace(0, 1e-3, 0, 0, 0, 0), train)
    assert seen == [200, len(train)]


def test_a_set_hardly_larger_than_its_sample_is_seen_once(clock, train, monkeypatch):
    monkeypatch.setattr(estimate, "SAMPLE", {"cpu": math.ceil(len(train) / 3)})
    seen = []
    estimate.on_all(lambda images: seen.append(len(images)) or estimate.Pace(0, 9.0, 0, 0, 0, 0), train)
    assert seen == [len(train)]


def test_windows_and_starts_of_trajectory_matching_are_of_one_kind():
    early = methods.build(
        "datm", ipc=1, max_start_epoch=3, initial_max_start_epoch=None, expansion_end=None, kept_epochs=10
    )
    late = replace(early, min_start_epoch=5, max_start_epoch=9, init="real", threshold=1.1)
    assert early.rehearsal == late.rehearsal and early.rehearsal.needs == early.needs == late.needs
    assert early.rehearsal != replace(early, labels="hard").rehearsal
    assert early.rehearsal.needs != replace(early, kept_epochs=11).rehearsal.needs


def test_a_sample_has_every_class_as_often_as_asked(train, monkeypatch):
    monkeypatch.setattr(estimate, "SAMPLE", {"cpu": 30})
    assert torch.bincount(estimate.sample(train).labels).tolist() == [3] * 10
    assert torch.bincount(estimate.sample(train, least=7).labels).tolist() == [7] * 10
    assert estimate.sample(train, least=10**6) is train


def test_real_work_has_its_sizes(train):
    """The bytes are those of the files that a study writes."""
    test = datasets.load("digits", "test")
    dm = cell(methods.build("dm", ipc=2, iterations=3, batch_real=4, width=8, depth=2))
    found = estimate.distillation(dm, train)
    images = 20 * 16 * 16 * 4
    assert images + 20 * 8 < found.disk - estimate.RECORD < images + 20 * 8 + 2048
    assert found.checkpoint > 2 * images and found.memory > 10**7 and found.seconds > 0
    judged = estimate.judging_of(dm, train, test)
    assert judged.disk == estimate.RECORD and judged.memory > 10**7 and judged.seconds > 0
    embedding = Embedding(width=8, depth=2, epochs=2)
    weights = sum(p.nbytes for p in embedding._network(train, None).state_dict().values())
    assert estimate.prerequisite(embedding, train).disk == weights + estimate.RECORD


@pytest.mark.parametrize("name", methods.discover())
def test_every_method_can_be_estimated(name, train):
    small = {"ipc": 1, "width": 8, "depth": 2, "batch_real": 4, "epochs": 1, "restarts": 2, "iterations": 2}
    known = methods.hyperparameters(methods.find(name))
    method = methods.build(name, **{key: value for key, value in small.items() if key in known})
    found = estimate.distillation(cell(method), train)
    assert found.seconds > 0 and found.disk > 10 * 16 * 16 * 4


def test_the_whole_set_counts_with_all_its_images(clock, train, monkeypatch):
    test = datasets.load("digits", "test")
    seen = []

    def evaluated(shown, test, protocol, *, on_epoch, **_):
        seen.append(len(shown))
        for done in range(protocol.epochs + 1):
            clock.spend(1.0)
            on_epoch(done, 0)

    monkeypatch.setattr(evaluation, "evaluate", evaluated)
    found = estimate.judging_of(cell(methods.build("whole"), epochs=9, num_networks=1), train, test)
    assert set(seen) == {256} and found.seconds == pytest.approx(10 * len(train) / 256)
