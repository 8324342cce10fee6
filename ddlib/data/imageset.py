"""A split of a data set as one tensor of images, and parts of it that have some of its classes."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddlib.data.catalogue import SPLITS
from ddlib.data.whitening import ValueSpace


def part_name(name: str, classes: Sequence[int]) -> str:
    """The name of the part of a data set that has these classes, in this order: "digits:3,7"."""
    return f"{name}:{','.join(map(str, classes))}"


def parsed_name(name: str) -> tuple[str, tuple[int, ...] | None]:
    """The data set's own name, and the classes of the part that `name` means; None: the whole set."""
    whole, part, listed = name.partition(":")
    if not part:
        return name, None
    try:
        return whole, tuple(int(text) for text in listed.split(","))
    except ValueError as error:
        raise ValueError(f"dataset {name!r}: {listed!r} is no list of classes, such as 3,7") from error


def check_classes(classes: Sequence[int], num_classes: int, name: str) -> None:
    """Refuse classes that are no part of a data set with a ValueError."""
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
        raise ValueError(
            f"classes {tuple(classes)} of {name}; allowed: different ones in 0..{num_classes - 1}, at least one"
        )


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256, 64 hexadecimal digits, of a set's values, shapes and types: the same on every device and machine."""
    digest = hashlib.sha256()
    for tensor in (images, labels):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data.cast("B"))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set, whole in the memory of one device; what does not fit is refused with a ValueError.

    split: "train" or "test".
    images: (B, C, H, W), uint8 pixels or float32 already in `space`; B >= 1.
    labels: (B,) int64 in [0, K), on the same device.
    class_names: K names.
    space: what `take` returns images in.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    space: ValueSpace

    def __post_init__(self):
        images, labels, classes = self.images, self.labels, len(self.class_names)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if images.ndim != 4 or not len(images) or images.dtype not in (torch.uint8, torch.float32):
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ValueError(f"images must be (B, C, H, W) uint8 or float32, B >= 1, got {got}")
        if labels.shape != (len(images),) or labels.dtype != torch.int64 or labels.device != images.device:
            got = f"{tuple(labels.shape)} {labels.dtype} on {labels.device}"
            raise ValueError(f"labels must be ({len(images)},) int64 on {images.device}, got {got}")
        low, high = labels.aminmax()
        if low < 0 or high >= classes:
            raise ValueError(f"labels must lie in [0, {classes}), got {int(low)} to {int(high)}")
        self.space.require(self.shape)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return tuple(self.images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where images and labels lie."""
        return self.images.device

    @functools.cached_property
    def class_indices(self) -> tuple[Tensor, ...]:
        """For each of the K classes the indices of its images: int64, ascending, on `device`."""
        counts = torch.bincount(self.labels, minlength=self.num_classes).tolist()
        return torch.argsort(self.labels, stable=True).split(counts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of images and labels.  A set from `load` has that of its uint8 pixels, whitened or not."""
        return fingerprint(self.images, self.labels)

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The images at `indices` (N,), integers on any device, in `space`: (N, C, H, W) float32, a copy."""
        rows = torch.as_tensor(indices, device=self.device)
        if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"indices must be (N,) integers, got {tuple(rows.shape)} {rows.dtype}")
        chosen = self.images.index_select(0, rows)
        return chosen if chosen.is_floating_point() else self.space.encode(chosen.float().div_(255))

    def to(self, device: str | torch.device) -> "ImageSet":
        """The same set on `device`."""
        images, labels = self.images.to(device), self.labels.to(device)
        moved = replace(self, images=images, labels=labels, space=self.space.to(device))
        return keep_fingerprint(moved, self.__dict__.get("fingerprint"))

    def of_classes(self, classes: Sequence[int]) -> "ImageSet":
        """The images of some classes alone, in the order of this set; `classes[k]` becomes class k.

        A whitened set is refused with a ValueError: its ZCA was fitted on all classes.
        """
        if self.space.zca is not None:
            raise ValueError(f"{self.name} is whitened by all of its classes; allowed: a part of normalised images")
        check_classes(classes, self.num_classes, self.name)
        places = torch.full((self.num_classes,), -1, device=self.device)
        places[torch.tensor(classes, device=self.device)] = torch.arange(len(classes), device=self.device)
        labels = places[self.labels]
        rows = (labels >= 0).nonzero()[:, 0]
        names = tuple(self.class_names[c] for c in classes)
        name = part_name(self.name, classes)
        return replace(self, name=name, images=self.images[rows], labels=labels[rows], class_names=names)


def keep_fingerprint(images: ImageSet, value: str | None) -> ImageSet:
    """Give a derived set the fingerprint of what it stands for; `dataclasses.replace` drops it again."""
    images.__dict__.update({"fingerprint": value} if value else {})
    return images
