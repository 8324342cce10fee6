"""MTT, matching training trajectories (Cazenavette et al., CVPR 2022)."""

from dataclasses import dataclass
from typing import ClassVar

from ddlib.methods._trajectories import TrajectoryMatching


@dataclass(frozen=True, kw_only=True)
class MTT(TrajectoryMatching):
    """Trajectory matching with hard labels, from random real images, after experts trained by SGD for 50 epochs.

    Defaults: CIFAR-10 at 10 images a class, by the authors' commands as DC-Bench gives them; `papers/datm.yaml`
    has the other settings.

    Deviations: the gradient is that of the published unrolled loop, by the adjoint sweep; the published code whitens
    some settings only, here the data set decides unless a row says otherwise.
    """

    name: ClassVar[str] = "mtt"
    version: ClassVar[int] = 1
    lr_student: float = 0.001
