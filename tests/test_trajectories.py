"""Experts take the steps of their equations, are the same however they are made, and are kept as what they are."""

import contextlib
import dataclasses
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from draws import equal, normal, seeded
from few_digits import cut_and_resumed, digits, product

from ddlib import models, seeding, study
from ddlib.data import augmentation, datasets
from ddlib.models import passes
from ddlib.pretraining import experts as training
from ddlib.pretraining.experts import Experts, Trajectories, split
from ddlib.store import artefacts
from ddlib.store.files import read_tensors, write_tensors
from ddlib.study import planning, work

SMALL = {"width": 8, "depth": 2, "count": 2, "epochs": 3, "kept": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def train():
    """Thirty images of each digit: with batches of 64, four and one of 44."""
    return digits(30)


def made(train, **changed):
    """The product of small experts with some settings changed."""
    return product(Experts(**(SMALL | changed)), train)


def network():
    """The experts' network for digits, with its gradients in reach."""
    return models.build("convnet", shape=(1, 16, 16), num_classes=10, width=8, depth=2, generator=seeded())


def learner(precision="float32"):
    """The same network as functions of a vector."""
    options = {"norm": "instance", "width": 8, "depth": 2}
    kind = passes.pure("convnet", options, shape=(1, 16, 16), num_classes=10, precision=precision)
    return training.learner(kind, compiled=False)


def batch(count=20):
    """Standard normal images in float64, (count, 1, 16, 16), and labels."""
    return normal(count, 1, 16, 16, dtype=torch.float64), torch.arange(count) % 10


def test_a_gsam_step_is_that_of_its_equations():
    model, (images, labels) = network().double(), batch()
    vector = learner().flat.vector(dict(model.named_parameters()))
    lr, rho, alpha = 0.1, 0.05, 0.3

    def gradient(theta):
        return training.mean_gradient(learner(), theta, images[None], labels[None])[0]

    def plain(theta):
        torch.nn.utils.vector_to_parameters(theta, model.parameters())
        slopes = torch.autograd.grad(F.cross_entropy(model(images), labels), list(model.parameters()))
        return torch.nn.utils.parameters_to_vector(slopes)

    g = plain(vector)
    q = plain(vector + rho * vector.square() * g / ((vector.abs() * g).norm() + 1e-12))
    expected = vector - lr * (q - alpha * (g - (g @ q) / (q @ q) * q))
    found = training.gsam(vector[None], gradient, lr=lr, rho=rho, alpha=alpha)[0]
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert (found - training.sgd(vector[None], gradient, lr=lr)[0]).norm() > 1e-6 * lr  # and is not that of SGD


def test_sgd_experts_are_those_of_a_plain_loop(train):
    seed, strategy = 5, augmentation.strategy_for("digits")
    shape = {"shape": train.shape, "num_classes": 10, "width": 8, "depth": 2}
    model = models.build("convnet", **shape, generator=seeding.generator(seed, "experts", "network", 4))
    optimiser, course = torch.optim.SGD(model.parameters(), lr=0.05), []
    for epoch in range(3):
        course.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
        order = torch.randperm(300, generator=seeding.generator(seed, "experts", "shuffle", 4, epoch))
        for number, rows in enumerate(order.split(64)):
            stream = seeding.generator(seed, "experts", "augmentation", 4, epoch, number)
            draws = augmentation.draw(1, len(rows), size=train.shape[1:], strategy=strategy, generator=stream)
            optimiser.zero_grad()
            F.cross_entropy(model(augmentation.augment(train.take(rows), draws)), train.labels[rows]).backward()
            optimiser.step()
    course.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach())

    shard = Trajectories.of([made(train, optimizer="sgd", lr=0.05, seed=seed, first=3, kept=3)])
    for epoch, expected in enumerate(course):
        assert torch.allclose(shard.vector(1, epoch), expected, rtol=0, atol=1e-5), epoch
    assert (course[3] - course[0]).norm() > 0.1


@pytest.mark.parametrize("elements", [1, 7 * 2048, 2**30])
def test_micro_batches_add_up_to_the_gradient_of_the_mini_batch(elements, monkeypatch):
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", elements)
    model, (images, labels) = network().double(), batch()
    theta = learner().flat.vector(dict(model.named_parameters()))
    loss = F.cross_entropy(model(images), labels)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    gradient, losses = training.mean_gradient(learner(), theta[None], images[None], labels[None])
    assert torch.allclose(gradient[0], expected, rtol=0, atol=1e-12)
    assert torch.allclose(losses[0], loss.detach())


