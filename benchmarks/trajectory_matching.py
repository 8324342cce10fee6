"""The gradient of trajectory matching at CIFAR-10 shape, ours against the two published forms: time, memory, equality.

    python -m benchmarks.trajectory_matching [--steps 10 30 50] [--batch 10] [--repeats 3] [--only all none]

`unrolled`, as MTT, FTD and DATM were published: a new network object each outer step, whose parameters are replaced by
views of one vector at each inner step (`ReparamModule`), `create_graph` through all N steps, one backward pass.
`tesla`, as TESLA was: a first pass that builds second-order graphs and discards them, a second one that builds each
step's graph again, on augmented copies that are all kept, and differentiates it against the sum of all gradients;
float32 both.  Ours is `unrolling.adjoint` with the graphs of all steps kept, of half of them, and of none, and
compiled, which keeps none; it is held to `unrolled` before it is timed, as is `unrolling.tesla` to `tesla`.  Memory is
told twice: the most that tensors held at once, and the peak of a process of its own, of which torch itself is some 600
MiB.  At N = 50 unrolling keeps about 1.6 GB at the default B = 10, and 7.5 GB at B = 50.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import harness
from benchmarks.harness import CLASSES, SIDE, PlainConvNet
from ddlib import seeding
from ddlib.methods import unrolling
from ddlib.models import passes
from ddlib.store import progress

PER_CLASS, LR = 10, 0.01
STRATEGY = "color_crop_cutout_flip_scale_rotate"
OURS = {
    "all": {"memory_gb": 1e3},
    "half": {},
    "none": {"memory_gb": 0.0},
    "compiled": {"memory_gb": 0.0, "compiled": True},
}
"""Name -> whether it is compiled, and the memory for graphs; that of "half" depends on the scene."""
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
"""Relative difference from the reference that is allowed, of loss and gradients."""

Gradient = tuple[Tensor, Tensor, Tensor, Tensor]
"""The loss, and its gradients in images, targets and step size."""


def network_of(scene: SimpleNamespace) -> "Reparametrised":
    """A new plain network, with SiLU where the scene is smooth."""
    activation = partial(nn.SiLU if scene.smooth else nn.ReLU, inplace=True)
    return Reparametrised(PlainConvNet(scene.width, activation=activation).train())


class Reparametrised(nn.Module):
    """A network whose parameters are views of a vector."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.places = [(module, name) for module in network.modules() for name in list(module._parameters)]
        self.shapes = [getattr(*place).shape for place in self.places]
        for place in self.places:
            delattr(*place)

    def forward(self, images: Tensor, theta: Tensor) -> Tensor:
        """Logits under the parameters `theta`."""
        pieces = theta.split([shape.numel() for shape in self.shapes])
        for place, piece, shape in zip(self.places, pieces, self.shapes, strict=True):
            setattr(*place, piece.view(shape))
        return self.network(images)


