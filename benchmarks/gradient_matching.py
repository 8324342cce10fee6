"""A step of DC or DSA at CIFAR-10 shape, ours against a plain form of the authors': time, equality.

    python -m benchmarks.gradient_matching [--method dc dsa] [--ipc 10] [--width 128] [--repeats 3] [--clock cpu]

The reference does what the code of this line does: class by class a gather, an augmentation by matrices made image by
image, a gradient in the network's parameters for real and for synthetic images, and their distance, layer by layer and
output by output; float32, channels first.  Both sides see the same images, transforms and weights.
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import harness
from benchmarks.attention_matching import Side, in_double
from benchmarks.harness import CLASSES, SIDE
from ddlib import methods, models, seeding
from ddlib.data import augmentation

BATCH = 128
OURS = {"float32": {}, "bfloat16": {"precision": "bfloat16"}}
TOLERANCE = 1e-7
"""Relative difference from the reference that is allowed in float64."""


def plain_distance(real: list[Tensor], syn: list[Tensor]) -> Tensor:
    """1 - cosine of two gradients, summed over the outputs of each layer; biases and norms are not matched."""
    total = syn[0].new_zeros(())
    for a, b in zip(real, syn, strict=True):
        if a.ndim > 1:
            a, b = a.flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def plain_step(side: Side) -> tuple[Tensor, Tensor]:
    """Distance and pixel gradient of one step of the reference, from the same streams as ours."""
    method, state = side
    models.reset(state.network, seeding.generator(state.seed, "network", state.step))
    network = harness.plain_copy(state.network, method.width, method.norm).requires_grad_(True)
    draw = seeding.generator(state.seed, "real", state.step)
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(CLASSES, 1, size=(SIDE, SIDE), strategy=state.strategy, generator=stream)

    def gradients(images: Tensor, k: int, **options: bool) -> list[Tensor]:
        if state.strategy != "none":
            images = harness.plain_augment(images, draws.rows(torch.tensor([k])))
        labels = torch.full((len(images),), k, device=images.device)
        return list(torch.autograd.grad(F.cross_entropy(network(images), labels), [*network.parameters()], **options))

    loss = state.images.new_zeros(())
    for k, rows in enumerate(state.rows_by_class):
        real = gradients(state.train.take(rows[torch.randperm(len(rows), generator=draw)[:BATCH]]), k)
        syn = gradients(state.images[k * method.ipc : (k + 1) * method.ipc], k, create_graph=True)
        loss = loss + plain_distance([gradient.detach() for gradient in real], syn)
    (gradient,) = torch.autograd.grad(loss, state.images)
    return loss.detach(), gradient


def our_step(side: Side) -> tuple[Tensor, Tensor]:
    """Distance and pixel gradient of one step of ours."""
    method, state = side
    metrics, gradient = method.loss_and_gradient(state)
    return metrics["loss"], gradient


def prepared(kind: str, ipc: int, width: int, name: str = "float32") -> Side:
    """The method at this size, with one step a network, and its state before the first."""
    settings = {"matching_steps": 1, "network_epochs": 1, "batch_real": BATCH, "width": width}
    settings |= {"strategy": augmentation.STRATEGY} if kind == "dsa" else {}
    method = methods.build(kind, ipc=ipc, **settings | OURS.get(name, {}))
    return method, method.start(harness.pictures(2 * BATCH * CLASSES), {}, 0)


def compare(kind: str, ipc: int, width: int) -> None:
    """Hold ours to the reference in float64.

    Raises:
        SystemExit: distance or gradient differ.
    """
    side = in_double(*prepared(kind, ipc, width))
    pairs = zip(our_step(side), plain_step(side), strict=True)
    differences = [harness.off(ours, wanted) for ours, wanted in pairs]
    harness.require(dict(zip(("distance", "gradient"), differences, strict=True)), TOLERANCE)


def report(kind: str, case: argparse.Namespace) -> None:
    """Compare and time one method."""
    title = f"{kind}, IPC {case.ipc}, width {case.width}"
    print(f"{title}, {BATCH} real images a class, {torch.get_num_threads()} threads", flush=True)
    compare(kind, case.ipc, min(case.width, 16))
    cases = {name: prepared(kind, case.ipc, case.width, name) for name in ("reference", *case.only)}

    def step(name: str, turn: int) -> None:
        cases[name][1].step = turn
        (plain_step if name == "reference" else our_step)(cases[name])

    sides = {name: lambda turn, name=name: step(name, turn) for name in cases}
    seconds = harness.medians(harness.in_turns(sides, case.repeats, clock=harness.CLOCKS[case.clock]))
    harness.note("gradient_matching", title, seconds)
    for name, each in seconds.items():
        print(f"  {name:10} {each * 1e3:7.0f} ms a step, time x{each / seconds['reference']:.2f}", flush=True)


def main(words: list[str] | None = None) -> None:
    """Report each method."""
    parser = harness.options(__doc__)
    parser.add_argument("--method", nargs="+", default=["dc", "dsa"], choices=["dc", "dsa"])
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=["float32"], choices=list(OURS))
    case = harness.begin(parser, words)
    for kind in case.method:
        report(kind, case)


if __name__ == "__main__":
    main()
