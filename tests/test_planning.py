"""Plans: what is to be done, once however many cells share it, what it takes, and what does not fit."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import yaml

from ddlib import evaluation, methods, study
from ddlib.batch import cli
from ddlib.pretraining.classifier import Embedding
from ddlib.store import artefacts
from ddlib.study import notebooks, planning
from ddlib.study.planning import Estimate, Missing, Pace, Plan

GB = 10**9


SHORT = {"num_networks": 2, "at_once": 1, "epochs": 4, "options": {"width": 8, "depth": 2}}


def cell(label="DM", method=None, ipc=1, seeds=(0, 1, 2), **protocol):
    """A cell on digits."""
    method, protocol = method or methods.build("dm", ipc=ipc), evaluation.Protocol(**SHORT | protocol)
    place = {"dataset": "digits", "reference_dataset": "cifar10", "paper": "atom", "table": "main"}
    return study.Cell(label=label, method=method, whitened=False, seeds=seeds, protocol=protocol, **place)


# --- estimates: with a clock of the test's own, the arithmetic is exact ---------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """The seconds gone by, in a list; nothing is measured yet, and real work takes no time."""
    now = [0.0]
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(planning, "PACES", {})
    return now


@dataclass
class State:
    """A state of 100 bytes."""

    product: object
    step: int = 0

    def state_dict(self):
        return {"x": torch.zeros(25)}


@dataclass(frozen=True, kw_only=True)
class Timed(methods.Method):
    """A method that takes 3 s to start, `each` a step, 10 s more for the first of all, and half a second at the end."""

    name: ClassVar[str] = "timed"
    version: ClassVar[int] = 1
    ipc: int = 1
    iterations: int = 100
    each: float = 1.0
    log: list = field(default_factory=list)
    clock: list

    def start(self, train, needs, seed):
        self.clock[0] += 3.0
        chosen = methods.build("random", ipc=self.ipc)
        state = chosen.start(train, {}, seed)
        chosen.step(state)
        return State(chosen.finish(state))

    def step(self, state):
        assert state.step < self.iterations, "a step that the job does not have"
        self.clock[0] += self.each + (0.0 if self.log else 10.0)
        self.log.append(state.step)
        state.step += 1
        return {}

    def finish(self, state):
        self.clock[0] += 0.5
        return state.product


@pytest.mark.parametrize(
    ("each", "iterations", "steps", "seconds"),
    [(1.0, 100, 2, 103.5), (0.01, 100, 2, 4.5), (1.0, 0, 0, 3.5), (1.0, 1, 1, 14.5), (1.0, 3, 2, 6.5)],
)
def test_steps_are_watched_and_add_up_and_a_job_is_never_taken_further_than_it_goes(
    each, iterations, steps, seconds, clock, train
):
    method = Timed(clock=clock, each=each, iterations=iterations)
    estimate = planning.distillation(cell(method=method), train)
    assert len(method.log) == steps and estimate.seconds == pytest.approx(seconds)
    assert estimate.checkpoint == 100 and estimate.trainings == 0


def test_a_kind_of_step_is_measured_once(clock, train, test, monkeypatch):
    for name in ("measured", "_evaluating"):
        monkeypatch.setattr(planning, name, lambda *_: Pace(1, 2, 3, 4, 5, 6))
    dm = cell(method=methods.build("dm", ipc=1, iterations=10))
    alike = replace(dm, label="y", seeds=(5, 6), method=replace(dm.method, iterations=20))
    assert [planning.distillation(c, train).seconds for c in (dm, alike)] == [1 + 20 + 3, 1 + 40 + 3]
    assert len(planning.PACES) == 1
    planning.distillation(replace(dm, method=replace(dm.method, lr_images=2.0)), train)
    assert len(planning.PACES) == 2
    planning.PACES.clear()
    longer = replace(dm, protocol=replace(dm.protocol, epochs=9, num_networks=3))
    estimates = [planning.judging(c, train, test) for c in (dm, longer)]
    assert len(planning.PACES) == 1
    wider = replace(dm, protocol=replace(dm.protocol, batch_size=5))
    cosine = replace(dm, protocol=replace(dm.protocol, schedule="warmup_cosine", ema=0.9))
    estimates += [planning.judging(c, train, test) for c in (wider, cosine)]
    assert len(planning.PACES) == 3
    # networks x ((epochs + 1) x mini-batches x update + test); a warm-up has no epoch more than it says
    seconds = [2 * (5 * 2 + 3), 3 * (10 * 2 + 3), 2 * (5 * 2 * 2 + 3), 2 * (4 * 2 + 3)]
    assert [(e.seconds, e.trainings) for e in estimates] == [*zip(seconds, (2, 3, 2, 2), strict=True)]


@pytest.mark.parametrize(("method", "count"), [(methods.build("random", ipc=2), 20), (methods.build("whole"), 1352)])
def test_an_evaluation_is_made_of_updates_and_of_a_test(method, count, clock, train, test, monkeypatch):
    """An update takes 0.25 s, and 7 s more the first time; a test image takes a millisecond."""
    sizes = []

    def evaluate(images, tested, protocol, *, networks, on_epoch, **_):
        clock[0] += 0.0 if sizes else 7.0
        sizes.append(len(images))
        for epoch in range(protocol.rounds):
            clock[0] += 0.25
            on_epoch(epoch + 1, protocol.rounds)
        clock[0] += len(tested) / 1000

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(planning, "SAMPLE", {"cpu": 50})
    estimate = planning.judging(cell(method=method, batch_size=8, epochs=9, num_networks=3), train, test)
    updates = 10 * -(-count // 8)
    assert count in (20, len(train)) and sizes == [8, 8]  # a mini-batch, twice
    assert estimate.seconds == pytest.approx(3 * (updates * 0.25 + len(test) / 1000))


@pytest.mark.parametrize("protocol", [{}, {"schedule": "warmup_cosine", "ema": 0.9, "epochs": 1}, {"labels": "batch"}])
def test_real_evaluations_can_be_measured(protocol, train, test):
    estimate = planning.judging(cell(**protocol), train, test)
    assert estimate.disk == planning.RECORD and estimate.memory > 10**7 and estimate.seconds > 0


def test_steps_that_sweep_over_all_images_are_taken_on_a_sample_of_every_class(clock, train, monkeypatch):
    monkeypatch.setattr(planning, "SAMPLE", {"cpu": 100})
    monkeypatch.setattr(Timed, "sweeps", True)
    scale = len(train) / 100
    estimate = planning.distillation(cell(method=Timed(clock=clock)), train)
    assert estimate.seconds == pytest.approx(scale * 3 + 100 * scale + 0.5)
    assert torch.bincount(planning.sample(train).labels).tolist() == [10] * 10
    assert torch.bincount(planning.sample(train, least=17).labels).tolist() == [17] * 10
    assert planning.sample(train, least=100) is train


def test_windows_and_starts_of_trajectory_matching_are_of_one_kind():
    early = methods.build(
        "datm", ipc=1, max_start_epoch=3, initial_max_start_epoch=None, expansion_end=None, kept_epochs=10
    )
    late = replace(early, min_start_epoch=5, max_start_epoch=9, init="real", threshold=1.1)
    assert early.rehearsal == late.rehearsal and early.rehearsal.needs == early.needs == late.needs
    assert early.rehearsal != replace(early, labels="hard").rehearsal
    assert early.rehearsal.needs != replace(early, kept_epochs=11).rehearsal.needs


def test_real_work_has_its_sizes(train):
    """The bytes are those of the files that a study writes."""
    estimate = planning.distillation(
        cell(method=methods.build("dm", ipc=2, iterations=3, batch_real=4, width=8, depth=2)), train
    )
    images = 20 * 16 * 16 * 4
    assert images + 20 * 8 < estimate.disk - planning.RECORD < images + 20 * 8 + 2048
    assert estimate.checkpoint > 2 * images and estimate.memory > 10**7 and estimate.seconds > 0
    embedding = Embedding(width=8, depth=2, epochs=2)
    weights = sum(p.nbytes for p in embedding._network(train, None).state_dict().values())
    assert planning.prerequisite(embedding, train).disk == weights + planning.RECORD


@pytest.mark.parametrize("name", methods.discover())
def test_every_method_can_be_estimated(name, train, test):
    small = {"ipc": 1, "width": 8, "depth": 2, "batch_real": 4, "epochs": 1, "restarts": 2, "iterations": 2}
    known = methods.hyperparameters(methods.find(name))
    method = methods.build(name, **{key: value for key, value in small.items() if key in known})
    estimate = planning.distillation(cell(method=method), train)
    assert estimate.seconds > 0 and estimate.disk > 10 * 16 * 16 * 4
    if method.deployment:  # a stream, whose images are drawn while it is judged
        assert planning.judging(cell(method=method, batch_size=10), train, test).seconds > 0


# --- plans ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def paces(monkeypatch):
    """Prerequisites take 100 s and 3 GB, distillations 10 s and 2 GB, evaluations 1 s and 1 GB."""
    need = Estimate(100.0, 3 * GB, disk=50, checkpoint=7)
    distilled = Estimate(10.0, 2 * GB, disk=20, checkpoint=9)
    judged = Estimate(1.0, 1 * GB, disk=1, trainings=2)
    for name, estimate in {"prerequisite": need, "distillation": distilled, "judging": judged}.items():
        monkeypatch.setattr(planning, name, lambda *_, estimate=estimate: estimate)


def missing(label="DM", *, needs=(), distil="abc", evaluate="abc", **changed):
    """A cell whose artefacts lie at these paths."""
    where = {f"need {path}": Embedding() for path in needs}
    return Missing(
        cell(label, **changed), where, tuple(f"set {p}" for p in distil), tuple(f"evaluation {p}" for p in evaluate)
    )


def trainings(plan):
    """Networks trained to judge by."""
    return sum(estimate.trainings for estimate in plan.estimates)


def test_a_cell_is_the_sum_of_what_it_lacks_and_half_of_what_is_half_done(paces):
    plan = planning.plan([missing(needs="e", distil="ab")], "cpu")
    assert (plan.seconds, plan.memory, plan.disk) == (100 + 2 * 10 + 3 * 1, 3 * GB, 50 + 2 * 20 + 3 * 1 + 9)
    assert trainings(plan) == 6
    assert planning.plan([missing(distil="", evaluate="c")], "cpu").memory == GB
    half = replace(missing(distil="a", evaluate="a"), left={"set a": 0.5, "evaluation a": 0.5})
    plan = planning.plan([half], "cpu")
    assert (plan.seconds, trainings(plan)) == (5.5, 1)


def test_what_cells_share_counts_once_in_the_total(paces):
    cells = [missing("A", needs="e"), missing("B", needs="e", distil="def", evaluate="def"), missing("A again")]
    plan = planning.plan(cells, "cpu")
    assert [Plan((row,)).seconds for row in plan.rows] == [133, 133, 33]
    assert plan.seconds == 100 + 6 * 10 + 6 * 1 and plan.disk == 50 + 6 * 20 + 6 * 1 + 9
    assert trainings(plan) == 12
    both = planning.together([planning.plan(more, "cpu") for more in (cells[:1], [cells[0], missing("B", ipc=2)])])
    assert [row.missing.cell.label for row in both.rows] == ["A", "B"]


def test_what_is_in_the_store_costs_nothing_and_is_not_measured(paces, monkeypatch):
    for kind in ("prerequisite", "distillation", "judging"):
        monkeypatch.setattr(planning, kind, lambda *_: pytest.fail("measured"))
    plan = planning.plan([missing(distil="", evaluate="")], "cpu")
    assert "1 of them in the store; to do: 0 distillations and 0 trainings, about 0 s on" in planning.line(plan)
    assert planning.table(plan).splitlines()[-1].split() == ["DM", "1", "3/3", "-", "-", "-", "-"]


def test_the_line_and_the_table_say_it_all(paces):
    plan = planning.plan([missing(needs="e"), missing("Random", ipc=10, distil="", evaluate="c")], "cpu")
    assert planning.line(plan) == (
        "2 cells, 0 of them in the store; to do: 3 distillations and 6 trainings, about 2 min on this device, "
        "peak memory 3.0 GB, 0.1 kB on disk"
    )
    _, _, dm, random = planning.table(plan).splitlines()
    assert dm.split() == ["DM", "1", "0/3", "6", "2", "min", "3.0", "GB", "0.1", "kB"]
    assert random.split()[:3] == ["Random", "10", "2/3"]
    assert "1/3 + 1 distilled" in planning.table(planning.plan([missing(distil="b", evaluate="bc")], "cpu"))


def test_a_cell_alone_above_the_memory_is_refused(paces):
    plan = planning.plan([missing("A", needs="e"), missing("B", distil="", evaluate="x")], "cpu")
    assert planning.refusals(plan, memory=3 * GB) == []
    assert planning.refusals(plan, memory=2 * GB) == ["A, digits, IPC 1 takes 3.0 GB of memory; allowed: 2.0 GB"]


def test_cells_beyond_the_budget_are_refused_in_order_and_leave_their_time_to_the_next(paces):
    cells = [missing("A"), missing("B", needs="e", distil="def", evaluate="def"), missing("C", distil="", evaluate="z")]
    plan = planning.plan(cells, "cpu")
    hours = (33 + 1) / 3600
    assert planning.refusals(plan, budget_hours=100.0) == []
    (refused,) = planning.refusals(plan, budget_hours=hours)
    assert refused.startswith("B, digits, IPC 1 takes 2 min, done after ")
    assert [text[0] for text in planning.refusals(plan, budget_hours=hours - 1e-4)] == ["B", "C"]
    assert [text[0] for text in planning.refusals(plan, budget_hours=0.0)] == ["A", "B", "C"]
    done = planning.plan([missing(distil="", evaluate="")], "cpu")
    assert planning.refusals(done, budget_hours=0.0, memory=1) == []


def test_a_step_that_cannot_be_taken_is_told_with_its_cell(paces, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory: tried to allocate 80 GiB\nand more")

    monkeypatch.setattr(planning, "distillation", fail)
    with pytest.raises(ValueError, match=r"DM, digits, IPC 1 cannot be estimated on cpu: out of memory: .* 80 GiB$"):
        planning.plan([missing()], "cpu")


PARAMETERS = {
    "ipcs": [1],
    "seeds": [0, 1],
    "methods": {"Random": {"method": "random"}, "Herding": {"method": "herding", "epochs": 1}},
    "network": {"width": 8, "depth": 2},
    "evaluation": {"num_networks": 1, "epochs": 1},
}


def test_a_study_says_what_its_store_lacks(workplace):
    cells = notebooks.cells("atom/accuracy", "quick", PARAMETERS)
    plan = study.plan(cells, workplace)
    assert [len(row.missing.needs) for row in plan.rows] == [0, 1]
    assert trainings(plan) == 4 and len(plan.rows[1].estimates) == 1 + 2 + 2
    study.synthetic_set(cells[1], 0, workplace)  # leaves the embedding and one set
    half = study.plan(cells, workplace).rows[1].missing
    assert (len(half.needs), len(half.distil), len(half.evaluate)) == (0, 1, 2)
    study.run(cells, workplace)
    assert study.outlook(cells, workplace).startswith("2 cells, 2 of them in the store; to do: 0 distillations")


def test_seeds_that_two_rows_share_are_planned_once(workplace):
    rows = {"Random": {"method": "random"}, "Random, 4 draws": {"method": "random", "seeds": [0, 1, 2, 3]}}
    plan = study.plan(notebooks.cells("atom/accuracy", "quick", PARAMETERS | {"methods": rows}), workplace)
    assert [len(row.missing.evaluate) for row in plan.rows] == [2, 4]
    assert "to do: 4 distillations" in planning.line(plan)


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A place of its own for what is computed, and a file of small parameters."""
    monkeypatch.setattr(study, "OUTPUT", tmp_path)
    monkeypatch.setattr(artefacts, "OUTPUT", tmp_path)
    rows = {"Random": {"method": "random"}, "DM": {"method": "dm", "iterations": 2, "batch_real": 4}}
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(PARAMETERS | {"seeds": [0], "methods": rows}, sort_keys=False))
    return file


