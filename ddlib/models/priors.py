"""A latent diffusion model as a folder: one sub-folder a part, each as diffusers' `save_pretrained` writes it.

`save_prior` writes such a folder; `load_prior` reads one, or a model of the hub; `convert` makes one of CompVis'
checkpoint of cin256 (LDM-4-G, Rombach et al. 2022).
"""

import hashlib
import json
import os
import pickle
import re
import secrets
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ddlib import ROOT
from ddlib.models.diffusion import SCHEDULE, ClassEmbedder, LatentDiffusion, autoencoder, noise_predictor

PARTS = {
    "autoencoder": ("vae", "vqvae"),
    "noise predictor": ("unet",),
    "scheduler": ("scheduler",),
    "class embedder": ("class_embedder",),
}
"""Part -> the sub-folders that may hold it; a class embedder goes with a UNet2DConditionModel alone."""

SCHEDULERS = (
    *("DDIM", "DDPM", "PNDM", "LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"),
    *("KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE"),
    *("DEISMultistep", "UniPCMultistep"),
)
"""diffusers' schedulers of models that predict the noise of DDPM, given by betas.  Those of flow matching, EDM, score
SDEs and consistency models are of other families."""

ALLOWED = {
    "VQModel": {"shift_factor": (None, 0), "latents_mean": (None,), "latents_std": (None,),
                "norm_type": (None, "group"), "lookup_from_codebook": (None, False)},
    "UNet2DConditionModel": {"attention_type": (None, "default")},
    "UNet2DModel": {},
    "scheduler": {"use_flow_sigmas": (None, False), "timestep_type": (None, "discrete")},
}  # fmt: skip
"""Part -> its settings that would change what it computes -> their values under which it is what is computed here."""

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILES = ("config.json", "scheduler_config.json", WEIGHTS, f"{WEIGHTS}.index.json", WEIGHTS.replace(".", "-*."))
"""What is got of a hub's model: configurations, and weights in one file or in several."""


def located(source: str | Path) -> Path:
    """The absolute path of a prior's folder: a relative one lies in the repository, `~` is the home."""
    return ROOT / Path(source).expanduser()


