"""A step of ATOM, DataDAM or DM at CIFAR-10 shape, ours against a plain form of the authors': time, memory, equality.

    python -m benchmarks.attention_matching [--method dm] [--norm instance] [--ipc 10] [--repeats 5] [--only float32]

The reference does what the code of this line does: a new network object each step; class by class a gather, an
augmentation whose affine matrices are built in a Python list image by image, and a forward pass (one pass over all
classes where the network has BatchNorm, as DataDAM does); forward hooks that clone every activation, but for DM;
float32; channels first.  Both sides see the same images, transforms and weights.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import harness
from benchmarks.harness import CLASSES, SIDE, PlainConvNet
from ddlib import methods, models, seeding
from ddlib.data import augmentation
from ddlib.methods import pixels

BATCH = 128
OURS = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16 compiled": {"precision": "bfloat16", "compiled": True},
}
TOLERANCE = 1e-7
"""Relative difference from the reference that is allowed in float64."""

Side = tuple[methods.Method, pixels.PixelState]


def plain_features(network: PlainConvNet, images: Tensor, hooked: bool) -> tuple[list[Tensor], Tensor]:
    """Activations of every ReLU but the last, caught by hooks and cloned where they are used, and the embedding."""
    if not hooked:
        return [], network.embed(images)
    activations: list[Tensor] = []
    relus = [module for module in network.trunk if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_hook(lambda _m, _i, out: activations.append(out.clone())) for relu in relus]
    embedding = network.embed(images)
    for handle in handles:
        handle.remove()
    return activations[:-1], embedding


def plain_attention(maps: Tensor, p: int, dim: tuple[int, ...]) -> Tensor:
    """The attention maps of a batch, normalised and averaged."""
    return F.normalize((maps.abs() ** p).sum(dim).flatten(1), dim=1).mean(0)


def plain_loss(method: methods.Method, network: PlainConvNet, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The loss over (real, synthetic) images of each class, written as the sum that the papers write."""
    attentions = {  # how its maps are matched -> power and axes
        "atom": lambda: ((method.p_spatial, (1,)), (method.p_channel, (2, 3))),
        "datadam": lambda: ((method.p, (1,)),),
        "dm": tuple,
    }[method.name]()
    scale, weight = (1, 1) if method.name == "dm" else (method.scale, method.mmd)
    if method.norm == "batch":
        features = []
        for images in zip(*pairs, strict=True):
            maps, embedding = plain_features(network, torch.cat(images), bool(attentions))
            parts = zip(*(tensor.chunk(CLASSES) for tensor in (*maps, embedding)), strict=True)
            features.append([(list(part[:-1]), part[-1]) for part in parts])
        pairs_of_features = zip(*features, strict=True)
    else:
        pairs_of_features = ([plain_features(network, images, bool(attentions)) for images in pair] for pair in pairs)
    loss = pairs[0][1].new_zeros(())
    for (maps_real, e_real), (maps_syn, e_syn) in pairs_of_features:
        for real, syn in zip(maps_real, maps_syn, strict=True):
            for p, dim in attentions:
                target = plain_attention(real.detach(), p, dim)
                loss = loss + scale * ((target - plain_attention(syn, p, dim)) ** 2).sum()
        loss = loss + scale * weight * ((e_real.detach().mean(0) - e_syn.mean(0)) ** 2).sum()
    return loss


