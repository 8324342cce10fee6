"""TESLA (Cui et al., ICML 2023): trajectory matching at constant memory by an approximate gradient."""

from dataclasses import dataclass
from typing import ClassVar

from ddlib.methods._trajectories import TrajectoryMatching


@dataclass(frozen=True, kw_only=True)
class TESLA(TrajectoryMatching):
    """MTT with TESLA's gradient, which holds the students' parameters fixed within each inner step.

    Defaults: CIFAR-10 at 1 image a class (the authors' README); `papers/datm.yaml` has the other setting.

    Deviations: the gradient is not that of the loss (`unrolling.tesla`), though its abstract says so; the labels of
    its ImageNet-1K run, which follow the target expert at each step, are not here.
    """

    name: ClassVar[str] = "tesla"
    version: ClassVar[int] = 1
    iterations: int = 10_001
    syn_steps: int = 50
    max_start_epoch: int = 5
    lr_images: float = 1000.0
    lr_lr: float = 1e-7
    gradient: str = "tesla"
