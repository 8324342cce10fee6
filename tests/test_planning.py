"""Plans: what is to be done, once however many cells share it, what it takes, and what does not fit."""

from dataclasses import replace

import pytest

from benchmarks import planning as benchmark
from ddlib import evaluation, methods, study
from ddlib.batch import cli
from ddlib.data import datasets
from ddlib.pretraining.classifier import Embedding
from ddlib.study import notebooks, planning
from ddlib.study.estimate import Estimate
from ddlib.study.planning import Missing
from ddlib.study.rows import Cell

GB = 10**9


def cell(label="DM", ipc=1, **changed):
    """A cell of three seeds on digits."""
    told = {
        "label": label,
        "method": methods.build("dm", ipc=ipc),
        "dataset": "digits",
        "whitened": False,
        "seeds": (0, 1, 2),
        "protocol": evaluation.Protocol(num_networks=2),
        "reference_dataset": "cifar10",
        "paper": "atom",
        "table": "main",
    }
    return Cell(**told | changed)


@pytest.fixture
def probes(monkeypatch):
    """Prerequisites take 100 s and 3 GB, distillations 10 s and 2 GB, evaluations 1 s and 1 GB; first steps 1000 s."""
    made = Estimate("embedding", 100.0, 1000.0, 3 * GB, disk=50, checkpoint=7)
    distilled = Estimate("distil", 10.0, 1000.0, 2 * GB, disk=20, checkpoint=9)
    judged = Estimate("judge", 1.0, 1000.0, 1 * GB, disk=1, trainings=2)
    monkeypatch.setattr(planning.estimate, "prerequisite", lambda *_: made)
    monkeypatch.setattr(planning.estimate, "distillation", lambda of, _: replace(distilled, kind=of.label))
    monkeypatch.setattr(planning.estimate, "judging_of", lambda *_: judged)
    monkeypatch.setattr(planning, "_READING", {"reading digits for cpu": Estimate("r", 10_000.0, memory=GB // 2)})


def missing(label="DM", *, needs=(), distil="abc", evaluate="abc", **changed):
    """A cell whose pieces of work lie at these paths."""
    where = {f"need {path}": Embedding() for path in needs}
    return Missing(
        cell(label, **changed), where, tuple(f"set {p}" for p in distil), tuple(f"evaluation {p}" for p in evaluate)
    )


def test_a_cell_is_the_sum_of_what_it_lacks(probes):
    plan = planning.plan([missing(needs="e", distil="ab")], "cpu")
    (row,) = plan.rows
    assert row.totals == planning.Totals(100 + 2 * 10 + 3 * 1, 3 * GB, 50 + 2 * 20 + 3 * 1 + 9, 2, 6)
    assert plan.once == 3 * 1000 + 10_000 and plan.totals.seconds == row.totals.seconds + plan.once
    assert planning.plan([missing(distil="", evaluate="c")], "cpu").totals.memory == GB


def test_what_cells_share_counts_once_in_the_total(probes):
    first, second = missing("A", needs="e"), missing("B", needs="e", distil="def", evaluate="def")
    plan = planning.plan([first, second, missing("A again")], "cpu")
    assert [row.totals.seconds for row in plan.rows] == [133, 133, 33]
    assert plan.totals.seconds - plan.once == 100 + 6 * 10 + 6 * 1
    assert plan.totals.disk == 50 + 6 * 20 + 6 * 1 + 9
    assert (plan.totals.distillations, plan.totals.trainings) == (6, 12)


def test_what_is_in_the_store_costs_nothing_and_is_not_probed(probes, monkeypatch):
    for kind in ("prerequisite", "distillation", "judging_of"):
        monkeypatch.setattr(planning.estimate, kind, lambda *_: pytest.fail("probed"))
    plan = planning.plan([missing(distil="", evaluate="")], "cpu")
    assert plan.totals == planning.Totals(0, 0, 0, 0, 0)
    assert planning.line(plan) == (
        "1 cells, 1 of them in the store; to do: 0 distillations and 0 trainings, about 0.0 s on this device"
    )
    assert planning.table(plan).splitlines()[-1].split() == ["DM", "1", "3/3", "-", "-", "-", "-"]


def test_plans_together_count_equal_cells_once(probes):
    one, two = planning.plan([missing("A")], "cpu"), planning.plan([missing("A"), missing("B", ipc=2)], "cpu")
    assert [str(row) for row in planning.together([one, two]).rows] == ["A at IPC 1 on digits", "B at IPC 2 on digits"]


def test_the_line_and_the_table_say_it_all(probes):
    plan = planning.plan([missing(needs="e"), missing("Random", ipc=10, distil="", evaluate="c")], "cpu")
    assert planning.line(plan) == (
        "2 cells, 0 of them in the store; to do: 3 distillations and 6 trainings, about 3.6 h on this device, "
        "peak memory 3.0 GB, 0.1 kB on disk"
    )
    head, rule, dm, random, once = planning.table(plan).splitlines()
    assert head.split() == ["cell", "IPC", "in", "store", "trainings", "time", "memory", "disk"] and set(rule) == {"-"}
    assert dm.split() == ["DM", "1", "0/3", "6", "2.2", "min", "3.0", "GB", "0.1", "kB"]
    assert random.split()[:3] == ["Random", "10", "2/3"] and once.split()[-2:] == ["3.6", "h"]
    long = planning.Plan((planning.Row(missing(), {"x": Estimate("x", 360_000.0)}, {}),))
    assert "about 100.0 h on this device" in planning.line(long)
    half = planning.plan([missing(distil="b", evaluate="bc")], "cpu")
    assert "1/3 + 1 distilled" in planning.table(half)


def test_a_cell_alone_above_the_memory_is_refused(probes):
    plan = planning.plan([missing("A", needs="e"), missing("B", distil="", evaluate="x")], "cpu")
    assert planning.refusals(plan, memory=3 * GB) == []
    assert planning.refusals(plan, memory=2 * GB) == ["A at IPC 1 on digits takes 3.0 GB of memory; allowed: 2.0 GB"]


def test_cells_beyond_the_budget_are_refused_in_order_and_leave_their_time_to_the_next(probes):
    cells = [missing("A"), missing("B", needs="e", distil="def", evaluate="def"), missing("C", distil="", evaluate="z")]
    plan = planning.plan(cells, "cpu")
    hours = (10_000 + 2 * 1000 + 33 + 1) / 3600
    assert planning.refusals(plan, budget_hours=100.0) == []
    (refused,) = planning.refusals(plan, budget_hours=hours)
    assert refused.startswith("B at IPC 1 on digits takes 2.2 min, done after ")
    assert [text.split()[0] for text in planning.refusals(plan, budget_hours=hours - 1e-6)] == ["B", "C"]
    assert [text.split()[0] for text in planning.refusals(plan, budget_hours=0.0)] == ["A", "B", "C"]
    done = planning.plan([missing(distil="", evaluate="")], "cpu")
    assert planning.refusals(done, budget_hours=0.0, memory=1) == []


def test_a_step_that_cannot_be_taken_is_told_with_its_cell(probes, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory: tried to allocate 80 GiB\nand more")

    monkeypatch.setattr(planning.estimate, "distillation", fail)
    with pytest.raises(ValueError, match=r"'DM' at IPC 1 cannot be estimated on cpu: out of memory: .* 80 GiB$"):
        planning.plan([missing()], "cpu")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1.0 min"), (3600, "1.0 h"), (36e5, "1000.0 h")]
)
def test_durations_are_readable(seconds, text):
    assert planning.duration(seconds) == text


def test_sizes_are_readable():
    assert [planning.size(n) for n in (0, 1500, 2_500_000, 16 * GB)] == ["0.0 kB", "1.5 kB", "2.5 MB", "16.0 GB"]


def small(label, **row):
    """A row of a notebook that takes no time."""
    return {label: {"method": label.lower(), **row}}


PARAMETERS = {
    "ipcs": [1],
    "seeds": [0, 1],
    "methods": small("Random") | small("Herding", epochs=1),
    "network": {"width": 8, "depth": 2},
    "evaluation": {"num_networks": 1, "epochs": 1},
}


def test_a_study_says_what_its_store_lacks(tmp_path):
    workplace = study.Workplace("cpu", folder=tmp_path / "runs", progress="none")
    cells = notebooks.cells("atom/accuracy", "quick", PARAMETERS)
    plan = study.plan(cells, workplace)
    assert [len(row.missing.needs) for row in plan.rows] == [0, 1]
    assert (plan.totals.distillations, plan.totals.trainings) == (4, 4)
    assert len(plan.rows[1].pieces) == 1 + 2 + 2
    study.synthetic_set(cells[1], 0, workplace)  # leaves the embedding and one set
    half = study.plan(cells, workplace).rows[1].missing
    assert (len(half.needs), len(half.distil), len(half.evaluate)) == (0, 1, 2)
    study.run(cells, workplace)
    assert study.outlook(cells, workplace).startswith("2 cells, 2 of them in the store; to do: 0 distillations")


def test_seeds_that_two_rows_share_are_planned_once(tmp_path):
    workplace = study.Workplace("cpu", folder=tmp_path / "runs", progress="none")
    rows = small("Random") | {"Random, 4 draws": {"method": "random", "seeds": [0, 1, 2, 3]}}
    plan = study.plan(notebooks.cells("atom/accuracy", "quick", PARAMETERS | {"methods": rows}), workplace)
    assert [len(row.missing.evaluate) for row in plan.rows] == [2, 4] and plan.totals.distillations == 4


@pytest.fixture
def output(tmp_path, monkeypatch):
    """A place of its own for what is computed, and a file of small parameters."""
    monkeypatch.setattr(study, "OUTPUT", tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(
        "ipcs: [1]\nseeds: [0]\nmethods: {Random: {method: random}, DM: {method: dm, iterations: 2, batch_real: 4}}\n"
        "network: {width: 8, depth: 2}\nevaluation: {num_networks: 1, epochs: 1}\n"
    )
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
        "ddlib: does not fit: Random at IPC 1 on digits", "ddlib: does not fit: DM at IPC 1 on digits",
    ]  # fmt: skip
    assert cli.main([*words, "--memory", "1 kB"]) == 2
    assert "allowed: 1.0 kB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["atom/acuracy"], "ddlib: unknown notebook 'atom/acuracy'; known: atom/accuracy"),
        (["atom/accuracy", "--device", "warp"], "say --device cpu"),
        (["atom/accuracy", "-f", "FILE:ipc: 1"], "ddlib: unknown parameter 'ipc'"),
        (["atom/accuracy", "-f", "FILE:ipcs: [100000]"], "ddlib: ipc=100000 is not in 1.."),
        (["atom/accuracy", "-f", "nowhere.yaml"], "nowhere.yaml"),
        (["atom/accuracy", "-f", "FILE:dataset: cifar10"], "ddlib data get cifar10"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_line(output, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path))
    given = [_written(tmp_path, word) if word.startswith("FILE:") else word for word in words]
    assert cli.main(["plan", *given]) == 2
    out, err = capsys.readouterr()
    told = [line for line in err.splitlines() if line.startswith("ddlib: ")]
    assert out == "" and len(told) == 1 and message in told[0]


def _written(folder, word):
    path = folder / "wish.yaml"
    path.write_text(word.removeprefix("FILE:"))
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "16"], "'16'; it must be a number with a unit, such as 16GB"),
        (["--budget-hours", "-1"], "'-1'; it must be a number of hours >= 0"),
        (["--budget-hours", "long"], "'long'; it must be a number of hours >= 0"),
    ],
)
def test_a_limit_that_is_none_is_refused(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["plan", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "count"), [("16GB", 16 * GB), ("512 mb", 512 * 10**6), ("1.5GiB", 3 * 2**29)])
def test_sizes_are_read(text, count):
    from ddlib.batch import cli

    assert cli._bytes(text) == count


def test_reading_is_measured_once(monkeypatch):
    monkeypatch.setattr(planning, "_READING", {})
    first = planning.read(cell(), "cpu", whitened=False)
    kept = dict(planning._READING)
    assert planning.read(cell(), "cpu", whitened=False)[0] is first[0] and kept == planning._READING
    assert list(kept) == ["reading digits for cpu"] and first[0] is datasets.load("digits", "train")


def test_the_benchmark_tells_a_prediction_that_is_off():
    assert benchmark.judge([(10.0, 11.0), (30.0, 10.0)]) == (1.0, True)
    assert benchmark.judge([(13.1, 10.0)])[1] is False and benchmark.judge([(6.9, 10.0)])[1] is False
