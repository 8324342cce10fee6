"""DATM, difficulty-aligned trajectory matching (Guo et al., ICLR 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ddlib.methods._trajectories import TrajectoryMatching


@dataclass(frozen=True, kw_only=True)
class DATM(TrajectoryMatching):
    """Trajectory matching in a window of the experts' epochs that fits the size of the set, with learnt soft labels.

    Early epochs teach easy patterns, which few images can hold; late ones the hard patterns that many need.  The
    window is [min_start_epoch, max_start_epoch), its upper end widening from `initial_max_start_epoch` in the course of
    `expansion_end` outer steps (sequential generation).  Images start from real ones that the experts get right,
    label logits from the experts' mean.  Experts are trained by GSAM for 100 epochs.

    Defaults: CIFAR-10 at 10 images a class, the authors' corrected configuration; `papers/datm.yaml` has all twelve
    settings.

    Deviations: the gradient is that of the published unrolled loop, by the adjoint sweep; experts come in one random
    order a sweep, not in files shuffled and experts shuffled within each; the set given is the last, never the one
    that scored best on test data.
    """

    name: ClassVar[str] = "datm"
    version: ClassVar[int] = 1
    evaluation: ClassVar[Mapping[str, Any]] = {"batch_size": 128}
    iterations: int = 10_001
    syn_steps: int = 80
    initial_max_start_epoch: int | None = 10
    expansion_end: int | None = 1000
    lr_labels: float = 2.0
    batch_syn: int | None = 100
    threshold: float | None = 1.0
    init: str = "correct"
    labels: str = "learned"
    expert_training: int = 100
    optimizer: str = "gsam"
