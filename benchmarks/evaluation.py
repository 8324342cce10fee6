"""Evaluation: five networks trained on a synthetic set and tested, against the loop as the field writes it.

    python -m benchmarks.evaluation [--quick] [--ipc 1 10] [--rounds 3] [--device cpu]

The reference trains one network after another in float32, through a loader that fetches image by image, with lists of
transform parameters, a loss read back at every mini-batch and accuracies counted in NumPy.  All variants see images of
CIFAR-10's shape with random values; before anything is timed, loss and gradient of the same weights on the same
images are shown to agree (float32 in float64).  Then the variants take turns, and the medians are compared.
"""

import argparse
import functools
import multiprocessing
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddlib.data.augmentation import STRATEGY
from ddlib.evaluation import Protocol, training
from ddlib.evaluation.images import Fixed

VARIANTS = {
    "reference": None,
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "float32, compiled": {"compiled": True},
    "bfloat16, compiled": {"precision": "bfloat16", "compiled": True},
}
"""Name -> what it changes of the protocol; None: the plain loop."""

TOLERANCE = {"float32": 1e-10, "bfloat16": 0.1}
"""Largest relative difference of the loss, and of the gradient as one vector.

What is to be exact is compared in float64: in float32 a single ReLU that falls on the other side of zero makes 1e-3.
"""


@dataclass(frozen=True)
class Case:
    """What is trained and tested: sizes alone, the values are random."""

    ipc: int
    networks: int
    epochs: int
    test_images: int
    side: int
    width: int
    device: str

    def images(self, count: int) -> Tensor:
        """(count, 3, side, side) float32, standard normal."""
        shape = (count, 3, self.side, self.side)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def labels(self, count: int) -> Tensor:
        """(count,) int64, ten classes in turn."""
        return (torch.arange(count) % 10).to(self.device)


class PlainConvNet(nn.Sequential):
    """Blocks of convolution, norm, ReLU and pooling down to 4x4, then a linear layer."""

    def __init__(self, side: int, width: int):
        layers, channels = [], 3
        while side > 4:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(), nn.AvgPool2d(2)]
            channels, side = width, side // 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * side * side, 10))


def plain_augment(images: Tensor) -> Tensor:
    """One family for the mini-batch, drawn by NumPy; scale and rotate build one small tensor an image."""
    batch, _, height, width = images.shape
    device, family = images.device, np.random.choice(STRATEGY.split("_"))
    column = functools.partial(torch.rand, batch, 1, 1, 1, device=device)
    if family == "color":
        images = images + column() - 0.5
        mean = images.mean(1, keepdim=True)
        images = (images - mean) * (2 * column()) + mean
        mean = images.mean((1, 2, 3), keepdim=True)
        return (images - mean) * (column() + 0.5) + mean
    if family == "flip":
        return torch.where(column() < 0.5, images.flip(3), images)
    if family in ("crop", "cutout"):
        return _plain_window(images, family, int(height * 0.125 + 0.5), int(height * 0.5 + 0.5))
    if family == "scale":
        thetas = [[[1 / 1.2 + u * (1.2 - 1 / 1.2), 0, 0], [0, 1 / 1.2 + v * (1.2 - 1 / 1.2), 0]]
                  for u, v in torch.rand(batch, 2)]  # fmt: skip
    else:
        angles = [(u - 0.5) * 2 * 15 * float(np.pi) / 180 for u in torch.rand(batch)]
        thetas = [[[torch.cos(a), torch.sin(-a), 0], [torch.sin(a), torch.cos(a), 0]] for a in angles]
    theta = torch.stack([torch.tensor(rows, dtype=torch.float) for rows in thetas]).to(device)
    return F.grid_sample(images, F.affine_grid(theta, list(images.shape), align_corners=False), align_corners=False)


