"""MTT, matching training trajectories (Cazenavette et al., CVPR 2022)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ddlib.methods._published import published
from ddlib.methods._trajectories import TrajectoryMatching


@dataclass(frozen=True, kw_only=True)
class MTT(TrajectoryMatching):
    """Trajectory matching with hard labels, from random real images, after experts trained by SGD for 50 epochs.

    Defaults: CIFAR-10 at 10 images a class, by the authors' commands as DC-Bench gives them; `published` has the
    other settings.

    Deviations: the gradient is that of the published unrolled loop, by the adjoint sweep; the published code whitens
    some settings only, here the data set decides unless a row says otherwise.
    """

    name: ClassVar[str] = "mtt"
    version: ClassVar[int] = 1
    lr_student: float = 0.001

    @classmethod
    def published(cls, dataset: str, ipc: int) -> Mapping[str, Any]:
        """The authors' settings for a data set and IPC, where they differ from the defaults; empty: none are known."""
        return published("mtt", dataset, ipc)
