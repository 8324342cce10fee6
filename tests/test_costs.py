"""What a gradient and a step cost, and TESLA's error: against direct measurements and the gradients themselves."""

import pytest
import torch
from test_rows import cells

from ddlib import results
from ddlib.analyses import costs
from ddlib.methods import unrolling
from ddlib.pretraining.experts import Experts
from ddlib.store import progress


@pytest.fixture(scope="module")
def scene(train):
    return costs.prepare(train, Experts(width=8, depth=2, epochs=3, kept=3, batch_size=256, optimizer="sgd"), ipc=2)


@pytest.fixture(scope="module")
def gradient_rows(scene):
    return costs.measure_gradients(scene, steps=[1, 6], batches=[4, 20], repeats=1)


def test_every_method_is_measured_at_every_size_and_takes_what_was_expected(gradient_rows):
    places = {(row["method"], row["N"], row["B"]) for row in gradient_rows}
    assert places == {(m, n, b) for m in unrolling.GRADIENTS for n in (1, 6) for b in (4, 20)}
    assert all(row["seconds"] > 0 for row in gradient_rows) and len(gradient_rows) == 12
    for row in gradient_rows:
        assert row["expected"] == pytest.approx(row["bytes"], rel=0.15) and row["bytes"] > 0


def test_the_memory_of_unrolling_grows_by_graphs_and_that_of_the_adjoint_by_vectors(gradient_rows, scene):
    held = {(row["method"], row["N"], row["B"]): row["bytes"] for row in gradient_rows}
    vector = 4 * scene.student.network.flat.size
    for batch in (4, 20):
        grown = {method: held[method, 6, batch] - held[method, 1, batch] for method in ("adjoint", "unrolled")}
        assert grown["adjoint"] < 10 * vector + batch * 5 * 4096
        assert grown["unrolled"] > 5 * batch * 8 * 16 * 16 * 4 * 4  # a graph keeps several of the largest maps


def test_what_would_need_too_much_is_not_run(scene):
    found = costs.measure_gradients(scene, steps=[2, 1000], batches=[4], repeats=1, limit=5e6)
    unrolled = [row for row in found if row["method"] == "unrolled"]
    assert [row["seconds"] is None for row in unrolled] == [row["bytes"] is None for row in unrolled] == [False, True]
    assert unrolled[1]["expected"] > 5e6


def test_sizes_and_epochs_that_there_are_not_are_refused(scene, train):
    with pytest.raises(ValueError, match=r"steps contain 0; allowed: in \[1, inf\]"):
        costs.measure_gradients(scene, steps=[0], batches=[4])
    with pytest.raises(ValueError, match=r"batches contain 21; allowed: in \[1, 20\]"):
        costs.measure_gradients(scene, steps=[1], batches=[4, 21])
    with pytest.raises(ValueError, match=r"ipc=1000 is not in 1..\d+, the size of the smallest class"):
        costs.prepare(train, Experts(), ipc=1000)
    with pytest.raises(ValueError, match="epoch=5 is not stored"):
        costs.disagreement(scene, steps=[1], lrs=[0.01], starts=[3], span=2, batch=4)
    with pytest.raises(ValueError, match="repeats=0; it must be >= 1"):
        costs.measure_steps(cells_of(), {False: train}, repeats=0)


def test_teslas_gradient_is_compared_with_the_exact_one(scene):
    found = costs.disagreement(scene, steps=[1, 20], lrs=[0.05], starts=[0, 2], span=1, batch=10)
    assert [(row["start"], row["N"]) for row in found] == [(0, 1), (0, 20), (2, 1), (2, 20)]
    for row in found:
        told = {"steps": row["N"], "batch": 10, "lr": 0.05, "start": row["start"], "span": 1}
        exact, tesla = (scene.gradient(method, **told) for method in ("unrolled", "tesla"))
        cosine = torch.cosine_similarity(exact.images.flatten(), tesla.images.flatten(), dim=0)
        assert row["images"] == pytest.approx(float(cosine), abs=1e-4)
        assert row["images_norm"] == pytest.approx(float(tesla.images.norm() / exact.images.norm()), rel=1e-3)
        assert row["lr"] == pytest.approx(float(exact.lr), rel=1e-3)
        assert (row["images"] > 1 - 1e-5) == (row["N"] == 1)


