"""DM, distribution matching (Zhao & Bilen, WACV 2023)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddlib.methods import _features as features
from ddlib.models import Features
from ddlib.models.passes import at_least_float32


@dataclass(frozen=True, kw_only=True)
class DM(features.FeatureMatching):
    """Match class means of the embedding under random networks: L = sum_k ||mean e(B_k) - mean e(S_k)||^2.

    Defaults: CIFAR-10 at up to 50 images a class (20,000 steps, n = 256, InstanceNorm, no whitening).  The published
    step size is 10 from 100 images a class on; say so with `lr_images`.

    Deviation: the published loop takes 20,001 steps; here `iterations` is exact.
    """

    name: ClassVar[str] = "dm"
    version: ClassVar[int] = 1

    def vectors(self, features: Features) -> list[Tensor]:
        """The embedding e(x)."""
        return [at_least_float32(features.embedding)]

    def weights(self, count: int) -> list[float]:
        """One."""
        return [1.0]
