"""Synthetic sets: what distillation makes, with all that training on it needs, and the one file that holds it.

    synthetic = load("cifar10.safetensors")
    synthetic.images, synthetic.labels        # what a network trains on, in synthetic.space
    synthetic.pixels()                        # what a reader looks at

The file is a safetensors file: `images`, `labels` and, of a whitened set, the tensors of its ZCA, with the rest as
JSON in the header under "ddlib", and a checksum over all of it.  Any reader of safetensors can open it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddlib.augment import draw
from ddlib.tensors import read_tensors, write_tensors
from ddlib.zca import ZCA, ValueSpace

FORMAT = "ddlib.synthetic"
"""What the header of a file calls its kind."""

FORMAT_VERSION = 2
"""The newest version of the file's layout that `load` reads, and the one that `save` writes."""

_ZCA = ("mean", "whitening", "unwhitening")


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """A distilled (or chosen) set of labelled images.

    Args:
        images: (N, C, H, W) float32 in `space`, N >= 1, finite.
        labels: (N,) int64 in [0, K), or soft ones, (N, K) float32 logits, finite: the target of an image is their
            softmax.
        class_names: the K names.
        space: what the images are in.
        strategy: the DSA strategy that training on the set goes with; see `ddlib.augment`.
        learning_rate: one that was learnt with the images, > 0, or None.
        provenance: where the set comes from, as plain JSON.

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

    def __post_init__(self):
        _check_images(self.images, self.space)
        object.__setattr__(self, "class_names", tuple(self.class_names))
        _check_labels(self.labels, self.images, len(self.class_names))
        size = tuple(self.images.shape[2:])
        draw(1, 1, size=size, strategy=str(self.strategy), generator=torch.Generator())  # refuses an unknown strategy
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be None or a finite number > 0, got {self.learning_rate}")
        try:
            json.dumps(self.provenance, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"provenance must be plain JSON: {error}") from error

    def __len__(self) -> int:
        return len(self.images)

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
        """Bytes of images and labels as `save` writes them; a ZCA belongs to the real data and is not counted."""
        return self.images.nbytes + self.labels.nbytes

    def pixels(self) -> Tensor:
        """The images as pixels to look at: (N, C, H, W) float32, clipped to [0, 1]."""
        return self.space.decode(self.images).clamp(0, 1)

    def to(self, device: str | torch.device) -> "SyntheticSet":
        """The same set on `device`."""
        moved = {"images": self.images.to(device), "labels": self.labels.to(device), "space": self.space.to(device)}
        return replace(self, **moved)


def save(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write `synthetic` to one safetensors file, whole or not at all.

    The bytes go to a temporary file in the same folder, which is synced and then renamed: whoever reads `path` sees
    the old file or the new one.  The folder is made where it is missing.

    Args:
        synthetic: on any device.
        path: of the file; one that is there is replaced.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    tensors = {"images": synthetic.images, "labels": synthetic.labels}
    zca = synthetic.space.zca
    if zca is not None:
        tensors |= {f"zca.{name}": getattr(zca, name) for name in _ZCA}
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "class_names": list(synthetic.class_names),
        "mean": list(synthetic.space.mean),
        "std": list(synthetic.space.std),
        "zca_eps": None if zca is None else zca.eps,
        "strategy": synthetic.strategy,
        "learning_rate": synthetic.learning_rate,
        "provenance": dict(synthetic.provenance),
    }
    write_tensors(Path(path), tensors, header)


def load(path: str | Path) -> SyntheticSet:
    """Read what `save` wrote, bit by bit, onto the CPU.

    Args:
        path: of the file.

    Returns:
        The set.

    Raises:
        FileNotFoundError: there is no file.
        ValueError: the file is truncated or corrupt, another program's, or of a newer format; the message names it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no synthetic set at {path}")
    tensors, header = read_tensors(Path(path))
    if header.get("format") != FORMAT:
        raise ValueError(f"{path} holds no synthetic set: its header does not say {FORMAT!r}")
    try:
        if header["version"] > FORMAT_VERSION:
            raise ValueError(f"format version {header['version']}; this ddlib reads up to {FORMAT_VERSION}")
        return _assemble(header, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _assemble(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SyntheticSet:
    zca = None
    if header["zca_eps"] is not None:
        zca = ZCA(**{name: tensors[f"zca.{name}"] for name in _ZCA}, eps=header["zca_eps"])
    return SyntheticSet(
        images=tensors["images"],
        labels=tensors["labels"],
        class_names=tuple(header["class_names"]),
        space=ValueSpace(tuple(header["mean"]), tuple(header["std"]), zca),
        strategy=header["strategy"],
        learning_rate=header["learning_rate"],
        provenance=header["provenance"],
    )


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
