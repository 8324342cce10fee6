"""What a piece of work takes on this device: time, memory and disk, from a few real steps of its kind.

A piece is an artefact that is made beforehand, one distillation, or the evaluation of one seed.  Its steps are taken at
their real size.  What differs in its number of steps alone, or has the same rehearsal, is of one kind, and a kind is
probed once a process.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddlib import evaluate, methods, synthetic
from ddlib.cells import Cell
from ddlib.datasets import ImageSet
from ddlib.evaluate import training
from ddlib.memory import peak_memory, reset_peak_memory

SAMPLE = {"cpu": 512, "cuda": 16384}
"""Images that stand for the whole of a set where going over all of it would take too long."""

NEARLY = 4
"""A set of up to so many times the images of its sample is looked at as it is."""

LOOK, MOST = 0.6, 40
"""Seconds for which short steps are watched, and the most of them."""

PATIENCE = 2.0
"""Seconds; a job whose start and one step take longer is seen only once."""

LENGTHS = ("iterations", "restarts", "epochs", "num_networks", "first")
"""Settings that say how often a step is taken, or which of many equals are made, and nothing about the step."""

RECORD = 4096
"""Bytes for the JSON beside a product: the course of a loss, about 100 points, is most of it."""


@dataclass(frozen=True)
class Estimate:
    """What one piece of work takes.

    kind: what it shares with all pieces of equal steps.
    seconds: of the whole piece.
    first: seconds more for the first of its kind in a process: compiling, warming up.
    memory: most bytes in use while the steps were taken, data included; of the process on a CPU, else of the device.
    disk: bytes that it leaves in the store.
    checkpoint: bytes of its state while it is in progress.
    trainings: networks trained to judge by.
    """

    kind: str
    seconds: float
    first: float = 0.0
    memory: int = 0
    disk: int = 0
    checkpoint: int = 0
    trainings: int = 0


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


_PACES: dict[str, Pace] = {}


def prerequisite(builder: Any, train: ImageSet) -> Estimate:
    """What it takes to make the artefact of `builder` from `train`, on its device."""
    kind = _kind(builder.name, asdict(builder), train)
    pace = _paced(kind, lambda: _on_all(lambda images: _building(builder, images), train))
    return _estimate(kind, pace, pace.times(builder.iterations))


def distillation(cell: Cell, train: ImageSet) -> Estimate:
    """What one seed of the cell takes to distil, on the device of `train`, with what it needs at hand."""
    method = getattr(cell.method, "rehearsal", cell.method)
    kind = _kind(f"{method.name} {method.version}", asdict(method), train)
    pace = _paced(kind, lambda: _distilling(method, train))
    return _estimate(kind, pace, pace.times(method.iterations))


def evaluation(cell: Cell, train: ImageSet, test: ImageSet) -> Estimate:
    """What the evaluation of one seed of the cell takes, on the device of `test`."""
    protocol, count = cell.protocol, _count(cell, train)
    kind = _kind(f"evaluation with {count} images", asdict(protocol), test)
    batch = min(count, protocol.batch_size)
    together = min(protocol.num_networks, _together(cell, batch, test))
    pace = _paced(kind + f", {together} at once", lambda: _evaluating(cell, train, test, together))
    groups = math.ceil(protocol.num_networks / together)
    seconds = groups * pace.times((protocol.epochs + 1) * count / batch)
    return _estimate(kind, pace, seconds, trainings=protocol.num_networks)


def _count(cell: Cell, train: ImageSet) -> int:
    """Images of the cell's set."""
    return len(train) if cell.ipc is None else cell.ipc * train.num_classes


def _kind(name: str, settings: Mapping[str, Any], images: ImageSet) -> str:
    steps = {key: value for key, value in settings.items() if key not in LENGTHS}
    return f"{name} {steps} on {images.name} {images.fingerprint} {images.space.name} {images.device}"


def _paced(kind: str, probe: Callable[[], Pace]) -> Pace:
    if kind not in _PACES:
        _PACES[kind] = probe()
    return _PACES[kind]


def _estimate(kind: str, pace: Pace, seconds: float, *, trainings: int = 0) -> Estimate:
    return Estimate(kind, seconds, pace.first, pace.memory, pace.disk + RECORD, pace.checkpoint, trainings)


def _building(builder: Any, images: ImageSet) -> Pace:
    """The state may grow to the size of the product, and is in memory twice while it is written."""

    def keep(state: Any) -> int:
        return _bytes(builder.finish(state).values())

    pace = _probe(builder, lambda: builder.start(images, {}, builder.seed), keep, images)
    return replace(pace, checkpoint=max(pace.checkpoint, pace.disk), memory=pace.memory + pace.disk)


def _distilling(method: methods.Method, train: ImageSet) -> Pace:
    """With untrained artefacts in place of those that the method needs: they are as large."""

    def on(images: ImageSet) -> Pace:
        needs = {name: b.finish(b.start(images, {}, b.seed)) for name, b in method.needs.items()}
        return _probe(method, lambda: method.start(images, needs, 0), lambda s: _keep(method, s), images)

    most = max(getattr(method, name, 0) for name in ("ipc", "batch_real"))
    return _on_all(on, train, most=most) if method.needs else on(train)


