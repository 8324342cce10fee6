"""A latent diffusion model (Rombach et al. 2022) as distillation sees it: encode, quantise, decode, predict the noise.

`LatentDiffusion` joins parts of diffusers; `small` makes an untrained one for images of any shape.  diffusers takes
seconds to import, and is imported only where its classes are made.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddlib.models.layers import reset

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel, UNet2DModel, VQModel

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""Noise schedule of CompVis' latent diffusion models, and of every prior trained here; 1,000 steps."""


PREDICTIONS = ("epsilon", "v_prediction")
"""What a noise predictor may give: the noise e, or v = sqrt(abar_t) e - sqrt(1 - abar_t) z_0 (Salimans & Ho 2022)."""

CONDITIONS = (
    *("class_embed_type", "num_class_embeds", "addition_embed_type"),
    *("encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim"),
)
"""Settings by which noise predictors ask for more than latents, times and class vectors."""


class ClassEmbedder(nn.Module):
    """A vector (D,) for each of K classes; in the last row that of the null class, which guidance compares with."""

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Tokens (B, 1, D) of `labels` (B,) in [0, K]."""
        return self.embedding(labels)[:, None]


@dataclass(frozen=True, eq=False)
class LatentDiffusion:
    """A latent diffusion model that is learnt through, and is not itself learnt.

    vae: the autoencoder.  Its `scaling_factor` is applied here, so that latents are of about unit variance.
    unet: the noise predictor; a UNet2DModel is unconditional.
    scheduler: of the noise; only its schedule is read.
    embedder: of the classes; None where the noise predictor is unconditional.

    Raises:
        ValueError: the parts do not fit one another; the message names both sides.
    """

    vae: "VQModel"
    unet: "UNet2DConditionModel | UNet2DModel"
    scheduler: "DDIMScheduler"
    embedder: ClassEmbedder | None = None

    def __post_init__(self):
        config, prediction = self.unet.config, self.scheduler.config.prediction_type
        if config.in_channels != (channels := self.latent_channels):
            raise ValueError(f"the noise predictor takes latents of {config.in_channels} channels, not {channels}")
        if config.out_channels != channels:
            raise ValueError(f"the noise predictor gives {config.out_channels} channels, not the {channels} of latents")
        if prediction not in PREDICTIONS:
            raise ValueError(f"the scheduler's prediction_type is {prediction!r}; known: {', '.join(PREDICTIONS)}")
        if self.vae.config.out_channels != self.channels:
            raise ValueError(f"the decoder gives {self.vae.config.out_channels} channels, and takes {self.channels}")
        predictor = type(self.unet).__name__  # importing the class takes seconds
        if (self.embedder is None) == (predictor == "UNet2DConditionModel"):
            beside = "without" if self.embedder is None else "beside"
            raise ValueError(f"{predictor} {beside} a class embedder; UNet2DConditionModel, and it alone, needs one")
        if self.embedder is not None and (dim := self.embedder.embedding.embedding_dim) != config.cross_attention_dim:
            raise ValueError(
                f"the noise predictor takes class vectors of {config.cross_attention_dim} values, not {dim}"
            )
        for name in CONDITIONS:
            if (value := config.get(name)) is not None:
                raise ValueError(f"{predictor} of {name}={value!r}; only None is known")
        if config.get("time_embedding_type") == "fourier":
            raise ValueError(f"{predictor} of time_embedding_type='fourier', as of a score SDE; known: positional")

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.vae.config.in_channels

    @property
    def latent_channels(self) -> int:
        """c of the latents."""
        return self.vae.config.vq_embed_dim or self.vae.config.latent_channels

    @property
    def factor(self) -> int:
        """f: an image of side H has a latent of side H / f."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_unit(self) -> int:
        """What the sides of a latent must be multiples of."""
        return 2 ** (len(self.unet.config.block_out_channels) - 1) if self.embedder is None else 1

    @property
    def num_classes(self) -> int | None:
        """K without the null class; None: unconditional."""
        return None if self.embedder is None else self.embedder.embedding.num_embeddings - 1

    @property
    def alphas_cumprod(self) -> Tensor:
        """abar_t of the schedule, (T,) float64 on the CPU.

        It is computed in float64 as CompVis do, from which the float32 product that diffusers keep differs by 1e-6.
        """
        config = self.scheduler.config
        power = {"linear": 1, "scaled_linear": 2}.get(config.beta_schedule)
        if power is None or config.trained_betas is not None or config.get("rescale_betas_zero_snr"):
            return self.scheduler.alphas_cumprod.double()
        first, last = config.beta_start ** (1 / power), config.beta_end ** (1 / power)
        betas = torch.linspace(first, last, config.num_train_timesteps, dtype=torch.float64) ** power
        return (1 - betas).cumprod(0)

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(c, h, w) of the latents of images of `shape` (C, H, W), which is refused where the prior cannot take it."""
        channels, *sides = shape
        if channels != self.channels:
            raise ValueError(f"images of {channels} channels; this prior is of images of {self.channels}")
        unit = self.factor * self.latent_unit
        if any(side < 1 or side % unit for side in sides):
            height, width = sides
            raise ValueError(f"images of {height}x{width} pixels; with this prior sides must be multiples of {unit}")
        return self.latent_channels, *(side // self.factor for side in sides)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, c, h, w), of about unit variance, of `images` (B, C, H, W) in [-1, 1]."""
        return self.vae.encode(images).latents * self.vae.config.scaling_factor

    def quantise(self, z: Tensor) -> Tensor:
        """q(z): the nearest code at each place of `z` (B, c, h, w), with gradient 1."""
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
        """f: what stages 1..layer of the decoder make of `z` (B, c, h, w); 0: `z` itself.  A ValueError for others."""
        return self._decode(z, 0, layer)

    def decode_from(self, f: Tensor, layer: int) -> Tensor:
        """Images of what `split_decode` gave: stages layer+1..last."""
        return self._decode(f, layer, self.stages)

    def check_layer(self, layer: int) -> None:
        """Refuse a layer that the decoder has not, with a ValueError."""
        if not 0 <= layer <= self.stages:
            raise ValueError(f"layer={layer!r}; the decoder of this prior has the layers 0 to {self.stages}")

    def _decode(self, x: Tensor, start: int, stop: int) -> Tensor:
        self.check_layer(start)
        self.check_layer(stop)
        vae, decoder = self.vae, self.vae.decoder
        for stage in range(start, stop):
            if stage == 0:
                codes = self.quantise(x) / vae.config.scaling_factor
                x = decoder.conv_in(codes if vae.post_quant_conv is None else vae.post_quant_conv(codes))
            elif stage == self.stages - 1:
                x = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
            else:
                x = [decoder.mid_block, *decoder.up_blocks][stage - 1](x)
        return x

    def embed(self, labels: Tensor) -> Tensor | None:
        """Class vectors (B, 1, D) of `labels` (B,) in [0, K); None where the model is unconditional."""
        return None if self.embedder is None else self.embedder(labels)

    def null(self, count: int) -> Tensor | None:
        """`count` times the vector of the null class, (count, 1, D); None where the model is unconditional."""
        return None if self.embedder is None else self.embedder.embedding.weight[-1].expand(count, 1, -1)

    def predict(self, z: Tensor, t: int | Tensor, c: Tensor | None) -> Tensor:
        """eps(z, t, c): the noise in `z` (B, c, h, w) at times `t`, for class vectors `c` (B, 1, D).

        t: one time in [0, T) for all, or (B,) int64 on the device of `z`.
        """
        times = torch.full((len(z),), t, device=z.device) if isinstance(t, int) else t
        out = (self.unet(z, times) if c is None else self.unet(z, times, encoder_hidden_states=c)).sample
        if self.scheduler.config.prediction_type == "epsilon":
            return out
        abar = self.alphas_cumprod.to(z)[times].view(-1, 1, 1, 1)
        return abar.sqrt() * out + (1 - abar).sqrt() * z

    def to(self, device: torch.device | str) -> "LatentDiffusion":
        """This model itself, on `device` and frozen: eval mode, no parameter requires a gradient."""
        for part in filter(None, (self.vae, self.unet, self.embedder)):
            part.to(device).eval().requires_grad_(False)
        return self


