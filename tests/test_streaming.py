"""The evaluation of streams, and the published one of DiM, against plain loops."""

from dataclasses import replace

import pytest
import test_evaluate
import torch
from test_evaluate import distance, make_synthetic, make_test
from test_stream import SHAPE, make

from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import Protocol, check_batches, evaluate, training
from ddlib.evaluation.images import training_images
from ddlib.models import passes
from ddlib.seeding import generator

SMALL = Protocol(options={"width": 4, "depth": 2}, num_networks=3, epochs=5, batch_size=6, lr=0.1)
"""Two mini-batches an epoch of 12 images, six epochs."""

OFFICIAL = replace(SMALL, compat="official")
SPACE = ValueSpace((0.5,), (0.25,))


def make_stream(**changes):
    return make(**{"space": SPACE, "frozen_strategy": "crop"} | changes)


def plain_epoch(stream, index, epoch, *, seed, shift=0):
    """The images and labels of an epoch, each made alone; `shift` makes it wrong on purpose."""
    source = generator(seed, "evaluation", "generated", index, epoch // stream.redraw + shift)
    labels = stream.labels(len(stream), source)
    noise = stream.noise(len(stream), source)
    images = torch.cat([stream.images(labels[i : i + 1], noise[i : i + 1]) for i in range(len(stream))])
    if stream.redraw > 1:
        order = torch.randperm(len(stream), generator=generator(seed, "evaluation", "shuffle", index, epoch))
        images, labels = images[order], labels[order]
    return images, labels


def plain(stream, protocol, index, *, seed, after=lambda model: None, **wrong):
    """One network on a stream, mini-batch by mini-batch; `after` sees it after each epoch."""
    official = {"epochs": protocol.epochs, "drop_after": -1} if protocol.compat else {}
    shown = lambda epoch: plain_epoch(stream, index, epoch, seed=seed, **wrong)  # noqa: E731
    told = {"seed": seed, "strategy": stream.strategy, "after": after} | official
    return test_evaluate.plain(shown, None, protocol, index, **told)[0]


def train(stream, protocol, networks, seed):
    learner = training.learner(protocol, SHAPE, 3)
    *_, found = training.train(learner, training_images(stream, protocol, seed), protocol, networks=networks, seed=seed)
    return found


NEAR = 1e-4


@pytest.mark.parametrize("redraw", [1, 2, 4])
@pytest.mark.parametrize("networks", [(1,), (0, 1, 2)], ids=["alone", "together"])
def test_networks_are_those_of_the_plain_loop(redraw, networks):
    stream = make_stream(redraw=redraw)
    for index, found in zip(networks, train(stream, SMALL, networks, seed=7), strict=True):
        assert distance(found, plain(stream, SMALL, index, seed=7)) < NEAR
        assert distance(found, plain(stream, SMALL, index, seed=7, shift=1)) > 10 * NEAR


@pytest.mark.parametrize("redraw", [1, 4, None])
def test_results_do_not_depend_on_the_buffer_nor_on_who_is_trained_together(redraw, monkeypatch):
    stream, found = make_stream(redraw=redraw), []
    for most, at_once in ((1, 1), (24, 3), (10_000, 2)):
        monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", most * 4 * 64)
        assert stream.pass_size == most
        found.append(evaluate(stream, make_test(), replace(SMALL, at_once=at_once), seed=3))
    first, *others = found
    for other in others:
        assert other.accuracies == first.accuracies and other.images_shown == first.images_shown
        assert other.train_losses == pytest.approx(first.train_losses, rel=1e-5)
    part = evaluate(stream, make_test(), SMALL, seed=3, networks=[2, 0])
    assert part.train_losses == pytest.approx((first.train_losses[2], first.train_losses[0]), rel=1e-5)
    other = evaluate(stream, make_test(), SMALL, seed=4, networks=[0])
    assert abs(other.train_losses[0] - first.train_losses[0]) > 1e-4


@pytest.mark.parametrize(("redraw", "distinct"), [(1, 72), (4, 24), (6, 12), (100, 12), (None, 12)])
def test_what_an_evaluation_of_a_stream_says(redraw, distinct):
    found = evaluate(make_stream(redraw=redraw), make_test(), SMALL, seed=0)
    assert found.images_shown == distinct and found.updates == 6 * 2
    assert 0 < found.generation_seconds < found.seconds
    assert evaluate(make_synthetic(), make_test(), SMALL, seed=0).generation_seconds == 0


def test_a_frozen_stream_is_evaluated_as_the_set_drawn_from_it():
    stream = make_stream(redraw=None)
    protocol = replace(SMALL, batch_size=7)  # need not divide
    ours, theirs = (evaluate(s, make_test(), protocol, seed=5) for s in (stream, stream.frozen(5)))
    assert (ours.accuracies, ours.train_losses) == (theirs.accuracies, theirs.train_losses)
    assert ours.train_losses != evaluate(stream.frozen(6), make_test(), protocol, seed=5).train_losses


def test_the_strategy_is_that_of_streaming_or_of_the_protocol():
    stream = make_stream(strategy="color", redraw=2)
    color, crop = (evaluate(replace(stream, strategy=s), make_test(), SMALL, seed=0) for s in ("color", "crop"))
    assert color.train_losses != crop.train_losses
    told = evaluate(stream, make_test(), replace(SMALL, augmentation="crop"), seed=0)
    assert told.train_losses == crop.train_losses


def test_bfloat16_reaches_the_generator():
    batch = []
    for precision in ("float32", "bfloat16"):
        source = training_images(make_stream(), replace(SMALL, precision=precision), 0)
        batch.append(next(iter(source.epoch(0, (0,), 0, 6)))[0])
    assert 0 < (batch[0] - batch[1]).abs().max() < 0.5 and batch[1].dtype == torch.float32


@pytest.mark.parametrize(("ipc", "batch", "near"), [(4, 5, "4 or 6"), (4, 128, "12"), (1, 2, "1 or 3")])
def test_a_mini_batch_that_does_not_divide_an_epoch_is_refused(ipc, batch, near):
    match = f"batch_size={batch} does not divide the {3 * ipc} images of an epoch .* the nearest {near}$"
    with pytest.raises(ValueError, match=match):
        evaluate(make_stream(ipc=ipc), make_test(), replace(SMALL, batch_size=batch), seed=0)
    with pytest.raises(ValueError, match="batch_size=128 does not divide the 500 images .* 125 or 250"):
        check_batches(128, 500)
    for count, batch in ((10, 10), (100, 25), (500, 50)):
        check_batches(batch, count)


def test_the_published_evaluation_keeps_its_learning_rate_for_exactly_its_epochs():
    assert OFFICIAL.rounds == 5 and SMALL.rounds == 6 and OFFICIAL.updates(12) == 10
    threes = replace(OFFICIAL, batch_size=3, epochs=10)
    (found,) = train(make_stream(), threes, (0,), seed=2)
    assert distance(found, plain(make_stream(), threes, 0, seed=2)) < NEAR
    # labels are drawn one by one where a mini-batch has not as many images as there are classes
    (found,) = train(make_stream(), OFFICIAL, (0,), seed=2)
    assert distance(found, plain(make_stream(), OFFICIAL, 0, seed=2)) > 10 * NEAR
    ours, theirs = (training_images(make_stream(ipc=100), replace(p, batch_size=6), 0) for p in (SMALL, OFFICIAL))
    kinds = [next(iter(s.epoch(0, (0,), 0, 300)))[1][0] for s in (ours, theirs)]
    assert kinds[0].bincount().tolist() == [100] * 3 != kinds[1].bincount().tolist()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_published_evaluation_takes_the_highest_of_five_on_the_statistics_of_the_test_batch(norm, monkeypatch):
    monkeypatch.setattr(training, "TEST_BATCH", 32)
    training._learner.cache_clear()
    protocol = replace(OFFICIAL, options=OFFICIAL.options | {"norm": norm}, epochs=10, batch_size=3, num_networks=2)
    stream, test = make_stream(), make_test(50)
    found = evaluate(stream, test, protocol, seed=1)
    training._learner.cache_clear()
    images, expected, usual = test.take(torch.arange(50)), [], []
    for index in (0, 1):
        rates, evaluated = [], []

        def after(model, rates=rates, evaluated=evaluated):
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            with torch.no_grad():
                classes = torch.cat([model(part).argmax(1) for part in images.split(32)])
                evaluated.append(int((model.eval()(images).argmax(1) == test.labels).sum()) * 2.0)
            model.train().load_state_dict(before)
            rates.append(int((classes == test.labels).sum()) * 2.0)

        plain(stream, protocol, index, seed=1, after=after)
        expected.append(max(rates[1::2]))
        usual.append(max(evaluated[1::2]))
    assert list(found.accuracies) == expected
    assert norm == "instance" or usual != expected, "training mode makes no difference here"


def test_the_published_evaluation_normalises_test_images_of_mnist_by_halves(monkeypatch):
    seen = {}

    def predictions(learner, trained, count, take):
        seen[name, learner.test_batch is not None] = take(torch.arange(4))
        return torch.zeros(count, dtype=torch.int64)

    monkeypatch.setattr(training, "predictions", predictions)
    space = ValueSpace((0.1307,), (0.3081,))
    for name in ("mnist", "fashion_mnist", "svhn"):
        test = make_test(name=name, space=space)
        for protocol in (SMALL, OFFICIAL):
            evaluate(make_stream(space=space), test, replace(protocol, num_networks=1), seed=0)
        pixels = test.images[:4].float() / 255
        ours, halves = space.encode(pixels), (pixels - 0.5) / 0.5
        torch.testing.assert_close(seen[name, False], ours)
        torch.testing.assert_close(seen[name, True], ours if name == "svhn" else halves)
