"""A latent diffusion model as distillation sees it: encode, quantise, decode, predict the noise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DiTTransformer2DModel,
        UNet2DConditionModel,
        UNet2DModel,
        VQModel,
    )

    from ddlib.models.latent.parts import ClassEmbedder


@dataclass(frozen=True, eq=False)
class LatentDiffusion:
    """A latent diffusion model (Rombach et al. 2022) that is learnt through, and is not itself learnt.

    vae: the autoencoder.  Its `scaling_factor` is applied here, so that latents are of about unit variance.
    unet: the noise predictor.  A DiT is changed in place: its blocks then take class vectors too.
    scheduler: of the noise; only its `alphas_cumprod` are read.
    embedder: of the classes; None with an unconditional noise predictor, and with a DiT, which has its own table.

    Raises:
        ValueError: the parts do not fit one another.
    """

    vae: "VQModel | AutoencoderKL"
    unet: "UNet2DConditionModel | UNet2DModel | DiTTransformer2DModel"
    scheduler: "DDIMScheduler"
    embedder: "ClassEmbedder | None" = None

    def __post_init__(self):
        from ddlib.models.latent import parts

        parts.check(self.vae, self.unet, self.scheduler, self.embedder)
        parts.open_slots(self.unet)

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.vae.config.in_channels

    @property
    def factor(self) -> int:
        """f: an image of side H has a latent of side H / f."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def num_classes(self) -> int | None:
        """K without the null class; None: unconditional."""
        return None if self._table is None else self._table.num_embeddings - 1

    @property
    def alphas_cumprod(self) -> Tensor:
        """abar_t of the schedule, (T,) float64 on the CPU."""
        return self.scheduler.alphas_cumprod.double()

    @property
    def _table(self) -> nn.Embedding | None:
        from ddlib.models.latent import parts

        return parts.class_table(self.unet, self.embedder)

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(c, h, w) of the latents of images of `shape` (C, H, W).

        Raises:
            ValueError: other channels, or sides that the autoencoder or the noise predictor cannot divide.
        """
        from ddlib.models.latent import parts

        channels, *sides = shape
        if channels != self.channels:
            raise ValueError(f"images of {channels} channels; this prior is of images of {self.channels}")
        unit, square = self.factor * parts.unit(self.unet), parts.square(self.unet)
        if any(side < 1 or side % unit for side in sides) or (square and sides[0] != sides[1]):
            what = f"sides must be {'equal and ' if square else ''}multiples of {unit}"
            raise ValueError(f"images of {sides[0]}x{sides[1]} pixels; with this prior {what}")
        return parts.latent_channels(self.vae), *(side // self.factor for side in sides)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, c, h, w) of `images` (B, C, H, W) in [-1, 1], before quantisation, of about unit variance.

        Of an AutoencoderKL, the mean.
        """
        found = self.vae.encode(images)
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    def quantise(self, z: Tensor) -> Tensor:
        """q(z): the nearest code at each place of `z` (B, c, h, w), with the gradient of the identity.

        With an AutoencoderKL, which has no codes, `z` itself.
        """
        if not hasattr(self.vae, "quantize"):
            return z
        scale = self.vae.config.scaling_factor
        return self.vae.quantize(z / scale)[0] * scale

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W), about [-1, 1] and not clamped, of `z` (B, c, h, w), which is quantised first."""
        return self.decode_from(z, 0)

    @property
    def stages(self) -> int:
        """Stages of the decoder: its first convolution, its middle, its up blocks, and the image."""
        return 3 + len(self.vae.decoder.up_blocks)

    def split_decode(self, z: Tensor, layer: int) -> Tensor:
        """f: what stages 1..layer of the decoder make of `z` (B, c, h, w); layer 0: `z` itself.

        Raises:
            ValueError: no such layer.
        """
        return self._through(z, range(self._known(layer)))

    def decode_from(self, f: Tensor, layer: int) -> Tensor:
        """Images of what `split_decode` gave: stages layer+1..last.

        Raises:
            ValueError: no such layer.
        """
        return self._through(f, range(self._known(layer), self.stages))

    def _known(self, layer: int) -> int:
        if not 0 <= layer <= self.stages:
            raise ValueError(f"layer={layer!r}; the decoder of this prior has the layers 0 to {self.stages}")
        return layer

    def _through(self, x: Tensor, stages: range) -> Tensor:
        decoder = self.vae.decoder
        blocks = [self._first, decoder.mid_block, *decoder.up_blocks, self._last]
        for stage in stages:
            x = blocks[stage](x)
        return x

    def _first(self, z: Tensor) -> Tensor:
        codes = self.quantise(z) / self.vae.config.scaling_factor
        inner = self.vae.post_quant_conv
        return self.vae.decoder.conv_in(codes if inner is None else inner(codes))

    def _last(self, x: Tensor) -> Tensor:
        decoder = self.vae.decoder
        return decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))

    def embed(self, labels: Tensor) -> Tensor | None:
        """Class vectors (B, 1, D) of `labels` (B,) in [0, K); None where the model is unconditional."""
        return None if self._table is None else self._table(labels)[:, None]

    def null(self, count: int) -> Tensor | None:
        """`count` times the vector of the null class, (count, 1, D); None where the model is unconditional."""
        return None if self._table is None else self._table.weight[-1].expand(count, 1, -1)

    def predict(self, z: Tensor, t: int, c: Tensor | None) -> Tensor:
        """eps(z, t, c): the noise in `z` (B, c, h, w) at time `t` in [0, T), for class vectors `c` (B, 1, D)."""
        from ddlib.models.latent import parts

        return parts.predict(self.unet, z, torch.full((len(z),), t, device=z.device), c)

    def to(self, device: torch.device | str) -> "LatentDiffusion":
        """This model itself, on `device` and frozen: eval mode, no parameter requires a gradient."""
        for part in (self.vae, self.unet, self.embedder):
            if part is not None:
                part.to(device).eval().requires_grad_(False)
        return self
