"""DiM: the data set distilled into a generator (Wang et al. 2023)."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticStream
from ddlib.methods import _pool as networks
from ddlib.methods import objectives
from ddlib.methods._generative import Generative, stream
from ddlib.methods._pixels import require
from ddlib.models.passes import at_least_float32
from ddlib.pretraining import gan as adversarial
from ddlib.pretraining.gan import Pair

LOGITS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_probabilities": objectives.log_probability_distance,
    "logits": objectives.logit_distance,
    "standardised_logits": objectives.standardised_logit_distance,
    "divergence": objectives.probability_divergence,
}
"""Matches of paired logits."""

MATCHES = (*LOGITS, "class_means", "features", "gradients")

POOL = ("convnet", "resnet10", "resnet18", "resnet10_ap", "resnet18_ap")


@dataclass
class Distilling:
    """State of stage B: the GAN, and the network of the pool that is in use.

    drawn: the number of that network; -1 before the first.
    """

    pair: Pair
    kinds: tuple[networks.Architecture, ...]
    draw: Callable[[int], networks.Member]
    drawn: int = -1
    member: networks.Member | None = None

    @property
    def step(self) -> int:
        """Steps of the generator taken."""
        return self.pair.step

    def state_dict(self) -> dict[str, Tensor]:
        """The GAN with its optimisers, and the pool's network with its own."""
        network = {} if self.member is None else self.member.state_dict()
        found = self.pair.state_dict() | {"drawn": torch.tensor(self.drawn)}
        return found | {f"pool.{name}": value for name, value in network.items()}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.pair.load_state_dict(saved)
        self.drawn = int(saved["drawn"])
        self.member = None if self.drawn < 0 else self.draw(self.drawn)
        if self.member is not None:
            network = {name.removeprefix("pool."): t for name, t in saved.items() if name.startswith("pool.")}
            self.member.load_state_dict(network)


