"""Stage B of DiM against the same step written plainly: modules, `backward`, one image at a time."""

import dataclasses

import pytest
import torch
from draws import equal, pictures
from few_digits import product
from refusals import refuses
from test_adversarial import CLASSES, SHAPE, assert_pairs_agree, plain_critic_step, plain_pair, plain_signed
from torch.nn import functional as F

from ddlib import methods, models, seeding
from ddlib.data import augmentation
from ddlib.methods import generative
from ddlib.methods.generative import MATCHES
from ddlib.models import passes
from ddlib.pretraining import gan as adversarial
from ddlib.store import loop

SMALL = {
    "ipc": 1, "generator_width": 3, "latent": 10, "gan_iterations": 3, "gan_batch": 5, "gan_lr": 1e-3, "beta1": 0.5,
    "iterations": 5, "batch_size": 5, "lr": 1e-2, "weight": 0.7, "pool": ["convnet", "resnet10_ap"], "pool_width": 2,
    "width": 4, "depth": 2, "refresh": 3, "inner_steps": 2, "lr_pool": 0.1, "decay_pool": 0.01,
}  # fmt: skip
DIM_RESNET = {"width": 2, "norm": "batch", "pooling": "global", "weights": "fan_out"}
OPTIONS = {"convnet": {"width": 4, "depth": 2}, "resnet10_ap": DIM_RESNET}


def dim(**more):
    """The method at a size that runs in a moment."""
    return methods.build("dim", **SMALL | more)


def trained(method, train):
    """What stage A makes."""
    return {"gan": product(method.gan, train, 0)}


def started(method, train=None):
    """The state before the first step."""
    train = train or pictures()
    return method.start(train, trained(method, train), 7)


class Plain:
    """Stage B written as in the paper's code: a network and its SGD, and one graph for everything."""

    def __init__(self, method, state):
        self.method, self.train = method, state.pair.train
        self.pair = plain_pair(method.gan, state.pair)
        pairs = zip(state.pair.networks().values(), self.pair[2:], self.pair[:2], strict=True)
        for (network, adam), mine, theirs in pairs:
            mine.param_groups[0]["lr"] = method.lr
            adversarial.load_moments(theirs, mine, adversarial.moments(network, adam))

    def draw(self, number):
        """A fresh network of the pool and its SGD."""
        stream, method = seeding.generator(7, "pool", number), self.method
        name = method.pool[int(torch.randint(len(method.pool), (), generator=stream))]
        self.network = models.build(name, shape=SHAPE, num_classes=CLASSES, generator=stream, **OPTIONS[name]).train()
        momentum, decay = method.momentum_pool, method.decay_pool
        self.sgd = torch.optim.SGD(self.network.parameters(), method.lr_pool, momentum, weight_decay=decay)
        return name

    def seen(self, images):
        """What the networks are shown: normalised by statistics of [0, 1], as published without being brought there."""
        return self.train.space.encode(images if self.method.compat == "official" else (images + 1) / 2)

    def inner(self, step):
        """SGD steps on real images, each of them augmented by itself."""
        method, stream = self.method, seeding.generator(7, "dim", "pool", step)
        order = torch.randperm(len(self.train), generator=stream)
        for i in range(method.inner_steps):
            rows = order[i * method.batch_size : (i + 1) * method.batch_size]
            draws = augmentation.draw(1, len(rows), size=SHAPE[1:], strategy="color+crop", generator=stream)
            images = self.seen(plain_signed(self.train, rows)).to(torch.get_default_dtype())
            one = [augmentation.augment(images[j : j + 1], draws.rows(torch.tensor([j]))) for j in range(len(rows))]
            loss = F.cross_entropy(self.network(torch.cat(one)), self.train.labels[rows])
            self.sgd.zero_grad()
            loss.backward()
            self.sgd.step()
        return loss.detach()

    def gradients(self, images, labels):
        weights = [value for value in self.network.parameters() if value.dim() == 4]
        return torch.autograd.grad(F.cross_entropy(self.network(images), labels), weights, create_graph=True)

    def match(self, real, fake, y):
        """Each match as a sum over images, or classes, and entries; the real branch keeps its graph."""
        kind = self.method.match
        if kind == "gradients":
            pairs = zip(self.gradients(real, y), self.gradients(fake, y), strict=True)
            return sum((r - s).abs().sum() for r, s in pairs)
        judge = self.network.embed if kind == "features" else self.network
        real, fake = judge(real), judge(fake)
        B, K = real.shape
        if kind in ("features", "class_means"):
            if kind == "class_means":
                real, fake = (torch.log(torch.softmax(x, 1)) for x in (real, fake))
            present = sorted(set(y.tolist()))
            means = [[x[y == k].mean(0) for x in (real, fake)] for k in present]
            return sum(((r - s) ** 2).sum() for r, s in means) / (len(present) * K)
        total = 0
        for r, s in zip(real, fake, strict=True):
            if kind == "log_probabilities":
                r, s = (torch.softmax(x, 0).log() for x in (r, s))
            total = total + sum((r[k] - s[k]) ** 2 for k in range(K)) / (B * K)
        return total

    def step(self, number, rows):
        """One step of everything; returns its metrics."""
        generator, critic, generator_adam, critic_adam = self.pair
        x, y = plain_signed(self.train, rows), self.train.labels[rows]
        z = torch.randn(len(x), self.method.latent, generator=seeding.generator(7, "dim", "noise", number))
        pool_loss = self.inner(number)
        fake = generator(z, y)
        stream = seeding.generator(7, "dim", "match", number)
        one = augmentation.draw(1, 1, size=SHAPE[1:], strategy="color+crop+cutout", generator=stream)
        shown = [torch.cat([augmentation.augment(self.seen(i[None]), one) for i in images]) for images in (x, fake)]
        match = self.match(*shown, y)
        s, c = critic(fake)
        loss = -s.mean() + F.cross_entropy(c, y) + self.method.weight * match
        generator_adam.zero_grad()
        loss.backward()
        generator_adam.step()
        stream = seeding.generator(7, "dim", "critic", number)
        found = plain_critic_step(critic, critic_adam, generator, x, y, stream, self.method.gradient_penalty)
        metrics = {"loss": loss, "pool_loss": pool_loss, "match": match, "critic_loss": found[0], "penalty": found[1]}
        return {name: value.detach() for name, value in metrics.items()}


