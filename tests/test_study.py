"""From cells to records, on a small real set, with the store in a temporary folder."""

import pytest
from test_rows import CHOSEN, NETWORKS, RANDOM, cells

from ddlib import report, results, study
from ddlib.data import datasets, synthetic
from ddlib.store import artefacts, codeprint
from ddlib.study import planning, work
from ddlib.study.parameters import settings

SHORT = {"num_networks": 1, "epochs": 1}


def forbid(monkeypatch):
    """Make a distillation a failure of the test."""
    monkeypatch.setattr(artefacts.loop, "run", lambda *_, **__: pytest.fail("distilled again"))


def test_a_run_records_every_network_and_a_second_one_computes_nothing(workplace, monkeypatch):
    records = study.run(cells(), workplace)
    assert [(record.label, record.n) for record in records] == [("Random", 4), ("Herding", 4), ("ATOM", 4)]
    for record in records:
        assert all(0 <= accuracy <= 100 for accuracy in record.accuracies) and record.verdict == "PROXY"
        assert record.deviations[0] == "digits instead of cifar10"
        assert {"commit", "dirty", "versions", "device", "date", "data"} <= record.provenance.keys()
        assert record.provenance["parameters"] == study.fingerprint(settings(CHOSEN))
        assert record.provenance["code"] == codeprint.fingerprint(codeprint.EVALUATION)
        assert record.provenance["seeds"] == [0, 1]
        assert record.cost["images_shown"] == 10 and record.cost["bytes_stored"] > 0
    codes = [record.provenance["distilled"]["code"] for record in records]
    assert codes == [codeprint.fingerprint(codeprint.distillation(type(cell.method))) for cell in cells()]
    forbid(monkeypatch)
    monkeypatch.setattr(work.evaluation, "evaluate", lambda *_, **__: pytest.fail("trained again"))
    again = study.run(cells(), workplace, budget_hours=0.0)  # what is finished is shown whatever the budget
    assert [record.accuracies for record in again] == [record.accuracies for record in records]


def test_a_set_is_distilled_once_for_all_networks_and_evaluations(workplace, monkeypatch):
    study.run(cells(methods={"Random": RANDOM}, evaluation=SHORT), workplace)
    forbid(monkeypatch)
    study.run(cells(methods={"Random": RANDOM}, evaluation=SHORT | {"epochs": 2}), workplace)
    records = study.run(cells(methods={"Random": RANDOM}, evaluation=SHORT | {"networks": NETWORKS}), workplace)
    assert [record.network for record in records] == list(NETWORKS) and all(record.n == 2 for record in records)


@pytest.mark.parametrize(
    ("evaluation", "condition", "expected"),
    [
        ({}, "", {}),
        ({"networks": {"alexnet": {"network": "mlp"}}}, "", {"network": "alexnet"}),
        ({}, "fast", {"condition": "fast"}),
    ],
)
def test_a_record_stands_beside_what_the_paper_reports_for_it(evaluation, condition, expected, workplace, monkeypatch):
    looked_up = []
    monkeypatch.setattr(results, "find", lambda paper, **where: looked_up.append(where))
    (cell,) = cells(methods={"Random": RANDOM}, evaluation=SHORT | evaluation, seeds=[0])
    monkeypatch.setattr(type(cell.method), "condition", condition)
    study.run([cell], workplace)
    usual = {"network": "convnet", "condition": ""}
    assert looked_up == [{"table": "main", "method": "random", "dataset": "cifar10", "ipc": 1} | usual | expected]


DIM = {"method": "dim", "batch_size": 2000, "evaluation": {"batch_size": 10}}


@pytest.mark.parametrize(
    ("rows", "ipcs", "match"),
    [
        ({"Random": RANDOM}, [1, 1000], r"ipc=1000 is not in 1..131, the size of the smallest class"),
        ({"Random": RANDOM, "GLaD": {"method": "glad", "prior": "/nowhere"}}, [1], r"no prior '/nowhere': there is no"),
        ({"Random": RANDOM, "DiM": DIM}, [1], r"batch_size=2000; it must be at most 1352, all images"),
    ],
)
def test_what_cannot_be_begun_is_refused_before_any_cell_is(rows, ipcs, match, workplace):
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        study.run(cells(methods=rows, ipcs=ipcs), workplace)
    assert not list(workplace.folder.rglob("*"))


def test_the_whole_set_is_trained_on_whole(workplace):
    whole = cells(methods={"whole set": {"method": "whole", "seeds": [0]}}, evaluation=SHORT)[0]
    assert str(whole) == "whole set, digits, all images" and study.deviations(whole)[0] == "digits instead of cifar10"
    assert "whole set  " in planning.table(study.plan([whole], workplace))
    (record,) = study.run([whole], workplace)
    assert record.cost["images_shown"] == len(datasets.load("digits", "train")) and record.ipc is None
    assert "\nwhole set  all" in str(report.table([record]))


