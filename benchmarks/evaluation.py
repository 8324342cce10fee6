"""Evaluation: five networks trained on a set and tested, against the published loop, one after another.

    python -m benchmarks.evaluation [--quick] [--ipc 1 10] [--width 32] [--soft] [--only float32] [--clock cpu]

The reference trains one network after another in float32, through a loader that fetches image by image, with a small
matrix made for each image that is turned, a loss read back at every mini-batch and accuracies counted in NumPy.  All
see random images of CIFAR-10's shape; after one epoch without augmentation, weights and loss are shown to agree.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import harness
from benchmarks.harness import PlainConvNet
from ddlib.data import augmentation
from ddlib.evaluation import Protocol, training
from ddlib.evaluation.images import Fixed

OURS = {
    "float32": {},
    "one by one": {"at_once": 1},
    "compiled": {"compiled": True},
    "bfloat16": {"precision": "bfloat16"},
}
"""Name -> what it changes of the protocol."""

TOLERANCE = {"float32": 1e-10, "bfloat16": 0.1}
"""Largest relative difference of the loss, and of the update as one vector; of float32 compared in float64."""

EPOCHS, TEST_IMAGES = 1000, 10_000
"""Of the published protocol, to which a whole evaluation is reckoned up."""


@dataclass(frozen=True)
class Case:
    """What is trained and tested: sizes alone, the values are random."""

    ipc: int
    width: int
    soft: bool
    epochs: int = 4
    networks: int = 5
    test_images: int = 256
    strategy: str = augmentation.STRATEGY
    dtype: torch.dtype = torch.float32

    def pictures(self, count: int) -> tuple[Tensor, Tensor]:
        """Images, and their classes or probabilities of classes."""
        shown = harness.pictures(count)
        images, labels = shown.take(range(count)).to(self.dtype), shown.labels
        return images, F.one_hot(labels, harness.CLASSES).to(self.dtype).softmax(1) if self.soft else labels

    def protocol(self, name: str) -> Protocol:
        """The protocol of a variant."""
        return Protocol(options={"width": self.width}, num_networks=self.networks, epochs=self.epochs, **OURS[name])


def plain_epoch(
    model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer | None, case: Case, draw: torch.Generator
) -> float:
    """One pass over the data, training where there is an optimiser; the mean loss."""
    model.train(optimizer is not None)
    total, correct, count = 0.0, 0, 0
    for images, labels in loader:
        shown = images
        if optimizer and case.strategy != "none":
            draws = augmentation.draw(1, len(images), size=images.shape[2:], strategy=case.strategy, generator=draw)
            shown = harness.plain_augment(images, draws)
        output = model(shown)
        loss = F.cross_entropy(output, labels)
        classes = labels.argmax(1) if case.soft else labels
        correct += (output.detach().cpu().numpy().argmax(-1) == classes.cpu().numpy()).sum()
        total += loss.item() * len(labels)
        count += len(labels)
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return total / count


def plain_train(case: Case, initial: list[nn.Module] | None = None) -> tuple[list[nn.Module], float]:
    """The networks, one after another, and the last one's loss; `initial` are trained where they are given."""
    data, draw, loss = TensorDataset(*case.pictures(10 * case.ipc)), torch.Generator().manual_seed(0), 0.0
    activation = lambda: nn.ReLU(inplace=True)  # noqa: E731
    fresh = (PlainConvNet(case.width, activation=activation).to(harness.DEVICE) for _ in range(case.networks))
    models = initial or list(fresh)
    for model in models:
        lr, settings = 0.01, {"momentum": 0.9, "weight_decay": 5e-4}
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, **settings)
        loader = DataLoader(data, batch_size=256, shuffle=True, num_workers=0)
        for epoch in range(case.epochs + 1):
            loss = plain_epoch(model, loader, optimizer, case, draw)
            if epoch == case.epochs // 2 + 1:
                lr *= 0.1
                optimizer = torch.optim.SGD(model.parameters(), lr=lr, **settings)
    return models, loss


def our_train(case: Case, name: str) -> list[training.Trained]:
    """The networks, as many at once as the library chooses."""
    protocol, count, trained = case.protocol(name), 10 * case.ipc, []
    learner = training.learner(protocol, (3, harness.SIDE, harness.SIDE), harness.CLASSES)
    size = training.at_once(protocol, learner, count, torch.device(harness.DEVICE))
    for start in range(0, case.networks, size):
        group = range(start, min(start + size, case.networks))
        (networks,) = training.train(
            learner, Fixed(*case.pictures(count), case.strategy), protocol, networks=group, seed=0
        )
        trained += networks
    return trained


