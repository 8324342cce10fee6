"""What steps cost: every method is measured, takes its turns, and stands beside what is reported."""

from types import SimpleNamespace

import pytest
import torch

from ddlib import report, results
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
    assert [row[-1] for row in report.step_table(found, {}).groups[0][1]] == ["measured", "out of memory"]
    assert len(report.step_lines(found).axes[0].lines) == 1


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


COSTS = [
    {"method": "DM", "ipc": 1, "steps": 1, "seconds": 0.01, "bytes": 2e6},
    {"method": "DC", "ipc": 1, "steps": 1, "seconds": 0.05, "bytes": 4e6},
    {"method": "ATOM, channel", "ipc": 1, "steps": 1, "seconds": 0.02, "bytes": 2e6},
    {"method": "DM", "ipc": 10, "steps": 1, "seconds": 0.02, "bytes": 3e6},
    {"method": "DC", "ipc": 10, "steps": 10, "seconds": 0.5, "bytes": 9e6},
]


def test_the_table_has_ratios_and_what_the_poster_reports():
    reported = [r for r in results.references("atom") if r.table == "cost"]
    found = report.step_table(COSTS, {"commit": "a"}, reported=reported)
    dm, dc, channel, _, ten = found.groups[0][1]
    assert dm == ("DM", "1", "10.0", "x 1.00", "2.0", "x 1.00", "1", "0.08 ‡", "3323 ‡", "measured")
    assert dc[2:7] == ("50.0", "x 5.00", "4.0", "x 2.00", "1")
    assert channel[7:9] == ("not found", "not found")
    assert ten[3] == "x 25.00" and ten[6:9] == ("10", "3.31 ‡", "3621 ‡")
    assert any("never a verdict: the hardware is not stated" in note for note in found.notes)


def test_the_figure_has_a_line_a_method():
    time, held = report.step_lines(COSTS).axes
    assert [line.get_xydata().tolist() for line in time.lines] == [
        [[1, 0.01], [10, 0.02]],
        [[1, 0.05], [10, 0.5]],
        [[1, 0.02]],
    ]
    assert held.lines[1].get_ydata().tolist() == [4, 9]
    assert (time.get_yscale(), held.get_yscale(), time.get_xscale()) == ("log", "linear", "log")
    assert report.step_lines([]).texts[0].get_text() == "nothing was measured"


def test_rows_without_what_they_need_are_refused():
    with pytest.raises(ValueError, match="lacks steps, bytes; it must have method, ipc, steps, seconds, bytes"):
        report.step_table([{"method": "DM", "ipc": 1, "seconds": 1.0}], {})
