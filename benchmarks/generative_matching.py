"""One step of DiM's stage B, ours against a plain form of the published loop: time, memory, equality.

    OMP_NUM_THREADS=1 python -m benchmarks.generative_matching [--width 196] [--batch 64] [--size cifar10] [--repeats 2]

The reference does what the published code does: in each step of the generator a new loader over per-image transforms,
from which 16 mini-batches are taken; noise and class code made on the host image by image; one graph for everything,
so that the generator's step also makes weight gradients of the critic and of the pool's network, on its real branch
too, which are dropped; the gradient penalty in one pass; contiguous float32; three numbers read at each step.  Both
sides see the same images, noise and transforms, and are compared before they are timed: exactly in float64 at a
small size, and at full size in each precision with an untrained network of the pool (16 steps of SGD with batch norm
make of rounding what they will).  Times are medians of alternating steps in one process, for each network of the
pool; memory is the peak of a process of its own for each side.  The published loader has four workers; with
`--workers 0`, which flatters the reference, none has to be started, and on a machine that is shared `--clock cpu`
counts what the one process on its one thread computes.
"""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks import harness
from benchmarks.harness import CLASSES, CLOCKS
from ddlib import methods, models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.methods.generative import POOL, DiM, DiMState
from ddlib.models.gan import Critic, Generator
from ddlib.pretraining import gan as adversarial

OURS = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32 compiled": {"compiled": True},
    "bfloat16 compiled": {"precision": "bfloat16", "compiled": True},
}
SHAPES = {"cifar10": (3, 32, 32), "fashion_mnist": (1, 28, 28)}
IMAGES = 2048
LOSSES = ("loss", "critic_loss", "penalty")
TOLERANCE = 1e-6
"""Relative difference from the reference that is allowed in float64: of a loss, and of all gradients as a vector."""


class Pictures(Dataset):
    """Images one by one, each brought to [-1, 1]."""

    def __init__(self, train: ImageSet):
        self.images, self.labels = train.images.cpu(), train.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        pixels = self.images[row].to(torch.get_default_dtype()) / 255
        return pixels * 2 - 1, self.labels[row]


def plain_images(generator: Generator, z: Tensor, y: Tensor) -> Tensor:
    """Images of noise `z` whose first places are overwritten by the class code on the host, image by image."""
    for i, label in enumerate(y.tolist()):
        z[i, :CLASSES] = torch.tensor([float(k == label) for k in range(CLASSES)])
    x = F.relu(generator.project_norm(generator.project(z.to(harness.DEVICE))))
    return torch.tanh(generator.image(generator.blocks(x.view(-1, generator.width, 4, 4))))


