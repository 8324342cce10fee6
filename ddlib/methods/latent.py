"""Latent matching: LD3M and GLaD learn what a frozen generator renders images from, and match in pixels.

The loss is that of DM, DSA or MTT on the rendered images; its gradient goes on through the rendering.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import coresets
from ddlib.methods.contract import fill, require
from ddlib.methods.feature_matching import DM
from ddlib.methods.gradient_matching import DSA
from ddlib.methods.pixels import NetworkMatching, PixelState, sgd
from ddlib.methods.sampler import Sampler
from ddlib.methods.trajectory_matching import MTT, MatchingState
from ddlib.models.diffusion import LatentDiffusion
from ddlib.models.passes import at_least_float32
from ddlib.models.priors import fingerprint, load_prior
from ddlib.models.state import State
from ddlib.pretraining.prior import Prior, class_ids

MATCHINGS = {"dm": DM, "dc": DSA, "mtt": MTT}
"""Loss -> the method of pixels that it is of; all augment by DSA, and the papers call the second DC all the same."""

OPTIMIZERS = ("sgd", "adam")
INITS = ("encoded", "gaussian")
LEARN = ("Z+c", "Z", "c")

ADAM = (0.9, 0.999)
"""Decay of Adam's moments."""

OWN = (
    *("ipc", "iterations", "batch_real", "network", "norm", "width", "depth", "strategy", "precision", "compiled"),
    *("init", "lr_images", "momentum", "restarts", "matching_steps", "network_epochs"),
)
"""Settings that `options` may not give."""


