"""What it takes to make an artefact, or to distil."""

import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ddlib import methods
from ddlib.data import synthetic
from ddlib.data.datasets import ImageSet
from ddlib.store.artefacts import keeping
from ddlib.study.cell import Cell
from ddlib.study.estimate.kinds import Estimate, estimated, kind_of, paced
from ddlib.study.estimate.pace import Pace, on_all, probe


def prerequisite(builder: Any, train: ImageSet) -> Estimate:
    """What it takes to make the artefact of `builder` from `train`, on its device.

    A builder whose steps are of several kinds names a builder for each of them in `stages`.
    """
    stages = getattr(builder, "stages", (builder,))
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
    method = getattr(cell.method, "rehearsal", cell.method)
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

    most = max(getattr(method, name, 0) for name in ("ipc", "batch_real"))
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
