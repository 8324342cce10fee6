"""A latent diffusion model as a folder: one sub-folder a part, each as diffusers' `save_pretrained` writes it.

`save_prior` writes such a folder; `load_prior` reads one, one that `ddlib prior convert` made, or a model of the hub.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from ddlib.models.diffusion import ClassEmbedder, LatentDiffusion

PARTS = {
    "autoencoder": ("vae", "vqvae"),
    "noise predictor": ("unet", "transformer"),
    "scheduler": ("scheduler",),
    "class embedder": ("class_embedder",),
}
"""Part -> the sub-folders that may hold it; a class embedder goes with a UNet2DConditionModel alone."""

AUTOENCODERS = ("VQModel", "AutoencoderKL")
PREDICTORS = ("UNet2DConditionModel", "UNet2DModel", "DiTTransformer2DModel")
FORMER_NAMES = {"Transformer2DModel": "DiTTransformer2DModel"}
"""Names of diffusers' classes that stand in published configurations -> what they are called now."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = ("config.json", "scheduler_config.json", WEIGHTS, f"{WEIGHTS}.index.json", WEIGHTS.replace(".", "-*."))
"""What is got of a hub's model: configurations, and weights in one file or in several."""


def save_prior(prior: LatentDiffusion, folder: str | Path) -> None:
    """Write `prior` as a new folder, whole or not at all: vae/, unet/ or transformer/, scheduler/, class_embedder/.

    Raises:
        OSError: it cannot be written; FileExistsError: there is something at `folder` already.
    """
    folder = Path(folder)
    check_new(folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        prior.vae.save_pretrained(unfinished / "vae")
        prior.unet.save_pretrained(unfinished / ("transformer" if prior.is_transformer else "unet"))
        prior.scheduler.save_pretrained(unfinished / "scheduler")
        if prior.embedder is not None:
            inner, (rows, dim) = unfinished / "class_embedder", prior.embedder.embedding.weight.shape
            inner.mkdir()
            config = {"_class_name": "ClassEmbedder", "dim": dim, "num_classes": rows - 1}
            (inner / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            safetensors.torch.save_file(prior.embedder.state_dict(), inner / WEIGHTS, {"format": "pt"})
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Refuse a folder for a new prior where something is already, with a FileExistsError."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a new folder for the prior")


def load_prior(source: str | Path, *, device: torch.device | str = "cpu") -> LatentDiffusion:
    """A latent diffusion model, frozen, from a folder or from the hub; the global random state is left alone.

    A folder that exists is never looked for on the hub.  Of the hub, configurations and safetensors alone are got, into
    its cache, from which they are read without a network too; `HF_HUB_OFFLINE=1` asks for the cache alone.

    Args:
        source: a folder of `save_prior`, of `ddlib prior convert`, or laid out alike: vae/ (or vqvae/) with a VQModel
            or AutoencoderKL, unet/ with a UNet2DConditionModel or UNet2DModel or transformer/ with a DiT, scheduler/,
            and class_embedder/ beside a UNet2DConditionModel.  Or a hub id "owner/name" of such a folder.
        device: where its networks lie.

    Raises:
        OSError: no such folder, a part is missing, or the hub does not give it.
        ValueError: a part is of an unknown class, a pickle, damaged, or does not fit the others.
    """
    folder = _folder(source)
    from diffusers import DDIMScheduler

    vae = _network(_part(folder, "autoencoder"), AUTOENCODERS)
    unet = _network(_part(folder, "noise predictor"), PREDICTORS)
    scheduler = DDIMScheduler.from_pretrained(_part(folder, "scheduler"), local_files_only=True)
    conditional = type(unet).__name__ == "UNet2DConditionModel"
    embedder = _embedder(_part(folder, "class embedder")) if conditional else None
    try:
        return LatentDiffusion(vae, unet, scheduler, embedder).to(device)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _folder(source: str | Path) -> Path:
    """The folder that `source` names, which the hub's cache may hold."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(f"prior {str(source)!r} is a file; it must be a folder or a hub id")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        raise FileNotFoundError(f"no prior {str(source)!r}: there is no such folder, and a hub id is 'owner/name'")
    from huggingface_hub import snapshot_download

    patterns = [f"{name}/{file}" for names in PARTS.values() for name in names for file in FILES]
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"
        raise OSError(
            f"no prior {str(source)!r}: there is no such folder, and the hub does not give it ({reason})"
        ) from error


def _part(folder: Path, part: str) -> Path:
    """The sub-folder that holds a part."""
    for name in PARTS[part]:
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(f"{folder} has no sub-folder {' or '.join(PARTS[part])}, for the {part}")


def _network(folder: Path, known: Sequence[str]) -> Any:
    """The network in one sub-folder, of one of diffusers' classes, with every weight from safetensors."""
    import diffusers

    config, name = _config(folder, known)
    try:
        with torch.random.fork_rng(devices=()):  # its constructor draws weights that the file then replaces
            network, loading = getattr(diffusers, name).from_pretrained(
                folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(f"{folder} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    if wrong := [*loading["missing_keys"], *loading["unexpected_keys"], *loading["mismatched_keys"]]:
        raise ValueError(f"{folder}: its weights are not those of its {name}; {len(wrong)} differ, first {wrong[0]}")
    if name == "VQModel" and "scaling_factor" not in config:  # older ones scale nothing; the class's default would
        network.register_to_config(scaling_factor=1.0)
    return network


def _embedder(folder: Path) -> ClassEmbedder:
    config, _ = _config(folder, ("ClassEmbedder",))
    try:
        with torch.device("meta"):
            embedder = ClassEmbedder(config["num_classes"], config["dim"])
        embedder.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS), assign=True)
    except (KeyError, OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    return embedder


def _config(folder: Path, known: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The configuration of a network, and the name of its class, which must be a known one."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    name = FORMER_NAMES.get(config.get("_class_name"), config.get("_class_name"))
    if name not in known:
        raise ValueError(f"{folder} holds a {name}; known: {', '.join(known)}")
    return config, name


def fingerprint(source: str | Path) -> str | None:
    """16 hex digits of the files of a prior's folder, or of one file; None where there is neither.

    A model of the hub has none: its id says what it is, and its revision is not looked at.
    """
    path = Path(source)
    if not path.exists():
        return None
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return _digest(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files), path)


@lru_cache(maxsize=16)
def _digest(stamps: tuple[tuple[str, int, int], ...], path: Path) -> str:
    """Computed anew when a file of `stamps` has another size or time."""
    digest = hashlib.sha256()
    for name, *_ in stamps:
        with open(name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{Path(name).relative_to(path)} {content}\n".encode())
    return digest.hexdigest()[:16]
