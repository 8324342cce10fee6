"""What MTT, TESLA, FTD and DATM share: matching the parameters that experts reach (MTT, Cazenavette et al. 2022)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _matching as matching
from ddlib.methods import unrolling
from ddlib.methods._pixels import require
from ddlib.pretraining.experts import Experts, Trajectories, split

CHOICES = {
    "init": ("correct", "real", "noise"),
    "labels": ("learned", "fixed", "hard"),
    "label_source": ("ensemble", "single"),
    "gradient": tuple(unrolling.GRADIENTS),
    "optimizer": ("gsam", "sgd"),
}


@dataclass(frozen=True, kw_only=True)
class TrajectoryMatching:
    """Learn images (labels, step size) on which a student moves in N steps as an expert does in M epochs.

    Each step: an expert, each once a sweep in random order; a start epoch t ~ U{T-..U-1}; a student from theta*_t
    takes N steps of SGD with step size a on mini-batches of the synthetic set, augmented by DSA, not siamese; then
    one SGD step of images, labels and a down the gradient of

        L = ||theta_N - theta*_{t+M}||^2 / ||theta*_t - theta*_{t+M}||^2.

    ipc: images per class, >= 1.
    iterations: outer steps, >= 0; the published loops take one more than their round number.
    syn_steps: N >= 1.  expert_epochs: M >= 1.
    min_start_epoch, max_start_epoch: T- and T+, 0 <= T- < T+.
    initial_max_start_epoch, expansion_end: T and E_exp in outer steps; U = min(T+, T + floor((T+ - T) it / E_exp)),
        or U = T+ where they are None.
    lr_images, lr_labels, lr_lr: step sizes of the images, the label logits and a, >= 0; 0 keeps them as they are.
    momentum, momentum_labels, momentum_lr: of their SGD, in [0, 1).
    lr_student: a_0 > 0.
    batch_syn: B >= 1, synthetic images an inner step; None: all.
    threshold: a step whose L is above it, or no number, changes nothing and is counted; None: no such guard.
    init: "correct" (real images that the experts get right), "real" (random ones), "noise" (standard normal).
    labels: "learned" (logits, from those of the experts), "fixed" (the same, kept), "hard".
    label_source: "ensemble" (`ensemble_logits`) or "single" (expert 0, right or wrong) for the first two.
    gradient: "adjoint" or "unrolled" (the same numbers), or "tesla"; see `ddlib.methods.unrolling`.
    experts, expert_training: experts and the epochs that each is trained.
    kept_epochs: epochs 0..kept_epochs of each are stored; None: T+ - 1 + M.  Equal ones share their experts.
    expert_lr, expert_batch, optimizer, rho, alpha, storage, expert_precision: of the experts; see
        `ddlib.pretraining.experts.Experts`.
    shard: experts that are made and stored together, >= 1.
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    network, norm, width, depth: of students and experts; None keeps the network's default.
    precision: of the student's convolutions and products.
    compiled: compile the passes of students and experts.
    """

    whitened: ClassVar[tuple[str, ...]] = ("cifar10", "cifar100", "tiny_imagenet")
    whitening: ClassVar[str] = "pixels"
    ipc: int
    iterations: int = 5_001
    syn_steps: int = 30
    expert_epochs: int = 2
    min_start_epoch: int = 0
    initial_max_start_epoch: int | None = None
    max_start_epoch: int = 20
    expansion_end: int | None = None
    lr_images: float = 100.0
    lr_labels: float = 0.0
    lr_lr: float = 1e-5
    momentum: float = 0.5
    momentum_labels: float = 0.9
    momentum_lr: float = 0.5
    lr_student: float = 0.01
    batch_syn: int | None = None
    threshold: float | None = None
    init: str = "real"
    labels: str = "hard"
    label_source: str = "ensemble"
    gradient: str = "adjoint"
    experts: int = 100
    expert_training: int = 50
    kept_epochs: int | None = None
    expert_lr: float = 0.01
    expert_batch: int = 256
    optimizer: str = "sgd"
    rho: float = 0.01
    alpha: float = 0.3
    storage: str = "float32"
    expert_precision: str = "float32"
    shard: int = 10
    strategy: str | None = None
    network: str = "convnet"
    norm: str = "instance"
    width: int | None = None
    depth: int | None = None
    precision: str = "float32"
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            self._require(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")
        for name in ("ipc", "syn_steps", "expert_epochs", "experts", "shard"):
            self._require(name, getattr(self, name) >= 1, ">= 1")
        for name in ("iterations", "min_start_epoch", "lr_images", "lr_labels", "lr_lr"):
            self._require(name, getattr(self, name) >= 0, ">= 0")
        for name in ("momentum", "momentum_labels", "momentum_lr"):
            self._require(name, 0 <= getattr(self, name) < 1, "in [0, 1)")
        self._require("lr_student", self.lr_student > 0, "> 0")
        self._require("batch_syn", self.batch_syn is None or self.batch_syn >= 1, ">= 1, or None for all")
        self._require("threshold", self.threshold is None or self.threshold > 0, "> 0, or None for no guard")
        self._check_window()
        _ = self.needs  # refuses what experts refuse

    def _check_window(self) -> None:
        """Start epochs and targets must exist and be stored."""
        low, first, high = self.min_start_epoch, self.initial_max_start_epoch, self.max_start_epoch
        self._require("max_start_epoch", high > low, f"> min_start_epoch={low}")
        self._require("initial_max_start_epoch", first is None or low < first <= high, f"in ({low}, {high}], or None")
        paired = (first is None) == (self.expansion_end is None) and (self.expansion_end or 1) >= 1
        self._require("expansion_end", paired, ">= 1 with initial_max_start_epoch, or both None")
        last, kept, needed = self.expert_training, self._kept, high - 1 + self.expert_epochs
        stored = f"max_start_epoch={high} and expert_epochs={self.expert_epochs} match epochs up to {needed}"
        self._require("kept_epochs", kept >= needed, f">= {needed}, since {stored}")
        self._require("expert_training", last >= kept, f">= {kept}, the epochs to be kept, since {stored}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        require(name, getattr(self, name), holds, allowed)

    @property
    def _kept(self) -> int:
        """The last epoch that is stored."""
        return self.max_start_epoch - 1 + self.expert_epochs if self.kept_epochs is None else self.kept_epochs

    @property
    def needs(self) -> Mapping[str, Any]:
        """The experts, shard by shard."""
        told = {name: getattr(self, name) for name in ("optimizer", "rho", "alpha", "storage", "strategy", "compiled")}
        told |= {name: getattr(self, name) for name in ("network", "norm", "width", "depth")}
        if self.optimizer == "sgd":
            told |= {"rho": Experts.rho, "alpha": Experts.alpha}  # not used: one buffer whatever they say
        size = {"count": self.experts, "epochs": self.expert_training, "kept": self._kept}
        speed = {"lr": self.expert_lr, "batch_size": self.expert_batch, "precision": self.expert_precision}
        return split(Experts(**told, **size, **speed), self.shard)

    @property
    def rehearsal(self) -> "TrajectoryMatching":
        """Equally long steps where experts are not trained: from random real images and any epoch that is stored,
        every loss allowed, and nothing moved."""
        init = "real" if self.init == "correct" else self.init
        told = {"init": init, "threshold": math.inf, "kept_epochs": self._kept, "label_source": "single"}
        told |= dict.fromkeys(("lr_images", "lr_labels", "lr_lr"), 0.0)
        told |= {"min_start_epoch": 0, "max_start_epoch": self._kept - self.expert_epochs + 1}
        return replace(self, **told, initial_max_start_epoch=None, expansion_end=None)

    def upper_bound(self, iteration: int) -> int:
        """U of an outer step: start epochs are below it.  DATM's sequential generation, in whole epochs."""
        if self.initial_max_start_epoch is None:
            return self.max_start_epoch
        way = (self.max_start_epoch - self.initial_max_start_epoch) * iteration // self.expansion_end
        return min(self.max_start_epoch, self.initial_max_start_epoch + way)

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> matching.MatchingState:
        """Initial images and labels, and the experts.

        Raises:
            ValueError: `ipc` outside the class sizes or what the experts get right, or experts of another data set or
                network.
        """
        return matching.begin(self, train, Trajectories.of([prerequisites[name] for name in self.needs]), seed)

    def step(self, state: matching.MatchingState) -> dict[str, float | Tensor]:
        """One outer step; returns its loss and how things stand.

        Raises:
            FloatingPointError: the loss is no number and there is no threshold, or the step size is no longer > 0.
        """
        return matching.update(self, state)

    def finish(self, state: matching.MatchingState) -> SyntheticSet:
        """Images, labels and step size as they stand."""
        return matching.as_synthetic(self, state, state.images)
