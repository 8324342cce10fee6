"""What LD3M and GLaD share: a matching loss whose images are rendered from what is learnt by a frozen generator."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import models, seeding
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods._pixels import PRECISIONS, require
from ddlib.methods._rendered import LatentState, image_slope, place
from ddlib.methods.dm import DM
from ddlib.methods.dsa import DSA
from ddlib.methods.mtt import MTT
from ddlib.methods.settings import fill
from ddlib.models.diffusion import LatentDiffusion
from ddlib.models.passes import at_least_float32
from ddlib.models.priors import fingerprint, load_prior
from ddlib.pretraining.prior import Prior

MATCHINGS = {"dm": DM, "dc": DSA, "mtt": MTT}
"""Loss -> the method of pixels that it is of; all augment by DSA, and the papers call the second DC all the same."""

OPTIMIZERS = ("sgd", "adam")
INITS = ("encoded", "gaussian")
NOISES = ("fresh", "fixed")

KINDS = ("first", "second")
"""The moments of a learnt tensor: SGD's velocity, or both of Adam's."""

ADAM = (0.9, 0.999)
"""Decay of Adam's moments."""

OWN = (
    *("ipc", "iterations", "batch_real", "network", "norm", "width", "depth", "strategy", "precision", "compiled"),
    *("init", "lr_images", "momentum", "restarts", "matching_steps", "network_epochs"),
)
"""Settings that `options` may not give: they stand beside it, or are the method's business."""


