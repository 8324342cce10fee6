"""Warm-up, cosine and the average of the weights, against a plain torch loop; dropout, compiled or not."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_evaluate import SHAPE, SMALL, VIT, distance, make_synthetic, make_test, normal, plain, train

from ddlib.evaluation import Protocol, evaluate
from ddlib.models import passes
from ddlib.seeding import scoped

WARM = replace(SMALL, schedule="warmup_cosine", ema=0.8, epochs=9)
"""Nine epochs of three mini-batches; from the fifth on the average is exponential."""


def averaged(images, labels, protocol, index):
    """The average of the network, as one writes it with torch."""
    half, average, epochs = protocol.epochs // 2, {}, itertools.count()

    def schedule(optimiser):
        rise = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=1e-7, total_iters=half)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=protocol.epochs - half)
        return torch.optim.lr_scheduler.SequentialLR(optimiser, [rise, fall], milestones=[half])

    def after(model):
        epoch = next(epochs)
        d = min(protocol.ema, epoch / (epoch + 1))
        for name, tensor in model.state_dict().items():
            average[name] = d * average.get(name, tensor.clone()) + (1 - d) * tensor

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


def test_the_rate_rises_linearly_and_falls_along_a_cosine():
    protocol = Protocol(schedule="warmup_cosine", lr=1e-3)
    rates = [protocol.rate(epoch) for epoch in range(1000)]
    assert protocol.rounds == 1000 and protocol.drop_epoch is None and protocol.tested_after == (999,)
    assert rates[0] == pytest.approx(1e-10) and rates[500] == 1e-3 == max(rates)
    assert rates[250] == pytest.approx(0.5e-3, rel=1e-6) and rates[750] == pytest.approx(0.5e-3, rel=1e-6)
    assert rates[999] == pytest.approx(1e-3 * 0.5 * (torch.pi / 500) ** 2 / 2, rel=1e-4)
    assert Protocol(schedule="warmup_cosine", epochs=1, lr=0.5).rate(0) == 0.5
    assert WARM.settings()["schedule"] == "warmup_cosine" and WARM.settings()["ema"] == 0.8, "of a name of their own"


def test_the_average_alone_is_tested_not_trained():
    steps = replace(SMALL, options=SMALL.options | {"norm": "batch"})
    plainly, averaged = (evaluate(make_synthetic(), make_test(), replace(steps, ema=e), seed=0) for e in (None, 0.9))
    assert plainly.train_losses == averaged.train_losses
    images, labels = normal(14, *SHAPE), torch.arange(14) % 3
    last, mean = (train(replace(steps, ema=e), images, labels, (0,))[1][0] for e in (None, 0.9))
    assert all((last.parameters[name] != mean.parameters[name]).any() for name in last.parameters)


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
