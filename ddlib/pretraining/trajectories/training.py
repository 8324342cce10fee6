"""One step of several experts at once: their losses, the gradient over a mini-batch, and the laws of the update."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddlib import models
from ddlib.data.augmentation import Draws, augment, draw
from ddlib.models import compilation, passes
from ddlib.models.flat import Flat

PRECISIONS = ("float32", "bfloat16")

Gradient = Callable[[Tensor], Tensor]
"""Parameters (A, P) of A experts -> the gradient of each one's loss on its mini-batch, (A, P)."""


@dataclass(frozen=True, eq=False)
class Learner:
    """A kind of network as functions of stacked parameter vectors; see `learner`.

    Args:
        flat: the network as a function of one vector.
        fresh: initial parameters (P,) on the CPU, from a generator.
        losses: (theta (A, P), images (A, B, C, H, W), labels (A, B)) -> (A,): cross entropy summed over the images.
        elements: of the largest map of one image.
    """

    flat: Flat
    fresh: Callable[[torch.Generator], Tensor]
    losses: Callable[[Tensor, Tensor, Tensor], Tensor]
    elements: int


@functools.lru_cache(maxsize=16)
def learner(
    network: str,
    options: tuple[tuple[str, Any], ...],
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    precision: str,
    compiled: bool,
) -> Learner:
    """The functions that train a network.  The same arguments give the same object, so all is compiled once.

    Args:
        network, options: as `models.build` takes them.
        shape, num_classes: of the images.
        precision: "float32" or "bfloat16" of convolutions and products; parameters and losses keep their type.
        compiled: whether through `torch.compile`.

    Raises:
        ValueError: an unknown option, images too small, or a network with running statistics.
    """
    build = functools.partial(models.build, network, shape=shape, num_classes=num_classes, **dict(options))
    with torch.device("meta"):
        flat, image = Flat(build()), torch.empty(1, *shape)
        features = flat.network.features(image)

    def loss(theta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = flat(theta, images)
        return F.cross_entropy(logits.to(images.dtype), labels, reduction="sum")

    ready = compilation.compiled if compiled else lambda function: function
    one, many = ready(lambda theta, images, labels: loss(theta[0], images[0], labels[0])[None]), ready(torch.vmap(loss))
    return Learner(
        flat=flat,
        fresh=lambda stream: flat.vector(dict(build(generator=stream).named_parameters())),
        losses=lambda theta, images, labels: (one if len(theta) == 1 else many)(theta, images, labels),
        elements=max(tensor.numel() for tensor in (image, *features.maps, features.embedding)),
    )


def mean_gradient(learner: Learner, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of each expert's mean cross entropy on its mini-batch, and the losses, added up over micro-batches.

    Args:
        theta: (A, P).
        images: (A, B, C, H, W).
        labels: (A, B).

    Returns:
        (A, P), and the mean losses (A,).
    """
    theta = theta.detach().requires_grad_()
    size = passes.size(images.shape[1], learner.elements * len(theta), images.device)
    gradient, total = torch.zeros_like(theta), torch.zeros(len(theta), dtype=images.dtype, device=images.device)
    for part, aims in zip(images.split(size, dim=1), labels.split(size, dim=1), strict=True):
        losses = learner.losses(theta, part, aims)
        gradient += torch.autograd.grad(losses.sum(), theta)[0]
        total += losses.detach()
    return gradient / images.shape[1], total / images.shape[1]


def sgd(theta: Tensor, gradient: Gradient, *, lr: float) -> Tensor:
    """w - lr grad l(w), for each of A experts: SGD without momentum and decay (MTT, Cazenavette et al. 2022)."""
    return theta - lr * gradient(theta)


def gsam(theta: Tensor, gradient: Gradient, *, lr: float, rho: float, alpha: float) -> Tensor:
    """One step of adaptive GSAM (Zhuang et al. 2022) as FTD and DATM take it, for each of A experts.

    On one mini-batch, augmented once, with loss l and products of vectors elementwise:

        g = grad l(w)
        e = rho (w w g) / (|| |w| g ||_2 + 1e-12)
        q = grad l(w + e)
        g_perp = g - <g, q> q / ||q||^2
        w <- w - lr (q - alpha g_perp)

    Args:
        theta: w, (A, P).
        gradient: grad l on the same mini-batch, whenever it is called.
        lr, rho, alpha: as above.

    Returns:
        The new parameters, (A, P).
    """
    g = gradient(theta)
    q = gradient(theta + rho * theta * theta * g / (_norm(theta * g) + 1e-12))
    along = (g * q).sum(1, keepdim=True) / _norm(q).square().clamp_min(torch.finfo(q.dtype).tiny)
    return theta - lr * (q - alpha * (g - along * q))


def _norm(vectors: Tensor) -> Tensor:
    return vectors.norm(dim=1, keepdim=True)


def augmented(images: Tensor, strategy: str, streams: list[torch.Generator]) -> Tensor:
    """DSA of (A, B, C, H, W): one family a mini-batch, that is an expert; own parameters for each image."""
    count, batch, _, *size = images.shape
    each = [draw(1, batch, size=tuple(size), strategy=strategy, generator=stream) for stream in streams]
    draws = Draws(torch.cat([d.family for d in each]), torch.cat([d.values for d in each]), tuple(size))
    return augment(images.flatten(0, 1), draws).view(images.shape)
