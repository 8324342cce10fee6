"""What one evaluation does: the protocol of dataset condensation, as settings."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ddlib import models
from ddlib.data.synthetic import check_strategy
from ddlib.models.passes import PRECISIONS
from ddlib.pretraining.classifier import Teacher

HARD, FIXED, BATCH = LABELS = ("hard", "fixed", "batch")
"""What `Protocol.labels` may be besides None: the classes, a teacher's answers once an image, or once a mini-batch."""

ASKING = (FIXED, BATCH)
"""Those that ask a teacher."""

OFFICIAL = "official"
"""The one way of evaluating besides ours: that of DiM's published code."""

LOOKS = 5
"""How often the published code looks at the test images."""

STEP, WARMUP_COSINE = SCHEDULES = ("step", "warmup_cosine")
"""Courses of the learning rate."""

START = 1e-7
"""Share of the learning rate at which a warm-up begins."""

LATER = {"compat": None, "schedule": STEP, "ema": None, "labels": None, "teacher": {}, "epoch_images": None}
"""Settings that came when results lay in stores already: at these values they are no part of a protocol's name."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How fresh networks are trained on a synthetic set (the protocol of DC, DSA and DM, Zhao & Bilen 2021 and 2023).

    SGD on mini-batches of a fresh shuffle, for the epochs 0 to `epochs` inclusive.  After epoch `epochs // 2 + 1` the
    learning rate is divided by ten, once, and the optimiser rebuilt, which forgets its momentum.  Augmentation is
    DSA, not siamese: one family a mini-batch, own parameters for each image.  The network of the last epoch is
    tested, once, with the running statistics of its batch norms.

    With `schedule="warmup_cosine"` (GLaD, Cazenavette et al. 2023, and LD3M) there are exactly E epochs, and the rate
    changes after each: it rises linearly from 1e-7 `lr` to `lr` over the first half, and falls to 0 along a cosine
    over the second, `lr` * (1 + cos(pi (e - w) / (E - w))) / 2 in epoch e from w = E // 2 on.  With `ema` what is
    tested is an average of the weights (and of running statistics), updated once an epoch: after the n-th,
    average <- d average + (1 - d) weights with d = min(`ema`, 1 - 1 / n), hence a plain mean until 1 / (1 - `ema`)
    epochs are done.  `ema` counts epochs: 0.995 is that of 1,000 of them, and with fewer the same share of the training
    is remembered by 0.995 ** (1000 / E).

    With `compat="official"` all is as in the published code of DiM (Wang et al. 2023), which SELECTS ON TEST DATA: a
    constant learning rate, exactly E epochs, and the highest of five accuracies on the test images, one every E / 5
    epochs.  Networks are tested in training mode, on the statistics of the test batch, taken to have 128 images (the
    code's default batch); test images of MNIST and FashionMNIST are normalised by 0.5 and 0.5; labels of streams are
    drawn one by one, unless a mini-batch has as many images as there are classes.  For comparison alone.

    With `labels="hard"` networks learn the classes alone, of soft labels the most probable.  A learning rate that
    belongs to the set stays, so that nothing but the labels differs.  With "fixed" they learn what a teacher answers to
    each image, asked once, without augmentation; with "batch" what it answers to each mini-batch as they are shown it,
    augmented.  Either is cross-entropy against the softmax of the teacher's logits at temperature 1 (Hinton et al.
    2015), the soft label loss of DD-Ranking; the set's own labels are not used.  A stream's images are labelled as
    they are drawn.  Without augmentation "batch" is "fixed".

    Args:
        network: a name that `ddlib.models.build` takes.
        options: those of the network, such as width, depth and norm: text, numbers, booleans or None.
        num_networks: how many networks are trained, each from its own initial weights.
        epochs: E, at least 1.
        batch_size: images a mini-batch, at least 1; the last of an epoch is smaller where it does not go up.
        lr: learning rate, > 0, of sets that have none of their own.
        momentum: in [0, 1).
        weight_decay: >= 0.
        augmentation: DSA with the strategy of the synthetic set (True), with a strategy of its own (its name), or
            none (False).
        precision: "float32", or "bfloat16": autocast, with parameters, losses and updates in float32.
        compiled: whether training and testing go through `torch.compile`.  The first call takes up to a minute, and
            a CPU needs a C++ compiler; where there is none, torch's error is raised.
        at_once: most networks to train together; None: chosen by `ddlib.evaluation.training.at_once`.  The results
            do not depend on it, up to rounding.
        compat: None, or "official": see above.  E must be a multiple of 5 then.
        schedule: "step" or "warmup_cosine"; "step" with `compat`, which has a course of its own.
        ema: in (0, 1), or None: the weights themselves are tested.  None with `compat`.
        labels: "hard", "fixed" or "batch", see above; None: those that the set has.  None with `compat`.
        teacher: settings of `Teacher`, such as its epochs, for labels that ask one; it has the network and the options
            above where it names no network of its own.
        epoch_images: images in an epoch of a larger set, which is gone through shuffle by shuffle however many epochs
            that takes; None: all of them.  With the size of a small set, a large one is stopped after as many updates.

    Raises:
        ValueError: an argument is not as above.  Options are checked by `evaluate`, which knows the images.
    """

    network: str = "convnet"
    options: Mapping[str, Any] = field(default_factory=dict)
    num_networks: int = 5
    epochs: int = 1000
    batch_size: int = 256
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: bool | str = True
    precision: str = "float32"
    compiled: bool = False
    at_once: int | None = None
    compat: str | None = None
    schedule: str = STEP
    ema: float | None = None
    labels: str | None = None
    teacher: Mapping[str, Any] = field(default_factory=dict)
    epoch_images: int | None = None

    def __post_init__(self):
        for name in ("options", "teacher"):
            object.__setattr__(self, name, dict(getattr(self, name)))
        if not models.known(self.network):
            raise ValueError(f"unknown network {self.network!r}; known: {', '.join(models.names())}, or dotted names")
        known = {"precision": PRECISIONS, "schedule": SCHEDULES}
        for name, values in (known | {"compat": (OFFICIAL, None), "labels": (*LABELS, None)}).items():
            if getattr(self, name) not in values:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(map(str, values))}")
        for name in ("num_networks", "epochs", "batch_size", "at_once", "epoch_images"):
            value, optional = getattr(self, name), name in ("at_once", "epoch_images")
            self._require(
                name, type(value) is int and value >= 1 or value is None and optional, "an integer of at least 1"
            )
        self._require("lr", 0 < self.lr < math.inf, "a finite number > 0")
        self._require("momentum", 0 <= self.momentum < 1, "in [0, 1)")
        self._require("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number >= 0")
        self._require("ema", self.ema is None or 0 < self.ema < 1, "in (0, 1), or None")
        if self.compat:
            self._require("epochs", self.epochs % LOOKS == 0, f"a multiple of {LOOKS} with compat {OFFICIAL!r}")
            for name in ("schedule", "ema", "labels"):
                usual = LATER[name]
                self._require(name, getattr(self, name) == usual, f"{usual!r} with compat {OFFICIAL!r}")
        self._require("teacher", not self.teacher or self.labels in ASKING, f"empty, or labels {' or '.join(ASKING)}")
        settings = [of.name for of in fields(Teacher)]
        if unknown := [name for name in self.teacher if name not in settings]:
            raise ValueError(f"unknown setting {unknown[0]!r} of the teacher; known: {', '.join(settings)}")
        _ = self.taught_by  # refuses its values
        if not isinstance(self.augmentation, bool):
            check_strategy(self.augmentation, (1, 1))
        for name, value in self.options.items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(f"option {name!r} must be text, a number, a boolean or None, got {value!r}")

    def _require(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    @property
    def taught_by(self) -> Teacher | None:
        """What makes the teacher that the labels ask; None where they ask none."""
        if self.labels not in ASKING:
            return None
        same = {} if "network" in self.teacher else {"network": self.network, "options": self.options}
        return Teacher(**same | self.teacher)

    @property
    def _stepped(self) -> bool:
        return self.compat is None and self.schedule == STEP

    @property
    def rounds(self) -> int:
        """How many epochs are gone through: E; with the schedule "step" E + 1, for they are counted from 0 to E."""
        return self.epochs + self._stepped

    @property
    def drop_epoch(self) -> int | None:
        """Index of the epoch after which the learning rate drops: E // 2 + 1 with the schedule "step", else None."""
        return self.epochs // 2 + 1 if self._stepped else None

    def rate(self, epoch: int) -> float:
        """Learning rate in the epoch of this index, from 0 on."""
        if self.schedule == WARMUP_COSINE:
            half = self.epochs // 2
            if epoch < half:
                return self.lr * (START + (1 - START) * epoch / half)
            return self.lr * ((1 + math.cos(math.pi * (epoch - half) / (self.epochs - half))) / 2)
        dropped = self.drop_epoch is not None and epoch > self.drop_epoch
        return self.lr * 0.1 if dropped else self.lr

    @property
    def tested_after(self) -> tuple[int, ...]:
        """Indices of the epochs after which the networks are tested: the last one; with `compat` five of them."""
        each = self.epochs // LOOKS if self.compat else self.rounds
        return tuple(range(each - 1, self.rounds, each))

    def strategy(self, own: str) -> str:
        """The strategy of the augmentation for a set or stream whose own is `own`."""
        return {True: own, False: "none"}.get(self.augmentation, self.augmentation)

    def updates(self, num_images: int) -> int:
        """Updates of one network on a set of `num_images`: one a mini-batch."""
        return self.rounds * math.ceil(min(num_images, self.epoch_images or num_images) / self.batch_size)

    def settings(self) -> dict[str, Any]:
        """All settings as plain JSON, such as names in the store are made of; see `LATER`."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}
