"""Generative methods: the distilled thing is a generator, whose images are drawn while a network trains on them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticStream, generator_bytes
from ddlib.methods import objectives
from ddlib.methods.contract import Method, require
from ddlib.models import passes
from ddlib.models.passes import PRECISIONS, PureNetwork, at_least_float32, known_options
from ddlib.models.state import State
from ddlib.pretraining import gan as adversarial
from ddlib.pretraining.gan import Gan, Pair

STRATEGY = "color+crop"
"""Augmentation of DiM's students and pool: both transforms, for each image by itself."""

LOGITS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log_probabilities": objectives.log_probability_distance,
    "logits": objectives.logit_distance,
}
"""Matches of paired logits."""

MATCHES = (*LOGITS, "class_means", "features", "gradients")

POOL = ("convnet", "resnet10", "resnet18", "resnet10_ap", "resnet18_ap")

Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Generative(Method):
    """Settings of a GAN whose generator takes the place of a set, and of how it does.

    ipc: images per class in an epoch of a student, >= 1; nothing is distilled for it.
    redraw: epochs after which the images are drawn anew: 1 streams new ones all the time (as published), None draws
        exactly `ipc` images a class once.
    generator_width, latent, gan_iterations, gan_batch, gan_lr, beta1, beta2, gradient_penalty, precision: of the `Gan`.
    compat: "official" shows the departures of the published code from what is right; None: they are corrected.
    gans: how many GANs are trained, >= 1; distillation seed s begins from number s mod `gans`, so that an interval over
        seeds counts the chance of the adversarial training too.
    """

    deployment: ClassVar[tuple[str, ...]] = ("ipc", "redraw")
    retired: ClassVar[Mapping[str, Any]] = {"conditioning": "onehot"}
    later: ClassVar[Mapping[str, Any]] = {"gans": 1}
    ipc: int
    redraw: int | None = 1
    generator_width: int = 196
    latent: int = 100
    gan_iterations: int = 58_500
    gan_batch: int = 128
    gan_lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    gradient_penalty: float = 10.0
    precision: str = "float32"
    compat: str | None = None
    gans: int = 1

    def __post_init__(self) -> None:
        self.check(">= 1", "ipc", "generator_width", "latent", "gan_batch", "gans")
        self.check(">= 1, or None", "redraw")
        self.check(">= 0", "gan_iterations", "gradient_penalty")
        self.check("> 0", "gan_lr")
        self.check("in [0, 1)", "beta1", "beta2")
        self.check_choice("precision", PRECISIONS)
        require("compat", self.compat, self.compat in (None, "official"), "None or 'official'")

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
        """The trained GANs; the first, which has seed 0, is shared by rows whatever their `gans`."""
        others = {f"gan {number}": replace(self.gan, seed=number) for number in range(1, self.gans)}
        return {"gan": self.gan} | others

    def trained(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Pair:
        """The GAN that this seed begins from, as stage A left it."""
        return self.gan.restored(train, prerequisites[list(self.needs)[seed % self.gans]], seed)

    def bytes_stored(self, shape: tuple[int, int, int], num_classes: int) -> int:
        """Bytes of the generator for images of `shape` (C, H, W), as `SyntheticStream.bytes_stored` counts them."""
        return generator_bytes(shape=shape, num_classes=num_classes, width=self.generator_width, latent=self.latent)

    def deployed(self, pair: Pair, **provenance: Any) -> SyntheticStream:
        """The generator as it stands, with how it is used."""
        train: ImageSet = pair.train
        facts = {"method": self.name, "seed": pair.seed, "dataset": train.name, "gan_iterations": self.gan_iterations}
        return SyntheticStream(
            generator={name: tensor.detach().clone() for name, tensor in pair.generator.state_dict().items()},
            shape=train.shape,
            width=self.generator_width,
            latent=self.latent,
            class_names=train.class_names,
            space=train.space,
            strategy=STRATEGY,
            frozen_strategy=augmentation.strategy_for(train.name),
            ipc=self.ipc,
            redraw=self.redraw,
            provenance=facts | provenance,
        )


@dataclass(frozen=True, kw_only=True)
class PlainGan(Generative):
    """The GAN of DiM's stage A as it is: no network of a pool is matched."""

    name: ClassVar[str] = "gan"
    version: ClassVar[int] = 1
    iterations: ClassVar[int] = 1

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Pair:
        """The trained networks."""
        return self.trained(train, prerequisites, seed)

    def step(self, state: Pair) -> dict[str, float]:
        """Nothing changes."""
        state.step += 1
        return {}

    def finish(self, state: Pair) -> SyntheticStream:
        """The generator."""
        return self.deployed(state)


@functools.lru_cache(maxsize=16)
def member_functions(network: PureNetwork, compiled: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Functions of a kind of network in training mode, which are compiled once: logits, and mean cross-entropy.

    (parameters, buffers, images (B, C, H, W)) -> (B, K), and the same with labels (B,) -> ().
    """

    def loss(parameters: Tensors, buffers: Tensors, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(network.logits(parameters, buffers, images), labels)

    through = passes.compiled if compiled else lambda function: function
    return through(network.logits), through(loss)


@dataclass
class Member(State):
    """A network of the pool in use: parameters that ask for gradients, buffers, and their SGD."""

    counters: ClassVar[tuple[str, ...]] = ()
    network: PureNetwork
    compiled: bool
    parameters: Tensors
    buffers: Tensors
    sgd: torch.optim.SGD

    def logits(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in the networks' space; differentiable in the images alone."""
        return member_functions(self.network, self.compiled)[0](self._frozen(), self.buffers, self.arranged(images))

    def embedding(self, images: Tensor) -> Tensor:
        """Embeddings (B, F), differentiable in the images alone."""
        return self.network.embedding(self._frozen(), self.buffers, self.arranged(images))

    def gradients(self, images: Tensor, labels: Tensor, *, create_graph: bool) -> list[Tensor]:
        """Gradients of the mean cross-entropy by the weights of more than two dimensions: the convolutions'."""
        weights = [value for value in self.parameters.values() if value.dim() > 2]
        logits = member_functions(self.network, self.compiled)[0](self.parameters, self.buffers, self.arranged(images))
        return [*torch.autograd.grad(F.cross_entropy(logits, labels), weights, create_graph=create_graph)]

    def descend(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of SGD on the mean cross-entropy, which is returned, (); gradients stay, to be overwritten."""
        loss, values, count = member_functions(self.network, self.compiled)[1], [*self.parameters.values()], len(images)
        size = count if self.network.whole_batches else passes.size(count, self.network.elements, images.device)
        total, gradients = 0.0, None
        for part, own in zip(self.arranged(images).split(size), labels.split(size), strict=True):
            share = loss(self.parameters, self.buffers, part, own) * (len(part) / count)
            parts = torch.autograd.grad(share, values)
            gradients = parts if gradients is None else torch._foreach_add(gradients, parts)
            total = total + share.detach()
        for value, gradient in zip(values, gradients, strict=True):
            value.grad = gradient
        self.sgd.step()
        return total

    def arranged(self, images: Tensor) -> Tensor:
        """The images in the memory format of the network."""
        return images.contiguous(memory_format=memory_format(self.network))

    def _frozen(self) -> Tensors:
        return {name: value.detach() for name, value in self.parameters.items()}


def memory_format(network: PureNetwork) -> torch.memory_format:
    """Channels last where a mini-batch passes whole; pieces that stay in the cache are faster contiguous."""
    return torch.channels_last if network.whole_batches else torch.contiguous_format


@dataclass
class DiMState(State):
    """State of stage B: the GAN, and the network of the pool that is in use, of the number `drawn`; -1: none yet."""

    counters: ClassVar[tuple[str, ...]] = ("drawn",)
    pair: Pair
    draw: Callable[[int], Member]
    drawn: int = -1
    member: Member | None = None

    @property
    def step(self) -> int:
        """Steps of the generator taken."""
        return self.pair.step

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        drawn = int(saved["drawn"])
        self.member = None if drawn < 0 else self.draw(drawn)
        super().load_state_dict(saved)


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
    match: "log_probabilities" (as published), "logits", "class_means" (of log-probabilities), "features" (class means
        of the embedding) or "gradients" (of the convolutions' weights; published with a weight of 0.001).
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
    version: ClassVar[int] = 2
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
        self.check(">= 1", "batch_size", "refresh", "pool_width")
        self.check(">= 1, or None", "width", "depth")
        self.check(">= 0", "iterations", "inner_steps", "weight", "decay_pool")
        self.check("> 0", "lr", "lr_pool")
        self.check("in [0, 1)", "momentum_pool")
        self.check_choice("match", MATCHES)
        require("adversarial", self.adversarial, self.adversarial or self.weight > 0, "true where weight is 0")
        known = isinstance(self.pool, tuple | list) and self.pool and all(name in POOL for name in self.pool)
        require("pool", self.pool, known, f"a list of at least one of {', '.join(POOL)}")
        object.__setattr__(self, "pool", tuple(self.pool))

    @property
    def pool_networks(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and options of each network of the pool."""
        resnet = {"width": self.pool_width, "norm": "batch", "pooling": "global", "weights": "fan_out"}
        convnet = known_options("convnet", width=self.width, depth=self.depth)
        return [(name, convnet if name == "convnet" else resnet) for name in self.pool]

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse images that no generator can be of, or too small for a network of the pool."""
        super().check_images(shape, num_classes)
        for name, options in self.pool_networks:
            models.check(name, shape=shape, num_classes=num_classes, **options)

    def check_train(self, train: ImageSet) -> None:
        """Refuse fewer images than `batch_size`."""
        require("batch_size", self.batch_size, self.batch_size <= len(train), f"at most {len(train)}, all images")

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> DiMState:
        """The trained GAN with the step size of this stage; fewer images than `batch_size` are refused."""
        self.check_train(train)
        pair = self.trained(train, prerequisites, seed)
        for adam in (pair.generator_adam, pair.critic_adam):
            adam.param_groups[0]["lr"] = self.lr
        networks = tuple(
            passes.pure(name, options, shape=train.shape, num_classes=train.num_classes)
            for name, options in self.pool_networks
        )
        return DiMState(pair, functools.partial(self.draw_member, networks, seed, train.device))

    def draw_member(self, networks: tuple[PureNetwork, ...], seed: int, device: torch.device, number: int) -> Member:
        """The pool's network of this number: a kind drawn uniformly, with fresh weights."""
        stream = seeding.generator(seed, "pool", number)
        network = networks[int(torch.randint(len(networks), (), generator=stream))]
        fresh = network.build(generator=stream).to(device, memory_format=memory_format(network))
        parameters = {name: value.detach().requires_grad_() for name, value in fresh.named_parameters()}
        sgd = torch.optim.SGD(
            [*parameters.values()], lr=self.lr_pool, momentum=self.momentum_pool, weight_decay=self.decay_pool
        )
        return Member(network, self.compiled, parameters, dict(fresh.named_buffers()), sgd)

    def step(self, state: DiMState) -> dict[str, Tensor]:
        """One step of the generator, down L_G, and one of the critic."""
        pair = state.pair
        train = pair.train
        rows = adversarial.minibatch(pair, self.batch_size, "dim")
        real, labels = adversarial.signed(train, rows), train.labels[rows]
        noise = adversarial.noise(pair, self.batch_size, "dim")
        metrics, loss = {}, torch.zeros((), device=train.device)
        if self.weight:
            metrics["pool_loss"] = self.train_member(state)
        with self.gan.autocast(pair):
            fake = at_least_float32(pair.generator(noise, labels))
            if self.adversarial:
                loss = adversarial.generator_loss(pair.critic, fake, labels)
            if self.weight:
                metrics["match"] = self.match_loss(state, real, fake, labels)
                loss = loss + self.weight * metrics["match"]
        adversarial.descend(loss, pair.generator, pair.generator_adam)
        if self.adversarial and not self.freeze_critic:
            metrics |= adversarial.critic_step(self.gan, pair, real, labels, "dim")
        pair.step += 1
        return {name: value.detach() for name, value in {"loss": loss, **metrics}.items()}

    def train_member(self, state: DiMState) -> Tensor:
        """Draw a network where it is time for a new one, and train it on augmented real images; its last loss, ()."""
        pair, train, size = state.pair, state.pair.train, self.batch_size
        number = pair.step // self.refresh
        if number != state.drawn:
            state.drawn, state.member = number, state.draw(number)
        stream = seeding.generator(pair.seed, "dim", "pool", pair.step)
        rounds = -(-self.inner_steps * size // len(train))  # over the data, which may be fewer than are needed
        orders = [torch.randperm(len(train), generator=stream) for _ in range(rounds)]
        loss = torch.zeros((), device=train.device)
        with self.gan.autocast(pair):
            for rows in torch.cat(orders).to(train.device).split(size)[: self.inner_steps] if orders else ():
                draws = augmentation.draw(1, size, size=train.shape[1:], strategy=STRATEGY, generator=stream)
                images = self.encoded(train, adversarial.signed(train, rows))
                loss = state.member.descend(augmentation.augment(images, draws), train.labels[rows])
        state.member.sgd.zero_grad()
        return loss

    def match_loss(self, state: DiMState, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """How differently the pool's network judges the fakes and the real images, under one augmentation."""
        train, member = state.pair.train, state.member
        stream = seeding.generator(state.pair.seed, "dim", "match", state.pair.step)
        draw = augmentation.draw(1, 1, size=real.shape[2:], strategy="color+crop+cutout", generator=stream)
        draws = draw.rows(torch.zeros(len(real), dtype=torch.int64))
        real, fake = (augmentation.augment(self.encoded(train, images), draws) for images in (real, fake))
        if self.match == "gradients":
            target = member.gradients(real, labels, create_graph=False)
            return objectives.absolute_distance(target, member.gradients(fake, labels, create_graph=True))
        output = member.embedding if self.match == "features" else member.logits
        with torch.no_grad():
            real = output(real)
        fake = output(fake)
        if self.match in LOGITS:
            return LOGITS[self.match](real, fake)
        if self.match == "class_means":
            real, fake = real.log_softmax(1), fake.log_softmax(1)
        return objectives.class_mean_distance(real, fake, labels, train.num_classes)

    def encoded(self, train: ImageSet, images: Tensor) -> Tensor:
        """Images in [-1, 1] in the space of the pool's networks."""
        return train.space.encode(images if self.compat == "official" else (images + 1) / 2)

    def finish(self, state: DiMState) -> SyntheticStream:
        """The generator as it stands."""
        return self.deployed(state.pair, iterations=state.step)