@dataclass(frozen=True, kw_only=True)
class LatentMatching:
    """Learn what a frozen generator renders images from, down the gradient of a loss that is matched in pixels.

    Each step: images S are rendered from the learnt tensors; the loss L of `matching` and dL/dS, as that method has
    them in pixels; dL/dS pushed through the rendering of the same noise; one step of the tensors.

    ipc: images per class, >= 1.
    matching: "dm", "dc" or "mtt".
    options: further settings of that method, such as {"syn_steps": 10, "max_start_epoch": 2}.
    iterations: steps, >= 0.
    lr: step size of the learnt tensors, > 0; None: the published one of this matching.
    momentum: of their SGD, in [0, 1).
    optimizer: "sgd", or "adam" for priors that are not the paper's, whose gradients have another size.
    init: "encoded" (random real images, encoded), "gaussian" (noise in their place).
    init_range: what the encoder is shown: "signed" pixels, [-1, 1], as it was trained; "normalised" ones, as published.
    noise: of the rendering: "fresh" at each step and the same within it, or "fixed".
    chunk: images rendered at once with their graph, >= 1, as published 10; None: all, and rendered once a step.
    batch_real: real images per class and step, >= 1.
    strategy: DSA families joined by "_", "none", or None for the data set's own.
    network, norm, width, depth: the network matched in; None keeps the network's default.
    precision: of convolutions and products; losses, schedules and what is learnt are float32 always.
    prior: settings of the `Prior` that is trained, on the data set itself unless they say otherwise; or
        the folder or hub id of a latent diffusion model that `ddlib.models.priors.load_prior` takes.
    """

    whitened: ClassVar[tuple[str, ...]] = ()
    published_lr: ClassVar[Mapping[str, float]] = {}
    ipc: int
    matching: str = "dm"
    options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 10_000
    lr: float | None = None
    momentum: float = 0.5
    optimizer: str = "sgd"
    init: str = "encoded"
    init_range: str = "signed"
    noise: str = "fresh"
    chunk: int | None = None
    batch_real: int = 256
    strategy: str | None = None
    network: str = "convnet"
    norm: str = "instance"
    width: int | None = None
    depth: int | None = None
    precision: str = "float32"
    prior: str | dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ipc", "batch_real"):
            require(name, value := getattr(self, name), value >= 1, ">= 1")
        require("iterations", self.iterations, self.iterations >= 0, ">= 0")
        require("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)")
        require("chunk", self.chunk, self.chunk is None or self.chunk >= 1, ">= 1, or None for all")
        for name, allowed in (
            ("matching", tuple(MATCHINGS)),
            ("optimizer", OPTIMIZERS),
            ("init", INITS),
            ("init_range", ("signed", "normalised")),
            ("noise", NOISES),
            ("precision", PRECISIONS),
            ("network", models.names()),
        ):
            require(name, value := getattr(self, name), value in allowed, f"one of {', '.join(allowed)}")
        if self.lr is None:
            object.__setattr__(self, "lr", self.published_lr[self.matching])
        require("lr", self.lr, self.lr > 0, "> 0")
        object.__setattr__(self, "options", dict(self.options))
        _ = self.objective, self.needs  # these refuse what they cannot be

    @property
    def condition(self) -> str:
        """The loss that is matched: papers have a row for each."""
        return self.matching

    @property
    def objective(self) -> DM | DSA | MTT:
        """The method of pixels whose loss is matched.

        Raises:
            ValueError: `options` has a setting that this method does not know, or that is not its to give.
        """
        for name in self.options:
            require("options", name, name not in OWN, f"without {', '.join(OWN)}")
        told = {name: getattr(self, name) for name in ("ipc", "network", "norm", "width", "depth", "strategy")}
        told |= {"precision": self.precision} | self.options
        if self.matching == "mtt":
            made = fill(MTT, "options of matching='mtt'", told)
            require("labels", made.labels, made.labels == "hard", "'hard' in options")
            return made
        told |= {"batch_real": self.batch_real, "init": "real"}
        if self.matching == "dc":  # a network a step, never trained, whatever the images per class: as published
            told |= {"matching_steps": 1, "network_epochs": 1}
        return fill(MATCHINGS[self.matching], f"options of matching={self.matching!r}", told)

    @property
    def needs(self) -> Mapping[str, Any]:
        """The prior, unless it is one that is there, and what the matching needs."""
        trained = self.trained
        return ({} if trained is None else {"prior": trained}) | dict(self.objective.needs)

    @property
    def trained(self) -> Prior | None:
        """The prior that is trained; None: it is one that is there."""
        if isinstance(self.prior, str):
            return None
        return fill(Prior, "the prior", {"precision": self.precision} | self.prior)

    def opened(self) -> LatentDiffusion:
        """The prior that is there."""
        return load_prior(self.prior)

    def prior_of(self, prerequisites: Mapping[str, Any]) -> LatentDiffusion:
        """The prior, trained before or there already."""
        return self.opened() if self.trained is None else prerequisites["prior"]

    @property
    def found(self) -> str | None:
        """The content of a prior that is there, which decides numbers as settings do; None where it is trained."""
        return fingerprint(self.prior) if isinstance(self.prior, str) else None

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> LatentState:
        """The tensors from which the initial images are rendered.

        Raises:
            ValueError: a prior of other channels, classes or sizes than the images; `ipc` outside the class sizes.
        """
        require("the images", train.space.name, train.space.zca is None, "normalised: load them with whitened: false")
        prior = self.prior_of(prerequisites).to(train.device)
        prior.latent_shape(train.shape)  # refuses images that it cannot make
        state = LatentState(train, seed, prior, self.objective.start(train, prerequisites, seed))
        state.tensors = {name: tensor.contiguous() for name, tensor in self.initial(state).items()}  # as once loaded
        state.moments = {
            f"{name}.{kind}": torch.zeros_like(state.tensors[name]) for name in self.rates for kind in KINDS
        }
        state.course = {f"{name}.{n}": torch.zeros_like(state.tensors[name]) for name in self.rates for n in self.looks}
        return state

    @property
    def looks(self) -> tuple[int, ...]:
        """Steps after which what is learnt is kept to be looked at: a quarter and a half of them."""
        return tuple(n for n in dict.fromkeys((self.iterations // 4, self.iterations // 2)) if n)

    def step(self, state: LatentState) -> dict[str, float | Tensor]:
        """One step of what is learnt; its loss, and the norms of its gradients."""
        noise = self.noise_of(state, seeding.generator(state.seed, "noise", self._draw(state)))
        leaves = {name: tensor.detach().requires_grad_(name in self.rates) for name, tensor in state.tensors.items()}
        pieces = [self._piece(leaves, noise, rows) for rows in self._rows(state)]
        with torch.set_grad_enabled(len(pieces) == 1):
            shown = [self.shown(state, *piece) for piece in pieces]
        metrics, slope = image_slope(self.objective, state, torch.cat(shown).detach())
        if slope is not None:
            slopes = slope.split([len(part) for part in shown])
            if len(pieces) > 1:
                shown = (self.shown(state, *piece) for piece in pieces)
            gradients = self._pulled(leaves, shown, slopes)
            self._descend(state, gradients)
            metrics |= {f"gradient_{name}": gradient.norm() for name, gradient in gradients.items()}
        state.step += 1
        if state.step in self.looks:
            for name in self.rates:
                state.course[f"{name}.{state.step}"] = state.tensors[name].clone()
        return metrics

    def finish(self, state: LatentState) -> SyntheticSet:
        """The images rendered from the noise of the seed, and what they were rendered from."""
        images, noise = self.rendering(state)
        place(state.inner, images)
        made = self.objective.finish(state.inner)
        told = {"method": self.name, "matching": self.matching, "iterations": state.step}
        kept = state.tensors | state.course | ({} if noise is None else {"noise": noise})
        kept = {name: tensor.detach().clone() for name, tensor in kept.items()}
        return replace(made, provenance=dict(made.provenance) | told, latents=kept)

    @torch.no_grad()
    def looked(self, prior: LatentDiffusion, made: SyntheticSet) -> dict[int, Tensor]:
        """Pixels (n, C, H, W) in [0, 1] of a finished set at `looks`, from the noise of its images."""
        found = {}
        for n in self.looks:
            tensors = made.latents | {name: made.latents[f"{name}.{n}"] for name in self.rates}
            found[n] = self.rendered(prior, tensors, made.latents.get("noise")).add(1).div(2).clamp(0, 1)
        return found

    @torch.no_grad()
    def rendering(self, state: LatentState) -> tuple[Tensor, Tensor | None]:
        """All images as they stand, from the noise of the seed, in the space of the real ones; and that noise."""
        noise = self.noise_of(state, seeding.generator(state.seed, "noise", "fixed"))
        return torch.cat([self.shown(state, *self._piece(state.tensors, noise, r)) for r in self._rows(state)]), noise

    def shown(self, state: LatentState, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W) in the space of the real ones, clamped to pixels that exist."""
        with torch.autocast(state.train.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            rendered = self.rendered(state.prior, tensors, noise)
        return state.train.space.encode(at_least_float32(rendered).add(1).div(2).clamp(0, 1))

    def encoded(self, state: LatentState) -> Tensor:
        """Latents of the initial real images, or Gaussian ones: (K * ipc, c, h, w)."""
        real = state.inner.images.detach()
        if self.init == "gaussian":
            shape = (len(real), *state.prior.latent_shape(state.train.shape))
            return torch.randn(shape, generator=seeding.generator(state.seed, "latents")).to(real.device)
        pixels = state.train.space.decode(real) * 2 - 1 if self.init_range == "signed" else real
        with torch.no_grad():
            return torch.cat([state.prior.encode(pixels[rows]) for rows in self._rows(state)])

    def _draw(self, state: LatentState) -> int | str:
        return state.step if self.noise == "fresh" else "fixed"

    def _rows(self, state: LatentState) -> list[slice]:
        """The images that are rendered together."""
        count = len(state.inner.images)
        size = self.chunk or count
        return [slice(at, at + size) for at in range(0, count, size)]

    def _piece(self, tensors: Mapping[str, Tensor], noise: Tensor | None, rows: slice) -> tuple:
        return {name: tensor[rows] for name, tensor in tensors.items()}, None if noise is None else noise[:, rows]

    def _pulled(
        self, leaves: Mapping[str, Tensor], shown: Iterable[Tensor], slopes: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """dL/d of what is learnt from dL/dS, piece by piece; a piece's graph is gone before the next is made."""
        wanted = [leaves[name] for name in self.rates]
        total = [torch.zeros_like(leaf) for leaf in wanted]
        for images, slope in zip(shown, slopes, strict=True):
            found = torch.autograd.grad(images, wanted, slope, materialize_grads=True)
            torch._foreach_add_(total, found)
        return dict(zip(self.rates, total, strict=True))

    @torch.no_grad()
    def _descend(self, state: LatentState, gradients: Mapping[str, Tensor]) -> None:
        """One step of SGD with momentum, or of Adam, on what is learnt."""
        for name, gradient in gradients.items():
            first, second = (state.moments[f"{name}.{kind}"] for kind in KINDS)
            if self.optimizer == "sgd":
                step = first.mul_(self.momentum).add_(gradient)
            else:
                first.lerp_(gradient, 1 - ADAM[0])
                second.lerp_(gradient.square(), 1 - ADAM[1])
                unbiased = [1 - beta ** (state.step + 1) for beta in ADAM]
                step = (first / unbiased[0]) / ((second / unbiased[1]).sqrt() + 1e-8)
            state.tensors[name].sub_(step, alpha=self.rates[name])
