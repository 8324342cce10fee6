"""DM, DataDAM, ATOM, DC and DSA against their steps written plainly, class by class, and against one another."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from ddlib import methods, models, seeding
from ddlib.data import augmentation
from ddlib.methods import gradient_matching, pixels

SMALL = {"ipc": 2, "width": 8, "depth": 3, "batch_real": 6, "iterations": 5, "matching_steps": 2, "network_epochs": 1}


def started(name, train, **more):
    """A method and its state in float64, its network drawn for step 0."""
    fields = methods.hyperparameters(methods.find(name))
    method = methods.build(name, **{k: v for k, v in (SMALL | more).items() if k in fields})
    state = method.start(train, {}, 0)
    state.images = state.images.detach().double().requires_grad_()
    state.velocity = state.velocity.double()
    state.network.double()
    return method, state


def pixel_gradient(method, state):
    """The gradient of the step that the state stands before (lr 1, no momentum: the change itself)."""
    method = dataclasses.replace(method, lr_images=1.0, momentum=0.0)
    before = state.images.detach().clone()
    loss = method.step(state)["loss"]
    return loss, before - state.images.detach()


@pytest.fixture
def double_batches(monkeypatch):
    """Real batches in float64, so that sums in another order agree to many digits."""
    plain = pixels.real_batch
    monkeypatch.setattr(pixels, "real_batch", lambda state: plain(state).double())


def plain_step(state, train, norm, *, depth=3, powers=(4, 4), parts=("s", "c", "m"), mmd=0.01, scale=100.0):
    """Loss and gradient of the step at hand as the papers write it: class by class, layer by layer, image by image.

    With BatchNorm all classes pass in one batch, real and synthetic apart; otherwise each class passes alone.
    """
    network = models.build("convnet", shape=train.shape, num_classes=10, norm=norm, width=8, depth=depth)
    network.to(next(state.network.parameters()).dtype)  # in which its weights are drawn
    models.reset(network, seeding.generator(0, "network", state.step))
    network.double()
    real = pixels.real_batch(state).double()
    n, m = len(real) // 10, len(state.images) // 10
    stream = seeding.generator(0, "augmentation", state.step)
    draws = augmentation.draw(10, 1, size=train.shape[1:], strategy=state.strategy, generator=stream)
    classes = [
        (
            augmentation.augment(real[k * n : (k + 1) * n], draws.rows(torch.full((n,), k))),
            augmentation.augment(state.images[k * m : (k + 1) * m], draws.rows(torch.full((m,), k))),
        )
        for k in range(10)
    ]
    if norm == "batch":
        everything = [network.features(torch.cat([pair[side] for pair in classes])) for side in (0, 1)]
        found = [
            [(tuple(f[k * s : (k + 1) * s] for f in both.maps), both.embedding[k * s : (k + 1) * s]) for k in range(10)]
            for both, s in zip(everything, (n, m), strict=True)
        ]
        found = list(zip(*found, strict=True))
    else:
        found = [[network.features(images) for images in pair] for pair in classes]
    total = torch.zeros((), dtype=torch.float64)
    for (maps_real, e_real), (maps_syn, e_syn) in found:
        for pair in zip(maps_real[:-1], maps_syn[:-1], strict=True):
            for part, over, power in (("s", 0, powers[0]), ("c", (1, 2), powers[1])):
                if part in parts:
                    real, syn = (
                        torch.stack([F.normalize((x.abs() ** power).sum(over).flatten(), dim=0) for x in maps]).mean(0)
                        for maps in pair
                    )
                    total = total + scale * ((real - syn) ** 2).sum()
        if "m" in parts:
            total = total + scale * mmd * ((e_real.mean(0) - e_syn.mean(0)) ** 2).sum()
    (gradient,) = torch.autograd.grad(total, state.images)
    return total.detach(), gradient


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(
    ("name", "settings", "plain"),
    [
        ("dm", {}, {"parts": ("m",), "mmd": 1.0, "scale": 1.0}),
        ("datadam", {"p": 2}, {"parts": ("s", "m"), "powers": (2, 2)}),
        ("atom", {"p_spatial": 4, "p_channel": 8}, {"powers": (4, 8)}),
        ("atom", {"w_spatial": 0.0}, {"parts": ("c", "m")}),
        ("atom", {"w_channel": 0.0, "mmd": 0.03}, {"parts": ("s", "m"), "mmd": 0.03}),
        ("atom", {"w_spatial": 0.0, "w_channel": 0.0, "mmd": 0.03}, {"parts": ("m",), "mmd": 0.03}),
    ],
)
def test_a_step_equals_the_plain_one(name, settings, plain, norm, train, double_batches):
    method, state = started(name, train, norm=norm, **settings)
    expected_loss, expected = plain_step(state, train, norm, **plain)
    loss, gradient = pixel_gradient(method, state)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-12)
    assert gradient.abs().max() > 1e-6


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_pieces_change_nothing(norm, train, double_batches, monkeypatch):
    """A batch is cut where its statistics do not count; where they do, the attention is taken of an image at a time."""
    whole, cut = started("atom", train, norm=norm), started("atom", train, norm=norm)
    assert whole[1].piece is None if norm == "batch" else whole[1].piece >= 1
    wanted = pixel_gradient(*whole)
    cut[1].piece = cut[1].piece and 7
    monkeypatch.setattr(pixels, "PIECE_BYTES", {"cpu": 0, "cuda": 0})
    torch.testing.assert_close(pixel_gradient(*cut), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("strategy", ["none", "color", "cutout", "scale_rotate"])
def test_the_loss_is_differentiable_to_the_pixels(strategy, train):
    method, state = started("atom", train, ipc=1, width=3, depth=2, strategy=strategy, norm="instance")
    models.reset(state.network, seeding.generator(0, "network", 0))
    with torch.no_grad():
        targets = method.statistics(state, pixels.siamese(state, pixels.real_batch(state).double())[0])

    def loss(images):
        found = method.statistics(state, pixels.siamese(state, images)[0])
        weighted = zip(method.weights(len(found)), targets, found, strict=True)
        return sum(w * (t - f).square().sum() for w, t, f in weighted)

    assert torch.autograd.gradcheck(loss, (state.images,), fast_mode=True)


def test_momentum_accumulates_as_sgd_does(train, double_batches):
    method, state = started("dm", train)
    reference = torch.nn.Parameter(state.images.detach().clone())
    optimizer = torch.optim.SGD([reference], lr=method.lr_images, momentum=method.momentum)
    for _ in range(3):
        velocity = state.velocity.clone()
        method.step(state)
        reference.grad = state.velocity - method.momentum * velocity
        optimizer.step()
        torch.testing.assert_close(state.images.detach(), reference.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("norm", "piece"), [("instance", None), ("batch", None), ("instance", 8)])
def test_gradients_of_all_classes_at_once_equal_those_of_each_alone(norm, piece, train):
    method, state = started("dsa", train, norm=norm)
    double = SimpleNamespace(device=train.device, take=lambda rows: train.take(rows).double())
    gradient_matching.freeze_statistics(dataclasses.replace(state, train=double))
    images, state.piece = state.images, piece
    found = method.class_gradients(state, images)
    for k in range(10):
        loss = F.cross_entropy(state.network(images[2 * k : 2 * k + 2]), torch.full((2,), k))
        alone = torch.autograd.grad(loss, list(state.network.parameters()))
        torch.testing.assert_close(tuple(ours[k] for ours in found), alone, rtol=1e-9, atol=1e-12)


def test_gradient_matching_redraws_its_network_after_t_steps_and_trains_it_between(train):
    method = methods.build("dsa", ipc=2, width=8, depth=2, batch_real=6, matching_steps=2, network_epochs=1, restarts=2)
    state, fresh = (
        method.start(train, {}, 0),
        models.build("convnet", shape=train.shape, num_classes=10, width=8, depth=2),
    )

    def weights(network):
        return torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()

    for restart in range(2):
        models.reset(fresh, seeding.generator(0, "network", restart))
        seen = []
        for _ in range(2):
            method.step(state)
            seen.append(weights(state.network))
        moved = (seen[0] - weights(fresh)).norm()
        assert 0 < moved < weights(fresh).norm() / 2  # drawn anew, and trained after the first matching step
        assert torch.equal(*seen)  # not after the last one


def test_dc_matches_without_augmentation_and_its_set_is_still_to_be_augmented(train):
    method = methods.build("dc", ipc=1)
    state = method.start(train, {}, 0)
    assert state.strategy == "none"
    assert method.finish(state).strategy == augmentation.strategy_for("digits")