@dataclass(frozen=True, kw_only=True)
class DiM(Generative):
    """Stage B of DiM: the generator of a trained GAN goes on training, and its images come to be judged as real ones.

    For each minibatch (x, y), after `inner_steps` of SGD of the pool's network f on other real images:

        L_G = -mean s(x~) + CE(c(x~), y) + weight * match(f(A(x)), f(A(x~))),   x~ = G(z|y),

    with one augmentation A for the whole batch, then a step of the critic as in stage A.  The match that was published
    is the mean over images and classes of the squared difference of log-probabilities, image by image, each fake one
    with the real one of its place, and so of its label.  f is in training mode; f and the critic get no gradient from
    L_G.  The number of images per class has no part in any of this.

    iterations: steps of the generator, 100 epochs of CIFAR-10 as published; SVHN 114,400, MNIST and FashionMNIST
        93,700.
    batch_size: real images, and as many fakes, in each.
    lr: of both Adams, which go on with their moments of stage A.
    weight: lambda of the match, >= 0; with 0 the adversarial training goes on for as many steps, and no pool is used.
    match: "log_probabilities" (as published), "logits", "standardised_logits", "divergence" (KL), "class_means" (of
        log-probabilities), "features" (class means of the embedding) or "gradients" (of the convolutions' weights,
        absolute differences; published with a weight of 0.001).
    pool: the architectures; a new network's is drawn uniformly.
    refresh: steps that a network of the pool lives, one epoch as published.
    inner_steps: of its SGD before each match, >= 0.
    lr_pool, momentum_pool, decay_pool: of that SGD.
    width, depth: of the pool's ConvNet; None keeps its default.
    pool_width: channels of the first stage of the pool's ResNets.
    adversarial: whether L_G keeps its first two terms; without them the critic is not trained either.
    freeze_critic: whether the critic stays as stage A left it.
    compiled: whether the pool's networks go through `torch.compile`.

    Deviation from the published code: there, images in [-1, 1] are normalised with statistics of [0, 1] before the
    networks see them (`compat="official"`); here they are brought to [0, 1] first.  The published feature match cannot
    run, and is defined anew.  The networks are of the kind for small images on every data set: the published ones
    leave nothing of 28-pixel images.
    """

    name: ClassVar[str] = "dim"
    version: ClassVar[int] = 1
    iterations: int = 78_100
    batch_size: int = 64
    lr: float = 5e-6
    weight: float = 0.01
    match: str = "log_probabilities"
    pool: tuple[str, ...] = POOL
    refresh: int = 781
    inner_steps: int = 16
    lr_pool: float = 0.01
    momentum_pool: float = 0.9
    decay_pool: float = 5e-4
    width: int | None = None
    depth: int | None = None
    pool_width: int = 32
    adversarial: bool = True
    freeze_critic: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_size", "refresh", "pool_width"):
            require(name, value := getattr(self, name), value >= 1, ">= 1")
        for name in ("width", "depth"):
            require(name, value := getattr(self, name), value is None or value >= 1, ">= 1, or None")
        for name in ("iterations", "inner_steps", "weight", "decay_pool"):
            require(name, value := getattr(self, name), value >= 0, ">= 0")
        for name in ("lr", "lr_pool"):
            require(name, value := getattr(self, name), value > 0, "> 0")
        require("momentum_pool", self.momentum_pool, 0 <= self.momentum_pool < 1, "in [0, 1)")
        require("match", self.match, self.match in MATCHES, f"one of {', '.join(MATCHES)}")
        require("adversarial", self.adversarial, self.adversarial or self.weight > 0, "true where weight is 0")
        named = isinstance(self.pool, tuple | list) and bool(self.pool) and all(name in POOL for name in self.pool)
        require("pool", self.pool, named, f"a list of at least one of {', '.join(POOL)}")
        object.__setattr__(self, "pool", tuple(self.pool))

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Distilling:
        """The trained GAN with the step size of this stage; no network of the pool is drawn yet.

        Raises:
            ValueError: the GAN is of other data or of networks of another kind, the images do not fit a network of the
                pool, or there are fewer of them than `batch_size`.
        """
        require("batch_size", self.batch_size, self.batch_size <= len(train), f"at most {len(train)}, all images")
        pair = self.gan.restored(train, prerequisites["gan"], seed)
        for adam in (pair.generator_adam, pair.critic_adam):
            adam.param_groups[0]["lr"] = self.lr
        kinds = tuple(self._architecture(name, train) for name in self.pool)
        sgd = {"lr": self.lr_pool, "momentum": self.momentum_pool, "weight_decay": self.decay_pool}
        draw = functools.partial(networks.draw, kinds, seed, device=train.device, **sgd)
        return Distilling(pair, kinds, draw)

    def step(self, state: Distilling) -> dict[str, Tensor]:
        """One step of the generator, and one of the critic."""
        pair = state.pair
        train = pair.train
        rows = adversarial.minibatch(pair, self.batch_size, "dim")
        real, labels = adversarial.signed(train, rows), train.labels[rows]
        noise = adversarial.noise(pair, self.batch_size, "dim")
        metrics, loss = {}, torch.zeros((), device=train.device)
        if self.weight:
            metrics["pool_loss"] = self._train_pool(state)
        with self.gan.autocast(pair):
            fake = at_least_float32(pair.generator(noise, labels))
            if self.adversarial:
                loss = adversarial.generator_loss(pair.critic, fake, labels)
            if self.weight:
                metrics["match"] = self._match(state, real, fake, labels)
                loss = loss + self.weight * metrics["match"]
        adversarial.descend(loss, pair.generator, pair.generator_adam)
        if self.adversarial and not self.freeze_critic:
            metrics |= adversarial.critic_step(self.gan, pair, real, labels, "dim")
        pair.step += 1
        return {name: value.detach() for name, value in {"loss": loss, **metrics}.items()}

    def finish(self, state: Distilling) -> SyntheticStream:
        """The generator as it stands."""
        return stream(self, state.pair, iterations=state.step)

    def _architecture(self, name: str, train: ImageSet) -> networks.Architecture:
        options = {"width": self.pool_width, "norm": "batch"}
        if name == "convnet":
            given = {"width": self.width, "depth": self.depth}
            options = {option: value for option, value in given.items() if value is not None}
        told = tuple(sorted(options.items()))
        return networks.architecture(name, told, train.shape, train.num_classes, compiled=self.compiled)

    def _seen(self, state: Distilling, images: Tensor) -> Tensor:
        """Images in [-1, 1] as the pool's networks see them."""
        return state.pair.train.space.encode(images if self.compat == "official" else (images + 1) / 2)

    def _train_pool(self, state: Distilling) -> Tensor:
        """Draw a network where it is time for a new one, then train it; returns its last loss."""
        pair = state.pair
        number = pair.step // self.refresh
        if number != state.drawn:
            state.drawn, state.member = number, state.draw(number)
        stream = seeding.generator(pair.seed, "dim", "pool", pair.step)
        needed = self.inner_steps * self.batch_size
        rounds = -(-needed // len(pair.train))
        rows = torch.cat([torch.randperm(len(pair.train), generator=stream) for _ in range(rounds)] or [torch.empty(0)])
        rows = rows[:needed].long().to(pair.train.device).view(-1, self.batch_size)
        shown = lambda batch: self._seen(state, adversarial.signed(pair.train, batch))  # noqa: E731
        with self.gan.autocast(pair):
            return networks.train(state.member, pair.train, shown, rows, stream)

    def _match(self, state: Distilling, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """How differently the pool's network judges the fakes and the real images, under one augmentation."""
        pair, member = state.pair, state.member
        stream = seeding.generator(pair.seed, "dim", "match", pair.step)
        one = augmentation.draw(1, 1, size=real.shape[2:], strategy="color+crop+cutout", generator=stream)
        draws = one.rows(torch.zeros(len(real), dtype=torch.int64))
        real, fake = (augmentation.augment(self._seen(state, images), draws) for images in (real, fake))
        if self.match == "gradients":
            goal = member.gradients(real, labels, create_graph=False)
            return objectives.absolute_distance(goal, member.gradients(fake, labels, create_graph=True))
        judge = member.embedding if self.match == "features" else member.logits
        with torch.no_grad():
            goal = judge(real)
        found = judge(fake)
        if self.match in LOGITS:
            return LOGITS[self.match](goal, found)
        if self.match == "class_means":
            goal, found = goal.log_softmax(1), found.log_softmax(1)
        return objectives.class_mean_distance(goal, found, labels, pair.train.num_classes)
