"""What one evaluation does: the protocol of dataset condensation, as settings."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ddlib import models
from ddlib.synthetic.images import check_strategy

PRECISIONS = ("float32", "bfloat16")
"""What convolutions and linear layers may compute in; all else is float32."""

OFFICIAL = "official"
"""The one way of evaluating besides ours: that of DiM's published code."""

LOOKS = 5
"""How often the published code looks at the test images."""

LATER = {"compat": None}
"""Settings that came when results lay in stores already: at these values they are no part of a protocol's name."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How fresh networks are trained on a synthetic set (the protocol of DC, DSA and DM, Zhao & Bilen 2021 and 2023).

    SGD on mini-batches of a fresh shuffle, for the epochs 0 to `epochs` inclusive.  After epoch `epochs // 2 + 1` the
    learning rate is divided by ten, once, and the optimiser rebuilt, which forgets its momentum.  Augmentation is
    DSA, not siamese: one family a mini-batch, own parameters for each image.  The network of the last epoch is
    tested, once, with the running statistics of its batch norms.

    With `compat="official"` all is as in the published code of DiM (Wang et al. 2023), which SELECTS ON TEST DATA: a
    constant learning rate, exactly E epochs, and the highest of five accuracies on the test images, one every E / 5
    epochs.  Networks are tested in training mode, on the statistics of the test batch, taken to have 128 images (the
    code's default batch); test images of MNIST and FashionMNIST are normalised by 0.5 and 0.5; labels of streams are
    drawn one by one, unless a mini-batch has as many images as there are classes.  For comparison alone.

    Args:
        network: a name of `ddlib.models.names()`.
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
        at_once: most networks to train together; None: chosen by `ddlib.evaluate.training.at_once`.  The results
            do not depend on it, up to rounding.
        compat: None, or "official": see above.  E must be a multiple of 5 then.

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

    def __post_init__(self):
        if self.network not in models.names():
            raise ValueError(f"unknown network {self.network!r}; known: {', '.join(models.names())}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        for name in ("num_networks", "epochs", "batch_size", *(["at_once"] if self.at_once is not None else [])):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a finite number > 0, got {self.lr!r}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {self.momentum!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a finite number >= 0, got {self.weight_decay!r}")
        if self.compat not in (None, OFFICIAL):
            raise ValueError(f"unknown compat {self.compat!r}; known: {OFFICIAL}, or None")
        if self.compat and self.epochs % LOOKS:
            raise ValueError(f"epochs must be a multiple of {LOOKS} with compat {OFFICIAL!r}, got {self.epochs}")
        if not isinstance(self.augmentation, bool):
            check_strategy(self.augmentation, (1, 1))
        object.__setattr__(self, "options", dict(self.options))
        for name, value in self.options.items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(f"option {name!r} must be text, a number, a boolean or None, got {value!r}")

    @property
    def rounds(self) -> int:
        """How many epochs are gone through: E + 1, for they are counted from 0 to E; E with `compat`."""
        return self.epochs + (self.compat is None)

    @property
    def drop_epoch(self) -> int | None:
        """Index of the epoch after which the learning rate drops: E // 2 + 1; None with `compat`."""
        return None if self.compat else self.epochs // 2 + 1

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
        return self.rounds * math.ceil(num_images / self.batch_size)

    def settings(self) -> dict[str, Any]:
        """All settings as plain JSON, such as names in the store are made of; see `LATER`."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}