def _plain_window(images: Tensor, family: str, reach: int, side: int) -> Tensor:
    batch, _, height, width = images.shape
    index = [torch.arange(n, device=images.device) for n in (batch, height, width)]
    n, y, x = torch.meshgrid(*index, indexing="ij")
    if family == "crop":
        dy, dx = (torch.randint(-reach, reach + 1, (batch, 1, 1), device=images.device) for _ in range(2))
        padded = F.pad(images, [1, 1, 1, 1]).permute(0, 2, 3, 1)
        return padded[n, (y + dy + 1).clamp(0, height + 1), (x + dx + 1).clamp(0, width + 1)].permute(0, 3, 1, 2)
    cy, cx = (torch.randint(0, height + 1, (batch, 1, 1), device=images.device) for _ in range(2))
    mask = torch.ones(batch, height, width, device=images.device)
    n, y, x = torch.meshgrid(index[0], index[1][:side], index[2][:side], indexing="ij")
    mask[n, (y + cy - side // 2).clamp(0, height - 1), (x + cx - side // 2).clamp(0, width - 1)] = 0
    return images * mask[:, None]


def plain_train(case: Case) -> list[nn.Module]:
    """The networks, one after another."""
    count, trained = 10 * case.ipc, []
    data = TensorDataset(case.images(count), case.labels(count))
    for _ in range(case.networks):
        model, lr = PlainConvNet(case.side, case.width).to(case.device), 0.01
        optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=0)
        for epoch in range(case.epochs + 1):
            plain_epoch(model, loader, optimiser)
            if epoch == case.epochs // 2 + 1:
                lr *= 0.1
                optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
        trained.append(model)
    return trained


def plain_epoch(model: nn.Module, loader: DataLoader, optimiser: torch.optim.Optimizer | None) -> float:
    """One pass over the data, training where there is an optimiser; the accuracy."""
    device = next(model.parameters()).device
    model.train(optimiser is not None)
    total, correct, count = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.float().to(device), labels.long().to(device)
        output = model(plain_augment(images) if optimiser else images)
        loss = F.cross_entropy(output, labels)
        correct += np.sum(np.equal(np.argmax(output.cpu().data.numpy(), axis=-1), labels.cpu().data.numpy()))
        total += loss.item() * len(labels)
        count += len(labels)
        if optimiser:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return correct / count


def plain_test(case: Case, trained: Sequence[nn.Module]) -> None:
    """The accuracy of each network."""
    data = TensorDataset(case.images(case.test_images), case.labels(case.test_images))
    for model in trained:
        with torch.no_grad():
            plain_epoch(model, DataLoader(data, batch_size=256), None)


def protocol_of(case: Case, changes: dict[str, Any]) -> Protocol:
    """The protocol of a variant."""
    return Protocol(options={"width": case.width}, num_networks=case.networks, epochs=case.epochs, **changes)


def our_train(case: Case, protocol: Protocol) -> list[training.Trained]:
    """The networks, as many at once as the library chooses."""
    learner, count, trained = training.learner(protocol, (3, case.side, case.side), 10), 10 * case.ipc, []
    size = training.at_once(protocol, learner, count, torch.device(case.device))
    for start in range(0, case.networks, size):
        group = range(start, min(start + size, case.networks))
        shown = Fixed(case.images(count), case.labels(count), STRATEGY)
        (networks,) = training.train(learner, shown, protocol, networks=group, seed=0)
        trained += networks
    return trained


def our_test(case: Case, protocol: Protocol, trained: Sequence[training.Trained]) -> None:
    """The accuracy of each network."""
    images, labels = case.images(case.test_images), case.labels(case.test_images)
    learner = training.learner(protocol, (3, case.side, case.side), 10)
    for network in trained:
        found = training.predictions(learner, network, len(images), images.__getitem__)
        int((found == labels).sum())


def functions(case: Case, variant: str) -> tuple[Callable[[], list], Callable[[list], None]]:
    """What trains the variant's networks, and what tests them."""
    if VARIANTS[variant] is None:
        return functools.partial(plain_train, case), functools.partial(plain_test, case)
    protocol = protocol_of(case, VARIANTS[variant])
    return functools.partial(our_train, case, protocol), functools.partial(our_test, case, protocol)


def check_parity(case: Case, variant: str) -> None:
    """Loss and gradient of one network on the same images, against the reference.

    Raises:
        AssertionError: they differ by more than `TOLERANCE`.
    """
    protocol = protocol_of(case, VARIANTS[variant])
    learner = training.learner(protocol, (3, case.side, case.side), 10)
    dtype = torch.float64 if protocol.precision == "float32" else torch.float32
    model = PlainConvNet(case.side, case.width).to(case.device, dtype)
    names = dict(learner.network.build(generator=torch.Generator()).named_parameters())
    ours = {n: p.detach()[None].clone().requires_grad_() for n, p in zip(names, model.parameters(), strict=True)}
    images, labels = case.images(10).to(dtype), case.labels(10)
    reference = F.cross_entropy(model(images), labels, reduction="sum")
    found = learner.losses(ours, {}, images[None], labels[None]).sum()
    expected, gradient = (
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(weights))])
        for value, weights in ((reference, model.parameters()), (found, ours.values()))
    )
    loss_difference = abs(found.item() / reference.item() - 1)
    difference = float((gradient - expected).norm() / expected.norm())
    print(f"  {variant}: loss differs by {loss_difference:.1e}, gradient by {difference:.1e}", flush=True)
    assert max(loss_difference, difference) < TOLERANCE[protocol.precision], variant


