"""The gradient of the unrolled inner loop: adjoint against automatic differentiation and closed forms."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ddlib import models, seeding
from ddlib.data.augmentation import augment, draw
from ddlib.methods import unrolling
from ddlib.models import passes, second_order
from ddlib.store.progress import peak_of_tensors

SHAPE, K, N_SYN = (3, 8, 8), 4, 10


def network(precision="float32", **more):
    return passes.pure("convnet", {"width": 6, "depth": 2} | more, shape=SHAPE, num_classes=K, precision=precision)


def make_student(**more):
    return unrolling.student(network(**more))


def setting(student, steps, *, dtype=torch.float64, batch=4, strategy="color_crop_cutout_flip_scale_rotate", seed=0):
    """A start, a goal near it, a soft-labelled set, and mini-batches that do not divide it."""
    stream = seeding.generator(seed, "setting")
    randn = lambda *size: torch.randn(size, generator=stream, dtype=torch.float64).to(dtype)  # noqa: E731
    start = 0.3 * randn(student.network.flat.size)
    images, labels = randn(N_SYN, *SHAPE), randn(N_SYN, K)
    order = torch.cat([torch.randperm(N_SYN, generator=stream) for _ in range(1 + steps * batch // N_SYN)])
    chunks = [rows for part in order.split(N_SYN) for rows in part.split(batch)][:steps]  # the last of a part is short
    batches = []
    for rows in chunks:
        draws = draw(1, len(rows), size=SHAPE[1:], strategy=strategy, generator=stream)
        batches.append(unrolling.MiniBatch(rows, lambda x, draws=draws: augment(x, draws)))
    given = {"images": images, "targets": labels.softmax(1), "lr": torch.tensor(0.05, dtype=dtype), "batches": batches}
    return (student, start, start + 0.1 * randn(student.network.flat.size)), given


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("steps", [1, 3, 10, 50])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_adjoint_is_the_gradient_of_the_unrolled_loop(steps, dtype, tolerance):
    where, given = setting(make_student(), steps, dtype=dtype)
    assert any(len(batch.rows) < 4 for batch in given["batches"]) or steps < 3
    wanted, found = unrolling.unrolled(*where, **given), unrolling.adjoint(*where, piece=3, **given)
    for name in ("loss", "images", "targets", "lr", "end"):
        assert relative(getattr(found, name), getattr(wanted, name)) < tolerance, name


def test_the_gradient_agrees_with_finite_differences_in_every_argument():
    student = make_student(activation="swish")  # smooth, so that differences converge
    where, given = setting(student, 3)
    found = unrolling.adjoint(*where, **given)
    for name in ("images", "targets", "lr"):
        direction = torch.randn(given[name].shape, generator=seeding.generator(1, name), dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            moved = given | {name: given[name] + sign * 1e-6 * direction}
            losses.append(unrolling.adjoint(*where, **moved).loss)
        slope = (losses[0] - losses[1]) / 2e-6
        assert float(slope) == pytest.approx(float((getattr(found, name) * direction).sum()), rel=1e-5), name


def test_above_the_limit_the_sweep_is_left_out():
    (student, *ends), given = setting(make_student(), 3)
    loss = unrolling.adjoint(student, *ends, **given).loss
    at, below = (unrolling.adjoint(student, *ends, limit=float(loss) * share, **given) for share in (1.0, 0.999))
    assert at.images.abs().sum() > 0 and below.loss == loss
    assert not below.images.any() and not below.targets.any() and not below.lr.any()


@pytest.mark.parametrize("way", [unrolling.adjoint, unrolling.tesla])
def test_graphs_are_kept_as_memory_allows_and_no_bit_depends_on_it(way):
    where, given = setting(make_student(), 5, dtype=torch.float32)
    bytes_each = unrolling.graph_bytes(where[0], torch.float32, SHAPE, K)
    kinds = [way(*where, piece=3, memory_gb=images * bytes_each / 1e9, **given) for images in (0, 7.5, 100)]
    for name in ("images", "targets", "lr", "end"):
        assert all(torch.equal(getattr(kind, name), getattr(kinds[0], name)) for kind in kinds), name


def test_the_memory_of_graphs_is_what_was_counted():
    where, given = setting(make_student(width=32), 6, dtype=torch.float32)
    bytes_each = unrolling.graph_bytes(where[0], torch.float32, SHAPE, K)
    images = sum(len(batch.rows) for batch in given["batches"])
    none, half, whole = (
        peak_of_tensors(lambda n=n: unrolling.adjoint(*where, memory_gb=n * bytes_each / 1e9, **given), "cpu")
        for n in (0, images // 2, images)
    )
    assert whole - none == pytest.approx(images * bytes_each, abs=2 * 4 * bytes_each)
    assert none < half < whole and half - none <= images // 2 * bytes_each


def test_where_bits_would_depend_on_graphs_they_are_kept_on_demand_alone(monkeypatch):
    monkeypatch.setattr(unrolling, "MEMORY_GB", 1.0)
    for options, kept in (({}, True), ({"norm": "layer"}, False), ({"precision": "bfloat16"}, False)):
        student, records = make_student(**options), []
        (_, start, goal), given = setting(student, 2, dtype=torch.float32)

        def record(*arguments, student=student, records=records):
            records.append(len(arguments[1]))
            return student.record(*arguments)

        counted = replace(student, record=record)
        unrolling.adjoint(counted, start, goal, **given)
        assert records.count(4) == 2 * kept, options  # fewer images are those of `graph_bytes`
        unrolling.adjoint(counted, start, goal, memory_gb=1.0, **given)
        assert records.count(4) == 2 * kept + 2


@pytest.mark.parametrize("shape", [(3, 9, 11), (1, 28, 28), (3, 16, 16)])
def test_layers_with_second_derivatives_written_out_compute_what_torchs_do(shape):
    stream = seeding.generator(0, "layers")
    plain = models.build("convnet", shape=shape, num_classes=K, width=7, depth=2, generator=stream).double()
    randn = lambda like: torch.randn(like.shape, generator=stream, dtype=torch.float64)  # noqa: E731
    for parameter in plain.parameters():
        parameter.data += 0.3 * randn(parameter)
    images = randn(torch.empty(4, *shape)).requires_grad_()
    directions = [randn(parameter) for parameter in plain.parameters()]
    results = []
    for network in (plain, second_order.twice(plain), second_order.twice(plain, values=False)):
        parameters = list(network.parameters())
        slopes = torch.autograd.grad(network(images).log_softmax(1)[:, 1].sum(), parameters, create_graph=True)
        results.append((slopes, torch.autograd.grad(slopes, [images, *parameters], directions)))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(results[2][1], results[1][1], rtol=0, atol=0)
    assert second_order.twice(models.build("resnet10", shape=(3, 32, 32), num_classes=K)) is None


def test_on_a_linear_model_the_adjoint_is_the_closed_form():
    """With softmax replaced by a quadratic, theta_N is known: theta* - theta_N = (I - aH)^N (theta* - theta_0)."""
    H = torch.diag(torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64))

    def loss(theta, images, targets):
        return 0.5 * theta @ H @ theta * len(images) + 0 * (images.sum() + targets.sum()) * theta.sum()

    student = unrolling.Student(SimpleNamespace(elements=4), loss, *unrolling._by_autograd(loss))
    start, goal = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    given = {
        "images": torch.zeros(2, 1, 2, 2, dtype=torch.float64),
        "targets": torch.zeros(2, 2, dtype=torch.float64),
        "lr": torch.tensor(0.1, dtype=torch.float64),
        "batches": [unrolling.MiniBatch(torch.arange(2))] * 7,
    }
    factor = 1 - 0.1 * torch.diagonal(H)
    found = unrolling.adjoint(student, start, goal, **given)
    torch.testing.assert_close(found.end, factor**7)
    torch.testing.assert_close(found.loss, (factor**14).sum() / 3)
    torch.testing.assert_close(found.lr, (-14 * torch.diagonal(H) * factor**13).sum() / 3)
    frozen = unrolling.tesla(student, start, goal, **given)  # sum_i <lambda_N, g_i>, with g_i = H factor^i
    powers = sum(factor**i for i in range(7))
    torch.testing.assert_close(frozen.lr, -(2 * factor**7 / 3 * torch.diagonal(H) * powers).sum())


def test_tesla_is_exact_for_one_step_and_not_beyond():
    for steps, exact in ((1, True), (20, False)):
        where, given = setting(make_student(), steps)
        wanted, found = unrolling.adjoint(*where, **given), unrolling.tesla(*where, **given)
        assert relative(found.loss, wanted.loss) < 1e-12
        error = relative(found.images, wanted.images)
        assert error < 1e-12 if exact else error > 1e-3


def test_tesla_differentiates_each_step_through_its_own_data_alone():
    """Written as published: expand ||theta_0 - theta* - a sum g_i||^2, theta_i held fixed within g_i."""
    (student, start, goal), given = setting(make_student(), 6)
    images, targets, lr = (given[name].clone().requires_grad_() for name in ("images", "targets", "lr"))
    theta, total = start, torch.zeros_like(start)
    for batch in given["batches"]:
        theta = theta.detach().requires_grad_()
        inner = student.loss(theta, batch.transform(images[batch.rows]), targets[batch.rows]) / len(batch.rows)
        (slope,) = torch.autograd.grad(inner, theta, create_graph=True)
        total, theta = total + slope, theta - lr.detach() * slope.detach()
    loss = (start - goal - lr * total).square().sum() / (start - goal).square().sum()
    found = unrolling.tesla(student, start, goal, **given)
    for name, wanted in zip(("images", "targets", "lr"), torch.autograd.grad(loss, (images, targets, lr)), strict=True):
        assert relative(getattr(found, name), wanted) < 1e-10, name


def test_what_is_compiled_computes_what_the_eager_passes_do(monkeypatch):
    monkeypatch.setattr(unrolling.passes, "compiled", lambda function: function)  # the functions, uncompiled
    eager, functional = (unrolling.student(network(width=5), compiled) for compiled in (False, True))
    assert functional.vjp is not eager.vjp
    (_, start, goal), given = setting(eager, 4)
    for way in (unrolling.adjoint, unrolling.tesla):
        wanted, found = (way(student, start, goal, **given) for student in (eager, functional))
        for name in ("loss", "images", "targets", "lr", "end"):
            assert relative(getattr(found, name), getattr(wanted, name)) < 1e-12, name
            assert not getattr(wanted, name).requires_grad, name
    unrolling.student.cache_clear()


def test_bfloat16_keeps_the_direction_of_the_gradient():
    student, half = make_student(), make_student(precision="bfloat16")
    assert student is make_student() is not half, "one kind is one object"
    (_, start, goal), given = setting(student, 5, dtype=torch.float32)
    wanted, found = (unrolling.adjoint(s, start, goal, **given) for s in (student, half))
    for name in ("images", "targets"):
        cosine = torch.cosine_similarity(getattr(found, name).flatten(), getattr(wanted, name).flatten(), dim=0)
        assert cosine > 0.99, name
    assert found.images.dtype == torch.float32
    with pytest.raises(ValueError, match="batch statistics.*take norm 'instance'"):
        make_student(norm="batch")
