"""GLaD, distillation through a generator's inner layer (Cazenavette et al., CVPR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddlib.methods._latent import LatentMatching
from ddlib.methods._pixels import require
from ddlib.methods._rendered import LatentState
from ddlib.models.diffusion import LatentDiffusion


@dataclass(frozen=True, kw_only=True)
class GLaD(LatentMatching):
    """Learn for each image what a generator's first `layer` stages would make: S = G_L(... G_{layer+1}(f)).

    The generator is the decoder of the latent diffusion model that LD3M uses; with `layer=0` the latent itself is
    learnt, LD3M without diffusion.  f starts from the encoding of a real image of the class.

    Deviations: the decoder in place of StyleGAN-XL; images are clamped to pixels that exist.

    layer: stages of the generator that are left out, >= 0; published with StyleGAN-XL: DC 16, DM 20, MTT 12.
    """

    name: ClassVar[str] = "glad"
    version: ClassVar[int] = 1
    published_lr: ClassVar[Mapping[str, float]] = {"dc": 1.0, "dm": 10.0, "mtt": 10_000.0}
    layer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("layer", self.layer, self.layer >= 0, ">= 0")

    @property
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""
        return {"f": self.lr}

    @torch.no_grad()
    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """f (K * ipc, channels, height, width) of the layer."""
        return {"f": state.prior.split_decode(self.encoded(state), self.layer)}

    def noise_of(self, state: LatentState, generator: torch.Generator) -> None:
        """None: nothing is drawn."""

    def rendered(self, prior: LatentDiffusion, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""
        return prior.decode_from(tensors["f"], self.layer)
