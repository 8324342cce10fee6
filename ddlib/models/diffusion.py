"""A latent diffusion model (Rombach et al. 2022) as distillation sees it: encode, quantise, decode, predict the noise.

`LatentDiffusion` joins parts of diffusers; `small` makes an untrained one for images of any shape.  diffusers itself,
which takes seconds to import, is imported where its classes are made, and by none of the modules that only use them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ddlib.models.layers import reset

if TYPE_CHECKING:
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DiTTransformer2DModel,
        UNet2DConditionModel,
        UNet2DModel,
        VQModel,
    )

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

GROUPS = 8
"""Groups of every group norm in a model of `small`."""


class ClassEmbedder(nn.Module):
    """A vector for each class, and in the last row that of the null class, which guidance compares with.

    Args:
        num_classes: K; the table has K + 1 rows.
        dim: D, that of the noise predictor's context.
    """

    def __init__(self, num_classes: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Tokens (B, 1, D) of `labels` (B,) in [0, K]."""
        return self.embedding(labels)[:, None]


class LabelSlot(nn.Module):
    """DiT's class embedder, which also takes the vectors themselves, so that they can be learnt.

    Parameters keep their names: a DiT with slots is saved as one without.
    """

    def __init__(self, embedding_table: nn.Embedding):
        super().__init__()
        self.embedding_table = embedding_table

    def forward(self, labels_or_vectors: Tensor) -> Tensor:
        """Vectors (B, D) of labels (B,), or of these vectors."""
        if labels_or_vectors.is_floating_point():
            return labels_or_vectors
        return self.embedding_table(labels_or_vectors)


