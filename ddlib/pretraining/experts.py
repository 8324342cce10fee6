"""Expert trajectories: networks trained on the whole real training set, their parameters stored after each epoch.

`Experts` builds a shard of them, `split` divides many into shards, and `Trajectories` is the joined view of shards.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.models import passes
from ddlib.models.passes import Flat, PureNetwork
from ddlib.pretraining import Prerequisite

STREAM = "experts"
"""First name of every random stream used here."""

OWN = ("first", "count", "at_once", "compiled")
"""What shards of one set of trajectories may differ in."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The trajectories of several shards as one, in the order of their experts; made by `of`."""

    shards: tuple[Mapping[str, Tensor], ...]  # mapped from their files or on a device
    about: Mapping[str, Any]  # what they are of: data, space, network and training
    epochs: tuple[int, ...]  # those that are stored, ascending

    @classmethod
    def of(cls, shards: Sequence[Mapping[str, Tensor]]) -> "Trajectories":
        """The joined view of products of `Experts`; those that do not belong together are refused."""
        if not shards:
            raise ValueError("shards=[]; at least one is needed")
        abouts = [json.loads(bytes(shard["about"].tolist())) for shard in shards]
        shared = [
            {key: value for key, value in about.items() if key not in OWN} | {"stored epochs": shard["epochs"].tolist()}
            for about, shard in zip(abouts, shards, strict=True)
        ]
        for facts in shared[1:]:
            _require_same(shared[0], facts, "shards of expert trajectories differ")
        indices = [i for about in abouts for i in range(about["first"], about["first"] + about["count"])]
        twice = sorted({i for i in indices if indices.count(i) > 1})
        if twice:
            raise ValueError(f"shards hold experts {twice} more than once; each may be there once")
        order = sorted(range(len(shards)), key=lambda i: abouts[i]["first"])
        return cls(tuple(shards[i] for i in order), shared[0], tuple(shared[0]["stored epochs"]))

    @property
    def count(self) -> int:
        """Number of experts."""
        return sum(len(shard["vectors"]) for shard in self.shards)

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self.about["parameters"]

    def vector(self, expert: int, epoch: int) -> Tensor:
        """Parameters of an expert after an epoch of `epochs`, (P,) float32, not to be written to; 0: the initial."""
        if epoch not in self.epochs:
            raise ValueError(f"epoch={epoch} is not stored; stored are {', '.join(map(str, self.epochs))}")
        if not 0 <= expert < self.count:
            raise ValueError(f"expert={expert}; it must be in [0, {self.count})")
        for shard in self.shards:
            if expert < len(shard["vectors"]):
                break
            expert -= len(shard["vectors"])
        return shard["vectors"][expert, self.epochs.index(epoch)]

    def last(self, expert: int) -> Tensor:
        """Parameters of an expert after its last epoch, (P,) float32."""
        return self.vector(expert, self.epochs[-1])

    def check(self, train: ImageSet, *, network: str, norm: str, parameters: int) -> None:
        """Refuse trajectories that are not of these data, in this space, and this network of P parameters."""
        wanted = {"dataset": train.name, "fingerprint": train.fingerprint, "space": train.space.name}
        wanted |= {"shape": list(train.shape), "num_classes": train.num_classes}
        wanted |= {"network": network, "norm": norm, "parameters": parameters}
        _require_same(
            {name: self.about[name] for name in wanted}, wanted, "expert trajectories are of another kind than asked"
        )


def _require_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    differing = [f"{k}: {ours.get(k)!r} and {theirs.get(k)!r}" for k in ours | theirs if ours.get(k) != theirs.get(k)]
    if differing:
        raise ValueError(f"{what}: {'; '.join(differing)}")


Gradient = Callable[[Tensor], Tensor]
"""Parameters (A, P) of A experts -> the gradient of each one's loss on its mini-batch, (A, P)."""


