"""Synthetic sets as two benchmarks read them.

DD-Ranking (Li et al. 2024; github.com/NUS-HPC-AI-Lab/DD-Ranking, demo_soft.py, ddranking/metrics/soft_label.py and
ddranking/utils/data.py): three files, each one tensor: `images.pt` (N, C, H, W) float32; `labels.pt`, (N, K) logits,
which its loss softens, or (N,) int64; `lr.pt`, a number.  For hard labels it takes the images to lie class by class,
as many of each.  Real images are normalised by constants of its own (CIFAR-100 by those of CIFAR-10), or, with
`use_zca: true`, are pixels whitened with eps 0.1.

DC-BENCH (Cui et al. 2022; github.com/justincui03/dc_benchmark, data_loader/dc_data_loader.py and
evaluator/evaluator_utils.py): `<METHOD>/<DATASET>/IPC<n>/res_<METHOD>_<DATASET>_ConvNet_<n>ipc.pt` under its
`distilled_results`, a dict whose "data" is a list of which the last entry is [images, labels]; labels are class numbers
or, as PyTorch's cross-entropy takes them too, probabilities.  Real images are normalised channel by channel.

Both therefore get normalised images; a whitened set is given back its colours, unless DD-Ranking whitens alike.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ValueSpace
from ddlib.export.pictures import classes

EPS = 0.1
"""What DD-Ranking adds to eigenvalues when it whitens."""

THEIRS = {"cifar100": "cifar10"}
"""Data set -> that by whose constants DD-Ranking normalises it; others are normalised by their own."""

NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tiny_imagenet": "tinyimagenet"}
"""Data set -> what DC-BENCH calls it; it knows no others."""


def ddranking_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DD-Ranking's form loses, one sentence each; what to set there comes with it."""
    found = ["DD-Ranking chooses learning rate and epoch on the test set: its accuracies are not the stated ones"]
    if _whitens_alike(synthetic.space):
        return [*found, "images are whitened pixels: set use_zca to true"]
    if synthetic.space.zca is not None:
        found.append("the whitening (ZCA) is undone, since DD-Ranking does not whiten so: set use_zca to false")
    if data in THEIRS:
        found.append(f"images are normalised by the constants of {THEIRS[data]}, as DD-Ranking does with {data}")
    return found


def write_ddranking(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `images.pt`, `labels.pt` and, where a learning rate was learnt, `lr.pt`.

    Raises:
        ValueError: hard labels that are not as many of each class.
    """
    order = _class_by_class(synthetic)
    images = synthetic.images.cpu()
    if not _whitens_alike(synthetic.space):
        images = _normalised(synthetic, THEIRS.get(about["data"]["name"], about["data"]["name"]))
    torch.save(images[order].contiguous(), folder / "images.pt")
    torch.save(synthetic.labels.cpu()[order].contiguous(), folder / "labels.pt")
    if synthetic.learning_rate is not None:
        torch.save(torch.tensor(synthetic.learning_rate), folder / "lr.pt")


def dcbench_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DC-BENCH's form loses, one sentence each."""
    found = [] if data in NAMES else [f"DC-BENCH knows {', '.join(NAMES.values())}; {data} must be added to it"]
    if synthetic.space.zca is not None:
        found.append("the whitening (ZCA) is undone, since DC-BENCH does not whiten")
    if synthetic.learning_rate is not None:
        found.append(f"DC-BENCH trains with its own learning rate, not with the learnt {synthetic.learning_rate:g}")
    if synthetic.is_soft:
        found.append("labels are probabilities; its loaders of DC, DSA and DM keep them, that of TM rounds them")
    return found


def write_dcbench(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write the file that DC-BENCH's loaders of DC, DSA and DM read, in its place."""
    data, method = about["data"]["name"], about["method"].upper()
    name, ipc = NAMES.get(data, data), len(synthetic) // synthetic.num_classes
    network = "ConvNetD4" if data == "tiny_imagenet" else "ConvNet"
    path = folder / method / name / f"IPC{ipc}" / f"res_{method}_{name}_{network}_{ipc}ipc.pt"
    path.parent.mkdir(parents=True)
    labels = synthetic.labels.cpu()
    pair = [_normalised(synthetic, data), labels.softmax(1) if synthetic.is_soft else labels]
    torch.save({"data": [pair]}, path)


def _whitens_alike(space: ValueSpace) -> bool:
    return space.zca is not None and space.name == "zca of pixels" and space.zca.eps == EPS


def _normalised(synthetic: SyntheticSet, data: str) -> Tensor:
    """The images normalised by the constants of `data`; bit by bit what they are where they are so already."""
    space = synthetic.space
    if data in datasets.names():
        info = datasets.describe(data)
        wanted = ValueSpace(info.mean, info.std)
    else:
        wanted = ValueSpace(space.mean, space.std)
    if space.zca is None and (space.mean, space.std) == (wanted.mean, wanted.std):
        return synthetic.images.cpu()
    return wanted.encode(space.decode(synthetic.images)).cpu()


def _class_by_class(synthetic: SyntheticSet) -> Tensor:
    """The order that DD-Ranking takes images to have; soft labels stay as they are."""
    if synthetic.is_soft:
        return torch.arange(len(synthetic))
    counts = torch.bincount(classes(synthetic).cpu(), minlength=synthetic.num_classes)
    if len(counts.unique()) > 1:
        raise ValueError(f"DD-Ranking takes as many images of each class; got {counts.tolist()}")
    return synthetic.labels.cpu().argsort(stable=True)
