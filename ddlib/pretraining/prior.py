"""The prior that LD3M and GLaD distil through where no large one is at hand: a small latent diffusion model, trained.

    builder = Prior(autoencoder_steps=150, diffusion_steps=400)      # what a method names in its `needs`

It is kept as the folder <store>/prior/<key>/prior, which `ddlib.models.priors.load_prior` reads like any other.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import seeding
from ddlib.data import datasets
from ddlib.data.datasets import ImageSet
from ddlib.models import diffusion, priors
from ddlib.models.diffusion import LatentDiffusion
from ddlib.models.passes import at_least_float32
from ddlib.pretraining.gan import descend, load_moments, moments
from ddlib.pretraining.prerequisite import Prerequisite
from ddlib.store import files

TRAINED = ("all", "autoencoder", "none")
"""What of a prior is trained; "autoencoder" leaves a random noise predictor, which is the paper's random prior."""

PRECISIONS = ("float32", "bfloat16")


WARM_UP = 20
"""Steps in which a learning rate rises; then it falls to 0 as a cosine."""

REVIVALS = 8
"""Codes that nothing chose are replaced at 0/8, 1/8, ... 4/8 of the autoencoder's steps."""

_CHUNK = 256


@dataclass
class Training:
    """State of `Prior`: a latent diffusion model whose parts are trained one after another.

    images: uint8 (N, C, H, W), in the shape of the cell's images; labels (N,).
    prior: the model, its scaling factor not set before the noise predictor's turn.
    predictor: its noise predictor and class vectors, as one module.
    average: the running average of the predictor's parameters, by name.
    latents: of all images, of unit variance; None before the noise predictor's turn.
    """

    images: Tensor
    labels: Tensor
    seed: int
    prior: LatentDiffusion
    predictor: nn.ModuleDict
    average: dict[str, Tensor]
    autoencoder_adam: torch.optim.Adam
    predictor_adam: torch.optim.Adam
    latents: Tensor | None = None
    step: int = 0

    def networks(self) -> dict[str, tuple[nn.Module, torch.optim.Adam]]:
        """Name -> network and its optimiser."""
        return {"vae": (self.prior.vae, self.autoencoder_adam), "predictor": (self.predictor, self.predictor_adam)}

    def state_dict(self) -> dict[str, Tensor]:
        """Networks, moments of the optimisers, the running average, and the step."""
        found = {"step": torch.tensor(self.step)} | {f"average.{key}": value for key, value in self.average.items()}
        for name, (network, adam) in self.networks().items():
            found |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
            found |= {f"{name}_adam.{key}": value for key, value in moments(network, adam).items()}
        return found

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step, self.latents = int(saved["step"]), None
        for key, value in self.average.items():
            value.copy_(saved[f"average.{key}"])
        for name, (network, adam) in self.networks().items():
            network.load_state_dict(_under(f"{name}.", saved))
            load_moments(network, adam, _under(f"{name}_adam.", saved))


