"""The gradient of trajectory matching at CIFAR-10 shape, ours against the two published forms: time, memory, equality.

    python -m benchmarks.trajectory_matching [--steps 10 30 50] [--batch 10] [--repeats 3] [--only eager]

`unrolled`, as MTT, FTD and DATM were published: a new network object each outer step, its parameters cut from one
vector at each inner step, `create_graph` through all N steps, one backward pass through everything.  `tesla`, as TESLA
was: a first pass that builds second-order graphs and discards them, a second one that builds each step's graph again,
on augmented copies that are all kept, and differentiates it against the sum of all gradients; float32 both.  Ours is
`unroll.adjoint`, eager and compiled, which is held to `unrolled` before it is timed, as is `unroll.tesla` to `tesla`.
Times are medians of alternating runs.  Memory is told twice: the most that tensors held at once, and the peak of a
process of its own, of which torch itself is some 600 MiB.  At N = 50 unrolling keeps about 1.6 GB at the default
B = 10, and 7.5 GB at B = 50.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import seeding
from ddlib.methods import unrolling
from ddlib.models import passes
from ddlib.store import progress

CLASSES, SIDE, PER_CLASS, LR = 10, 32, 10, 0.01
STRATEGY = "color_crop_cutout_flip_scale_rotate"
OURS = {"eager": False, "compiled": True}
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""Relative difference from the reference that is allowed, of loss and gradients."""

Found = tuple[Tensor, Tensor, Tensor, Tensor]
"""The loss, and its gradients in images, targets and step size."""


class PlainConvNet(nn.Module):
    """The lineage's ConvNet: blocks of convolution, instance norm, ReLU and pooling, then a linear classifier."""

    def __init__(self, width: int, smooth: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Conv2d(3 if i == 0 else width, width, 3, padding=1), nn.GroupNorm(width, width)]
            layers += [nn.SiLU() if smooth else nn.ReLU(), nn.AvgPool2d(2, 2)]
        self.trunk = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * 16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.trunk(images).flatten(1))


def applied(network: nn.Module, theta: Tensor, images: Tensor) -> Tensor:
    """The network with its parameters cut from the vector `theta`, set into its modules and run."""
    position, parts = 0, {}
    for name, parameter in network.named_parameters():
        parts[name] = theta[position : position + parameter.numel()].view(parameter.shape)
        position += parameter.numel()
    return torch.func.functional_call(network, parts, (images,))


