"""Warm-up, cosine and the average of the weights, against a plain torch loop; dropout, compiled or not."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_evaluate import (  # noqa: F401
    SHAPE,
    SMALL,
    VIT,
    compilation,
    distance,
    make_synthetic,
    make_test,
    normal,
    plain,
    train,
)  # fmt: skip

from ddlib.evaluation import Protocol, evaluate
from ddlib.evaluation.protocol import LATER
from ddlib.models import passes
from ddlib.seeding import scoped

WARM = replace(SMALL, schedule="warmup_cosine", ema=0.8, epochs=9)
"""Nine epochs of three mini-batches; from the fifth on the average is exponential."""


def averaged(images, labels, protocol, index, *, warm=None, decay=None, keep_buffers=False):
    """The average of the network, as one writes it with torch; the last three arguments make it wrong on purpose."""
    half, average, epochs = protocol.epochs // 2 if warm is None else warm, {}, itertools.count()

    def schedule(optimiser):
        rise = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=1e-7, total_iters=half)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=protocol.epochs - half)
        return torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, fall], milestones=[half])

    def after(model):
        epoch = next(epochs)
        d = min(protocol.ema, epoch / (epoch + 1)) if decay is None else decay
        for name, tensor in model.state_dict().items():
            average[name] = d * average.get(name, tensor.clone()) + (1 - d) * tensor
            if keep_buffers and "running" in name:
                average[name] = tensor.clone()

    model, _ = plain(images, labels, protocol, index, epochs=protocol.epochs, schedule=schedule, after=after)
    model.load_state_dict(average)
    return model


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("epochs", [2, 9, 10])
@pytest.mark.parametrize("networks", [(1,), (0, 1)], ids=["alone", "together"])
def test_averages_are_those_of_the_plain_loop(norm, epochs, networks):
    protocol = replace(WARM, options=WARM.options | {"norm": norm}, epochs=epochs)
    images, labels = normal(14, *SHAPE).double(), torch.arange(14) % 3
    learner, found = train(protocol, images, labels, networks)
    for index, trained in zip(networks, found, strict=True):
        assert distance(trained, averaged(images, labels, protocol, index)) < 1e-10


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("wrong", [{"warm": 3}, {"decay": 0.8}, {"decay": 0.0}, {"keep_buffers": True}])
def test_another_course_or_average_is_seen(wrong):
    protocol = replace(WARM, options=WARM.options | {"norm": "batch"})
    images, labels = normal(14, *SHAPE).double(), torch.arange(14) % 3
    (trained,) = train(protocol, images, labels, (0,))[1]
    assert distance(trained, averaged(images, labels, protocol, 0, **wrong)) > 1e-5


def test_a_pooled_vgg_is_trained_together_as_alone(monkeypatch):
    monkeypatch.setattr("test_evaluate.SHAPE", (1, 32, 32))
    protocol = replace(WARM, network="vgg11", options={"width": 2, "grid": 7}, epochs=3, lr=0.01)
    images, labels = normal(8, 1, 32, 32).double(), torch.arange(8) % 3
    for index, trained in enumerate(train(protocol, images, labels, (0, 1))[1]):
        assert distance(trained, averaged(images, labels, protocol, index)) < 1e-8


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    protocol = Protocol(schedule="warmup_cosine", lr=1e-3)
    rates = [protocol.rate(epoch) for epoch in range(1000)]
    assert protocol.rounds == 1000 and protocol.drop_epoch is None and protocol.tested_after == (999,)
    assert rates[0] == pytest.approx(1e-10) and rates[500] == 1e-3 == max(rates)
    assert rates[250] == pytest.approx(0.5e-3, rel=1e-6) and rates[750] == pytest.approx(0.5e-3, rel=1e-6)
    assert rates[999] == pytest.approx(1e-3 * 0.5 * (torch.pi / 500) ** 2 / 2, rel=1e-4)
    assert [Protocol(schedule="warmup_cosine", epochs=1, lr=0.5).rate(0)] == [0.5]


def test_the_other_schedules_are_as_they_were():
    stepped, official = Protocol(epochs=10, lr=0.3), Protocol(epochs=10, lr=0.3, compat="official")
    assert [stepped.rate(e) for e in range(stepped.rounds)] == [0.3] * 7 + [0.3 * 0.1] * 4
    assert [official.rate(e) for e in range(official.rounds)] == [0.3] * 10
    assert not {"schedule", "ema"} & Protocol().settings().keys() and LATER.keys() > {"compat", "schedule", "ema"}
    assert not LATER.keys() & Protocol().settings().keys()
    assert WARM.settings()["schedule"] == "warmup_cosine" and WARM.settings()["ema"] == 0.8


@pytest.mark.parametrize("network", ["convnet", "vit"])
def test_epochs_are_counted_repeated_and_leave_the_global_state(network):
    options = VIT | {"layer_norm": False} if network == "vit" else SMALL.options
    protocol = replace(WARM, network=network, options=options, num_networks=2, at_once=1)
    seen, found = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(evaluate(make_synthetic(), make_test(), protocol, seed=0, on_epoch=lambda *n: seen.append(n)))
        assert torch.equal(before, torch.get_rng_state())
    assert found[0].updates == 9 * 3 and seen[:18] == [(done, 18) for done in range(1, 19)]
    assert (found[0].accuracies, found[0].train_losses) == (found[1].accuracies, found[1].train_losses)


def test_the_average_alone_is_tested_not_trained():
    steps = replace(SMALL, options=SMALL.options | {"norm": "batch"})
    plainly, averaged = (evaluate(make_synthetic(), make_test(), replace(steps, ema=e), seed=0) for e in (None, 0.9))
    assert plainly.train_losses == averaged.train_losses
    images, labels = normal(14, *SHAPE), torch.arange(14) % 3
    last, mean = (train(replace(steps, ema=e), images, labels, (0,))[1][0] for e in (None, 0.9))
    assert all((last.parameters[name] != mean.parameters[name]).any() for name in last.parameters)


def test_compiled_gives_the_same_average(compilation):  # noqa: F811
    protocol = replace(WARM, options={"width": 4, "depth": 1, "norm": "batch"}, epochs=2, batch_size=14)
    expected = evaluate(make_synthetic(), make_test(), protocol, seed=0)
    found = evaluate(make_synthetic(), make_test(), replace(protocol, compiled=True, at_once=2), seed=0)
    assert found.accuracies == expected.accuracies
    assert found.train_losses == pytest.approx(expected.train_losses, rel=1e-4)


@pytest.mark.parametrize(("dropout", "draws"), [(0.1, True), (0.0, False)])
def test_networks_with_dropout_are_compiled_to_draw_the_same(dropout, draws, monkeypatch):
    seen = []
    monkeypatch.setattr(passes, "compiled", lambda function, *, draws: seen.append(draws) or function)
    protocol = replace(WARM, network="vit", options=VIT | {"dropout": dropout}, compiled=True, epochs=1)
    evaluate(make_synthetic(), make_test(), protocol, seed=0)
    assert set(seen) == {draws}


def test_compiled_dropout_draws_the_same():
    def dropped(x):
        return F.dropout(x * 2, 0.5).sum(1)

    x, compiled = normal(64, 64), passes.compiled(dropped, draws=True)
    for seed in (1, 2):
        with scoped(seed, "dropout"):
            expected = dropped(x)
        with scoped(seed, "dropout"):
            torch.testing.assert_close(compiled(x), expected)