def save_prior(prior: LatentDiffusion, folder: str | Path) -> None:
    """Write `prior` as a new folder, whole or not at all: vae/, unet/, scheduler/, class_embedder/."""
    folder = located(folder)
    check_new(folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        prior.vae.save_pretrained(unfinished / "vae")
        prior.unet.save_pretrained(unfinished / "unet")
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
    its cache; `HF_HUB_OFFLINE=1` asks for the cache alone.

    source: a folder of `save_prior`, of `ddlib prior convert`, or laid out alike: vae/ (or vqvae/) with a VQModel,
        unet/ with a UNet2DConditionModel or UNet2DModel, scheduler/, and class_embedder/ beside the former; a relative
        path is from the repository.  Or a hub id "owner/name" of such a folder, at its newest, or "owner/name@...", of
        a branch, tag or commit; the last alone stays what it is.
    device: "meta" reads the configurations alone, and gives the model without weights.

    Raises:
        OSError: no such folder, a part is missing, or the hub does not give it.
        ValueError: a part is of an unknown class, needs or does what is not known here, is a pickle, damaged, or does
            not fit the others.
    """
    folder = _folder(source)
    weights = torch.device(device).type != "meta"
    vae = _network(_part(folder, "autoencoder"), ("VQModel",), weights)
    unet = _network(_part(folder, "noise predictor"), ("UNet2DConditionModel", "UNet2DModel"), weights)
    scheduler = _scheduler(_part(folder, "scheduler"))
    conditional = type(unet).__name__ == "UNet2DConditionModel"
    embedder = _embedder(_part(folder, "class embedder"), weights) if conditional else None
    try:
        return LatentDiffusion(vae, unet, scheduler, embedder).to(device)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _folder(source: str | Path) -> Path:
    """The folder that `source` of `load_prior` names, which the hub's cache may hold; errors as there."""
    folder = located(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise NotADirectoryError(f"prior {str(source)!r} is a file; it must be a folder or a hub id")
    match = re.fullmatch(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?", str(source))
    if not match:
        raise FileNotFoundError(
            f"no prior {str(source)!r}: there is no folder {folder}, and a hub id is 'owner/name' or 'owner/name@...'"
        )
    from huggingface_hub import snapshot_download

    patterns = [f"{name}/{file}" for names in PARTS.values() for name in names for file in FILES]
    try:
        return Path(snapshot_download(match[1], revision=match[2], allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"
        raise FileNotFoundError(
            f"no prior {str(source)!r}: there is no such folder, and the hub does not give it ({reason}); sought in "
            f"{folder}"
        ) from error


def _part(folder: Path, part: str) -> Path:
    for name in PARTS[part]:
        if (folder / name).is_dir():
            return folder / name
    raise FileNotFoundError(f"{folder} has no sub-folder {' or '.join(PARTS[part])}, for the {part}")


def _scheduler(folder: Path) -> Any:
    """The schedule in one sub-folder, of any scheduler whose noise is that of DDPM."""
    from diffusers import DDIMScheduler

    config = DDIMScheduler.load_config(folder, local_files_only=True)
    name = str(config.get("_class_name")).removesuffix("Scheduler")
    if name not in SCHEDULERS:
        raise ValueError(f"{folder} holds a {config.get('_class_name')}; known: {', '.join(SCHEDULERS)}, all by betas")
    _refuse_unknown(folder, config, "scheduler")
    try:
        return DDIMScheduler.from_config(config)
    except NotImplementedError as error:
        raise ValueError(f"{folder}: beta_schedule={config.get('beta_schedule')!r} is not known") from error


def _refuse_unknown(folder: Path, config: Mapping[str, Any], kind: str) -> None:
    """Refuse a part whose settings say that it computes something else."""
    for name, allowed in ALLOWED[kind].items():
        if (value := config.get(name)) not in allowed:
            raise ValueError(f"{folder}: {name}={value!r} is not known; allowed: {allowed[-1]}")


def _network(folder: Path, known: Sequence[str], weights: bool) -> Any:
    """The network in one sub-folder, of one of diffusers' classes, with every weight from safetensors, or with none."""
    import diffusers

    config, name = _config(folder, known)
    _refuse_unknown(folder, config, name)
    if not weights:
        with torch.device("meta"):
            return getattr(diffusers, name).from_config(config)
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


def _embedder(folder: Path, weights: bool) -> ClassEmbedder:
    config, _ = _config(folder, ("ClassEmbedder",))
    try:
        with torch.device("meta"):
            embedder = ClassEmbedder(config["num_classes"], config["dim"])
        if weights:
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
    name = config.get("_class_name")
    if name not in known:
        raise ValueError(f"{folder} holds a {name}; known: {', '.join(known)}")
    return config, name


def fingerprint(source: str | Path) -> str | None:
    """16 hex digits of the files of a prior's folder, links followed; None where there is no such folder.

    A model of the hub has none: its id says what it is.
    """
    path = located(source)
    inside = (Path(folder, name) for folder, _, names in os.walk(path, followlinks=True) for name in names)
    files = sorted(file for file in inside if file.is_file())
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _digest(stamps, path) if files else None


@lru_cache(maxsize=16)
def _digest(stamps: tuple[tuple[str, int, int], ...], path: Path) -> str:
    """Kept until a file of `stamps` (path, size, time) changes."""
    digest = hashlib.sha256()
    for name, *_ in stamps:
        with open(name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{Path(name).relative_to(path)} {content}\n".encode())
    return digest.hexdigest()[:16]


# CompVis' names.  Two functions of diffusers' single-file loader, which it does not document, translate them; the test,
# which compares every name and shape on a small copy of the topology, guards against their change.
AUTOENCODER = "first_stage_model."
CLASSES = "cond_stage_model.embedding.weight"
CODES = f"{AUTOENCODER}quantize.embedding.weight"
WIDTH = "model.diffusion_model.input_blocks.0.0.weight"
AUTOENCODER_WIDTH = f"{AUTOENCODER}encoder.conv_in.weight"


def convert(checkpoint: str | Path, folder: str | Path, *, trusted: bool = False) -> LatentDiffusion:
    """Convert a checkpoint of cin256 to a new folder, whole or not at all, and give what was written.

    checkpoint: a file of `torch.save`, with or without a Lightning trainer's entries around the weights.
    trusted: load a checkpoint that holds more than tensors, which runs code of whoever made it.

    Raises:
        OSError: there is no such checkpoint, or something at `folder`.
        ValueError: the checkpoint is damaged, holds more than tensors and is not trusted, or is of another model.
    """
    check_new(located(folder))
    prior = from_compvis(_checkpoint(Path(checkpoint), trusted=trusted))
    save_prior(prior, folder)
    return prior


def _checkpoint(checkpoint: Path, *, trusted: bool) -> Mapping[str, Tensor]:
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint {str(checkpoint)!r}")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=not trusted)
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, RuntimeError) as error:
        advice = "" if trusted else "; `--yes` (trusted=True) loads more than tensors, and runs code of whoever made it"
        raise ValueError(f"{checkpoint} is damaged, or holds more than tensors ({error}){advice}") from error
    weights = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{checkpoint} holds no weights by name")
    return weights


def from_compvis(weights: Mapping[str, Tensor]) -> LatentDiffusion:
    """The latent diffusion model whose weights bear CompVis' names, frozen, in float32 on the CPU.

    Its topology is that of cin256, or it is refused: noise predictor of widths w, 2w, 3w, 5w, two residual blocks a
    level, attention of one head on all but the first, VQ autoencoder of widths v, 2v, 4v and f = 4, and class vectors,
    the null class last.  Averaged weights (`model_ema`) are not used, as the published configuration has none.
    """
    for name in (WIDTH, AUTOENCODER_WIDTH, CODES, CLASSES):
        if name not in weights:
            raise ValueError(f"this is no class-conditional latent diffusion model with a VQ autoencoder: no {name}")
    from diffusers import DDIMScheduler
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    weights = {name: value.float() for name, value in weights.items() if value.is_floating_point()}
    vae, unet, embedder = _untrained(weights)
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


def _untrained(weights: Mapping[str, Tensor]) -> tuple[Any, Any, ClassEmbedder]:
    """Autoencoder, noise predictor and class embedder of the sizes of these weights, on the meta device."""
    v, channels = weights[AUTOENCODER_WIDTH].shape[:2]
    w, latent_channels = weights[WIDTH].shape[:2]
    codes, dim = weights[CODES].shape
    rows, context = weights[CLASSES].shape
    with torch.device("meta"):
        vae = autoencoder(channels, (v, 2 * v, 4 * v), codes=codes, dim=dim, layers=2, groups=32, side=256)
        widths = (w, 2 * w, 3 * w, 5 * w)
        unet = noise_predictor(latent_channels, widths, context=context, layers=2, groups=32, side=64)
        return vae, unet, ClassEmbedder(rows - 1, context)
