"""Fresh networks, trained on what was distilled and tested on real images, once each."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ddlib.data import datasets
from ddlib.data.datasets import ImageSet, parsed_name
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import training
from ddlib.evaluation.images import TeacherFunction, TrainingImages, training_images
from ddlib.evaluation.protocol import ASKING, BATCH, FIXED, HARD, Protocol

VERSION = 1
"""Raised when the same call gives other accuracies than before, beyond rounding."""

HALVES = {name: ValueSpace((0.5,), (0.5,)) for name in ("mnist", "fashion_mnist")}
"""Data set -> the space that DiM's code shows its test images in, whatever the networks were trained in."""


@dataclass(frozen=True)
class Evaluation:
    """Accuracies of networks trained on one set or stream, and what they cost.

    networks: indices of the networks, in the order of the next two.
    accuracies: on the test set, percent, one a network; with `Protocol.compat` the highest of five.
    train_losses: mean cross-entropy over the (augmented) images of the last epoch, one a network.
    seconds: wall time of training and testing, and of making the images of a stream.
    updates: of one network.
    images_shown: distinct images that a network was trained on, before augmentation.
    generation_seconds: the part of `seconds` that a stream's generator took.
    balanced: mean over the classes of the accuracy on their test images, percent, one a network; empty where all
        classes have as many test images, so that it is the accuracy.
    """

    networks: tuple[int, ...]
    accuracies: tuple[float, ...]
    train_losses: tuple[float, ...]
    seconds: float
    updates: int
    images_shown: int
    generation_seconds: float = 0.0
    balanced: tuple[float, ...] = ()


def evaluate(
    synthetic: SyntheticSet | SyntheticStream,
    test: ImageSet,
    protocol: Protocol,
    *,
    seed: int,
    networks: Sequence[int] | None = None,
    teacher: TeacherFunction | None = None,
    on_epoch: Callable[[int, int], object] | None = None,
) -> Evaluation:
    """Train fresh networks on `synthetic` by `protocol`, and test each once on `test`.

    Hard labels are trained with cross-entropy, soft ones with cross-entropy against their softmax; `protocol.labels`
    may put others in their place.  A set that has a learning rate of its own is trained with that one, in place of the
    protocol's.  An epoch of a stream has K * ipc images, drawn anew as its `redraw` says; with None, it is the set
    `synthetic.frozen(seed)`.

    Args:
        synthetic: what to train on; moved to the device of `test`.
        test: real images in the same value space, with the same classes; all is computed on its device.
        protocol: how.
        seed: with the index of a network, the source of its initial weights, shuffles and augmentation.  No global
            random state is read or changed.
        networks: indices of the networks to train, each in [0, protocol.num_networks); None: all of them.  A network
            gives the same accuracy, up to rounding, whichever others are asked for.
        teacher: what the labels "fixed" and "batch" ask: images (B, C, H, W) in the space of the set -> logits (B, K),
            such as `Teacher.frozen` gives.  None with other labels.
        on_epoch: called after each epoch of a group of networks with the epochs done and to do, counted over all
            networks.

    Raises:
        ValueError: the sets do not fit each other, the network does not fit the images, an index is out of range,
            mini-batches do not divide the epochs of a stream, or labels lack their teacher or have one too many.
        FloatingPointError: a network's loss is not finite in the last epoch.
    """
    networks = tuple(range(protocol.num_networks)) if networks is None else tuple(networks)
    if not networks or len(set(networks)) < len(networks) or not set(networks) <= set(range(protocol.num_networks)):
        raise ValueError(
            f"networks must be different indices in [0, {protocol.num_networks}), at least one, got {networks}"
        )
    _check_fit(synthetic, test)
    if protocol.labels in ASKING and teacher is None:
        raise ValueError(f"labels={protocol.labels!r} asks a teacher, and teacher is None; allowed: images -> logits")
    if protocol.labels not in ASKING and teacher is not None:
        raise ValueError(f"teacher is given and labels={protocol.labels!r} asks none; allowed: {' or '.join(ASKING)}")
    learner = training.learner(protocol, test.shape, test.num_classes)
    protocol = replace(protocol, lr=synthetic.learning_rate or protocol.lr)
    begin = time.perf_counter()
    images = training_images(synthetic.to(test.device), protocol, seed, teacher=teacher)
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    scores, losses, done = [], [], 0

    def tick() -> None:
        nonlocal done
        done += len(group)
        if on_epoch:
            on_epoch(done, len(networks) * protocol.rounds)

    for start in range(0, len(networks), size):
        group = networks[start : start + size]
        reached = _judge(learner, images, test, protocol, networks=group, seed=seed, after_epoch=tick)
        scores += reached[0]
        losses += reached[1]
    accuracies, balanced = zip(*scores, strict=True)
    return Evaluation(
        networks=networks,
        accuracies=accuracies,
        train_losses=tuple(losses),
        seconds=time.perf_counter() - begin,
        updates=protocol.updates(len(synthetic)),
        images_shown=images.distinct,
        generation_seconds=images.generation_seconds,
        balanced=balanced if len(set(test.labels.bincount().tolist())) > 1 else (),
    )


def _judge(
    learner: training.Learner,
    images: TrainingImages,
    test: ImageSet,
    protocol: Protocol,
    *,
    networks: tuple[int, ...],
    seed: int,
    after_epoch: Callable[[], object],
) -> tuple[list[tuple[float, float]], list[float]]:
    """`_scores` and last losses of networks trained together; of several tests of a network the most accurate."""
    scores, losses = [(0.0, 0.0)] * len(networks), []
    for trained in training.train(learner, images, protocol, networks=networks, seed=seed, after_epoch=after_epoch):
        losses = [float(network.loss) for network in trained]
        for index, loss in zip(networks, losses, strict=True):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"network {index}: the training loss is {loss} in the last epoch; lr {protocol.lr} may be too large"
                )
        for i, network in enumerate(trained):
            scores[i] = max(scores[i], _scores(learner, network, test))
    return scores, losses


