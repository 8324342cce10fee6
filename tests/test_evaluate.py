"""The evaluation, against the protocol written plainly: a module, a library optimiser, one network after another."""

import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from refusals import refuses

from ddlib import models
from ddlib.data.augmentation import STRATEGY, augment, draw
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ZCA, ValueSpace
from ddlib.evaluation import Protocol, evaluate, training
from ddlib.evaluation.images import Fixed
from ddlib.models import passes
from ddlib.seeding import generator

SHAPE = (1, 8, 8)
SPACE = ValueSpace((0.5,), (0.25,))
SMALL = Protocol(options={"width": 4, "depth": 2}, num_networks=3, epochs=5, batch_size=6, lr=0.1)
"""Three mini-batches an epoch on 14 images, the last of 2; the learning rate drops after epoch 3 of 0 to 5."""

VIT = {"dim": 8, "depth": 1, "heads": 2, "head_dim": 4, "mlp_dim": 8}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_synthetic(num_images=14, num_classes=3, soft=False, **changes):
    labels = 3 * normal(num_images, num_classes, seed=1) if soft else torch.arange(num_images) % num_classes
    fields = {
        "images": normal(num_images, *SHAPE),
        "labels": labels,
        "class_names": tuple("abcdefghij"[:num_classes]),
        "space": SPACE,
        "strategy": STRATEGY,
    }
    return SyntheticSet(**fields | changes)


def make_test(num_images=50, num_classes=3, **changes):
    stream = torch.Generator().manual_seed(5)
    fields = {
        "name": "toy",
        "split": "test",
        "images": torch.randint(0, 256, (num_images, *SHAPE), generator=stream).to(torch.uint8),
        "labels": torch.randint(0, num_classes, (num_images,), generator=stream),
        "class_names": tuple("abcdefghij"[:num_classes]),
        "space": SPACE,
    }
    return ImageSet(**fields | changes)


