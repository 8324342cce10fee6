"""The parts of a latent diffusion model: which of diffusers' classes can be one, and what diffusers does not have.

Imports diffusers, which takes seconds: import this module inside functions alone.
"""

import torch
from diffusers import (
    AutoencoderKL,
    ConfigMixin,
    DDIMScheduler,
    DiTTransformer2DModel,
    ModelMixin,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

AUTOENCODERS = {"VQModel": VQModel, "AutoencoderKL": AutoencoderKL}
"""Class name in a configuration -> class."""

PREDICTORS = {
    "UNet2DConditionModel": UNet2DConditionModel,
    "UNet2DModel": UNet2DModel,
    "DiTTransformer2DModel": DiTTransformer2DModel,
    "Transformer2DModel": DiTTransformer2DModel,
}
"""Class name in a configuration -> class; DiT's former name stands in the published configurations."""

SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
"""Of CompVis' latent diffusion models, and of every prior trained here; 1,000 steps."""


def schedule() -> DDIMScheduler:
    """A scheduler of `SCHEDULE`."""
    return DDIMScheduler(**SCHEDULE)


class ClassEmbedder(ModelMixin, ConfigMixin):
    """A vector for each class, and in the last row that of the null class, which guidance compares with.

    Args:
        num_classes: K; the table has K + 1 rows.
        dim: D, that of the noise predictor's context.
    """

    @register_to_config
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

    def forward(self, given: Tensor) -> Tensor:
        """Vectors (B, D) of labels (B,), or of these vectors."""
        return given if given.is_floating_point() else self.embedding_table(given)


def open_slots(unet: nn.Module) -> None:
    """Let every block of a DiT take class vectors; others are left as they are."""
    if isinstance(unet, DiTTransformer2DModel):
        for block in unet.transformer_blocks:
            block.norm1.emb.class_embedder = LabelSlot(block.norm1.emb.class_embedder.embedding_table)


def class_table(unet: nn.Module, embedder: ClassEmbedder | None) -> nn.Embedding | None:
    """The class vectors (K + 1, D) with the null class last; None where the model is unconditional."""
    if isinstance(unet, DiTTransformer2DModel):
        return unet.transformer_blocks[0].norm1.emb.class_embedder.embedding_table
    return None if embedder is None else embedder.embedding


def predict(unet: nn.Module, z: Tensor, times: Tensor, c: Tensor | None) -> Tensor:
    """The noise in `z` (B, c, h, w) at `times` (B,), for class vectors `c` (B, 1, D)."""
    if isinstance(unet, UNet2DConditionModel):
        return unet(z, times, encoder_hidden_states=c).sample
    if isinstance(unet, DiTTransformer2DModel):
        return unet(z, times, class_labels=c[:, 0]).sample[:, : z.shape[1]]  # then come the variances, if learnt
    return unet(z, times).sample


def latent_channels(vae: nn.Module) -> int:
    """Channels of the latents of `vae`."""
    return vae.config.get("vq_embed_dim") or vae.config.latent_channels


def unit(unet: nn.Module) -> int:
    """What the sides of a latent must be multiples of."""
    if isinstance(unet, DiTTransformer2DModel):
        return unet.config.patch_size
    return 2 ** (len(unet.config.block_out_channels) - 1) if isinstance(unet, UNet2DModel) else 1


def square(unet: nn.Module) -> bool:
    """Whether the sides of a latent must be equal."""
    return isinstance(unet, DiTTransformer2DModel)


def check(vae: nn.Module, unet: nn.Module, scheduler: DDIMScheduler, embedder: ClassEmbedder | None) -> None:
    """That the parts fit one another.

    Raises:
        ValueError: they do not; the message names both sides.
    """
    if unet.config.in_channels != latent_channels(vae):
        raise ValueError(
            f"the noise predictor takes latents of {unet.config.in_channels} channels, the autoencoder gives "
            f"{latent_channels(vae)}; they must be equal"
        )
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(f"the scheduler's prediction_type is {scheduler.config.prediction_type!r}; known: epsilon")
    if isinstance(unet, UNet2DConditionModel):
        _check_context(unet, embedder)
    elif embedder is not None:
        raise ValueError(f"a class embedder beside {type(unet).__name__}; only UNet2DConditionModel takes one")
    if isinstance(unet, UNet2DModel) and unet.config.class_embed_type is not None:
        raise ValueError(f"UNet2DModel of class_embed_type={unet.config.class_embed_type!r}; only None is known")
    if isinstance(unet, DiTTransformer2DModel):
        _check_tables(unet)


def _check_context(unet: UNet2DConditionModel, embedder: ClassEmbedder | None) -> None:
    if embedder is None:
        raise ValueError("UNet2DConditionModel without a class embedder; it needs one")
    if embedder.config.dim != unet.config.cross_attention_dim:
        raise ValueError(
            f"the class embedder gives vectors of {embedder.config.dim} values, the noise predictor takes "
            f"{unet.config.cross_attention_dim}; they must be equal"
        )


def _check_tables(unet: DiTTransformer2DModel) -> None:
    """One learnt vector stands for a class only where all blocks know it by the same one."""
    first, *others = (block.norm1.emb.class_embedder.embedding_table.weight for block in unet.transformer_blocks)
    if not all(torch.equal(first, other) for other in others):
        raise ValueError("the blocks of this DiT have different class tables; they must be copies of one table")
