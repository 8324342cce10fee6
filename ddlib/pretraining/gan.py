"""Adversarial training of a conditional GAN: AC-GAN's class terms with WGAN-GP's critic, stage A of DiM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.data.datasets import ImageSet
from ddlib.models import passes
from ddlib.models.gan import Critic, Generator
from ddlib.models.passes import at_least_float32
from ddlib.models.state import State
from ddlib.pretraining import Prerequisite


@dataclass
class Pair(State):
    """State of adversarial training: generator, critic and their optimisers."""

    train: ImageSet
    seed: int
    generator: Generator
    critic: Critic
    generator_adam: torch.optim.Adam
    critic_adam: torch.optim.Adam
    order: tuple[int, Tensor | None] = (-1, None)  # the number of an epoch, and the rows of its real mini-batches
    step: int = 0

    def networks(self) -> dict[str, tuple[nn.Module, torch.optim.Adam]]:
        """Name -> network and its optimiser."""
        return {"generator": (self.generator, self.generator_adam), "critic": (self.critic, self.critic_adam)}

    def state_dict(self) -> dict[str, Tensor]:
        """Both networks, the moments of both optimisers, and the step."""
        saved = {"step": torch.tensor(self.step)}
        for name, (network, adam) in self.networks().items():
            saved |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
            saved |= {f"{name}_adam.{key}": value for key, value in moments(network, adam).items()}
        return saved

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = int(saved["step"])
        for name, (network, adam) in self.networks().items():
            network.load_state_dict(_under(f"{name}.", saved))
            load_moments(network, adam, _under(f"{name}_adam.", saved))


@dataclass(frozen=True, kw_only=True)
class Gan(Prerequisite):
    """Stage A of DiM (Wang et al. 2023): a conditional GAN trained on the real training set.

    Per minibatch (x, y), generator first: z|y with the minibatch's labels,

        L_G = -mean s(G(z|y)) + CE(c(G(z|y)), y),

    then, with fresh labels y' and noise, fakes x' without gradient and x^ between x and x' (`critic_loss`),

        L_D = mean s(x') - mean s(x) + CE(c(x'), y') + CE(c(x), y) + 10 mean_i (||grad s(x^_i)|| - 1)^2.

    iterations: minibatches, the published 150 epochs of CIFAR-10; MNIST and FashionMNIST 70,200, SVHN 85,800.
    batch_size: of real images, each seen once an epoch; what is left over at an epoch's end is dropped.
    width, latent: channels of both networks, and values of noise.
    conditioning: "onehot", how the class stands in the noise; nothing else is known.
    lr, beta1, beta2: of both Adams, constant.
    precision: of convolutions and products; norms, losses and weights are float32 always.
    """

    name: ClassVar[str] = "gan"
    version: ClassVar[int] = 1
    iterations: int = 58_500
    batch_size: int = 128
    width: int = 196
    latent: int = 100
    conditioning: str = "onehot"
    lr: float = 1e-4
    beta1: float = 0.0
    beta2: float = 0.9
    gradient_penalty: float = 10.0
    precision: str = "float32"
    seed: int = 0

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Pair:
        """Untrained networks; whitened images, or fewer than a minibatch, are refused with a ValueError."""
        if train.space.zca is not None:
            raise ValueError(f"the images are {train.space.name}; a GAN makes pixels: load them with whitened: false")
        if len(train) < self.batch_size:
            raise ValueError(f"batch_size={self.batch_size!r}; it must be at most {len(train)}, the number of images")
        stream = seeding.generator(seed, "gan", "networks")
        options = {"shape": train.shape, "num_classes": train.num_classes, "width": self.width}
        with torch.device("meta"):  # the constructors draw nothing here
            generator = Generator(**options, latent=self.latent)
            critic = Critic(**options)
        for network in (generator, critic):
            models.reset(network.to_empty(device="cpu"), stream)
            network.to(train.device, memory_format=torch.channels_last)
        adams = [torch.optim.Adam(n.parameters(), self.lr, (self.beta1, self.beta2)) for n in (generator, critic)]
        return Pair(train, seed, generator, critic, *adams)

    def step(self, state: Pair) -> dict[str, Tensor]:
        """One minibatch: a step of the generator, then one of the critic."""
        rows = minibatch(state, self.batch_size, "gan")
        real, labels = signed(state.train, rows), state.train.labels[rows]
        with self.autocast(state):
            loss = generator_loss(state.critic, state.generator(noise(state, self.batch_size, "gan"), labels), labels)
        descend(loss, state.generator, state.generator_adam)
        metrics = critic_step(self, state, real, labels, "gan")
        state.step += 1
        return {"loss": loss.detach()} | metrics

    def finish(self, state: Pair) -> dict[str, Tensor]:
        """Weights and buffers of both networks, both optimisers' moments, and the fingerprint of the data."""
        tensors = {name: tensor.detach().clone() for name, tensor in state.state_dict().items() if name != "step"}
        return tensors | {"data": _coded(state.train)}

    def restored(self, train: ImageSet, artefact: Mapping[str, Tensor], seed: int) -> Pair:
        """The networks and optimisers as `finish` gave them, at step 0; those of other data are refused."""
        if not torch.equal(artefact.get("data", torch.empty(0)).cpu(), _coded(train)):
            raise ValueError(f"the GAN was trained on other data than {train.name} as it is here; train one on it")
        state = self.start(train, {}, seed)
        state.load_state_dict(dict(artefact) | {"step": torch.tensor(0)})
        return state

    def autocast(self, state: Pair) -> torch.autocast:
        """Where networks run: in bfloat16 without autocast's cache, which keeps what weights were before a step."""
        lower, device = self.precision == "bfloat16", state.train.device.type
        return torch.autocast(device, torch.bfloat16, enabled=lower, cache_enabled=False)