def _scores(learner: training.Learner, trained: training.Trained, test: ImageSet) -> tuple[float, float]:
    """Percent of the test images that a network classifies correctly: of all, and the mean of those of each class."""
    halves = HALVES.get(parsed_name(test.name)[0]) if learner.test_batch else None
    take = test.take if halves is None else lambda rows: halves.encode(test.space.decode(test.take(rows)))
    classes = training.predictions(learner, trained, len(test), take)
    right = test.labels[classes == test.labels].bincount(minlength=test.num_classes)
    shares = right / test.labels.bincount(minlength=test.num_classes)  # no number for a class without test images
    return 100 * int(right.sum()) / len(test), 100 * float(shares.nanmean())


def _check_fit(synthetic: SyntheticSet | SyntheticStream, test: ImageSet) -> None:
    if synthetic.shape != test.shape:
        raise ValueError(f"synthetic images are {synthetic.shape}, test images {test.shape}")
    if synthetic.class_names != tuple(test.class_names):
        raise ValueError(f"synthetic has the classes {synthetic.class_names}, test {test.class_names}")
    ours, theirs = synthetic.space, test.space
    if (ours.name, ours.mean, ours.std) != (theirs.name, theirs.mean, theirs.std):
        raise ValueError(
            f"synthetic is {ours.name} with mean {ours.mean} and std {ours.std}, "
            f"test is {theirs.name} with mean {theirs.mean} and std {theirs.std}: load the test set likewise"
        )
    if ours.zca is not None:
        first, second = ours.zca.whitening.cpu(), theirs.zca.whitening.cpu()
        if not (first - second).abs().max() <= 0.01 * second.abs().max():  # two machines' eigenvectors differ by less
            raise ValueError("synthetic and test are whitened by different transforms")


def groups(synthetic: SyntheticSet | SyntheticStream, test: ImageSet, protocol: Protocol) -> list[tuple[int, ...]]:
    """The networks that `evaluate` trains together, in order; each alone gives the very same accuracies."""
    learner = training.learner(protocol, test.shape, test.num_classes)
    size = training.at_once(protocol, learner, len(synthetic), test.device)
    everyone = tuple(range(protocol.num_networks))
    return [everyone[start : start + size] for start in range(0, len(everyone), size)]


def again(
    synthetic: SyntheticSet | SyntheticStream,
    *,
    device: str = "cpu",
    networks: Sequence[int] | None = None,
    teacher: TeacherFunction | None = None,
) -> Evaluation:
    """The evaluation that the card of an exported set or stream states, made again from the set and the real test data.

    On the same machine, with as many threads, it gives the stated accuracies to the bit.  Test data whose pixels stand
    in their files as they are must be those of the card.  Of others, such as decoded JPEGs, the pixels depend on the
    libraries here: where their fingerprint is another one, a warning says so, as it does for another version of the
    evaluation.

    Args:
        synthetic: with its `card`.
        device: where it is computed.
        networks: indices of the networks to train, at least one; None: those of the card.
        teacher: that the recipe's labels ask; an exported set does not bring it.

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
    if card.evaluation_version > VERSION:
        raise ValueError(
            f"the card's evaluation has version {card.evaluation_version}; this ddlib evaluates by version {VERSION}"
        )
    if card.evaluation_version < VERSION:
        warnings.warn(
            f"the card's evaluation has version {card.evaluation_version}, this ddlib's {VERSION}: the accuracies "
            "differ by more than rounding",
            stacklevel=2,
        )
    test = datasets.load(card.dataset, "test", zca=card.whitened, device=device)
    if test.fingerprint != card.test_fingerprint:
        what = f"the test data of {card.dataset} here are others than those of the card: {test.fingerprint}"
        if datasets.describe(card.dataset).exact:
            raise ValueError(what)
        warnings.warn(f"{what}; other libraries decode other pixels, and the accuracies differ a little", stacklevel=2)
    networks = card.networks if networks is None else networks
    return evaluate(synthetic, test, protocol, seed=card.seed, networks=networks, teacher=teacher)


def bytes_stored(synthetic: SyntheticSet | SyntheticStream, labels: str | None, *, teacher_bytes: int = 0) -> int:
    """Bytes needed to train on a set or stream: images or generator, plus labels or teacher.

    Images are float32.  Labels are those of the set (None), one int64 an image ("hard"), K float32 ("fixed"), or the
    teacher itself ("batch", and a stream's "fixed", whose images are not known beforehand).  Of a frozen stream, whose
    images are drawn once, either these or the generator, whichever takes less.
    """
    each = {HARD: 8, FIXED: 4 * synthetic.num_classes, BATCH: 0}
    taught = teacher_bytes * (labels == BATCH)
    if isinstance(synthetic, SyntheticSet):
        own = synthetic.bytes_stored
        return own if labels is None else synthetic.images.nbytes + each[labels] * len(synthetic) + taught
    generator = synthetic.bytes_stored + teacher_bytes * (labels in ASKING)
    drawn = (4 * math.prod(synthetic.shape) + each[labels or HARD]) * len(synthetic) + taught
    return generator if synthetic.redraw is not None else min(generator, drawn)
