"""Architecture search: one network trained on several sets at once, against one set after another.

    python -m benchmarks.architecture_search [--quick] [--sets 8] [--rounds 3] [--device cpu]

A network of the space is trained on several proxies, each by its own seed, as a search does.  Both ways take turns, are
shown to come to the same losses up to rounding, and their medians are compared; "chosen" is which of the two
`ddlib.evaluation.training.at_once` takes on this device.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ddlib.analyses.nas import Architecture
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

TOLERANCE = 1e-3
"""Largest difference of a training loss between the two ways."""


@dataclass(frozen=True)
class Case:
    """What is trained: sizes alone, the values are random; each class has a pattern of its own."""

    sets: int
    images: int
    side: int
    epochs: int
    device: str

    def of(self, seed: int) -> SyntheticSet:
        """A proxy."""
        images, labels = self._drawn(self.images, seed)
        names = tuple(map(str, range(10)))
        return SyntheticSet(images, labels, names, ValueSpace((0.0,), (1.0,)), "crop_cutout_scale_rotate")

    def test(self) -> ImageSet:
        """A small test set."""
        images, labels = self._drawn(200, -1)
        names = tuple(map(str, range(10)))
        return ImageSet("benchmark", "test", images, labels, names, ValueSpace((0.0,), (1.0,)))

    def _drawn(self, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 10
        shape = (1, self.side, self.side)
        patterns = torch.randn(10, *shape, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed + 2))
        return (patterns[labels] + noise).to(self.device), labels.to(self.device)


def compare(case: Case, network: Architecture, rounds: int) -> float:
    """Print the medians of both ways and their ratio, which is returned."""
    protocol = Protocol(options=network.options, num_networks=1, epochs=case.epochs)
    sets, tests, seeds = [case.of(i) for i in range(case.sets)], [case.test()] * case.sets, [*range(case.sets)]
    ways = {name: replace(protocol, at_once=size) for name, size in (("alone", 1), ("at once", case.sets))}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            found = evaluate_together(sets, tests, way, seeds=seeds)
            if turn:  # the first one is to warm up
                seconds[name].append(time.perf_counter() - begin)
            losses[name] = torch.tensor([one.train_losses[0] for one in found])
    difference = float((losses["alone"] - losses["at once"]).abs().max())
    assert difference < TOLERANCE, f"{network.name}: the losses differ by {difference:.1e}"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["at once"] / medians["alone"]
    learner = training.learner(protocol, sets[0].shape, 10)
    several = training.at_once(protocol, learner, case.images, torch.device(case.device), different_sets=True) > 1
    print(
        f"{network.name:24} alone {medians['alone']:6.3f} s, at once {medians['at once']:6.3f} s, ratio {ratio:4.2f}, "
        f"losses differ by {difference:.0e}, chosen: {'at once' if several else 'alone'}",
        flush=True,
    )
    return ratio


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few epochs of the two smallest networks")
    parser.add_argument("--sets", type=int, default=8, help="sets, each with a seed of its own")
    parser.add_argument("--images", type=int, default=50, help="images a set")
    parser.add_argument("--side", type=int, default=16, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args(arguments)
    epochs, networks, rounds = (2, NETWORKS[:2], 1) if chosen.quick else (20, NETWORKS, chosen.rounds)
    case = Case(chosen.sets, chosen.images, chosen.side, epochs, chosen.device)
    print(
        f"{case.sets} sets of {case.images} images {case.side}x{case.side}, {epochs + 1} epochs, {case.device}, "
        f"{torch.get_num_threads()} threads, {rounds} rounds in turn"
    )
    for network in networks:
        compare(case, network, rounds)


if __name__ == "__main__":
    main()
