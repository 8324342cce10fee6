"""The builder of expert trajectories: networks trained on the whole real training set, their parameters kept."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.pretraining.trajectories import stored, training
from ddlib.pretraining.trajectories.training import Learner

STREAM = "experts"
"""First name of every random stream used here."""

CHOICES = {
    "network": models.names(),
    "optimizer": ("gsam", "sgd"),
    "storage": stored.STORAGES,
    "precision": training.PRECISIONS,
}

TOGETHER_ELEMENTS = {"cpu": 0, "cuda": 2**24}
"""Largest map of one mini-batch of all experts trained together, where `at_once` is None; one is always trained.

On a CPU an expert alone is the fastest: a convolution under vmap is a grouped one.  On a GPU small networks share the
launching of kernels; 256 images at 128 x 32 x 32 keep it busy by themselves (an estimate).
"""


@dataclass
class Training:
    """State of `Experts`: a group of experts in training, and the vectors kept so far.

    together: experts of a group; the last group may be smaller.
    vectors: (count, stored, P), zero where nothing is kept yet.
    theta: (A, P), the current parameters of the group.
    step: steps taken.
    """

    builder: "Experts"
    train: ImageSet
    seed: int
    learner: Learner
    together: int
    vectors: Tensor
    theta: Tensor
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What is kept so far, the current parameters, the size of a group and the step."""
        done, members, kept = self._filled()
        numbers = {"step": torch.tensor(self.step), "together": torch.tensor(self.together)}
        return numbers | {"theta": self.theta, "done": self.vectors[:done], "current": self.vectors[members, :kept]}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave, in groups of the size in which it began."""
        self.step, self.together = int(saved["step"]), int(saved["together"])
        self.theta = saved["theta"].to(self.vectors.device)
        done, members, kept = self._filled()
        self.vectors[:done] = saved["done"].to(self.vectors.device)
        self.vectors[members, :kept] = saved["current"].to(self.vectors.device)

    def place(self) -> tuple[range, int, int]:
        """Where the next step stands: experts of the group within the shard, epoch, and part of the epoch."""
        epochs, count = self.builder.epochs, self.builder.count
        group, within = divmod(self.step, self.together * epochs)
        members = range(group * self.together, min((group + 1) * self.together, count))
        return members, *divmod(within, max(1, len(members)))

    def _filled(self) -> tuple[int, slice, int]:
        """Experts whose vectors are all kept, the group in training, and how many of its vectors are kept."""
        members, epoch, part = self.place()
        kept = sum(e <= epoch for e in self.builder.stored) if epoch or part else 0
        return members.start, slice(members.start, members.stop), kept


@dataclass(frozen=True, kw_only=True)
class Experts:
    """A shard of expert trajectories (MTT, Cazenavette et al. 2022): parameters after each of their first epochs.

    The product stays `mapped` from its file, in the memory of the host: methods take two vectors of it a step.

    Each expert is a fresh network trained on the whole training set with DSA, one family a mini-batch, and hard
    labels; the last partial mini-batch is kept.  A step is an epoch of one expert; where several are trained at once,
    it is that share of their common epoch, so that a shard has equally many equal steps on every device.

    network, norm, width, depth: the network; None keeps its default.
    count: experts of this shard, >= 1.
    first: index of the first, >= 0.  An expert has the same numbers in every shard, up to rounding.
    epochs: E >= 1, passes over the training set.
    kept: epochs 0 (the initial weights) to `kept` are stored, in [0, E]; and E.
    optimizer: "gsam" (FTD, DATM) or "sgd" (MTT, TESLA), without momentum and decay.
    lr, batch_size: of either.
    rho, alpha: of GSAM; `training.gsam` states its equations.
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    storage: "float32", or "float16": the first vector whole, then scaled differences (`stored.encode`).
    precision: of convolutions and products.
    compiled: whether the passes are compiled.
    at_once: experts trained together, >= 1; None: by device, one on a CPU.
    seed: of the weights, shuffles and augmentation.
    """

    name: ClassVar[str] = "trajectories"
    version: ClassVar[int] = 1
    mapped: ClassVar[bool] = True
    network: str = "convnet"
    norm: str = "instance"
    width: int | None = None
    depth: int | None = None
    count: int = 10
    first: int = 0
    epochs: int = 100
    kept: int = 100
    optimizer: str = "gsam"
    lr: float = 0.01
    batch_size: int = 256
    rho: float = 0.01
    alpha: float = 0.3
    strategy: str | None = None
    storage: str = "float32"
    precision: str = "float32"
    compiled: bool = False
    at_once: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        for name in ("count", "epochs", "batch_size"):
            self._require(name, getattr(self, name) >= 1, ">= 1")
        self._require("first", self.first >= 0, ">= 0")
        self._require("kept", 0 <= self.kept <= self.epochs, f"in [0, {self.epochs}], the epochs trained")
        self._require("lr", self.lr > 0, "> 0")
        self._require("alpha", math.isfinite(self.alpha), "finite")
        self._require("rho", self.rho >= 0, ">= 0")
        self._require("at_once", self.at_once is None or self.at_once >= 1, ">= 1, or None")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} of experts; it must be {allowed}")

    @property
    def iterations(self) -> int:
        """One step an epoch of an expert."""
        return self.epochs * self.count

    @property
    def stored(self) -> tuple[int, ...]:
        """The epochs whose parameters are stored, ascending."""
        return tuple(sorted({*range(self.kept + 1), self.epochs}))

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """Untrained experts.

        Raises:
            ValueError: an unknown option of the network or DSA family, or a network with running statistics.
        """
        augmentation.draw(1, 1, size=train.shape[1:], strategy=self._strategy(train), generator=torch.Generator())
        learner = self._learner(train)
        elements = min(self.batch_size, len(train)) * learner.elements
        most = max(1, TOGETHER_ELEMENTS.get(train.device.type, 0) // elements)
        together = min(self.count, self.at_once or most)
        vectors = torch.zeros(self.count, len(self.stored), learner.flat.size, device=train.device)
        state = Training(self, train, seed, learner, together, vectors, vectors[:0, 0])
        state.theta = self._fresh(state, range(together))
        return state

    def step(self, state: Training) -> dict[str, Tensor]:
        """An epoch of one expert, or of several that share of it; returns the mean training loss.

        Nothing is returned where the data have fewer mini-batches than experts that share the epoch.
        """
        members, epoch, part = state.place()
        if epoch == part == 0:
            state.theta = self._fresh(state, members)
            state.vectors[members.start : members.stop, 0] = state.theta
        losses = [self._update(state, members, epoch, batch) for batch in self._batches(state, members, epoch, part)]
        if part == len(members) - 1 and epoch + 1 in self.stored:
            state.vectors[members.start : members.stop, self.stored.index(epoch + 1)] = state.theta
        state.step += 1
        return {"loss": torch.stack(losses).mean()} if losses else {}

    def finish(self, state: Training) -> dict[str, Tensor]:
        """The stored vectors with what they are of, as `Trajectories.of` takes them.

        Before the last step, vectors of the full size that take no memory stand for those to come: they are for
        timing alone.
        """
        vectors = state.vectors if state.step >= self.iterations else _stand_in(state)
        about = torch.frombuffer(bytearray(json.dumps(self._about(state), sort_keys=True).encode()), dtype=torch.uint8)
        return stored.encode(vectors, self.storage) | {"epochs": torch.tensor(self.stored), "about": about}

    def _learner(self, train: ImageSet) -> Learner:
        options = {"norm": self.norm, "width": self.width, "depth": self.depth}
        known = models.options_of(self.network)
        chosen = tuple((key, value) for key, value in options.items() if value is not None and key in known)
        told = {"shape": train.shape, "num_classes": train.num_classes}
        return training.learner(self.network, chosen, **told, precision=self.precision, compiled=self.compiled)

    def _fresh(self, state: Training, members: range) -> Tensor:
        """Initial parameters of the experts, (A, P)."""
        streams = [seeding.generator(state.seed, STREAM, "network", self.first + i) for i in members]
        return torch.stack([state.learner.fresh(stream) for stream in streams]).to(state.vectors.device)

    def _batches(self, state: Training, members: range, epoch: int, part: int) -> list[tuple[int, Tensor]]:
        """The mini-batches of one part of an epoch: their number within it, and rows (A, B)."""
        streams = [seeding.generator(state.seed, STREAM, "shuffle", self.first + i, epoch) for i in members]
        orders = torch.stack([torch.randperm(len(state.train), generator=stream) for stream in streams])
        batches = list(enumerate(orders.to(state.train.device).split(self.batch_size, dim=1)))
        begin, end = (len(batches) * share // len(members) for share in (part, part + 1))
        return batches[begin:end]

    def _update(self, state: Training, members: range, epoch: int, batch: tuple[int, Tensor]) -> Tensor:
        """One step of SGD or GSAM of all experts of the group; the mean loss before it."""
        number, rows = batch
        names = [(self.first + i, epoch, number) for i in members]
        streams = [seeding.generator(state.seed, STREAM, "augmentation", *name) for name in names]
        images = state.train.take(rows.flatten()).view(*rows.shape, *state.train.shape)
        images, labels = training.augmented(images, self._strategy(state.train), streams), state.train.labels[rows]
        losses = []

        def gradient(theta: Tensor) -> Tensor:
            found, loss = training.mean_gradient(state.learner, theta, images, labels)
            losses.append(loss.mean())
            return found

        state.theta = self._rule()(state.theta, gradient)
        return losses[0]

    def _rule(self) -> Callable[[Tensor, training.Gradient], Tensor]:
        if self.optimizer == "sgd":
            return functools.partial(training.sgd, lr=self.lr)
        return functools.partial(training.gsam, lr=self.lr, rho=self.rho, alpha=self.alpha)

    def _strategy(self, train: ImageSet) -> str:
        return augmentation.strategy_for(train.name) if self.strategy is None else self.strategy

    def _about(self, state: Training) -> dict[str, Any]:
        """What the trajectories are of: data, space, network and training, as plain JSON."""
        train, space = state.train, state.train.space
        data = {"dataset": train.name, "fingerprint": train.fingerprint, "space": space.name}
        form = {"shape": list(train.shape), "num_classes": train.num_classes, "parameters": state.learner.flat.size}
        return data | form | asdict(self) | {"strategy": self._strategy(train), "seed": state.seed}


def _stand_in(state: Training) -> Tensor:
    """(count, stored, P): a window that moves along the initial parameters, so that no two epochs are equal."""
    count, epochs, size = state.vectors.shape
    line = state.theta[0].repeat(1 + epochs // size + 1)
    return line.unfold(0, size, 1)[:epochs].expand(count, epochs, size)
