"""Generator and critic of DiM: the published sizes, the class code, and the norm against the framework's."""

import pytest
import torch
from draws import equal, normal, seeded
from refusals import refuses
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddlib import models
from ddlib.models.gan import Critic, Generator

RGB, GREY = (3, 32, 32), (1, 28, 28)
BUILDERS = [
    lambda: Generator(shape=(3, 16, 16), num_classes=5, width=6, latent=20),
    lambda: Generator(shape=(1, 14, 14), num_classes=5, width=6),
    lambda: Critic(shape=(3, 16, 16), num_classes=5, width=6),
]


def randomised(module, seed=0):
    """`module` with every parameter and buffer away from what it starts with, the variances positive."""
    models.reset(module, seeded(seed))
    with torch.no_grad():
        for index, tensor in enumerate((*module.parameters(), *module.buffers())):
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=seeded(index)))
    return module


# Sizes, as published.


@pytest.mark.parametrize(
    ("kind", "shape", "parameters", "buffers", "megamacs"),
    [
        (Generator, RGB, 3_559_363, 9_016, 367.2),
        (Generator, GREY, 3_286_921, 9_016, 276.4),
        (Critic, RGB, 3_137_971, 0, 276.5),
    ],
)
def test_networks_have_the_published_size(kind, shape, parameters, buffers, megamacs):
    with torch.device("meta"):
        network, labels = kind(shape=shape, num_classes=10).eval(), torch.zeros(1, dtype=torch.long)
        inputs = (torch.zeros(1, 100), labels) if kind is Generator else (torch.zeros(1, *shape),)
        with FlopCounterMode(display=False) as counter:
            network(*inputs)
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters
    assert sum(tensor.numel() for tensor in network.buffers()) == buffers
    assert round(counter.get_total_flops() / 2e6, 1) == megamacs


@pytest.mark.parametrize("side", [7, 8, 14, 16, 28, 32, 56, 64])
def test_every_side_that_doubles_from_four_or_seven(side):
    with torch.device("meta"):
        generator = Generator(shape=(2, side, side), num_classes=3, width=4)
        images = generator(torch.zeros(5, 100), torch.zeros(5, dtype=torch.long))
        assert images.shape == (5, 2, side, side)
        assert Critic(shape=(2, side, side), num_classes=3, width=4)(images)[0].shape == (5,)


# Functions: against the tables written with the framework's layers.


def plain_generator(shape, width, latent):
    """Rows 1 to 9 of the published table."""

    def row(convolution):
        return [convolution, nn.BatchNorm2d(width), nn.ReLU()]

    first = 3 if shape[1] == 28 else 4
    return nn.Sequential(
        *[nn.Linear(latent, 16 * width), nn.BatchNorm1d(16 * width), nn.ReLU(), nn.Unflatten(1, (width, 4, 4))],
        *row(nn.ConvTranspose2d(width, width, first, 2, 1)),
        *row(nn.Conv2d(width, width, 3, 1, 1)),
        *row(nn.Conv2d(width, width, 3, 1, 1)),
        *row(nn.Conv2d(width, width, 3, 1, 1)),
        *row(nn.ConvTranspose2d(width, width, 4, 2, 1)),
        *row(nn.Conv2d(width, width, 3, 1, 1)),
        *row(nn.ConvTranspose2d(width, width, 4, 2, 1)),
        *[nn.Conv2d(width, shape[0], 3, 1, 1), nn.Tanh()],
    )


@pytest.mark.parametrize("shape", [RGB, GREY], ids=["rgb", "grey"])
def test_generator_is_the_table(shape):
    ours = randomised(Generator(shape=shape, num_classes=10, width=6, latent=30)).double()
    plain = plain_generator(shape, 6, 30).double()
    buffers = {name: buffer for name, buffer in plain.named_buffers() if "num_batches" not in name}
    mine, theirs = (*ours.parameters(), *ours.buffers()), (*plain.parameters(), *buffers.values())
    with torch.no_grad():
        for own, other in zip(mine, theirs, strict=True):
            other.copy_(own)
    noise, labels = normal(8, 30, dtype=torch.float64), torch.arange(8)
    code = torch.cat([torch.eye(10)[labels], noise[:, 10:]], dim=1)
    for form in (torch.contiguous_format, torch.channels_last):
        ours.to(memory_format=form)
        for mode in (True, False):  # by the batch's statistics, then by the record that this has moved
            torch.testing.assert_close(ours.train(mode)(noise, labels), plain.train(mode)(code))
    torch.testing.assert_close(list(ours.buffers()), list(buffers.values()))


def plain_critic(shape, width):
    """The published convolutions up to the pooled vector; `norm` is the framework's."""
    layers, channels, side = [], shape[0], shape[1]
    for stride in (1, 2, 1, 2, 1, 1, 1, 2):
        side = (side + 1) // stride if stride == 2 else side
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.LayerNorm((width, side, side)), nn.LeakyReLU(0.01)]
        channels = width
    return nn.Sequential(*layers, nn.MaxPool2d(4), nn.Flatten())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [RGB, GREY], ids=["rgb", "grey"])
def test_critic_and_its_gradient_penalty_are_the_tables(shape, memory_format):
    ours = randomised(Critic(shape=shape, num_classes=10, width=6)).double()
    trunk, heads = plain_critic(shape, 6).double(), (nn.Linear(6, 1).double(), nn.Linear(6, 10).double())
    theirs = [*trunk.parameters(), *heads[0].parameters(), *heads[1].parameters()]
    for mine, other in zip(ours.parameters(), theirs, strict=True):
        other.data.copy_(mine)
    x = normal(3, *shape, dtype=torch.float64)
    score, logits = ours.to(memory_format=memory_format)(x.to(memory_format=memory_format))
    torch.testing.assert_close(score, heads[0](trunk(x))[:, 0])
    torch.testing.assert_close(logits, heads[1](trunk(x)))
    mine = penalty_gradients(lambda x: ours(x)[0], x.to(memory_format=memory_format), list(ours.blocks.parameters()))
    plain = penalty_gradients(lambda x: heads[0](trunk(x))[:, 0], x, list(trunk.parameters()))
    torch.testing.assert_close(mine, plain)
    norm = ours.blocks[1](normal(2, 6, *shape[1:], dtype=torch.float64).to(memory_format=memory_format))
    assert norm.is_contiguous(memory_format=memory_format)


def penalty_gradients(score, x, parameters):
    """Gradient in the parameters of the mean of (||d score / d x|| - 1)^2."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return torch.autograd.grad(penalty, parameters, materialize_grads=True)


# Weights.


@pytest.mark.parametrize("build", BUILDERS)
def test_redrawn_weights_are_those_of_the_constructor(build):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        constructed = build()
    redrawn, before = randomised(build(), seed=3), torch.get_rng_state()
    models.reset(redrawn, seeded(11))
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(redrawn.state_dict(), constructed.state_dict())


# Refusals.


test_generators_that_cannot_be_are_refused = refuses(
    lambda **options: Generator(**{"shape": RGB, "num_classes": 10, "width": 4, **options}),
    [
        ({"num_classes": 51, "latent": 100}, "num_classes=51; a one-hot code in noise of 100 .* at most 50"),
        ({"num_classes": 11, "latent": 21}, "allows at most 10; take latent >= 22"),
        ({"shape": (3, 30, 30)}, r"shape=\(3, 30, 30\); it must be \(C, H, H\) with H = 4 or 7 doubled"),
        *(({"shape": shape}, "it must be") for shape in ((3, 32, 28), (3, 4, 4), (0, 32, 32), (32, 32))),
    ],
)
