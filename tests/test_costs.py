"""The cost of a gradient and TESLA's error, as rows: against direct measurements and the gradients themselves."""

import pytest
import torch

from ddlib import results
from ddlib.analyses import costs
from ddlib.data import datasets
from ddlib.methods import unrolling
from ddlib.pretraining.experts import Experts
from ddlib.store import progress


@pytest.fixture(scope="module")
def train():
    return datasets.load("digits", "train")


@pytest.fixture(scope="module")
def scene(train):
    return costs.prepare(train, Experts(width=8, depth=2, epochs=3, kept=3, batch_size=256, optimizer="sgd"), ipc=2)


@pytest.fixture(scope="module")
def rows(scene):
    return costs.measure_gradients(scene, steps=[1, 6], batches=[4, 20], repeats=1)


def test_every_method_is_measured_at_every_size(rows):
    places = {(row["method"], row["N"], row["B"]) for row in rows}
    assert places == {(m, n, b) for m in unrolling.GRADIENTS for n in (1, 6) for b in (4, 20)} and len(rows) == 12
    assert all(row["seconds"] > 0 and row["bytes"] > 0 for row in rows)


def test_the_memory_of_unrolling_grows_by_graphs_and_that_of_the_adjoint_by_vectors(rows, scene):
    held = {(row["method"], row["N"], row["B"]): row["bytes"] for row in rows}
    vector = 4 * scene.student.network.flat.size
    for batch in (4, 20):
        grown = {method: held[method, 6, batch] - held[method, 1, batch] for method in ("adjoint", "unrolled")}
        assert grown["adjoint"] < 10 * vector + batch * 5 * 4096
        assert grown["unrolled"] > 5 * batch * 8 * 16 * 16 * 4 * 4  # a graph keeps several of the largest maps


def test_what_is_expected_is_what_is_found(rows):
    for row in rows:
        assert row["expected"] == pytest.approx(row["bytes"], rel=0.15), row


def test_what_would_need_too_much_is_not_run(scene, monkeypatch):
    ran = []
    gradient = costs.Scene.gradient
    monkeypatch.setattr(
        costs.Scene,
        "gradient",
        lambda self, method, **told: ran.append((method, told["steps"])) or gradient(self, method, **told),
    )
    found = costs.measure_gradients(scene, steps=[2, 1000], batches=[4], methods=["unrolled"], repeats=1, limit=5e6)
    assert [row["seconds"] is None for row in found] == [False, True]
    assert found[1]["bytes"] is None and found[1]["expected"] > 5e6
    assert max(number for _, number in ran) == 2


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"steps": [0], "batches": [4]}, r"steps contain 0; allowed: >= 1"),
        ({"steps": [1], "batches": [4, 21]}, r"batches contain 21; allowed: in \[1, 20\], the images of the scene"),
    ],
)
def test_sizes_that_the_scene_does_not_allow_are_refused(scene, told, match):
    with pytest.raises(ValueError, match=match):
        costs.measure_gradients(scene, **told)


def test_more_images_than_a_class_has_are_refused(train):
    with pytest.raises(ValueError, match=r"ipc=1000 is not in 1..\d+, the size of the smallest class"):
        costs.prepare(train, Experts(), ipc=1000)


def test_an_epoch_that_is_not_kept_is_refused(scene):
    with pytest.raises(ValueError, match="epoch=5 is not stored"):
        costs.disagreement(scene, steps=[1], lrs=[0.01], starts=[3], span=2, batch=4)


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


def test_measurements_come_back_as_they_were_written(tmp_path, rows):
    measured = results.Measurements({"costs": rows, "none": []}, ("ddlib.analyses.costs",), {"code": "0" * 16})
    path = results.write_measurements(measured, tmp_path / "datm" / "cost.quick.json")
    assert results.read_measurements(path) == measured
    assert results.read_measurements(results.write([], tmp_path / "records.json")) is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "is not whole"),
        ('{"tables": {}}', "holds neither records nor measurements, which have modules, provenance, tables"),
        ("3", "holds neither"),
    ],
)
def test_other_files_are_refused_as_measurements(tmp_path, text, match):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        results.read_measurements(tmp_path / "x.json")


def test_what_is_no_json_is_refused_as_measurements():
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
