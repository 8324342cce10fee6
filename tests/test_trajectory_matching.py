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
        state, families = started(method, train), []
        for batch in method.draw_batches(state):
            images, draws = state.images[batch.rows], batch.transform.keywords["draws"]
            assert torch.equal(batch.transform(images), augment(images, draws))
            (family,) = draws.family.unique()
            families.append(int(family))
        assert len(set(families)) > 1


class TestSchedules:
    @pytest.mark.parametrize(
        ("dataset", "ipc", "kept", "expected"),
        [
            ("cifar10", 1, 5, {0: 4, 10_000: 4}),
            ("cifar10", 10, 21, {0: 10, 99: 10, 100: 11, 999: 19, 1000: 20, 10_000: 20}),
            ("cifar10", 50, 41, {0: 20, 99: 20, 100: 21, 1999: 39, 2000: 40}),
            ("cifar10", 500, 61, {0: 60}),
            ("cifar10", 1000, 61, {0: 60}),
            ("cifar100", 1, 22, {0: 10, 500: 15, 1000: 20}),
            ("cifar100", 10, 51, {0: 30, 100: 31, 2000: 50}),
            ("cifar100", 50, 71, {0: 70}),
            ("cifar100", 100, 71, {0: 70}),
            ("tiny_imagenet", 1, 21, {0: 15, 399: 15, 400: 16, 2000: 20}),
            ("tiny_imagenet", 10, 51, {0: 50}),
            ("tiny_imagenet", 50, 71, {0: 70}),
        ],
    )
    def test_the_window_widens_as_published_and_the_highest_epoch_touched_is_kept(self, dataset, ipc, kept, expected):
        stated = results.published("datm", method="datm", dataset=dataset, ipc=ipc)
        known = methods.hyperparameters(methods.find("datm"))
        method = methods.build("datm", ipc=ipc, **{key: value for key, value in stated.items() if key in known})
        assert {iteration: method.upper_bound(iteration) for iteration in expected} == expected
        assert next(iter(method.needs.values())).kept == kept  # T+ - 1 + M
        assert (method == methods.build("datm", ipc=ipc)) == ((dataset, ipc) == ("cifar10", 10)), "the default"

    def test_start_epochs_fill_the_window_and_experts_take_turns(self, train):
        method = small("mtt", ipc=1, min_start_epoch=1, max_start_epoch=4, expert_epochs=1)
        state = started(method, train)
        drawn = []
        for state.step in range(60):
            drawn.append(method.draw_start(state))
        assert {epoch for _, epoch in drawn} == {1, 2, 3}
        sweeps = [tuple(expert for expert, _ in drawn[at : at + 3]) for at in range(0, 60, 3)]
        assert {tuple(sorted(sweep)) for sweep in sweeps} == {(0, 1, 2)} and len(set(sweeps)) > 1

    @pytest.mark.parametrize(
        ("batch", "sizes"),
        [(4, [2, 4, 4, 2, 4, 4, 2]), (5, [5, 5, 5, 5]), (None, [10, 10, 10]), (100, [10, 10])],
    )
    def test_chunks_use_up_a_permutation_of_ten_images_before_the_next(self, batch, sizes, train):
        method = small("mtt", ipc=1, batch_syn=batch, syn_steps=len(sizes))
        rows = [chunk.rows for chunk in method.draw_batches(started(method, train))]
        assert [len(r) for r in rows] == sizes
        assert sorted(torch.cat(rows)[:10].tolist()) == list(range(10))


def hand_made(answers):
    """A linear network on 1x1 pixels whose experts answer by a table, experts x images -> class; 4 images of each."""
    pixels, labels, space = (
        torch.eye(8).view(8, 8, 1, 1),
        torch.arange(2).repeat_interleave(4),
        ((0.0,) * 8, (1.0,) * 8),
    )
    train = datasets.ImageSet("hand", "train", pixels, labels, ("a", "b"), ValueSpace(*space))
    heights = 3.0 + torch.arange(len(answers)).view(-1, 1, 1)
    vectors = (torch.nn.functional.one_hot(torch.tensor(answers), 2).mT * heights).reshape(len(answers), 1, -1)
    shard = {"vectors": vectors, "epochs": torch.tensor([0]), "about": about(len(vectors))}
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2, bias=False))
    return train, Flat(linear), Trajectories.of([shard])


def about(count):
    """What a shard of so many experts says of itself."""
    return torch.frombuffer(bytearray(json.dumps({"first": 0, "count": count}).encode()), dtype=torch.uint8)


class TestInitial:
    answers = (
        [0, 1, 1, 1, 1, 1, 0, 0],  # expert 0 is right about image 0 of class a, and 4, 5 of class b
        [1, 0, 0, 1, 0, 1, 1, 0],  # expert 1 about 1, 2, and 5, 6
        [1, 1, 1, 0, 1, 1, 1, 1],
    )

    def test_images_are_the_first_that_expert_0_gets_right_then_expert_1(self):
        train, flat, experts = hand_made(self.answers)
        rows = trajectory_matching.correct_rows(train, 3, flat=flat, experts=experts, seed=0).tolist()
        assert rows[0] == 0 and set(rows[:3]) == {0, 1, 2}
        assert set(rows[3:5]) == {4, 5} and rows[5] == 6  # class b begins with expert 0 anew
        order = torch.randperm(4, generator=seeding.generator(0, "init", 1)).tolist()
        assert [r - 4 for r in rows[3:5]] == [i for i in order if i in (0, 1)]

    def test_too_few_correct_images_are_said_to_be_too_few(self):
        train, flat, experts = hand_made(self.answers[:2])
        with pytest.raises(ValueError, match=r"ipc=4 with init='correct': the 2 experts get 3 of 4 images of class"):
            trajectory_matching.correct_rows(train, 4, flat=flat, experts=experts, seed=0)

    def test_labels_are_the_mean_over_the_experts_that_are_right(self):
        train, flat, experts = hand_made(self.answers)
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
        for threshold in (1.0, None):
            method = small(threshold=threshold, init="real")
            state = started(method, train)
            state.images.fill_(math.nan)
            if threshold:
                metrics = method.step(state)
                assert "loss" not in metrics and metrics["skipped"] == 100.0
                continue
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
        ],
    )
    def test_settings_out_of_range(self, settings, message):
        with pytest.raises(ValueError, match=message):
            small(**settings)


class TestMembers:
    @pytest.mark.parametrize(("fixed", "moves"), [({"lr_images": 0.0}, "logits"), ({"labels": "fixed"}, "images")])
    def test_labels_only_and_images_only(self, fixed, moves, train):
        method = small(init="real", **fixed)
        state = started(method, train)
        before = {name: getattr(state, name).clone() for name in ("images", "logits")}
        method.step(state)
        assert {name for name in before if not torch.equal(before[name], getattr(state, name))} == {moves}

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
        losses, moved = [], []
        for gradient in ("tesla", "adjoint"):
            method = small("tesla", gradient=gradient, lr_student=0.05, syn_steps=10)
            state = started(method, train)
            losses.append(method.step(state)["loss"])
            moved.append(state.images - state.first)
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert (moved[0] - moved[1]).norm() > 1e-3 * moved[1].norm()
