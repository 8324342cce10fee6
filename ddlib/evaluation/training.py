"""Several networks trained at once on the same images, as if each were trained alone.

The parameters of A networks are stacked, and one call takes the step of all of them: with grouped convolutions where
the layers know how (`ddlib.models.layers`), else under `torch.vmap`; a network alone is called as it is.  Its initial
weights, the order of its images and their augmentation come from streams named by (seed, index of the network, epoch),
so they do not depend on who else is trained.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddlib.data.augmentation import augment_stacked
from ddlib.evaluation.images import STREAM, Batch, TrainingImages
from ddlib.evaluation.protocol import Protocol
from ddlib.models import passes
from ddlib.models.passes import PureNetwork
from ddlib.seeding import generator, scoped

Tensors = dict[str, Tensor]
"""Name in the network -> tensor; with a leading axis A where several networks are stacked."""

AUGMENTED = 2**19
"""Values of images (2 MiB) that are augmented in one pass: epochs of a small set, one mini-batch of a large one."""

TEST_BATCH = 128
"""Test images whose statistics a network is tested on with `Protocol.compat`: the default batch of DiM's code."""


@dataclass(frozen=True, eq=False)
class Learner:
    """A kind of network, with the functions that train and test it; see `learner`.

    network: the network.
    losses: (parameters, buffers, images (A, B, C, H, W), targets) -> (A,), of A networks: summed over the images.
    logits: (parameters, buffers, images (B, C, H, W)) -> (B, K), of one network in evaluation mode; with
        `Protocol.compat` in training mode.
    test_batch: images of a test batch, where they depend on one another; else None.
    """

    network: PureNetwork
    losses: Callable[..., Tensor]
    logits: Callable[..., Tensor]
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
    network = passes.pure(
        protocol.network, protocol.options, shape=shape, num_classes=num_classes, precision=protocol.precision
    )
    if network.draws and protocol.compat:
        raise ValueError(
            f"compat={protocol.compat!r} tests networks in training mode: {protocol.network} has dropout or is none of "
            "ours; allowed: networks without"
        )
    return _learner(network, protocol.compiled, protocol.compat is not None)


@functools.lru_cache(maxsize=16)
def _learner(network: PureNetwork, compiled: bool, official: bool) -> Learner:
    ready = functools.partial(passes.compiled, draws=network.draws) if compiled else lambda function: function
    return Learner(
        network=network,
        losses=passes.stacked(network.logits, network.grouped, ready),
        logits=ready(functools.partial(network.logits, training=official)),
        test_batch=TEST_BATCH if official else None,
    )


def train(
    learner: Learner,
    images: TrainingImages,
    protocol: Protocol,
    *,
    networks: Sequence[int],
    seed: int,
    after_epoch: Callable[[], Any] = lambda: None,
) -> Iterator[list[Trained]]:
    """Train the networks of the given indices together, by the protocol.

    Args:
        images: what they are trained on; the networks are of its type and on its device.
        networks: their indices.  Only one with a network that draws random numbers itself.

    Yields:
        One `Trained` a network, whenever the protocol tests them; with the next epoch their tensors go on changing.
    """
    parameters, buffers = _fresh(learner, images.like, networks, seed)
    averages = parameters, buffers
    optimiser = _sgd(parameters, protocol)
    size = micro_batch(min(protocol.batch_size, len(images)), learner, images.like.device)
    batches, per_epoch = _augmented(images, protocol, networks, seed), math.ceil(len(images) / protocol.batch_size)
    for epoch in range(protocol.rounds):
        for group in optimiser.param_groups:
            group["lr"] = protocol.rate(epoch)
        losses = torch.zeros(len(networks), dtype=images.like.dtype, device=images.like.device)
        draws = learner.network.draws  # dropout, of the one network then
        with scoped(seed, STREAM, "dropout", networks[0], epoch) if draws else contextlib.nullcontext():
            for batch, targets in itertools.islice(batches, per_epoch):
                targets = targets if images.teacher is None else images.teacher(batch)
                losses += _update(learner, parameters, buffers, optimiser, batch, targets, size)
        if epoch == protocol.drop_epoch:
            optimiser = _sgd(parameters, protocol)  # forgets its momentum, as the published code does
        if protocol.ema is not None:
            decay = min(protocol.ema, 1 - 1 / (epoch + 1))
            averages = _averaged(decay, averages[0], parameters), _averaged(decay, averages[1], buffers)
        after_epoch()
        if epoch in protocol.tested_after:
            tested = averages if protocol.ema is not None else (parameters, buffers)
            for_each = [
                [{name: tensor[i].detach() for name, tensor in tensors.items()} for tensors in tested]
                for i in range(len(networks))
            ]
            yield [Trained(*own, losses[i] / len(images)) for i, own in enumerate(for_each)]