def plain(
    images,
    targets,
    protocol,
    index,
    *,
    seed=0,
    epochs=None,
    strategy=STRATEGY,
    teacher=None,
    schedule=None,
    drop_after=None,
    keep_momentum=False,
    after=lambda model: None,
):
    """One network by the protocol, as the field writes it, and its mean loss in the last epoch.

    images: in a fresh order each epoch; or epoch -> images and targets as they are shown.
    teacher: asked about what the network is shown, for targets.
    schedule: optimiser -> one of torch's, in place of the drop; drop_after, keep_momentum: make it wrong on purpose.
    after: called with the network after each epoch.
    """
    build = {"shape": SHAPE, "num_classes": 3, "generator": generator(seed, "evaluation", "network", index)}
    model = models.build(protocol.network, **build, **protocol.options)
    model = model if callable(images) else model.to(images.dtype)
    settings = {"momentum": protocol.momentum, "weight_decay": protocol.weight_decay}
    optimiser = torch.optim.SGD(model.parameters(), lr=protocol.lr, **settings)
    course = schedule and schedule(optimiser)
    for epoch in range(protocol.epochs + 1 if epochs is None else epochs):
        if callable(images):
            shown, aims = images(epoch)
        else:
            order = torch.randperm(len(images), generator=generator(seed, "evaluation", "shuffle", index, epoch))
            shown, aims = images[order], targets[order]
        stream, losses = generator(seed, "evaluation", "augmentation", index, epoch), []
        for part, aim in zip(shown.split(protocol.batch_size), aims.split(protocol.batch_size), strict=True):
            part = augment(part, draw(1, len(part), size=SHAPE[1:], strategy=strategy, generator=stream))
            optimiser.zero_grad()
            loss = F.cross_entropy(model(part), aim if teacher is None else teacher(part).softmax(1))
            loss.backward()
            optimiser.step()
            losses.append(loss.detach() * len(part))
        if course:
            course.step()
        elif epoch == (protocol.epochs // 2 + 1 if drop_after is None else drop_after):
            if keep_momentum:
                optimiser.param_groups[0]["lr"] = protocol.lr * 0.1
            else:
                optimiser = torch.optim.SGD(model.parameters(), lr=protocol.lr * 0.1, **settings)
        after(model)
    return model.eval(), sum(losses) / len(shown)


def distance(trained, model):
    """Largest difference of a parameter or buffer."""
    ours = trained.parameters | trained.buffers
    theirs = dict(model.named_parameters()) | dict(model.named_buffers())
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def train(protocol, images, targets, networks, seed=0):
    learner = training.learner(protocol, SHAPE, 3)
    (found,) = training.train(learner, Fixed(images, targets, STRATEGY), protocol, networks=networks, seed=seed)
    return learner, found


EXACT = 1e-10


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("norm", ["instance", "batch", "group", "none"])
@pytest.mark.parametrize("networks", [(1,), (0, 1, 2)], ids=["alone", "together"])
def test_networks_are_those_of_the_plain_loop(norm, networks, soft):
    protocol = replace(SMALL, options=SMALL.options | {"norm": norm})
    images, labels = normal(14, *SHAPE).double(), torch.arange(14) % 3
    targets = (3 * normal(14, 3, seed=1)).softmax(1).double() if soft else labels
    learner, found = train(protocol, images, targets, networks)
    shown = normal(33, *SHAPE, seed=2).double()
    for index, trained in zip(networks, found, strict=True):
        model, loss = plain(images, targets, protocol, index)
        assert distance(trained, model) < EXACT and abs(trained.loss - loss) < EXACT
        classes = training.predictions(learner, trained, len(shown), lambda rows: shown[rows])
        assert torch.equal(classes, model(shown).argmax(1))


@pytest.mark.parametrize("epochs", [1, 4, 5])
@pytest.mark.parametrize("wrong", ["nothing", "drop early", "drop late", "momentum kept"])
def test_the_schedule(epochs, wrong):
    protocol = replace(SMALL, epochs=epochs)
    images, labels = normal(14, *SHAPE).double(), torch.arange(14) % 3
    drop = epochs // 2 + 1
    variants = {
        "nothing": {},
        "drop early": {"drop_after": drop - 1},
        "drop late": {"drop_after": drop + 1},
        "momentum kept": {"keep_momentum": True},
    }
    (found,) = train(protocol, images, labels, (0,))[1]
    model, _ = plain(images, labels, protocol, 0, **variants[wrong])
    same = wrong == "nothing" or (epochs == 1 and wrong != "drop early")  # of E = 1 nothing follows the drop
    assert (distance(found, model) < EXACT) if same else (distance(found, model) > 1e-4)


@pytest.mark.parametrize("network", ["mlp", "lenet", "vit"])
def test_other_networks_are_those_of_the_plain_loop(network, monkeypatch):
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", 100)
    shape, options = (1, 28, 28), VIT | {"dropout": 0.0} if network == "vit" else {}
    monkeypatch.setattr("test_evaluate.SHAPE", shape)
    protocol = replace(SMALL, network=network, options=options, epochs=2)
    images, labels = normal(8, *shape).double(), torch.arange(8) % 3
    for index, trained in enumerate(train(protocol, images, labels, (0, 1))[1]):
        assert distance(trained, plain(images, labels, protocol, index)[0]) < EXACT


def test_gradients_added_over_passes_are_those_of_the_whole(monkeypatch):
    images, labels = normal(14, *SHAPE).double(), torch.arange(14) % 3
    whole = train(SMALL, images, labels, (0, 1))[1]
    elements = training.learner(SMALL, SHAPE, 3).network.elements
    assert elements == 4 * 8 * 8
    for most in (1, 4):  # passes of 1; and of 3 and 3 for the mini-batches of 6, one for that of 2
        monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", most * elements)
        parts = train(SMALL, images, labels, (0, 1))[1]
        assert all(distance(p, as_module(w)) < EXACT for p, w in zip(parts, whole, strict=True))


def as_module(trained):
    model = models.build("convnet", shape=SHAPE, num_classes=3, generator=generator(0), **SMALL.options).double()
    model.load_state_dict(trained.parameters | trained.buffers)
    return model


@pytest.mark.parametrize(
    ("batch", "most", "whole", "size"),
    [(10, 32, False, 10), (100, 32, False, 25), (256, 32, False, 32), (244, 32, False, 32), (97, 32, False, 32),
     (100, 0.5, False, 1), (256, 32, True, 256)],
)  # fmt: skip
def test_micro_batches(batch, most, whole, size, monkeypatch):
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", int(1000 * most))
    learner = replace(training.learner(SMALL, SHAPE, 3), network=SimpleNamespace(elements=1000, whole_batches=whole))
    assert training.micro_batch(batch, learner, torch.device("cpu")) == size


def test_which_networks_need_their_mini_batch_whole():
    def kind(network="convnet", **options):
        found = training.learner(Protocol(network=network, options=options), (1, 32, 32), 10).network
        return found.whole_batches, found.draws

    assert kind() == kind(norm="layer") == kind("mlp") == kind("vit", dropout=0.0) == (False, False)
    assert kind(norm="batch") == (True, False)
    assert kind("vit") == (True, True)


@pytest.mark.parametrize(
    ("device", "at_once", "num_images", "network", "expected"),
    [("cpu", None, 2, "convnet", 4), ("cpu", None, 10, "convnet", 1), ("cpu", None, 2, "densenet", 1),
     ("cuda", None, 10, "convnet", 12), ("cuda", None, 64, "convnet", 2), ("cuda", None, 5000, "convnet", 1),
     ("cpu", 3, 10, "convnet", 3), ("cuda", 3, 10, "vit", 1)],
)  # fmt: skip
def test_how_many_networks_go_together(device, at_once, num_images, network, expected):
    protocol = Protocol(network=network, at_once=at_once)
    learner = training.learner(protocol, (3, 32, 32), 10)
    assert training.at_once(protocol, learner, num_images, torch.device(device)) == expected


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_results_do_not_depend_on_who_is_trained_together(norm):
    protocol = replace(SMALL, options=SMALL.options | {"norm": norm})
    alone, pairs, all_three = (
        evaluate(make_synthetic(), make_test(), replace(protocol, at_once=n), seed=3) for n in (1, 2, 3)
    )
    assert alone.networks == (0, 1, 2) and alone.updates == 6 * 3 and alone.images_shown == 14
    assert len(set(alone.train_losses)) == 3
    for found in (pairs, all_three):
        assert found.accuracies == alone.accuracies
        assert found.train_losses == pytest.approx(alone.train_losses, rel=1e-4)


@pytest.mark.parametrize("network", ["convnet", "vit"])
def test_a_subset_of_the_networks(network):
    options = VIT if network == "vit" else SMALL.options
    protocol = replace(SMALL, network=network, options=options)
    whole = evaluate(make_synthetic(), make_test(), protocol, seed=3)
    part = evaluate(make_synthetic(), make_test(), replace(protocol, at_once=2), seed=3, networks=[2, 0])
    assert part.networks == (2, 0)
    assert part.accuracies == (whole.accuracies[2], whole.accuracies[0])
    assert part.train_losses == pytest.approx((whole.train_losses[2], whole.train_losses[0]), rel=1e-4)
    other = evaluate(make_synthetic(), make_test(), protocol, seed=4, networks=[0])
    assert abs(other.train_losses[0] - whole.train_losses[0]) > 1e-3


def make_halves(num_images, seed):
    """Class 0 is bright above, class 1 below; pixels in [0, 1] with noise."""
    labels = torch.arange(num_images) % 2
    pixels = torch.zeros(num_images, *SHAPE)
    pixels[labels == 0, :, :4], pixels[labels == 1, :, 4:] = 1, 1
    return (0.2 + 0.6 * pixels + 0.05 * normal(num_images, *SHAPE, seed=seed)).clamp(0, 1), labels


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_what_can_be_learnt_is_learnt(norm):
    pixels, labels = make_halves(10, seed=1)
    synthetic = make_synthetic(10, 2, images=SPACE.encode(pixels), labels=labels, strategy="color_crop_scale_rotate")
    pixels, labels = make_halves(41, seed=2)
    test = make_test(41, 2, images=(255 * pixels).round().to(torch.uint8), labels=labels)
    protocol = Protocol(options={"width": 8, "depth": 1, "norm": norm}, num_networks=2, epochs=40, lr=0.05)
    assert evaluate(synthetic, test, protocol, seed=0).accuracies == (100.0, 100.0)
    swapped = replace(test, labels=1 - labels)
    assert evaluate(synthetic, swapped, protocol, seed=0).accuracies == (0.0, 0.0)


def test_soft_labels_of_certainty_are_hard_labels():
    hard = make_synthetic()
    soft = make_synthetic(labels=100 * F.one_hot(hard.labels, 3).float())
    ours, theirs = (evaluate(s, make_test(), SMALL, seed=0) for s in (soft, hard))
    assert ours.accuracies == theirs.accuracies
    assert ours.train_losses == pytest.approx(theirs.train_losses, rel=1e-5)


def test_a_learning_rate_of_the_sets_own_takes_the_place_of_the_protocols():
    learnt = evaluate(make_synthetic(learning_rate=0.05), make_test(), SMALL, seed=0)
    told = evaluate(make_synthetic(), make_test(), replace(SMALL, lr=0.05), seed=0)
    assert (learnt.train_losses, learnt.accuracies) == (told.train_losses, told.accuracies)
    assert learnt.train_losses != evaluate(make_synthetic(), make_test(), SMALL, seed=0).train_losses


def test_augmentation_is_that_of_the_set_or_none():
    none = evaluate(make_synthetic(strategy="none"), make_test(), SMALL, seed=0)
    ways = [replace(SMALL, augmentation=augmentation) for augmentation in (False, "none")]
    off, told = (evaluate(make_synthetic(), make_test(), way, seed=0) for way in ways)
    on = evaluate(make_synthetic(), make_test(), SMALL, seed=0)
    assert off.train_losses == told.train_losses == none.train_losses
    assert max(abs(a - b) for a, b in zip(on.train_losses, off.train_losses, strict=True)) > 1e-3


def test_every_test_image_counts_once(monkeypatch):
    expected = evaluate(make_synthetic(), make_test(50), SMALL, seed=0).accuracies
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", 7 * 256)  # the eighth pass of 7 goes over six images again
    assert evaluate(make_synthetic(), make_test(50), SMALL, seed=0).accuracies == expected


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_bfloat16_is_near_float32_and_leaves_float32_parameters(norm):
    protocol = replace(SMALL, options=SMALL.options | {"norm": norm}, lr=0.01)
    images, labels = normal(14, *SHAPE), torch.arange(14) % 3
    (exact,) = train(protocol, images, labels, (0,))[1]
    (rounded,) = train(replace(protocol, precision="bfloat16"), images, labels, (0,))[1]
    assert all(tensor.dtype == torch.float32 for tensor in rounded.parameters.values())
    assert 0 < abs(rounded.loss - exact.loss) < 0.02


@pytest.fixture
def compilation(monkeypatch):
    """Traces as `compiled` does, into one whole graph; without a C++ compiler, for the sake of time."""
    monkeypatch.setattr(models.passes, "_SETTINGS", models.passes._SETTINGS | {"backend": "aot_eager"})
    training._learner.cache_clear()
    yield
    training._learner.cache_clear()


@pytest.mark.parametrize("options", [{}, {"norm": "batch"}], ids=["instance", "batch"])
def test_compiled_gives_the_same(compilation, options):
    protocol = replace(SMALL, options={"width": 4, "depth": 1} | options, epochs=1, batch_size=14)
    expected = evaluate(make_synthetic(), make_test(), protocol, seed=0)
    protocol = replace(protocol, compiled=True, at_once=2)  # two together, then one alone
    found = evaluate(make_synthetic(), make_test(), protocol, seed=0)
    assert found.accuracies == expected.accuracies
    assert found.train_losses == pytest.approx(expected.train_losses, rel=1e-4)


def test_what_was_compiled_is_used_again():
    first, second = (training.learner(replace(SMALL, compiled=True, lr=lr), SHAPE, 3) for lr in (0.1, 0.2))
    assert first is second


def test_a_missing_compiler_is_an_error():
    caches = {"force_disable_caches": True, "cpp.cxx": ("no-such-compiler",)}
    with (
        torch._inductor.config.patch(caches),
        pytest.raises(Exception, match="no-such-compiler|C\\+\\+ compiler"),
    ):
        protocol = replace(SMALL, options={"width": 5, "depth": 1}, compiled=True)
        evaluate(make_synthetic(), make_test(), protocol, seed=0)
    training._learner.cache_clear()


@pytest.mark.parametrize("network", ["convnet", "vit"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_global_random_state_is_neither_read_nor_changed(network, at_once):
    options = VIT if network == "vit" else SMALL.options
    protocol, found = replace(SMALL, network=network, options=options, at_once=at_once), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        found.append(evaluate(make_synthetic(), make_test(), protocol, seed=0).train_losses)
        after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
        assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    assert found[0] == found[1]


def test_progress_counts_all_epochs():
    seen = []
    evaluate(make_synthetic(), make_test(), replace(SMALL, at_once=2), seed=0, on_epoch=lambda *n: seen.append(n))
    assert seen == [(done, 18) for done in (2, 4, 6, 8, 10, 12, 13, 14, 15, 16, 17, 18)]


def test_a_diverged_network_is_an_error():
    with pytest.raises(FloatingPointError, match="network 0: the training loss is nan .*lr 1e\\+20 may be too large"):
        evaluate(make_synthetic(), make_test(), replace(SMALL, lr=1e20), seed=0)


test_what_is_not_a_protocol_is_refused = refuses(
    Protocol,
    [
        ({"network": "convnot"}, "unknown network 'convnot'; known: convnet"),
        ({"precision": "float16"}, "unknown precision 'float16'; known: float32, bfloat16"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'; known: step, warmup_cosine"),
        ({"compat": "offical"}, "unknown compat 'offical'; known: official, None"),
        ({"labels": "soft"}, "unknown labels 'soft'; known: hard, fixed, batch, None"),
        ({"augmentation": "color_twirl"}, "unknown strategy 'color_twirl'"),
        ({"num_networks": 0}, "num_networks must be an integer of at least 1, got 0"),
        ({"epochs": 10.0}, "epochs must be an integer of at least 1, got 10.0"),
        ({"batch_size": True}, "batch_size must be an integer of at least 1, got True"),
        ({"at_once": 0}, "at_once must be an integer of at least 1, got 0"),
        ({"epochs": None}, "epochs must be an integer of at least 1, got None"),
        ({"lr": -0.1}, "lr must be a finite number > 0, got -0.1"),
        ({"lr": float("nan")}, "lr must be a finite number > 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be a finite number >= 0, got -0.0001"),
        ({"options": {"width": [4]}}, r"option 'width' must be text, a number, .* got \[4\]"),
        ({"ema": 1.0}, r"ema must be in \(0, 1\), or None, got 1.0"),
        ({"ema": 0.0}, r"ema must be in \(0, 1\), or None, got 0.0"),
        ({"compat": "official", "epochs": 7}, "epochs must be a multiple of 5 with compat 'official', got 7"),
        ({"compat": "official", "schedule": "warmup_cosine"}, "schedule must be 'step' with compat 'official', got 'w"),
        ({"compat": "official", "ema": 0.9}, "ema must be None with compat 'official', got 0.9"),
        ({"compat": "official", "labels": "hard"}, "labels must be None with compat 'official', got 'hard'"),
        ({"teacher": {"epochs": 2}}, "teacher must be empty, or labels fixed or batch, got {'epochs': 2}"),
        ({"labels": "fixed", "teacher": {"epoch": 2}}, "unknown setting 'epoch' of the teacher; known: network"),
        ({"labels": "fixed", "teacher": {"epochs": 0}}, "epochs=0 of the teacher; it must be an integer >= 1"),
    ],
)


WHITENED = ValueSpace((0.5,), (0.25,), ZCA(torch.zeros(64), torch.eye(64), torch.eye(64), 0.1))
OTHERWISE = ValueSpace((0.5,), (0.25,), ZCA(torch.zeros(64), 2 * torch.eye(64), torch.eye(64) / 2, 0.1))


@pytest.mark.parametrize(
    ("synthetic", "test", "call", "match"),
    [
        ({"images": torch.zeros(14, 1, 4, 4)}, {}, {}, r"synthetic images are \(1, 4, 4\), test images \(1, 8, 8\)"),
        ({"class_names": ("a", "c", "b")}, {}, {}, r"has the classes \('a', 'c', 'b'\), test \('a', 'b', 'c'\)"),
        ({"space": ValueSpace((0.4,), (0.25,))}, {}, {}, r"synthetic is normalised with mean \(0.4,\).* test is"),
        ({"space": WHITENED}, {}, {}, "synthetic is zca .* test is normalised"),
        ({"space": WHITENED}, {"space": OTHERWISE}, {}, "whitened by different transforms"),
        ({}, {}, {"networks": [3]}, r"networks must be different indices in \[0, 3\), at least one, got \(3,\)"),
        ({}, {}, {"networks": [1, 1]}, r"networks must be different indices .* got \(1, 1\)"),
        ({}, {}, {"networks": []}, r"networks must be .* got \(\)"),
        ({}, {}, {"protocol": Protocol(options={"depht": 2})}, "unknown option 'depht' of network 'convnet'; known"),
        ({}, {}, {"protocol": Protocol(options={"depth": 9})}, "too small for ConvNet"),
    ],
)
def test_what_does_not_fit_is_refused(synthetic, test, call, match):
    with pytest.raises(ValueError, match=match):
        evaluate(make_synthetic(**synthetic), make_test(**test), **{"protocol": SMALL, "seed": 0} | call)


def test_whitened_sets_are_evaluated_in_their_space():
    whitened = make_synthetic(space=WHITENED)
    found = evaluate(whitened, make_test(space=WHITENED), SMALL, seed=0)
    assert found.accuracies == evaluate(make_synthetic(), make_test(), SMALL, seed=0).accuracies


@pytest.mark.parametrize("counts", [(30, 15, 5), (45, 5, 0), (10, 10, 10)])
def test_balanced_accuracy_is_the_mean_of_the_accuracies_on_each_class(counts):
    test = make_test(sum(counts), labels=torch.arange(3).repeat_interleave(torch.tensor(counts)))
    parts = [
        replace(test, images=test.images[rows], labels=test.labels[rows]) for rows in test.class_indices if len(rows)
    ]
    of_classes = [evaluate(make_synthetic(), part, SMALL, seed=0).accuracies for part in parts]
    mean = np.mean(of_classes, axis=0)
    found = evaluate(make_synthetic(), test, SMALL, seed=0)
    if len(set(counts)) == 1:  # then it is the accuracy
        assert found.balanced == () and found.accuracies == pytest.approx(mean)
    else:
        assert found.balanced == pytest.approx(mean) and found.balanced != pytest.approx(found.accuracies)
