"""Stage A of DiM against the same steps written plainly: one module, one `backward`, one image at a time."""

import dataclasses

import pytest
import torch
from draws import pictures
from few_digits import product
from torch.nn import functional as F

from ddlib import seeding
from ddlib.data import datasets
from ddlib.models import passes
from ddlib.models.gan import Critic, Generator
from ddlib.pretraining import gan as adversarial
from ddlib.pretraining.gan import Gan

SHAPE, CLASSES = (2, 8, 8), 4
SMALL = {"iterations": 3, "batch_size": 5, "width": 3, "latent": 10, "lr": 1e-2, "beta1": 0.5}


def plain_signed(train, rows):
    """Images in [-1, 1], in float64."""
    return train.images[rows].double() / 255 * 2 - 1


def plain_penalty(critic, images):
    """(||grad s||_2 - 1)^2 of one image after another."""
    total = 0
    for image in images:
        one = image[None].detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(one)[0].sum(), one, create_graph=True)
        total = total + (gradient.square().sum().sqrt() - 1) ** 2
    return total / len(images)


def plain_critic_step(critic, adam, generator, x, y, stream, coefficient):
    """L_D of WGAN-GP with AC-GAN's class terms, and a step on it."""
    others = torch.randint(CLASSES, (len(x),), generator=stream)
    z = torch.randn(len(x), generator.latent, generator=stream)
    share = torch.rand(len(x), 1, 1, 1, generator=stream)
    fake = generator(z, others).detach()
    (s_real, c_real), (s_fake, c_fake) = critic(x), critic(fake)
    loss = s_fake.mean() - s_real.mean() + F.cross_entropy(c_fake, others) + F.cross_entropy(c_real, y)
    mixed = torch.stack([a * one + (1 - a) * other for a, one, other in zip(share, x, fake, strict=True)])
    penalty = plain_penalty(critic, mixed)
    adam.zero_grad()
    (loss + coefficient * penalty).backward()
    adam.step()
    return loss.detach(), penalty.detach()


def plain_step(gan, pair, train, rows, step):
    """A whole step: the generator on the labels of the minibatch, then the critic on labels of its own."""
    generator, critic, generator_adam, critic_adam = pair
    x, y = plain_signed(train, rows), train.labels[rows]
    z = torch.randn(len(x), gan.latent, generator=seeding.generator(7, "gan", "noise", step))
    s, c = critic(generator(z, y))
    loss = -s.mean() + F.cross_entropy(c, y)
    generator_adam.zero_grad()
    loss.backward()
    generator_adam.step()
    stream = seeding.generator(7, "gan", "critic", step)
    return loss.detach(), *plain_critic_step(critic, critic_adam, generator, x, y, stream, gan.gradient_penalty)


def plain_pair(gan, state):
    """Networks and optimisers of their own, with the weights of `state`."""
    generator = Generator(shape=SHAPE, num_classes=CLASSES, width=gan.width, latent=gan.latent)
    critic = Critic(shape=SHAPE, num_classes=CLASSES, width=gan.width)
    generator.load_state_dict(state.generator.state_dict())
    critic.load_state_dict(state.critic.state_dict())
    adams = [torch.optim.Adam(n.parameters(), gan.lr, (gan.beta1, gan.beta2)) for n in (generator, critic)]
    return generator, critic, *adams


def assert_pairs_agree(state, pair):
    """Weights, running statistics and moments are equal; a step of Adam is `lr` long, here 1e-2, or nearly that.

    Biases before a batch norm have no gradient but that of rounding, on which Adam moves them a little.
    """
    for (network, adam), plain, plain_adam in zip(state.networks().values(), pair[:2], pair[2:], strict=True):
        torch.testing.assert_close(dict(network.state_dict()), dict(plain.state_dict()), rtol=1e-6, atol=1e-6)
        ours, theirs = adversarial.moments(network, adam), adversarial.moments(plain, plain_adam)
        assert ours.keys() == theirs.keys() and ours
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=1e-6, atol=1e-9, msg=key, check_dtype=False)