def timed(case: Case, work: Callable, *inputs: Any) -> tuple[float, Any]:
    """Seconds of a call, and what it returned."""
    wait = torch.cuda.synchronize if case.device.startswith("cuda") else lambda: None
    wait()
    begin = time.perf_counter()
    result = work(*inputs)
    wait()
    return time.perf_counter() - begin, result


def peak_memory(case: Case, variant: str, threads: int) -> float:
    """MiB that training and testing one network adds, compilation included; called in a process of its own."""
    torch.set_num_threads(threads)
    train, test = functions(replace(case, networks=1, epochs=1), variant)
    if case.device.startswith("cuda"):
        test(train())
        return torch.cuda.max_memory_allocated() / 2**20
    before = _resident()
    test(train())
    return _resident() - before


def _resident() -> float:
    """Peak of this process in MiB; on Linux from its status, since the other source begins at the parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def compare(case: Case, variants: Sequence[str], rounds: int, *, memory: bool) -> None:
    """Print one table."""
    print(f"IPC {case.ipc}: {case.networks} networks, images 3x{case.side}x{case.side}, width {case.width}, "
          f"{case.epochs + 1} epochs, {case.test_images} test images, {case.device}", flush=True)  # fmt: skip
    seconds = {variant: ([], []) for variant in variants}
    for variant in variants[1:]:
        check_parity(case, variant)
    for turn in range(rounds + 1):  # the first warms up: compilation, caches, allocators
        for variant, (training_times, test_times) in seconds.items():
            train, test = functions(case, variant)
            train_seconds, trained = timed(case, train)
            test_seconds, _ = timed(case, test, trained)
            if turn:
                training_times.append(train_seconds / case.networks / (case.epochs + 1))
                test_times.append(test_seconds / case.networks / case.test_images)
    print(f"  {'variant':20} {'ms/epoch':>9} {'ratio':>6} {'us/test image':>14} {'ratio':>6} {'peak MiB':>9}")
    train_base, test_base = map(statistics.median, seconds["reference"])
    for variant, times in seconds.items():
        train_time, test_time = map(statistics.median, times)
        peak = f"{_in_own_process(case, variant):9.0f}" if memory else f"{'-':>9}"
        print(f"  {variant:20} {1e3 * train_time:9.1f} {train_time / train_base:6.2f} "
              f"{1e6 * test_time:14.0f} {test_time / test_base:6.2f} {peak}", flush=True)  # fmt: skip


def _in_own_process(case: Case, variant: str) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_memory, (case, variant, torch.get_num_threads()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing compiled: a few seconds")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        tiny = Case(ipc=1, networks=2, epochs=1, test_images=20, side=8, width=4, device=chosen.device)
        return compare(tiny, ["reference", "float32"], 1, memory=False)
    for ipc in chosen.ipc:
        case = Case(ipc=ipc, networks=5, epochs=3, test_images=500, side=32, width=128, device=chosen.device)
        compare(case, list(VARIANTS), chosen.rounds, memory=True)


if __name__ == "__main__":
    main()
