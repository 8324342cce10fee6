"""Expert trajectories: networks trained on real images, against the loop as the field writes it.

    python -m benchmarks.experts [--quick] [--optimizer sgd gsam] [--experts 2] [--images 512] [--rounds 3]

The reference trains one expert after another in float32, through a loader that fetches image by image, with lists of
transform parameters, a loss read back at every mini-batch and accuracies counted in NumPy; it leaves out the test
after each epoch that the published code has.  All variants see images of CIFAR-10's shape with random values; before
anything is timed, loss and update of the same weights on the same mini-batch are shown to agree (float32 in float64).
Then the variants take turns, epoch by epoch, and the medians are compared.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.evaluation import PlainConvNet, plain_augment, timed
from ddlib.data.datasets import ImageSet
from ddlib.data.whitening import ValueSpace
from ddlib.pretraining import experts as training
from ddlib.pretraining.experts import Experts

VARIANTS = {
    "reference": None,
    "float32": {"at_once": 1},
    "float32, at once": {},
    "float32, compiled": {"at_once": 1, "compiled": True},
    "bfloat16": {"at_once": 1, "precision": "bfloat16"},
    "bfloat16, compiled": {"at_once": 1, "precision": "bfloat16", "compiled": True},
}
"""Name -> what it changes of the experts; None: the plain loop.  "At once": all experts under one vmap."""

TOLERANCE = {"float32": 1e-10, "bfloat16": 0.1}
"""Largest relative difference of the loss, and of the update as one vector."""

LR, RHO, ALPHA, BATCH = 0.01, 0.01, 0.3, 256


@dataclass(frozen=True)
class Case:
    """What is trained: sizes alone, the values are random."""

    optimizer: str
    experts: int
    images: int
    side: int
    width: int
    device: str

    def train(self) -> ImageSet:
        """Standard normal images (images, 3, side, side) with ten classes in turn."""
        shape = (self.images, 3, self.side, self.side)
        images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        space = ValueSpace((0.5,) * 3, (0.25,) * 3)
        names = tuple(map(str, range(10)))
        return ImageSet("random", "train", images, torch.arange(self.images) % 10, names, space).to(self.device)

    def builder(self, changes: dict[str, Any]) -> Experts:
        """The experts of a variant."""
        told = {"count": self.experts, "at_once": self.experts, "width": self.width, "optimizer": self.optimizer}
        return Experts(**(told | {"epochs": 1, "kept": 0, "lr": LR, "rho": RHO, "alpha": ALPHA} | changes))


class PlainData(Dataset):
    """Images that a loader fetches one by one."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images, self.labels = images.detach().float(), labels.detach()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __len__(self) -> int:
        return len(self.images)


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


def plain_train(case: Case, train: ImageSet) -> None:
    """One epoch of each expert, one after another."""
    for _ in range(case.experts):
        model = PlainConvNet(case.side, case.width).to(case.device)
        loader = DataLoader(PlainData(train.images, train.labels), batch_size=BATCH, shuffle=True, num_workers=0)
        total, correct = 0.0, 0
        for images, labels in loader:
            images, labels = images.float().to(case.device), labels.long().to(case.device)
            output, loss = plain_step(model, plain_augment(images), labels, case.optimizer)
            correct += (output.detach().cpu().numpy().argmax(-1) == labels.cpu().numpy()).sum()
            total += loss.item() * len(labels)


def our_train(case: Case, train: ImageSet, changes: dict[str, Any]) -> None:
    """One epoch of each expert."""
    builder = case.builder(changes)
    state = builder.start(train, {}, 0)
    for _ in range(builder.iterations):
        builder.step(state)


def check_parity(case: Case, variant: str) -> None:
    """Loss and update of an expert on one mini-batch, trained together with its like, against the reference.

    Raises:
        AssertionError: they differ by more than `TOLERANCE`.
    """
    train, builder = case.train(), case.builder(VARIANTS[variant])
    learner = builder.start(train, {}, 0).learner
    dtype = torch.float64 if builder.precision == "float32" else torch.float32
    model = PlainConvNet(case.side, case.width).to(case.device, dtype)
    old = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    images, labels, losses = train.images[:20].to(dtype), train.labels[:20], []
    together = builder.at_once

    def gradient(theta: Tensor) -> Tensor:
        shown, aims = (tensor.expand(together, *tensor.shape) for tensor in (images, labels))
        found, loss = training.mean_gradient(learner, theta, shown, aims)
        losses.append(loss)
        return found

    settings = {"lr": LR} if case.optimizer == "sgd" else {"lr": LR, "rho": RHO, "alpha": ALPHA}
    found = getattr(training, case.optimizer)(old.repeat(together, 1), gradient, **settings)[-1] - old
    _, loss = plain_step(model, images, labels, case.optimizer)
    expected = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - old
    loss_difference = abs(losses[0][-1].item() / loss.item() - 1)
    difference = float((found - expected).norm() / expected.norm())
    print(f"  {variant}: loss differs by {loss_difference:.1e}, update by {difference:.1e}", flush=True)
    assert max(loss_difference, difference) < TOLERANCE[builder.precision], variant


def compare(case: Case, variants: Sequence[str], rounds: int) -> None:
    """Print one table."""
    shape = f"{case.images} images 3x{case.side}x{case.side}"
    print(f"{case.optimizer}: {case.experts} experts, {shape}, width {case.width}, "
          f"batch {BATCH}, {case.device}, {torch.get_num_threads()} threads", flush=True)  # fmt: skip
    for variant in variants[1:]:
        check_parity(case, variant)
    train, seconds = case.train(), {variant: [] for variant in variants}
    for turn in range(rounds + 1):  # the first warms up: compilation, caches, allocators
        for variant, times in seconds.items():
            work: Callable[[], None] = _work(case, train, variant)
            taken, _ = timed(case, work)
            if turn:
                times.append(taken / case.experts)
    base = statistics.median(seconds["reference"])
    print(f"  {'variant':20} {'s/epoch':>8} {'ratio':>6} {'of each round':>20}")
    for variant, times in seconds.items():
        ratios = [taken / plain for taken, plain in zip(times, seconds["reference"], strict=True)]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  {variant:20} {statistics.median(times):8.2f} {statistics.median(times) / base:6.2f} {each:>20}")


def _work(case: Case, train: ImageSet, variant: str) -> Callable[[], None]:
    changes = VARIANTS[variant]
    return lambda: plain_train(case, train) if changes is None else our_train(case, train, changes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing compiled: a few seconds")
    parser.add_argument("--optimizer", nargs="+", choices=["sgd", "gsam"], default=["sgd", "gsam"])
    parser.add_argument("--experts", type=int, default=2)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args(arguments)
    for optimizer in chosen.optimizer:
        sizes = {"experts": 2, "images": 40, "side": 8, "width": 4} if chosen.quick else {
            "experts": chosen.experts, "images": chosen.images, "side": 32, "width": 128
        }  # fmt: skip
        case = Case(optimizer=optimizer, device=chosen.device, **sizes)
        compare(case, list(VARIANTS)[:3] if chosen.quick else list(VARIANTS), 1 if chosen.quick else chosen.rounds)


if __name__ == "__main__":
    main()