def test_bfloat16_is_close_to_float32_and_keeps_float32_parameters():
    images, labels = (t[None] for t in batch(50))
    theta = learner().flat.vector(dict(network().named_parameters()))[None]
    exact, short = (training.mean_gradient(learner(p), theta, images.float(), labels)[0] for p in passes.PRECISIONS)
    assert short.dtype == torch.float32
    assert not torch.equal(short, exact) and F.cosine_similarity(short, exact) > 0.99


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_an_expert_is_the_same_in_every_shard_and_however_many_are_trained_at_once(optimizer, train):
    whole = Trajectories.of([made(train, optimizer=optimizer, count=3)])
    alone = Trajectories.of([made(train, optimizer=optimizer, first=2, count=1)])
    together = Trajectories.of([made(train, optimizer=optimizer, count=3, at_once=2)])
    assert torch.equal(whole.last(2), alone.last(0))
    for expert in range(3):
        assert torch.equal(whole.vector(expert, 0), together.vector(expert, 0))
        assert torch.allclose(whole.last(expert), together.last(expert), rtol=0, atol=1e-4)
    moved = (whole.last(0) - whole.vector(0, 0)).abs().max()
    assert moved > 1e-2 and not torch.equal(whole.vector(0, 0), whole.vector(1, 0))


def test_a_shard_whose_groups_are_cut_goes_on_bit_by_bit(train, tmp_path):
    changed = {"count": 3, "at_once": 2}
    assert equal(cut_and_resumed(Experts(**(SMALL | changed)), train, {}, tmp_path), made(train, **changed))


def test_a_checkpoint_goes_on_in_the_groups_in_which_it_began(train):
    began, other = Experts(**SMALL, at_once=2), Experts(**SMALL, at_once=1)
    state, resumed = began.start(train, {}, 0), other.start(train, {}, 0)
    for _ in range(3):
        began.step(state)
    resumed.load_state_dict(state.state_dict())
    for _ in range(3):
        began.step(state), other.step(resumed)
    assert torch.equal(began.finish(state)["vectors"], other.finish(resumed)["vectors"])


@pytest.mark.parametrize(("kept", "epochs"), [(0, (0, 3)), (1, (0, 1, 3)), (2, (0, 1, 2, 3)), (3, (0, 1, 2, 3))])
def test_the_first_epochs_are_kept_and_the_last(kept, epochs, train):
    full, some = (Trajectories.of([made(train, kept=k)]) for k in (3, kept))
    assert some.epochs == epochs
    assert all(torch.equal(some.vector(1, epoch), full.vector(1, epoch)) for epoch in epochs)
    assert torch.equal(some.last(1), full.vector(1, 3))


def test_untrained_trajectories_have_the_full_size_and_take_no_memory(train):
    builder = Experts(**(SMALL | {"count": 5, "epochs": 40, "kept": 40}))
    product = builder.finish(builder.start(train, {}, 0))
    view = Trajectories.of([product])
    assert product["vectors"].shape == (5, 41, view.size) and torch.isfinite(product["vectors"]).all()
    assert product["vectors"].untyped_storage().nbytes() < 0.1 * product["vectors"].nbytes
    assert not torch.equal(view.vector(0, 3), view.vector(0, 5))


def test_shards_are_timed_once(train):
    changes = ({}, {"first": 2}, {"count": 1, "optimizer": "sgd"})
    first, second, other = (planning.prerequisite(Experts(**(SMALL | changed)), train) for changed in changes)
    assert first == second != other
    size = sum(tensor.nbytes for tensor in made(train).values())
    assert size <= first.disk < 1.5 * size


