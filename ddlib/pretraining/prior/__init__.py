"""The prior that LD3M and GLaD distil through where no large one is at hand: a small latent diffusion model, trained.

    builder = Prior(autoencoder_steps=150, diffusion_steps=400)      # what a method names in its `needs`

It is kept as the folder <store>/prior/<key>/prior, which `ddlib.models.latent.load_prior` reads like any other.
"""

from ddlib.pretraining.prior.builder import Prior
from ddlib.pretraining.prior.pictures import class_ids
from ddlib.pretraining.prior.training import Training

__all__ = ["Prior", "Training", "class_ids"]