def test_a_cell_that_another_process_works_on_comes_last(workplace, monkeypatch):
    begun = []
    compute = study._computed
    monkeypatch.setattr(study, "_computed", lambda cell, place: (begun.append(cell.label), compute(cell, place))[1])
    monkeypatch.setattr(work, "under_way", lambda cell, _: cell.label == "Random" and len(begun) < 2)
    records = study.run(cells(evaluation=SHORT), workplace)
    assert begun == ["Herding", "ATOM", "Random"] and [r.label for r in records] == ["Random", "Herding", "ATOM"]


def test_work_under_way_is_seen_by_its_lock_and_finished_work_never_is(workplace):
    (cell,) = cells(methods={"Random": RANDOM}, evaluation=SHORT)
    lock = work.distillation(cell, 1, workplace).lock
    with artefacts.locked(lock, "the work"):
        assert work.under_way(cell, workplace)
    assert not work.under_way(cell, workplace)
    study.run([cell], workplace)
    with artefacts.locked(lock, "the work"):
        assert not work.under_way(cell, workplace)


def test_without_budget_nothing_is_begun_and_the_cost_is_estimated(workplace):
    records = study.run(cells(), workplace, budget_hours=0.0)
    assert [record.verdict for record in records] == ["NOT RUN"] * 3
    assert all(record.cost["estimated_hours"] > 0 and record.n == 0 for record in records)
    assert not list(workplace.folder.rglob("*.safetensors"))


def test_a_cell_that_comes_to_no_number_is_named_once_the_others_are_done(workplace, monkeypatch):
    compute = study._computed

    def spoilt(cell, place):
        if cell.label == "DM":
            raise FloatingPointError("the step size became -1")
        return compute(cell, place)

    monkeypatch.setattr(study, "_computed", spoilt)
    both = cells(methods={"DM": {"method": "dm"}, "Random": RANDOM}, evaluation=SHORT)
    with pytest.raises(FloatingPointError, match=r"^DM, digits, IPC 1: the step size became -1$"):
        study.run(both, workplace)
    assert [study.finished(cell, workplace) for cell in both] == [False, True]


def test_a_set_says_where_it_comes_from_and_every_metric_is_kept(workplace):
    *_, atom = cells()
    made = study.synthetic_set(atom, 1, workplace)
    assert isinstance(made, synthetic.SyntheticSet)
    assert dict(made.provenance) == {"method": "atom", "seed": 1, "dataset": "digits", "iterations": 2, "batch_real": 4}
    history = study.history(atom, 1, workplace)
    assert "loss" in history and all([step for step, _ in points] == [1, 2] for points in history.values())


def test_seeds_of_different_days_and_commits_are_told_apart(workplace, monkeypatch):
    (cell,) = cells(methods={"Random": RANDOM}, evaluation=SHORT)
    for seed, commit in zip(cell.seeds, "ab", strict=True):
        origin = {"commit": commit, "dirty": commit == "a", "date": f"2026-11-2{seed}"}
        monkeypatch.setattr(work, "provenance", lambda *_, origin=origin: origin)
        monkeypatch.setattr(artefacts, "provenance", lambda *_, origin=origin: origin)
        work.evaluated(cell, seed, workplace)
    (record,) = study.run([cell], workplace)
    both = {"commit": ["a", "b"], "dirty": True, "date": ["2026-11-20", "2026-11-21"]}
    assert both.items() <= record.provenance.items() and record.provenance["distilled"] == both


def test_records_and_measurements_are_kept_where_reports_look_for_them(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "OUTPUT", tmp_path)
    records = study.run(cells(methods={"Random": RANDOM}, evaluation=SHORT), workplace)
    path = study.keep(records, "atom/accuracy", "quick")
    assert path == tmp_path / "results/atom/accuracy.quick.json" and results.read(path) == records
    train, chosen = datasets.load("digits", "train"), settings({"profile": "quick", "dataset": "digits"})
    measured = study.measured({"rows": [{"N": 1}]}, chosen, train, "ddlib.store.loop")
    path = study.keep(measured, "datm/cost", "quick")
    assert path == tmp_path / "results/datm/cost.quick.json" and results.read_measurements(path) == measured
    origin = measured.provenance
    assert (origin["parameters"], origin["data"]) == (study.fingerprint(chosen), train.fingerprint)
    assert origin["code"] == codeprint.fingerprint(("ddlib.store.loop",)) and measured.modules == ("ddlib.store.loop",)


@pytest.mark.parametrize("which", ["runs", "results", "figures"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(which, tmp_path, monkeypatch):
    (tmp_path / which).write_text("a file where a folder should be")
    monkeypatch.setattr(artefacts, "OUTPUT", tmp_path)
    with pytest.raises(
        OSError, match=rf"folder='.*{which}' cannot be written \(.*\); allowed: a folder that can; DDLIB"
    ):
        study.Workplace("cpu", folder=tmp_path / "runs")


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"progress": "loud"}, "progress='loud'; it must be one of auto, bar, lines, none"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds=-1; it must be >= 0"),
        ({"device": "warp"}, "device='warp' cannot be used here"),
    ],
)
def test_a_workplace_that_cannot_be_is_refused(setting, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        study.Workplace(folder=tmp_path / "runs", **setting)
