"""Trajectory matching: an outer step written plainly, schedules, initial images and labels on hand-made cases."""

import dataclasses
import json
import math

import pytest
import torch
from few_digits import digits, distilled, prerequisites
from torch.func import functional_call

from ddlib import methods, models, results, seeding
from ddlib.data import datasets
from ddlib.data.augmentation import augment
from ddlib.data.whitening import ValueSpace
from ddlib.methods import trajectory_matching
from ddlib.methods.coresets import random_rows
from ddlib.models.passes import Flat
from ddlib.pretraining.experts import Trajectories

NETWORK = {"width": 8, "depth": 2}
EXPERTS = {"experts": 3, "expert_training": 4, "expert_batch": 32, "shard": 2, **NETWORK}
WINDOW = {"expert_epochs": 1, "max_start_epoch": 2, "initial_max_start_epoch": None, "expansion_end": None}
SMALL = EXPERTS | WINDOW | {"syn_steps": 4, "iterations": 3}


@pytest.fixture(scope="module")
def train():
    """Thirty images of each digit."""
    return digits(30)


def started(method, train, seed=0):
    """The state before the first step, with experts that are trained once."""
    return method.start(train, prerequisites(method, train), seed)


def small(name="datm", ipc=2, **more):
    known = methods.hyperparameters(methods.find(name))
    return methods.build(name, ipc=ipc, **{k: v for k, v in (SMALL | more).items() if k in known})


def plain_loss(method, state, images, targets, lr):
    """The loss of the step that the state stands before, with modules and autograd, as the paper writes it."""
    network = models.build("convnet", shape=state.train.shape, num_classes=10, **NETWORK)
    expert, epoch = method.draw_start(state)
    start, goal = state.experts.vector(expert, epoch), state.experts.vector(expert, epoch + 1)
    parts = zip(network.named_parameters(), start.split([p.numel() for p in network.parameters()]), strict=True)
    theta = {name: part.view(p.shape).clone().requires_grad_() for (name, p), part in parts}
    for batch in method.draw_batches(state):
        logits = functional_call(network, theta, (batch.transform(images[batch.rows]),))
        inner = torch.nn.functional.cross_entropy(logits, targets[batch.rows])
        slopes = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        theta = {name: t - lr * g for (name, t), g in zip(theta.items(), slopes, strict=True)}
    end = torch.cat([t.flatten() for t in theta.values()])
    return (end - goal).square().sum() / (start - goal).square().sum()


