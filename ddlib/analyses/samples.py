"""Looking at a generator's images: walks through its noise, and the real images nearest to its samples."""

import torch
from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticStream
from ddlib.seeding import generator

CHUNK = 4096
"""Real images that are compared at a time."""


def pixels(data: ImageSet, rows: Tensor) -> Tensor:
    """The pixels of the images at `rows` (n,) of a set: (n, C, H, W) float32 in [0, 1], on its device."""
    chosen = data.images.index_select(0, rows.to(data.device))
    if not chosen.is_floating_point():
        return chosen.float().div_(255)
    return data.space.decode(chosen).clamp(0, 1)


def nearest(images: Tensor, train: ImageSet) -> tuple[Tensor, Tensor]:
    """The real image nearest to each of `images`: sqrt(mean of squared differences of pixels) is least.

    Args:
        images: (n, C, H, W) pixels in [0, 1], n >= 1, of the size of those of `train`, else a ValueError.
        train: among which is searched, whatever the class.

    Returns:
        rows (n,) int64 of `train`, of equal ones the first, and distances (n,) float32 in [0, 1], both on its device.
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != train.shape or not len(images):
        raise ValueError(f"images are {tuple(images.shape)}; allowed: (n, {', '.join(map(str, train.shape))}), n >= 1")
    flat = images.to(train.device).flatten(1)
    chunks = torch.arange(len(train), device=train.device).split(CHUNK)
    rows = torch.cat([torch.cdist(flat, pixels(train, chunk).flatten(1)) for chunk in chunks], 1).argmin(1)
    return rows, (flat - pixels(train, rows).flatten(1)).square().mean(1).sqrt()


def walks(stream: SyntheticStream, labels: Tensor, *, steps: int, seed: int) -> Tensor:
    """Images of a walk from one noise to another, the class kept, for each of `labels`.

    A walk goes along the great circle through both noises, in equal angles, so that every point is about as long as its
    ends; the straight line would pass through noise that the generator never sees.

    Args:
        labels: (n,) int64 in [0, K), one walk each; its ends depend on its place and `seed` alone.
        steps: images of a walk, its ends included, >= 2.

    Returns:
        (n, steps, C, H, W) pixels in [0, 1], on the stream's device.
    """
    if steps < 2:
        raise ValueError(f"steps={steps!r}; allowed: from 2, both ends")
    ends = [stream.noise(2, generator(seed, "samples", "walk", place)) for place in range(len(labels))]
    noise = []
    for first, last in ends:
        angle = torch.nn.functional.cosine_similarity(first, last, dim=0).clamp(-1, 1).acos()
        share = torch.linspace(0, 1, steps)[:, None]
        weights = ((1 - share) * angle).sin() / angle.sin(), (share * angle).sin() / angle.sin()
        noise.append(weights[0] * first + weights[1] * last)
    images = stream.images(labels.repeat_interleave(steps), torch.cat(noise))
    return stream.space.decode(images).clamp(0, 1).unflatten(0, (len(labels), steps))
