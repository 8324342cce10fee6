"""Pictures of a set while it is distilled: the first images of each class at a few steps, kept beside the set.

They are for the eye alone: 8 bits, clipped to what can be shown.  No number is computed from them.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.store.files import read_tensors, write_tensors

FILE = "snapshots.safetensors"
FRACTIONS = (0.0, 0.125, 0.25, 0.5, 1.0)
"""Shares of the steps after which a picture is taken: more of them early, where more changes."""

SHOWN = 3
"""Images per class in a picture."""


def steps_of(iterations: int) -> tuple[int, ...]:
    """The steps that `FRACTIONS` come to; none where there are fewer than two steps, as for real images chosen."""
    return tuple(dict.fromkeys(round(part * iterations) for part in FRACTIONS)) if iterations > 1 else ()


@torch.no_grad()
def pictured(made: SyntheticSet | SyntheticStream) -> Tensor:
    """The first images of each class: (K, n, C, H, W) uint8, n at most `SHOWN`; a stream is drawn once, by seed 0."""
    shown = made.frozen(0) if isinstance(made, SyntheticStream) else made
    by_class = shown.pixels().unflatten(0, (shown.num_classes, -1))[:, :SHOWN]
    return by_class.mul(255).round().to(torch.uint8).cpu()


def write(taken: Mapping[int, Tensor], folder: Path) -> None:
    """Keep step -> picture beside a set."""
    write_tensors(folder / FILE, {str(step): picture for step, picture in taken.items()})


def read(folder: Path) -> dict[int, Tensor]:
    """Step -> picture, in order; empty where none was kept.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    if not (folder / FILE).is_file():
        return {}
    tensors, _ = read_tensors(folder / FILE)
    return {step: tensors[str(step)] for step in sorted(map(int, tensors))}