@dataclass(frozen=True, eq=False)
class Learner:
    """A kind of network as functions of stacked parameter vectors; see `learner`."""

    network: PureNetwork
    flat: Flat
    losses: Callable[[Tensor, Tensor, Tensor], Tensor]  # theta (A, P), images, labels -> summed cross-entropy (A,)


@functools.lru_cache(maxsize=16)
def learner(network: PureNetwork, compiled: bool) -> Learner:
    """The functions that train a network without batch statistics, one object for all so that it is compiled once."""
    flat, through = network.flat, (passes.compiled,) if compiled else ()
    losses = passes.stacked(
        lambda theta, images: network.logits(flat.named(theta), {}, images), network.grouped, *through
    )
    return Learner(network, flat, losses)


def mean_gradient(learner: Learner, theta: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient (A, P) of each expert's mean cross entropy on images (A, B, C, H, W) and labels (A, B), and it."""
    theta = theta.detach().requires_grad_()
    size = passes.size(images.shape[1], learner.network.elements * len(theta), images.device)
    gradient, total = torch.zeros_like(theta), torch.zeros(len(theta), dtype=images.dtype, device=images.device)
    for micro_batch in zip(images.split(size, dim=1), labels.split(size, dim=1), strict=True):
        losses = learner.losses(theta, *micro_batch)
        gradient += torch.autograd.grad(losses.sum(), theta)[0]
        total += losses.detach()
    return gradient / images.shape[1], total / images.shape[1]


def sgd(theta: Tensor, gradient: Gradient, *, lr: float) -> Tensor:
    """w - lr grad l(w), for each of A experts: SGD without momentum and decay (MTT, Cazenavette et al. 2022)."""
    return theta - lr * gradient(theta)


def gsam(theta: Tensor, gradient: Gradient, *, lr: float, rho: float, alpha: float) -> Tensor:
    """One step of adaptive GSAM (Zhuang et al. 2022) as FTD and DATM take it, for each of A experts.

    On one mini-batch, augmented once, with loss l and products of vectors elementwise:

        g = grad l(w)
        e = rho (w w g) / (|| |w| g ||_2 + 1e-12)
        q = grad l(w + e)
        g_perp = g - <g, q> q / ||q||^2
        w <- w - lr (q - alpha g_perp)

    `theta` is w, (A, P); `gradient` is grad l on the same mini-batch, whenever it is called.
    """
    g = gradient(theta)
    q = gradient(theta + rho * theta * theta * g / ((theta * g).norm(dim=1, keepdim=True) + 1e-12))
    length = q.norm(dim=1, keepdim=True).square().clamp_min(torch.finfo(q.dtype).tiny)
    along = (g * q).sum(1, keepdim=True) / length
    return theta - lr * (q - alpha * (g - along * q))


@dataclass
class Training:
    """State of `Experts`: a group of experts in training, and the vectors stored so far."""

    builder: "Experts"
    train: ImageSet
    seed: int
    learner: Learner
    together: int  # A, experts of a group; the last group may be smaller
    vectors: Tensor  # (count, stored, P), zero where nothing is stored yet
    theta: Tensor  # (A, P), the current parameters of the group
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """The vectors stored so far, the current parameters, the size of a group and the step."""
        done, current = self._stored()
        counts = {"step": torch.tensor(self.step), "together": torch.tensor(self.together)}
        return counts | {"theta": self.theta, "done": done, "current": current}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave, in groups of the size in which it began."""
        self.step, self.together = int(saved["step"]), int(saved["together"])
        self.theta = saved["theta"].to(self.vectors.device)
        done, current = self._stored()
        done.copy_(saved["done"])
        current.copy_(saved["current"])

    def position(self) -> tuple[range, int, int]:
        """What comes next: the group in training as places within the shard, the epoch, and the share of the epoch."""
        group, steps = divmod(self.step, self.together * self.builder.epochs)
        first = group * self.together
        experts = range(first, min(first + self.together, self.builder.count))
        epoch, share = divmod(steps, max(1, len(experts)))  # after the last step there is no expert left
        return experts, epoch, share

    def _stored(self) -> tuple[Tensor, Tensor]:
        """Views of the vectors stored so far: of the groups before, and of the one in training."""
        experts, epoch, share = self.position()
        begun = epoch > 0 or share > 0  # the first step of a group stores its initial weights
        stored = sum(e <= epoch for e in self.builder.stored) if begun else 0
        return self.vectors[: experts.start], self.vectors[experts.start : experts.stop, :stored]


@dataclass(frozen=True, kw_only=True)
class Experts(Prerequisite):
    """A shard of expert trajectories (MTT, Cazenavette et al. 2022): parameters after each of their first epochs.

    Each expert is a fresh network trained on the whole training set with DSA, one family a mini-batch, and hard
    labels; the last partial mini-batch is kept.  A step is an epoch of one expert; where several are trained at once,
    it is that share of their common epoch, so that a shard has equally many equal steps on every device.

    network, norm, width, depth: the network; None keeps its default.
    count: experts of this shard, >= 1.
    first: index of the first, >= 0.  An expert has the same numbers in every shard, up to rounding.
    epochs: E >= 1, passes over the training set.
    kept: epochs 0 (the initial weights) to `kept` are stored, in [0, E]; and E.
    optimizer: "gsam" (FTD, DATM; `gsam` states rho and alpha) or "sgd" (MTT, TESLA), without momentum and decay.
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    storage: "float32", of the vectors; nothing else is known.
    precision: of convolutions and products.
    at_once: experts trained together, >= 1; None: by device, one on a CPU.
    """

    name: ClassVar[str] = "trajectories"
    version: ClassVar[int] = 1
    sweeps: ClassVar[bool] = True
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
        self.require("network", models.known, f"one of {', '.join(models.names())}, or dotted")
        for name, known in {
            "optimizer": ("gsam", "sgd"),
            "storage": ("float32",),
            "precision": passes.PRECISIONS,
        }.items():
            self.require(name, lambda value, known=known: value in known, f"one of {', '.join(known)}")
        self.require("count epochs batch_size", lambda value: value >= 1, ">= 1")
        self.require("first rho", lambda value: value >= 0, ">= 0")
        self.require("kept", lambda value: 0 <= value <= self.epochs, f"in [0, {self.epochs}], the epochs trained")
        self.require("lr", lambda value: value > 0, "> 0")
        self.require("alpha", math.isfinite, "finite")
        self.require("at_once", lambda value: value is None or value >= 1, ">= 1, or None")

    @property
    def iterations(self) -> int:
        """One step an epoch of an expert."""
        return self.epochs * self.count

    @property
    def stored(self) -> tuple[int, ...]:
        """The epochs whose parameters are stored, ascending."""
        return tuple(sorted({*range(self.kept + 1), self.epochs}))

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """Untrained experts; an unknown option or DSA family, or batch statistics, are refused with a ValueError."""
        augmentation.draw(1, 1, size=train.shape[1:], strategy=self._strategy(train), generator=torch.Generator())
        learner = self._learner(train)
        most = 1  # on a CPU, where a shard holds the same bits however experts are shared out
        if train.device.type != "cpu":
            most = passes.together(min(self.batch_size, len(train)), learner.network, train.device)
        together = min(self.count, self.at_once or most)
        vectors = torch.zeros(self.count, len(self.stored), learner.flat.size, device=train.device)
        state = Training(self, train, seed, learner, together, vectors, vectors[:0, 0])
        state.theta = self._fresh(state, range(together))
        return state

    def step(self, state: Training) -> dict[str, Tensor]:
        """An epoch of one expert, or of several that share of it; returns the mean training loss, if it has any."""
        experts, epoch, share = state.position()
        vectors = state.vectors[experts.start : experts.stop]
        if epoch == share == 0:
            vectors[:, 0] = state.theta = self._fresh(state, experts)
        streams = [seeding.generator(state.seed, STREAM, "shuffle", self.first + i, epoch) for i in experts]
        orders = torch.stack([torch.randperm(len(state.train), generator=stream) for stream in streams])
        batches = orders.to(state.train.device).split(self.batch_size, dim=1)
        begin, end = (len(batches) * s // len(experts) for s in (share, share + 1))
        losses = [self._update(state, experts, epoch, number, batches[number]) for number in range(begin, end)]
        if share == len(experts) - 1 and epoch + 1 in self.stored:
            vectors[:, self.stored.index(epoch + 1)] = state.theta
        state.step += 1
        return {"loss": torch.stack(losses).mean()} if losses else {}

    def finish(self, state: Training) -> dict[str, Tensor]:
        """The stored vectors with what they are of, as `Trajectories.of` takes them.

        Before the last step, vectors of the full size that take no memory stand for those to come: they are for
        timing alone.
        """
        train, vectors = state.train, state.vectors
        if state.step < self.iterations:  # a window that moves along the initial parameters: no two epochs are equal
            count, epochs, size = vectors.shape
            line = state.theta[0].repeat(1 + epochs // size + 1)
            vectors = line.unfold(0, size, 1)[:epochs].expand(count, epochs, size)
        about = asdict(self) | {
            "dataset": train.name,
            "fingerprint": train.fingerprint,
            "space": train.space.name,
            "shape": list(train.shape),
            "num_classes": train.num_classes,
            "parameters": state.learner.flat.size,
            "strategy": self._strategy(train),
            "seed": state.seed,
        }
        coded = torch.frombuffer(bytearray(json.dumps(about, sort_keys=True).encode()), dtype=torch.uint8)
        return {"vectors": vectors, "epochs": torch.tensor(self.stored), "about": coded}

    def _learner(self, train: ImageSet) -> Learner:
        options = passes.known_options(self.network, norm=self.norm, width=self.width, depth=self.depth)
        kind = {"shape": train.shape, "num_classes": train.num_classes, "precision": self.precision}
        return learner(passes.pure(self.network, options, **kind), self.compiled)

    def _fresh(self, state: Training, experts: range) -> Tensor:
        """Initial parameters of the experts, (A, P)."""
        flat, build = state.learner.flat, state.learner.network.build
        streams = [seeding.generator(state.seed, STREAM, "network", self.first + i) for i in experts]
        vectors = [flat.vector(dict(build(generator=stream).named_parameters())) for stream in streams]
        return torch.stack(vectors).to(state.vectors.device)

    def _update(self, state: Training, experts: range, epoch: int, number: int, rows: Tensor) -> Tensor:
        """One step of all experts of the group on the mini-batches `rows` (A, B); the mean loss before it."""
        names = [(self.first + i, epoch, number) for i in experts]
        streams = [seeding.generator(state.seed, STREAM, "augmentation", *name) for name in names]
        images = state.train.take(rows.flatten()).view(*rows.shape, *state.train.shape)
        (images,) = augmentation.augment_stacked([images], self._strategy(state.train), [streams])
        labels, losses = state.train.labels[rows], []

        def gradient(theta: Tensor) -> Tensor:
            gradients, loss = mean_gradient(state.learner, theta, images, labels)
            losses.append(loss.mean())
            return gradients

        if self.optimizer == "sgd":
            state.theta = sgd(state.theta, gradient, lr=self.lr)
        else:
            state.theta = gsam(state.theta, gradient, lr=self.lr, rho=self.rho, alpha=self.alpha)
        return losses[0]

    def _strategy(self, train: ImageSet) -> str:
        return augmentation.strategy_for(train.name) if self.strategy is None else self.strategy


def split(experts: Experts, shard: int) -> dict[str, Experts]:
    """The same experts in shards of at most `shard` >= 1, by names that say which they hold: "experts 0-9"."""
    if shard < 1:
        raise ValueError(f"shard={shard!r}; it must be >= 1")
    end = experts.first + experts.count
    firsts = range(experts.first, end, shard)
    parts = [replace(experts, first=first, count=min(shard, end - first)) for first in firsts]
    return {f"experts {part.first}-{part.first + part.count - 1}": part for part in parts}
