"""Expert trajectories: networks trained on real images, against the loop as the field writes it.

    python -m benchmarks.experts [--quick] [--optimizer sgd gsam] [--experts 2] [--images 512] [--repeats 3]

The reference trains one expert after another in float32, through a loader that fetches image by image, with lists of
transform parameters, a loss read back at every mini-batch and accuracies counted in NumPy; it leaves out the test
after each epoch that the published code has.  All variants see random images of CIFAR-10's shape; loss and update of
the same weights on the same mini-batch are shown to agree.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import harness
from benchmarks.harness import SIDE, PlainConvNet
from ddlib.data import augmentation
from ddlib.pretraining import experts as training
from ddlib.pretraining.experts import Experts

VARIANTS = {
    "reference": None,
    "float32": {"at_once": 1},
    "at_once": {},
    "float32, compiled": {"at_once": 1, "compiled": True},
    "bfloat16": {"at_once": 1, "precision": "bfloat16"},
    "bfloat16, compiled": {"at_once": 1, "precision": "bfloat16", "compiled": True},
}
"""Name -> what it changes of the experts; None: the plain loop.  "at_once": all experts under one vmap."""

TOLERANCE = {"float32": 1e-10, "bfloat16": 0.1}
"""Largest relative difference of the loss, and of the update as one vector; of float32 compared in float64."""

LR, RHO, ALPHA, BATCH = 0.01, 0.01, 0.3, 256


@dataclass(frozen=True)
class Case:
    """What is trained: sizes alone, the values are random."""

    optimizer: str
    experts: int
    images: int
    width: int

    def builder(self, variant: str) -> Experts:
        """The experts of a variant."""
        settings = {"count": self.experts, "at_once": self.experts, "width": self.width, "optimizer": self.optimizer}
        settings |= {"epochs": 1, "kept": 0, "lr": LR, "rho": RHO, "alpha": ALPHA} | VARIANTS[variant]
        return Experts(**settings)

    def train(self):
        """The images that they are trained on."""
        return harness.pictures(self.images)


def plain_step(model: nn.Module, images: Tensor, labels: Tensor, optimizer: str) -> tuple[Tensor, Tensor]:
    """A step of SGD or GSAM on the module's parameters; logits and loss before it."""
    weights = list(model.parameters())
    output = model(images)
    loss = F.cross_entropy(output, labels)
    first = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        if optimizer == "sgd":
            for w, g in zip(weights, first, strict=True):
                w -= LR * g
            return output, loss
        length = torch.norm(torch.stack([(w.abs() * g).norm() for w, g in zip(weights, first, strict=True)]))
        moves = [RHO / (length + 1e-12) * w * w * g for w, g in zip(weights, first, strict=True)]
        for w, move in zip(weights, moves, strict=True):
            w += move
    second = torch.autograd.grad(F.cross_entropy(model(images), labels), weights)
    with torch.no_grad():
        share = sum((g * q).sum() for g, q in zip(first, second, strict=True)) / sum(q.square().sum() for q in second)
        for w, move, g, q in zip(weights, moves, first, second, strict=True):
            w -= move
            w -= LR * (q - ALPHA * (g - share * q))
    return output, loss


def train(case: Case, variant: str) -> None:
    """One epoch of each expert; the reference trains one after another."""
    real, draw = case.train(), torch.Generator().manual_seed(0)
    if VARIANTS[variant] is not None:
        builder = case.builder(variant)
        state = builder.start(real, {}, 0)
        for _ in range(builder.iterations):
            builder.step(state)
        return
    data = TensorDataset(real.take(range(len(real))), real.labels)
    for _ in range(case.experts):
        model = PlainConvNet(case.width).to(harness.DEVICE)
        total, correct = 0.0, 0
        for images, labels in DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=0):
            draws = augmentation.draw(1, len(images), size=(SIDE, SIDE), generator=draw)
            output, loss = plain_step(model, harness.plain_augment(images, draws), labels, case.optimizer)
            correct += (output.detach().cpu().numpy().argmax(-1) == labels.cpu().numpy()).sum()
            total += loss.item() * len(labels)


def compare(case: Case, variant: str) -> None:
    """Hold loss and update of an expert on one mini-batch, trained together with its like, to the reference.

    Raises:
        SystemExit: they differ by more than `TOLERANCE`.
    """
    real, builder = case.train(), case.builder(variant)
    learner, together = builder.start(real, {}, 0).learner, builder.at_once
    dtype = torch.float64 if builder.precision == "float32" else torch.float32
    model = PlainConvNet(case.width).to(harness.DEVICE, dtype)
    old = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    images, labels, losses = real.take(range(20)).to(dtype), real.labels[:20], []

    def gradient(theta: Tensor) -> Tensor:
        stacked = (tensor.expand(together, *tensor.shape) for tensor in (images, labels))
        slope, loss = training.mean_gradient(learner, theta, *stacked)
        losses.append(loss)
        return slope

    settings = {"lr": LR} if case.optimizer == "sgd" else {"lr": LR, "rho": RHO, "alpha": ALPHA}
    update = getattr(training, case.optimizer)(old.repeat(together, 1), gradient, **settings)[-1] - old
    _, loss = plain_step(model, images, labels, case.optimizer)
    wanted = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - old
    differences = {"loss": harness.off(losses[0][-1], loss), "update": harness.off(update, wanted)}
    harness.require(differences, TOLERANCE[builder.precision], variant)


def report(case: Case, variants: list[str], repeats: int, clock: Callable[[], float]) -> None:
    """Print one table."""
    title = f"{case.optimizer}, {case.experts} experts, {case.images} images, width {case.width}"
    print(f"{title}, batch {BATCH}, {harness.DEVICE}, {torch.get_num_threads()} threads", flush=True)
    for variant in variants[1:]:
        compare(case, variant)
    seconds = harness.in_turns({v: lambda _, v=v: train(case, v) for v in variants}, repeats, clock=clock)
    medians = harness.medians(seconds)
    harness.note("experts, an epoch", title, {name: each / case.experts for name, each in medians.items()})
    print(f"  {'variant':20} {'s/epoch':>8} {'ratio':>6} {'of each round':>20}")
    for variant, times in seconds.items():
        each = " ".join(f"{a / b:.2f}" for a, b in zip(times, seconds["reference"], strict=True))
        per_epoch, ratio = medians[variant] / case.experts, medians[variant] / medians["reference"]
        print(f"  {variant:20} {per_epoch:8.2f} {ratio:6.2f} {each:>20}")


def main(words: list[str] | None = None) -> None:
    """Report each optimiser."""
    parser = harness.options(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing compiled: a few seconds")
    parser.add_argument("--optimizer", nargs="+", choices=["sgd", "gsam"], default=["sgd", "gsam"])
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS)[1:], choices=list(VARIANTS)[1:])
    options = harness.begin(parser, words)
    clock = harness.CLOCKS[options.clock]
    for optimizer in options.optimizer:
        if options.quick:
            report(Case(optimizer, 2, 40, 4), list(VARIANTS)[:3], 1, clock)
        else:
            case = Case(optimizer, options.experts, options.images, 128)
            report(case, ["reference", *options.only], options.repeats, clock)


if __name__ == "__main__":
    main()