class TestOuterStep:
    def test_one_step_of_mtt_is_the_plain_loop(self, train):
        method = small("mtt", batch_syn=7, lr_images=3.0, lr_lr=1e-5, strategy="none")
        state = started(method, train)
        images, lr = state.images.clone().requires_grad_(), state.lr.clone().requires_grad_()
        optimisers = [torch.optim.SGD([leaf], lr=rate, momentum=0.5) for leaf, rate in ((images, 3.0), (lr, 1e-5))]
        for _ in range(2):
            loss = plain_loss(method, state, images, torch.arange(10).repeat_interleave(2), lr)
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            assert method.step(state)["loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
        torch.testing.assert_close(state.images, images.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state.lr, lr.detach(), rtol=1e-4, atol=1e-8)
        assert (state.images - state.first).abs().max() > 0.01

    def test_label_logits_take_the_gradient_through_the_softmax_with_a_momentum_of_their_own(self, train):
        method = small(batch_syn=7, lr_labels=5.0, init="real", threshold=None)
        state = started(method, train)
        logits = state.logits.clone().requires_grad_()
        optimiser = torch.optim.SGD([logits], lr=5.0, momentum=0.9)
        for _ in range(2):
            optimiser.zero_grad()
            plain_loss(method, state, state.images, logits.softmax(1), state.lr).backward()
            optimiser.step()
            method.step(state)
        torch.testing.assert_close(state.logits, logits.detach(), rtol=1e-3, atol=1e-5)

    def test_augmentation_is_drawn_for_each_inner_step_one_family_a_batch(self, train):
        method = small(syn_steps=8, batch_syn=5, init="real")
        state = started(method, train)
        batches = method.draw_batches(state)
        shown = [batch.transform(state.images[batch.rows]) for batch in batches]
        draws = [batch.transform.keywords["draws"] for batch in batches]
        assert all(
            torch.equal(x, augment(state.images[b.rows], d)) for x, b, d in zip(shown, batches, draws, strict=True)
        )
        assert all(len(d.family.unique()) == 1 for d in draws) and len({int(d.family[0]) for d in draws}) > 1


class TestSchedules:
    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (("cifar10", 1), {0: 4, 10_000: 4}),
            (("cifar10", 10), {0: 10, 99: 10, 100: 11, 999: 19, 1000: 20, 10_000: 20}),
            (("cifar10", 50), {0: 20, 99: 20, 100: 21, 1999: 39, 2000: 40}),
            (("cifar10", 500), {0: 60}),
            (("cifar10", 1000), {0: 60}),
            (("cifar100", 1), {0: 10, 500: 15, 1000: 20}),
            (("cifar100", 10), {0: 30, 100: 31, 2000: 50}),
            (("cifar100", 50), {0: 70}),
            (("cifar100", 100), {0: 70}),
            (("tiny_imagenet", 1), {0: 15, 399: 15, 400: 16, 2000: 20}),
            (("tiny_imagenet", 10), {0: 50}),
            (("tiny_imagenet", 50), {0: 70}),
        ],
    )
    def test_the_window_widens_as_published(self, where, expected):
        method = published(*where)
        assert {iteration: method.upper_bound(iteration) for iteration in expected} == expected

    def test_highest_epochs_touched(self):
        """T+ - 1 + M of the twelve settings: 5, 21, 41, 61, 61 | 22, 51, 71, 71 | 21, 51, 71."""
        ipcs = {"cifar10": (1, 10, 50, 500, 1000), "cifar100": (1, 10, 50, 100), "tiny_imagenet": (1, 10, 50)}
        found = [published(dataset, ipc) for dataset, each in ipcs.items() for ipc in each]
        kept = [next(iter(method.needs.values())).kept for method in found]
        assert kept == [5, 21, 41, 61, 61, 22, 51, 71, 71, 21, 51, 71]

    def test_start_epochs_fill_the_window_and_experts_take_turns(self, train):
        method = small("mtt", ipc=1, min_start_epoch=1, max_start_epoch=4, expert_epochs=1)
        state = started(method, train)
        drawn = []
        for state.step in range(60):
            drawn.append(method.draw_start(state))
        assert {epoch for _, epoch in drawn} == {1, 2, 3}
        for sweep in range(20):
            assert sorted(expert for expert, _ in drawn[3 * sweep : 3 * sweep + 3]) == [0, 1, 2]
        assert len({tuple(e for e, _ in drawn[3 * s : 3 * s + 3]) for s in range(20)}) > 1

    @pytest.mark.parametrize(("count", "batch", "steps"), [(10, 4, 7), (10, 5, 4), (10, None, 3), (10, 100, 2)])
    def test_chunks_use_up_a_permutation_before_the_next(self, count, batch, steps, train):
        method = small("mtt", ipc=1, batch_syn=batch, syn_steps=steps)
        state = started(method, train)
        rows = [b.rows for b in method.draw_batches(state)]
        assert len(rows) == steps
        sizes = [min(batch or count, count)] * (count // min(batch or count, count))
        sizes += [count % (batch or count)] if count % (batch or count) and (batch or count) < count else []
        assert [len(r) for r in rows] == [sizes[::-1][i % len(sizes)] for i in range(steps)]
        whole = torch.cat(rows[: len(sizes)])
        if steps >= len(sizes):
            assert sorted(whole.tolist()) == list(range(count))


def hand_made(num_classes=2, answers=(), images_each=4):
    """A linear network on 1x1 pixels whose experts answer by a table: experts x images -> class."""
    count = num_classes * images_each
    pixels = torch.eye(count).view(count, count, 1, 1)
    labels = torch.arange(num_classes).repeat_interleave(images_each)
    names = tuple("ab"[:num_classes])
    train = datasets.ImageSet("hand", "train", pixels, labels, names, ValueSpace((0.0,) * count, (1.0,) * count))
    flat = Flat(Table(count, num_classes))
    vectors = [
        torch.nn.functional.one_hot(torch.tensor(a), num_classes).float().T * (3.0 + m) for m, a in enumerate(answers)
    ]
    stacked = torch.stack([v.reshape(1, -1) for v in vectors])
    shard = {"vectors": stacked, "epochs": torch.tensor([0]), "about": about(len(vectors))}
    return train, flat, Trajectories.of([shard])


def about(count):
    """What a shard of so many experts says of itself."""
    return torch.frombuffer(bytearray(json.dumps({"first": 0, "count": count}).encode()), dtype=torch.uint8)


class Table(torch.nn.Module):
    """logits = W x."""

    def __init__(self, count, num_classes):
        super().__init__()
        self.classifier = torch.nn.Linear(count, num_classes, bias=False)

    def forward(self, images):
        return self.classifier(images.flatten(1))


class TestInitial:
    answers = (
        [0, 1, 1, 1, 1, 1, 0, 0],  # expert 0 is right about image 0 of class a, and 4, 5 of class b
        [1, 0, 0, 1, 0, 1, 1, 0],  # expert 1 about 1, 2, and 5, 6
        [1, 1, 1, 0, 1, 1, 1, 1],
    )

    def test_images_are_the_first_that_expert_0_gets_right_then_expert_1(self):
        train, flat, experts = hand_made(answers=self.answers)
        rows = trajectory_matching.correct_rows(train, 3, flat=flat, experts=experts, seed=0).tolist()
        assert rows[0] == 0 and set(rows[:3]) == {0, 1, 2}
        assert set(rows[3:5]) == {4, 5} and rows[5] == 6  # class b begins with expert 0 anew
        order = torch.randperm(4, generator=seeding.generator(0, "init", 1)).tolist()
        assert [r - 4 for r in rows[3:5]] == [i for i in order if i in (0, 1)]

    def test_too_few_correct_images_are_said_to_be_too_few(self):
        train, flat, experts = hand_made(answers=self.answers[:2])
        with pytest.raises(ValueError, match=r"ipc=4 with init='correct': the 2 experts get 3 of 4 images of class"):
            trajectory_matching.correct_rows(train, 4, flat=flat, experts=experts, seed=0)

    def test_labels_are_the_mean_over_the_experts_that_are_right(self):
        train, flat, experts = hand_made(answers=self.answers)
        rows = torch.tensor([0, 1, 5, 7])
        found = trajectory_matching.ensemble_logits(train.take(rows), train.labels[rows], flat=flat, experts=experts)
        torch.testing.assert_close(found[0], torch.tensor([3.0, 0.0]))  # expert 0 alone
        torch.testing.assert_close(found[1], torch.tensor([4.0, 0.0]))  # expert 1 alone
        torch.testing.assert_close(found[2], torch.tensor([0.0, 4.0]))  # all three: (3 + 4 + 5) / 3
        torch.testing.assert_close(found[3], torch.tensor([0.0, 5.0]))  # expert 2 alone
        alone = Trajectories.of([experts.shards[0] | {"vectors": experts.shards[0]["vectors"][:1], "about": about(1)}])
        none = trajectory_matching.ensemble_logits(train.take(rows[:1]), torch.tensor([1]), flat=flat, experts=alone)
        torch.testing.assert_close(none[0], torch.tensor([3.0, 0.0]))  # nobody is right: the mean over all

    def test_the_set_remembers_which_images_it_came_from(self, train):
        method = small(iterations=0, ipc=3, init="real")
        product = distilled(method, train, 5)
        assert product.provenance["rows"] == random_rows(train, 3, 5).tolist()
        assert torch.equal(product.images, train.take(product.provenance["rows"]))

    def test_zero_iterations_give_the_initial_images_with_ensemble_labels(self, train):
        method = small(iterations=0, init="correct", ipc=1, expert_training=12, expert_batch=16)
        state = started(method, train)
        product = method.finish(state)
        assert torch.equal(product.labels.argmax(1), torch.arange(10))
        assert product.is_soft and product.learning_rate == pytest.approx(0.01)


class TestGuards:
    def test_a_loss_above_the_threshold_changes_nothing_and_is_counted(self, train):
        method = small(threshold=1e-6, init="real", iterations=4)
        state = started(method, train)
        for velocity in state.velocities.values():
            velocity.fill_(0.01)
        before = {name: tensor.clone() for name, tensor in state.state_dict().items()}
        for _ in range(4):
            metrics = method.step(state)
        assert metrics["skipped"] == 100.0 and int(state.skipped.sum()) == int(state.tried.sum()) == 4
        for name in ("images", "logits", "lr", "velocities.images", "velocities.logits", "velocities.lr"):
            assert torch.equal(before[name], state.state_dict()[name]), name
        assert method.finish(state).provenance["skipped"] == state.skipped.tolist()

    def test_a_loss_that_is_no_number_is_skipped_under_a_threshold_and_else_refused(self, train):
        guarded, plain = (small("datm", threshold=t, init="real") for t in (1.0, None))
        for method in (guarded, plain):
            state = started(method, train)
            state.images.fill_(math.nan)
            if method is guarded:
                metrics = method.step(state)
                assert "loss" not in metrics and metrics["skipped"] == 100.0
            else:
                with pytest.raises(FloatingPointError, match=r"loss is nan at step 0 from epoch \d; a smaller lr"):
                    method.step(state)

    def test_a_negative_step_size_is_refused_as_it_happens(self, train):
        method = small("mtt", lr_lr=1e-3)
        state = started(method, train)
        state.velocities["lr"].fill_(1e6)  # momentum that will carry it below zero
        with pytest.raises(FloatingPointError, match=r"step size lr_student became -.* at step 0; .* smaller lr_lr"):
            method.step(state)

    def test_experts_of_other_data_or_another_network_are_refused(self, train):
        method = small(init="real")
        experts = prerequisites(method, train)
        other = dataclasses.replace(train, images=train.images.flip(0), labels=train.labels.flip(0))
        with pytest.raises(ValueError, match="fingerprint"):
            method.start(other, experts, 0)
        with pytest.raises(ValueError, match="parameters"):
            small(init="real", width=16).start(train, experts, 0)

    def test_inner_steps_that_never_cover_the_set_are_warned_of(self, train):
        method = small(init="real", syn_steps=2, batch_syn=5)
        with pytest.warns(UserWarning, match=r"syn_steps=2 mini-batches of batch_syn=5 show 10 of the 20 synthetic"):
            started(method, train)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"max_start_epoch": 0}, r"max_start_epoch=0; it must be > min_start_epoch=0"),
            ({"initial_max_start_epoch": 3, "expansion_end": 5}, r"initial_max_start_epoch=3; it must be in \(0, 2\]"),
            ({"initial_max_start_epoch": 1}, r"expansion_end=None; it must be >= 1 with initial_max_start_epoch"),
            ({"kept_epochs": 1}, r"kept_epochs=1; it must be >= 2, since max_start_epoch=2 and expert_epochs=1 match"),
            ({"max_start_epoch": 9}, r"expert_training=4; it must be >= 9, the epochs to be kept"),
            ({"rho": -1.0}, r"rho=-1.0 of the trajectories; it must be >= 0"),
        ],
    )
    def test_settings_out_of_range(self, settings, message):
        with pytest.raises(ValueError, match=message):
            small(**settings)