class Plain:
    """Stage B as published: modules, `backward`, and a loader that is made anew in each step."""

    def __init__(self, method: DiM, state: DiMState, workers: int):
        self.method, self.train, self.workers = method, state.pair.train, workers
        shape = self.train.shape
        self.generator = Generator(shape=shape, num_classes=CLASSES, width=method.generator_width)
        self.critic = Critic(shape=shape, num_classes=CLASSES, width=method.generator_width)
        self.generator.load_state_dict(state.pair.generator.state_dict())
        self.critic.load_state_dict(state.pair.critic.state_dict())
        for network in (self.generator, self.critic):
            network.to(harness.DEVICE)
        betas = method.beta1, method.beta2
        self.adams = [torch.optim.Adam(n.parameters(), method.lr, betas) for n in (self.generator, self.critic)]
        stream = seeding.generator(0, "pool", 0)
        torch.randint(1, (), generator=stream)  # of the one architecture
        options = {"width": method.pool_width, "norm": "batch", "pooling": "global", "weights": "fan_out"}
        if method.pool == ("convnet",):
            options = {"width": method.width} if method.width else {}
        options |= {"generator": stream, "shape": shape, "num_classes": CLASSES}
        self.network = models.build(method.pool[0], **options).train().to(harness.DEVICE)
        settings = {"momentum": method.momentum_pool, "weight_decay": method.decay_pool}
        self.sgd = torch.optim.SGD(self.network.parameters(), method.lr_pool, **settings)

    def inner(self, step: int) -> None:
        """SGD steps of the network on mini-batches of a new loader."""
        stream = seeding.generator(0, "dim", "pool", step)
        order = torch.randperm(len(self.train), generator=stream).tolist()
        loader = DataLoader(Pictures(self.train), self.method.batch_size, sampler=order, num_workers=self.workers)
        for _, (images, labels) in zip(range(self.method.inner_steps), loader, strict=False):
            size, images, labels = self.train.shape[1:], images.to(harness.DEVICE), labels.to(harness.DEVICE)
            draws = augmentation.draw(1, len(images), size=size, strategy="color+crop", generator=stream)
            images = augmentation.augment(self.train.space.encode((images + 1) / 2), draws)
            self.sgd.zero_grad()
            F.cross_entropy(self.network(images), labels).backward()
            self.sgd.step()

    def generator_step(self, x: Tensor, y: Tensor, step: int) -> Tensor:
        """The generator on the match, the critic's score and the class terms, all in one graph."""
        z = torch.randn(len(x), self.method.latent, generator=seeding.generator(0, "dim", "noise", step))
        fake = plain_images(self.generator, z, y)
        stream = seeding.generator(0, "dim", "match", step)
        one = augmentation.draw(1, 1, size=x.shape[2:], strategy="color+crop+cutout", generator=stream)
        both = self.train.space.encode((torch.cat([x, fake]) + 1) / 2)
        both = augmentation.augment(both, one.rows(torch.zeros(len(both), dtype=torch.int64)))
        real, made = (F.log_softmax(self.network(half), 1) for half in both.chunk(2))
        s, c = self.critic(fake)
        loss = -s.mean() + F.cross_entropy(c, y) + self.method.weight * F.mse_loss(made, real)
        self.adams[0].zero_grad()
        loss.backward()
        self.adams[0].step()
        return loss

    def critic_step(self, x: Tensor, y: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The critic on real images, fakes of fresh labels, and the penalty between them."""
        stream = seeding.generator(0, "dim", "critic", step)
        others = torch.randint(CLASSES, (len(x),), generator=stream).to(harness.DEVICE)
        z = torch.randn(len(x), self.method.latent, generator=stream)
        share = torch.rand(len(x), 1, 1, 1, generator=stream).to(harness.DEVICE)
        with torch.no_grad():
            fake = plain_images(self.generator, z, others)
        (s_real, c_real), (s_fake, c_fake) = self.critic(x), self.critic(fake)
        mixed = (share * x + (1 - share) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(mixed)[0].sum(), mixed, create_graph=True)
        penalty = ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
        loss = s_fake.mean() - s_real.mean() + F.cross_entropy(c_fake, others) + F.cross_entropy(c_real, y)
        self.adams[1].zero_grad()
        (loss + self.method.gradient_penalty * penalty).backward()
        self.adams[1].step()
        return loss, penalty

    def step(self, number: int) -> dict[str, float]:
        """One step; returns its losses."""
        size = self.method.batch_size
        order = torch.randperm(len(self.train), generator=seeding.generator(0, "dim", "shuffle", 0))
        batch = [Pictures(self.train)[row] for row in order[number * size : (number + 1) * size].tolist()]
        x = torch.stack([image for image, _ in batch]).to(harness.DEVICE)
        y = torch.tensor([label for _, label in batch]).to(harness.DEVICE)
        if self.method.inner_steps:
            self.inner(number)
        losses = (self.generator_step(x, y, number), *self.critic_step(x, y, number))
        return {name: loss.item() for name, loss in zip(LOSSES, losses, strict=True)}

    def gradients(self) -> Tensor:
        """The last gradients of generator and critic as one vector."""
        return first_moments(*self.adams)


class Ours:
    """Stage B of `ddlib.methods.generative`."""

    def __init__(self, method: DiM, state: DiMState):
        self.method, self.state = method, state

    def step(self, number: int) -> dict[str, float]:
        """One step; returns its losses."""
        self.state.pair.step = number
        metrics = self.method.step(self.state)
        return {name: float(metrics[name]) for name in LOSSES}

    def gradients(self) -> Tensor:
        """The last gradients of generator and critic as one vector."""
        return first_moments(self.state.pair.generator_adam, self.state.pair.critic_adam)


def first_moments(*adams: torch.optim.Adam) -> Tensor:
    """Of all parameters as one vector; with beta1 = 0 they are the gradients."""
    return torch.cat([adam.state[p]["exp_avg"].flatten() for adam in adams for p in adam.param_groups[0]["params"]])


def prepared(side: str, architecture: str, case: argparse.Namespace, **more: object) -> Plain | Ours:
    """One side before its first step, with the weights of an untrained GAN."""
    settings = {"generator_width": case.width, "batch_size": case.batch, "pool": (architecture,)}
    method = methods.build("dim", ipc=1, **settings | OURS.get(side, {}) | more)
    train = harness.pictures(IMAGES, SHAPES[case.size])
    state = method.start(train, {"gan": method.gan.finish(method.gan.start(train, {}, 0))}, 0)
    return Plain(method, state, case.workers) if side == "reference" else Ours(method, state)


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Weights, noise and images in float64."""
    signed = lambda train, rows: train.images[rows].double() / 255 * 2 - 1  # noqa: E731
    torch.set_default_dtype(torch.float64)
    try:
        with mock.patch.object(adversarial, "signed", signed):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def compare(architectures: list[str], size: str) -> None:
    """Hold ours to the reference in float64, at a small size.

    Raises:
        SystemExit: losses or gradients differ.
    """
    small = argparse.Namespace(width=8, batch=8, size=size, workers=0)
    pool = {"width": 16, "pool_width": 8, "inner_steps": 3}
    for architecture in architectures:
        with in_double():
            plain, ours = (prepared(side, architecture, small, **pool) for side in ("reference", "float32"))
            wanted, losses = plain.step(0), ours.step(0)
        differences = {name: abs(losses[name] / wanted[name] - 1) for name in LOSSES}
        differences["gradients"] = harness.off(ours.gradients(), plain.gradients())
        harness.require(differences, TOLERANCE, f"float64, {architecture}")


def weigh(side: str, architecture: str, case: argparse.Namespace) -> float:
    """Peak memory of this process after one step of one side, MiB."""
    prepared(side, architecture, argparse.Namespace(**vars(case) | {"workers": 0})).step(0)
    return harness.peak()


def measure(architecture: str, case: argparse.Namespace) -> dict[str, float]:
    """Print the table of one network of the pool; returns the median seconds a step of each side."""
    sides = {name: prepared(name, architecture, case) for name in ("reference", *case.only)}
    for side in sides.values():
        method, side.method = side.method, replace(side.method, inner_steps=0)
        side.step(0)
        side.method = method
    wanted = sides["reference"].gradients()
    off = {name: harness.off(side.gradients(), wanted) for name, side in sides.items()}
    turns = {name: side.step for name, side in sides.items()}
    seconds = harness.medians(harness.in_turns(turns, case.repeats, clock=CLOCKS[case.clock]))
    harness.note("generative_matching", f"{architecture}, width {case.width}, batch {case.batch}", seconds)
    del sides, turns
    memory = {name: harness.apart(weigh, name, architecture, case) for name in seconds}
    for name, each in seconds.items():
        ratios = f"time x{each / seconds['reference']:.2f}, memory x{memory[name] / memory['reference']:.2f}"
        line = f"{each:6.2f} s a step, peak {memory[name]:5.0f} MiB   {ratios}, off by {off[name]:.0e}"
        print(f"  {architecture:11} {name:17} {line}", flush=True)
    return seconds


def main(words: list[str] | None = None) -> None:
    """Compare, time and weigh each network of the pool."""
    parser = harness.options(__doc__)
    parser.set_defaults(repeats=2)
    parser.add_argument("--width", type=int, default=196, help="of generator and critic")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", default="cifar10", choices=list(SHAPES))
    parser.add_argument("--pool", nargs="+", default=list(POOL), choices=POOL)
    parser.add_argument("--workers", type=int, default=0, help="processes of the reference's loader")
    parser.add_argument("--only", nargs="+", default=["float32", "bfloat16"], choices=list(OURS))
    case = harness.begin(parser, words)
    print(f"one step of stage B, {case.size} shapes, width {case.width}, batch {case.batch}", flush=True)
    compare(case.pool, case.size)
    steps = [measure(architecture, case) for architecture in case.pool]
    for name in case.only:
        ratio = sum(step[name] for step in steps) / sum(step["reference"] for step in steps)
        print(f"  {name} over the networks above: time x{ratio:.2f} of the reference", flush=True)


if __name__ == "__main__":
    main()
