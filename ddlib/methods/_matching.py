"""An outer step of trajectory matching, and the state that it changes; the methods' settings are in `_trajectories`."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _initial as initial
from ddlib.methods import _selection as selection
from ddlib.methods import unrolling
from ddlib.methods.unrolling import MiniBatch, Student
from ddlib.pretraining.experts import Trajectories


@dataclass
class MatchingState:
    """What changes while trajectories are matched.

    experts: the trajectories.
    student: the network as functions of its parameters.
    first: (n, C, H, W), the initial images.
    rows: (n,) int64, which real images these are; None where they are noise.
    images, logits, lr: X in the space of `train`; Y (n, K), of which the targets are the softmax, or None; a.
    velocities: of what is learnt, by name.
    tried, skipped: (T+,) int64: outer steps from each start epoch, and those of them that changed nothing.
    average: the moving average of the images, where the method keeps one.
    step: outer steps taken.
    """

    train: ImageSet
    seed: int
    strategy: str
    experts: Trajectories
    student: Student
    first: Tensor
    rows: Tensor | None
    classes: Tensor
    images: Tensor
    logits: Tensor | None
    lr: Tensor
    tried: Tensor
    skipped: Tensor
    velocities: dict[str, Tensor] = field(default_factory=dict)
    average: Tensor | None = None
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a step changes."""
        found = {"step": torch.tensor(self.step), "images": self.images, "lr": self.lr}
        found |= {"tried": self.tried, "skipped": self.skipped}
        found |= {name: t for name in ("rows", "logits", "average") if (t := getattr(self, name)) is not None}
        return found | {f"velocity.{name}": tensor for name, tensor in self.velocities.items()}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        for name, tensor in self.state_dict().items():
            if name != "step":
                tensor.copy_(saved[name])
        self.step = int(saved["step"])
        if self.rows is not None:
            self.first = self.train.take(self.rows)


def begin(method: Any, train: ImageSet, experts: Trajectories, seed: int) -> MatchingState:
    """The state before the first step."""
    selection.check_ipc(method.ipc, train)
    strategy = augmentation.strategy_for(train.name) if method.strategy is None else method.strategy
    options = {name: getattr(method, name) for name in ("norm", "width", "depth")}
    known = models.options_of(method.network)
    options = {name: value for name, value in options.items() if value is not None and name in known}
    told = {"shape": train.shape, "num_classes": train.num_classes, "precision": method.precision}
    student = unrolling.student(method.network, **told, compiled=method.compiled, **options)
    experts.check(train, network=method.network, norm=method.norm, parameters=student.flat.size)
    rows = _rows(method, train, experts, student, seed)
    classes = selection.class_major_labels(train, method.ipc)
    if rows is None:
        shape = (len(classes), *train.shape)
        images = torch.randn(shape, generator=seeding.generator(seed, "init")).to(train.device)
    else:
        images = train.take(rows)
    logits = _logits(method, images, classes, student, experts)
    _warn_of_coverage(method, len(images))
    state = MatchingState(
        train, seed, strategy, experts, student, images.clone(), rows, classes, images, logits,
        lr=torch.tensor(method.lr_student, device=train.device),
        tried=torch.zeros(method.max_start_epoch, dtype=torch.int64),
        skipped=torch.zeros(method.max_start_epoch, dtype=torch.int64),
    )  # fmt: skip
    learnt = {"images": images, "lr": state.lr} | ({"logits": logits} if method.labels == "learned" else {})
    state.velocities = {name: torch.zeros_like(tensor) for name, tensor in learnt.items()}
    return state


def _rows(method, train, experts, student, seed) -> Tensor | None:
    if method.init == "noise":
        return None
    if method.init == "real":
        return selection.random_rows(train, method.ipc, seed)
    return initial.correct_rows(train, method.ipc, flat=student.flat, experts=experts, seed=seed)


def _logits(method, images, classes, student, experts) -> Tensor | None:
    if method.labels == "hard":
        return None
    if method.label_source == "single":
        return next(initial.expert_logits(images, flat=student.flat, experts=experts))
    return initial.ensemble_logits(images, classes, flat=student.flat, experts=experts)


def _warn_of_coverage(method: Any, count: int) -> None:
    batch = min(method.batch_syn or count, count)
    if method.syn_steps * batch < count:
        warnings.warn(
            f"syn_steps={method.syn_steps} mini-batches of batch_syn={batch} show {method.syn_steps * batch} of the "
            f"{count} synthetic images in an outer step; the others move by momentum alone",
            stacklevel=4,
        )


def update(method: Any, state: MatchingState) -> dict[str, float | Tensor]:
    """One outer step, in place, unless its loss is above the threshold; that loss, and how things stand after it."""
    targets = soft_targets(state)
    found, epoch = slope(method, state, targets)
    if counted(method, state, found, epoch):
        _descend(method, state, found, targets)
    state.step += 1
    loss = float(found.loss)
    return ({"loss": loss} if math.isfinite(loss) else {}) | {"start_epoch": epoch} | standing(state)