def test_the_command_prints_each_notebook_and_the_whole(output, capsys):
    names = ["atom/accuracy", "compare/tour"]
    words = ["plan", *names, "-f", str(output), "--budget-hours", "1", "--memory", "64GB"]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for name in names:
        assert f"{name} (quick)" in lines and f"{name} (quick): taking a few steps" in err
    assert lines[-1].startswith("in all, what notebooks share once: 2 cells, 0 of them in the store; to do: 2 dist")


def test_the_command_refuses_what_does_not_fit(output, capsys):
    words = ["plan", "atom/accuracy", "-f", str(output)]
    assert cli.main([*words, "--budget-hours", "0"]) == 2
    refused = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddlib: ")]
    assert [line.split(" takes ")[0] for line in refused] == [
        "ddlib: does not fit: Random, digits, IPC 1", "ddlib: does not fit: DM, digits, IPC 1",
    ]  # fmt: skip
    assert cli.main([*words, "--memory", "1 kB"]) == 2
    assert "allowed: 1.0 kB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "content", "message"),
    [
        ("atom/acuracy", "", "ddlib: unknown notebook 'atom/acuracy'; known: atom/accuracy"),
        ("atom/accuracy --device warp", "", "device='warp' cannot be used here"),
        ("atom/accuracy -f nowhere.yaml", "", "nowhere.yaml"),
        ("atom/accuracy -f wish.yaml", "ipc: 1", "wish.yaml does not suit atom/accuracy: unknown parameter 'ipc'"),
        ("atom/accuracy -f wish.yaml", "ipcs: [100000]", "ddlib: ipc=100000 is not in 1.."),
        ("atom/accuracy -f wish.yaml", "dataset: cifar10", "ddlib data get cifar10"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_line(output, tmp_path, monkeypatch, capsys, words, content, message):
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wish.yaml").write_text(content)
    assert cli.main(["plan", *words.split()]) == 2
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if line.startswith("ddlib: ")]
    assert out == "" and len(told) == 1 and message in told[0]


def test_sizes_are_read_and_written():
    read = {"16GB": 16 * GB, "512 mb": 512 * 10**6, "1.5GiB": 3 * 2**29}
    assert {text: cli._bytes(text) for text in read} == read
    assert [planning.size(n) for n in (0, 1500, 2_500_000, 16 * GB)] == ["0.0 kB", "1.5 kB", "2.5 MB", "16.0 GB"]