def test_the_labels_are_compared_as_logits(scene):
    logits = scene.logits.clone().requires_grad_()
    gradient = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (wanted,) = torch.autograd.grad(logits.softmax(1), logits, gradient)
    torch.testing.assert_close(costs._in_logits(logits.detach(), gradient), wanted)


ROWS = {
    "DM": {"method": "dm", "batch_real": 8},
    "ATOM, channel": {"method": "atom", "batch_real": 8, "w_spatial": 0.0},
    "DC": {"method": "dc", "batch_real": 8, "by_ipc": {4: {"matching_steps": 3, "network_epochs": 2}}},
    "MTT": {"method": "mtt", "gradient": "unrolled", "syn_steps": 4, "experts": 1, "shard": 1, "expert_training": 3,
            "max_start_epoch": 1},
    "MTT, adjoint": {"like": "MTT", "gradient": "adjoint"},
}  # fmt: skip


def cells_of(methods=ROWS, ipcs=(1, 4)):
    return cells(methods=methods, ipcs=[*ipcs], seeds=[0], evaluation={})


@pytest.fixture(scope="module")
def step_rows(train):
    return costs.measure_steps(cells_of(), {False: train}, repeats=1)


def test_every_method_is_stepped_at_every_number_of_images(step_rows):
    """Memory grows by the graphs that are kept."""
    assert [(row["ipc"], row["method"]) for row in step_rows] == [(ipc, name) for ipc in (1, 4) for name in ROWS]
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in step_rows)
    assert {row["ipc"]: row["steps"] for row in step_rows if row["method"] == "DC"} == {1: 1, 4: 3}
    assert {row["steps"] for row in step_rows if row["method"] != "DC"} == {1}
    held = {(row["method"], row["ipc"]): row["bytes"] for row in step_rows}
    grown = {name: held[name, 4] - held[name, 1] for name in ROWS}
    assert grown["MTT"] > 2 * grown["MTT, adjoint"]
    assert held["MTT", 4] > 4 * 40 * 8 * 16 * 16 * 4  # N graphs of 40 images, at least the first map each


def test_steps_take_turns_and_the_median_is_told(train, monkeypatch):
    order, seconds = [], iter([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])
    step = costs.Runner.step
    monkeypatch.setattr(costs.Runner, "step", lambda self: order.append(self.method.name) or step(self))
    monkeypatch.setattr(costs, "timed", lambda work, device: (work(), next(seconds)))
    monkeypatch.setattr(progress, "peak_of_tensors", lambda work, device: 5)
    two = {"DM": ROWS["DM"], "ATOM": {"method": "atom", "batch_real": 8}}
    found = costs.measure_steps(cells_of(two, ipcs=(1,)), {False: train}, repeats=3)
    assert order == ["dm", "atom"] * 4  # one that is not timed, and three that are
    assert [row["seconds"] for row in found] == [2.0, 20.0]


def test_a_method_at_its_end_begins_anew(train):
    (cell,) = cells_of({"DM": ROWS["DM"] | {"iterations": 2}}, ipcs=(1,))
    runner = costs.Runner(cell.method, train, {}, 0)
    for expected in (1, 2, 1):
        runner.step()
        assert runner.state.step == expected


def test_what_does_not_fit_says_so(train, monkeypatch):
    step = costs.Runner.step

    def scarce(self):
        if self.method.name == "mtt":
            raise torch.OutOfMemoryError("no memory")
        step(self)

    monkeypatch.setattr(costs.Runner, "step", scarce)
    found = costs.measure_steps(cells_of({"DM": ROWS["DM"], "MTT": ROWS["MTT"]}, ipcs=(1,)), {False: train}, repeats=1)
    assert [(row["seconds"] is None, row["bytes"] is None) for row in found] == [(False, False), (True, True)]


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "is not whole"), ('{"tables": {}}', "holds neither records nor measurements"), ("3", "holds neither")],
)
def test_other_files_are_refused_as_measurements(tmp_path, text, match):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        results.read_measurements(tmp_path / "x.json")
    with pytest.raises(ValueError, match="tables of measurements is not plain JSON"):
        results.Measurements({"costs": [{"seconds": float("nan")}]}, (), {})


def test_the_peak_of_tensors_is_what_they_hold_at_once():
    def work():
        first = torch.ones(2**20)
        del first
        a, b = torch.ones(2**20), torch.ones(2**19)
        del a
        return b + 1

    assert progress.peak_of_tensors(work, "cpu") == 6 * 2**20
