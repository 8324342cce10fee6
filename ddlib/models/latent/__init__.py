"""A frozen latent diffusion model made of diffusers' parts: what LD3M and GLaD learn through.

`small` makes an untrained one for images of any shape, `save_prior` keeps one as a folder, and `load_prior` reads such
a folder, one that `ddlib prior convert` made, or a model of the hub.  diffusers itself, which takes seconds to import,
is imported by the first of these calls.
"""

from ddlib.models.latent.diffusion import LatentDiffusion
from ddlib.models.latent.making import small
from ddlib.models.latent.stored import fingerprint, load_prior, save_prior

__all__ = ["LatentDiffusion", "fingerprint", "load_prior", "save_prior", "small"]
