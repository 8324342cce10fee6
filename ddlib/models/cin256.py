"""From CompVis' checkpoint of cin256 (LDM-4-G, Rombach et al. 2022) to a folder that `load_prior` reads.

The names are translated by two functions of diffusers' single-file loader that it does not document; the test of this
module, which compares every name and shape on a small copy of the topology, guards against their change.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddlib.models.diffusion import SCHEDULE, ClassEmbedder, LatentDiffusion
from ddlib.models.priors import check_new, save_prior

NETWORK = "model.diffusion_model."
AUTOENCODER = "first_stage_model."
CLASSES = "cond_stage_model.embedding.weight"
CODES = f"{AUTOENCODER}quantize.embedding.weight"
WIDTH = f"{NETWORK}input_blocks.0.0.weight"
AUTOENCODER_WIDTH = f"{AUTOENCODER}encoder.conv_in.weight"


def convert(checkpoint: str | Path, folder: str | Path, *, trusted: bool = False) -> LatentDiffusion:
    """Convert a checkpoint of cin256 to a new folder, whole or not at all, and give what was written.

    Args:
        checkpoint: a file of `torch.save`, with or without a Lightning trainer's entries around the weights.
        folder: of the prior; nothing may be there.
        trusted: load a checkpoint that holds more than tensors, which runs code of whoever made it.

    Raises:
        FileExistsError: there is something at `folder`.
        OSError: there is no such checkpoint, or `folder` cannot be written.
        ValueError: the checkpoint is damaged, holds more than tensors and is not trusted, or is of another model.
    """
    check_new(Path(folder))
    prior = from_compvis(_weights(Path(checkpoint), trusted=trusted))
    save_prior(prior, folder)
    return prior


def _weights(checkpoint: Path, *, trusted: bool) -> Mapping[str, Tensor]:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint {str(checkpoint)!r}")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=not trusted)
    except (pickle.UnpicklingError, EOFError, ImportError, RuntimeError) as error:
        advice = "" if trusted else "; `--yes` (trusted=True) loads more than tensors, and runs code of whoever made it"
        raise ValueError(f"{checkpoint} is damaged, or holds more than tensors ({error}){advice}") from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{checkpoint} holds no weights by name")
    return weights


def from_compvis(weights: Mapping[str, Tensor]) -> LatentDiffusion:
    """The latent diffusion model whose weights bear CompVis' names, frozen, in float32 on the CPU.

    Args:
        weights: of a model of the topology of cin256: noise predictor of widths w, 2w, 3w, 5w, two residual blocks a
            level, attention of one head on all but the first, VQ autoencoder of widths v, 2v, 4v and f = 4, and class
            vectors, the null class last.  Sizes are read from them.  Averaged weights (`model_ema`) are not used, as
            the published configuration has none.

    Raises:
        ValueError: another topology; the message names a weight that is missing, left over or of another shape.
    """
    for name in (WIDTH, AUTOENCODER_WIDTH, CODES, CLASSES):
        if name not in weights:
            raise ValueError(f"this is no class-conditional latent diffusion model with a VQ autoencoder: no {name}")
    from diffusers import DDIMScheduler
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    weights = {name: value.float() for name, value in weights.items() if value.is_floating_point()}
    with torch.device("meta"):
        vae, unet = _autoencoder(weights), _noise_predictor(weights)
        embedder = ClassEmbedder(len(weights[CLASSES]) - 1, weights[CLASSES].shape[1])
    inner = {name: value for name, value in weights.items() if name.startswith(AUTOENCODER)}
    _fill(vae, convert_ldm_vae_checkpoint(inner, vae.config) | {"quantize.embedding.weight": weights[CODES]})
    _fill(unet, convert_ldm_unet_checkpoint(weights, unet.config))
    _fill(embedder, {"embedding.weight": weights[CLASSES]})
    return LatentDiffusion(vae, unet, DDIMScheduler(**SCHEDULE), embedder).to("cpu")


def _fill(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    try:
        network.load_state_dict({name: value.contiguous() for name, value in weights.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights are not those of cin256's topology: {error}") from error


def _autoencoder(weights: Mapping[str, Tensor]) -> Any:
    from diffusers import VQModel

    width, channels = weights[AUTOENCODER_WIDTH].shape[:2]
    codes, dim = weights[CODES].shape
    return VQModel(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(width, 2 * width, 4 * width),
        layers_per_block=2,
        latent_channels=dim,
        sample_size=256,
        num_vq_embeddings=codes,
        vq_embed_dim=dim,
        scaling_factor=1.0,
    )


def _noise_predictor(weights: Mapping[str, Tensor]) -> Any:
    from diffusers import UNet2DConditionModel

    width, channels = weights[WIDTH].shape[:2]
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=(width, 2 * width, 3 * width, 5 * width),
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
        cross_attention_dim=weights[CLASSES].shape[1],
        attention_head_dim=1,  # the number of heads, whatever its name says; the default of 8 loads without a word
    )
