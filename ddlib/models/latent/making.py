"""An untrained latent diffusion model for images of any shape, from a handful of sizes."""

import torch
from torch import nn

from ddlib.models.initialisation import reset
from ddlib.models.latent.diffusion import LatentDiffusion

GROUPS = 8
"""Of every group norm."""


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
    from ddlib.models.latent import parts

    with torch.device("meta"):  # the constructors draw nothing here
        vae = _autoencoder(shape, width // 2, factor=factor, codes=codes)
        unet = _noise_predictor(shape[1] // factor, width, levels=levels, conditional=num_classes is not None)
        embedder = None if num_classes is None else parts.ClassEmbedder(num_classes, width)
    for part in (vae, unet, embedder):
        if part is not None:
            reset(part.to_empty(device=torch.get_default_device()), generator)
    with torch.no_grad():
        vae.quantize.embedding.weight.uniform_(-1 / codes, 1 / codes, generator=generator)
    prior = LatentDiffusion(vae, unet, parts.schedule(), embedder).to(torch.get_default_device())
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
