"""One kind of network trained on several sets at once, each as `evaluate` would train it on that set alone.

    first, second = evaluate_together([one, other], [test, test], protocol, seeds=[0, 1])

What differs from set to set are the images alone: number, shape, targets' kind and protocol are the same, so that the
networks' parameters stack.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.evaluation import Evaluation, judged, training
from ddlib.evaluation.labels import ASKING
from ddlib.evaluation.protocol import Protocol
from ddlib.evaluation.shown import Batch, Fixed, shown

SMALL, SEVERAL = 2**17, 8
"""On a CPU, `SEVERAL` networks are trained at a time where the largest map of a mini-batch of one has at most `SMALL`
elements.

Calls cost more than arithmetic there; `python -m benchmarks.architecture_search` prints what is gained, and what would
be lost beyond.
"""


@dataclass(frozen=True, eq=False)
class Beside:
    """Sets of one size beside one another: the i-th network is trained on the i-th of them.

    Args:
        parts: one a network.
    """

    parts: tuple[Fixed, ...]
    asked = None

    def __len__(self) -> int:
        """Images in an epoch of one network."""
        return len(self.parts[0])

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of the images."""
        return self.parts[0].like

    @property
    def strategy(self) -> str:
        """Of the augmentation."""
        return self.parts[0].strategy

    def epoch(self, epoch: int, networks: Sequence[int], seeds: Sequence[int], batch_size: int) -> Iterator[Batch]:
        """The mini-batches of an epoch, for the networks of the given indices, each with a seed of its own."""
        walks = [
            part.epoch(epoch, [network], seed, batch_size)
            for part, network, seed in zip(self.parts, networks, seeds, strict=True)
        ]
        for batches in zip(*walks, strict=True):
            images, targets = zip(*batches, strict=True)
            yield torch.cat(images), torch.cat(targets)


def fits_together(synthetic: SyntheticSet | SyntheticStream, protocol: Protocol) -> bool:
    """Whether `evaluate_together` takes such a set: no stream, no learning rate of its own, no compat, no teacher."""
    ours = protocol.compat is None and protocol.labels not in ASKING
    return isinstance(synthetic, SyntheticSet) and synthetic.learning_rate is None and ours


def evaluate_together(
    sets: Sequence[SyntheticSet],
    tests: Sequence[ImageSet],
    protocol: Protocol,
    *,
    seeds: Sequence[int],
    after: Callable[[int], object] = lambda count: None,
) -> list[Evaluation]:
    """What `evaluate` finds on each of several sets, by networks that are trained at once; equal up to rounding.

    Args:
        sets: alike but for the values of their images and labels.
        tests: a test set for each, in its value space.
        protocol: for all of them.
        seeds: one for each.
        after: called with the number of networks whenever so many more are trained and tested.

    Returns:
        One for each set.  `seconds` are shared out evenly among networks that were trained at once.

    Raises:
        ValueError: the sets are not alike; the message says in what.
        FloatingPointError: as `evaluate`.
    """
    _check_alike(sets, tests, protocol)
    device = tests[0].device
    parts = [shown(one.to(device), protocol, seed) for one, seed in zip(sets, seeds, strict=True)]
    learner = training.learner(protocol, tests[0].shape, tests[0].num_classes)
    places = [(which, index) for which in range(len(sets)) for index in range(protocol.num_networks)]
    size = at_once(protocol, learner, len(parts[0]), device)
    found: dict[tuple[int, int], tuple[float, float, float]] = {}
    for start in range(0, len(places), size):
        group = places[start : start + size]
        found |= _group(learner, group, parts, tests, protocol, seeds)
        after(len(group))
    return [_evaluation([found[which, i] for i in range(protocol.num_networks)], parts[which], protocol)
            for which in range(len(sets))]  # fmt: skip


def at_once(protocol: Protocol, learner: training.Learner, num_images: int, device: torch.device) -> int:
    """How many networks to train together: as `training.at_once`, and `SEVERAL` small ones on a CPU."""
    small = min(protocol.batch_size, num_images) * learner.elements <= SMALL
    if protocol.at_once is None and device.type == "cpu" and small and not learner.draws:
        return SEVERAL
    return training.at_once(protocol, learner, num_images, device)


def _group(learner, group, parts, tests, protocol, seeds) -> dict[tuple[int, int], tuple[float, float, float]]:
    """Place -> accuracy, loss and seconds of a network; all are trained at once, and each is tested on its own."""
    begin = time.perf_counter()
    beside = Beside(tuple(parts[which] for which, _ in group))
    accuracies, losses = judged(
        learner,
        beside,
        [tests[which] for which, _ in group],
        protocol,
        networks=tuple(index for _, index in group),
        seed=[seeds[which] for which, _ in group],
    )
    seconds = (time.perf_counter() - begin) / len(group)
    return {place: (*pair, seconds) for place, *pair in zip(group, accuracies, losses, strict=True)}


def _evaluation(found: Sequence[tuple[float, float, float]], part: Fixed, protocol: Protocol) -> Evaluation:
    accuracies, losses, seconds = zip(*found, strict=True)
    return Evaluation(
        networks=tuple(range(len(found))),
        accuracies=accuracies,
        train_losses=losses,
        seconds=sum(seconds),
        updates=protocol.updates(len(part.images)),
        images_shown=part.distinct,
    )


def _check_alike(sets: Sequence[SyntheticSet], tests: Sequence[ImageSet], protocol: Protocol) -> None:
    for one in sets:
        if not fits_together(one, protocol):
            raise ValueError(
                "sets are trained on at once without streams, learning rates of their own, compat and teachers"
            )
    for name, of in (
        ("images", lambda one: len(one)),
        ("shape", lambda one: tuple(one.shape)),
        ("labels", lambda one: "soft" if one.is_soft else "hard"),
        ("strategy", lambda one: one.strategy),
    ):
        if len(values := dict.fromkeys(map(of, sets))) > 1:
            told = " and ".join(map(str, values))
            raise ValueError(f"sets that are trained on at once differ in {name}: {told}; allowed: one")
    for one, test in zip(sets, tests, strict=True):
        if tuple(one.shape) != tuple(test.shape) or one.class_names != tuple(test.class_names):
            raise ValueError(f"synthetic images are {one.shape}, test images {test.shape}, or their classes differ")
