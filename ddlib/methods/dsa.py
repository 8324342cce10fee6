"""DSA, gradient matching under differentiable Siamese augmentation (Zhao & Bilen, ICML 2021)."""

from dataclasses import dataclass
from typing import ClassVar

from ddlib.methods import _gradients as gradients


@dataclass(frozen=True, kw_only=True)
class DSA(gradients.GradientMatching):
    """Gradient matching from real images, with one DSA draw a class for real and synthetic images alike.

    Defaults: as DC, but real initial images, and DSA in matching, in the network's training and in evaluation.
    """

    name: ClassVar[str] = "dsa"
    version: ClassVar[int] = 1
    augmented: ClassVar[bool] = True
