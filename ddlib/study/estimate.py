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

from ddlib import evaluation, methods, seeding
from ddlib.data import synthetic
from ddlib.data.datasets import ImageSet
from ddlib.evaluation import training
from ddlib.store.artefacts import keeping
from ddlib.store.progress import peak_memory, reset_peak_memory
from ddlib.study.rows import Cell

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


LENGTHS = ("iterations", "restarts", "epochs", "num_networks", "first", "autoencoder_steps", "diffusion_steps")
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


PACES: dict[str, Pace] = {}
"""Kind -> its pace, as far as this process has seen."""


def kind_of(name: str, settings: Mapping[str, Any], images: ImageSet) -> str:
    """What a piece of work shares with all of equal steps, from its name, its settings and its data."""
    steps = {key: value for key, value in settings.items() if key not in LENGTHS}
    return f"{name} {steps} on {images.name} {images.fingerprint} {images.space.name} {images.device}"


def paced(kind: str, probe: Callable[[], Pace]) -> Pace:
    """The pace of a kind, probed the first time."""
    if kind not in PACES:
        PACES[kind] = probe()
    return PACES[kind]


def estimated(kind: str, pace: Pace, seconds: float, *, trainings: int = 0) -> Estimate:
    """The estimate of a piece of a kind that takes so many seconds, and leaves a record beside its product."""
    return Estimate(kind, seconds, pace.first, pace.memory, pace.disk + RECORD, pace.checkpoint, trainings)


def prerequisite(builder: Any, train: ImageSet) -> Estimate:
    """What it takes to make the artefact of `builder` from `train`, on its device.

    Each of its `stages` is estimated by itself.
    """
    stages = builder.stages
    if not stages:  # nothing is trained
        return Estimate(kind_of(builder.name, asdict(builder), train), 0.0)
    names = [builder.name, *(f"{builder.name}, stage {number}" for number in range(2, len(stages) + 1))]
    found = [_stage(name, stage, train) for name, stage in zip(names, stages, strict=True)]
    times = {name: sum(getattr(each, name) for each in found) for name in ("seconds", "first")}
    most = {name: max(getattr(each, name) for each in found) for name in ("memory", "disk", "checkpoint")}
    return replace(found[0], **times, **most)


def _stage(name: str, builder: Any, train: ImageSet) -> Estimate:
    kind = kind_of(name, asdict(builder), train)
    pace = paced(kind, lambda: on_all(lambda images: _building(builder, images), train))
    return estimated(kind, pace, pace.times(builder.iterations))


def distillation(cell: Cell, train: ImageSet) -> Estimate:
    """What one seed of the cell takes to distil, on the device of `train`, with what it needs at hand."""
    method = cell.method.rehearsal
    settings = {name: value for name, value in asdict(method).items() if name not in cell.deployed}
    kind = kind_of(f"{method.name} {method.version}", settings, train)
    pace = paced(kind, lambda: _distilling(method, train))
    return estimated(kind, pace, pace.times(method.iterations))


def _building(builder: Any, images: ImageSet) -> Pace:
    """The state may grow to the size of the product, and is in memory twice while it is written."""

    def keep(state: Any) -> int:
        return keeping(builder).size(builder.finish(state))

    pace = probe(builder, lambda: builder.start(images, {}, builder.seed), keep, images)
    return replace(pace, checkpoint=max(pace.checkpoint, pace.disk), memory=pace.memory + pace.disk)


def _distilling(method: methods.Method, train: ImageSet) -> Pace:
    """With untrained artefacts in place of those that the method needs: they are as large."""

    def on(images: ImageSet) -> Pace:
        needs = untrained(method, images)
        return probe(method, lambda: method.start(images, needs, 0), lambda s: _keep(method, s), images)

    most = max(method.ipc or 0, method.batch_real)
    return on_all(on, train, most=most) if method.needs else on(train)


def untrained(method: methods.Method, images: ImageSet) -> dict[str, Any]:
    """Artefacts in place of those that a method needs: they are as large."""
    return {name: builder.finish(builder.start(images, {}, builder.seed)) for name, builder in method.needs.items()}


