"""Synthetic sets: labelled images, distilled or chosen."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddlib.data.augmentation import draw
from ddlib.data.synthetic.card import Card
from ddlib.data.whitening import ValueSpace


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """A distilled (or chosen) set of labelled images.

    Args:
        images: (N, C, H, W) float32 in `space`, N >= 1, finite.
        labels: (N,) int64 in [0, K), or soft ones, (N, K) float32 logits, finite: the target of an image is their
            softmax.
        class_names: the K names.
        space: what the images are in.
        strategy: the DSA strategy that training on the set goes with; see `ddlib.data.augmentation`.
        learning_rate: one that was learnt with the images, > 0, or None.
        provenance: where the set comes from, as plain JSON.
        latents: what the images were rendered from by a generator that is kept elsewhere, by name.
        card: how it was judged and what it reached, where it states that.

    Raises:
        ValueError: an argument is not as above, or `space` does not fit the images.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    space: ValueSpace
    strategy: str
    learning_rate: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    latents: Mapping[str, Tensor] = field(default_factory=dict)
    card: Card | None = None

    def __post_init__(self):
        _check_images(self.images, self.space)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check_labels(self.labels, self.images, len(self.class_names))
        check_strategy(self.strategy, tuple(self.images.shape[2:]))
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be None or a finite number > 0, got {self.learning_rate}")
        check_provenance(self.provenance)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return tuple(self.images.shape[1:])

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def is_soft(self) -> bool:
        """Whether the labels are logits."""
        return self.labels.ndim == 2

    @property
    def bytes_stored(self) -> int:
        """Bytes of images and labels as `save` writes them; a ZCA belongs to the real data and is not counted.

        Nor are `latents`: they take the place of the images only for who has their generator.
        """
        return self.images.nbytes + self.labels.nbytes

    def pixels(self) -> Tensor:
        """The images as pixels to look at: (N, C, H, W) float32, clipped to [0, 1]."""
        return self.space.decode(self.images).clamp(0, 1)

    def to(self, device: str | torch.device) -> "SyntheticSet":
        """The same set on `device`."""
        moved = {"images": self.images.to(device), "labels": self.labels.to(device), "space": self.space.to(device)}
        moved |= {"latents": {name: tensor.to(device) for name, tensor in self.latents.items()}}
        return replace(self, **moved)


def check_strategy(strategy: str, size: tuple[int, int]) -> None:
    """Refuse an unknown DSA strategy of images of `size` (H, W) with a ValueError."""
    draw(1, 1, size=size, strategy=str(strategy), generator=torch.Generator())


def check_provenance(provenance: Mapping[str, Any]) -> None:
    """Refuse what is not plain JSON with a ValueError."""
    try:
        json.dumps(provenance, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must be plain JSON: {error}") from error


def _check_images(images: Tensor, space: ValueSpace) -> None:
    if images.ndim != 4 or not len(images) or images.dtype != torch.float32:
        raise ValueError(f"images must be (N, C, H, W) float32, N >= 1, got {tuple(images.shape)} {images.dtype}")
    if not images.isfinite().all():
        raise ValueError("images hold values that are not finite")
    if len(space.mean) != images.shape[1]:
        raise ValueError(f"space is for {len(space.mean)} channels, images have {images.shape[1]}")
    if space.zca is not None and len(space.zca.mean) != images[0].numel():
        raise ValueError(f"space whitens images of {len(space.zca.mean)} values, images have {images[0].numel()}")


def _check_labels(labels: Tensor, images: Tensor, num_classes: int) -> None:
    hard = labels.shape == (len(images),) and labels.dtype == torch.int64
    soft = labels.shape == (len(images), num_classes) and labels.dtype == torch.float32
    if num_classes < 1 or not (hard or soft) or labels.device != images.device:
        raise ValueError(
            f"labels must be ({len(images)},) int64 or ({len(images)}, {num_classes}) float32 on {images.device}, "
            f"with at least one class, got {tuple(labels.shape)} {labels.dtype} on {labels.device}"
        )
    if soft and not labels.isfinite().all():
        raise ValueError("labels hold logits that are not finite")
    if hard and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels must lie in [0, {num_classes}), got {int(labels.min())} to {int(labels.max())}")
