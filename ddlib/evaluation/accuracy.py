"""Fresh networks, trained on what was distilled and tested on real images, once each."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ddlib.data import datasets
from ddlib.data.datasets import ImageSet, parsed_name
from ddlib.data.synthetic import Card, SyntheticSet, SyntheticStream
from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import training
from ddlib.evaluation.images import Asked, Beside, Fixed, Shown, shown
from ddlib.evaluation.protocol import ASKING, BATCH, FIXED, HARD, Protocol

VERSION = 1
"""Raised when the same call gives other accuracies than before, beyond rounding."""

HALVES = {name: ValueSpace((0.5,), (0.5,)) for name in ("mnist", "fashion_mnist")}
"""Data set -> the space that DiM's code shows its test images in, whatever the networks were trained in."""


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    networks: indices of the networks, in the order of the next two.
    accuracies: on the test set, percent, one a network; with `Protocol.compat` the highest of five.
    train_losses: mean cross-entropy over the (augmented) images of the last epoch, one a network.
    seconds: wall time of training and testing, and of making the images of a stream.
    updates: of one network.
    images_shown: distinct images that a network was trained on, before augmentation.
    generation_seconds: the part of `seconds` that a stream's generator took.
    """

    networks: tuple[int, ...]
    accuracies: tuple[float, ...]
    train_losses: tuple[float, ...]
    seconds: float
    updates: int
    images_shown: int
    generation_seconds: float = 0.0


def evaluate(
    synthetic: SyntheticSet | SyntheticStream,
    test: ImageSet,
    protocol: Protocol,
    *,
    seed: int,
    networks: Sequence[int] | None = None,
    teacher: Asked | None = None,
    on_epoch: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Train fresh networks on `synthetic` by `protocol`, and test each once on `test`.

    Hard labels are trained with cross-entropy, soft ones with cross-entropy against their softmax; `protocol.labels`
    may put others in their place.  A set that has a
    learning rate of its own is trained with that one, in place of the protocol's.  An epoch of a stream has K * ipc
    images, drawn anew as its `redraw` says; with None, it is the set `synthetic.frozen(seed)`.

    Args:
        synthetic: what to train on; moved to the device of `test`.
        test: real images in the same value space, with the same classes; all is computed on its device.
        protocol: how.
        seed: with the index of a network, the source of its initial weights, shuffles and augmentation.  No global
            random state is read or changed.
        networks: indices of the networks to train, each in [0, protocol.num_networks); None: all of them.  A network
            gives the same accuracy whichever others are asked for.
        teacher: what the labels "fixed" and "batch" ask: images (B, C, H, W) in the space of the set -> logits (B, K),
            such as `Teacher.frozen` gives.  None with other labels.
        on_epoch: called after each epoch of a group of networks with the epochs done and to do, counted over all
            networks.

    Returns:
        Accuracies and losses in the order of `networks`, and the cost.

    Raises:
        ValueError: the sets do not fit each other, the network does not fit the images, an index is out of range,
            mini-batches do not divide the epochs of a stream, or labels lack their teacher or have one too many.
        FloatingPointError: a network's loss is not finite in the last epoch.
    """
    chosen = _chosen(networks, protocol.num_networks)
    _check_fit(synthetic, test)
    check_teacher(protocol.labels, teacher)
    learner = training.learner(protocol, test.shape, test.num_classes)
    protocol = replace(protocol, lr=synthetic.learning_rate or protocol.lr)
    begin = time.perf_counter()
    images = shown(synthetic.to(test.device), protocol, seed, teacher=teacher)
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    accuracies, losses = [], []
    for start in range(0, len(chosen), size):
        group = chosen[start : start + size]
        note = _progress(on_epoch, start, len(group), len(chosen), protocol.rounds)
        found = judged(learner, images, [test] * len(group), protocol, networks=group, seed=seed, after_epoch=note)
        accuracies += found[0]
        losses += found[1]
    return Evaluation(
        networks=chosen,
        accuracies=tuple(accuracies),
        train_losses=tuple(losses),
        seconds=time.perf_counter() - begin,
        updates=protocol.updates(len(synthetic)),
        images_shown=images.distinct,
        generation_seconds=images.generation_seconds,
    )


def groups(synthetic: SyntheticSet | SyntheticStream, test: ImageSet, protocol: Protocol) -> list[tuple[int, ...]]:
    """The networks that `evaluate` trains together, in order: each group can be asked for by itself.

    Returns:
        Indices of networks, group by group; `evaluate(..., networks=group)` gives the very accuracies that it gives
        among all of them.
    """
    learner = training.learner(protocol, test.shape, test.num_classes)
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    everyone = tuple(range(protocol.num_networks))
    return [everyone[start : start + size] for start in range(0, len(everyone), size)]


def again(
    synthetic: SyntheticSet | SyntheticStream,
    *,
    device: str = "cpu",
    networks: Sequence[int] | None = None,
    teacher: Asked | None = None,
) -> Evaluation:
    """The evaluation that the card of an exported set or stream states, made again from the set and the real test data.

    On the same machine, with as many threads, it gives the stated accuracies to the bit.  Test data whose pixels stand
    in their files as they are must be those of the card.  Of others, such as decoded JPEGs, the pixels depend on the
    libraries here: where their fingerprint is another one, a warning says so.

    Args:
        synthetic: with its `card`.
        device: where it is computed.
        networks: indices of the networks to train, at least one; None: those of the card.
        teacher: that the recipe's labels ask; an exported set does not bring it.

    Warns:
        UserWarning: the pixels of the test data, or the version of the evaluation, are others than the card's.

    Raises:
        ValueError: there is no card, it asks for what this ddlib does not know or is of a newer evaluation, the test
            data are others than those of the card, or networks are none or none of the protocol's.
        FileNotFoundError: the test data are not there; the message says how to get them.
    """
    card = synthetic.card
    if card is None:
        raise ValueError("synthetic has no card that says how it was judged; allowed: what `ddlib export` wrote")
    try:
        protocol = Protocol(**card.protocol)
    except TypeError as error:
        raise ValueError(f"the card's protocol has settings that this ddlib does not know: {error}") from error
    _check_version(card.evaluation_version)
    test = datasets.load(card.dataset, "test", zca=card.whitened, device=device)
    _check_pixels(test, card)
    networks = card.networks if networks is None else networks
    return evaluate(synthetic, test, protocol, seed=card.seed, networks=networks, teacher=teacher)


