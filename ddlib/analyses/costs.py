"""What a step costs, in time and in memory: one gradient of an inner loop, and one step of any method.

`prepare` trains an expert and lays out what inner loops need; `measure_gradients` and `disagreement` (of TESLA's
gradient with the exact one) run them on it.  `measure_steps` takes whole methods, as their cells describe them.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.methods import Method, coresets, unrolling
from ddlib.methods.trajectory_matching import expert_logits
from ddlib.methods.unrolling import Gradient, Student
from ddlib.models import passes
from ddlib.pretraining.experts import Experts, Trajectories
from ddlib.store import loop, progress
from ddlib.study.planning import timed, untrained
from ddlib.study.rows import Cell

LR = 0.01
"""Step size of the loops whose cost is measured; it decides no cost."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What inner loops are run on.

    expert: the trajectory of one expert.
    student: of its kind of network.
    images, logits: X (n, C, H, W), real ones, class by class; Y (n, K), what the expert says of them after its end.
    strategy: families of DSA.
    seed: of the mini-batches and their augmentation.
    """

    expert: Trajectories
    student: Student
    images: Tensor
    logits: Tensor
    strategy: str
    seed: int

    def gradient(
        self, method: str, *, steps: int, batch: int, lr: float = LR, start: int = 0, span: int | None = None
    ) -> Gradient:
        """The outer loss of one inner loop and its gradient, no graph kept; the same mini-batches for every method.

        Args:
            method: one of `unrolling.GRADIENTS`.
            steps, batch, lr: N, B in [1, n], a.
            start: epoch of the expert where the student starts.
            span: epochs further on is the goal; None: at the expert's end.
        """
        end = self.expert.epochs[-1] if span is None else start + span
        theta, goal = (self.expert.vector(0, epoch).to(self.images.device) for epoch in (start, end))
        batches = unrolling.draw_batches(
            self.images,
            steps=steps,
            batch=batch,
            strategy=self.strategy,
            order=seeding.generator(self.seed, "chunks"),
            augmentation=seeding.generator(self.seed, "augmentation"),
        )
        return unrolling.GRADIENTS[method](
            self.student,
            theta,
            goal,
            images=self.images,
            targets=self.logits.softmax(1),
            batches=batches,
            lr=torch.tensor(lr, device=self.images.device),
            memory_gb=0.0,
        )


def prepare(train: ImageSet, experts: Experts, *, ipc: int, seed: int = 0, compiled: bool = False) -> Scene:
    """Train the first of `experts` on `train`, and lay out `ipc` random real images of each class."""
    coresets.check_ipc(ipc, train)
    experts = replace(experts, count=1)
    expert = Trajectories.of([loop.run(experts, experts.start(train, {}, seed), name="expert").product])
    network = passes.pure(
        experts.network,
        passes.known_options(experts.network, norm=experts.norm, width=experts.width, depth=experts.depth),
        shape=train.shape,
        num_classes=train.num_classes,
        precision=experts.precision,
    )
    stream = seeding.generator(seed, "images")
    rows = [rows[torch.randperm(len(rows), generator=stream)[:ipc].to(rows.device)] for rows in train.class_indices]
    images = train.take(torch.cat(rows))
    logits = next(expert_logits(images, flat=network.flat, experts=expert))
    student = unrolling.student(network, compiled)
    return Scene(expert, student, images, logits, augmentation.strategy_for(train.name), seed)


def measure_gradients(
    scene: Scene,
    *,
    steps: Sequence[int],
    batches: Sequence[int],
    repeats: int = 3,
    limit: float | None = None,
) -> list[dict[str, Any]]:
    """Time and memory of one gradient of the outer loss, for every N of `steps`, B of `batches` and method.

    Args:
        repeats: timed runs of each, >= 1, after one that is not timed.
        limit: bytes; what by `expected_bytes` would take more is not run.  None: everything is run.

    Returns:
        A row each: "method", "N", "B", "seconds" and "bytes" of `in_turns`, None where it was not run, and "expected",
        the bytes that were expected.
    """
    for name, values, most in (("steps", steps, math.inf), ("batches", batches, len(scene.images))):
        if wrong := [value for value in values if not 1 <= value <= most]:
            raise ValueError(f"{name} contain {wrong[0]!r}; allowed: in [1, {most}]")
    methods = tuple(unrolling.GRADIENTS)
    expected = {method: expected_bytes(scene, method, min(batches)) for method in methods}
    rows = []
    for batch, number in itertools.product(batches, steps):
        each = {method: round(expected[method](number, batch)) for method in methods}
        fits = [method for method in methods if limit is None or each[method] <= limit]
        gradients = [partial(scene.gradient, method, steps=number, batch=batch) for method in fits]
        costs = dict(zip(fits, in_turns(gradients, scene.images.device, repeats), strict=True))
        unmeasured = {"seconds": None, "bytes": None}
        for method in methods:
            cost = costs.get(method, unmeasured)
            rows.append({"method": method, "N": number, "B": batch, **cost, "expected": each[method]})
    return rows


def expected_bytes(scene: Scene, method: str, batch: int) -> Callable[[int, int], float]:
    """(N, B) -> the bytes that a gradient is expected to take, from four small ones of at most `batch` images.

    Taken to be linear in N, and in B, and in N B, and uncompiled; an upper bound where images pass in pieces.
    """
    small, eager = max(1, batch // 2), replace(scene, student=unrolling.student(scene.student.network))
    large, device = min(2 * small, len(scene.images)), scene.images.device
    held = {}
    for number, size in itertools.product((1, 2), (small, large)):
        gradient = partial(eager.gradient, method, steps=number, batch=size)
        gradient()  # what is cached at the first call is none of its memory
        held[number, size] = progress.peak_of_tensors(gradient, device)
    first, longer = held[1, small], held[2, small] - held[1, small]
    wider, both = held[1, large] - first, held[2, large] - held[1, large] - longer
    across = max(1, large - small)

    def expected(number: int, images: int) -> float:
        further, more = number - 1, (images - small) / across
        return first + further * longer + more * wider + further * more * both

    return expected


def disagreement(
    scene: Scene, *, steps: Sequence[int], lrs: Sequence[float], starts: Sequence[int], span: int, batch: int
) -> list[dict[str, Any]]:
    """TESLA's gradient beside the exact one, for every start epoch of `starts`, a of `lrs` and N of `steps`.

    Returns:
        A row each: "start", "a", "N", "loss"; "images" and "labels", the cosine of the two gradients in the images and
        in the label logits Y, in [-1, 1]; "images_norm" and "labels_norm", TESLA's norm divided by the exact one;
        "lr" and "lr_tesla", dL/da both ways.
    """
    rows = []
    for start, lr, number in itertools.product(starts, lrs, steps):
        exact, tesla = (
            scene.gradient(method, steps=number, batch=batch, lr=lr, start=start, span=span)
            for method in ("adjoint", "tesla")
        )
        row = {"start": start, "a": lr, "N": number, "loss": float(exact.loss)}
        in_logits = [_in_logits(scene.logits, gradient.targets) for gradient in (tesla, exact)]
        for name, pair in {"images": (tesla.images, exact.images), "labels": in_logits}.items():
            a, b = (gradient.flatten().double() for gradient in pair)
            row |= {name: float(a @ b / (a.norm() * b.norm())), f"{name}_norm": float(a.norm() / b.norm())}
        rows.append(row | {"lr": float(exact.lr), "lr_tesla": float(tesla.lr)})
    return rows


def _in_logits(logits: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in Y from that in Q = softmax(Y)."""
    targets = logits.softmax(1)
    return targets * (gradient - (gradient * targets).sum(1, keepdim=True))


