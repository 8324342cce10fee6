"""What a run would take from here, before it begins: time, memory and disk, from a few real steps of each kind of work.

`work.missing` says what the store lacks of a cell; `plan` says what that costs.  What differs in its number of steps
alone is of one kind, and a kind is measured once a process.  What several cells share counts once in the total.
Reading the data and what a first step takes more, such as compiling, are not counted.
"""

import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ddlib import evaluation
from ddlib.data import augmentation, datasets, synthetic
from ddlib.data.datasets import ImageSet
from ddlib.store.progress import duration, peak_memory, reset_peak_memory
from ddlib.study.rows import Cell

SAMPLE = {"cpu": 512, "cuda": 16384}
"""Images that stand for all where every step goes over all of them, or where all would only be tested."""

LOOK, MOST = 0.6, 40
"""Seconds for which steps are watched, and the most of them; two are watched in any case."""

EPOCHS = 2
"""Epochs, of a mini-batch each, for which an evaluation is watched."""

LENGTHS = ("iterations", "restarts", "epochs", "num_networks", "first", "autoencoder_steps", "diffusion_steps")
"""Settings that say how often a step is taken, or which of many equals are made, and nothing about the step."""

RECORD = 4096
"""Bytes for the JSON beside a product: the course of a loss, about 100 points, is most of it."""


@dataclass(frozen=True)
class Missing:
    """What the store lacks of a cell, each artefact under the path that it will have there.

    needs: what is to be made beforehand: path -> builder.
    distil, evaluate: the sets to be distilled and the evaluations to be made, one a seed.
    left: path -> the share of the work that is still to do, where some of it is done.
    """

    cell: Cell
    needs: Mapping[str, Any] = field(default_factory=dict)
    distil: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    left: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """What a kind of work takes: seconds before its steps, of each, and after them; bytes as of `Estimate`."""

    start: float = 0.0
    step: float = 0.0
    finish: float = 0.0
    memory: int = 0
    disk: int = 0
    checkpoint: int = 0


@dataclass(frozen=True)
class Estimate:
    """What one artefact takes.

    memory: most bytes in use while the steps were taken, data included; of the process on a CPU, else of the device.
    disk: bytes that it leaves in the store.
    checkpoint: bytes of its state while it is in progress.
    trainings: networks trained to judge by.
    """

    seconds: float = 0.0
    memory: int = 0
    disk: int = 0
    checkpoint: int = 0
    trainings: int = 0


@dataclass(frozen=True)
class Row:
    """A cell: what it lacks, and path in the store -> what the artefact there takes."""

    missing: Missing
    estimates: Mapping[str, Estimate]


@dataclass(frozen=True)
class Plan:
    """Cells in order; what all of them take together, where an artefact that several share counts once."""

    rows: tuple[Row, ...]

    @property
    def estimates(self) -> list[Estimate]:
        """Of every artefact."""
        return list({path: estimate for row in self.rows for path, estimate in row.estimates.items()}.values())

    @property
    def seconds(self) -> float:
        """Of all work that is not done."""
        return sum(estimate.seconds for estimate in self.estimates)

    @property
    def memory(self) -> int:
        """Most bytes in use at a time."""
        return max((estimate.memory for estimate in self.estimates), default=0)

    @property
    def disk(self) -> int:
        """Most bytes in the store: what stays there, and the largest checkpoint."""
        largest = max((estimate.checkpoint for estimate in self.estimates), default=0)
        return sum(estimate.disk for estimate in self.estimates) + largest


def plan(missing: Iterable[Missing], device: str) -> Plan:
    """What the cells take on `device`, from a few real steps of each kind of their work.

    Raises:
        FileNotFoundError: data are missing; the message names the command that gets them.
        ValueError: a step cannot be taken, as where it needs more memory than there is; the cell is named.
    """
    return Plan(tuple(Row(each, _estimates(each, device)) for each in missing))