def _check_version(theirs: int) -> None:
    """Refuse the card of a newer evaluation, and warn of one of an older."""
    if theirs > VERSION:
        raise ValueError(f"the card's evaluation has version {theirs}; this ddlib evaluates by version {VERSION}")
    if theirs < VERSION:
        told = f"the card's evaluation has version {theirs}, this ddlib's {VERSION}"
        warnings.warn(f"{told}: the accuracies differ by more than rounding", stacklevel=3)


def _check_pixels(test: ImageSet, card: Card) -> None:
    """Refuse other test data than the card's, or warn where another decoder may have made them."""
    if test.fingerprint == card.test_fingerprint:
        return
    told = f"the test data of {card.dataset} here are others than those of the card: {test.fingerprint}"
    if datasets.describe(card.dataset).exact:
        raise ValueError(told)
    warnings.warn(f"{told}; other libraries decode other pixels, and the accuracies differ a little", stacklevel=3)


def judged(
    learner: training.Learner,
    images: Shown,
    tests: Sequence[ImageSet],
    protocol: Protocol,
    *,
    networks: tuple[int, ...],
    **how: Any,
) -> tuple[list[float], list[float]]:
    """Accuracies and last losses of networks trained together: the highest accuracy, where they are tested often.

    Args:
        learner, images, networks, how: as `training.train` takes them.
        tests: a test set for each network.
        protocol: how.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    best, losses = [0.0] * len(networks), []
    for trained in training.train(learner, images, protocol, networks=networks, **how):
        losses = [_finite(float(one.loss), i, protocol) for i, one in zip(networks, trained, strict=True)]
        best = [
            max(before, _accuracy(learner, one, test)) for before, one, test in zip(best, trained, tests, strict=True)
        ]
    return best, losses


def _accuracy(learner: training.Learner, trained: training.Trained, test: ImageSet) -> float:
    """Percent of the test images that a network classes rightly."""
    halves = HALVES.get(parsed_name(test.name)[0]) if learner.test_batch else None
    take = test.take if halves is None else lambda rows: halves.encode(test.space.decode(test.take(rows)))
    found = training.predictions(learner, trained, len(test), take)
    return 100 * int((found == test.labels).sum()) / len(test)


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


def _check_fit(synthetic: SyntheticSet | SyntheticStream, test: ImageSet) -> None:
    if synthetic.shape != test.shape:
        raise ValueError(f"synthetic images are {synthetic.shape}, test images {test.shape}")
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


SMALL, SEVERAL = 2**17, 8
"""On a CPU, `SEVERAL` networks are trained at a time where the largest map of a mini-batch of one has at most `SMALL`
elements.

Calls cost more than arithmetic there; `python -m benchmarks.architecture_search` prints what is gained, and what would
be lost beyond.
"""


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
    small = min(protocol.batch_size, num_images) * learner.network.elements <= SMALL
    if protocol.at_once is None and device.type == "cpu" and small and not learner.network.draws:
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


def bytes_stored(synthetic: SyntheticSet | SyntheticStream, labels: str | None, *, teacher_bytes: int = 0) -> int:
    """Bytes that whoever trains on a set or stream must be given, by the labels that are trained on.

    Images (float32) or the generator, and: the labels as they are (None); one int64 an image ("hard"); K float32
    ("fixed"); the teacher itself ("batch", and a stream's "fixed", whose images are not known beforehand).  Of a frozen
    stream, whose images are drawn once, either these or the generator, whichever takes less.
    """
    if isinstance(synthetic, SyntheticStream):
        whole = synthetic.bytes_stored + teacher_bytes * (labels in ASKING)
        return whole if synthetic.redraw is not None else min(whole, _bytes_drawn(synthetic, labels, teacher_bytes))
    if labels is None:
        return synthetic.bytes_stored
    return _bytes(synthetic.images.nbytes, synthetic, labels, teacher_bytes)


def _bytes_drawn(stream: SyntheticStream, labels: str | None, teacher_bytes: int) -> int:
    """Of the images of one epoch of a stream, float32, which have hard labels."""
    return _bytes(4 * math.prod(stream.shape) * len(stream), stream, labels or HARD, teacher_bytes)


def _bytes(images: int, of: SyntheticSet | SyntheticStream, labels: str, teacher_bytes: int) -> int:
    """Of so many bytes of images, with such labels."""
    each = {HARD: 8, FIXED: 4 * of.num_classes, BATCH: 0}[labels]
    return images + each * len(of) + teacher_bytes * (labels == BATCH)


def check_teacher(labels: str | None, teacher: Asked | None) -> None:
    """Refuse labels that need a teacher without one, and a teacher that nobody asks, with a ValueError."""
    if labels in ASKING and teacher is None:
        raise ValueError(f"labels={labels!r} asks a teacher, and teacher is None; allowed: images -> logits")
    if labels not in ASKING and teacher is not None:
        raise ValueError(f"teacher is given and labels={labels!r} asks none; allowed: {' or '.join(ASKING)}")
