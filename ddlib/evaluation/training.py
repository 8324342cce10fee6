"""Several networks trained at once on the same images, as if each were trained alone.

The parameters of A networks are stacked, and one call under `torch.vmap` takes the step of all of them; a network
alone is called as it is.  Its initial weights, the order of its images and their augmentation come from streams named
by (seed, index of the network, epoch), so they do not depend on who else is trained.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ddlib import models
from ddlib.data.augmentation import Draws, augment, draw
from ddlib.evaluation.images import STREAM, Shown
from ddlib.evaluation.protocol import Protocol
from ddlib.models import passes
from ddlib.seeding import generator, scoped

Tensors = dict[str, Tensor]
"""Name in the network -> tensor; with a leading axis A where several networks are stacked."""

TEST_BATCH = 128
"""Test images whose statistics a network is tested on with `Protocol.compat`: the default batch of DiM's code."""

TOGETHER_ELEMENTS = {"cpu": 0, "cuda": 2**24}
"""Largest map of one mini-batch of all networks trained together; beyond it, fewer are.

On a GPU small mini-batches are bound by the launching of kernels, which networks share when trained together: 2**24
elements are the 128 images at 128 x 32 x 32 that keep it busy (an estimate).  On a CPU a network alone is the faster
at any size: a convolution under vmap is a grouped one, which takes 0.8 to 3.5 times as long.
"""


