"""A distilled set that is there already, judged beside as many random real images and the whole training set.

    records = judge(read_set("images_best.pt", dataset="cifar10"), "theirs", "cifar10", study.Workplace("cuda"))
    report.leaderboard(report.standings(records, **names(records)))

Its records can stand among others by the same recipe in a leaderboard.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import methods, study
from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import PIXELS
from ddlib.evaluation import Protocol
from ddlib.methods.contract import fill
from ddlib.methods.coresets import Coreset, Selection
from ddlib.results import Record
from ddlib.study.parameters import read_params

WHITENED = {"normalised": False, "zca": True, "zca of pixels": PIXELS}
"""Value space -> the `whitened` of a cell."""

PLAIN, HARD = "no augmentation", "hard"
"""What the network without augmentation is called, and the row of a set whose soft labels are made hard."""

WHOLE_EPOCHS = 30
"""Epochs of the whole training set, which has far more mini-batches an epoch; fewer where the recipe has fewer."""


@dataclass(frozen=True, kw_only=True)
class Given(Coreset):
    """A set that is there already, with the interface of a method: nothing is distilled.

    content: fingerprint of its images, labels and learning rate, so that the store keeps apart what differs.
    ipc: images per class, rounded up.
    sets: content -> the set, of those that this process was given.
    """

    name: ClassVar[str] = "given"
    version: ClassVar[int] = 1
    content: str = ""
    ipc: int | None = None
    sets: ClassVar[dict[str, SyntheticSet]] = {}

    def rows(self, state: Selection) -> Tensor:
        """None of the training set."""
        return torch.empty(0, dtype=torch.int64)

    def finish(self, state: Selection) -> SyntheticSet:
        """The set, on the device of the training set."""
        return self.sets[self.content].to(state.train.device)


def given(synthetic: SyntheticSet) -> Given:
    """A set as a method."""
    about = f"{datasets.fingerprint(synthetic.images, synthetic.labels)} {synthetic.learning_rate} {synthetic.strategy}"
    content = hashlib.sha256(about.encode()).hexdigest()[:16]
    Given.sets[content] = synthetic
    stored = synthetic.provenance.get("stored", len(synthetic))
    return Given(content=content, ipc=-(-stored // synthetic.num_classes))


def recipe(name: str | None) -> Protocol:
    """An evaluation by name: of a method's paper ("datm"), of a YAML file of settings, or, of None, `Protocol()`.

    ValueError for an unknown method or setting, FileNotFoundError for a file that is not there.
    """
    if name is None:
        return Protocol()
    of_file = Path(name).suffix in (".yaml", ".yml")
    settings = read_params(Path(name)) if of_file else methods.find(name).evaluation
    return fill(Protocol, f"the recipe {name}", settings)


def judge(
    synthetic: SyntheticSet,
    label: str,
    dataset: str,
    workplace: study.Workplace,
    *,
    protocol: Protocol | None = None,
    seed: int = 0,
    whole: bool = True,
) -> list[Record]:
    """The accuracies of a set, of as many random real images and of all of them, by one recipe; kept in the store.

    Each is trained with the recipe's augmentation and without; a set with soft labels also with hard ones.  Random
    images are drawn anew for each network, so that their interval has the draw in it; that of the set has networks
    alone.  The whole training set takes at most `WHOLE_EPOCHS` epochs.

    Args:
        synthetic: as `ddlib.data.released.read_set` gives it, in a value space of `dataset`.
        label: of its row.
        protocol: the recipe; None: `Protocol()`.
        seed: of the networks, and with those after it of the random images.
        whole: whether the whole set is trained on, without which there is no LRS.

    Raises:
        ValueError: the label is that of another row, or a class has not as many real images as the set.
    """
    if label in ("Random", "Whole"):
        raise ValueError(f"label={label!r} is that of another row; allowed: any other text")
    protocol = protocol or Protocol()
    theirs, seeds = given(synthetic), tuple(range(seed, seed + protocol.num_networks))
    random = methods.build("random", ipc=theirs.ipc)
    network, single = protocol.network, replace(protocol, num_networks=1)
    rows = [(label, theirs, (seed,), protocol), ("Random", random, seeds, single)]
    if protocol.augmentation:
        rows += [(*row, replace(by, augmentation=False)) for *row, by in rows]
    if synthetic.is_soft and protocol.labels is None:
        rows.append((f"{label}, {HARD}", theirs, (seed,), replace(protocol, labels="hard")))
    if whole:
        epochs = min(protocol.epochs, WHOLE_EPOCHS)
        rows.append(("Whole", methods.build("whole"), (seed,), replace(protocol, epochs=epochs)))
    cells = [
        study.Cell(
            label=row,
            method=method,
            dataset=dataset,
            whitened=WHITENED[synthetic.space.name],
            seeds=each,
            protocol=by,
            reference_dataset=dataset,
            paper="atom",  # none of a paper's: nothing is compared with it
            table="main",
            tested_on=network if by.augmentation or not protocol.augmentation else PLAIN,
            reported=False,
        )
        for row, method, each, by in rows
    ]
    records = [replace(record, deviations=()) for record in study.run(cells, workplace)]
    read_as = {"read_as": synthetic.provenance.get("read_as")}
    return [replace(r, provenance=r.provenance | read_as) if r.method == Given.name else r for r in records]


def names(records: Sequence[Record]) -> dict[str, Any]:
    """What `report.standings` is to know of records of `judge`."""
    labels, networks = {record.label for record in records}, {record.network for record in records}
    hard = {label: f"{label}, {HARD}" for label in labels if f"{label}, {HARD}" in labels}
    return {"hard": hard, "plain": PLAIN if PLAIN in networks else None, "network": records[0].network}
