"""What the methods share whose product is a generator: the settings of their GAN and of its deployment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticStream, generator_bytes
from ddlib.methods._pixels import PRECISIONS, require
from ddlib.pretraining.gan import Gan, Pair

STRATEGY = "color+crop"
"""Augmentation of DiM's students and pool: both transforms, for each image by itself."""

COMPATS = (None, "official")


@dataclass(frozen=True, kw_only=True)
class Generative:
    """Settings of a GAN whose generator takes the place of a set, and of how it does.

    ipc: images per class in an epoch of a student, >= 1; nothing is distilled for it.
    redraw: epochs after which the images are drawn anew: 1 streams new ones all the time (as published), None draws
        exactly `ipc` images a class once.
    generator_width: channels of the generator's and the critic's maps.
    latent: values of noise, those that the class replaces included.
    conditioning: "onehot": the class is a code of ones and zeros in the first places of the noise.
    gan_iterations, gan_batch, gan_lr: minibatches of the adversarial training before, images in each, and the step
        size of both Adams.
    beta1, beta2: of both Adams.
    gradient_penalty: its coefficient.
    precision: of convolutions and products; norms, losses and weights are float32 always.
    compat: "official" shows the departures of the published code from what is right; None: the rulings.
    """

    whitened: ClassVar[tuple[str, ...]] = ()
    deployment: ClassVar[tuple[str, ...]] = ("ipc", "redraw")
    ipc: int
    redraw: int | None = 1
    generator_width: int = 196
    latent: int = 100
    conditioning: str = "onehot"
    gan_iterations: int = 58_500
    gan_batch: int = 128
    gan_lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    gradient_penalty: float = 10.0
    precision: str = "float32"
    compat: str | None = None

    def __post_init__(self) -> None:
        for name in ("ipc", "generator_width", "latent", "gan_batch"):
            require(name, value := getattr(self, name), value >= 1, ">= 1")
        require("redraw", self.redraw, self.redraw is None or self.redraw >= 1, ">= 1, or None")
        require("gan_iterations", self.gan_iterations, self.gan_iterations >= 0, ">= 0")
        require("gan_lr", self.gan_lr, self.gan_lr > 0, "> 0")
        for name in ("beta1", "beta2"):
            require(name, value := getattr(self, name), 0 <= value < 1, "in [0, 1)")
        require("gradient_penalty", self.gradient_penalty, self.gradient_penalty >= 0, ">= 0")
        require("conditioning", self.conditioning, self.conditioning == "onehot", "'onehot'")
        require("precision", self.precision, self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        require("compat", self.compat, self.compat in COMPATS, "None or 'official'")

    @property
    def gan(self) -> Gan:
        """The adversarial training that comes before: stage A."""
        return Gan(
            iterations=self.gan_iterations,
            batch_size=self.gan_batch,
            width=self.generator_width,
            latent=self.latent,
            lr=self.gan_lr,
            beta1=self.beta1,
            beta2=self.beta2,
            gradient_penalty=self.gradient_penalty,
            precision=self.precision,
        )

    @property
    def needs(self) -> Mapping[str, Any]:
        """The trained GAN."""
        return {"gan": self.gan}

    def bytes_stored(self, shape: tuple[int, int, int], num_classes: int) -> int:
        """Bytes of the generator for images of `shape` (C, H, W), as `SyntheticStream.bytes_stored` counts them.

        Raises:
            ValueError: images that it cannot make, or more classes than the noise can code.
        """
        options = {"width": self.generator_width, "latent": self.latent}
        return generator_bytes(shape=shape, num_classes=num_classes, **options)


def stream(method: Generative, pair: Pair, **provenance: Any) -> SyntheticStream:
    """The generator as it stands, deployed as `method` says."""
    train: ImageSet = pair.train
    made = {"method": method.name, "seed": pair.seed, "dataset": train.name, "gan_iterations": method.gan_iterations}
    return SyntheticStream(
        generator={name: tensor.detach().clone() for name, tensor in pair.generator.state_dict().items()},
        shape=train.shape,
        width=method.generator_width,
        latent=method.latent,
        class_names=train.class_names,
        space=train.space,
        strategy=STRATEGY,
        frozen_strategy=augmentation.strategy_for(train.name),
        ipc=method.ipc,
        redraw=method.redraw,
        provenance=made | provenance,
    )
