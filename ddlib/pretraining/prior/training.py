"""What changes while a prior is trained: its networks, their optimisers, the running average, the codes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ddlib.models.latent import LatentDiffusion
from ddlib.pretraining.adversarial import load_moments, moments
from ddlib.pretraining.prior.pictures import signed

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