def test_steps_are_those_of_the_plain_form(double):
    gan, train = Gan(**SMALL), pictures()
    state = gan.start(train, {}, 7)
    pair = plain_pair(gan, state)
    for step in range(6):  # four minibatches an epoch
        rows = adversarial.minibatch(state, gan.batch_size, "gan")
        expected = plain_step(gan, pair, train, rows, step)
        found = gan.step(state)
        torch.testing.assert_close((found["loss"], found["critic_loss"], found["penalty"]), expected)
        assert_pairs_agree(state, pair)
    assert state.step == 6


def test_the_penalty_is_that_of_finite_differences(double):
    critic = Critic(shape=SHAPE, num_classes=CLASSES, width=3)
    images, h = 2 * torch.rand(3, *SHAPE) - 1, 1e-6
    norms = []
    for image in images:
        moved = h * torch.eye(image.numel()).view(-1, *SHAPE)
        slopes = (critic(image + moved)[0] - critic(image - moved)[0]) / (2 * h)
        norms.append(slopes.norm())
    expected = torch.stack([(norm - 1) ** 2 for norm in norms]).mean()
    found = adversarial.gradient_penalty(critic, images)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found, plain_penalty(critic, images))


@pytest.mark.parametrize("together", [1, 3])
def test_the_number_of_images_a_pass_changes_nothing(together, double, monkeypatch):
    gan, train = Gan(**SMALL), pictures()
    whole, parts = (gan.start(train, {}, 7) for _ in range(2))
    expected = gan.step(whole)
    monkeypatch.setitem(passes.PASS_ELEMENTS, "cpu", together * parts.critic.elements)
    found = gan.step(parts)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=1e-7, atol=1e-9)


def test_an_epoch_shows_every_image_once_and_drops_what_is_left_over():
    state, epochs = Gan(**SMALL).start(pictures(), {}, 7), []
    for epoch in range(3):
        rows = []
        for _ in range(4):
            rows.append(adversarial.minibatch(state, 5, "gan"))
            state.step += 1
        rows = torch.cat(rows).tolist()
        assert len(set(rows)) == 20 and set(rows) <= set(range(23)), epoch
        epochs.append(rows)
    assert epochs[0] != epochs[1] != epochs[2] and set(epochs[0]) != set(epochs[1])
    state.step = 6  # the same rows, whether one comes there by steps or from a checkpoint
    assert adversarial.minibatch(state, 5, "gan").tolist() == epochs[1][10:15]


def test_real_images_lie_in_minus_one_to_one_whatever_the_space():
    train, rows = pictures(), torch.tensor([3, 1])
    found = adversarial.signed(train, rows)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, train.images[rows].float() / 127.5 - 1)
    encoded = dataclasses.replace(train, images=train.take(range(len(train))))
    torch.testing.assert_close(adversarial.signed(encoded, rows), found)


def test_a_gan_of_other_data_is_refused_and_one_that_was_not_trained_is_not():
    gan, train = Gan(**SMALL | {"iterations": 0}), pictures()
    found = product(gan, train, 7)
    unnamed = {name: tensor for name, tensor in found.items() if name != "data"}
    for images, tensors in ((pictures(seed=1), found), (train, unnamed)):
        with pytest.raises(ValueError, match="the GAN was trained on other data than pictures as it is here"):
            gan.restored(images, tensors, 7)
    gan.restored(train, found, 7)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="the images are zca; a GAN makes pixels: load them with whitened: false"):
        Gan(**SMALL).start(datasets.load("digits", "train", zca=True), {}, 7)
    with pytest.raises(ValueError, match=r"batch_size=24; it must be at most 23, the number of images"):
        Gan(**SMALL | {"batch_size": 24}).start(pictures(), {}, 7)