@dataclass(frozen=True, eq=False)
class LatentDiffusion:
    """A latent diffusion model that is learnt through, and is not itself learnt.

    vae: the autoencoder.  Its `scaling_factor` is applied here, so that latents are of about unit variance.
    unet: the noise predictor.  A DiT is changed in place: its blocks then take class vectors too.
    scheduler: of the noise; only its `alphas_cumprod` are read.
    embedder: of the classes; None with an unconditional noise predictor, and with a DiT, which has its own table.

    Raises:
        ValueError: the parts do not fit one another; the message names both sides.
    """

    vae: "VQModel | AutoencoderKL"
    unet: "UNet2DConditionModel | UNet2DModel | DiTTransformer2DModel"
    scheduler: "DDIMScheduler"
    embedder: ClassEmbedder | None = None

    def __post_init__(self):
        if self.unet.config.in_channels != self.latent_channels:
            raise ValueError(
                f"the noise predictor takes latents of {self.unet.config.in_channels} channels, the autoencoder gives "
                f"{self.latent_channels}; they must be equal"
            )
        if self.scheduler.config.prediction_type != "epsilon":
            kind = self.scheduler.config.prediction_type
            raise ValueError(f"the scheduler's prediction_type is {kind!r}; known: epsilon")
        if self._is("UNet2DConditionModel"):
            self._check_context()
        elif self.embedder is not None:
            raise ValueError(f"a class embedder beside {type(self.unet).__name__}; only UNet2DConditionModel takes one")
        if self._is("UNet2DModel") and self.unet.config.class_embed_type is not None:
            kind = self.unet.config.class_embed_type
            raise ValueError(f"UNet2DModel of class_embed_type={kind!r}; only None is known")
        if self.is_transformer:
            self._open_label_slots()

    def _is(self, predictor: str) -> bool:
        """Whether the noise predictor is of this class of diffusers, told by name: importing it would take seconds."""
        return type(self.unet).__name__ == predictor

    def _check_context(self) -> None:
        if self.embedder is None:
            raise ValueError("UNet2DConditionModel without a class embedder; it needs one")
        dim, context = self.embedder.embedding.embedding_dim, self.unet.config.cross_attention_dim
        if dim != context:
            raise ValueError(
                f"the class embedder gives vectors of {dim} values, the noise predictor takes {context}; "
                "they must be equal"
            )

    def _open_label_slots(self) -> None:
        """Let every block of a DiT take class vectors.

        One learnt vector stands for a class only where all blocks know it by the same one.
        """
        norms = [block.norm1.emb for block in self.unet.transformer_blocks]
        first, *others = (norm.class_embedder.embedding_table.weight for norm in norms)
        if not all(torch.equal(first, other) for other in others):
            raise ValueError("the blocks of this DiT have different class tables; they must be copies of one table")
        for norm in norms:
            norm.class_embedder = LabelSlot(norm.class_embedder.embedding_table)

    @property
    def is_transformer(self) -> bool:
        """Whether the noise predictor is a DiT, which takes square latents alone."""
        return self._is("DiTTransformer2DModel")

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.vae.config.in_channels

    @property
    def latent_channels(self) -> int:
        """c of the latents."""
        return self.vae.config.get("vq_embed_dim") or self.vae.config.latent_channels

    @property
    def factor(self) -> int:
        """f: an image of side H has a latent of side H / f."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_unit(self) -> int:
        """What the sides of a latent must be multiples of."""
        if self.is_transformer:
            return self.unet.config.patch_size
        return 2 ** (len(self.unet.config.block_out_channels) - 1) if self._is("UNet2DModel") else 1

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
        """The class vectors (K + 1, D) with the null class last; None where the model is unconditional."""
        if self.is_transformer:
            return self.unet.transformer_blocks[0].norm1.emb.class_embedder.embedding_table
        return None if self.embedder is None else self.embedder.embedding

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(c, h, w) of the latents of images of `shape` (C, H, W).

        Raises:
            ValueError: other channels, or sides that the autoencoder or the noise predictor cannot divide.
        """
        channels, *sides = shape
        if channels != self.channels:
            raise ValueError(f"images of {channels} channels; this prior is of images of {self.channels}")
        unit, square = self.factor * self.latent_unit, self.is_transformer
        if any(side < 1 or side % unit for side in sides) or (square and sides[0] != sides[1]):
            what = f"sides must be {'equal and ' if square else ''}multiples of {unit}"
            raise ValueError(f"images of {sides[0]}x{sides[1]} pixels; with this prior {what}")
        return self.latent_channels, *(side // self.factor for side in sides)

    def encode(self, images: Tensor) -> Tensor:
        """Latents (B, c, h, w) of `images` (B, C, H, W) in [-1, 1], before quantisation, of about unit variance.

        Of an AutoencoderKL, the mean.
        """
        encoded = self.vae.encode(images)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
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

    def predict(self, z: Tensor, t: int | Tensor, c: Tensor | None) -> Tensor:
        """eps(z, t, c): the noise in `z` (B, c, h, w) at times `t`, for class vectors `c` (B, 1, D).

        Args:
            t: one time in [0, T) for all, or (B,) int64 on the device of `z`.
        """
        times = torch.full((len(z),), t, device=z.device) if isinstance(t, int) else t
        if self._is("UNet2DConditionModel"):
            return self.unet(z, times, encoder_hidden_states=c).sample
        if self.is_transformer:
            return self.unet(z, times, class_labels=c[:, 0]).sample[:, : z.shape[1]]  # then the variances, if learnt
        return self.unet(z, times).sample

    def to(self, device: torch.device | str) -> "LatentDiffusion":
        """This model itself, on `device` and frozen: eval mode, no parameter requires a gradient."""
        for part in (self.vae, self.unet, self.embedder):
            if part is not None:
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
        shape: (C, H, W) of the images.
        num_classes: K; None: unconditional.
        width: a multiple of 16.
        generator: the only source of the weights; the global random state is neither read nor changed.
        factor: f, a power of two.
        levels: of the noise predictor, >= 1.
        codes: of the quantiser.

    Returns:
        The model, frozen, on the default device.

    Raises:
        ValueError: a size is not as above, or `factor` does not divide H and W.
    """
    if width < 16 or width % 16:
        raise ValueError(f"width={width!r}; it must be a positive multiple of 16")
    if factor < 1 or factor & (factor - 1):
        raise ValueError(f"factor={factor!r}; it must be a power of two")
    for name, value in {"levels": levels, "codes": codes, "num_classes": num_classes}.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r}; it must be >= 1")
    from diffusers import DDIMScheduler

    with torch.device("meta"):  # the constructors draw nothing here
        vae = _autoencoder(shape, width // 2, factor=factor, codes=codes)
        unet = _noise_predictor(shape[1] // factor, width, levels=levels, conditional=num_classes is not None)
        embedder = None if num_classes is None else ClassEmbedder(num_classes, width)
    for part in (vae, unet, embedder):
        if part is not None:
            reset(part.to_empty(device=torch.get_default_device()), generator)
    with torch.no_grad():
        vae.quantize.embedding.weight.uniform_(-1 / codes, 1 / codes, generator=generator)
    prior = LatentDiffusion(vae, unet, DDIMScheduler(**SCHEDULE), embedder).to(torch.get_default_device())
    prior.latent_shape(shape)
    return prior


def _autoencoder(shape: tuple[int, int, int], width: int, *, factor: int, codes: int) -> nn.Module:
    from diffusers import VQModel

    depth = factor.bit_length()
    return VQModel(
        in_channels=shape[0],
        out_channels=shape[0],
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=tuple(width * 2**level for level in range(depth)),
        latent_channels=3,
        sample_size=shape[1],
        num_vq_embeddings=codes,
        norm_num_groups=GROUPS,
        vq_embed_dim=3,
        scaling_factor=1.0,
    )


def _noise_predictor(side: int, width: int, *, levels: int, conditional: bool) -> nn.Module:
    from diffusers import UNet2DConditionModel, UNet2DModel

    lower = levels - 1
    sizes = {
        "sample_size": side,
        "in_channels": 3,
        "out_channels": 3,
        "layers_per_block": 1,
        "block_out_channels": tuple(width * (level + 1) for level in range(levels)),
        "norm_num_groups": GROUPS,
    }
    if conditional:
        return UNet2DConditionModel(
            **sizes,
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
            up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
            cross_attention_dim=width,
            attention_head_dim=1,  # the number of heads, whatever its name says
        )
    return UNet2DModel(
        **sizes,
        down_block_types=("DownBlock2D",) + ("AttnDownBlock2D",) * lower,
        up_block_types=("AttnUpBlock2D",) * lower + ("UpBlock2D",),
        attention_head_dim=None,  # one head
    )