def test(case: Case, name: str, trained: list[Any]) -> None:
    """The classes of test images by each network; the reference counts what is right."""
    images, labels = case.pictures(case.test_images)
    learner = None if name == "reference" else training.learner(case.protocol(name), images.shape[1:], harness.CLASSES)
    for network in trained:
        if learner:
            training.predictions(learner, network, len(images), images.__getitem__)
            continue
        with torch.no_grad():
            loader = DataLoader(TensorDataset(images, labels), batch_size=256)
            plain_epoch(network, loader, None, case, torch.Generator())


def compare(case: Case, name: str) -> None:
    """Hold the networks of a variant after two epochs without augmentation to those of the reference.

    Raises:
        SystemExit: they differ by more than `TOLERANCE`.
    """
    precision = case.protocol(name).precision
    case = replace(
        case,
        ipc=min(case.ipc, 10),
        epochs=1,
        strategy="none",
        dtype=torch.float64 if precision == "float32" else torch.float32,
    )
    learner = training.learner(case.protocol(name), (3, harness.SIDE, harness.SIDE), harness.CLASSES)
    start, _ = training._fresh(learner, case.pictures(1)[0], range(case.networks), 0)
    models = [PlainConvNet(case.width).to(harness.DEVICE, case.dtype) for _ in range(case.networks)]
    for index, model in enumerate(models):
        for own, theirs in zip(model.parameters(), start.values(), strict=True):
            own.data.copy_(theirs[index])
    ours, (models, loss) = our_train(case, name), plain_train(case, models)
    differences = {"loss": harness.off(ours[-1].loss, torch.tensor(loss, dtype=torch.float64))}
    for index, (model, network) in enumerate(zip(models, ours, strict=True)):
        before = torch.cat([tensor[index].detach().flatten() for tensor in start.values()])
        after = torch.cat([tensor.flatten() for tensor in network.parameters.values()])
        wanted = torch.nn.utils.parameters_to_vector(model.parameters()) - before
        differences["update"] = max(differences.get("update", 0.0), harness.off(after - before, wanted))
    harness.require(differences, TOLERANCE[precision], name)


def report(case: Case, names: list[str], repeats: int, clock: str) -> None:
    """Print one table."""
    print(f"{case.networks} networks of width {case.width}, {10 * case.ipc} images 3x{harness.SIDE}x{harness.SIDE}, "
          f"{'soft' if case.soft else 'hard'} labels, {torch.get_num_threads()} threads", flush=True)  # fmt: skip
    for name in names:
        compare(case, name)
    trained: dict[str, list[Any]] = {}
    sides = {}
    for name in ("reference", *names):
        make = (lambda: plain_train(case)[0]) if name == "reference" else (lambda name=name: our_train(case, name))
        sides[name] = lambda _, name=name, make=make: trained.update({name: make()})
        sides[name, "test"] = lambda _, name=name: test(case, name, trained[name])
    seconds = harness.medians(harness.in_turns(sides, repeats, clock=harness.CLOCKS[clock]))
    print(f"  {'variant':12} {'ms/epoch':>9} {'ratio':>6} {'us/test image':>14} {'ratio':>6} {'all':>6}")
    per_epoch = {name: seconds[name] / case.networks / (case.epochs + 1) for name in trained}
    per_image = {name: seconds[name, "test"] / case.networks / case.test_images for name in trained}
    harness.note("evaluation, an epoch of a network", f"{10 * case.ipc} images, width {case.width}", per_epoch)
    harness.note("evaluation, a test image", f"width {case.width}", per_image)
    whole = {name: per_epoch[name] * (EPOCHS + 1) + per_image[name] * TEST_IMAGES for name in trained}
    for name in trained:
        ratios = [each[name] / each["reference"] for each in (per_epoch, per_image, whole)]
        print(f"  {name:12} {1e3 * per_epoch[name]:9.2f} {ratios[0]:6.2f} {1e6 * per_image[name]:14.0f} "
              f"{ratios[1]:6.2f} {ratios[2]:6.2f}", flush=True)  # fmt: skip


def main(words: list[str] | None = None) -> None:
    """Report each case."""
    parser = harness.options(__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing compiled: a few seconds")
    parser.add_argument("--ipc", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--width", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--soft", action="store_true", help="probabilities of classes as labels")
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--epochs", type=int, default=4)
    options = harness.begin(parser, words)
    if options.quick:
        tiny = Case(1, 4, options.soft, epochs=1, networks=3, test_images=20)
        return report(tiny, ["float32", "one by one"], 1, options.clock)
    for width in options.width:
        for ipc in options.ipc:
            report(Case(ipc, width, options.soft, options.epochs), options.only, options.repeats, options.clock)


if __name__ == "__main__":
    main()
