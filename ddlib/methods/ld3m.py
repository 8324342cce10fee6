"""LD3M, distillation through a latent diffusion model (Moser et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddlib.methods import _selection as selection
from ddlib.methods._latent import LatentMatching
from ddlib.methods._pixels import require
from ddlib.methods._rendered import LatentState
from ddlib.methods.sampler import Sampler
from ddlib.models.diffusion import LatentDiffusion
from ddlib.pretraining.prior import class_ids

LEARN = ("Z+c", "Z", "c")


@dataclass(frozen=True, kw_only=True)
class LD3M(LatentMatching):
    """Learn a latent Z and a class vector c for each image: S = D(sample(Z, c)), with `ddlib.methods.sampler.Sampler`.

    Z starts as the encoding of a real image of the class, c as the vector of the class.  Each step draws one noise,
    with which Z is brought to the schedule's highest level before it is sampled down again.

    Defaults: DM at 128 pixels (10 steps of DDIM, step size 1), by the published code; at 256 pixels `steps` is 20.

    Deviations: one noise a step where the published code has two, so that its gradient is of other images than the
    loss; real and synthetic images are normalised alike; the encoder is shown signed pixels (`init_range`).

    steps: T of the sampling; a divisor of the schedule's 1,000.
    residual: "x0" as the published code, "eq7" as the paper writes it, "none": the unmodified sampler.
    guidance: of the classes; 1: none.
    backprop_steps: the last calls of the noise predictor that carry gradient; None: all.  Of two, the gradient of Z is
        nearly the whole one; that of c points elsewhere (`python -m benchmarks.latent_distillation --prior FOLDER`).
    checkpointed: whether each call is computed anew for its gradient, so that memory does not grow with `steps`.
    learn: "Z+c", "Z" or "c".
    lr_c: step size of c, > 0; None: that of Z, as published.
    """

    name: ClassVar[str] = "ld3m"
    version: ClassVar[int] = 1
    published_lr: ClassVar[Mapping[str, float]] = {"dc": 0.1, "dm": 1.0, "mtt": 1000.0}
    steps: int = 10
    residual: str = "x0"
    guidance: float = 3.0
    backprop_steps: int | None = None
    checkpointed: bool = False
    learn: str = "Z+c"
    lr_c: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require("learn", self.learn, self.learn in LEARN, f"one of {', '.join(LEARN)}")
        if self.lr_c is None:
            object.__setattr__(self, "lr_c", self.lr)
        require("lr_c", self.lr_c, self.lr_c > 0, "> 0")
        sampler = self.sampler  # refuses what it cannot be
        if self.trained is not None:
            sampler.times()
            known = self.trained.conditional or self.learn == "Z"
            require("learn", self.learn, known, "'Z' with an unconditional prior")

    @property
    def sampler(self) -> Sampler:
        """How images are sampled."""
        names = ("steps", "residual", "guidance", "backprop_steps", "checkpointed")
        return Sampler(**{name: getattr(self, name) for name in names})

    @property
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""
        return {name: rate for name, rate in (("Z", self.lr), ("c", self.lr_c)) if name in self.learn.split("+")}

    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """Z (K * ipc, c, h, w), and, unless the prior is unconditional, c (K * ipc, 1, D)."""
        ids = class_ids(state.prior, state.train)
        require("learn", self.learn, ids is not None or self.learn == "Z", "'Z' with an unconditional prior")
        if ids is None:
            return {"Z": self.encoded(state)}
        labels = selection.class_major_labels(state.train, self.ipc)
        return {"Z": self.encoded(state), "c": state.prior.embed(ids[labels]).detach().clone()}

    def noise_of(self, state: LatentState, generator: torch.Generator) -> Tensor:
        """All noise of one sampling of all images."""
        return self.sampler.noise(state.tensors["Z"].shape, generator).to(state.train.device)

    def rendered(self, prior: LatentDiffusion, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""
        return self.sampler.render(prior, tensors["Z"], tensors.get("c"), noise)