def slope(method: Any, state: MatchingState, targets: Tensor) -> tuple[unrolling.Gradient, int]:
    """The loss of this outer step's expert, start epoch and mini-batches, and its gradient; and the start epoch."""
    expert, epoch = draw_start(method, state)
    found = unrolling.GRADIENTS[method.gradient](
        state.student,
        state.experts.vector(expert, epoch).to(state.images.device),
        state.experts.vector(expert, epoch + method.expert_epochs).to(state.images.device),
        images=state.images,
        targets=targets,
        lr=state.lr,
        batches=draw_batches(method, state),
        limit=method.threshold,
    )
    return found, epoch


def counted(method: Any, state: MatchingState, found: unrolling.Gradient, epoch: int) -> bool:
    """Whether the step may change anything; it is counted among those tried, and those skipped.

    Raises:
        FloatingPointError: the loss is no number and there is no threshold.
    """
    loss = float(found.loss)
    state.tried[epoch] += 1
    if method.threshold is None and not math.isfinite(loss):
        raise FloatingPointError(
            f"loss is {loss} at step {state.step} from epoch {epoch}; a smaller lr_images or lr_student may help"
        )
    held = method.threshold is None or loss <= method.threshold
    state.skipped[epoch] += not held
    return held


def _descend(method: Any, state: MatchingState, found: unrolling.Gradient, targets: Tensor) -> None:
    """SGD with momentum, v <- mu v + g and p <- p - lr v, on the images, a and, where learnt, the label logits."""
    _sgd(state.images, state.velocities["images"], found.images, method.lr_images, method.momentum)
    if method.labels == "learned":
        steepness = targets * (found.targets - (found.targets * targets).sum(1, keepdim=True))  # through the softmax
        _sgd(state.logits, state.velocities["logits"], steepness, method.lr_labels, method.momentum_labels)
    descend_lr(method, state, found)


def descend_lr(method: Any, state: MatchingState, found: unrolling.Gradient) -> None:
    """The step of the learnt step size a.

    Raises:
        FloatingPointError: a is no longer > 0.
    """
    _sgd(state.lr, state.velocities["lr"], found.lr, method.lr_lr, method.momentum_lr)
    if not state.lr > 0:
        raise FloatingPointError(
            f"the learnt step size lr_student became {float(state.lr):.4g} at step {state.step}; it must stay > 0: "
            "a smaller lr_lr may help"
        )


def _sgd(parameter: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
    velocity.mul_(momentum).add_(gradient)
    parameter.sub_(velocity, alpha=lr)


def draw_start(method: Any, state: MatchingState) -> tuple[int, int]:
    """The expert and the start epoch of this outer step."""
    sweep, position = divmod(state.step, state.experts.count)
    order = torch.randperm(state.experts.count, generator=seeding.generator(state.seed, "expert", sweep))
    stream = seeding.generator(state.seed, "start epoch", state.step)
    low, high = method.min_start_epoch, method.upper_bound(state.step)
    return int(order[position]), int(torch.randint(low, high, (), generator=stream))


def draw_batches(method: Any, state: MatchingState) -> list[MiniBatch]:
    """The mini-batches of this outer step, by `unroll.draw_batches`."""
    return unrolling.draw_batches(
        state.images,
        steps=method.syn_steps,
        batch=method.batch_syn,
        strategy=state.strategy,
        order=seeding.generator(state.seed, "chunks", state.step),
        augmentation=seeding.generator(state.seed, "augmentation", state.step),
    )


def soft_targets(state: MatchingState) -> Tensor:
    """What the student aims at: softmax(Y), or the hard labels as probabilities: (n, K)."""
    if state.logits is not None:
        return state.logits.softmax(1)
    return F.one_hot(state.classes, state.train.num_classes).to(state.images.dtype)


def standing(state: MatchingState) -> dict[str, float | Tensor]:
    """How things stand.

    Returns:
        lr: the step size a.
        skipped: outer steps that changed nothing, of those so far, in percent.
        label_entropy: mean entropy of the targets in nats, in [0, log K].
        distance: root mean square change of the images' values from the initial ones.
    """
    return {
        "lr": state.lr.clone(),
        "skipped": 100 * int(state.skipped.sum()) / max(1, state.step),
        "label_entropy": torch.special.entr(soft_targets(state)).sum(1).mean(),
        "distance": (state.images - state.first).square().mean().sqrt(),
    }


def as_synthetic(method: Any, state: MatchingState, images: Tensor) -> SyntheticSet:
    """The set as it stands, with the source rows of its images and the skips by start epoch in its provenance."""
    made = {"method": method.name, "seed": state.seed, "dataset": state.train.name, "iterations": state.step}
    made |= {"rows": None if state.rows is None else state.rows.tolist()}
    made |= {"tried": state.tried.tolist(), "skipped": state.skipped.tolist(), "experts": state.experts.count}
    return SyntheticSet(
        images=images.detach().clone(),
        labels=state.classes if state.logits is None else state.logits.detach().clone(),
        class_names=state.train.class_names,
        space=state.train.space,
        strategy=state.strategy,
        learning_rate=float(state.lr),
        provenance=made,
    )