@pytest.mark.parametrize(("match", "compat"), [*((match, None) for match in MATCHES), (MATCHES[0], "official")])
def test_steps_are_those_of_the_plain_form(match, compat, double):
    method = dim(match=match, compat=compat)
    state = started(method)
    plain, drawn = Plain(method, state), []
    for number in range(5):
        if number % 3 == 0:
            drawn.append(plain.draw(number // 3))
        rows = adversarial.minibatch(state.pair, 5, "dim")
        torch.testing.assert_close(method.step(state), plain.step(number, rows), rtol=1e-7, atol=1e-9)
        assert_pairs_agree(state.pair, plain.pair)
        ours, theirs = state.member.parameters | state.member.buffers, plain.network.state_dict()
        torch.testing.assert_close(ours, dict(theirs), rtol=1e-7, atol=1e-9)
    assert drawn == ["convnet", "resnet10_ap"], "both kinds of norm are to be met"


def test_bfloat16_trains_the_pool_with_the_weights_as_they_stand():
    method = dim(precision="bfloat16", inner_steps=4, pool=["convnet"])
    state = started(method)
    method.step(state)
    plain = Plain(method, state)
    plain.draw(0)
    forward = plain.network.forward

    def lowered(images):
        with torch.autocast("cpu", torch.bfloat16):
            return forward(images).float()

    plain.network.forward = lowered
    plain.network.float()
    plain.inner(0)
    drawn, wanted = state.draw(0).parameters, dict(plain.network.named_parameters())
    moved = torch.cat([(wanted[name] - drawn[name]).flatten() for name in drawn])
    apart = torch.cat([(wanted[name] - state.member.parameters[name]).flatten() for name in drawn])
    assert apart.norm() < 0.02 * moved.norm()


@pytest.mark.parametrize("elements", [1, 3 * 4 * 64])
def test_the_number_of_images_a_pass_changes_nothing(elements, double, monkeypatch):
    method = dim(pool=["convnet"])
    whole, parts = started(method), started(method)
    expected = method.step(whole)
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", elements)
    torch.testing.assert_close(method.step(parts), expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("match", MATCHES)
def test_the_match_pulls_at_the_fakes_alone(match):
    method = dim(match=match)
    state = started(method)
    method.train_member(state)
    labels = torch.arange(5) % CLASSES
    real, fake = (torch.randn(5, *SHAPE, generator=seeding.generator(i)).requires_grad_() for i in (0, 1))
    loss = method.match_loss(state, real, fake, labels)
    to_fake, to_real, *to_network = torch.autograd.grad(
        loss, [fake, real, *state.member.parameters.values()], allow_unused=True
    )
    assert to_fake.abs().sum() > 0 and to_real is None
    assert match == "gradients" or to_network == [None] * len(to_network)


@pytest.mark.parametrize("setting", [{"adversarial": False}, {"freeze_critic": True}])
def test_a_critic_that_is_left_out_or_frozen_stays_as_it_was_while_the_generator_goes_on(setting, monkeypatch):
    method = dim(**setting)
    state = started(method)
    if not method.adversarial:
        monkeypatch.setattr(state.pair.critic, "forward", None)  # a call is an error
    before = {name: tensor.clone() for name, tensor in state.pair.state_dict().items()}
    for _ in range(2):
        metrics = method.step(state)
        assert metrics.keys() == {"loss", "pool_loss", "match"}
    if not method.adversarial:
        torch.testing.assert_close(metrics["loss"], method.weight * metrics["match"])
    moved = {name for name, value in state.pair.state_dict().items() if not torch.equal(value, before[name])}
    assert "generator.image.weight" in moved
    assert {name.split(".")[0] for name in moved} <= {"generator", "generator_adam", "step"}


def test_without_a_weight_it_is_stage_a_that_goes_on(monkeypatch):
    method, train = dim(weight=0.0), pictures()
    state, gan = started(method, train), dataclasses.replace(method.gan, lr=method.lr)
    going_on = method.gan.restored(train, trained(method, train)["gan"], 7)
    for adam in (going_on.generator_adam, going_on.critic_adam):
        adam.param_groups[0]["lr"] = method.lr
    monkeypatch.setattr(generative.DiM, "draw_member", None)
    found = [method.step(state) for _ in range(5)]
    make = seeding.generator  # stage A with the numbers that stage B draws
    monkeypatch.setattr(seeding, "generator", lambda seed, _, *names: make(seed, "dim", *names))
    expected = [gan.step(going_on) for _ in range(5)]
    assert all(equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert state.member is None and state.drawn == -1
    assert equal(state.pair.state_dict(), going_on.state_dict())


def test_seeds_take_turns_at_the_gans():
    method, train = dim(gans=2, iterations=0), pictures()
    assert [builder.seed for builder in method.needs.values()] == [0, 1]
    assert next(iter(method.needs.values())) == next(iter(dim().needs.values())), "the first is everybody's"
    artefacts = {name: product(gan, train) for name, gan in method.needs.items()}
    first, second, third = (method.finish(method.start(train, artefacts, seed)).generator for seed in range(3))
    assert equal(first, third) and not equal(first, second)


def test_only_the_step_size_is_new_to_the_optimisers():
    method, train = dim(), pictures()
    gan = trained(method, train)["gan"]
    state = method.start(train, {"gan": gan}, 7)
    for network, adam in state.pair.networks().values():
        (group,) = adam.param_groups
        assert (group["lr"], group["betas"], group["eps"]) == (1e-2, (0.5, 0.9), 1e-8)
        assert all(int(adam.state[parameter]["step"]) == 3 for parameter in network.parameters())
    found = state.state_dict()
    assert all(torch.equal(found[f"pair.{name}"], value) for name, value in gan.items() if name != "data")
    assert int(found["pair.step"]) == 0 and int(found["drawn"]) == -1


def test_the_whole_of_the_data_is_gone_over_more_than_once_where_it_is_small():
    for inner_steps in (7, 0):  # 35 images of 23, or none
        method = dim(inner_steps=inner_steps, refresh=1)
        loss = method.step(started(method))["pool_loss"]
        assert loss.isfinite() and (loss > 0) == (inner_steps > 0)


test_values_out_of_range_are_refused = refuses(
    lambda **settings: started(dim(**settings), pictures(count=4)),
    [
        ({"pool": []}, r"pool=\[\]; it must be a list of at least one of convnet, resnet10, resnet18, resnet10_ap"),
        ({"pool": ["convnet", "vit"]}, r"pool=\['convnet', 'vit'\]; it must be a list of at least one of convnet"),
        ({"compat": "unofficial"}, r"compat='unofficial'; it must be None or 'official'"),
        ({"weight": 0.0, "adversarial": False}, "adversarial=False; it must be true where weight is 0"),
        ({"gan_batch": 4}, r"batch_size=5; it must be at most 4, all images"),
    ],
)


def test_a_product_says_how_it_was_made_and_how_its_images_are_augmented():
    method, train = dim(gan_iterations=2, iterations=1), pictures(name="digits")
    made = loop.run(method, method.start(train, trained(method, train), 7)).product
    assert (made.strategy, made.frozen_strategy) == ("color+crop", "color_crop_cutout_scale_rotate")
    assert made.provenance["iterations"] == 1 and made.provenance["gan_iterations"] == 2