@dataclass
class LatentState(State):
    """What changes while latents are learnt."""

    fixed: ClassVar[tuple[str, ...]] = ("prior",)
    train: ImageSet
    seed: int
    prior: LatentDiffusion
    inner: PixelState | MatchingState  # of the matching, whose images are those rendered last
    tensors: dict[str, Tensor] = field(default_factory=dict)  # what is rendered, (K * ipc, ...); not all need be learnt
    course: dict[str, Tensor] = field(default_factory=dict)  # "name.step": what was learnt by then, zero before
    first: dict[str, Tensor] = field(default_factory=dict)  # SGD's velocity, or the first of Adam's moments
    second: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class LatentMatching(NetworkMatching):
    """Learn what a frozen generator renders images from, down the gradient of a loss that is matched in pixels.

    Each step: images S are rendered; the loss L of `matching` and dL/dS, as that method has them in pixels; dL/dS
    pushed through the rendering of the same noise; one step of the learnt tensors.

    matching: "dm", "dc" or "mtt".
    options: further settings of that method, such as {"syn_steps": 10, "max_start_epoch": 2}.
    iterations: steps, >= 0.
    lr: step size of the learnt tensors, > 0; None: the published one of this matching.
    momentum: of their SGD, in [0, 1).
    optimizer: "sgd", or "adam" for priors that are not the paper's, whose gradients have another size.
    init: "encoded" (random real images, encoded), "gaussian" (noise in their place).
    chunk: images rendered at once with their graph, >= 1, as published 10; None: all, and rendered once a step.
    batch_real: real images per class and step, >= 1.
    prior: settings of the `Prior` that is trained; or a folder or hub id that `models.priors.load_prior` takes.
    """

    whitening: ClassVar[bool | str] = False
    retired: ClassVar[Mapping[str, Any]] = {"init_range": "signed", "noise": "fresh"}
    published_lr: ClassVar[Mapping[str, float]] = {}
    matching: str = "dm"
    options: Mapping[str, Any] = field(default_factory=dict)
    iterations: int = 10_000
    lr: float | None = None
    momentum: float = 0.5
    optimizer: str = "sgd"
    init: str = "encoded"
    chunk: int | None = None
    batch_real: int = 256
    prior: str | dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(">= 1", "batch_real")
        self.check(">= 0", "iterations")
        self.check("in [0, 1)", "momentum")
        self.check(">= 1, or None", "chunk")
        for name, choices in {"matching": MATCHINGS, "optimizer": OPTIMIZERS, "init": INITS}.items():
            self.check_choice(name, choices)
        if self.lr is None:
            object.__setattr__(self, "lr", self.published_lr[self.matching])
        self.check("> 0", "lr")
        object.__setattr__(self, "options", dict(self.options))
        _ = self.objective, self.needs  # these refuse what they cannot be

    @property
    def condition(self) -> str:
        """The loss that is matched: papers have a row for each."""
        return self.matching

    @cached_property
    def objective(self) -> DM | DSA | MTT:
        """The method of pixels whose loss is matched; `options` that it does not know are refused."""
        for name in self.options:
            require("options", name, name not in OWN, f"without {', '.join(OWN)}")
        names = ("ipc", "network", "norm", "width", "depth", "strategy", "precision")
        settings = {name: getattr(self, name) for name in names} | self.options
        if self.matching != "mtt":
            settings |= {"batch_real": self.batch_real, "init": "real"}
        if self.matching == "dc":  # a network a step, never trained, whatever the images per class: as published
            settings |= {"matching_steps": 1, "network_epochs": 1}
        objective = fill(MATCHINGS[self.matching], f"options of matching={self.matching!r}", settings)
        if self.matching == "mtt":
            require("labels", objective.labels, objective.labels == "hard", "'hard' in options")
        return objective

    @property
    def needs(self) -> Mapping[str, Any]:
        """The prior, where it is trained, and what the matching needs."""
        return ({} if self.trained is None else {"prior": self.trained}) | dict(self.objective.needs)

    @property
    def trained(self) -> Prior | None:
        """The prior that is trained; None: it is one that is there."""
        if isinstance(self.prior, str):
            return None
        return fill(Prior, "the prior", {"precision": self.precision} | self.prior)

    @property
    def fingerprint(self) -> str | None:
        """Of the files of a prior that is there; None where it is trained."""
        return fingerprint(self.prior) if isinstance(self.prior, str) else None

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse images that the prior cannot be trained on, and what the matching refuses."""
        super().check_images(shape, num_classes)
        self.objective.check_images(shape, num_classes)
        if self.trained is not None:
            self.trained.check_shape(shape)

    def check_train(self, train: ImageSet) -> None:
        """Refuse more images per class than there are, and a prior that is not there or does not fit them."""
        super().check_train(train)
        if self.trained is None:
            self.check_prior(load_prior(self.prior, device="meta"), train)

    def check_prior(self, prior: LatentDiffusion, train: ImageSet) -> None:
        """Refuse a prior that cannot make the images; its weights are not read."""
        prior.latent_shape(train.shape)

    @property
    @abstractmethod
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""

    @abstractmethod
    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """The tensors from which the initial images are rendered."""

    def noise(self, state: LatentState, *names: str | int) -> Tensor | None:
        """The noise of one rendering of all images, (n, K * ipc, ...), from the stream of these names; None: none."""
        return None

    @abstractmethod
    def render(self, prior: LatentDiffusion, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""

    @property
    def course_steps(self) -> tuple[int, ...]:
        """Steps after which what is learnt is kept to be looked at: a quarter and a half of them."""
        return tuple(n for n in dict.fromkeys((self.iterations // 4, self.iterations // 2)) if n)

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> LatentState:
        """The tensors from which the initial images are rendered; a prior that does not fit the images is refused."""
        require("the images", train.space.name, train.space.zca is None, "normalised: load them with whitened: false")
        prior = load_prior(self.prior) if self.trained is None else prerequisites["prior"]
        prior = prior.to(train.device)
        self.check_prior(prior, train)
        state = LatentState(train, seed, prior, self.objective.start(train, prerequisites, seed))
        state.tensors = {name: tensor.contiguous() for name, tensor in self.initial(state).items()}  # as once loaded
        learnt = {name: state.tensors[name] for name in self.rates}
        state.first, state.second = ({name: torch.zeros_like(t) for name, t in learnt.items()} for _ in range(2))
        state.course = {f"{name}.{n}": torch.zeros_like(t) for name, t in learnt.items() for n in self.course_steps}
        return state

    def step(self, state: LatentState) -> dict[str, float | Tensor]:
        """One step of what is learnt; its loss, and the norms of its gradients.

        Chunks are rendered twice: all without a graph, for dL/dS, then each with one, which is gone before the next.
        """
        noise = self.noise(state, "noise", state.step)
        leaves = {name: tensor.detach().requires_grad_(name in self.rates) for name, tensor in state.tensors.items()}
        learnt, chunks = [leaves[name] for name in self.rates], self._chunks(state)
        with torch.set_grad_enabled(len(chunks) == 1):
            images = [self.images(state, *_rows_of(leaves, noise, rows)) for rows in chunks]
        self._place(state, torch.cat(images).detach())
        metrics, slope = self.objective.loss_and_gradient(state.inner)
        if slope is not None:
            gradients = [torch.zeros_like(leaf) for leaf in learnt]
            for rows, chunk in zip(chunks, images, strict=True):
                again = chunk if len(chunks) == 1 else self.images(state, *_rows_of(leaves, noise, rows))
                parts = torch.autograd.grad(again, learnt, slope[rows], materialize_grads=True)
                torch._foreach_add_(gradients, parts)
            self.descend(state, dict(zip(self.rates, gradients, strict=True)))
            metrics |= {f"gradient_{name}": g.norm() for name, g in zip(self.rates, gradients, strict=True)}
        state.step += 1
        if state.step in self.course_steps:
            for name in self.rates:
                state.course[f"{name}.{state.step}"] = state.tensors[name].clone()
        return metrics

    @torch.no_grad()
    def descend(self, state: LatentState, gradients: Mapping[str, Tensor]) -> None:
        """One step of SGD with momentum, or of Adam, on what is learnt."""
        for name, gradient in gradients.items():
            tensor, first, second = state.tensors[name], state.first[name], state.second[name]
            if self.optimizer == "sgd":
                sgd(tensor, first, gradient, self.rates[name], self.momentum)
                continue
            first.lerp_(gradient, 1 - ADAM[0])
            second.lerp_(gradient.square(), 1 - ADAM[1])
            unbiased = [1 - beta ** (state.step + 1) for beta in ADAM]
            tensor.sub_((first / unbiased[0]) / ((second / unbiased[1]).sqrt() + 1e-8), alpha=self.rates[name])

    def finish(self, state: LatentState) -> SyntheticSet:
        """The images rendered from the noise of the seed, and what they were rendered from."""
        images, noise = self.rendering(state)
        self._place(state, images)
        synthetic = self.objective.finish(state.inner)
        facts = {"method": self.name, "matching": self.matching, "iterations": state.step}
        tensors = state.tensors | state.course | ({} if noise is None else {"noise": noise})
        latents = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        return replace(synthetic, provenance=dict(synthetic.provenance) | facts, latents=latents)

    @torch.no_grad()
    def course_images(self, prior: LatentDiffusion, synthetic: SyntheticSet) -> dict[int, Tensor]:
        """Pixels (n, C, H, W) in [0, 1] of a finished set after each of `course_steps`."""
        images = {}
        for n in self.course_steps:
            tensors = synthetic.latents | {name: synthetic.latents[f"{name}.{n}"] for name in self.rates}
            images[n] = _pixels(self.render(prior, tensors, synthetic.latents.get("noise")))
        return images

    @torch.no_grad()
    def rendering(self, state: LatentState) -> tuple[Tensor, Tensor | None]:
        """All images as they stand, from the noise of the seed, in the space of the real ones; and that noise."""
        noise = self.noise(state, "noise", "fixed")
        chunks = [self.images(state, *_rows_of(state.tensors, noise, rows)) for rows in self._chunks(state)]
        return torch.cat(chunks), noise

    def images(self, state: LatentState, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W) in the space of the real ones, clamped to pixels that exist."""
        with self.autocast(state.train.device):
            rendered = self.render(state.prior, tensors, noise)
        return state.train.space.encode(_pixels(at_least_float32(rendered)))

    def encoded(self, state: LatentState) -> Tensor:
        """Latents of the initial real images, or Gaussian ones: (K * ipc, c, h, w)."""
        real = state.inner.images.detach()
        if self.init == "gaussian":
            shape = (len(real), *state.prior.latent_shape(state.train.shape))
            return torch.randn(shape, generator=seeding.generator(state.seed, "latents")).to(real.device)
        signed = state.train.space.decode(real) * 2 - 1  # in [-1, 1], as the encoder was trained
        with torch.no_grad():
            return torch.cat([state.prior.encode(signed[rows]) for rows in self._chunks(state)])

    def _chunks(self, state: LatentState) -> list[slice]:
        count = len(state.inner.images)
        size = self.chunk or count
        return [slice(at, at + size) for at in range(0, count, size)]

    @torch.no_grad()
    def _place(self, state: LatentState, images: Tensor) -> None:
        """Let `images` be those that are matched, in this step."""
        state.inner.images.copy_(images)
        state.inner.step = state.step


