"""DC, dataset condensation with gradient matching (Zhao et al., ICLR 2021)."""

from dataclasses import dataclass
from typing import ClassVar

from ddlib.methods import _gradients as gradients


@dataclass(frozen=True, kw_only=True)
class DC(gradients.GradientMatching):
    """Gradient matching from Gaussian noise, without augmentation while matching.

    Defaults: 1,000 restarts, n = 256, lr_images 0.1, T and zeta by images per class.

    Deviation: evaluated under the one protocol of this package (DSA, 1,000 epochs), not under DC's own (300 epochs,
    none); the published code's restarts end after the T-th pixel step, as here.
    """

    name: ClassVar[str] = "dc"
    version: ClassVar[int] = 1
    init: str = "noise"
