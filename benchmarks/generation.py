"""Images of DiM's generator at deployment: made mini-batch by mini-batch as published, or for many of them together.

    OMP_NUM_THREADS=1 python -m benchmarks.generation [--width 196] [--size cifar10] [--images 500] [--repeats 3]

The reference overwrites the noise with the class code on the host, image by image, and passes each mini-batch (10, 25
and 50 images at 1, 10 and 50 images per class) through a contiguous generator in float32.  Ours is what evaluation
does (`ddlib.evaluation.images`).  Both make the same images of the same noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import harness
from benchmarks.harness import CLASSES, CLOCKS
from ddlib import methods, seeding
from ddlib.data.synthetic import SyntheticStream
from ddlib.evaluation.images import Generated
from ddlib.models.gan import Generator

SHAPES = {"cifar10": (3, 32, 32), "fashion_mnist": (1, 28, 28)}
IMAGES = 2048
BATCHES = {1: 10, 10: 25, 50: 50}
"""Images per class -> images in a mini-batch."""

TOLERANCE = 1e-4
"""Relative difference of the images in float32."""


def plain_images(generator: Generator, z: Tensor, y: Tensor) -> Tensor:
    """Images of noise `z` whose first places are overwritten by the class code on the host, image by image."""
    for i, label in enumerate(y.tolist()):
        z[i, :CLASSES] = torch.tensor([float(k == label) for k in range(CLASSES)])
    x = F.relu(generator.project_norm(generator.project(z)))
    return torch.tanh(generator.image(generator.blocks(x.view(-1, generator.width, 4, 4))))


@torch.no_grad()
def plain(stream: SyntheticStream, generator: Generator, epochs: int, batch: int) -> Tensor:
    """The images of some epochs, one mini-batch after another."""
    parts = []
    for epoch in range(epochs):
        draw = seeding.generator(0, "evaluation", "generated", 0, epoch)
        labels, noise = stream.labels(len(stream), draw), stream.noise(len(stream), draw)
        for y, z in zip(labels.split(batch), noise.split(batch), strict=True):
            parts.append(stream.space.encode((plain_images(generator, z, y) + 1) / 2))
    return torch.cat(parts)


def ours(stream: SyntheticStream, epochs: int, batch: int, precision: str) -> Tensor:
    """The same images as evaluation gets them."""
    images = Generated(stream=stream, strategy="none", epochs=epochs, precision=precision, balanced=True)
    return torch.cat([batches[0] for epoch in range(epochs) for batches, _ in images.epoch(epoch, [0], 0, batch)])


def table(size: str, *, width: int, images: int, repeats: int, clock: Callable[[], float]) -> None:
    """Print what an image costs at deployment, at 1, 10 and 50 images per class, by a generator that is untrained.

    Raises:
        SystemExit: the images differ.
    """
    print(f"images at deployment, {size} shapes, width {width}", flush=True)
    train = harness.pictures(IMAGES, SHAPES[size])
    for ipc, batch in BATCHES.items():
        method = methods.build("gan", ipc=ipc, generator_width=width)
        stream = method.finish(method.start(train, {"gan": method.gan.finish(method.gan.start(train, {}, 0))}, 0))
        epochs = max(1, images // len(stream))
        generator = Generator(shape=stream.shape, num_classes=CLASSES, width=stream.width).eval()
        generator.load_state_dict(stream.generator)
        wanted = plain(stream, generator, epochs, batch)
        off = {p: harness.off(ours(stream, epochs, batch, p), wanted) for p in ("float32", "bfloat16")}
        harness.require({"images": off["float32"]}, TOLERANCE, "float32")
        sides = {"reference": lambda _, s=stream, g=generator, e=epochs, b=batch: plain(s, g, e, b)}
        sides |= {p: lambda _, p=p, s=stream, e=epochs, b=batch: ours(s, e, b, p) for p in off}
        seconds = harness.medians(harness.in_turns(sides, repeats, clock=clock))
        for name, each in seconds.items():
            ratio = f"time x{each / seconds['reference']:.2f}, off by {off.get(name, 0.0):.0e}"
            each *= 1e3 / len(wanted)
            print(f"  IPC {ipc:2}, b = {batch:2}  {name:9} {each:7.2f} ms an image   {ratio}", flush=True)


def main() -> None:
    """Print the table."""
    parser = harness.options(__doc__)
    parser.add_argument("--width", type=int, default=196)
    parser.add_argument("--size", default="cifar10", choices=list(SHAPES))
    parser.add_argument("--images", type=int, default=500, help="made in each run, at least an epoch's")
    case = parser.parse_args()
    table(case.size, width=case.width, images=case.images, repeats=case.repeats, clock=CLOCKS[case.clock])


if __name__ == "__main__":
    main()