@dataclass(frozen=True, eq=False)
class Learner:
    """A kind of network, with the functions that train and test it; see `learner`.

    Args:
        build: a fresh network on the CPU, from a generator.
        losses: (parameters, buffers, images, targets) -> (1,), of one network: the sum over the images (1, B, C, H, W).
        stacked_losses: the same of A networks: images (A, B, C, H, W) -> (A,).
        logits: (parameters, buffers, images (B, C, H, W)) -> (B, K), of one network in evaluation mode; with
            `Protocol.compat` in training mode.
        elements: of the largest map of one image.
        whole_batches: whether images of a mini-batch depend on one another (running statistics, dropout).
        draws: whether the network draws random numbers itself (dropout).
        test_batch: images of a test batch, where they depend on one another; else None.
    """

    build: Callable[[torch.Generator], nn.Module]
    losses: Callable[..., Tensor]
    stacked_losses: Callable[..., Tensor]
    logits: Callable[..., Tensor]
    elements: int
    whole_batches: bool
    draws: bool
    test_batch: int | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A network after an epoch, and its mean loss over that epoch: (), on the device."""

    parameters: Tensors
    buffers: Tensors
    loss: Tensor


def learner(protocol: Protocol, shape: tuple[int, int, int], num_classes: int) -> Learner:
    """What trains and tests the protocol's network on images of `shape` (C, H, W).

    The same arguments give the same object, so that what was compiled is compiled once a process.

    Raises:
        ValueError: an unknown option of the network, images too small for it, or, with `compat`, dropout.
    """
    options = tuple(sorted(protocol.options.items()))
    how = protocol.precision, protocol.compiled, protocol.compat
    return _learner(protocol.network, options, tuple(shape), num_classes, *how)


@functools.lru_cache(maxsize=16)
def _learner(network, options, shape, num_classes, precision, compiled, compat):
    build = functools.partial(models.build, network, shape=shape, num_classes=num_classes, **dict(options))
    with torch.device("meta"):  # a shape without values: functional_call brings the tensors
        training, testing = build(), build().eval()
        image = torch.empty(1, *shape)
        features = testing.features(image)
    draws = any(isinstance(module, nn.Dropout) and module.p > 0 for module in training.modules())
    if draws and compat:
        raise ValueError(f"compat={compat!r} tests networks in training mode: {network} has dropout; allowed: none")
    loss, logits = _functions(training, training if compat else testing, precision)
    ready = functools.partial(passes.compiled, draws=draws) if compiled else lambda function: function
    return Learner(
        build=lambda stream: build(generator=stream),
        losses=ready(lambda p, b, images, targets: loss(p, b, images[0], targets[0])[None]),
        stacked_losses=ready(torch.vmap(loss)),
        logits=ready(logits),
        elements=max(tensor.numel() for tensor in (image, *features.maps, features.embedding)),
        whole_batches=draws or any(True for _ in training.buffers()),
        draws=draws,
        test_batch=TEST_BATCH if compat else None,
    )


def _functions(training: nn.Module, testing: nn.Module, precision: str) -> tuple[Callable, Callable]:
    """The loss of one network, summed over the images, and its logits; both in `precision`."""

    def forward(model, parameters, buffers, images):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return functional_call(model, (parameters, buffers), (images,)).to(images.dtype)

    def loss(parameters, buffers, images, targets):
        return F.cross_entropy(forward(training, parameters, buffers, images), targets, reduction="sum")

    return loss, functools.partial(forward, testing)


def train(
    learner: Learner,
    shown: Shown,
    protocol: Protocol,
    *,
    networks: Sequence[int],
    seed: int | Sequence[int],
    after_epoch: Callable[[], Any] = lambda: None,
) -> Iterator[list[Trained]]:
    """Train the networks of the given indices together, by the protocol.

    Args:
        learner: of the protocol's network.
        shown: what they are trained on; the networks are of its type and on its device.
        networks: their indices.  With a learner that `draws`, only one.
        seed: of all randomness; or one for each network, where `shown` takes these (`images.Beside`).
        after_epoch: called after each epoch.

    Yields:
        One `Trained` a network, whenever the protocol tests them; with the next epoch their tensors go on changing.
    """
    seeds = [seed] * len(networks) if isinstance(seed, int) else seed
    parameters, buffers = _fresh(learner, shown.like, networks, seeds)
    optimiser, tested = _sgd(parameters, protocol), (parameters, buffers)
    size = micro_batch(min(protocol.batch_size, len(shown)), learner, shown.like.device)
    for epoch in range(protocol.rounds):
        for group in optimiser.param_groups:
            group["lr"] = protocol.rate(epoch)
        total = torch.zeros(len(networks), dtype=shown.like.dtype, device=shown.like.device)
        noise = scoped(seeds[0], STREAM, "dropout", networks[0], epoch) if learner.draws else contextlib.nullcontext()
        named = zip(seeds, networks, strict=True)
        streams = [generator(own, STREAM, "augmentation", index, epoch) for own, index in named]
        with noise:
            for images, aims in shown.epoch(epoch, networks, seed, protocol.batch_size):
                images = _augmented(images, shown.strategy, streams)
                aims = aims if shown.asked is None else shown.asked(images)
                total += _update(learner, parameters, buffers, optimiser, images, aims, size)
        if epoch == protocol.drop_epoch:
            optimiser = _sgd(parameters, protocol)
        if protocol.ema is not None:
            decay = min(protocol.ema, 1 - 1 / (epoch + 1))
            tested = tuple(map(functools.partial(_averaged, decay), tested, (parameters, buffers)))
        after_epoch()
        if epoch in protocol.tested_after:
            yield [
                Trained(*(_one(tensors, i, len(networks)) for tensors in tested), loss / len(shown))
                for i, loss in enumerate(total)
            ]


@torch.no_grad()
def predictions(learner: Learner, trained: Trained, count: int, take: Callable[[Tensor], Tensor]) -> Tensor:
    """The classes that a trained network gives to `count` images: (count,) int64.

    Args:
        take: (n,) int64 indices -> the images (n, C, H, W).
    """
    device = trained.loss.device
    size = min(count, learner.test_batch or passes.most(learner.elements, device))
    found = torch.empty(count, dtype=torch.int64, device=device)
    for start in range(0, count, size):
        if learner.test_batch is None:
            start = min(start, count - size)  # the last pass goes over some images again: all have one size, for speed
        rows = torch.arange(start, min(start + size, count), device=device)
        found[rows] = learner.logits(trained.parameters, trained.buffers, take(rows)).argmax(1)
    return found


def at_once(protocol: Protocol, learner: Learner, num_images: int, device: torch.device) -> int:
    """How many networks to train together: `protocol.at_once`, or as many as `TOGETHER_ELEMENTS` allows; at least 1.

    A network that draws random numbers itself is always trained alone: under vmap its numbers would be others.
    """
    if learner.draws:
        return 1
    if protocol.at_once is not None:
        return protocol.at_once
    elements = min(protocol.batch_size, num_images) * learner.elements
    return max(1, TOGETHER_ELEMENTS.get(device.type, 0) // elements)


def micro_batch(batch: int, learner: Learner, device: torch.device) -> int:
    """Images in a pass of a mini-batch of `batch` images, over which gradients are added up.

    By `ddlib.models.passes`; the whole of it where its images depend on one another.
    """
    return batch if learner.whole_batches else passes.size(batch, learner.elements, device)


def _fresh(learner: Learner, like: Tensor, networks: Sequence[int], seeds: Sequence[int]) -> tuple[Tensors, Tensors]:
    """Parameters, which ask for gradients, and buffers of fresh networks: stacked, or one network's as they are."""
    streams = [generator(seed, STREAM, "network", index) for seed, index in zip(seeds, networks, strict=True)]
    built = [learner.build(stream).to(like) for stream in streams]

    def stacked(kind: Callable[[nn.Module], Mapping[str, Tensor]]) -> Tensors:
        tensors = [kind(network) for network in built]
        if len(tensors) == 1:
            return {name: tensor.detach() for name, tensor in tensors[0].items()}
        return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}

    parameters = stacked(lambda network: dict(network.named_parameters()))
    buffers = stacked(lambda network: dict(network.named_buffers()))
    return {name: parameter.requires_grad_() for name, parameter in parameters.items()}, buffers