def plain_unrolled(scene: SimpleNamespace) -> Gradient:
    """Loss and gradients by differentiating through all inner steps at once."""
    network = network_of(scene)
    images, targets, lr = (t.detach().clone().requires_grad_() for t in (scene.images, scene.targets, scene.lr))
    theta = scene.start.detach().clone().requires_grad_()
    for batch in scene.batches:
        loss = F.cross_entropy(network(batch.transform(images[batch.rows]), theta), targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        theta = theta - lr * slope
    total = F.mse_loss(theta, scene.goal, reduction="sum") / F.mse_loss(scene.start, scene.goal, reduction="sum")
    return total.detach(), *torch.autograd.grad(total, (images, targets, lr))


def plain_tesla(scene: SimpleNamespace) -> Gradient:
    """Loss and gradients as TESLA's code has them, with lambda_N in place of every lambda."""
    network = network_of(scene)
    images, targets = (t.detach().clone().requires_grad_() for t in (scene.images, scene.targets))
    thetas, copies, total = [scene.start.detach().clone().requires_grad_()], [], torch.zeros_like(scene.start)
    for batch in scene.batches:
        copies.append(batch.transform(images[batch.rows]))
        loss = F.cross_entropy(network(copies[-1], thetas[-1]), targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, thetas[-1], create_graph=True)
        total = total + slope.detach()
        thetas.append((thetas[-1] - scene.lr * slope).detach().requires_grad_())
    scale = (scene.start - scene.goal).square().sum()
    direction = 2 * (scene.start - scene.goal - scene.lr * total) / scale
    gradients = [torch.zeros_like(images), torch.zeros_like(targets)]
    for theta, x, batch in zip(thetas, copies, scene.batches, strict=False):
        loss = F.cross_entropy(network(x, theta), targets[batch.rows])
        (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
        parts = torch.autograd.grad(-scene.lr * slope @ direction, (images, targets), retain_graph=True)
        gradients = [before + part for before, part in zip(gradients, parts, strict=True)]
    return (scene.start - scene.goal - scene.lr * total).square().sum() / scale, *gradients, -direction @ total


def ours(
    scene: SimpleNamespace,
    way: Callable[..., unrolling.Gradient],
    *,
    memory_gb: float | None = None,
    compiled: bool = False,
) -> Gradient:
    """Loss and gradients by one of `unrolling.GRADIENTS`; graphs of half of the steps where no memory is given."""
    options = {"width": scene.width, "activation": "swish" if scene.smooth else "relu"}
    network = passes.pure("convnet", options, shape=(3, SIDE, SIDE), num_classes=CLASSES)
    student = unrolling.student(network, compiled)
    given = {name: getattr(scene, name) for name in ("images", "targets", "lr", "batches")}
    if memory_gb is None:
        each = unrolling.graph_bytes(student, scene.start.dtype, tuple(scene.images.shape[1:]), CLASSES)
        memory_gb = each * sum(len(batch.rows) for batch in scene.batches) / 2e9
    gradient = way(student, scene.start, scene.goal, memory_gb=memory_gb, **given)
    return gradient.loss, gradient.images, gradient.targets, gradient.lr


SIDES: dict[str, Callable[[SimpleNamespace], Gradient]] = {"unrolled": plain_unrolled, "tesla": plain_tesla}
SIDES |= {name: partial(ours, way=unrolling.adjoint, **options) for name, options in OURS.items()}


def prepared(
    steps: int, batch: int, width: int, *, dtype: torch.dtype = torch.float32, smooth: bool = False
) -> SimpleNamespace:
    """A start, a goal near it, random images with soft labels, and N mini-batches with their augmentation.

    smooth: SiLU in place of ReLU, on whose kinks rounding in float32 decides which side a unit is on.
    """
    stream = seeding.generator(0, "scene")
    size = sum(parameter.numel() for parameter in PlainConvNet(width).parameters())

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream, dtype=torch.float64).to(harness.DEVICE, dtype)

    start, images = 0.03 * randn(size), randn(max(batch, CLASSES * PER_CLASS), 3, SIDE, SIDE)
    streams = {"order": stream, "augmentation": stream}
    batches = unrolling.draw_batches(images, steps=steps, batch=batch, strategy=STRATEGY, **streams)
    goal, targets = start + 0.003 * randn(size), randn(len(images), CLASSES).softmax(1)
    lr = torch.tensor(LR, dtype=dtype, device=harness.DEVICE)
    sizes = {"width": width, "smooth": smooth}
    return SimpleNamespace(start=start, goal=goal, images=images, targets=targets, lr=lr, batches=batches, **sizes)


def difference(ours: Gradient, reference: Gradient) -> float:
    """The worst relative difference among loss and gradients."""
    return max(harness.off(a, b) for a, b in zip(ours, reference, strict=True))


def compare(steps: int, batch: int, width: int, names: Sequence[str]) -> None:
    """Hold ours to the references: in float64 at width 4, and in float32 at full size, there with SiLU.

    Raises:
        SystemExit: loss or gradients differ by more than `TOLERANCE`.
    """
    small = prepared(min(steps, 5), min(batch, 4), 4, dtype=torch.float64)
    for dtype, scene in (("float64", small), ("float32", prepared(steps, batch, width, smooth=True))):
        wanted, tesla = plain_unrolled(scene), plain_tesla(scene)
        differences = {"tesla": difference(ours(scene, unrolling.tesla), tesla)}
        for name in names if dtype == "float32" else [name for name in names if name != "compiled"]:
            differences[name] = difference(SIDES[name](scene), wanted)
        harness.require(differences, TOLERANCE[dtype], dtype)
        cosine = F.cosine_similarity(tesla[1].flatten(), wanted[1].flatten(), dim=0)
        print(f"  TESLA's cosine with the exact gradient: {cosine:.3f}", flush=True)


def weigh(name: str, steps: int, batch: int, width: int) -> float:
    """Peak memory of this process after one gradient, MiB."""
    SIDES[name](prepared(steps, batch, width))
    return harness.peak()


def report(steps: int, batch: int, width: int, names: Sequence[str], repeats: int, clock: str) -> None:
    """Print what one N and B come to, and ours against the references."""
    print(f"N = {steps}, B = {batch}, ConvNet-3 width {width}, {torch.get_num_threads()} threads", flush=True)
    compare(steps, batch, width, names)
    scene, chosen = prepared(steps, batch, width), ("unrolled", "tesla", *names)
    works = {name: partial(SIDES[name], scene) for name in chosen}
    measured = {
        "time, s": harness.medians(
            harness.in_turns({n: lambda _, w=w: w() for n, w in works.items()}, repeats, clock=harness.CLOCKS[clock])
        ),
        "tensors, MiB": {
            n: progress.peak_of_tensors(work, harness.DEVICE) / harness.MEBIBYTE for n, work in works.items()
        },
        "process, MiB": {n: harness.apart(weigh, n, steps, batch, width) for n in chosen},
    }
    harness.note("trajectory_matching", f"N = {steps}, B = {batch}, width {width}", measured["time, s"], "unrolled")
    for name in chosen:
        print(f"  {name}", flush=True)
        for what, values in measured.items():
            ratios = ", ".join(f"x{values[name] / values[other]:.2f} of {other}" for other in ("unrolled", "tesla"))
            print(f"    {what:12} {values[name]:8.2f} {ratios}", flush=True)


def main(words: list[str] | None = None) -> None:
    """Report each N and B."""
    parser = harness.options(__doc__)
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 30, 50])
    parser.add_argument("--batch", nargs="+", type=int, default=[10])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    case = harness.begin(parser, words)
    for batch in case.batch:
        for steps in case.steps:
            report(steps, batch, case.width, case.only, case.repeats, case.clock)


if __name__ == "__main__":
    main()
