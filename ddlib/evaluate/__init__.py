"""The one protocol by which every method is judged: train fresh networks on a synthetic set, test them on real images.

    found = evaluate(synthetic, datasets.load("cifar10", "test"), Protocol(num_networks=5), seed=0)
    found.accuracies        # percent, one a network

Test images steer nothing: each network is tested once, after its last epoch.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ddlib.datasets import ImageSet
from ddlib.evaluate import training
from ddlib.evaluate.protocol import PRECISIONS, Protocol
from ddlib.synthetic import SyntheticSet

__all__ = ["PRECISIONS", "VERSION", "Evaluation", "Protocol", "evaluate", "groups"]

VERSION = 1
"""Raised when the same call gives other accuracies than before, beyond rounding."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    networks: indices of the networks, in the order of the next two.
    accuracies: on the test set, percent, one a network.
    train_losses: mean cross-entropy over the (augmented) images of the last epoch, one a network.
    seconds: wall time of training and testing.
    updates: of one network.
    images_shown: distinct images that a network was trained on, before augmentation.
    """

    networks: tuple[int, ...]
    accuracies: tuple[float, ...]
    train_losses: tuple[float, ...]
    seconds: float
    updates: int
    images_shown: int


def evaluate(
    synthetic: SyntheticSet,
    test: ImageSet,
    protocol: Protocol,
    *,
    seed: int,
    networks: Sequence[int] | None = None,
    on_epoch: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Train fresh networks on `synthetic` by `protocol`, and test each once on `test`.

    Hard labels are trained with cross-entropy, soft ones with cross-entropy against their softmax.  A set that has a
    learning rate of its own is trained with that one, in place of the protocol's.  Networks with batch norm are
    tested with their running statistics.

    Args:
        synthetic: what to train on; moved to the device of `test`.
        test: real images in the same value space, with the same classes; all is computed on its device.
        protocol: how.
        seed: with the index of a network, the source of its initial weights, shuffles and augmentation.  No global
            random state is read or changed.
        networks: indices of the networks to train, each in [0, protocol.num_networks); None: all of them.  A network
            gives the same accuracy whichever others are asked for.
        on_epoch: called after each epoch of a group of networks with the epochs done and to do, counted over all
            networks.

    Returns:
        Accuracies and losses in the order of `networks`, and the cost.

    Raises:
        ValueError: the sets do not fit each other, the network does not fit the images, or an index is out of range.
        FloatingPointError: a network's loss is not finite in the last epoch.
    """
    chosen = _chosen(networks, protocol.num_networks)
    _check_fit(synthetic, test)
    learner = training.learner(protocol, test.shape, test.num_classes)
    synthetic = synthetic.to(test.device)
    protocol = replace(protocol, lr=synthetic.learning_rate or protocol.lr)
    begin = time.perf_counter()
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    accuracies, losses = [], []
    for start in range(0, len(chosen), size):
        group = chosen[start : start + size]
        note = _progress(on_epoch, start, len(group), len(chosen), protocol.epochs + 1)
        for index, trained in zip(group, _train(learner, synthetic, protocol, group, seed, note), strict=True):
            losses.append(_finite(float(trained.loss), index, protocol))
            found = training.predictions(learner, trained, len(test), test.take)
            accuracies.append(100 * int((found == test.labels).sum()) / len(test))
    return Evaluation(
        networks=chosen,
        accuracies=tuple(accuracies),
        train_losses=tuple(losses),
        seconds=time.perf_counter() - begin,
        updates=protocol.updates(len(synthetic)),
        images_shown=len(synthetic),
    )


def groups(synthetic: SyntheticSet, test: ImageSet, protocol: Protocol) -> list[tuple[int, ...]]:
    """The networks that `evaluate` trains together, in order: each group can be asked for by itself.

    Returns:
        Indices of networks, group by group; `evaluate(..., networks=group)` gives the very accuracies that it gives
        among all of them.
    """
    learner = training.learner(protocol, test.shape, test.num_classes)
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    everyone = tuple(range(protocol.num_networks))
    return [everyone[start : start + size] for start in range(0, len(everyone), size)]


def _train(learner, synthetic, protocol, group, seed, note):
    targets = synthetic.labels.softmax(1) if synthetic.is_soft else synthetic.labels
    strategy = synthetic.strategy if protocol.augmentation else "none"
    settings = {"strategy": strategy, "networks": group, "seed": seed, "after_epoch": note}
    return training.train(learner, synthetic.images, targets, protocol, **settings)


def _progress(on_epoch, before, group, count, epochs):
    """Called after an epoch of a group: tells `on_epoch` how many epochs of how many are done."""
    done = before * epochs

    def note() -> None:
        nonlocal done
        done += group
        if on_epoch is not None:
            on_epoch(done, count * epochs)

    return note


def _finite(loss: float, index: int, protocol: Protocol) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"network {index}: the training loss is {loss} in the last epoch; lr {protocol.lr} may be too large"
        )
    return loss


def _chosen(networks: Sequence[int] | None, count: int) -> tuple[int, ...]:
    chosen = tuple(range(count)) if networks is None else tuple(networks)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(count)):
        raise ValueError(f"networks must be different indices in [0, {count}), at least one, got {chosen}")
    return chosen


def _check_fit(synthetic: SyntheticSet, test: ImageSet) -> None:
    shape = tuple(synthetic.images.shape[1:])
    if shape != test.shape:
        raise ValueError(f"synthetic images are {shape}, test images {test.shape}")
    if synthetic.class_names != tuple(test.class_names):
        raise ValueError(f"synthetic has the classes {synthetic.class_names}, test {test.class_names}")
    ours, theirs = synthetic.space, test.space
    if ours.name != theirs.name or ours.mean != theirs.mean or ours.std != theirs.std:
        raise ValueError(f"synthetic is {_described(ours)}, test is {_described(theirs)}: load the test set likewise")
    if ours.zca is not None and not _alike(ours.zca.whitening.cpu(), theirs.zca.whitening.cpu()):
        raise ValueError("synthetic and test are whitened by different transforms")


def _described(space) -> str:
    return f"{space.name} with mean {space.mean} and std {space.std}"


def _alike(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal up to what two machines' eigenvectors differ by: 1 % of the largest entry."""
    return bool((ours - theirs).abs().max() <= 0.01 * theirs.abs().max())
