"""Images of DiM's generator at deployment: made mini-batch by mini-batch as published, or for many of them together.

    OMP_NUM_THREADS=1 python -m benchmarks.generation [--width 196] [--size cifar10] [--images 500] [--repeats 3]

The reference overwrites the noise with the class code on the host, image by image, and passes each mini-batch (10, 25
and 50 images at 1, 10 and 50 images per class) through a contiguous generator in float32.  Ours is what evaluation
does (`ddlib.evaluation.images`).  Both make the same images of the same noise, which is checked before they are timed;
times are medians of alternating runs on one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ddlib import methods, seeding
from ddlib.data.datasets import ImageSet, ValueSpace
from ddlib.data.synthetic import SyntheticStream
from ddlib.evaluation.images import Generated
from ddlib.models.gan import Generator

SHAPES = {"cifar10": (3, 32, 32), "fashion_mnist": (1, 28, 28)}
CLASSES, IMAGES = 10, 2048
BATCHES = {1: 10, 10: 25, 50: 50}
"""Images per class -> images in a mini-batch."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TOLERANCE = 1e-4
"""Relative difference of the images in float32."""


def decoded(generator: Generator, z: Tensor, y: Tensor) -> Tensor:
    """Images of noise `z` whose first places are overwritten by the class code on the host, image by image."""
    for i, label in enumerate(y.tolist()):
        z[i, :CLASSES] = torch.tensor([float(k == label) for k in range(CLASSES)])
    x = F.relu(generator.project_norm(generator.project(z)))
    return torch.tanh(generator.image(generator.blocks(x.view(-1, generator.width, 4, 4))))


def pictures(size: str) -> ImageSet:
    """Random pictures: the arithmetic does not depend on what they show."""
    shape = SHAPES[size]
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, *shape), dtype=torch.uint8, generator=stream)
    space = ValueSpace(mean=(0.5,) * shape[0], std=(0.29,) * shape[0])
    names = tuple(f"class {k}" for k in range(CLASSES))
    return ImageSet("pictures", "train", images, torch.arange(IMAGES) % CLASSES, names, space)


def streamed(size: str, width: int, ipc: int) -> SyntheticStream:
    """A stream whose generator has not learnt anything."""
    method, train = methods.build("gan", ipc=ipc, generator_width=width), pictures(size)
    made = method.gan.finish(method.gan.start(train, {}, 0))
    return method.finish(method.start(train, {"gan": made}, 0))


@torch.no_grad()
def plain(stream: SyntheticStream, generator: Generator, epochs: int, batch: int) -> Tensor:
    """The images of some epochs, one mini-batch after another."""
    parts = []
    for epoch in range(epochs):
        draw = seeding.generator(0, "evaluation", "generated", 0, epoch)
        labels, noise = stream.labels(len(stream), draw), stream.noise(len(stream), draw)
        for y, z in zip(labels.split(batch), noise.split(batch), strict=True):
            parts.append(stream.space.encode((decoded(generator, z, y) + 1) / 2))
    return torch.cat(parts)


def ours(stream: SyntheticStream, epochs: int, batch: int, precision: str) -> Tensor:
    """The same images as evaluation gets them."""
    shown = Generated(stream=stream, strategy="none", epochs=epochs, precision=precision, balanced=True)
    return torch.cat([images[0] for epoch in range(epochs) for images, _ in shown.epoch(epoch, [0], 0, batch)])


def measure(ipc: int, stream: SyntheticStream, *, images: int, repeats: int, clock: Callable[[], float]) -> None:
    """Compare, time and print one number of images per class.

    Raises:
        SystemExit: the images differ.
    """
    batch, epochs = BATCHES[ipc], max(1, images // len(stream))
    generator = Generator(shape=stream.shape, num_classes=CLASSES, width=stream.width).eval()
    generator.load_state_dict(stream.generator)
    sides: dict[str, Callable[[], Tensor]] = {"reference": lambda: plain(stream, generator, epochs, batch)}
    sides |= {name: lambda name=name: ours(stream, epochs, batch, name) for name in ("float32", "bfloat16")}
    wanted, taken = sides["reference"](), {name: [] for name in sides}
    off = {name: float((side() - wanted).norm() / wanted.norm()) for name, side in sides.items()}
    if off["float32"] > TOLERANCE:
        raise SystemExit(f"images are {off['float32']:.1e} off the reference in float32; no ratio is worth printing")
    for _ in range(repeats):
        for name, side in sides.items():
            begin = clock()
            side()
            taken[name].append((clock() - begin) / len(wanted))
    median = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in median.items():
        ratio = f"time x{seconds / median['reference']:.2f}, off by {off[name]:.0e}"
        print(f"  IPC {ipc:2}, b = {batch:2}  {name:9} {seconds * 1e3:7.2f} ms an image   {ratio}", flush=True)


def table(size: str, *, width: int, images: int, repeats: int, clock: Callable[[], float]) -> None:
    """Print what an image costs at deployment, at 1, 10 and 50 images per class."""
    print(f"images at deployment, {size} shapes, width {width}", flush=True)
    for ipc in BATCHES:
        measure(ipc, streamed(size, width, ipc), images=images, repeats=repeats, clock=clock)


def main(words: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=196)
    parser.add_argument("--size", default="cifar10", choices=list(SHAPES))
    parser.add_argument("--images", type=int, default=500, help="made in each run, at least an epoch's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    chosen = parser.parse_args(words)
    table(chosen.size, width=chosen.width, images=chosen.images, repeats=chosen.repeats, clock=CLOCKS[chosen.clock])


if __name__ == "__main__":
    main()