def together(plans: Iterable[Plan]) -> Plan:
    """Several plans as one, carried out one after another; equal cells are one."""
    return Plan(tuple({str(row.missing.cell.settings()): row for plan in plans for row in plan.rows}.values()))


def _estimates(missing: Missing, device: str) -> dict[str, Estimate]:
    """Path in the store -> what the artefact takes that is missing there; what has the same kind is measured once."""
    cell, estimates = missing.cell, {}
    if not missing.evaluate:
        return estimates
    train, test = (datasets.load(cell.dataset, split, zca=cell.whitened, device=device) for split in ("train", "test"))
    try:
        estimates |= {path: prerequisite(builder, train) for path, builder in missing.needs.items()}
        estimates |= {path: distillation(cell, train) for path in missing.distil}
        estimates |= {path: judging(cell, train, test) for path in missing.evaluate}
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{cell} cannot be estimated on {device}: {reason}") from error
    for path, estimate in estimates.items():
        share = missing.left.get(path, 1.0)
        trainings = round(share * estimate.trainings)
        estimates[path] = replace(estimate, seconds=share * estimate.seconds, trainings=trainings)
    return estimates


PACES: dict[str, Pace] = {}
"""Kind -> its pace, as far as this process has measured it."""


def _paced(name: str, settings: Mapping[str, Any], images: ImageSet, measure: Callable[[], Pace]) -> Pace:
    """The pace of a kind of work, measured the first time; its name, settings and data say of what kind it is."""
    steps = {key: value for key, value in settings.items() if key not in LENGTHS}
    kind = f"{name} {steps} on {images.name} {images.fingerprint} {images.space.name} {images.device}"
    if kind not in PACES:
        PACES[kind] = measure()
    return PACES[kind]


def prerequisite(builder: Any, train: ImageSet) -> Estimate:
    """What `builder` takes on `train`, on its device: its `stages` one after another."""
    total = Estimate()
    for stage in builder.stages:
        steps = ", ".join(name for name in LENGTHS if name != "first" and getattr(stage, name, 0))
        measure = functools.partial(measured, stage, train, stage.size)
        pace = _paced(f"{builder.name} by {steps}", asdict(stage), train, measure)
        total = Estimate(
            seconds=total.seconds + pace.start + stage.iterations * pace.step + pace.finish,
            memory=max(total.memory, pace.memory),
            disk=max(total.disk, pace.disk + RECORD),
            checkpoint=max(total.checkpoint, pace.checkpoint, pace.disk),  # a state may grow to the product's size
        )
    return total


def distillation(cell: Cell, train: ImageSet) -> Estimate:
    """What one seed of the cell takes to distil, on the device of `train`, with what it needs at hand."""
    method = cell.method.rehearsal
    settings = {name: value for name, value in asdict(method).items() if name not in cell.deployed}
    pace = _paced(f"{method.name} {method.version}", settings, train, lambda: measured(method, train, _file_size))
    seconds = pace.start + method.iterations * pace.step + pace.finish
    return Estimate(seconds, pace.memory, pace.disk + RECORD, pace.checkpoint)


def measured(job: Any, train: ImageSet, size: Callable[[Any], int]) -> Pace:
    """The pace of a method or builder, with untrained artefacts where it needs some: they are as large.

    Where a job `sweeps` over all images, a sample of them stands for the whole, and its time is scaled.  `size` gives
    the bytes of the product in the store.
    """
    images = sample(train, least=max(getattr(job, "ipc", None) or 0, 1)) if job.sweeps else train
    device, needs = images.device, untrained(job, images)
    reset_peak_memory(str(device))
    state, start = timed(lambda: job.start(images, needs, 0), device)
    seconds, end = [], time.perf_counter() + LOOK
    while state.step < job.iterations and (len(seconds) < 2 or (len(seconds) < MOST and time.perf_counter() < end)):
        seconds.append(timed(lambda: job.step(state), device)[1])
    checkpoint = sum(tensor.nbytes for tensor in state.state_dict().values())
    disk, finish = timed(lambda: size(job.finish(state)), device)
    step = statistics.fmean(seconds[1:] or seconds or [0.0])  # the first one warms up
    scale = len(train) / len(images)
    return Pace(scale * start, scale * step, finish, peak_memory(str(device)), disk, checkpoint)


