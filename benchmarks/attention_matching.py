"""One ATOM step at CIFAR-10 shape, ours against a plain form of the authors' lineage: time, memory, equality.

    python -m benchmarks.attention_matching [--norm instance] [--ipc 1 10 50] [--repeats 5] [--only float32]

The reference does what the code of this line does: a new network object each step; class by class a gather, an
augmentation whose affine matrices are built in a Python list image by image, and a forward pass (one pass over all
classes where the network has BatchNorm, as DataDAM does); forward hooks that clone every activation; float32;
channels first.  Both sides see the same images, transforms and weights, and are compared before they are timed.
Times are medians of alternating steps; memory is the peak of a process of its own for each side.
"""

import argparse
import math
import re
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib import methods, models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet, ValueSpace
from ddlib.methods import pixels

CLASSES, BATCH, SIDE = 10, 128, 32
OURS = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16 compiled": {"precision": "bfloat16", "compiled": True},
}

TOLERANCE = {"loss": 1e-10, "gradient": 1e-7}
"""Relative difference from the reference that is allowed in float64."""


class PlainConvNet(nn.Module):
    """The lineage's ConvNet: three blocks of convolution, norm, ReLU and pooling, then a linear classifier."""

    def __init__(self, norm: str, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers.append(nn.Conv2d(3 if i == 0 else width, width, 3, padding=1))
            layers.append(nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width, width))
            layers.append(nn.ReLU())
            layers.append(nn.AvgPool2d(2, 2))
        self.trunk = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * 16, CLASSES)

    def embed(self, images: Tensor) -> Tensor:
        return self.trunk(images).flatten(1)


def plain_network(norm: str, width: int, ours: nn.Module) -> PlainConvNet:
    """A new network object with the weights of `ours`, frozen, in training mode."""
    network = PlainConvNet(norm, width).train().to(next(ours.parameters()).dtype)
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), ours.parameters(), strict=True):
            mine.copy_(theirs)
    for parameter in network.parameters():
        parameter.requires_grad = False
    return network