@dataclass(frozen=True, kw_only=True)
class Prior(Prerequisite):
    """A latent diffusion model (Rombach et al. 2022) trained on the real training set, or on another one.

    First the autoencoder, on images x in [-1, 1] with z = E(x), its nearest codes q(z), and sg that stops gradients,

        L = mean |D(q(z)) - x| + mean (D(q(z)) - x)^2 + mean (sg q(z) - z)^2 + .25 mean (q(z) - sg z)^2

    (CompVis' weights, the .25 on the codes; VQ-VAE's paper has it on the other term),

    then, on its latents scaled to unit variance, with noise e, a time t and the class y or, now and then, none,

        L = mean (eps(sqrt(abar_t) z + sqrt(1 - abar_t) e, t, y) - e)^2.

    It is kept as the folder runs/prior/<key>/prior, which `ddlib.models.priors.load_prior` reads.

    autoencoder_steps, diffusion_steps: minibatches of each; >= 0.
    batch_size: images a minibatch, drawn with replacement.
    width, levels, codes: sizes; see `ddlib.models.diffusion.small`.
    factor: f, by which a side of an image is longer than its latent's; None: 2 up to 32 pixels, 4 above.
    lr_autoencoder, lr_diffusion: of Adam, after `WARM_UP` steps and before they fall.
    dropout: share of the labels that are replaced by the null class, which guidance compares with.
    ema: decay of the running average of the noise predictor, which is what is kept.
    conditional: the noise predictor is told the class; otherwise the prior has none.
    data: name of another data set to train on, its images brought to the shape of the cell's; None: the cell's own.
    mirrored: train on the mirror image of each image too.
    trained: what is trained at all, of `TRAINED`.
    precision: of convolutions and products; losses and weights are float32 always.
    seed: of weights, minibatches and noise, the same for every cell.

    Raises:
        ValueError: an argument is not as above.
    """

    name: ClassVar[str] = "prior"
    version: ClassVar[int] = 1
    product: ClassVar[str] = "prior"
    autoencoder_steps: int = 150
    diffusion_steps: int = 400
    batch_size: int = 32
    width: int = 32
    levels: int = 2
    codes: int = 256
    factor: int | None = None
    lr_autoencoder: float = 4e-3
    lr_diffusion: float = 2e-3
    dropout: float = 0.1
    ema: float = 0.99
    conditional: bool = True
    data: str | None = None
    mirrored: bool = False
    trained: str = "all"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self):
        for name, least in {"autoencoder_steps": 0, "diffusion_steps": 0, "batch_size": 1}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must be >= {least}")
        for name in ("dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must be in [0, 1)")
        for name in ("lr_autoencoder", "lr_diffusion"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must be > 0")
        for name, allowed in {"trained": TRAINED, "precision": PRECISIONS}.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        if self.width < 16 or self.width % 16:
            raise ValueError(f"width={self.width!r}; it must be a positive multiple of 16")
        if self.factor is not None and (self.factor < 1 or self.factor & (self.factor - 1)):
            raise ValueError(f"factor={self.factor!r}; it must be a power of two, or None")
        if self.data is not None:
            datasets.describe(self.data)

    @property
    def iterations(self) -> int:
        """The steps of all that is trained."""
        return self._first + (self.diffusion_steps if self.trained == "all" else 0)

    @property
    def _first(self) -> int:
        """The steps of the autoencoder."""
        return self.autoencoder_steps if self.trained != "none" else 0

    @property
    def stages(self) -> tuple["Prior", ...]:
        """This builder as two, since a step of the one takes as long as none of the other's."""
        both = replace(self, diffusion_steps=0), replace(self, autoencoder_steps=0)
        return tuple(stage for stage in both if stage.iterations)

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """Untrained networks.

        Raises:
            ValueError: images whose sides f does not divide; `data` of other classes than `train`.
        """
        images, labels = self._images(train)
        factor = self.factor or (2 if max(train.shape[1:]) <= 32 else 4)
        prior = diffusion.small(
            train.shape,
            train.num_classes if self.conditional else None,
            generator=seeding.generator(seed, "prior", "networks"),
            factor=factor,
            width=self.width,
            levels=self.levels,
            codes=self.codes,
        ).to(train.device)
        predictor = predictor_of(prior)
        kept = {name: parameter.detach().clone() for name, parameter in predictor.named_parameters()}
        for network in (prior.vae, predictor):
            network.requires_grad_(True)
        autoencoder_adam = torch.optim.Adam(prior.vae.parameters(), self.lr_autoencoder)
        predictor_adam = torch.optim.Adam(predictor.parameters(), self.lr_diffusion)
        return Training(images, labels, seed, prior, predictor, kept, autoencoder_adam, predictor_adam)

    def step(self, state: Training) -> dict[str, Tensor]:
        """One minibatch: of the autoencoder, or of the noise predictor once that is done."""
        metrics = self._encode(state) if state.step < self._first else self._denoise(state)
        state.step += 1
        return metrics

    def finish(self, state: Training) -> LatentDiffusion:
        """The frozen model, with the average of the noise predictor's weights."""
        measure(state)
        prior = copy.deepcopy(state.prior)
        with torch.no_grad():
            for name, parameter in predictor_of(prior).named_parameters():
                parameter.copy_(state.average[name])
        return prior.to(state.images.device)

    def save(self, made: LatentDiffusion, path: Path) -> None:
        """Write the model as a folder, whole or not at all."""
        with files.whole_folder(path) as part:
            priors.save_prior(made, part)

    def load(self, path: Path, device: str) -> LatentDiffusion:
        """Read the folder.

        Raises:
            FileNotFoundError: there is none.
            Damaged: its files are not what was written.
        """
        files.check_folder(path)
        return priors.load_prior(path, device=device)

    def size(self, made: LatentDiffusion) -> int:
        """Bytes of the weights."""
        parts = (made.vae, *predictor_of(made).values())
        return sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())

    def _encode(self, state: Training) -> dict[str, Tensor]:
        """A step of the autoencoder."""
        stream = seeding.generator(state.seed, "prior", "autoencoder", state.step)
        rows = torch.randint(len(state.images), (self.batch_size,), generator=stream)
        images, vae = signed(state.images[rows.to(state.images.device)]), state.prior.vae
        set_rate(state.autoencoder_adam, self.lr_autoencoder, state.step, self._first)
        with self._autocast(state):
            z = vae.encode(images).latents
            if revives(state.step, self._first):
                revive(vae.quantize, at_least_float32(z.detach()), stream, all_codes=state.step == 0)
            out = vae.decode(z)
        error = at_least_float32(out.sample) - images
        loss = error.abs().mean() + error.square().mean() + at_least_float32(out.commit_loss).mean()
        descend(loss, vae, state.autoencoder_adam)
        return {"loss": loss.detach(), "reconstruction_error": error.detach().square().mean()}

    def _denoise(self, state: Training) -> dict[str, Tensor]:
        """A step of the noise predictor."""
        measure(state)
        stream, size = seeding.generator(state.seed, "prior", "diffusion", state.step), self.batch_size
        rows = torch.randint(len(state.images), (size,), generator=stream).to(state.images.device)
        z, abar = state.latents[rows], state.prior.alphas_cumprod
        times = torch.randint(len(abar), (size,), generator=stream)
        noise = torch.randn(z.shape, generator=stream).to(z)
        dropped = (torch.rand(size, generator=stream) < self.dropout).to(rows.device)
        kept = abar[times].to(z).view(-1, 1, 1, 1)
        noisy = kept.sqrt() * z + (1 - kept).sqrt() * noise
        taken = state.step - self._first
        set_rate(state.predictor_adam, self.lr_diffusion, taken, self.diffusion_steps)
        with self._autocast(state):
            c = _told(state.prior, state.labels[rows], dropped)
            predicted = state.prior.predict(noisy, times.to(rows.device), c)
        loss = F.mse_loss(at_least_float32(predicted), noise)
        descend(loss, state.predictor, state.predictor_adam)
        average(state, min(self.ema, (1 + taken) / (10 + taken)))
        return {"loss": loss.detach(), "noise_error": loss.detach()}

    def _images(self, train: ImageSet) -> tuple[Tensor, Tensor]:
        """What is trained on: uint8 images of the shape of `train`, and labels."""
        chosen = train if self.data is None else datasets.load(self.data, "train", device=train.device)
        if self.conditional and chosen.num_classes != train.num_classes:
            raise ValueError(
                f"data={self.data!r} has {chosen.num_classes} classes and {train.name} {train.num_classes}; name data "
                "of as many classes, or train without: conditional=False"
            )
        images = shaped(chosen, train.shape)
        if not self.mirrored:
            return images, chosen.labels
        return torch.cat([images, images.flip(3)]), torch.cat([chosen.labels, chosen.labels])

    def _autocast(self, state: Training) -> torch.autocast:
        lower, device = self.precision == "bfloat16", state.images.device.type
        return torch.autocast(device, torch.bfloat16, enabled=lower, cache_enabled=False)


