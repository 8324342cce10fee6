"""The images that a prior is trained on, and how its classes and channels fit those of a data set."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ddlib.data import datasets
from ddlib.data.datasets import ImageSet
from ddlib.models.latent import LatentDiffusion

_CHUNK = 256
_LUMA = (0.299, 0.587, 0.114)


def shaped(images: ImageSet, shape: tuple[int, int, int]) -> Tensor:
    """The images as pixels of another shape: resized with antialiasing, gray repeated, colours as their luma.

    Args:
        images: in any space; of 1 or 3 channels where `shape` has others.
        shape: (C, H, W).

    Returns:
        (N, C, H, W) uint8 on the device of `images`.

    Raises:
        ValueError: the channels cannot be brought to C.
    """
    if images.shape[0] != shape[0] and {images.shape[0], shape[0]} != {1, 3}:
        raise ValueError(f"{images.name} has {images.shape[0]} channels; allowed: {shape[0]}, or 1 for 3 and 3 for 1")
    if images.shape == shape and images.images.dtype == torch.uint8:
        return images.images
    chunks = torch.arange(len(images), device=images.device).split(_CHUNK)
    return torch.cat([_reshaped(_pixels(images, rows), shape) for rows in chunks])


def _pixels(images: ImageSet, rows: Tensor) -> Tensor:
    """Chosen images, (B, C, H, W) float32 in [0, 255]; whitened ones are brought back."""
    if images.images.dtype == torch.uint8:
        return images.images[rows].float()
    return images.space.decode(images.take(rows)) * 255


def _reshaped(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if pixels.shape[1] == 3 and shape[0] == 1:
        pixels = (pixels * pixels.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if pixels.shape[2:] != shape[1:]:
        pixels = F.interpolate(pixels, shape[1:], mode="bilinear", align_corners=False, antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, shape[0], -1, -1)


def signed(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def class_ids(prior: LatentDiffusion, images: ImageSet) -> Tensor | None:
    """What the prior calls the classes of `images`: (K,) int64; None where it knows no classes.

    The classes in their order, or, with a prior of ImageNet's 1,000, their places among these.

    Raises:
        ValueError: the prior is of images of other channels or of other classes, or f does not divide their sides.
    """
    prior.latent_shape(images.shape)
    if prior.num_classes is None:
        return None
    if prior.num_classes == images.num_classes:
        return torch.arange(images.num_classes, device=images.device)
    positions = datasets.describe(images.name).positions if images.name in datasets.names() else ()
    if prior.num_classes == 1000 and positions:
        return torch.tensor(positions, device=images.device)
    raise ValueError(
        f"the prior is of {prior.num_classes} classes, and {images.name} has {images.num_classes}; take a prior of as "
        "many, one of ImageNet's 1000 for a part of ImageNet, or an unconditional one"
    )