def _keep(method: methods.Method, state: Any) -> int:
    """Finish, write and read again, as a study does; the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.safetensors"
        synthetic.save(method.finish(state), path)
        synthetic.load(path)
        return path.stat().st_size


def judging_of(cell: Cell, train: ImageSet, test: ImageSet) -> Estimate:
    """What the evaluation of one seed of the cell takes, on the device of `test`, generation included."""
    protocol, count = cell.protocol, _count(cell, train)
    kind = kind_of(f"evaluation with {count} images", protocol.settings(), test)
    batch = min(count, protocol.batch_size)
    together = min(protocol.num_networks, _together(cell, batch, test))
    pace = paced(kind + f", {together} at once", lambda: _evaluating(cell, train, test, together))
    groups = math.ceil(protocol.num_networks / together)
    steps = protocol.rounds * count / batch
    seconds = groups * (pace.times(steps) + (len(protocol.tested_after) - 1) * pace.after)
    found = estimated(kind, pace, seconds, trainings=protocol.num_networks)
    return found if cell.deployed.get("redraw") is None else _generated(found, cell, train)


def _generated(training: Estimate, cell: Cell, train: ImageSet) -> Estimate:
    """The evaluation of a stream: training on as many images of a set, and generating all that are drawn."""
    method, protocol = cell.method.rehearsal, cell.protocol
    settings = {k: v for k, v in asdict(method).items() if k not in cell.deployed} | {"precision": protocol.precision}
    kind = kind_of(f"generation of {method.name} {method.version}", settings, train)
    pace = paced(kind, lambda: _generating(cell, train))
    images = protocol.num_networks * math.ceil(protocol.rounds / cell.method.redraw) * _count(cell, train)
    seconds, first = training.seconds + images * pace.step, training.first + pace.first
    return replace(training, seconds=seconds, first=first, memory=max(training.memory, pace.memory))


def _generating(cell: Cell, train: ImageSet) -> Pace:
    """Images from an untrained generator, which makes them as fast, as many as pass it together."""
    method, images = cell.method.rehearsal, sample(train)
    reset_peak_memory(str(train.device))
    stream = method.finish(method.start(images, untrained(method, images), 0)).to(train.device)
    labels = torch.arange(stream.pass_size) % stream.num_classes
    noise = stream.noise(len(labels), seeding.generator(0, "estimate"))

    def once() -> float:
        return timed(lambda: stream.images(labels, noise, precision=cell.protocol.precision), train.device)[1]

    cold, taken, end = once(), [once()], now(train.device) + LOOK
    while len(taken) < MOST and now(train.device) < end:
        taken.append(once())
    usual = typical(taken)
    return Pace(0.0, usual / len(labels), 0.0, max(0.0, cold - usual), peak_memory(str(train.device)), 0)


def _count(cell: Cell, train: ImageSet) -> int:
    """Images in an epoch of the cell's set."""
    count = len(train) if cell.ipc is None else cell.ipc * train.num_classes
    return min(count, cell.protocol.epoch_images or count)


def _evaluating(cell: Cell, train: ImageSet, test: ImageSet, together: int) -> Pace:
    """Epochs of one mini-batch of real images, in the first networks that are trained together.

    They take as long by any schedule; the one by steps has an epoch after the first even where E is 1.
    """
    count = min(_count(cell, train), cell.protocol.batch_size)
    shown, tested = _shown(train, count), sample(test)

    def course(epochs: int) -> Pace:
        protocol, ticks = replace(cell.protocol, epochs=epochs, compat=None, schedule="step"), [now(test.device)]
        tick = {"networks": range(together), "on_epoch": lambda *_: ticks.append(now(test.device))}
        evaluation.evaluate(shown, tested, protocol, seed=0, teacher=_untaught(protocol, train), **tick)
        testing = (now(test.device) - ticks[-1]) * len(test) / len(tested)
        opening, *epochs_taken = (after - before for before, after in zip(ticks, ticks[1:], strict=False))
        epoch = typical(epochs_taken)
        return Pace(max(0.0, opening - epoch), epoch, testing, 0.0, peak_memory(str(test.device)), 0)

    reset_peak_memory(str(test.device))
    cold = course(1)
    warm = course(max(1, min(watched(cell.protocol.epochs), int(LOOK / max(cold.step, 1e-6)))))
    return replace(warm, first=max(0.0, cold.before - warm.before) + max(0.0, cold.step - warm.step))


def _untaught(protocol: evaluation.Protocol, train: ImageSet) -> torch.nn.Module | None:
    """A teacher that has learnt nothing, where one is asked: it answers as fast."""
    builder = protocol.taught_by
    return builder and builder.frozen(train, builder.finish(builder.start(train, {}, builder.seed)))


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


__all__ = ["Estimate", "Pace", "distillation", "judging_of", "prerequisite", "typical"]
