"""One iteration of LD3M with DM, ours against a plain form of the published two-phase scheme: time, memory, equality.

    OMP_NUM_THREADS=1 python -m benchmarks.latent_distillation [--steps 5 10 20] [--repeats 3] [--clock cpu]

The reference does what the published code does: all images are sampled without a graph in chunks of 10; the loss is
taken class by class with a new network object; then each chunk is sampled again with a graph, every call of the noise
predictor under a checkpoint, so that one step of the sampler is four passes through it; and the nearest codes of the
latent are looked for at every step.  Ours is `ddlib.methods.latent`: one phase, exact, with and without
checkpoints, and with gradients of the last two calls alone.  Both sides have the same prior, images, transforms and
noise, of which the published code draws a new one for its second phase, and are compared before they are timed: in
float64 at a small size, and in what is timed at full size.

Ten classes at one image each, untrained networks; by default 32 pixels in colour, latents of 16x16, a noise predictor
of 3.9 M parameters, and 16 real images a class, with which the loss is a twentieth of the reference's iteration at
T = 10.  Times are medians of alternating iterations.  Memory is told twice, in a process of its own: what an iteration
adds to the process at most, and the most that tensors hold at once, in which no allocator's leftovers are.
"""

import argparse
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks import harness
from benchmarks.harness import CLASSES, CLOCKS, MEBIBYTE, SIDE
from ddlib import methods, models, seeding
from ddlib.data import augmentation, datasets
from ddlib.methods.latent import LD3M
from ddlib.models import diffusion
from ddlib.store import progress

OURS = {
    "exact": {},
    "checkpointed": {"checkpointed": True},
    "last two": {"backprop_steps": 2},
    "exact bfloat16": {"precision": "bfloat16"},
    "last two bfloat16": {"precision": "bfloat16", "backprop_steps": 2},
}
CHUNK = 10
TOLERANCE = 1e-7
"""Relative difference from the reference that is allowed in float64, of the loss and of the gradients of Z and c; what
there is comes of the transforms, whose strengths are drawn in float32."""

Gradient = tuple[Tensor, dict[str, Tensor]]
"""The loss, and its gradients in Z and c."""