def _told(prior: LatentDiffusion, labels: Tensor, dropped: Tensor) -> Tensor | None:
    """Class vectors (B, 1, D) of `labels`, where `dropped` those of the null class; None without classes."""
    if prior.embedder is None:
        return None
    return prior.embedder(torch.where(dropped, prior.num_classes, labels))


def predictor_of(prior: LatentDiffusion) -> nn.ModuleDict:
    """The noise predictor and, where there is one, the table of class vectors, as one module."""
    return nn.ModuleDict({"unet": prior.unet} | ({"embedder": prior.embedder} if prior.embedder is not None else {}))


@torch.no_grad()
def measure(state: Training) -> None:
    """Encode all images, once, and set the scaling factor by which their latents have unit variance.

    Nothing of it is in a checkpoint: the same autoencoder gives the same latents again.
    """
    if state.latents is not None:
        return
    vae = state.prior.vae
    latents = torch.cat([vae.encode(signed(part)).latents for part in state.images.split(_CHUNK)])
    factor = 1 / latents.std().item()
    vae.register_to_config(scaling_factor=factor)
    state.latents = latents * factor


def revives(step: int, steps: int) -> bool:
    """Whether codes are replaced at `step` of the autoencoder's `steps`."""
    every = max(1, steps // REVIVALS)
    return step % every == 0 and step <= steps // 2


@torch.no_grad()
def revive(quantiser: nn.Module, z: Tensor, stream: torch.Generator, *, all_codes: bool) -> None:
    """Put codes to where latents are: those that no place of `z` (B, c, h, w) is nearest to, or all of them."""
    places = z.movedim(1, -1).flatten(0, -2)
    codes = quantiser.embedding.weight
    used = torch.cdist(places, codes).argmin(1).bincount(minlength=len(codes)) > 0
    chosen = torch.randint(len(places), (len(codes),), generator=stream).to(places.device)
    keep = used[:, None] & (not all_codes)
    codes.copy_(torch.where(keep, codes, places[chosen]))


def set_rate(adam: torch.optim.Adam, peak: float, step: int, steps: int) -> None:
    """The learning rate at `step` of `steps`: up to `peak` in `WARM_UP` steps, times a cosine that ends at 0."""
    rate = peak * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in adam.param_groups:
        group["lr"] = rate


@torch.no_grad()
def average(state: Training, decay: float) -> None:
    """Move the running average towards the noise predictor's parameters."""
    for name, parameter in state.predictor.named_parameters():
        state.average[name].lerp_(parameter, 1 - decay)


def _under(prefix: str, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}


_LUMA = (0.299, 0.587, 0.114)


def shaped(images: ImageSet, shape: tuple[int, int, int]) -> Tensor:
    """The images as pixels of another shape: resized with antialiasing, gray repeated, colours as their luma.

    Args:
        images: in any space; of 1 or 3 channels where `shape` has others.
        shape: (C, H, W).

    Returns:
        (N, C, H, W) uint8 on the device of `images`.

    Raises:
        ValueError: the channels cannot be brought to C.
    """
    if images.shape[0] != shape[0] and {images.shape[0], shape[0]} != {1, 3}:
        raise ValueError(f"{images.name} has {images.shape[0]} channels; allowed: {shape[0]}, or 1 for 3 and 3 for 1")
    if images.shape == shape and images.images.dtype == torch.uint8:
        return images.images
    chunks = torch.arange(len(images), device=images.device).split(_CHUNK)
    return torch.cat([_reshaped(_pixels(images, rows), shape) for rows in chunks])


def _pixels(images: ImageSet, rows: Tensor) -> Tensor:
    """Chosen images, (B, C, H, W) float32 in [0, 255]; whitened ones are brought back."""
    if images.images.dtype == torch.uint8:
        return images.images[rows].float()
    return images.space.decode(images.take(rows)) * 255


def _reshaped(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    if pixels.shape[1] == 3 and shape[0] == 1:
        pixels = (pixels * pixels.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    if pixels.shape[2:] != shape[1:]:
        pixels = F.interpolate(pixels, shape[1:], mode="bilinear", align_corners=False, antialias=True)
    return pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, shape[0], -1, -1)


def signed(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def class_ids(prior: LatentDiffusion, images: ImageSet) -> Tensor | None:
    """What the prior calls the classes of `images`: (K,) int64; None where it knows no classes.

    The classes in their order, or, with a prior of ImageNet's 1,000, their places among these.

    Raises:
        ValueError: the prior is of images of other channels or of other classes, or f does not divide their sides.
    """
    prior.latent_shape(images.shape)
    if prior.num_classes is None:
        return None
    if prior.num_classes == images.num_classes:
        return torch.arange(images.num_classes, device=images.device)
    positions = datasets.describe(images.name).positions if images.name in datasets.names() else ()
    if prior.num_classes == 1000 and positions:
        return torch.tensor(positions, device=images.device)
    raise ValueError(
        f"the prior is of {prior.num_classes} classes, and {images.name} has {images.num_classes}; take a prior of as "
        "many, one of ImageNet's 1000 for a part of ImageNet, or an unconditional one"
    )
