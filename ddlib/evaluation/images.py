"""What networks are trained on, epoch by epoch: the images of a set in a fresh order, or those that a generator makes.

Every order and every draw comes from a stream named by (seed, index of the network, epoch or draw), so that neither
the networks trained beside it nor the number of images made at a time changes what a network sees, up to rounding.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.evaluation.protocol import ASKING, BATCH, Protocol
from ddlib.seeding import generator

STREAM = "evaluation"
"""First name of every random stream of an evaluation."""

TeacherFunction = Callable[[Tensor], Tensor]
"""A teacher: images (B, C, H, W) in the space of the set -> logits (B, K)."""

Batch = tuple[Tensor, Tensor]
"""A mini-batch of A networks: images (A, B, C, H, W) and their targets, labels (A, B) or probabilities (A, B, K)."""


@dataclass(frozen=True, eq=False)
class Fixed:
    """The images of a set: all in every epoch, or some, by a walk through one shuffle of all of them after another.

    images: (N, C, H, W) float32 or float64.
    targets: (N,) int64 labels, or (N, K) probabilities.
    strategy: of the augmentation, or "none".
    generation_seconds: spent on making the images.
    teacher: asked about each mini-batch, augmented, for probabilities in place of its targets.
    each: images in an epoch, fewer than the set has; None: all.
    epochs: how many there will be; read where `each` is given.
    """

    images: Tensor
    targets: Tensor
    strategy: str
    generation_seconds: float = 0.0
    teacher: TeacherFunction | None = None
    each: int | None = None
    epochs: int = 1

    def __len__(self) -> int:
        """Images in an epoch."""
        return self.each or len(self.images)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the images."""
        return self.images

    @property
    def distinct(self) -> int:
        """Different images that a network sees in all epochs, before augmentation."""
        return len(self.images) if self.each is None else min(len(self.images), self.epochs * self.each)

    def epoch(self, epoch: int, networks: Sequence[int], seed: int, batch_size: int) -> Iterator[Batch]:
        """The mini-batches of an epoch, for the networks of the given indices."""
        count, start = len(self.images), epoch * len(self)
        shuffles = range(start // count, (start + len(self) - 1) // count + 1)
        orders = torch.cat([_orders(count, networks, seed, shuffle) for shuffle in shuffles], 1)
        begin = start - shuffles[0] * count
        for rows in orders[:, begin : begin + len(self)].to(self.images.device).split(batch_size, dim=1):
            yield self.images[rows], self.targets[rows]


@dataclass(eq=False)
class Generated:
    """The images of a stream, drawn anew every `stream.redraw` epochs; several draws are made in one pass.

    stream: on the device of training.
    strategy: of the augmentation, or "none".
    epochs: how many there will be.
    precision: of the generator.
    balanced: whether each K images that follow one another have each class once.
    labeller: what gives the images of a draw their targets, as probabilities; None: they have their classes.
    teacher: asked about each mini-batch, augmented, for probabilities in place of its targets.
    generation_seconds: spent on making images so far.
    """

    stream: SyntheticStream
    strategy: str
    epochs: int
    precision: str
    balanced: bool
    labeller: TeacherFunction | None = None
    teacher: TeacherFunction | None = None
    generation_seconds: float = 0.0
    _drawn: dict[tuple, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        """Images in an epoch."""
        return len(self.stream)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the images."""
        return next(iter(self.stream.generator.values()))

    @property
    def draws(self) -> int:
        """How often the images are drawn in all epochs."""
        return -(-self.epochs // self.stream.redraw)

    @property
    def distinct(self) -> int:
        """Different images that a network sees in all epochs, before augmentation."""
        return self.draws * len(self)

    def epoch(self, epoch: int, networks: Sequence[int], seed: int, batch_size: int) -> Iterator[Batch]:
        """The mini-batches of an epoch, for the networks of the given indices.

        Images that are shown once come as they are drawn, others in a fresh order each epoch.
        """
        key = tuple(networks), seed, epoch // self.stream.redraw
        if key not in self._drawn:
            self._drawn = self._draw(*key)
        images, labels = self._drawn[key]
        if self.stream.redraw > 1:
            rows = _orders(len(self), networks, seed, epoch).to(labels.device)
            which = torch.arange(len(networks), device=labels.device)[:, None]
            images, labels = images[which, rows], labels[which, rows]
        yield from zip(images.split(batch_size, dim=1), labels.split(batch_size, dim=1), strict=True)

    def _draw(self, networks: tuple[int, ...], seed: int, first: int) -> dict[tuple, Batch]:
        """The draw number `first` and as many after it as pass the generator together."""
        begin = self._now()
        last = min(self.draws, first + max(1, self.stream.pass_size // (len(networks) * len(self))))
        streams = [generator(seed, STREAM, "generated", i, draw) for draw in range(first, last) for i in networks]
        drawn = [
            (self.stream.labels(len(self), s, balanced=self.balanced), self.stream.noise(len(self), s)) for s in streams
        ]
        labels, noise = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        images = self.stream.images(labels, noise, precision=self.precision)
        self.generation_seconds += self._now() - begin
        targets = labels.to(images.device) if self.labeller is None else self.labeller(images)
        shape = last - first, len(networks), len(self)
        batches = zip(*(part.view(*shape, *part.shape[1:]) for part in (images, targets)), strict=True)
        return {(networks, seed, draw): batch for draw, batch in zip(range(first, last), batches, strict=True)}

    def _now(self) -> float:
        """Wall-clock time after synchronising the GPU."""
        if self.stream.device.type == "cuda":
            torch.cuda.synchronize(self.stream.device)
        return time.perf_counter()


TrainingImages = Fixed | Generated


def training_images(
    synthetic: SyntheticSet | SyntheticStream, protocol: Protocol, seed: int, *, teacher: TeacherFunction | None = None
) -> TrainingImages:
    """What `protocol` trains networks on, given a set or a stream; a frozen stream is a set, drawn by `seed`.

    Raises:
        ValueError: as `check_batches`, for a stream that is not frozen; a stream with `protocol.epoch_images`.
    """
    strategy = protocol.strategy(synthetic.strategy)
    answer = None if teacher is None else functools.partial(answers, teacher, pass_size=protocol.batch_size)
    by_batch = protocol.labels == BATCH and strategy != "none"  # images that are not augmented are always the same
    per_batch = answer if by_batch else None
    if isinstance(synthetic, SyntheticSet):
        if protocol.labels in ASKING and not by_batch:
            targets = answer(synthetic.images)
        elif synthetic.is_soft:
            targets = synthetic.labels.softmax(1) if protocol.labels is None else synthetic.labels.argmax(1)
        else:
            targets = synthetic.labels
        each = protocol.epoch_images if (protocol.epoch_images or math.inf) < len(synthetic) else None
        return Fixed(synthetic.images, targets, strategy, teacher=per_batch, each=each, epochs=protocol.rounds)
    if protocol.epoch_images is not None:
        raise ValueError(f"epoch_images={protocol.epoch_images} of a stream; allowed: None, for its epochs are drawn")
    if synthetic.redraw is None:
        begin = time.perf_counter()
        frozen = synthetic.frozen(seed)
        frozen.images.sum().item()  # waits for an accelerator
        seconds = time.perf_counter() - begin
        return replace(training_images(frozen, protocol, seed, teacher=teacher), generation_seconds=seconds)
    check_batches(protocol.batch_size, len(synthetic))
    return Generated(
        stream=synthetic,
        strategy=strategy,
        epochs=protocol.rounds,
        precision=protocol.precision,
        balanced=protocol.compat is None or protocol.batch_size == synthetic.num_classes,
        labeller=None if by_batch else answer,
        teacher=per_batch,
    )


def check_batches(batch_size: int, count: int) -> None:
    """Refuse a mini-batch that does not divide the `count` = K * ipc images of a stream's epoch, naming near divisors.

    The published code of DiM drops what is left over: with its default of 128 it trains no step at all at 1 and at 10
    images per class.
    """
    if count % batch_size:
        parts = [part for part in range(1, count + 1) if count % part == 0]
        below, above = [p for p in parts if p < batch_size], [p for p in parts if p > batch_size]
        near = " or ".join(map(str, below[-1:] + above[:1]))
        raise ValueError(
            f"batch_size={batch_size} does not divide the {count} images of an epoch (classes times images per class) "
            f"of a stream; allowed: its divisors, the nearest {near}"
        )


def _orders(count: int, networks: Sequence[int], seed: int, epoch: int) -> Tensor:
    """A random order of `count` images for each network: (A, count) int64 on the CPU."""
    streams = [generator(seed, STREAM, "shuffle", index, epoch) for index in networks]
    return torch.stack([torch.randperm(count, generator=stream) for stream in streams])


@torch.no_grad()
def answers(teacher: TeacherFunction, images: Tensor, pass_size: int) -> Tensor:
    """Class probabilities (..., K) of images (..., C, H, W), by a teacher that is asked about `pass_size` at a time.

    The softmax of its logits, at temperature 1, of the type of the images.
    """
    logits = torch.cat([teacher(part) for part in images.flatten(0, -4).split(pass_size)])
    return logits.softmax(1).to(images.dtype).unflatten(0, images.shape[:-3])
