"""Generator and critic of DiM: the published sizes, the class code, and the norm against the framework's."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddlib import models
from ddlib.models.gan import Critic, Generator, MapNorm

RGB, GREY = (3, 32, 32), (1, 28, 28)
BUILDERS = [
    lambda: Generator(shape=(3, 16, 16), num_classes=5, width=6, latent=20),
    lambda: Generator(shape=(1, 14, 14), num_classes=5, width=6),
    lambda: Critic(shape=(3, 16, 16), num_classes=5, width=6),
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=7, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def randomised(module, seed=0):
    """`module` with every parameter and buffer away from what it starts with, the variances positive."""
    models.reset(module, seeded(seed))
    with torch.no_grad():
        for index, tensor in enumerate((*module.parameters(), *module.buffers())):
            tensor.add_(0.1 * torch.rand(tensor.shape, generator=seeded(index)))
    return module


def count(tensors):
    return sum(tensor.numel() for tensor in tensors)


# Sizes, as published.


@pytest.mark.parametrize(
    ("shape", "parameters", "megamacs"), [(RGB, 3_559_363, 367.2), (GREY, 3_286_921, 276.4)], ids=["rgb", "grey"]
)
def test_generator_has_the_published_size(shape, parameters, megamacs):
    with torch.device("meta"):
        generator = Generator(shape=shape, num_classes=10).eval()
        with FlopCounterMode(display=False) as counter:
            generator(torch.zeros(1, 100), torch.zeros(1, dtype=torch.long))
    assert count(generator.parameters()) == parameters
    assert count(generator.buffers()) == 9_016
    assert round(counter.get_total_flops() / 2e6, 1) == megamacs


def test_critic_has_the_published_size():
    with torch.device("meta"):
        critic = Critic(shape=RGB, num_classes=10)
        with FlopCounterMode(display=False) as counter:
            critic(torch.zeros(1, *RGB))
    assert count(critic.parameters()) == 3_137_971
    assert count(critic.buffers()) == 0
    assert round(counter.get_total_flops() / 2e6, 1) == 276.5


def map_sizes(model, kinds, *inputs):
    """Shapes of what the layers of these kinds give, in order, without the batch."""
    sizes = []
    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    model(*inputs)
    return sizes


@pytest.mark.parametrize(
    ("shape", "sides"),
    [(RGB, [8, 8, 8, 8, 16, 16, 32, 32]), (GREY, [7, 7, 7, 7, 14, 14, 28, 28])],
    ids=["rgb", "grey"],
)
def test_maps_of_the_generator_are_the_tables(shape, sides):
    with torch.device("meta"):
        generator, labels = Generator(shape=shape, num_classes=10), torch.zeros(2, dtype=torch.long)
        sizes = map_sizes(generator, nn.Conv2d | nn.ConvTranspose2d, torch.zeros(2, 100), labels)
    assert sizes == [(196, side, side) for side in sides[:-1]] + [shape]
    kinds = [type(module) for module in generator.blocks if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    assert kinds == [nn.ConvTranspose2d, *[nn.Conv2d] * 3, nn.ConvTranspose2d, nn.Conv2d, nn.ConvTranspose2d]


@pytest.mark.parametrize(
    ("shape", "sides"),
    [(RGB, [32, 16, 16, 8, 8, 8, 8, 4]), (GREY, [28, 14, 14, 7, 7, 7, 7, 4])],
    ids=["rgb", "grey"],
)
def test_maps_of_the_critic_are_the_tables(shape, sides):
    with torch.device("meta"):
        critic = Critic(shape=shape, num_classes=10)
        assert map_sizes(critic, MapNorm, torch.zeros(2, *shape)) == [(196, side, side) for side in sides]
        score, logits = critic(torch.zeros(2, *shape))
    assert score.shape == (2,) and logits.shape == (2, 10)


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
    ours = randomised(Generator(shape=shape, num_classes=10, width=6, latent=30))
    plain = plain_generator(shape, 6, 30)
    for mine, other in zip(ours.parameters(), plain.parameters(), strict=True):
        other.data.copy_(mine)
    buffers = [(name, buffer) for name, buffer in plain.named_buffers() if "num_batches" not in name]
    for mine, (_, other) in zip(ours.buffers(), buffers, strict=True):
        other.copy_(mine)
    noise, labels = normal(8, 30), torch.arange(8)
    code = torch.cat([torch.eye(10)[labels], noise[:, 10:]], dim=1)
    for mode in (True, False):  # by the batch's statistics, then by the record that this has moved
        torch.testing.assert_close(ours.train(mode)(noise, labels), plain.train(mode)(code), rtol=1e-4, atol=1e-5)
    for mine, (name, other) in zip(ours.buffers(), buffers, strict=True):
        torch.testing.assert_close(mine, other, msg=name)


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
    for one, other in zip(mine, plain, strict=True):
        torch.testing.assert_close(one, other)


def penalty_gradients(score, x, parameters):
    """Gradient in the parameters of the mean of (||d score / d x|| - 1)^2."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return torch.autograd.grad(penalty, parameters, materialize_grads=True)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_map_norm_is_the_frameworks_twice_differentiated(memory_format):
    ours, theirs = MapNorm((4, 3, 2)).double(), nn.LayerNorm((4, 3, 2)).double()
    randomised(ours)
    theirs.load_state_dict(ours.state_dict())
    x = normal(2, 4, 3, 2, dtype=torch.float64)
    given = x.to(memory_format=memory_format).requires_grad_()
    assert ours(given).is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(ours(given), theirs(x), rtol=1e-12, atol=1e-12)
    direction = normal(2, 4, 3, 2, seed=1, dtype=torch.float64)

    def second(norm, x):
        inputs = [x, norm.weight, norm.bias]
        first = torch.autograd.grad((norm(x).square() * direction).sum(), inputs, create_graph=True)
        total = sum(each.square().sum() for each in first)
        return *first, *torch.autograd.grad(total, inputs)

    for one, other in zip(second(ours, given), second(theirs, x.requires_grad_()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradgradcheck(ours, (given,))


def test_images_lie_in_minus_one_to_one_and_follow_the_class():
    generator = randomised(Generator(shape=(3, 16, 16), num_classes=4, width=8)).eval()
    noise = normal(1, 100).expand(4, -1)
    images = generator(noise, torch.arange(4))
    assert images.abs().max() <= 1 and len(images.unique(dim=0)) == 4
    assert torch.equal(generator(noise, torch.arange(4)), images)


@pytest.mark.parametrize("build", BUILDERS)
def test_channels_last_gives_the_same(build):
    model = randomised(build()).double()
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    if isinstance(model, Critic):
        x = normal(4, *model.shape, dtype=torch.float64)
        torch.testing.assert_close(other(x.to(memory_format=torch.channels_last)), model(x))
    else:
        noise, labels = normal(4, model.latent, dtype=torch.float64), torch.arange(4)
        torch.testing.assert_close(other(noise, labels), model(noise, labels))


# The class inside the noise.


def test_one_hot_code_overwrites_the_first_values_and_no_other():
    generator = Generator(shape=(3, 8, 8), num_classes=7, width=4, latent=20)
    noise, labels = normal(5, 20), torch.tensor([6, 0, 3, 3, 1])
    before = noise.clone()
    code = generator.code(noise, labels)
    expected = noise.clone()
    for row, label in enumerate(labels):
        expected[row, :7] = 0
        expected[row, label] = 1
    assert torch.equal(code, expected) and torch.equal(noise, before)


def test_what_the_code_overwrites_decides_nothing():
    generator = randomised(Generator(shape=(3, 8, 8), num_classes=7, width=4, latent=20)).eval()
    noise, labels = normal(5, 20), torch.arange(5)
    other = noise.clone()
    other[:, :7] += 1
    assert torch.equal(generator(noise, labels), generator(other, labels))
    other[:, 7] += 1
    assert not torch.equal(generator(noise, labels), generator(other, labels))


def test_half_of_the_noise_is_the_most_that_a_code_may_take():
    Generator(shape=(3, 8, 8), num_classes=50, width=4)
    with pytest.raises(
        ValueError, match="num_classes=51; a one-hot code in noise of 100 values allows at most 50; take"
    ):
        Generator(shape=(3, 8, 8), num_classes=51, width=4)


# Weights.


@pytest.mark.parametrize("build", BUILDERS)
def test_redrawn_weights_are_those_of_the_constructor(build):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        constructed = build()
    redrawn = randomised(build(), seed=3)
    before = torch.get_rng_state()
    models.reset(redrawn, seeded(11))
    assert torch.equal(torch.get_rng_state(), before)
    expected = constructed.state_dict()
    assert redrawn.state_dict().keys() == expected.keys()
    for name, value in redrawn.state_dict().items():
        assert torch.equal(value, expected[name]), name


# Refusals.


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_classes": 11, "latent": 20}, "num_classes=11; a one-hot code in noise of 20 values allows at most 10"),
        ({"num_classes": 200}, "num_classes=200; .* take latent >= 400"),
        ({"num_classes": 0}, "num_classes=0; it must be >= 1"),
        ({"width": 0}, "width=0; it must be >= 1"),
        ({"shape": (3, 30, 30)}, r"shape=\(3, 30, 30\); it must be \(C, H, H\) with H = 4 or 7 doubled"),
        ({"shape": (3, 32, 28)}, r"shape=\(3, 32, 28\); it must be \(C, H, H\)"),
        ({"shape": (3, 4, 4)}, r"shape=\(3, 4, 4\); it must be"),
        ({"shape": (3, 9, 9)}, r"shape=\(3, 9, 9\); it must be"),
        ({"shape": (0, 32, 32)}, r"shape=\(0, 32, 32\); it must be"),
        ({"shape": (32, 32)}, r"shape=\(32, 32\); it must be"),
        ({"shape": (32,)}, r"shape=\(32,\); it must be"),
    ],
)
def test_a_generator_that_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Generator(**{"shape": RGB, "num_classes": 10, "width": 4, **options})


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_classes": 0}, "num_classes=0; it must be >= 1"),
        ({"width": 0}, "width=0; it must be >= 1"),
        ({"shape": (32, 32)}, r"shape=\(32, 32\); it must be three positive integers \(C, H, W\)"),
        ({"shape": (3, 0, 32)}, r"shape=\(3, 0, 32\); it must be three positive integers"),
    ],
)
def test_a_critic_that_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Critic(**{"shape": RGB, "num_classes": 10, "width": 4, **options})
