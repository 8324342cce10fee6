"""What steps cost: every method is measured, takes its turns, and stands beside what is reported."""

from types import SimpleNamespace

import pytest
import torch

from ddlib.analyses import costs
from ddlib.data import datasets
from ddlib.store import progress
from ddlib.study.rows import cells

ROWS = {
    "DM": {"method": "dm", "batch_real": 8},
    "ATOM, channel": {"method": "atom", "batch_real": 8, "w_spatial": 0.0},
    "DC": {"method": "dc", "batch_real": 8, "by_ipc": {4: {"matching_steps": 3, "network_epochs": 2}}},
    "MTT": {"method": "mtt", "gradient": "unrolled", "syn_steps": 4, "experts": 1, "shard": 1, "expert_training": 3,
            "max_start_epoch": 1},
    "MTT, adjoint": {"like": "MTT", "gradient": "adjoint"},
}  # fmt: skip


def rows_of(methods=None, **changes):
    told = {"dataset": "digits", "reference_dataset": "cifar10", "ipcs": (1, 4), "seeds": (0,), "evaluation": {}}
    told |= {"network": {"width": 8, "depth": 2}, "precision": "float32", "compiled": False}
    return cells(SimpleNamespace(**(told | {"methods": methods or ROWS} | changes)), paper="atom", table="cost")


@pytest.fixture(scope="module")
def spaces():
    return {False: datasets.load("digits", "train")}


@pytest.fixture(scope="module")
def rows(spaces):
    return costs.measure_steps(rows_of(), spaces, repeats=1)


def test_every_method_is_measured_at_every_number_of_images(rows):
    assert [(row["ipc"], row["method"]) for row in rows] == [(ipc, name) for ipc in (1, 4) for name in ROWS]
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows)
    assert {row["ipc"]: row["steps"] for row in rows if row["method"] == "DC"} == {1: 1, 4: 3}
    assert {row["steps"] for row in rows if row["method"] != "DC"} == {1}


def test_memory_grows_by_the_graphs_that_are_kept(rows):
    held = {(row["method"], row["ipc"]): row["bytes"] for row in rows}
    grown = {name: held[name, 4] - held[name, 1] for name in ROWS}
    assert grown["MTT"] > 2 * grown["MTT, adjoint"]
    assert held["MTT", 4] > 4 * 40 * 8 * 16 * 16 * 4  # N graphs of 40 images, at least the first map each


def test_steps_take_turns_and_the_median_is_told(spaces, monkeypatch):
    order, seconds = [], iter([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])
    step = costs.Runner.step
    monkeypatch.setattr(costs.Runner, "step", lambda self: order.append(self.method.name) or step(self))
    monkeypatch.setattr(costs, "timed", lambda work, device: (work(), next(seconds)))
    monkeypatch.setattr(progress, "peak_of_tensors", lambda work, device: 5)
    two = {"DM": ROWS["DM"], "ATOM": {"method": "atom", "batch_real": 8}}
    found = costs.measure_steps(rows_of(two, ipcs=(1,)), spaces, repeats=3)
    assert order == ["dm", "atom"] * 4  # one that is not timed, and three that are
    assert [row["seconds"] for row in found] == [2.0, 20.0]


def test_a_method_at_its_end_begins_anew(spaces):
    (cell,) = rows_of({"DM": ROWS["DM"] | {"iterations": 2}}, ipcs=(1,))
    runner = costs.Runner(cell.method, spaces[False], {}, 0)
    for expected in (1, 2, 1):
        runner.step()
        assert runner.state.step == expected


def test_what_does_not_fit_says_so(spaces, monkeypatch):
    step = costs.Runner.step

    def scarce(self):
        if self.method.name == "mtt":
            raise torch.OutOfMemoryError("no memory")
        step(self)

    monkeypatch.setattr(costs.Runner, "step", scarce)
    found = costs.measure_steps(rows_of({"DM": ROWS["DM"], "MTT": ROWS["MTT"]}, ipcs=(1,)), spaces, repeats=1)
    assert [(row["seconds"] is None, row["bytes"] is None) for row in found] == [(False, False), (True, True)]


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"repeats": 0}, "repeats=0; it must be >= 1"),
        ({"spaces": {True: None}}, "spaces lacks whitened=False; it has True"),
    ],
)
def test_what_cannot_be_measured_is_refused(spaces, told, match):
    with pytest.raises(ValueError, match=match):
        costs.measure_steps(rows_of(), **({"spaces": spaces} | told))