class TestMembers:
    def test_labels_only_and_images_only(self, train):
        labels_only, images_only = small(init="real", lr_images=0.0), small(init="real", labels="fixed")
        for method, images_move, labels_move in ((labels_only, False, True), (images_only, True, False)):
            state = started(method, train)
            logits = state.logits.clone()
            method.step(state)
            assert torch.equal(state.images, state.first) != images_move
            assert torch.equal(state.logits, logits) != labels_move

    def test_predecessors_of_one_kind_share_experts(self):
        assert small("mtt").needs == small("tesla").needs == small("mtt", alpha=1.0).needs
        assert small("ftd").needs == small("datm").needs
        assert len(small().needs) == 2 and sum(b.count for b in small().needs.values()) == 3

    def test_the_moving_average_of_ftd(self, train):
        method = small("ftd", average=0.75)
        state = started(method, train)
        expected = state.images.clone()
        for _ in range(3):
            method.step(state)
            expected = 0.75 * expected + 0.25 * state.images
        torch.testing.assert_close(method.finish(state).images, expected)

    def test_tesla_differs_from_mtt_by_its_gradient(self, train):
        found = []
        for gradient in ("tesla", "adjoint"):
            method = small("tesla", gradient=gradient, lr_student=0.05, syn_steps=10)
            state = started(method, train)
            loss = method.step(state)["loss"]
            found.append((loss, state.images - state.first))
        assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
        assert (found[0][1] - found[1][1]).norm() > 1e-3 * found[1][1].norm()


def published(dataset, ipc):
    """DATM in its authors' setting."""
    stated = results.published("datm", method="datm", dataset=dataset, ipc=ipc)
    known = methods.hyperparameters(methods.find("datm"))
    return methods.build("datm", ipc=ipc, **{key: value for key, value in stated.items() if key in known})


def test_the_default_of_datm_is_its_published_setting_of_cifar10_at_10():
    assert published("cifar10", 10) == methods.build("datm", ipc=10)
