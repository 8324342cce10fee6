"""The pace of a job on this device, from a few of its real steps."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ddlib.data.datasets import ImageSet
from ddlib.store.progress import peak_memory, reset_peak_memory

SAMPLE = {"cpu": 512, "cuda": 16384}
"""Images that stand for the whole of a set where going over all of it would take too long."""

NEARLY = 4
"""A set of up to so many times the images of its sample is looked at as it is."""

LOOK, MOST = 0.6, 40
"""Seconds for which short steps are watched, and the most of them."""

SHARE = 10
"""A job is watched for at most the tenth part of its steps, so that looking ahead costs little beside the work."""

PATIENCE = 2.0
"""Seconds; a job whose start and one step take longer is seen only once."""


@dataclass(frozen=True)
class Pace:
    """What a kind of job takes: seconds before its steps, of each, after them, and more the first time; and bytes.

    rows: bytes of the state that hold a row for each image of the data, in `memory` too.
    """

    before: float
    step: float
    after: float
    first: float
    memory: int
    disk: int
    checkpoint: int = 0
    rows: int = 0

    def times(self, steps: float) -> float:
        """Seconds of a job of so many steps."""
        return self.before + steps * self.step + self.after


def typical(seconds: Sequence[float]) -> float:
    """The mean without the longest and the shortest tenth.

    Where other processes take turns with this one, some steps take twice as long as others.  A run pays their mean;
    the median would be that of the undisturbed steps.
    """
    cut = len(seconds) // 10
    return statistics.fmean(sorted(seconds)[cut : len(seconds) - cut])


def watched(steps: float) -> int:
    """Of how many steps of a job of so many the pace is taken, at most."""
    return max(2, min(MOST, int(steps) // SHARE))


def on_all(pace: Callable[[ImageSet], Pace], train: ImageSet, *, most: int = 0) -> Pace:
    """The pace on all of `train`; where that would take long, from two samples of it.

    What takes longer on the larger sample is taken to grow with the number of images, all else to stay as it is.

    Args:
        most: images that a class must have in a sample.
    """
    small = sample(train, least=most)
    if len(train) <= NEARLY * len(small):
        return pace(train)
    some = pace(small)
    if (some.before + some.step) * len(train) / len(small) < PATIENCE:
        return replace(whole := pace(train), first=max(some.first, whole.first))
    large = sample(train, least=2 * max(most, math.ceil(len(small) / train.num_classes)))
    more = pace(large)
    grown = {
        name: value * len(train) / len(large) if value > 1.5 * getattr(some, name) else value
        for name, value in asdict(more).items()
        if name in ("before", "step")
    }
    memory = more.memory + more.rows * (len(train) - len(large)) // len(large)
    return replace(more, first=some.first, memory=memory, **grown)


def sample(images: ImageSet, *, least: int = 0) -> ImageSet:
    """A part of a set that has the first images of each class, `least` of each where it has so many."""
    each = max(least, math.ceil(SAMPLE.get(images.device.type, SAMPLE["cpu"]) / images.num_classes))
    rows = torch.cat([rows[:each] for rows in images.class_indices])
    if len(rows) == len(images):
        return images
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def probe(job: Any, begin: Callable[[], Any], keep: Callable[[Any], int], images: ImageSet) -> Pace:
    """The pace of a job on `images` that `begin` begins and `keep` finishes, giving the bytes that it leaves."""
    device = images.device

    def step(state: Any) -> tuple[Any, float]:
        state = begin() if state.step >= job.iterations else state
        return state, timed(lambda: job.step(state), device)[1]

    reset_peak_memory(str(device))
    state, before = timed(begin, device)
    state, opening = step(state)
    state, usual = step(state)
    first = max(0.0, opening - usual)
    if before + usual < PATIENCE:
        cold = before + opening
        state, before = timed(begin, device)
        state, opening = step(state)
        usual = _usual(step, state, watched(job.iterations))
        before += max(0.0, opening - usual) if job.iterations > 1 else 0.0
        first = max(0.0, cold - before - usual)
    memory, checkpoint = peak_memory(str(device)), nbytes(state.state_dict().values())
    rows = nbytes(t for t in vars(state).values() if isinstance(t, torch.Tensor) and t.shape[:1] == (len(images),))
    disk, after = timed(lambda: keep(state), device)
    return Pace(before, usual, after, first, memory, disk, checkpoint, rows)


def _usual(step: Callable[[Any], tuple[Any, float]], state: Any, most: int) -> float:
    """Seconds of a step from `state` on, from two steps at least."""
    seconds, end = [], time.perf_counter() + LOOK
    while len(seconds) < 2 or (len(seconds) < most and time.perf_counter() < end):
        state, taken = step(state)
        seconds.append(taken)
    return typical(seconds)


def nbytes(values: Iterable[Any]) -> int:
    """Bytes of the tensors among `values`."""
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What `work` gives, and the seconds that it takes."""
    begin = now(device)
    found = work()
    return found, now(device) - begin


def now(device: torch.device) -> float:
    """The time, once what was asked of an accelerator is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