def inner_loss(network: nn.Module, theta: Tensor, images: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(applied(network, theta, images), targets)


def plain_unrolled(scene: SimpleNamespace) -> Found:
    """Loss and gradients by differentiating through all inner steps at once."""
    network = PlainConvNet(scene.width, scene.smooth).train()
    images, targets, lr = (t.detach().clone().requires_grad_() for t in (scene.images, scene.targets, scene.lr))
    thetas = [scene.start.detach().clone().requires_grad_()]
    for batch in scene.batches:
        loss = inner_loss(network, thetas[-1], batch.transform(images[batch.rows]), targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, thetas[-1], create_graph=True)
        thetas.append(thetas[-1] - lr * slope)
    total = F.mse_loss(thetas[-1], scene.goal, reduction="sum") / F.mse_loss(scene.start, scene.goal, reduction="sum")
    return total.detach(), *torch.autograd.grad(total, (images, targets, lr))


def plain_tesla(scene: SimpleNamespace) -> Found:
    """Loss and gradients as TESLA's code has them, with lambda_N in place of every lambda."""
    network = PlainConvNet(scene.width, scene.smooth).train()
    images, targets = (t.detach().clone().requires_grad_() for t in (scene.images, scene.targets))
    thetas, shown, total = [scene.start.detach().clone().requires_grad_()], [], torch.zeros_like(scene.start)
    for batch in scene.batches:
        shown.append(batch.transform(images[batch.rows]))
        loss = inner_loss(network, thetas[-1], shown[-1], targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, thetas[-1], create_graph=True)
        total = total + slope.detach()
        thetas.append((thetas[-1] - scene.lr * slope).detach().requires_grad_())
    scale = (scene.start - scene.goal).square().sum()
    direction = 2 * (scene.start - scene.goal - scene.lr * total) / scale
    found = [torch.zeros_like(images), torch.zeros_like(targets)]
    for theta, x, batch in zip(thetas, shown, scene.batches, strict=False):
        loss = inner_loss(network, theta, x, targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        parts = torch.autograd.grad(-scene.lr * slope @ direction, (images, targets), retain_graph=True)
        found = [kept + part for kept, part in zip(found, parts, strict=True)]
    return (scene.start - scene.goal - scene.lr * total).square().sum() / scale, *found, -direction @ total


def ours(scene: SimpleNamespace, way: Callable[..., unrolling.Gradient], compiled: bool) -> Found:
    """Loss and gradients of one of `unroll.GRADIENTS`."""
    options = {"width": scene.width, "activation": "swish" if scene.smooth else "relu"}
    network = passes.pure("convnet", options, shape=(3, SIDE, SIDE), num_classes=CLASSES)
    student = unrolling.student(network, compiled)
    given = {name: getattr(scene, name) for name in ("images", "targets", "lr", "batches")}
    found = way(student, scene.start, scene.goal, **given)
    return found.loss, found.images, found.targets, found.lr


def sides(names: list[str]) -> dict[str, Callable[[SimpleNamespace], Found]]:
    """The references, and those of ours that are asked for."""
    chosen = {name: lambda scene, c=OURS[name]: ours(scene, unrolling.adjoint, c) for name in names}
    return {"unrolled": plain_unrolled, "tesla": plain_tesla} | {f"adjoint {k}": v for k, v in chosen.items()}


def prepared(
    steps: int, batch: int, width: int, *, dtype: torch.dtype = torch.float32, smooth: bool = False
) -> SimpleNamespace:
    """A start, a goal near it, random images with soft labels, and N mini-batches with their augmentation.

    Args:
        smooth: SiLU in place of ReLU, on whose kinks rounding in float32 decides which side a unit is on.
    """
    stream = seeding.generator(0, "scene")
    network = PlainConvNet(width)
    size = sum(parameter.numel() for parameter in network.parameters())
    randn = lambda *shape: torch.randn(shape, generator=stream, dtype=torch.float64).to(dtype)  # noqa: E731
    start, images = 0.03 * randn(size), randn(max(batch, CLASSES * PER_CLASS), 3, SIDE, SIDE)
    batches = unrolling.draw_batches(
        images, steps=steps, batch=batch, strategy=STRATEGY, order=stream, augmentation=stream
    )
    return SimpleNamespace(
        width=width, smooth=smooth, start=start, goal=start + 0.003 * randn(size), images=images, batches=batches,
        targets=randn(len(images), CLASSES).softmax(1), lr=torch.tensor(LR, dtype=dtype),
    )  # fmt: skip


def difference(found: Found, wanted: Found) -> float:
    """The worst relative difference among loss and gradients."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))


def compare(steps: int, batch: int, width: int, names: list[str]) -> None:
    """Hold ours to the references: in float64 at width 4, and in float32 at full size, there with SiLU.

    Raises:
        SystemExit: loss or gradients differ by more than `TOLERANCE`.
    """
    for dtype, scene in (
        ("float64", prepared(min(steps, 5), min(batch, 4), 4, dtype=torch.float64)),
        ("float32", prepared(steps, batch, width, smooth=True)),
    ):
        wanted, tesla = plain_unrolled(scene), plain_tesla(scene)
        found = {"tesla": difference(ours(scene, unrolling.tesla, False), tesla)}
        timed = names if dtype == "float32" else ["eager"]
        found |= {name: difference(ours(scene, unrolling.adjoint, OURS[name]), wanted) for name in timed}
        if max(found.values()) > TOLERANCE[dtype]:
            raise SystemExit(f"{found} off the references in {dtype}; no ratio is worth printing")
        shown = ", ".join(f"{name} {worst:.1e}" for name, worst in found.items())
        cosine = F.cosine_similarity(tesla[1].flatten(), wanted[1].flatten(), dim=0)
        print(
            f"  {dtype}: ours off its reference by {shown}; TESLA's cosine with the exact one {cosine:.3f}", flush=True
        )


def times(scene: SimpleNamespace, names: list[str], repeats: int) -> dict[str, float]:
    """Median seconds of a gradient of the references and of ours, alternating; the first turn does not count."""
    taken: dict[str, list[float]] = {name: [] for name in sides(names)}
    for _ in range(repeats + 1):
        for name, side in sides(names).items():
            begin = time.perf_counter()
            side(scene)
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def peak_megabytes() -> float:
    """Peak resident memory of this process since it was started."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) / 1024


def weighed(name: str, steps: int, batch: int, width: int) -> float:
    """Peak in MiB of a process of its own that takes one gradient."""
    words = [sys.executable, "-m", "benchmarks.trajectory_matching", "--memory", name]
    words += ["--steps", str(steps), "--batch", str(batch), "--width", str(width)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Compare, time and weigh each N, or take one gradient of one side and print its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 30, 50])
    parser.add_argument("--batch", nargs="+", type=int, default=[10])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        scene = prepared(chosen.steps[0], chosen.batch[0], chosen.width)
        sides(list(OURS))[chosen.memory](scene)
        print(peak_megabytes())
        return
    for batch in chosen.batch:
        for steps in chosen.steps:
            report(steps, batch, chosen.width, chosen.only, chosen.repeats)


def report(steps: int, batch: int, width: int, names: list[str], repeats: int) -> None:
    """Print what one N and B come to, and ours against the targets."""
    print(f"N = {steps}, B = {batch}, ConvNet-3 width {width}, {torch.get_num_threads()} threads", flush=True)
    compare(steps, batch, width, names)
    scene = prepared(steps, batch, width)
    found = {"time": (times(scene, names, repeats), 1, "s")}
    tensors = {name: progress.peak_of_tensors(partial(side, scene), "cpu") for name, side in sides(names).items()}
    found["tensors"] = tensors, 2**20, "MiB"
    found["process"] = {name: weighed(name, steps, batch, width) for name in tensors}, 1, "MiB"
    for name in tensors:
        print(f"  {name}", flush=True)
        for what, (values, scale, unit) in found.items():
            ratios = ", ".join(f"x{values[name] / values[other]:.2f} of {other}" for other in ("unrolled", "tesla"))
            print(f"    {what:8} {values[name] / scale:8.2f} {unit:4} {ratios}", flush=True)


if __name__ == "__main__":
    main()