def generator_loss(critic: Critic, fake: Tensor, labels: Tensor) -> Tensor:
    """-mean s(fake) + CE(c(fake), labels), of images (B, C, H, W) in [-1, 1] and the labels (B,) they should have."""
    scores, logits = critic(fake)
    return F.cross_entropy(at_least_float32(logits), labels) - at_least_float32(scores).mean()


def critic_loss(critic: Critic, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> Tensor:
    """mean s(fake) - mean s(real) + CE of both, of images (B, C, H, W) in [-1, 1] with their labels (B,)."""
    scores, logits = critic(torch.cat([fake[0], real[0]]))
    scores, logits = at_least_float32(scores).chunk(2), at_least_float32(logits).chunk(2)
    classes = F.cross_entropy(logits[0], fake[1]) + F.cross_entropy(logits[1], real[1])
    return scores[0].mean() - scores[1].mean() + classes


def gradient_penalty(critic: Critic, images: Tensor) -> Tensor:
    """mean_i (||grad s(x_i)||_2 - 1)^2 (WGAN-GP, Gulrajani et al. 2017), of images (B, C, H, W)."""
    images = images.detach().requires_grad_()
    (gradients,) = torch.autograd.grad(critic(images)[0].sum(), images, create_graph=True)
    return (at_least_float32(gradients).flatten(1).norm(dim=1) - 1).square().mean()


def critic_step(gan: Gan, state: Pair, real: Tensor, labels: Tensor, name: str) -> dict[str, Tensor]:
    """One step of the critic on a real minibatch and as many fakes of fresh labels, made without gradient.

    Fakes are paired with real images whatever the labels, and made in training mode, as published.  `name`: of the
    random streams.
    """
    stream = seeding.generator(state.seed, name, "critic", state.step)
    size, device, critic = len(real), real.device, state.critic
    fake_labels = torch.randint(state.train.num_classes, (size,), generator=stream).to(device)
    z = torch.randn(size, state.generator.latent, generator=stream).to(device)
    between = torch.rand(size, 1, 1, 1, generator=stream).to(device)
    parameters = [*critic.parameters()]
    with gan.autocast(state):
        with torch.no_grad():
            fake = at_least_float32(state.generator(z, fake_labels))
        loss = critic_loss(critic, (real, labels), (fake, fake_labels))
    gradients = [*torch.autograd.grad(loss, parameters)]
    penalty = torch.zeros((), device=device)
    for part in (between * real + (1 - between) * fake).split(passes.size(size, critic.elements, device)):
        with gan.autocast(state):
            share = gradient_penalty(critic, part) * (len(part) / size)
        more = torch.autograd.grad(gan.gradient_penalty * share, parameters, materialize_grads=True)
        torch._foreach_add_(gradients, more)
        penalty += share.detach()
    _update(state.critic_adam, parameters, gradients)
    return {"critic_loss": loss.detach(), "penalty": penalty}


def descend(loss: Tensor, network: nn.Module, adam: torch.optim.Optimizer) -> None:
    """One step of `adam` on the parameters of `network`; no other parameter gets a gradient."""
    parameters = [*network.parameters()]
    _update(adam, parameters, torch.autograd.grad(loss, parameters))


def _update(adam: torch.optim.Optimizer, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    adam.step()
    adam.zero_grad()


def minibatch(state: Pair, size: int, name: str) -> Tensor:
    """Rows of the real images of this step: (size,) int64; an epoch goes over them once in a random order."""
    each = len(state.train) // size
    epoch, at = divmod(state.step, each)
    if state.order[0] != epoch:
        stream = seeding.generator(state.seed, name, "shuffle", epoch)
        state.order = epoch, torch.randperm(len(state.train), generator=stream).to(state.train.device)
    return state.order[1][at * size : (at + 1) * size]


def noise(state: Pair, size: int, name: str) -> Tensor:
    """Standard normal noise of this step for the generator's own update: (size, latent)."""
    stream = seeding.generator(state.seed, name, "noise", state.step)
    return torch.randn(size, state.generator.latent, generator=stream).to(state.train.device)


def signed(train: ImageSet, rows: Tensor) -> Tensor:
    """Real images in [-1, 1]: (B, C, H, W) float32, channels_last."""
    raw = train.images.dtype == torch.uint8
    pixels = train.images[rows].float().div_(255) if raw else train.space.decode(train.take(rows))
    return pixels.mul(2).sub(1).contiguous(memory_format=torch.channels_last)


def moments(network: nn.Module, adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's moments and step counts by parameter; zero before the first step, as Adam takes them itself."""
    named = {}
    for name, parameter in network.named_parameters():
        zero = torch.zeros_like(parameter, requires_grad=False)
        state = adam.state.get(parameter) or {"step": torch.zeros(()), "exp_avg": zero, "exp_avg_sq": zero}
        named |= {f"{name}.{key}": value for key, value in state.items()}
    return named


def load_moments(network: nn.Module, adam: torch.optim.Adam, saved: Mapping[str, Tensor]) -> None:
    """Give `adam` the moments that `moments` gave."""
    for name, parameter in network.named_parameters():
        for key, value in _under(f"{name}.", saved).items():  # steps are counted on the CPU
            like = torch.empty_like(parameter, requires_grad=False)  # in the memory format of the parameter
            adam.state[parameter][key] = value.clone().cpu() if key == "step" else like.copy_(value)


def _under(prefix: str, saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What stands under a prefix, without it; deeper names are kept whole."""
    return {key.removeprefix(prefix): value for key, value in saved.items() if key.startswith(prefix)}


def _coded(train: ImageSet) -> Tensor:
    """The fingerprint of the data as bytes."""
    return torch.tensor(list(train.fingerprint.encode()), dtype=torch.uint8)