def plain_affine(images: Tensor, rows: list[list[list[float]]]) -> Tensor:
    theta = torch.tensor(rows, dtype=images.dtype)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def plain_augment(images: Tensor, draws: augmentation.Draws, k: int) -> Tensor:
    """The transform of class k on all its images, with one matrix or mask for each image."""
    family = augmentation.FAMILIES[int(draws.family[k])]
    value = {name: draws.parameter(name)[k] for name in augmentation.PARAMETERS}
    n, _, height, width = images.shape
    if family == "color":
        x = images + value["brightness"]
        grey = x.mean(dim=1, keepdim=True)
        x = (x - grey) * value["saturation"] + grey
        grey = x.mean(dim=[1, 2, 3], keepdim=True)
        return (x - grey) * value["contrast"] + grey
    if family == "flip":
        return images.flip(3) if value["mirrored"] > 0 else images
    if family == "scale":
        sx, sy = (float(s) for s in value["zoom"])
        return plain_affine(images, [[[sx, 0, 0], [0, sy, 0]] for _ in range(n)])
    if family == "rotate":
        angle = float(value["angle"]) * math.pi / 180
        rows = [[[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]] for _ in range(n)]
        return plain_affine(images, rows)
    batch, channel, y, x = torch.meshgrid(*(torch.arange(s) for s in (n, 3, height, width)), indexing="ij")
    if family == "crop":
        dy, dx = (int(s) for s in value["shift"])
        padded = F.pad(images, [1, 1, 1, 1])
        return padded[batch, channel, (y - dy + 1).clamp(0, height + 1), (x - dx + 1).clamp(0, width + 1)]
    side, (cy, cx) = int(0.5 * height + 0.5), (int(c) for c in value["centre"])
    mask = torch.ones(n, height, width)
    mask[:, max(cy - side // 2, 0) : cy - side // 2 + side, max(cx - side // 2, 0) : cx - side // 2 + side] = 0
    return images * mask.unsqueeze(1)


def plain_features(network: PlainConvNet, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Activations of every ReLU but the last, caught by hooks and cloned, and the embedding."""
    caught: list[Tensor] = []
    relus = [module for module in network.trunk if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_hook(lambda _m, _i, output: caught.append(output.clone())) for relu in relus]
    embedding = network.embed(images)
    for handle in handles:
        handle.remove()
    return caught[:-1], embedding


def plain_attention(maps: Tensor, p: int, dim: tuple[int, ...]) -> Tensor:
    return F.normalize((maps.abs() ** p).sum(dim).flatten(1), dim=1).mean(0)


def of_class(k: int, features: tuple[list[Tensor], Tensor]) -> tuple[list[Tensor], Tensor]:
    """The part of class k of what a class-major batch gave."""
    maps, embedding = features
    rows = slice(k * len(embedding) // CLASSES, (k + 1) * len(embedding) // CLASSES)
    return [f[rows] for f in maps], embedding[rows]


def plain_loss(method: methods.Method, network: PlainConvNet, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The loss of ATOM over (real, synthetic) images of each class, written as the sum that the paper writes."""
    if method.norm == "batch":
        sides = [plain_features(network, torch.cat([pair[i] for pair in pairs])) for i in (0, 1)]
        cut = [[of_class(k, side) for side in sides] for k in range(CLASSES)]
    else:
        cut = [[plain_features(network, images) for images in pair] for pair in pairs]
    loss = pairs[0][1].new_zeros(())
    for (maps_real, e_real), (maps_syn, e_syn) in cut:
        for real, syn in zip(maps_real, maps_syn, strict=True):
            for p, dim in ((method.p_spatial, (1,)), (method.p_channel, (2, 3))):
                target = plain_attention(real.detach(), p, dim)
                loss = loss + 100 * ((target - plain_attention(syn, p, dim)) ** 2).sum()
        loss = loss + 100 * method.mmd * ((e_real.detach().mean(0) - e_syn.mean(0)) ** 2).sum()
    return loss


def plain_step(method: methods.Method, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
    """Loss and pixel gradient of one step of the reference, from the same streams as ours."""
    models.reset(state.network, seeding.generator(state.seed, "network", state.step))
    network = plain_network(method.norm, method.width or 128, state.network)
    draw = seeding.generator(state.seed, "real", state.step)
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(CLASSES, 1, size=(SIDE, SIDE), strategy=state.strategy, generator=stream)
    pairs = []
    for k, rows in enumerate(state.rows_by_class):
        real = state.train.take(rows[torch.randperm(len(rows), generator=draw)[:BATCH]])
        syn = state.images[k * method.ipc : (k + 1) * method.ipc]
        pairs.append((plain_augment(real, draws, k), plain_augment(syn, draws, k)))
    loss = plain_loss(method, network, pairs)
    (gradient,) = torch.autograd.grad(loss, state.images)
    return loss.detach(), gradient


def pictures(per_class: int) -> ImageSet:
    """Random pictures of CIFAR-10's shape: the arithmetic does not depend on what they show."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (CLASSES * per_class, 3, SIDE, SIDE), dtype=torch.uint8, generator=stream)
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    space = ValueSpace(mean=(0.5,) * 3, std=(0.29,) * 3)
    return ImageSet("pictures", "train", images, labels, tuple(f"class {k}" for k in range(CLASSES)), space)


def prepared(norm: str, ipc: int, width: int, **speed: object) -> tuple[methods.Method, pixels.PixelState]:
    """ATOM at this size and its state before the first step."""
    method = methods.build(
        "atom", ipc=ipc, norm=norm, width=width, batch_real=BATCH, strategy=augmentation.STRATEGY, **speed
    )
    return method, method.start(pictures(2 * BATCH), {}, 0)


def our_step(method: methods.Method, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
    """Loss and pixel gradient of one step of ours."""
    exact = replace(method, lr_images=1.0, momentum=0.0)
    before = state.images.detach().clone()
    loss = exact.step(state)["loss"]
    return loss, before - state.images.detach()


def differences(method: methods.Method, state: pixels.PixelState, steps: int) -> dict[str, float]:
    """The worst relative difference of our loss and gradient from the reference's, over some steps' transforms."""
    worst = {"loss": 0.0, "gradient": 0.0}
    for _ in range(steps):
        loss, gradient = plain_step(method, state)
        ours, found = our_step(method, state)
        worst["loss"] = max(worst["loss"], float((loss - ours).abs() / loss))
        worst["gradient"] = max(worst["gradient"], float((gradient - found).norm() / gradient.norm()))
    return worst


def compare(norm: str, ipc: int, width: int, names: list[str]) -> None:
    """Hold ours to the reference in float64; print what rounding makes of it in each precision that is timed.

    Raises:
        SystemExit: loss or gradient differ in float64.
    """
    exact = differences(*in_double(*prepared(norm, ipc, width)), steps=2)
    if any(exact[name] > allowed for name, allowed in TOLERANCE.items()):
        raise SystemExit(f"{exact} off the reference in float64; no ratio is worth printing")
    found = {"float64": exact} | {
        name: differences(*prepared(norm, ipc, width, **OURS[name]), steps=3) for name in names
    }
    for name, worst in found.items():
        print(
            f"  {name}: loss differs by {worst['loss']:.1e}, gradient by {worst['gradient']:.1e} of its norm",
            flush=True,
        )


def in_double(method: methods.Method, state: pixels.PixelState) -> tuple[methods.Method, pixels.PixelState]:
    """The same, all in float64."""
    train = state.train
    state.train = SimpleNamespace(
        take=lambda rows: train.take(rows).double(), device=train.device, num_classes=CLASSES, shape=train.shape
    )
    state.images, state.velocity = state.images.detach().double().requires_grad_(), state.velocity.double()
    state.network.double()
    return method, state


def times(norm: str, ipc: int, width: int, names: list[str], repeats: int) -> dict[str, float]:
    """Median seconds a step of the reference and of each of ours, alternating."""
    sides = {"reference": (plain_step, *prepared(norm, ipc, width))}
    sides |= {name: (our_step, *prepared(norm, ipc, width, **OURS[name])) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 2):
        for name, (step, method, state) in sides.items():
            state.step = turn
            begin = time.perf_counter()
            step(method, state)
            taken[name].append(time.perf_counter() - begin)
    return {name: statistics.median(seconds[2:]) for name, seconds in taken.items()}


def own_peak_megabytes() -> float:
    """Peak resident memory of this process since it was started (getrusage also counts what it was forked from)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def peak_megabytes(norm: str, ipc: int, width: int, name: str) -> float:
    """Peak resident memory of a process that takes two steps of one side."""
    words = [sys.executable, "-m", "benchmarks.attention_matching", "--memory", name, "--norm", norm]
    words += ["--ipc", str(ipc), "--width", str(width)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Compare, time and weigh each case, or take two steps of one side and print the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", nargs="+", default=["instance", "batch"], choices=["instance", "batch"])
    parser.add_argument("--ipc", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--memory", choices=["reference", *OURS], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory:
        side = {} if chosen.memory == "reference" else OURS[chosen.memory]
        method, state = prepared(chosen.norm[0], chosen.ipc[0], chosen.width, **side)
        for _ in range(2):
            (plain_step if chosen.memory == "reference" else our_step)(method, state)
        print(own_peak_megabytes())
        return
    for norm in chosen.norm:
        for ipc in chosen.ipc:
            print(f"norm {norm}, IPC {ipc}, {BATCH} real images a class, ConvNet-3 width {chosen.width}", flush=True)
            compare(norm, ipc, chosen.width, chosen.only)
            median = times(norm, ipc, chosen.width, chosen.only, chosen.repeats)
            memory = {name: peak_megabytes(norm, ipc, chosen.width, name) for name in median}
            for name, seconds in median.items():
                ratios = f"time x{seconds / median['reference']:.2f}, memory x{memory[name] / memory['reference']:.2f}"
                print(
                    f"  {name:18} {seconds * 1e3:7.0f} ms a step, peak {memory[name]:6.0f} MiB   {ratios}", flush=True
                )


if __name__ == "__main__":
    main()
