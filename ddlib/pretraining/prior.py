"""The prior that LD3M and GLaD distil through where no large one is at hand: a small latent diffusion model, trained.

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
from ddlib.models.passes import PRECISIONS, at_least_float32
from ddlib.models.state import State
from ddlib.pretraining import Prerequisite
from ddlib.pretraining.gan import descend
from ddlib.store import files

TRAINED = ("all", "autoencoder", "none")
"""What of a prior is trained; "autoencoder" leaves a random noise predictor, which is the paper's random prior."""

WARM_UP = 20
"""Steps in which a learning rate rises; then it falls to 0 as a cosine."""

REVIVALS = 8
"""Codes that nothing chose are replaced at 0/8, 1/8, ... 4/8 of the autoencoder's steps."""

CHUNK = 256
"""Images that are encoded or resized at a time."""


@dataclass
class Training(State):
    """State of `Prior`: a latent diffusion model whose parts are trained one after another."""

    fixed: ClassVar[tuple[str, ...]] = ("images", "labels", "latents")

    images: Tensor  # uint8 (N, C, H, W), in the shape of the cell's images
    labels: Tensor
    seed: int
    prior: LatentDiffusion  # its scaling factor is set at the noise predictor's turn
    vae: nn.Module
    predictor: nn.ModuleDict  # the noise predictor and class vectors
    average: dict[str, Tensor]  # of the predictor's parameters
    vae_adam: torch.optim.Adam
    predictor_adam: torch.optim.Adam
    latents: Tensor | None = None  # of all images; None before their turn, and after a checkpoint is read
    step: int = 0

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave, to the same bits."""
        super().load_state_dict(saved)
        self.latents = None


@dataclass(frozen=True, kw_only=True)
class Prior(Prerequisite):
    """A latent diffusion model (Rombach et al. 2022) trained on the real training set, or on another one.

    First the autoencoder, on images x in [-1, 1] with z = E(x), its nearest codes q(z), and sg that stops gradients,

        L = mean |D(q(z)) - x| + mean (D(q(z)) - x)^2 + mean (sg q(z) - z)^2 + .25 mean (q(z) - sg z)^2

    (CompVis' weights, the .25 on the codes; VQ-VAE's paper has it on the other term),

    then, on its latents scaled to unit variance, with noise e, a time t and the class y or, now and then, none,

        L = mean (eps(sqrt(abar_t) z + sqrt(1 - abar_t) e, t, y) - e)^2.

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
        self.require("autoencoder_steps diffusion_steps", lambda value: value >= 0, ">= 0")
        self.require("batch_size levels codes", lambda value: value >= 1, ">= 1")
        self.require("dropout ema", lambda value: 0 <= value < 1, "in [0, 1)")
        self.require("lr_autoencoder lr_diffusion", lambda value: value > 0, "> 0")
        self.require("trained", lambda value: value in TRAINED, f"one of {', '.join(TRAINED)}")
        self.require("precision", lambda value: value in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        self.require("width", lambda value: value > 0 and value % 16 == 0, "a positive multiple of 16")
        power = "a power of two, or None"
        self.require("factor", lambda value: value is None or (value > 0 and value & (value - 1) == 0), power)
        if self.data is not None:
            datasets.describe(self.data)

    @property
    def iterations(self) -> int:
        """The steps of all that is trained."""
        return self._first + (self.diffusion_steps if self.trained == "all" else 0)

    @property
    def _first(self) -> int:
        return self.autoencoder_steps if self.trained != "none" else 0

    @property
    def stages(self) -> tuple["Prior", ...]:
        """The training of the autoencoder and that of the noise predictor, whose steps differ in cost."""
        both = replace(self, diffusion_steps=0), replace(self, autoencoder_steps=0)
        return tuple(stage for stage in both if stage.iterations)

    def factor_for(self, shape: tuple[int, int, int]) -> int:
        """f for images of `shape` (C, H, W)."""
        return self.factor or (2 if max(shape[1:]) <= 32 else 4)

    def check_shape(self, shape: tuple[int, int, int]) -> None:
        """Refuse images whose sides f does not divide, or the levels of an unconditional noise predictor do not."""
        unit = self.factor_for(shape) * (1 if self.conditional else 2 ** (self.levels - 1))
        if any(side % unit for side in shape[1:]):
            raise ValueError(
                f"images of {shape[1]}x{shape[2]} pixels; with this prior sides must be multiples of {unit}"
            )

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Training:
        """Untrained networks; a ValueError where f does not divide the images' sides, or `data` has other classes."""
        images, labels = self._images(train)
        factor = self.factor_for(train.shape)
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
        average = {name: parameter.detach().clone() for name, parameter in predictor.named_parameters()}
        vae_adam, predictor_adam = (
            torch.optim.Adam(network.requires_grad_(True).parameters(), lr)
            for network, lr in ((prior.vae, self.lr_autoencoder), (predictor, self.lr_diffusion))
        )
        return Training(images, labels, seed, prior, prior.vae, predictor, average, vae_adam, predictor_adam)

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

    def save(self, artefact: LatentDiffusion, path: Path) -> None:
        """Write the model as a folder, whole or not at all."""
        with files.whole_folder(path) as part:
            priors.save_prior(artefact, part)

    def load(self, path: Path, device: str) -> LatentDiffusion:
        """Read the folder; FileNotFoundError where there is none, Damaged where it is not what was written."""
        files.check_folder(path)
        return priors.load_prior(path, device=device)

    def size(self, artefact: LatentDiffusion) -> int:
        """Bytes of the weights."""
        parts = (artefact.vae, *predictor_of(artefact).values())
        return sum(tensor.nbytes for part in parts for tensor in part.state_dict().values())

    def _encode(self, state: Training) -> dict[str, Tensor]:
        stream = seeding.generator(state.seed, "prior", "autoencoder", state.step)
        rows = torch.randint(len(state.images), (self.batch_size,), generator=stream)
        images, vae = signed(state.images[rows.to(state.images.device)]), state.vae
        set_rate(state.vae_adam, self.lr_autoencoder, state.step, self._first)
        with self._autocast(state):
            z = vae.encode(images).latents
            if revives(state.step, self._first):
                revive(vae.quantize, at_least_float32(z.detach()), stream, all_codes=state.step == 0)
            out = vae.decode(z)
        error = at_least_float32(out.sample) - images
        loss = error.abs().mean() + error.square().mean() + at_least_float32(out.commit_loss).mean()
        descend(loss, vae, state.vae_adam)
        return {"loss": loss.detach(), "reconstruction_error": error.detach().square().mean()}

    def _denoise(self, state: Training) -> dict[str, Tensor]:
        measure(state)
        stream, size = seeding.generator(state.seed, "prior", "diffusion", state.step), self.batch_size
        rows = torch.randint(len(state.images), (size,), generator=stream).to(state.images.device)
        z, abar = state.latents[rows], state.prior.alphas_cumprod
        times = torch.randint(len(abar), (size,), generator=stream)
        noise = torch.randn(z.shape, generator=stream).to(z)
        dropped = (torch.rand(size, generator=stream) < self.dropout).to(rows.device)
        abar_t = abar[times].to(z).view(-1, 1, 1, 1)
        noisy = abar_t.sqrt() * z + (1 - abar_t).sqrt() * noise
        taken = state.step - self._first
        set_rate(state.predictor_adam, self.lr_diffusion, taken, self.diffusion_steps)
        with self._autocast(state):
            c = None  # of the classes, those dropped being the null class
            if state.prior.embedder is not None:
                c = state.prior.embedder(torch.where(dropped, state.prior.num_classes, state.labels[rows]))
            predicted = state.prior.predict(noisy, times.to(rows.device), c)
        loss = F.mse_loss(at_least_float32(predicted), noise)
        descend(loss, state.predictor, state.predictor_adam)
        decay = min(self.ema, (1 + taken) / (10 + taken))
        with torch.no_grad():
            for name, parameter in state.predictor.named_parameters():
                state.average[name].lerp_(parameter, 1 - decay)
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


def predictor_of(prior: LatentDiffusion) -> nn.ModuleDict:
    """The noise predictor and, where there is one, the table of class vectors, as one module."""
    return nn.ModuleDict({"unet": prior.unet} | ({"embedder": prior.embedder} if prior.embedder is not None else {}))


@torch.no_grad()
def measure(state: Training) -> None:
    """Encode all images, once, and set the scaling factor by which their latents have unit variance."""
    if state.latents is not None:
        return
    vae = state.prior.vae
    latents = torch.cat([vae.encode(signed(part)).latents for part in state.images.split(CHUNK)])
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


LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray."""


def shaped(images: ImageSet, shape: tuple[int, int, int]) -> Tensor:
    """The images as uint8 pixels (N, *shape): resized with antialiasing, gray repeated, colours as their luma.

    Other channels than 1 and 3 are refused with a ValueError.
    """
    if images.shape[0] != shape[0] and {images.shape[0], shape[0]} != {1, 3}:
        raise ValueError(f"{images.name} has {images.shape[0]} channels; allowed: {shape[0]}, or 1 for 3 and 3 for 1")
    if images.shape == shape and images.images.dtype == torch.uint8:
        return images.images
    chunks = []
    for rows in torch.arange(len(images), device=images.device).split(CHUNK):
        raw = images.images.dtype == torch.uint8  # else whitened images are brought back
        pixels = images.images[rows].float() if raw else images.space.decode(images.take(rows)) * 255
        if pixels.shape[1] == 3 and shape[0] == 1:
            pixels = (pixels * pixels.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        if pixels.shape[2:] != shape[1:]:
            pixels = F.interpolate(pixels, shape[1:], mode="bilinear", align_corners=False, antialias=True)
        chunks.append(pixels.round().clamp(0, 255).to(torch.uint8).expand(-1, shape[0], -1, -1))
    return torch.cat(chunks)


def signed(pixels: Tensor) -> Tensor:
    """uint8 pixels as float32 in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def class_ids(prior: LatentDiffusion, images: ImageSet) -> Tensor | None:
    """What the prior calls the classes of `images`, (K,) int64: with one of ImageNet, their places among its 1,000.

    None where it knows no classes; images or classes that it is not of are refused with a ValueError.
    """
    prior.latent_shape(images.shape)
    if prior.num_classes is None:
        return None
    if prior.num_classes == images.num_classes:
        return torch.arange(images.num_classes, device=images.device)
    known = datasets.parsed_name(images.name)[0] in datasets.names()
    positions = datasets.describe(images.name).positions if known else ()
    if prior.num_classes == 1000 and positions:
        return torch.tensor(positions, device=images.device)
    raise ValueError(
        f"the prior is of {prior.num_classes} classes, and {images.name} has {images.num_classes}; take a prior of as "
        "many, one of ImageNet's 1000 for a part of ImageNet, or an unconditional one"
    )