def _file_size(product: Any) -> int:
    """Bytes of the file that a synthetic set or stream is kept in."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.safetensors"
        synthetic.save(product, path)
        return path.stat().st_size


def _product(job: Any, images: ImageSet) -> Any:
    """What a method or builder makes without a step: it is as large, and as fast where it is a network."""
    return job.finish(job.start(images, untrained(job, images), 0))


def untrained(job: Any, images: ImageSet) -> dict[str, Any]:
    """Products in place of those that a method needs."""
    return {name: _product(builder, images) for name, builder in job.needs.items()}


def sample(images: ImageSet, *, least: int = 1) -> ImageSet:
    """The first images of each class, `SAMPLE` in all and at least `least` of each; all where it has hardly more."""
    each = max(least, math.ceil(SAMPLE.get(images.device.type, SAMPLE["cpu"]) / images.num_classes))
    if len(images) <= 4 * each * images.num_classes:
        return images
    rows = torch.cat([rows[:each] for rows in images.class_indices])
    return replace(images, images=images.images[rows], labels=images.labels[rows])


def judging(cell: Cell, train: ImageSet, test: ImageSet) -> Estimate:
    """What the evaluation of one seed of the cell takes, on the device of `test`: by updates on a mini-batch.

    A stream is watched as it is, so that drawing its images counts.  Untrained generators and teachers are as fast.
    """
    protocol, method = cell.protocol, cell.method.rehearsal
    count = len(train) if cell.ipc is None else cell.ipc * train.num_classes
    batch = min(count, protocol.epoch_images or count, protocol.batch_size)
    rows = torch.arange(batch, device=train.device)
    strategy = augmentation.strategy_for(train.name)
    images = synthetic.SyntheticSet(train.take(rows), train.labels[rows], train.class_names, train.space, strategy)
    groups, streamed = evaluation.groups(images, test, protocol), cell.deployed.get("redraw") is not None

    def measure() -> Pace:
        teacher = protocol.taught_by and protocol.taught_by.frozen(train, _product(protocol.taught_by, train))
        return _evaluating(_product(method, train) if streamed else images, test, protocol, groups[0], teacher)

    origin = f"{count} images drawn by {method}" if streamed else f"{batch} images"
    pace = _paced(f"evaluation of {origin} by {len(groups[0])} networks", protocol.settings(), test, measure)
    seconds = len(groups) * (protocol.updates(count) * pace.step + len(protocol.tested_after) * pace.finish)
    return Estimate(seconds, pace.memory, RECORD, trainings=protocol.num_networks)


def _evaluating(
    images: synthetic.SyntheticSet | synthetic.SyntheticStream,
    test: ImageSet,
    protocol: evaluation.Protocol,
    networks: Sequence[int],
    teacher: torch.nn.Module | None,
) -> Pace:
    """Of networks that are trained together: an update, which takes as long by any schedule, and a test."""
    tested = sample(test)
    epochs = max(EPOCHS, getattr(images, "redraw", 1))
    protocol = replace(protocol, epochs=epochs, compat=None, schedule="step", ema=None, epoch_images=None)
    reset_peak_memory(str(test.device))
    ticks: list[float] = []

    def tick(*_: int) -> None:
        ticks.append(_now(test.device))

    for _ in range(2):  # the first time warms up
        ticks.clear()
        tick()
        evaluation.evaluate(images, tested, protocol, seed=0, networks=networks, teacher=teacher, on_epoch=tick)
        testing = _now(test.device) - ticks[-1]
    step = (ticks[-1] - ticks[0]) / protocol.updates(len(images))
    return Pace(step=step, finish=testing * len(test) / len(tested), memory=peak_memory(str(test.device)))


def timed(work: Callable[[], Any], device: torch.device) -> tuple[Any, float]:
    """What `work` returns, and its wall-clock seconds."""
    begin = _now(device)
    result = work()
    return result, _now(device) - begin


def _now(device: torch.device) -> float:
    """Wall-clock time after synchronising the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# --- a plan in words --------------------------------------------------------------------------------------------------


