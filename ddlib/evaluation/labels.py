"""What networks are trained towards: the labels that a set has, their classes alone, or what a teacher answers."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddlib.data.synthetic import SyntheticSet, SyntheticStream

Asked = Callable[[Tensor], Tensor]
"""A teacher: images (B, C, H, W) in the space of the set -> logits (B, K)."""

HARD, FIXED, BATCH = LABELS = ("hard", "fixed", "batch")
"""What `Protocol.labels` may be besides None: the classes, a teacher's answers once an image, or once a mini-batch."""

ASKING = (FIXED, BATCH)
"""Those that ask a teacher."""


@torch.no_grad()
def answers(teacher: Asked, images: Tensor, pass_size: int) -> Tensor:
    """What a teacher says of images, as probabilities: the softmax of its logits, at temperature 1.

    Args:
        images: (..., C, H, W).
        pass_size: images that it is asked about at a time.

    Returns:
        (..., K) of the type of the images.
    """
    logits = torch.cat([teacher(part) for part in images.flatten(0, -4).split(pass_size)])
    return logits.softmax(1).to(images.dtype).unflatten(0, images.shape[:-3])


def classes(synthetic: SyntheticSet) -> Tensor:
    """The hard labels of a set, (N,) int64: of soft ones the most probable class."""
    return synthetic.labels.argmax(1) if synthetic.is_soft else synthetic.labels


def bytes_stored(synthetic: SyntheticSet | SyntheticStream, labels: str | None, *, teacher_bytes: int = 0) -> int:
    """Bytes that whoever trains on a set or stream must be given, by the labels that are trained on.

    Images (float32) or the generator, and: the labels as they are (None); one int64 an image ("hard"); K float32
    ("fixed"); the teacher itself ("batch", and a stream's "fixed", whose images are not known beforehand).  Of a frozen
    stream, whose images are drawn once, either these or the generator, whichever takes less.
    """
    if isinstance(synthetic, SyntheticStream):
        whole = synthetic.bytes_stored + teacher_bytes * (labels in ASKING)
        return whole if synthetic.redraw is not None else min(whole, _bytes_drawn(synthetic, labels, teacher_bytes))
    if labels is None:
        return synthetic.bytes_stored
    return _bytes(synthetic.images.nbytes, synthetic, labels, teacher_bytes)


def _bytes_drawn(stream: SyntheticStream, labels: str | None, teacher_bytes: int) -> int:
    """Of the images of one epoch of a stream, float32, which have hard labels."""
    return _bytes(4 * math.prod(stream.shape) * len(stream), stream, labels or HARD, teacher_bytes)


def _bytes(images: int, of: SyntheticSet | SyntheticStream, labels: str, teacher_bytes: int) -> int:
    """Of so many bytes of images, with such labels."""
    each = {HARD: 8, FIXED: 4 * of.num_classes, BATCH: 0}[labels]
    return images + each * len(of) + teacher_bytes * (labels == BATCH)


def check_teacher(labels: str | None, teacher: Asked | None) -> None:
    """Refuse labels that need a teacher without one, and a teacher that nobody asks, with a ValueError."""
    if labels in ASKING and teacher is None:
        raise ValueError(f"labels={labels!r} asks a teacher, and teacher is None; allowed: images -> logits")
    if labels not in ASKING and teacher is not None:
        raise ValueError(f"teacher is given and labels={labels!r} asks none; allowed: {' or '.join(ASKING)}")