@dataclass
class Runner:
    """A method whose steps are taken one after another; it begins anew where it is at its end."""

    method: Method
    train: ImageSet
    needs: Mapping[str, Any]
    seed: int
    state: Any = None

    def step(self) -> None:
        """One step."""
        if self.state is None or self.state.step >= self.method.iterations:
            self.state = self.method.start(self.train, self.needs, self.seed)
        self.method.step(self.state)


def measure_steps(
    cells: Sequence[Cell], spaces: Mapping[bool | str, ImageSet], *, repeats: int = 3, seed: int = 0
) -> list[dict[str, Any]]:
    """Time and memory of one step of each cell's method, with what it needs untrained, which costs as much.

    A step is what the method calls so; one of DC and DSA is a pixel step with the training of the network that
    follows, of which `steps` make up one network's.

    The adjoint sweep of trajectory matching keeps no graphs here, though it does so in runs, where there is memory.

    Args:
        cells: of one data set; those of one number of images take turns.
        spaces: the training set by what a cell's `whitened` says.
        repeats: timed steps of each, >= 1, after one that is not timed.

    Returns:
        A row each: "method", the cell's label; "ipc"; "steps", T of DC and DSA, else 1; "seconds" and "bytes" of
        `in_turns`.
    """
    rows = []
    for ipc in dict.fromkeys(cell.ipc for cell in cells):
        group = [cell for cell in cells if cell.ipc == ipc]
        runners = []
        for cell in group:
            train, method = spaces[cell.whitened], cell.method.rehearsal
            runners.append(Runner(method, train, untrained(method, train), seed))
        memory, unrolling.MEMORY_GB = unrolling.MEMORY_GB, 0.0
        try:
            costs = in_turns([runner.step for runner in runners], runners[0].train.device, repeats)
        finally:
            unrolling.MEMORY_GB = memory
        for cell, cost in zip(group, costs, strict=True):
            rows.append({"method": cell.label, "ipc": ipc, "steps": cell.method.matching_steps, **cost})
    return rows


def in_turns(
    works: Sequence[Callable[[], Any]], device: torch.device, repeats: int
) -> list[dict[str, float | int | None]]:
    """Cost of each piece of work: they take turns, so that what disturbs the machine disturbs all of them.

    Returns:
        "seconds", the median after one run that is not timed, and "bytes", the most that tensors held at once beyond
        what was there before; both None where the device's memory did not do.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}; it must be >= 1")
    fits = [_fits(work) for work in works]
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, fit, own in zip(works, fits, seconds, strict=True):
            if fit:
                own.append(timed(work, device)[1])
    return [
        {
            "seconds": statistics.median(own) if fit else None,
            "bytes": progress.peak_of_tensors(work, device) if fit else None,
        }
        for work, fit, own in zip(works, fits, seconds, strict=True)
    ]


def _fits(work: Callable[[], Any]) -> bool:
    """False if `work` runs out of the GPU's memory."""
    try:
        work()
    except torch.OutOfMemoryError:
        return False
    return True
