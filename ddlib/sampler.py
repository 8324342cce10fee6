"""Sampling of a latent diffusion model made for gradients: DDIM with LD3M's residual connections."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ddlib.models.latent import LatentDiffusion

RESIDUALS = ("x0", "eq7", "none")
"""As LD3M's published code mixes in the latent, as its paper's Eq. 7 does, and not at all."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """From a learnable latent Z and class vectors c to images."""

    steps: int = 10
    residual: str = "x0"
    guidance: float = 3.0
    backprop_steps: int | None = None
    checkpointed: bool = False

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """All noise of one sampling of latents of `shape` (B, c, h, w)."""
        draws = 1 + self.steps if self.residual == "eq7" else 1
        return torch.randn(draws, *shape, generator=generator, device=generator.device)

    def render(self, prior: LatentDiffusion, Z: Tensor, c: Tensor | None, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) of the latents `Z`, about [-1, 1] and not clamped; arguments as `latents`."""
        z = self.latents(prior, Z, c, noise)
        return checkpoint(prior.decode, z, use_reentrant=False) if self.checkpointed else prior.decode(z)

    def latents(self, prior: LatentDiffusion, Z: Tensor, c: Tensor | None, noise: Tensor) -> Tensor:
        """z_0 (B, c, h, w)."""
        stride = len(prior.alphas_cumprod) // self.steps
        times = [0, *((k - 1) * stride + 1 for k in range(1, self.steps + 1))]
        kept = [float(prior.alphas_cumprod[t]) for t in times]
        a, s = [x**0.5 for x in kept], [(1 - x) ** 0.5 for x in kept]
        first = z = a[-1] * Z + s[-1] * noise[0]
        target = prior.quantise(Z) if self.residual == "x0" else None
        for k in range(self.steps, 0, -1):
            e = self._predicted(prior, z, times[k], c, k)
            x = (z - s[k] * e) / a[k]
            if self.residual == "x0":
                weight = (k - 1) / (self.steps - 1) if self.steps > 1 else 0.0
                x = (1 - weight) * x + weight * target
            if self.residual != "eq7":
                z = a[k - 1] * x + s[k - 1] * e
                continue
            variance = (s[k - 1] / s[k]) ** 2 * (1 - kept[k] / kept[k - 1])
            mean = a[k - 1] * x + (s[k - 1] ** 2 - variance) ** 0.5 * e
            weight = k / self.steps
            z = (1 - weight) * mean + weight * first + variance**0.5 * noise[k]
        return z

    def _predicted(self, prior: LatentDiffusion, z: Tensor, t: int, c: Tensor | None, k: int) -> Tensor:
        carries = self.backprop_steps is None or k <= self.backprop_steps
        with torch.set_grad_enabled(carries and torch.is_grad_enabled()):
            if self.checkpointed and carries:
                return checkpoint(self._guided, prior, z, t, c, use_reentrant=False)
            return self._guided(prior, z, t, c)

    def _guided(self, prior: LatentDiffusion, z: Tensor, t: int, c: Tensor | None) -> Tensor:
        if c is None or self.guidance == 1:
            return prior.predict(z, t, c)
        both = prior.predict(torch.cat([z, z]), t, torch.cat([prior.null(len(z)), c]))
        null, found = both.chunk(2)
        return null + self.guidance * (found - null)
