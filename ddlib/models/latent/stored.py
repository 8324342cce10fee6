"""A latent diffusion model as a folder: one sub-folder a part, each as diffusers' `save_pretrained` writes it."""

import hashlib
import json
import os
import re
import secrets
import shutil
import textwrap
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ddlib.models.latent.diffusion import LatentDiffusion

PARTS = {
    "autoencoder": ("vae", "vqvae"),
    "noise predictor": ("unet", "transformer"),
    "scheduler": ("scheduler",),
    "class embedder": ("class_embedder",),
}
"""Part -> the sub-folders that may hold it; a class embedder goes with a UNet2DConditionModel alone."""

FILES = (
    "config.json",
    "scheduler_config.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-*.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
"""Of a sub-folder, the only ones that are got from the hub."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PICKLES = {".bin", ".ckpt", ".pt", ".pth"}


def save_prior(prior: LatentDiffusion, folder: str | Path) -> None:
    """Write `prior` as a new folder, whole or not at all: vae/, unet/ or transformer/, scheduler/, class_embedder/.

    Raises:
        FileExistsError: there is something at `folder` already.
        OSError: it cannot be written.
    """
    folder = Path(folder)
    check_new(folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        for name, part in _named(prior).items():
            part.save_pretrained(unfinished / name)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_new(folder: Path) -> None:
    """That a prior can be written as `folder`.

    Raises:
        FileExistsError: there is something already.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a new folder for the prior")


def _named(prior: LatentDiffusion) -> dict[str, Any]:
    """Sub-folder -> part."""
    unet = "transformer" if hasattr(prior.unet, "transformer_blocks") else "unet"
    found = {"vae": prior.vae, unet: prior.unet, "scheduler": prior.scheduler}
    return found if prior.embedder is None else found | {"class_embedder": prior.embedder}


def load_prior(source: str | Path, *, device: torch.device | str = "cpu") -> LatentDiffusion:
    """A latent diffusion model from a folder, or from the hub.

    A folder that exists is never looked for on the hub.  Of the hub, configurations and safetensors alone are got, into
    its cache, from which they are read without a network too; `HF_HUB_OFFLINE=1` asks for the cache alone.

    Args:
        source: a folder of `save_prior`, of `ddlib prior convert`, or laid out alike: vae/ (or vqvae/) with a VQModel
            or AutoencoderKL, unet/ with a UNet2DConditionModel or UNet2DModel or transformer/ with a DiT, scheduler/,
            and class_embedder/ beside a UNet2DConditionModel.  Or a hub id "owner/name" of such a folder.
        device: where its networks lie.

    Returns:
        The model, frozen.  The global random state is neither read nor changed.

    Raises:
        OSError: no such folder, a part is missing, or the hub does not give it.
        ValueError: a part is of an unknown class, a pickle, damaged, or does not fit the others.
    """
    folder = _folder(source)
    from ddlib.models.latent import parts

    vae = _network(_part(folder, "autoencoder"), parts.AUTOENCODERS)
    unet = _network(_part(folder, "noise predictor"), parts.PREDICTORS)
    scheduler = _scheduler(_part(folder, "scheduler"))
    embedder = None
    if isinstance(unet, parts.UNet2DConditionModel):
        embedder = _network(_part(folder, "class embedder"), {"ClassEmbedder": parts.ClassEmbedder})
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
    if not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no prior {str(source)!r}: there is no such folder, and a hub id is 'owner/name'")
    from huggingface_hub import snapshot_download

    wanted = [f"{name}/{file}" for names in PARTS.values() for name in names for file in FILES]
    try:
        return Path(snapshot_download(str(source), allow_patterns=wanted))
    except (OSError, ValueError) as error:
        reason = textwrap.shorten(str(error), 300)
        raise OSError(
            f"no prior {str(source)!r}: there is no such folder, and the hub does not give it; `ddlib prior convert` "
            "makes a folder, and one of the hub is got once, with a network, and then read from the cache "
            f"({type(error).__name__}: {reason})"
        ) from error


def _part(folder: Path, part: str) -> Path:
    """The sub-folder that holds a part."""
    for name in PARTS[part]:
        if (folder / name).is_dir():
            return folder / name
    needed = "; ".join(f"{part}: {' or '.join(names)}" for part, names in PARTS.items())
    raise FileNotFoundError(f"{folder} has no sub-folder {' or '.join(PARTS[part])}, for the {part} ({needed})")


def _scheduler(folder: Path) -> Any:
    from diffusers import DDIMScheduler

    _described(folder / "scheduler_config.json")
    return DDIMScheduler.from_pretrained(folder, local_files_only=True)


def _network(folder: Path, classes: dict[str, type]) -> Any:
    """The network in one sub-folder, of one of `classes`, with every weight from safetensors."""
    described = _described(folder / "config.json")
    name = described.get("_class_name")
    if name not in classes:
        raise ValueError(f"{folder} holds a {name}; known: {', '.join(classes)}")
    _check_weights(folder)
    from safetensors import SafetensorError

    try:
        with torch.random.fork_rng(devices=()):  # its constructor draws weights that the file then replaces
            network, told = classes[name].from_pretrained(
                folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
    except (OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(f"{folder} cannot be read: {textwrap.shorten(str(error), 300)}") from error
    if wrong := [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]:
        raise ValueError(f"{folder}: its weights are not those of its {name}; {len(wrong)} differ, first {wrong[0]}")
    if name == "VQModel" and "scaling_factor" not in described:  # older ones scale nothing; the class's default would
        network.register_to_config(scaling_factor=1.0)
    return network


def _described(file: Path) -> dict[str, Any]:
    """What a configuration says."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} has no {file.name}")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _check_weights(folder: Path) -> None:
    if list(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise ValueError(f"{folder} holds a pickle, {pickles[0]}; weights are loaded from safetensors alone")
    raise FileNotFoundError(f"{folder} has no weights; they are {FILES[2]}")


def fingerprint(source: str | Path) -> str | None:
    """16 hex digits of what stands in a folder or file that holds a prior; None where there is neither.

    A model of the hub has none: its id says what it is, and its revision is not looked at.
    """
    path = Path(source)
    if not path.exists():
        return None
    held = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in held)
    return _digest(stamps, path)


@lru_cache(maxsize=16)
def _digest(stamps: tuple[tuple[str, int, int], ...], path: Path) -> str:
    """Computed anew when a file of `stamps` has another size or time."""
    found = hashlib.sha256()
    for name, *_ in stamps:
        with open(name, "rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{Path(name).relative_to(path)} {inner}\n".encode())
    return found.hexdigest()[:16]
