"""GLaD, distillation through a generator's inner layer (Cazenavette et al., CVPR 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.methods import _selection as selection
from ddlib.methods._latent import LatentMatching
from ddlib.methods._pixels import require
from ddlib.methods._rendered import LatentState
from ddlib.methods.settings import fill
from ddlib.models.latent import LatentDiffusion, fingerprint
from ddlib.models.latent.stylegan import Checkout, StyleGAN
from ddlib.pretraining.prior import Prior, class_ids


@dataclass(frozen=True, kw_only=True)
class GLaD(LatentMatching):
    """Learn for each image what a generator's first `layer` stages would make: S = G_L(... G_{layer+1}(f)).

    The generator is the decoder of the latent diffusion model that LD3M uses; with `layer=0` the latent itself is
    learnt, LD3M without diffusion.  f starts from the encoding of a real image of the class.

    With `prior={"stylegan": checkout, "pickle": file, "trusted": True}` (`ddlib.models.latent.stylegan.Checkout`) it is
    the published one, StyleGAN-XL: the styles w are learnt beside f, and both start from an image that it generates.

    Deviations: the decoder in place of StyleGAN-XL, unless that is asked for; images are clamped to pixels that exist.

    layer: stages of the generator that are left out, >= 0; published with StyleGAN-XL: DC 16, DM 20, MTT 12.
    """

    name: ClassVar[str] = "glad"
    version: ClassVar[int] = 1
    published_lr: ClassVar[Mapping[str, float]] = {"dc": 1.0, "dm": 10.0, "mtt": 10_000.0}
    layer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require("init", self.init, self.stylegan is None or self.init == "encoded", "'encoded' with a StyleGAN")
        require("layer", self.layer, self.layer >= 0, ">= 0")

    @property
    def stylegan(self) -> Checkout | None:
        """The StyleGAN-XL that is asked for."""
        asked = isinstance(self.prior, Mapping) and "stylegan" in self.prior
        return fill(Checkout, "a StyleGAN prior", self.prior) if asked else None

    @property
    def trained(self) -> Prior | None:
        """The prior that is trained; None: it is one that is there."""
        return None if self.stylegan else super().trained

    def opened(self) -> LatentDiffusion | StyleGAN:
        """The prior that is there."""
        return self.stylegan.load() if self.stylegan else super().opened()

    @property
    def found(self) -> str | None:
        """The content of a prior that is there."""
        return super().found if self.stylegan is None else fingerprint(self.stylegan.pickle)

    @property
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""
        return {"f": self.lr} | ({"w": self.stylegan.lr_w or self.lr / 1000} if self.stylegan else {})

    @torch.no_grad()
    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """f (K * ipc, channels, height, width) of the layer, and of a StyleGAN w (K * ipc, num_ws, w_dim)."""
        if self.stylegan is None:
            return {"f": state.prior.split_decode(self.encoded(state), self.layer)}
        ids, labels = class_ids(state.prior, state.train), selection.class_major_labels(state.train, self.ipc)
        told, stream = None if ids is None else ids[labels], seeding.generator(state.seed, "styles")
        w = state.prior.styles(told, len(labels), stream, average=self.stylegan.average_w)
        pieces = [w[rows] for rows in self._rows(state)]
        return {"f": torch.cat([state.prior.split_decode(piece, self.layer) for piece in pieces]), "w": w}

    def noise_of(self, state: LatentState, generator: torch.Generator) -> None:
        """None: nothing is drawn."""

    def rendered(
        self, prior: LatentDiffusion | StyleGAN, tensors: Mapping[str, Tensor], noise: Tensor | None
    ) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""
        if "w" in tensors:
            return prior.decode_from(tensors["f"], self.layer, tensors["w"])
        return prior.decode_from(tensors["f"], self.layer)