def counts(missing: Sequence[Missing]) -> str:
    """How much of the cells is in the store and how much is to be made, in one line; no step is taken to learn it."""
    done = sum(not each.evaluate for each in missing)
    sets = {path for each in missing for path in each.distil}
    networks = {path: each.cell.protocol.num_networks for each in missing for path in each.evaluate}
    shares = {path: share for each in missing for path, share in each.left.items()}
    trainings = sum(round(shares.get(path, 1.0) * count) for path, count in networks.items())
    to_do = f"{len(sets)} distillations and {trainings} trainings"
    return f"{len(missing)} cells, {done} of them in the store; to do: {to_do}"


def line(plan: Plan) -> str:
    """The plan in one line."""
    text = f"{counts([row.missing for row in plan.rows])}, about {duration(plan.seconds)} on this device"
    return text + (f", peak memory {size(plan.memory)}, {size(plan.disk)} on disk" if plan.seconds else "")


def table(plan: Plan) -> str:
    """The plan as text, a line for each cell; what cells share stands in the line of each."""
    lines = [("cell", "IPC", "in store", "trainings", "time", "memory", "disk")]
    for row in plan.rows:
        cell, alone = row.missing.cell, Plan((row,))
        seeds, left = len(cell.seeds), len(row.missing.evaluate)
        distilled = left - len(row.missing.distil)
        in_store = f"{seeds - left}/{seeds}" + (f" + {distilled} distilled" if distilled else "")
        trainings = sum(estimate.trainings for estimate in alone.estimates)
        cost = (str(trainings), duration(alone.seconds), size(alone.memory), size(alone.disk))
        label = f"{cell.label}, {cell.tested_on}" if cell.tested_on else cell.label
        ipc = "all" if cell.ipc is None else str(cell.ipc)
        lines.append((label, ipc, in_store, *(cost if row.estimates else "----")))
    return aligned(lines, "<>>>>>>")


def aligned(rows: Sequence[Sequence[str]], ways: str) -> str:
    """Rows of text in columns, each to the side that `ways` says of it ("<>>"); a rule stands below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"{{:{way}{width}}}" for way, width in zip(ways, widths, strict=True))
    head, *lines = [form.format(*row).rstrip() for row in rows]
    return "\n".join([head, "-" * max(map(len, [head, *lines])), *lines])


def refusals(plan: Plan, *, budget_hours: float | None = None, memory: int | None = None) -> list[str]:
    """Why cells do not fit, one sentence each, in order; empty where all do.

    A cell does not fit if it takes more bytes than `memory`, or if it would not be done within what the cells before
    it that fit leave of `budget_hours`.  None: no limit.
    """
    sentences: list[str] = []
    fitting: tuple[Row, ...] = ()
    for row in plan.rows:
        cell, alone, end = row.missing.cell, Plan((row,)), Plan((*fitting, row)).seconds
        if memory is not None and alone.memory > memory:
            sentences.append(f"{cell} takes {size(alone.memory)} of memory; allowed: {size(memory)}")
        elif budget_hours is not None and end > 3600 * budget_hours:
            times = f"{duration(alone.seconds)}, done after {duration(end)}"
            sentences.append(f"{cell} takes {times}; allowed: {budget_hours} h")
        else:
            fitting += (row,)
    return sentences


def size(count: float) -> str:
    """Bytes in the decimal unit that fits them."""
    unit, length = next(((u, n) for u, n in (("GB", 1e9), ("MB", 1e6)) if count >= n), ("kB", 1e3))
    return f"{count / length:.1f} {unit}"
