"""The gallery: synthetic sets of the store as small pictures, step by step, the same classes side by side."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from ddlib import OUTPUT
from ddlib.data import snapshots, synthetic
from ddlib.store import inventory

CLASSES = 10
"""The first so many classes of a set are shown."""

LARGEST = 64
"""Pixels of the longer side of an image; larger ones are made smaller."""

SAME = ("method", "version", "dataset", "whitened", "hyperparameters")
"""Settings that sets of several seeds share."""


@dataclass(frozen=True)
class Sprite:
    """The pictures of one set, below one another in one file.

    path: within the site.
    label: row, data set and images per class.
    dataset: its name, under which sets stand together.
    steps: after which each picture was taken, in order; the last is the set itself.
    size: (width, height) of one picture, in pixels.
    classes: names of those shown.
    accuracies: what networks reached that were trained on the set, in words.
    """

    path: str
    label: str
    dataset: str
    steps: tuple[int, ...]
    size: tuple[int, int]
    classes: tuple[str, ...]
    accuracies: tuple[str, ...]


def sprites(folder: Path) -> list[Sprite]:
    """A picture file in `folder`, the site's, for the first seed of every sound set in the store but the whole data."""
    first: dict[str, inventory.Entry] = {}
    sets = [e for e in inventory.entries(OUTPUT / "runs") if (e.kind, e.state) == ("distilled", "finished")]
    for entry in sorted(sets, key=lambda entry: entry.about["seed"]):
        settings = entry.about["settings"]
        if settings["method"] != "whole":
            first.setdefault(json.dumps([settings[name] for name in SAME]), entry)
    drawn = []
    for entry in first.values():
        try:
            drawn.append(_drawn(entry, folder))
        except (ValueError, OSError):
            continue
    return drawn


def _drawn(entry: inventory.Entry, folder: Path) -> Sprite:
    """The sprite of a set, whose file is written."""
    product = synthetic.load(entry.folder / entry.about["product"])
    pictures = snapshots.read(entry.folder) or {entry.about["steps"]: snapshots.pictured(product)}
    image = stacked([*pictures.values()])
    path = f"gallery/{entry.key}.png"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / path, optimize=True)
    return Sprite(
        path=path,
        label=entry.name.rpartition(", seed ")[0],
        dataset=entry.about["settings"]["dataset"],
        steps=tuple(pictures),
        size=(image.width, image.height // len(pictures)),
        classes=tuple(product.class_names[:CLASSES]),
        accuracies=tuple(map(_accuracy, inventory.evaluations(entry))),
    )


def _accuracy(evaluation: Mapping[str, Any]) -> str:
    accuracies = evaluation["accuracies"]
    return f"{fmean(accuracies):.1f} % over {len(accuracies)} × {evaluation['protocol']['network']}"


def stacked(pictures: Sequence[Tensor]) -> Image.Image:
    """Pictures (K, n, C, H, W) in uint8 below one another; in each, classes are columns with lines between images."""
    grids = []
    for picture in pictures:
        images = picture[:CLASSES].transpose(0, 1).flatten(0, 1)
        side = max(images.shape[-2:])
        if side > LARGEST:
            images = torch.nn.functional.interpolate(images.float(), scale_factor=LARGEST / side, mode="area").byte()
        grids.append(make_grid(images, nrow=len(picture[:CLASSES]), padding=1, pad_value=128))
    return to_pil_image(torch.cat(grids, dim=1))
