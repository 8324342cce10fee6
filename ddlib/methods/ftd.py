"""FTD, flat trajectory distillation (Du et al., CVPR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _matching as matching
from ddlib.methods._trajectories import TrajectoryMatching


@dataclass(frozen=True, kw_only=True)
class FTD(TrajectoryMatching):
    """MTT after experts trained by GSAM, with a moving average of the images.

    Defaults: CIFAR-10 at 10 images a class (FTD, Table 7); `papers/datm.yaml` has the other settings.

    average: decay of the moving average of the images, in [0, 1), which is what the method gives; None: the images.

    Deviation: the published code evaluates the average with the very network that was trained on the images before;
    here fresh networks are.
    """

    name: ClassVar[str] = "ftd"
    version: ClassVar[int] = 1
    lr_student: float = 0.001
    optimizer: str = "gsam"
    average: float | None = 0.9995

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("average", self.average is None or 0 <= self.average < 1, "in [0, 1), or None")

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> matching.MatchingState:
        """As trajectory matching, with the average at the initial images."""
        state = super().start(train, prerequisites, seed)
        state.average = None if self.average is None else state.images.clone()
        return state

    def step(self, state: matching.MatchingState) -> dict[str, float | Tensor]:
        """One outer step, after which the images enter the average with weight 1 - `average`."""
        metrics = super().step(state)
        if state.average is not None:
            state.average.lerp_(state.images, 1 - self.average)
        return metrics

    def finish(self, state: matching.MatchingState) -> SyntheticSet:
        """The average of the images, where there is one, with labels and step size."""
        return matching.as_synthetic(self, state, state.images if state.average is None else state.average)