def plain_step(method: methods.Method, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
    """Loss and pixel gradient of one step of the reference, from the same streams as ours."""
    models.reset(state.network, seeding.generator(state.seed, "network", state.step))
    network = harness.plain_copy(state.network, method.width or 128, method.norm)
    draw = seeding.generator(state.seed, "real", state.step)
    stream = seeding.generator(state.seed, "augmentation", state.step)
    draws = augmentation.draw(CLASSES, 1, size=(SIDE, SIDE), strategy=state.strategy, generator=stream)
    pairs = []
    for k, rows in enumerate(state.rows_by_class):
        real = state.train.take(rows[torch.randperm(len(rows), generator=draw)[:BATCH]])
        syn = state.images[k * method.ipc : (k + 1) * method.ipc]
        pairs.append([harness.plain_augment(images, draws.rows(torch.tensor([k]))) for images in (real, syn)])
    loss = plain_loss(method, network, pairs)
    (gradient,) = torch.autograd.grad(loss, state.images)
    return loss.detach(), gradient


def our_step(method: methods.Method, state: pixels.PixelState) -> tuple[Tensor, Tensor]:
    """Loss and pixel gradient of one step of ours."""
    before = state.images.detach().clone()
    loss = replace(method, lr_images=1.0, momentum=0.0).step(state)["loss"]
    return loss, before - state.images.detach()


def prepared(norm: str, ipc: int, width: int, name: str = "float32", kind: str = "atom") -> Side:
    """The method `kind` at this size and its state before the first step."""
    settings = {"batch_real": BATCH, "strategy": augmentation.STRATEGY} | OURS.get(name, {})
    method = methods.build(kind, ipc=ipc, norm=norm, width=width, **settings)
    return method, method.start(harness.pictures(2 * BATCH * CLASSES), {}, 0)


def in_double(method: methods.Method, state: pixels.PixelState) -> Side:
    """The same, all in float64."""
    train = state.train
    state.train = SimpleNamespace(
        take=lambda rows: train.take(rows).double(), device=train.device, num_classes=CLASSES, shape=train.shape
    )
    state.images, state.velocity = state.images.detach().double().requires_grad_(), state.velocity.double()
    state.network.double()
    return method, state


def differences(side: Side, steps: int) -> dict[str, float]:
    """The worst relative difference of our loss and gradient from the reference's, over some steps' transforms."""
    worst = {"loss": 0.0, "gradient": 0.0}
    for _ in range(steps):
        for name, wanted, ours in zip(worst, plain_step(*side), our_step(*side), strict=True):
            worst[name] = max(worst[name], harness.off(ours, wanted))
    return worst


def compare(norm: str, ipc: int, width: int, names: Sequence[str], kind: str = "atom") -> None:
    """Hold ours to the reference in float64; print what rounding makes of it in each precision that is timed.

    Raises:
        SystemExit: loss or gradient differ in float64.
    """
    harness.require(differences(in_double(*prepared(norm, ipc, width, kind=kind)), steps=2), TOLERANCE)
    for name in names:
        harness.require(differences(prepared(norm, ipc, width, name, kind), steps=3), float("inf"), name)


def weigh(name: str, norm: str, ipc: int, width: int, kind: str) -> float:
    """Peak memory of this process after two steps of one side, MiB."""
    side = prepared(norm, ipc, width, name, kind)
    for _ in range(2):
        (plain_step if name == "reference" else our_step)(*side)
    return harness.peak()


def report(kind: str, norm: str, ipc: int, case: argparse.Namespace) -> None:
    """Compare, time and weigh one case."""
    width, chosen = case.width, case.only
    print(f"{kind}, norm {norm}, IPC {ipc}, {BATCH} real images a class, ConvNet-3 width {width}", flush=True)
    compare(norm, ipc, width, chosen, kind)
    cases = {name: prepared(norm, ipc, width, name, kind) for name in ("reference", *chosen)}

    def step(name: str, turn: int) -> None:
        method, state = cases[name]
        state.step = turn
        (plain_step if name == "reference" else our_step)(method, state)

    sides = {name: lambda turn, name=name: step(name, turn) for name in cases}
    seconds = harness.medians(harness.in_turns(sides, case.repeats, clock=harness.CLOCKS[case.clock]))
    harness.note("attention_matching", f"{kind}, norm {norm}, IPC {ipc}, width {width}", seconds)
    memory = {name: harness.apart(weigh, name, norm, ipc, width, kind) for name in sides}
    for name in sides:
        ratios = f"time x{seconds[name] / seconds['reference']:.2f}, memory x{memory[name] / memory['reference']:.2f}"
        print(f"  {name:18} {seconds[name] * 1e3:7.0f} ms a step, peak {memory[name]:6.0f} MiB   {ratios}", flush=True)


def main(words: list[str] | None = None) -> None:
    """Report each case."""
    parser = harness.options(__doc__)
    parser.add_argument("--method", nargs="+", default=["atom"], choices=["atom", "datadam", "dm"])
    parser.add_argument("--norm", nargs="+", default=["instance", "batch"], choices=["instance", "batch"])
    parser.add_argument("--ipc", nargs="+", type=int, default=[1, 10, 50])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    case = harness.begin(parser, words)
    for kind, norm, ipc in itertools.product(case.method, case.norm, case.ipc):
        report(kind, norm, ipc, case)


if __name__ == "__main__":
    main()