class TestShards:
    """Several shards are one, and only where they belong together."""

    def test_they_are_joined_in_the_order_of_their_experts(self, train):
        builders = split(Experts(**(SMALL | {"count": 5, "first": 1})), 2)
        assert list(builders) == ["experts 1-2", "experts 3-4", "experts 5-5"]
        shards = [product(builder, train) for builder in builders.values()]
        joined, whole = Trajectories.of(shards[::-1]), Trajectories.of([made(train, count=5, first=1)])
        assert joined.count == whole.count == 5
        assert all(torch.equal(joined.last(expert), whole.last(expert)) for expert in range(5))

    @pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
    def test_a_file_takes_no_memory_of_the_process(self, tmp_path):
        path, size = tmp_path / "large.safetensors", 2**26
        about = torch.tensor(list(json.dumps({"first": 0, "count": 2, "parameters": size // 8}).encode()))
        vectors = torch.ones(2, 1, size // 8)
        write_tensors(path, {"vectors": vectors, "epochs": torch.tensor([0]), "about": about.to(torch.uint8)})
        del vectors

        def anonymous():
            """Bytes of this process's memory that no file stands behind."""
            return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 2**10

        before = anonymous()
        view = Trajectories.of([read_tensors(path)[0]])
        assert view.vector(1, 0).sum() == size // 8
        assert anonymous() - before < size / 4

    @pytest.mark.parametrize(
        ("changed", "match"),
        [
            ({"first": 2, "lr": 0.02}, r"shards of expert trajectories differ: lr: 0.01 and 0.02$"),
            ({"first": 2, "kept": 2}, r"differ: kept: 1 and 2; stored epochs: \[0, 1, 3\] and \[0, 1, 2, 3\]$"),
            ({"first": 1}, r"shards hold experts \[1\] more than once; each may be there once"),
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, changed, match, train):
        with pytest.raises(ValueError, match=match):
            Trajectories.of([made(train), made(train, **changed)])

    def test_none_and_a_shard_of_none_are_refused(self):
        with pytest.raises(ValueError, match=r"shards=\[\]; at least one is needed"):
            Trajectories.of([])
        with pytest.raises(ValueError, match=r"shard=0; it must be >= 1"):
            split(Experts(**SMALL), 0)

    def test_other_data_networks_and_vectors_are_refused(self, train):
        view = Trajectories.of([made(train, epochs=9, kept=4)])
        asked = {"network": "convnet", "norm": "instance", "parameters": view.size}
        view.check(train, **asked)
        start = "expert trajectories are of another kind than asked: "
        other = dataclasses.replace(train, labels=train.labels.flip(0))
        with pytest.raises(ValueError, match=f"{start}fingerprint: '{train.fingerprint}' and '{other.fingerprint}'$"):
            view.check(other, **asked)
        with pytest.raises(ValueError, match=r"space: 'normalised' and 'zca'"):
            view.check(datasets.load("digits", "train", zca=True), **asked)
        for name, value in {"network": "mlp", "norm": "group", "parameters": 7}.items():
            with pytest.raises(ValueError, match=f"{start}{name}: {asked[name]!r} and {value!r}$"):
                view.check(train, **asked | {name: value})
        with pytest.raises(ValueError, match=r"epoch=6 is not stored; stored are 0, 1, 2, 3, 4, 9"):
            view.vector(0, 6)
        for expert in (-1, 2):
            with pytest.raises(ValueError, match=rf"expert={expert}; it must be in \[0, 2\)"):
                view.last(expert)


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({"count": 0}, "count=0 of the trajectories; it must be >= 1"),
        ({"first": -1}, "first=-1 of the trajectories; it must be >= 0"),
        ({"epochs": 0}, "epochs=0 of the trajectories; it must be >= 1"),
        ({"batch_size": 0}, "batch_size=0 of the trajectories; it must be >= 1"),
        ({"kept": -1}, r"kept=-1 of the trajectories; it must be in \[0, 3\]"),
        ({"kept": 4}, r"kept=4 of the trajectories; it must be in \[0, 3\], the epochs trained"),
        ({"optimizer": "adam"}, "optimizer='adam' of the trajectories; it must be one of gsam, sgd"),
        ({"lr": 0.0}, "lr=0.0 of the trajectories; it must be > 0"),
        ({"rho": -0.1}, "rho=-0.1 of the trajectories; it must be >= 0"),
        ({"alpha": float("nan")}, "alpha=nan of the trajectories; it must be finite"),
        ({"storage": "float16"}, "storage='float16' of the trajectories; it must be one of float32"),
        ({"precision": "float16"}, "precision='float16' of the trajectories; it must be one of float32, bfloat16"),
        ({"network": "convnext"}, "network='convnext' of the trajectories; it must be one of .*convnet, "),
        ({"at_once": 0}, "at_once=0 of the trajectories; it must be >= 1, or None"),
        ({"norm": "batch"}, "the network has batch statistics"),
        ({"strategy": "blur"}, "unknown strategy 'blur'"),
    ],
)
def test_experts_that_cannot_be_are_refused(settings, allowed, train):
    with pytest.raises(ValueError, match=allowed):
        Experts(**(SMALL | settings)).start(train, {}, 0)


def test_processes_at_one_cell_take_what_is_free_of_its_needs(tmp_path, monkeypatch):
    chosen = {"dataset": "digits", "reference_dataset": "digits", "ipcs": [1], "seeds": [0], "precision": "float32"}
    rows = {"methods": {"Random": {"method": "random"}}, "network": {}, "evaluation": {}, "compiled": False}
    (cell,) = study.cells(SimpleNamespace(**chosen, **rows), paper="atom", table="main")
    needs = split(Experts(**(SMALL | {"count": 3, "epochs": 1})), 1)
    monkeypatch.setattr(type(cell.method), "needs", property(lambda method: needs), raising=False)
    workplace = study.Workplace("cpu", folder=tmp_path, progress="none")
    made, get = [], work.artefacts.get

    def noted(artefact, workplace):
        if name := artefact.name.partition(",")[0] * artefact.name.startswith("experts"):
            if name == "experts 0-0":
                held.close()  # as another process that comes to its end
            made.append(name)
        return get(artefact, workplace)

    held = contextlib.ExitStack()
    lock = work.prerequisite(cell, needs["experts 0-0"], "", workplace).folder / ".lock"
    held.enter_context(artefacts.locked(lock, "experts 0-0"))
    monkeypatch.setattr(work.artefacts, "get", noted)
    study.synthetic_set(cell, 0, workplace)
    assert made[:2] == ["experts 1-1", "experts 2-2"]
    assert made[2:] == ["experts 0-0", "experts 1-1", "experts 2-2"]  # then all are read
    kept = Trajectories.of(list(study.prerequisites(cell, workplace).values()))
    assert (kept.count, kept.epochs) == (3, (0, 1))