def _sgd(parameters: Tensors, protocol: Protocol) -> torch.optim.Optimizer:
    """A fresh optimiser: elementwise, so that on stacked parameters it is one for each network."""
    weights = list(parameters.values())
    settings = {"momentum": protocol.momentum, "weight_decay": protocol.weight_decay}
    return torch.optim.SGD(weights, lr=protocol.lr, **settings, foreach=True)


@torch.no_grad()
def _averaged(decay: float, average: Tensors, now: Tensors) -> Tensors:
    """decay * average + (1 - decay) * now, as tensors of their own."""
    return {name: tensor.detach().lerp(average[name].detach(), decay) for name, tensor in now.items()}


def _augmented(images: Tensor, strategy: str, streams: Sequence[torch.Generator]) -> Tensor:
    """DSA of (A, B, C, H, W): one family a network, own parameters for each image."""
    size = tuple(images.shape[-2:])
    each = [draw(1, images.shape[1], size=size, strategy=strategy, generator=stream) for stream in streams]
    draws = Draws(torch.cat([d.family for d in each]), torch.cat([d.values for d in each]), size)
    return augment(images.flatten(0, 1), draws).view(images.shape)


def _update(learner, parameters, buffers, optimiser, images, targets, size):
    """One step of all networks on their mini-batches; the sums of their losses over the images, (A,)."""
    losses = learner.losses if len(images) == 1 else learner.stacked_losses
    total = 0
    for part, aims in zip(images.split(size, dim=1), targets.split(size, dim=1), strict=True):
        found = losses(parameters, buffers, part, aims)
        (found.sum() / images.shape[1]).backward()
        total = total + found.detach()
    optimiser.step()
    optimiser.zero_grad()
    return total


def _one(tensors: Tensors, index: int, count: int) -> Tensors:
    """The tensors of one of `count` networks."""
    return {name: (t if count == 1 else t[index]).detach() for name, t in tensors.items()}
