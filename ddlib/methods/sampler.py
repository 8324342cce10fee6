"""Sampling of a latent diffusion model made for gradients: DDIM with LD3M's residual connections.

Write abar_t for the schedule's `alphas_cumprod`, a = sqrt(abar), s = sqrt(1 - abar), and K for the number of steps,
at the times t_k = (k - 1) T / K + 1 of T = 1,000, and t_0 = 0.  From the learnable latent Z (Moser et al. 2025),

    z_K = a_K Z + s_K eps
    for k = K..1:
        e   = eps(z_k, t_k, null) + g (eps(z_k, t_k, c) - eps(z_k, t_k, null))
        x   = (z_k - s_k e) / a_k
        x  <- (1 - w_k) x + w_k q(Z),    w_k = (k - 1) / (K - 1)
        z_{k-1} = a_{k-1} x + s_{k-1} e
    image = D(q(z_0))

with the autoencoder's quantiser q, whose gradient is that of the identity, and decoder D.  With e held fixed,
dz_0 / dZ = a_0 I for every K and w_k (but not for "eq7").
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ddlib.methods.contract import require
from ddlib.models.diffusion import LatentDiffusion

RESIDUALS = ("x0", "eq7", "none")
"""How the latent is mixed in: as LD3M's published code does, as its paper's Eq. 7 does, and not at all."""

recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
"""A call of a function that keeps nothing for the gradient but its arguments, and is made again for it."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """From learnable latents Z and class vectors c to images.

    steps: K, a divisor of the schedule's T below T; at 1, w_1 = 0.
    residual: "x0", as above and as published in code; "none", w = 0: plain DDIM; "eq7", as published in print: the
        ancestral step's mean is mixed with z_K, z_{k-1} = (1 - k/K) mean + (k/K) z_K + sigma_k eps_k, where
        sigma_k^2 = (1 - abar_{k-1}) / (1 - abar_k) (1 - abar_k / abar_{k-1}) and every step has fresh noise.
    guidance: g; at 1, and without c, eps is called on a single batch and not a double one.
    backprop_steps: how many of the last calls of eps carry gradient, 0 to K; None: all.
    checkpointed: keep no activations of eps and D but compute them again for the gradient, which is the same.

    Deviation from the paper: "x0" is the default, since the printed Eq. 7 fades the images and passes on less gradient
    than no residual at all.  In print the fresh noise of Eq. 7 has the factor sigma_k^2; here sigma_k, as the ancestral
    step has it.  From its code: q(Z) is computed once a sampling, not once a step.
    """

    steps: int = 10
    residual: str = "x0"
    guidance: float = 3.0
    backprop_steps: int | None = None
    checkpointed: bool = False

    def __post_init__(self):
        require("steps", self.steps, self.steps >= 1, ">= 1")
        require("residual", self.residual, self.residual in RESIDUALS, f"one of {', '.join(RESIDUALS)}")
        require("guidance", self.guidance, math.isfinite(self.guidance), "finite")
        some = self.backprop_steps is None or 0 <= self.backprop_steps <= self.steps
        require("backprop_steps", self.backprop_steps, some, f"0 to steps={self.steps}, or None")

    def times(self, length: int = 1000) -> list[int]:
        """t_0 = 0, t_1 = 1, ..., t_K in a schedule of `length` = T steps; a ValueError where K does not divide T."""
        if length % self.steps or self.steps == length:
            known = ", ".join(str(steps) for steps in range(1, length) if length % steps == 0)
            raise ValueError(f"steps={self.steps!r}; with a schedule of {length} steps it must be one of {known}")
        return [0, *range(1, length, length // self.steps)]

    def noise(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> Tensor:
        """The noise of one sampling, (n, *shape) standard normal: n = 1, and with "eq7" 1 + K: eps, eps_1..eps_K."""
        return torch.randn(self._draws, *shape, generator=generator, device=generator.device)

    @property
    def _draws(self) -> int:
        return 1 + self.steps if self.residual == "eq7" else 1

    def render(self, prior: LatentDiffusion, Z: Tensor, c: Tensor | None, noise: Tensor) -> Tensor:
        """Images D(q(z_0)), (B, C, H, W), about [-1, 1] and not clamped; arguments and errors as `latents`."""
        z = self.latents(prior, Z, c, noise)
        return recomputed(prior.decode, z) if self.checkpointed else prior.decode(z)

    def latents(self, prior: LatentDiffusion, Z: Tensor, c: Tensor | None, noise: Tensor) -> Tensor:
        """z_0 (B, c, h, w) of latents and class vectors, which alone may require gradients; every image by itself.

        Args:
            Z: (B, c, h, w), in the units of `prior.encode`.
            c: (B, 1, D); None with an unconditional prior.
            noise: (n, B, c, h, w), of `noise`; the same noise gives the same images.
        """
        self._check(prior, Z, c, noise)
        schedule, K = prior.alphas_cumprod.tolist(), self.steps
        times = self.times(len(schedule))
        abar = [schedule[t] for t in times]
        z = z_K = abar[K] ** 0.5 * Z + (1 - abar[K]) ** 0.5 * noise[0]
        clean = prior.quantise(Z) if self.residual == "x0" else None
        for k in range(K, 0, -1):
            carries = torch.is_grad_enabled() and (self.backprop_steps is None or k <= self.backprop_steps)
            guided = partial(recomputed, self._guided) if self.checkpointed and carries else self._guided
            with torch.set_grad_enabled(carries):
                e = guided(prior, z, times[k], c)
            x = (z - (1 - abar[k]) ** 0.5 * e) / abar[k] ** 0.5
            if self.residual == "eq7":
                variance = (1 - abar[k - 1]) / (1 - abar[k]) * (1 - abar[k] / abar[k - 1])  # Ho et al. 2020
                mean = abar[k - 1] ** 0.5 * x + (1 - abar[k - 1] - variance) ** 0.5 * e
                z = torch.lerp(mean, z_K, k / K) + variance**0.5 * noise[k]
                continue
            if self.residual == "x0" and K > 1:
                x = torch.lerp(x, clean, (k - 1) / (K - 1))
            z = abar[k - 1] ** 0.5 * x + (1 - abar[k - 1]) ** 0.5 * e
        return z

    def _guided(self, prior: LatentDiffusion, z: Tensor, t: int, c: Tensor | None) -> Tensor:
        """The guided noise e, of one batch that holds every image twice."""
        if c is None or self.guidance == 1:
            return prior.predict(z, t, c)
        without, with_class = prior.predict(torch.cat([z, z]), t, torch.cat([prior.null(len(z)), c])).chunk(2)
        return torch.lerp(without, with_class, self.guidance)

    def _check(self, prior: LatentDiffusion, Z: Tensor, c: Tensor | None, noise: Tensor) -> None:
        """Refuse noise and class vectors that would broadcast without a word."""
        null = prior.null(len(Z))
        if (c is None) != (null is None):
            kind = "unconditional" if null is None else f"of {prior.num_classes} classes"
            raise ValueError(f"c={'None' if c is None else 'a tensor'}, and the prior is {kind}")
        if noise.shape != (self._draws, *Z.shape):
            expected = (self._draws, *Z.shape)
            raise ValueError(f"noise of shape {tuple(noise.shape)}; for these latents it must be {expected}")
        if c is not None and c.shape != null.shape:
            raise ValueError(f"c of shape {tuple(c.shape)}; for these latents it must be {tuple(null.shape)}")