def _evaluating(cell: Cell, train: ImageSet, test: ImageSet, together: int) -> Pace:
    """Epochs of one mini-batch of real images, in the first networks that are trained together."""
    count = min(_count(cell, train), cell.protocol.batch_size)
    shown, sample = _shown(train, count), _sample(test)

    def course(epochs: int) -> Pace:
        protocol, ticks = replace(cell.protocol, epochs=epochs), [_now(test.device)]
        tick = {"networks": range(together), "on_epoch": lambda *_: ticks.append(_now(test.device))}
        evaluate.evaluate(shown, sample, protocol, seed=0, **tick)
        testing = (_now(test.device) - ticks[-1]) * len(test) / len(sample)
        opening, *epochs_taken = (after - before for before, after in zip(ticks, ticks[1:], strict=False))
        epoch = typical(epochs_taken)
        return Pace(max(0.0, opening - epoch), epoch, testing, 0.0, peak_memory(str(test.device)), 0)

    reset_peak_memory(str(test.device))
    cold = course(1)
    warm = course(max(1, min(MOST, int(LOOK / max(cold.step, 1e-6)))))
    return replace(warm, first=max(0.0, cold.before - warm.before) + max(0.0, cold.step - warm.step))


def _shown(train: ImageSet, count: int) -> synthetic.SyntheticSet:
    """`count` images of a random choice, class by class in turn."""
    chosen = methods.build("random", ipc=math.ceil(count / train.num_classes))
    state = chosen.start(train, {}, 0)
    chosen.step(state)
    full = chosen.finish(state)
    rows = torch.arange(len(full)).view(-1, chosen.ipc).T.flatten()[:count].to(train.device)
    return replace(full, images=full.images[rows], labels=full.labels[rows])


def _together(cell: Cell, batch: int, test: ImageSet) -> int:
    learner = training.learner(cell.protocol, test.shape, test.num_classes)
    return training.at_once(cell.protocol, learner, batch, test.device)


def _on_all(pace: Callable[[ImageSet], Pace], train: ImageSet, *, most: int = 0) -> Pace:
    """The pace on all of `train`; where that would take long, from two samples of it.

    What takes longer on the larger sample is taken to grow with the number of images, all else to stay as it is.

    Args:
        most: images that a class must have in a sample.
    """
    small = _sample(train, least=most)
    if len(train) <= NEARLY * len(small):
        return pace(train)
    some = pace(small)
    if (some.before + some.step) * len(train) / len(small) < PATIENCE:
        return replace(whole := pace(train), first=max(some.first, whole.first))
    large = _sample(train, least=2 * max(most, math.ceil(len(small) / train.num_classes)))
    more = pace(large)
    grown = {
        name: value * len(train) / len(large) if value > 1.5 * getattr(some, name) else value
        for name, value in asdict(more).items()
        if name in ("before", "step")
    }
    memory = more.memory + more.rows * (len(train) - len(large)) // len(large)
    return replace(more, first=some.first, memory=memory, **grown)


def _sample(images: ImageSet, *, least: int = 0) -> ImageSet:
    """A part of a set that has the first images of each class, `least` of each where it has so many."""
    each = max(least, math.ceil(SAMPLE.get(images.device.type, SAMPLE["cpu"]) / images.num_classes))
    rows = torch.cat([rows[:each] for rows in images.class_indices])
    if len(rows) == len(images):
        return images
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def _probe(job: Any, begin: Callable[[], Any], keep: Callable[[Any], int], images: ImageSet) -> Pace:
    """The pace of a job on `images` that `begin` begins and `keep` finishes, giving the bytes that it leaves."""
    device = images.device

    def step(state: Any) -> tuple[Any, float]:
        state = begin() if state.step >= job.iterations else state
        return state, _timed(lambda: job.step(state), device)[1]

    reset_peak_memory(str(device))
    state, before = _timed(begin, device)
    state, opening = step(state)
    state, usual = step(state)
    first = max(0.0, opening - usual)
    if before + usual < PATIENCE:
        cold = before + opening
        state, before = _timed(begin, device)
        state, opening = step(state)
        usual = _usual(step, state)
        before += max(0.0, opening - usual) if job.iterations > 1 else 0.0
        first = max(0.0, cold - before - usual)
    memory, checkpoint = peak_memory(str(device)), _bytes(state.state_dict().values())
    rows = _bytes(t for t in vars(state).values() if isinstance(t, torch.Tensor) and t.shape[:1] == (len(images),))
    disk, after = _timed(lambda: keep(state), device)
    return Pace(before, usual, after, first, memory, disk, checkpoint, rows)


def _usual(step: Callable[[Any], tuple[Any, float]], state: Any) -> float:
    """Seconds of a step from `state` on, from two steps at least."""
    seconds, end = [], time.perf_counter() + LOOK
    while len(seconds) < 2 or (len(seconds) < MOST and time.perf_counter() < end):
        state, taken = step(state)
        seconds.append(taken)
    return typical(seconds)


def _keep(method: methods.Method, state: Any) -> int:
    """Finish, write and read again, as a study does; the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.safetensors"
        synthetic.save(method.finish(state), path)
        synthetic.load(path)
        return path.stat().st_size


def _bytes(values: Iterable[Any]) -> int:
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


def _timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    begin = _now(device)
    found = work()
    return found, _now(device) - begin


def _now(device: torch.device) -> float:
    """The time, once what was asked of an accelerator is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