def small(
    shape: tuple[int, int, int],
    num_classes: int | None,
    *,
    width: int,
    generator: torch.Generator,
    factor: int = 2,
    levels: int = 2,
    codes: int = 256,
) -> LatentDiffusion:
    """An untrained latent diffusion model of the topology of cin256 (LDM-4-G), smaller in every size.

    A VQ autoencoder of widths width/2, width, ... with `codes` codes of dimension 3, and a noise predictor of widths
    width, 2 width, ..., `levels` of them, with attention on all but the first.  Its class vectors have `width` values;
    without classes it is a UNet2DModel.  Untrained: latents are not yet of unit variance.

    Args:
        shape: (C, H, W) of the images; `factor` divides H and W.
        num_classes: K; None: unconditional.
        width: a multiple of 16.
        generator: the only source of the weights.
        factor: f, a power of two.
        levels, codes: >= 1.

    Returns:
        The model, frozen, on the default device.
    """
    from diffusers import DDIMScheduler

    coder = tuple(width // 2 * 2**level for level in range(factor.bit_length()))
    widths, context = tuple(width * (level + 1) for level in range(levels)), None if num_classes is None else width
    with torch.device("meta"):  # the constructors draw nothing here
        vae = autoencoder(shape[0], coder, codes=codes, dim=3, layers=1, groups=8, side=shape[1])
        unet = noise_predictor(3, widths, context=context, layers=1, groups=8, side=shape[1] // factor)
        embedder = None if num_classes is None else ClassEmbedder(num_classes, width)
    for part in filter(None, (vae, unet, embedder)):
        reset(part.to_empty(device=torch.get_default_device()), generator)
    with torch.no_grad():
        vae.quantize.embedding.weight.uniform_(-1 / codes, 1 / codes, generator=generator)
    prior = LatentDiffusion(vae, unet, DDIMScheduler(**SCHEDULE), embedder).to(torch.get_default_device())
    prior.latent_shape(shape)
    return prior


def autoencoder(
    channels: int, widths: tuple[int, ...], *, codes: int, dim: int, layers: int, groups: int, side: int
) -> "VQModel":
    """A VQ autoencoder of images of `channels`, with `layers` residual blocks a level and `codes` codes (dim,)."""
    from diffusers import VQModel

    return VQModel(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=layers,
        latent_channels=dim,
        sample_size=side,
        num_vq_embeddings=codes,
        norm_num_groups=groups,
        vq_embed_dim=dim,
        scaling_factor=1.0,
    )


def noise_predictor(
    channels: int, widths: tuple[int, ...], *, context: int | None, layers: int, groups: int, side: int
) -> "UNet2DConditionModel | UNet2DModel":
    """A U-Net on latents, with attention of one head, to class vectors (context,), on all but the first level."""
    from diffusers import UNet2DConditionModel, UNet2DModel

    attention: dict[str, Any] = {"attention_head_dim": None}  # one head
    if context is not None:  # here the number of heads, whatever its name says; the default of 8 loads without a word
        attention = {"attention_head_dim": 1, "cross_attention_dim": context}
    kind = "Attn" if context is None else "CrossAttn"
    return (UNet2DModel if context is None else UNet2DConditionModel)(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=widths,
        norm_num_groups=groups,
        down_block_types=("DownBlock2D",) + (f"{kind}DownBlock2D",) * (len(widths) - 1),
        up_block_types=(f"{kind}UpBlock2D",) * (len(widths) - 1) + ("UpBlock2D",),
        **attention,
    )
