"""A latent diffusion model as a folder: one sub-folder a part, each as diffusers' `save_pretrained` writes it."""

import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import torch

from ddlib.models.latent.diffusion import LatentDiffusion


def save_prior(prior: LatentDiffusion, folder: str | Path) -> None:
    """Write `prior` as a new folder, whole or not at all: vae/, unet/ or transformer/, scheduler/, class_embedder/.

    Raises:
        FileExistsError: there is something at `folder` already.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; name a new folder")
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for name, model in _named(prior).items():
            model.save_pretrained(part / name)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _named(prior: LatentDiffusion) -> dict[str, Any]:
    """Sub-folder -> part."""
    transformer = hasattr(prior.unet, "transformer_blocks")
    found = {"vae": prior.vae, "transformer" if transformer else "unet": prior.unet, "scheduler": prior.scheduler}
    return found if prior.embedder is None else found | {"class_embedder": prior.embedder}


def load_prior(source: str | Path, *, device: torch.device | str = "cpu") -> LatentDiffusion:
    """A latent diffusion model from a folder, or from the hub."""
    from diffusers import DDIMScheduler

    from ddlib.models.latent import parts

    folder = Path(source)
    unet = "transformer" if (folder / "transformer").is_dir() else "unet"
    vae = _load(folder / "vae", parts.AUTOENCODERS)
    net = _load(folder / unet, parts.UNETS if unet == "unet" else parts.TRANSFORMERS)
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    embedder = None
    if isinstance(net, parts.UNet2DConditionModel):
        embedder = _load(folder / "class_embedder", {"ClassEmbedder": parts.ClassEmbedder})
    return LatentDiffusion(vae, net, scheduler, embedder).to(device)


def _load(folder: Path, classes: dict[str, type]) -> Any:
    name = json.loads((folder / "config.json").read_text())["_class_name"]
    with torch.random.fork_rng(devices=()):
        return classes[name].from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=False)
