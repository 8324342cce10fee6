"""What DM, DataDAM and ATOM share: a fresh random network a step, in which class means are matched."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddlib import models, seeding
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _pixels as pixels
from ddlib.methods import objectives
from ddlib.models import Features
from ddlib.models.passes import compiled


@dataclass(frozen=True, kw_only=True)
class FeatureMatching(pixels.PixelMatching):
    """Match the class means of per-image vectors; a subclass says which vectors, and with what weights.

    Each step: a network drawn anew and used once, in training mode with frozen weights; n real images a class; one
    DSA draw a class for its real and synthetic images; L = sum_k sum_j w_j ||mean v_j(B_k) - mean v_j(S_k)||^2; one
    pixel step.  All classes pass in one batch, real and synthetic apart, so that a BatchNorm network sees
    class-balanced batches; for other norms this equals class by class exactly.

    iterations: pixel steps, >= 0.
    compiled: compile the passes through the network; the first steps then take a minute, and a CPU needs a C++
        compiler (without one, torch's error is raised).
    """

    iterations: int = 20_000
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        pixels.require("iterations", self.iterations, self.iterations >= 0, ">= 0")

    def vectors(self, features: Features) -> list[Tensor]:
        """What is matched: (B, length) tensors, from the features of B images."""
        raise TypeError(f"{type(self).__name__} does not say which vectors it matches")

    def weights(self, count: int) -> list[float]:
        """The weight of each of the `count` tensors of `vectors`."""
        raise TypeError(f"{type(self).__name__} does not say how it weighs what it matches")

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> pixels.PixelState:
        """Initial images and an undrawn network."""
        state = pixels.start(self, train, prerequisites, seed)

        def forward(images: Tensor) -> list[Tensor]:
            return self.vectors(state.network.features(images))

        state.network.requires_grad_(False)
        state.forward = compiled(forward) if self.compiled else forward
        return state

    def step(self, state: pixels.PixelState) -> dict[str, Tensor]:
        """One pixel step; returns the loss before it."""
        loss, gradient = self.slope(state)
        pixels.descend(self, state, gradient)
        return {"loss": loss}

    def slope(self, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
        """The loss of this step's network and real images, and its gradient in the synthetic ones."""
        models.reset(state.network, seeding.generator(state.seed, "network", state.step))
        real, syn = pixels.siamese(state, pixels.real_batch(state), state.images)
        with torch.no_grad():
            targets = self.statistics(state, real)
        loss = objectives.weighted_distance(self.weights(len(targets)), targets, self.statistics(state, syn))
        (gradient,) = torch.autograd.grad(loss, state.images)
        return loss.detach(), gradient

    def finish(self, state: pixels.PixelState) -> SyntheticSet:
        """The images as they stand."""
        return pixels.finish(self, state)

    def statistics(self, state: pixels.PixelState, images: Tensor) -> list[Tensor]:
        """Class means of the vectors of a class-major batch: one (K, length) tensor each."""
        vectors = pixels.in_pieces(self, state, images)
        return [objectives.class_means(v, state.train.num_classes) for v in vectors]
