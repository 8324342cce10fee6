"""Architecture search: one network trained on several sets at once, against one set after another.

    python -m benchmarks.architecture_search [--quick] [--sets 8] [--repeats 3] [--device cpu]

A network of the space is trained on several proxies, each by its own seed, as a search does.  Both ways are shown to
come to the same losses up to rounding; "chosen" is which of the two `ddlib.evaluation.training.at_once` takes on this
device.
"""

from dataclasses import replace

import torch

from benchmarks import harness
from ddlib.analyses.architecture_search import Architecture
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import Protocol, evaluate_together, training

NETWORKS = (
    Architecture(1, 4, "relu", "none", "avg"),
    Architecture(2, 4, "relu", "batch", "avg"),
    Architecture(2, 8, "relu", "instance", "avg"),
    Architecture(2, 16, "relu", "batch", "max"),
    Architecture(3, 64, "relu", "batch", "max"),
)
"""From the smallest of the quick profile to one of the paper's space."""

NAMES, SPACE = tuple(map(str, range(10))), ValueSpace((0.0,), (1.0,))

TOLERANCE = 1e-3
"""Largest relative difference of the training losses, as a vector, between the two ways."""


def drawn(count: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (count, 1, side, side), of which each class has a pattern of its own, and their labels."""
    labels = torch.arange(count) % 10
    patterns = torch.randn(10, 1, side, side, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(seed + 2))
    return patterns[labels] + noise, labels


def compare(network: Architecture, sets: list[SyntheticSet], test: ImageSet, epochs: int, repeats: int) -> float:
    """Print the medians of both ways and their ratio, which is returned.

    Raises:
        SystemExit: the losses differ.
    """
    protocol = Protocol(options=network.options, num_networks=1, epochs=epochs)
    losses, seeds = {}, list(range(len(sets)))

    def train(name: str, size: int) -> None:
        way = replace(protocol, at_once=size)
        evaluations = evaluate_together(sets, [test] * len(sets), way, seeds=seeds)
        losses[name] = torch.tensor([evaluation.train_losses[0] for evaluation in evaluations])

    sizes = {"alone": 1, "at once": len(sets)}
    sides = {name: lambda _, name=name, size=size: train(name, size) for name, size in sizes.items()}
    medians = harness.medians(harness.in_turns(sides, repeats))
    harness.require({"losses": harness.off(losses["at once"], losses["alone"])}, TOLERANCE, network.name)
    ratio, learner = medians["at once"] / medians["alone"], training.learner(protocol, sets[0].shape, 10)
    several = training.at_once(protocol, learner, len(sets[0]), test.device, different_sets=True) > 1
    seconds = ", ".join(f"{name} {each:6.3f} s" for name, each in medians.items())
    chosen = "at once" if several else "alone"
    print(f"{network.name:24} {seconds}, ratio {ratio:4.2f}, chosen: {chosen}", flush=True)
    return ratio


def main(words: list[str] | None = None) -> None:
    """Print a line for each network."""
    parser = harness.options(__doc__)
    parser.add_argument("--quick", action="store_true", help="few epochs of the two smallest networks")
    parser.add_argument("--sets", type=int, default=8, help="sets, each with a seed of its own")
    parser.add_argument("--images", type=int, default=50, help="images a set")
    parser.add_argument("--side", type=int, default=16, help="pixels a side")
    parser.add_argument("--device", default="cpu")
    case = parser.parse_args(words)
    epochs, networks, repeats = (2, NETWORKS[:2], 1) if case.quick else (20, NETWORKS, case.repeats)
    print(
        f"{case.sets} sets of {case.images} images {case.side}x{case.side}, {epochs + 1} epochs, {case.device}, "
        f"{torch.get_num_threads()} threads"
    )
    strategy = "crop_cutout_scale_rotate"
    sets = [
        SyntheticSet(*drawn(case.images, case.side, seed), NAMES, SPACE, strategy).to(case.device)
        for seed in range(case.sets)
    ]
    test = ImageSet("benchmark", "test", *drawn(200, case.side, -1), NAMES, SPACE).to(case.device)
    for network in networks:
        compare(network, sets, test, epochs, repeats)


if __name__ == "__main__":
    main()