class Plain:
    """The published iteration: phase 1 without a graph, the loss in pixels, phase 2 with one."""

    def __init__(self, method: LD3M, state: SimpleNamespace):
        self.method, self.state = method, state

    def step(self, number: int) -> Gradient:
        """One iteration on latents and class vectors that stay where they are."""
        noise = self.method.noise(self.state, "noise", number)[0]
        Z, c = self.state.tensors["Z"], self.state.tensors["c"]
        chunks = [slice(at, at + CHUNK) for at in range(0, len(Z), CHUNK)]
        with torch.no_grad():
            images = torch.cat([self.rendered(Z[rows], c[rows], noise[rows]) for rows in chunks])
        images.requires_grad_()
        loss = self.loss(images, number)
        loss.backward()
        gradients: dict[str, list[Tensor]] = {"Z": [], "c": []}
        for rows in chunks:
            leaves = [tensor[rows].detach().clone().requires_grad_() for tensor in (Z, c)]
            self.rendered(*leaves, noise[rows]).backward(images.grad[rows])
            for name, leaf in zip(gradients, leaves, strict=True):
                gradients[name].append(leaf.grad)
        return loss.detach(), {name: torch.cat(parts) for name, parts in gradients.items()}

    def rendered(self, Z: Tensor, c: Tensor, noise: Tensor) -> Tensor:
        """Sample, decode, clamp, normalise."""
        decoded = self.state.prior.vae.decode(self.sampled(Z, c, noise)).sample
        mean, std = (
            torch.tensor(v, dtype=Z.dtype, device=Z.device).view(1, -1, 1, 1) for v in (self.space.mean, self.space.std)
        )
        return (((decoded + 1) / 2).clamp(0, 1) - mean) / std

    @property
    def space(self) -> datasets.ValueSpace:
        """Of the real images."""
        return self.state.train.space

    def sampled(self, Z: Tensor, c: Tensor, noise: Tensor) -> Tensor:
        """z_0, with q(Z) anew and, where a graph is kept, a checkpoint at each step."""
        prior, steps = self.state.prior, self.method.steps
        alphas = prior.alphas_cumprod.to(Z.dtype)
        times = list(range(1, len(alphas), len(alphas) // steps))
        z = alphas[times[-1]].sqrt() * Z + (1 - alphas[times[-1]]).sqrt() * noise
        for k in reversed(range(steps)):
            now, then = alphas[times[k]], alphas[times[k - 1]] if k else alphas[0]
            e = checkpoint(self.guided, z, c, times[k], use_reentrant=False)
            x = (z - (1 - now).sqrt() * e) / now.sqrt()
            w = k / (steps - 1) if steps > 1 else 0.0
            x = (1 - w) * x + w * prior.vae.quantize(Z)[0]
            z = then.sqrt() * x + (1 - then).sqrt() * e
        return z

    def guided(self, z: Tensor, c: Tensor, t: int) -> Tensor:
        """The guided noise, of a double batch."""
        null = self.state.prior.embedder(torch.full((len(z),), CLASSES, device=z.device))
        classes, times = torch.cat([null, c]), torch.full((2 * len(z),), t, device=z.device)
        without, guided = self.state.prior.unet(torch.cat([z, z]), times, encoder_hidden_states=classes).sample.chunk(2)
        return without + self.method.guidance * (guided - without)

    def loss(self, images: Tensor, number: int) -> Tensor:
        """The loss of DM, class by class, with a network that is new."""
        inner = self.state.inner
        models.reset(inner.network, seeding.generator(0, "network", number))
        network = harness.plain_copy(inner.network, 128)
        order, stream = (seeding.generator(0, name, number) for name in ("real", "augmentation"))
        draws = augmentation.draw(CLASSES, 1, size=(SIDE, SIDE), strategy=inner.strategy, generator=stream)
        loss = images.new_zeros(())
        for k, rows in enumerate(inner.rows_by_class):
            real = self.state.train.take(rows[torch.randperm(len(rows), generator=order)[: inner.batch_real]])
            target, mean = (
                network.embed(harness.plain_augment(x, draws.rows([k]))).mean(0) for x in (real, images[k : k + 1])
            )
            loss = loss + ((target.detach() - mean) ** 2).sum()
        return loss


class Ours:
    """`ddlib.methods.latent`, of which the first step's momentum is the gradient."""

    def __init__(self, method: LD3M, state: SimpleNamespace):
        self.method, self.state = method, state

    def step(self, number: int) -> Gradient:
        """One iteration on latents and class vectors that stay where they are."""
        self.state.step = number
        for moment in self.state.first.values():
            moment.zero_()
        loss = self.method.step(self.state)["loss"]
        return loss, {name: self.state.first[name].clone() for name in ("Z", "c")}


def prepared(name: str, steps: int, case: argparse.Namespace) -> Plain | Ours:
    """One side before its first iteration, with step sizes that move nothing."""
    settings = {"steps": steps, "batch_real": case.batch_real, "lr": 1e-30, "strategy": augmentation.STRATEGY}
    method = methods.build("ld3m", ipc=1, width=128, **settings | OURS.get(name, {}))
    sizes = {"width": case.width, "factor": case.factor, "generator": seeding.generator(0, "prior")}
    prior = diffusion.small((3, SIDE, SIDE), CLASSES, **sizes)
    state = method.start(harness.pictures(2 * case.batch_real * CLASSES), {"prior": prior}, 0)
    return (Plain if name == "reference" else Ours)(method, state)


def doubled(side: Plain | Ours) -> Plain | Ours:
    """The same side, all in float64."""
    state, train, inner = side.state, side.state.train, side.state.inner
    facts = {name: getattr(train, name) for name in ("device", "num_classes", "shape", "space")}
    state.train = inner.train = SimpleNamespace(take=lambda rows: train.take(rows).double(), **facts)
    for module in (state.prior.vae, state.prior.unet, state.prior.embedder, inner.network):
        module.double()
    for tensors in (state.tensors, state.first, state.second):
        tensors.update({name: tensor.double() for name, tensor in tensors.items()})
    inner.images = inner.images.detach().double().requires_grad_()
    return side


def off(ours: Gradient, reference: Gradient) -> float:
    """The worst relative difference among the loss and the gradients."""
    pairs = [(ours[0], reference[0]), *((ours[1][name], reference[1][name]) for name in reference[1])]
    return max(harness.off(a, b) for a, b in pairs)


def compare(steps: int) -> None:
    """Hold what is exact to the reference in float64, at a small size.

    Raises:
        SystemExit: loss or gradients differ.
    """
    small = argparse.Namespace(batch_real=3, width=16, factor=4)
    sides = {name: doubled(prepared(name, steps, small)) for name in ("reference", "exact", "checkpointed")}
    torch.set_default_dtype(torch.float64)  # of the noise
    try:
        steps_taken = {name: side.step(0) for name, side in sides.items()}
    finally:
        torch.set_default_dtype(torch.float32)
    wanted = steps_taken.pop("reference")
    harness.require({name: off(step, wanted) for name, step in steps_taken.items()}, TOLERANCE)


def measure(steps: int, case: argparse.Namespace) -> None:
    """Print the table of one number of steps."""
    sides = {name: prepared(name, steps, case) for name in ("reference", *case.only)}
    first = {name: side.step(0) for name, side in sides.items()}
    turns = harness.in_turns({n: s.step for n, s in sides.items()}, case.repeats, clock=CLOCKS[case.clock])
    del sides
    seconds, peaks = harness.medians(turns), {name: harness.apart(weigh, name, steps, case) for name in turns}
    harness.note("latent_distillation", f"T = {steps}, prior of width {case.width}", seconds)
    for name, each in seconds.items():
        (process, tensors), (plain_process, plain_tensors) = peaks[name], peaks["reference"]
        ratios = f"time x{each / seconds['reference']:.2f}, memory x{process / plain_process:.2f}"
        ratios += f", tensors x{tensors / plain_tensors:.2f}"
        line = f"{each:6.2f} s, peak {process:5.0f} MiB, of tensors {tensors:5.0f}   {ratios}"
        print(f"  {name:17} {line}   {likeness(first[name], first['reference'])}", flush=True)


def likeness(ours: Gradient, reference: Gradient) -> str:
    """Cosines of the gradients with others, and the ratios of their norms."""
    pairs = {name: (ours[1][name].flatten(), reference[1][name].flatten()) for name in reference[1]}
    cosines = {name: F.cosine_similarity(a, b, dim=0) for name, (a, b) in pairs.items()}
    return ", ".join(f"{name}: cosine {cosines[name]:.4f} x{a.norm() / b.norm():.2f}" for name, (a, b) in pairs.items())


def weigh(name: str, steps: int, case: argparse.Namespace) -> tuple[float, float]:
    """MiB that one iteration adds to this process at most, and those that the tensors of another hold at most."""
    side = prepared(name, steps, case)
    progress.reset_peak_memory(harness.DEVICE)
    before = harness.peak()
    side.step(0)
    return harness.peak() - before, progress.peak_of_tensors(lambda: side.step(1), harness.DEVICE) / MEBIBYTE


def main(words: list[str] | None = None) -> None:
    """Compare, time and weigh each number of steps."""
    parser = harness.options(__doc__)
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--width", type=int, default=64, help="of the prior")
    parser.add_argument("--factor", type=int, default=2, help="by which latents are smaller than images")
    parser.add_argument("--batch-real", type=int, default=16, help="real images a class; published: 256")
    parser.add_argument("--only", nargs="+", default=["exact", "checkpointed", "last two"], choices=list(OURS))
    case = harness.begin(parser, words)
    for steps in case.steps:
        print(f"T = {steps}, prior of width {case.width}, latents of {SIDE // case.factor} pixels", flush=True)
        compare(steps)
        measure(steps, case)


if __name__ == "__main__":
    main()