def _augmented(images: TrainingImages, protocol: Protocol, networks: Sequence[int], seed: int) -> Iterator[Batch]:
    """The mini-batches of all epochs, augmented: in one pass as many as reach `AUGMENTED` elements together."""
    waiting: list[Batch] = []
    streams: list[list[torch.Generator]] = []

    def shown() -> Iterator[Batch]:
        plain, targets = zip(*waiting, strict=True)
        yield from zip(augment_stacked(plain, images.strategy, streams), targets, strict=True)
        waiting.clear(), streams.clear()

    for epoch in range(protocol.rounds):
        of_epoch = [generator(seed, STREAM, "augmentation", index, epoch) for index in networks]
        for batch in images.epoch(epoch, networks, seed, protocol.batch_size):
            waiting.append(batch)
            streams.append(of_epoch)
            if len(waiting) * waiting[0][0].numel() >= AUGMENTED:
                yield from shown()
    if waiting:
        yield from shown()


@torch.no_grad()
def predictions(learner: Learner, trained: Trained, count: int, take: Callable[[Tensor], Tensor]) -> Tensor:
    """The classes (count,) int64 that a network gives to `count` images, which `take` gives at (n,) int64 indices."""
    device = trained.loss.device
    size = min(count, learner.test_batch or passes.most(learner.network.elements, device))
    classes = torch.empty(count, dtype=torch.int64, device=device)
    for start in range(0, count, size):
        if learner.test_batch is None:
            start = min(start, count - size)  # the last pass goes over some images again: all have one size, for speed
        rows = torch.arange(start, min(start + size, count), device=device)
        classes[rows] = learner.logits(trained.parameters, trained.buffers, take(rows)).argmax(1)
    return classes


def at_once(protocol: Protocol, learner: Learner, num_images: int, device: torch.device) -> int:
    """How many networks to train together: `protocol.at_once`, or as many as pass together on the device; at least 1.

    A network that draws random numbers itself is always trained alone: under vmap its numbers would be others.
    """
    if learner.network.draws:
        return 1
    if protocol.at_once is not None:
        return protocol.at_once
    return passes.together(min(protocol.batch_size, num_images), learner.network, device)


def micro_batch(batch: int, learner: Learner, device: torch.device) -> int:
    """Images in a pass of a mini-batch of `batch` images, over which gradients are added up.

    By `ddlib.models.passes`; the whole of it where its images depend on one another.
    """
    return batch if learner.network.whole_batches else passes.size(batch, learner.network.elements, device)


def _fresh(learner: Learner, like: Tensor, networks: Sequence[int], seed: int) -> tuple[Tensors, Tensors]:
    """Parameters, which ask for gradients, and buffers of fresh networks, stacked."""
    streams = [generator(seed, STREAM, "network", index) for index in networks]
    built = [learner.network.build(generator=stream).to(like) for stream in streams]

    def stack(kind: Callable[[nn.Module], Mapping[str, Tensor]]) -> Tensors:
        tensors = [kind(network) for network in built]
        return {name: torch.stack([t[name].detach() for t in tensors]) for name in tensors[0]}

    parameters = stack(lambda network: dict(network.named_parameters()))
    buffers = stack(lambda network: dict(network.named_buffers()))
    return {name: parameter.requires_grad_() for name, parameter in parameters.items()}, buffers


def _sgd(parameters: Tensors, protocol: Protocol) -> torch.optim.Optimizer:
    """A fresh optimiser: elementwise, so that on stacked parameters it is one for each network."""
    weights = list(parameters.values())
    settings = {"momentum": protocol.momentum, "weight_decay": protocol.weight_decay}
    return torch.optim.SGD(weights, lr=protocol.lr, **settings, fused=True)


@torch.no_grad()
def _averaged(decay: float, average: Tensors, now: Tensors) -> Tensors:
    """decay * average + (1 - decay) * now, as tensors of their own."""
    return {
        name: tensor.detach().lerp(average[name].detach(), decay) if tensor.is_floating_point() else tensor.detach()
        for name, tensor in now.items()
    }


def _update(learner, parameters, buffers, optimiser, images, targets, size):
    """One step of all networks on their mini-batches; the sums of their losses over the images, (A,)."""
    total = 0
    for part, part_targets in zip(images.split(size, dim=1), targets.split(size, dim=1), strict=True):
        losses = learner.losses(parameters, buffers, part, part_targets)
        (losses.sum() / images.shape[1]).backward()
        total = total + losses.detach()
    optimiser.step()
    optimiser.zero_grad()
    return total
