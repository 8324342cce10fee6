"""What the benchmarks share: random pictures, the field's plain network and augmentation, and sides timed in turns.

A benchmark holds ours to a plain reference before it times them: exactly in float64, where a ReLU on the other side of
zero makes no difference, and up to rounding in the precision that is timed.  Both sides take turns in one process, and
the medians are compared; memory is the peak of a fresh process for each side.
"""

import argparse
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet, ValueSpace
from ddlib.store import progress

CLASSES, SIDE = 10, 32
DEVICE = "cpu"
"""Where all is computed; `begin` sets it."""

ROWS: list[dict[str, Any]] = []
"""What was timed in this process: benchmark, case, side, seconds, and their ratio to those of the reference."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MEBIBYTE = 2**20


def pictures(count: int, shape: tuple[int, int, int] = (3, SIDE, SIDE)) -> ImageSet:
    """Random pictures, ten classes in turn: the arithmetic does not depend on what they show."""
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=stream)
    space = ValueSpace(mean=(0.5,) * shape[0], std=(0.29,) * shape[0])
    names = tuple(f"class {k}" for k in range(CLASSES))
    return ImageSet("pictures", "train", images, torch.arange(count) % CLASSES, names, space).to(DEVICE)


IN_PLACE = partial(nn.ReLU, inplace=True)


class PlainConvNet(nn.Module):
    """The field's ConvNet: blocks of convolution, norm, ReLU and pooling down to 4x4, then a linear classifier."""

    def __init__(self, width: int, norm: str = "instance", activation: Callable[[], nn.Module] = IN_PLACE):
        super().__init__()
        layers, channels, side = [], 3, SIDE
        while side > 4:
            layers += [nn.Conv2d(channels, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width, width)]
            layers += [activation(), nn.AvgPool2d(2)]
            channels, side = width, side // 2
        self.trunk = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, CLASSES)

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, side, side) -> (B, 16 width)."""
        return self.trunk(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.embed(images))


def plain_copy(ours: nn.Module, width: int, norm: str = "instance") -> PlainConvNet:
    """A new plain network with the weights of our ConvNet, frozen, in training mode."""
    network = PlainConvNet(width, norm).train().to(next(ours.parameters()))
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), ours.parameters(), strict=True):
            mine.copy_(theirs)
    return network.requires_grad_(False)


def plain_augment(images: Tensor, draws: augmentation.Draws) -> Tensor:
    """DSA by the draws, one for each image or one for all, with a small matrix made for each image."""
    draws = draws if len(draws) == len(images) else draws.rows(torch.zeros(len(images), dtype=torch.long))
    family, (height, width) = augmentation.FAMILIES[int(draws.family[0])], images.shape[2:]

    def value(name: str) -> Tensor:
        return draws.parameter(name).to(images.device, images.dtype)

    if family == "color":
        b, s, c = (value(name).view(-1, 1, 1, 1) for name in ("brightness", "saturation", "contrast"))
        images = images + b
        mean = images.mean(1, keepdim=True)
        images = (images - mean) * s + mean
        mean = images.mean((1, 2, 3), keepdim=True)
        return (images - mean) * c + mean
    if family == "flip":
        return torch.where(value("mirrored").view(-1, 1, 1, 1) > 0, images.flip(3), images)
    if family == "scale":
        return _plain_affine(images, [[[sx, 0, 0], [0, sy, 0]] for sx, sy in value("zoom").tolist()])
    if family == "rotate":
        angles = [angle * math.pi / 180 for angle in value("angle").tolist()]
        rows = [[[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0]] for a in angles]
        return _plain_affine(images, rows)
    n, channel, y, x = torch.meshgrid(*(torch.arange(s, device=images.device) for s in images.shape), indexing="ij")
    first, second = value("shift" if family == "crop" else "centre").long().view(-1, 2, 1, 1, 1).unbind(1)
    if family == "crop":
        padded = F.pad(images, [1, 1, 1, 1])
        return padded[n, channel, (y - first + 1).clamp(0, height + 1), (x - second + 1).clamp(0, width + 1)]
    side = int(0.5 * height + 0.5)
    top, left = first - side // 2, second - side // 2
    return images * ~((top <= y) & (y < top + side) & (left <= x) & (x < left + side))


def _plain_affine(images: Tensor, rows: list[list[list[float]]]) -> Tensor:
    grid = F.affine_grid(torch.tensor(rows, dtype=images.dtype).to(images.device), images.shape, align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def off(ours: Tensor, reference: Tensor) -> float:
    """The relative difference from the reference, as vectors in float64."""
    ours, reference = ours.detach().double().cpu(), reference.detach().double().cpu()
    return float((ours - reference).norm() / reference.norm())


def require(differences: Mapping[str, float], allowed: float, where: str = "float64") -> None:
    """Refuse to time what computes something else.

    Raises:
        SystemExit: one of the differences is more than what is allowed.
    """
    if not max(differences.values()) <= allowed:
        raise SystemExit(f"{differences} off the reference in {where}; no ratio is worth printing")
    text = ", ".join(f"{name} {difference:.1e}" for name, difference in differences.items())
    print(f"  off the reference in {where}: {text}", flush=True)


def in_turns(
    sides: Mapping[str, Callable[[int], Any]], repeats: int, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side, turn by turn: it is called with the number of the turn, of which 0 warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            begin = _now(clock)
            side(turn)
            seconds[name].append(_now(clock) - begin)
    return {name: each[1:] for name, each in seconds.items()}


def _now(clock: Callable[[], float]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock()


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(each) for name, each in seconds.items()}


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work` returns in a fresh process with as many threads as this one; on a GPU, which counts alone, here."""
    if DEVICE != "cpu":
        progress.reset_peak_memory(DEVICE)
        return work(*arguments)
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.apply(work, arguments)


def peak() -> float:
    """Peak memory, MiB: of this process since it was started, or of the GPU since `apart` began."""
    return progress.peak_memory(DEVICE) / MEBIBYTE


def options(doc: str) -> argparse.ArgumentParser:
    """The command line of a benchmark, whose module has the docstring, with what most of them take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="turns that count (default: %(default)s)")
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS), help="cpu: seconds of this process alone")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    return parser


def begin(parser: argparse.ArgumentParser, words: list[str] | None) -> argparse.Namespace:
    """The options in `words`, or in those of the process; from here on all is computed on the device that they name."""
    global DEVICE
    case = parser.parse_args(words)
    DEVICE = case.device
    return case


def note(benchmark: str, case: str, seconds: Mapping[str, float], reference: str = "reference") -> None:
    """Add the seconds of each side to `ROWS`."""
    for side, each in seconds.items():
        row = {"benchmark": benchmark, "case": case, "side": side, "seconds": each}
        ROWS.append(row | {"ratio": each / seconds[reference]})
