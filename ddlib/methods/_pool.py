"""DiM's pool: networks of several architectures, one at a time, fresh, and trained on real images while it is used."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.models import passes
from ddlib.models.passes import at_least_float32

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Architecture:
    """A kind of network, in training mode, as functions of (parameters, buffers, images (B, C, H, W)).

    build: a fresh network, from a generator of random numbers.
    logits: (B, K).
    embedding: (B, F), the input of the classifier.
    loss: with labels (B,) as a fourth argument, the mean cross-entropy.
    elements: of the largest map of one image; None where batch statistics make images depend on one another.
    """

    build: Callable[[torch.Generator], nn.Module]
    logits: Callable[..., Tensor]
    embedding: Callable[..., Tensor]
    loss: Callable[..., Tensor]
    elements: int | None

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last where a mini-batch passes whole; pieces that stay in the cache are faster contiguous."""
        return torch.channels_last if self.elements is None else torch.contiguous_format

    def parts(self, images: Tensor) -> int:
        """How many of these images pass the network at a time where only sums over them are asked for."""
        return passes.size(len(images), self.elements, images.device) if self.elements else len(images)


@functools.lru_cache(maxsize=16)
def architecture(
    name: str,
    options: tuple[tuple[str, Any], ...],
    shape: tuple[int, int, int],
    num_classes: int,
    *,
    compiled: bool = False,
) -> Architecture:
    """The architecture `name` of `ddlib.models`; equal arguments give the same object, compiled once a process.

    Raises:
        ValueError: an unknown network or option, or images too small for it.
    """
    build = functools.partial(models.build, name, shape=shape, num_classes=num_classes, **dict(options))
    with torch.device("meta"):
        network = build()
        features = network.features(torch.empty(2, *shape))
    largest = max(tensor.numel() // 2 for tensor in (*features.maps, features.embedding))
    elements = None if dict(network.named_buffers()) else largest

    def logits(parameters: Tensors, buffers: Tensors, images: Tensor) -> Tensor:
        return at_least_float32(functional_call(network, (parameters, buffers), (images,)))

    def embedding(parameters: Tensors, buffers: Tensors, images: Tensor) -> Tensor:
        given = _nested(parameters), _nested(buffers)
        return at_least_float32(functional_call(_Embed(network), given, (images,)))

    def loss(parameters: Tensors, buffers: Tensors, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits(parameters, buffers, images), labels)

    ready = passes.compiled if compiled else lambda function: function
    return Architecture(lambda stream: build(generator=stream), ready(logits), embedding, ready(loss), elements)


class _Embed(nn.Module):
    """A network that gives its embedding when called."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.embed(images)


def _nested(tensors: Tensors) -> Tensors:
    return {f"network.{name}": tensor for name, tensor in tensors.items()}


@dataclass
class Member:
    """A network of the pool in use: parameters that ask for gradients, buffers, and their SGD."""

    kind: Architecture
    parameters: Tensors
    buffers: Tensors
    sgd: torch.optim.SGD

    def state_dict(self) -> Tensors:
        """Parameters, buffers and momentum."""
        found = {f"parameters.{name}": value.detach() for name, value in self.parameters.items()}
        found |= {f"buffers.{name}": value for name, value in self.buffers.items()}
        states = {name: self.sgd.state.get(value, {}) for name, value in self.parameters.items()}
        return found | {f"momentum.{n}": s["momentum_buffer"] for n, s in states.items() if s}

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        for name, value in self.parameters.items():
            value.copy_(saved[f"parameters.{name}"])
            if f"momentum.{name}" in saved:
                self.sgd.state[value]["momentum_buffer"] = torch.empty_like(value).copy_(saved[f"momentum.{name}"])
        for name, value in self.buffers.items():
            value.copy_(saved[f"buffers.{name}"])

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in the networks' space; differentiable in the images alone."""
        return self.kind.logits(self._fixed(), self.buffers, self.arranged(images))

    def embedding(self, images: Tensor) -> Tensor:
        """Embeddings (B, F), differentiable in the images alone."""
        return self.kind.embedding(self._fixed(), self.buffers, self.arranged(images))

    def gradients(self, images: Tensor, labels: Tensor, *, create_graph: bool) -> list[Tensor]:
        """Gradients of the mean cross-entropy by the weights of more than two dimensions: the convolutions'."""
        weights = {name: value for name, value in self.parameters.items() if value.dim() > 2}
        loss = F.cross_entropy(self.kind.logits(self.parameters, self.buffers, self.arranged(images)), labels)
        return [*torch.autograd.grad(loss, [*weights.values()], create_graph=create_graph)]

    def arranged(self, images: Tensor) -> Tensor:
        """The images in the memory format of the network."""
        return images.contiguous(memory_format=self.kind.memory_format)

    def descend(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of SGD on the mean cross-entropy, which is returned, (); gradients stay, to be overwritten."""
        values, size = [*self.parameters.values()], self.kind.parts(images)
        total, summed = 0.0, None
        for part, own in zip(self.arranged(images).split(size), labels.split(size), strict=True):
            loss = self.kind.loss(self.parameters, self.buffers, part, own) * (len(part) / len(images))
            gradients = torch.autograd.grad(loss, values)
            summed = gradients if summed is None else torch._foreach_add(summed, gradients)
            total = total + loss.detach()
        for value, gradient in zip(values, summed, strict=True):
            value.grad = gradient
        self.sgd.step()
        return total

    def _fixed(self) -> Tensors:
        return {name: value.detach() for name, value in self.parameters.items()}


def draw(kinds: tuple[Architecture, ...], seed: int, number: int, device: torch.device, **sgd: float) -> Member:
    """The pool's network of this number: an architecture drawn uniformly, with fresh weights.

    Args:
        sgd: lr, momentum and weight_decay.
    """
    stream = seeding.generator(seed, "pool", number)
    kind = kinds[int(torch.randint(len(kinds), (), generator=stream))]
    network = kind.build(stream).to(device, memory_format=kind.memory_format)
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    return Member(kind, parameters, dict(network.named_buffers()), torch.optim.SGD([*parameters.values()], **sgd))


def train(
    member: Member, train: ImageSet, shown: Callable[[Tensor], Tensor], rows: Tensor, stream: torch.Generator
) -> Tensor:
    """SGD steps of the network on real images, each image with its own colour and crop.

    Args:
        shown: rows of `train` (n,) -> their images in the networks' space.
        rows: (steps, B) of the minibatches.
        stream: of the augmentation.

    Returns:
        The loss of the last step, ().
    """
    loss = torch.zeros((), device=train.device)
    for batch in rows:
        draws = augmentation.draw(1, len(batch), size=train.shape[1:], strategy="color+crop", generator=stream)
        loss = member.descend(augmentation.augment(shown(batch), draws), train.labels[batch])
    member.sgd.zero_grad()
    return loss
