"""Whole: the training set as it is, which bounds what distillation can reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet


@dataclass
class Taken:
    """State: the training set, and whether it was taken.

    step: 0 or 1.
    """

    train: ImageSet
    seed: int
    step: int

    def state_dict(self) -> dict[str, Tensor]:
        """The step."""
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = int(saved["step"])


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Every real training image with its label, whatever the number of images per class.

    All seeds take the same set; they differ in the networks that are trained on it.
    """

    name: ClassVar[str] = "whole"
    version: ClassVar[int] = 1
    whitened: ClassVar[tuple[str, ...]] = ()
    iterations: ClassVar[int] = 1

    @property
    def needs(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Taken:
        """Nothing is taken yet."""
        return Taken(train, seed, 0)

    def step(self, state: Taken) -> dict[str, float]:
        """Take the set."""
        state.step += 1
        return {}

    def finish(self, state: Taken) -> SyntheticSet:
        """All images with their labels, in the order of the training set."""
        train = state.train
        return SyntheticSet(
            images=train.take(torch.arange(len(train), device=train.device)),
            labels=train.labels,
            class_names=train.class_names,
            space=train.space,
            strategy=augmentation.strategy_for(train.name),
            provenance={"method": self.name, "seed": state.seed, "dataset": train.name},
        )
