"""The union of synthetic sets that have different classes."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ddlib.data.synthetic.images import SyntheticSet

ABSENT = -1e4
"""Logit, in a soft label, of a class of another set: its probability is 0 in float32."""

ALIKE: Mapping[str, Callable[[SyntheticSet], Any]] = {
    "mean and std": lambda part: (part.space.mean, part.space.std),
    "shape": lambda part: part.shape,
    "strategy": lambda part: part.strategy,
    "soft labels": lambda part: part.is_soft,
}
"""In what sets must be alike to be joined."""


def joined(parts: Sequence[SyntheticSet]) -> SyntheticSet:
    """The union of sets of different classes: those of the first set come first, then those of the second.

    Images stay as they are.  Class k of a set becomes k plus the number of classes before; in a soft label the classes
    of other sets have probability 0.  Learning rates that were learnt are averaged.

    Raises:
        ValueError: no sets, a stream among them, or sets that share a class or differ in value space, size of images,
            augmentation or kind of labels.
    """
    parts = list(parts)
    _check_alike(parts)
    first, names = parts[0], [part.class_names for part in parts]
    before = [0, *accumulate(map(len, names))]
    rates = [part.learning_rate for part in parts if part.learning_rate is not None]
    labels = [_moved(part.labels, start, before[-1]) for part, start in zip(parts, before, strict=False)]
    return SyntheticSet(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat(labels),
        class_names=sum(names, ()),
        space=first.space,
        strategy=first.strategy,
        learning_rate=sum(rates) / len(rates) if rates else None,
        provenance={"joined": [dict(part.provenance) for part in parts]},
    )


def _moved(labels: Tensor, start: int, num_classes: int) -> Tensor:
    """Labels of a set whose classes begin at `start` among `num_classes`."""
    if labels.ndim == 1:
        return labels + start
    moved = labels.new_full((len(labels), num_classes), ABSENT)
    moved[:, start : start + labels.shape[1]] = labels
    return moved


def _check_alike(parts: Sequence[SyntheticSet]) -> None:
    streams = [type(part).__name__ for part in parts if not isinstance(part, SyntheticSet)]
    if not parts or streams:
        raise ValueError(f"parts has {', '.join(streams) or 'nothing'}; allowed: at least one SyntheticSet")
    names = [name for part in parts for name in part.class_names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"parts share the classes {', '.join(twice)}; allowed: sets of different classes")
    if any(part.space.zca is not None for part in parts):
        raise ValueError("parts are whitened; allowed: normalised images, since a ZCA depends on all classes")
    for what, of in ALIKE.items():
        if len(found := dict.fromkeys(map(of, parts))) > 1:
            raise ValueError(f"parts differ in {what}: {', '.join(map(str, found))}; allowed: one for all")
