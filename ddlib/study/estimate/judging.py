"""What it takes to judge what was distilled: training and testing networks, and generating what they are shown."""

import math
from dataclasses import asdict, replace

import torch

from ddlib import evaluation, methods, seeding
from ddlib.data import synthetic
from ddlib.data.datasets import ImageSet
from ddlib.evaluation import training
from ddlib.store.progress import peak_memory, reset_peak_memory
from ddlib.study.cell import Cell
from ddlib.study.estimate.kinds import Estimate, estimated, kind_of, paced
from ddlib.study.estimate.making import untrained
from ddlib.study.estimate.pace import LOOK, MOST, Pace, now, sample, timed, typical, watched


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
    method, protocol = getattr(cell.method, "rehearsal", cell.method), cell.protocol
    settings = {k: v for k, v in asdict(method).items() if k not in cell.deployed} | {"precision": protocol.precision}
    kind = kind_of(f"generation of {method.name} {method.version}", settings, train)
    pace = paced(kind, lambda: _generating(cell, train))
    images = protocol.num_networks * math.ceil(protocol.rounds / cell.method.redraw) * _count(cell, train)
    seconds, first = training.seconds + images * pace.step, training.first + pace.first
    return replace(training, seconds=seconds, first=first, memory=max(training.memory, pace.memory))


def _generating(cell: Cell, train: ImageSet) -> Pace:
    """Images from an untrained generator, which makes them as fast, as many as pass it together."""
    method, images = getattr(cell.method, "rehearsal", cell.method), sample(train)
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