def _rows_of(tensors: Mapping[str, Tensor], noise: Tensor | None, rows: slice) -> tuple[dict[str, Tensor], Any]:
    """What the images of `rows` are rendered from."""
    return {name: tensor[rows] for name, tensor in tensors.items()}, None if noise is None else noise[:, rows]


def _pixels(rendered: Tensor) -> Tensor:
    """Images of about [-1, 1] as pixels in [0, 1]."""
    return rendered.add(1).div(2).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LD3M(LatentMatching):
    """LD3M (Moser et al. 2024): learn a latent Z and a class vector c for each image, S = D(sample(Z, c)).

    The sampling, with its residual connections, is `ddlib.methods.sampler.Sampler`.
    Z starts as the encoding of a real image of the class, c as the vector of the class.  Each step draws one noise,
    with which Z is brought to the noise level of t_K before it is sampled down again.

    Defaults: DM at 128 pixels (10 steps of DDIM, step size 1), by the published code; at 256 pixels `steps` is 20.

    Deviations: one noise a step where the published code has two, so that its gradient is of other images than the
    loss; real and synthetic images are normalised alike; the encoder is shown pixels in [-1, 1], as it was trained,
    where the published code gives it normalised ones.

    steps: K of `Sampler` (the paper's T); a divisor of the schedule's 1,000.
    residual: "x0" as the published code, "eq7" as the paper writes it, "none": the unmodified sampler.
    guidance: of the classes; 1: none.
    backprop_steps: the last calls of the noise predictor that carry gradient; None: all.  Of two, the gradient of Z is
        nearly the whole one; that of c points elsewhere.
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
        self.check_choice("learn", LEARN)
        if self.lr_c is None:
            object.__setattr__(self, "lr_c", self.lr)
        self.check("> 0", "lr_c")
        sampler = self.sampler  # refuses what it cannot be
        if self.trained is not None:
            sampler.times()
            known = self.trained.conditional or self.learn == "Z"
            require("learn", self.learn, known, "'Z' with an unconditional prior")

    @property
    def sampler(self) -> Sampler:
        """How images are sampled."""
        return Sampler(
            steps=self.steps,
            residual=self.residual,
            guidance=self.guidance,
            backprop_steps=self.backprop_steps,
            checkpointed=self.checkpointed,
        )

    @property
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""
        return {name: rate for name, rate in (("Z", self.lr), ("c", self.lr_c)) if name in self.learn.split("+")}

    def check_prior(self, prior: LatentDiffusion, train: ImageSet) -> None:
        """Refuse, besides, a prior of other classes, and a schedule that `steps` does not divide."""
        super().check_prior(prior, train)
        self.sampler.times(len(prior.alphas_cumprod))
        ids = class_ids(prior, train)
        require("learn", self.learn, ids is not None or self.learn == "Z", "'Z' with an unconditional prior")

    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """Z (K * ipc, c, h, w), and, unless the prior is unconditional, c (K * ipc, 1, D)."""
        ids = class_ids(state.prior, state.train)
        if ids is None:
            return {"Z": self.encoded(state)}
        labels = coresets.class_major_labels(state.train, self.ipc)
        return {"Z": self.encoded(state), "c": state.prior.embed(ids[labels]).detach().clone()}

    def noise(self, state: LatentState, *names: str | int) -> Tensor:
        """All noise of one sampling of all images."""
        stream = seeding.generator(state.seed, *names)
        return self.sampler.noise(state.tensors["Z"].shape, stream).to(state.train.device)

    def render(self, prior: LatentDiffusion, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""
        return self.sampler.render(prior, tensors["Z"], tensors.get("c"), noise)


@dataclass(frozen=True, kw_only=True)
class GLaD(LatentMatching):
    """GLaD (Cazenavette et al., CVPR 2023): learn what a generator's first stages make, S = G_L(... G_{layer+1}(f)).

    The generator is the decoder of the latent diffusion model that LD3M uses; with `layer=0` the latent itself is
    learnt, LD3M without diffusion.  f starts from the encoding of a real image of the class.

    Deviations: the decoder in place of StyleGAN-XL; images are clamped to pixels that exist.

    layer: stages of the generator that are left out, >= 0; published with StyleGAN-XL: DC 16, DM 20, MTT 12.
    """

    name: ClassVar[str] = "glad"
    version: ClassVar[int] = 1
    published_lr: ClassVar[Mapping[str, float]] = {"dc": 1.0, "dm": 10.0, "mtt": 10_000.0}
    layer: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(">= 0", "layer")

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse a layer that the decoder of the prior will not have."""
        super().check_images(shape, num_classes)
        if self.trained is not None:
            last = 3 + self.trained.factor_for(shape).bit_length()  # as `LatentDiffusion.stages` counts
            require("layer", self.layer, self.layer <= last, f"at most {last}, the stages of the prior's decoder")

    @property
    def rates(self) -> dict[str, float]:
        """What is learnt -> its step size."""
        return {"f": self.lr}

    def check_prior(self, prior: LatentDiffusion, train: ImageSet) -> None:
        """Refuse, besides, a layer that its decoder has not."""
        super().check_prior(prior, train)
        prior.check_layer(self.layer)

    @torch.no_grad()
    def initial(self, state: LatentState) -> dict[str, Tensor]:
        """f (K * ipc, channels, height, width) of the layer."""
        return {"f": state.prior.split_decode(self.encoded(state), self.layer)}

    def render(self, prior: LatentDiffusion, tensors: Mapping[str, Tensor], noise: Tensor | None) -> Tensor:
        """Images (B, C, H, W), about [-1, 1]."""
        return prior.decode_from(tensors["f"], self.layer)
