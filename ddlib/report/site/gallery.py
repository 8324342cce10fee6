"""The gallery: synthetic sets of the store as small pictures, step by step, the same classes side by side."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddlib import OUTPUT
from ddlib.data import snapshots, synthetic
from ddlib.report.site.runs import Run
from ddlib.results import Record
from ddlib.store import inventory

CLASSES = 10
"""The first so many classes of a set are shown."""

GREATEST = 64
"""Pixels of the longer side of an image; larger ones are made smaller."""

GAP = 1
"""Clear pixels between two images."""

LEADING = ("accuracy", "tour", "leaderboard")
"""The experiments whose rows are shown first; the others' are variants of them."""


@dataclass(frozen=True)
class Sprite:
    """The pictures of one set, below one another in one file.

    path: relative to the report.
    label, method, dataset, ipc: the set's; ipc is 0 for a generator, which makes any number.
    steps: after which each picture was taken, in order; the last is the set itself.
    rows, size: images of a class in a picture, and (width, height) of one picture, in pixels.
    classes: their names, of those that are shown.
    run, record: where the set is evaluated in the results, if it is.
    """

    path: str
    label: str
    method: str
    dataset: str
    ipc: int
    steps: tuple[int, ...]
    rows: int
    size: tuple[int, int]
    classes: tuple[str, ...]
    run: Run | None = None
    record: Record | None = None

    @property
    def leading(self) -> bool:
        """Whether it is a row of one of the `LEADING` experiments."""
        return self.run is not None and self.run.name.partition("/")[2] in LEADING

    @property
    def amount(self) -> str:
        """Images per class, for people."""
        return f"IPC {self.ipc}" if self.ipc else "generator"

    @property
    def described(self) -> str:
        """For those who do not see it."""
        return f"{self.label}, {self.dataset}, {self.amount}: {len(self.classes)} classes, one a column"


def sprites(runs: Sequence[Run], folder: Path) -> list[Sprite]:
    """A picture file in `folder`, the report's, for the first seed of every set in the store but the whole data."""
    found = [_drawn(entry, made, folder) for entry, made in _first_seeds()]
    placed = [_placed(*one, runs) for one in found if one is not None]
    unique = {(s.dataset, s.ipc, s.label, s.run and s.run.name, s.path): s for s in placed}
    return sorted(unique.values(), key=_place)


def _place(sprite: Sprite) -> tuple:
    """Generators stand last, and real images chosen before what is distilled."""
    distilled = sprite.method not in ("random", "herding", "k_center")
    return sprite.dataset, sprite.ipc or float("inf"), not sprite.leading, distilled, sprite.method, sprite.label


def _first_seeds() -> Iterator[tuple[inventory.Entry, Mapping[str, Any]]]:
    """The finished sets of the store and what is known of them, one seed of each."""
    first: dict[str, tuple[int, inventory.Entry, Mapping[str, Any]]] = {}
    for entry in inventory.entries(OUTPUT / "runs"):
        made = inventory.described(entry) if (entry.kind, entry.state) == ("distilled", "finished") else {}
        settings = made.get("settings", {})
        if made and settings.get("method") != "whole":
            key = repr(sorted({**settings, "seeds": 0, "protocol": 0}.items(), key=str))
            first[key] = min(
                first.get(key, (made["seed"], entry, made)), (made["seed"], entry, made), key=lambda x: x[0]
            )
    yield from ((entry, made) for _, entry, made in first.values())


def _drawn(entry: inventory.Entry, made: Mapping[str, Any], folder: Path) -> tuple[Sprite, Mapping[str, Any]] | None:
    """The sprite of a set and its settings; None where the set is damaged."""
    try:
        product = synthetic.load(entry.folder / made["product"])
        taken = snapshots.read(entry.folder) or {made["steps"]: snapshots.pictured(product)}
    except (ValueError, OSError):
        return None
    settings = made["settings"]
    name = made["name"].removesuffix(f", seed {made['seed']}")
    pictures = [picture[:CLASSES] for picture in taken.values()]
    image = _stacked(pictures)
    path = f"gallery/{entry.key}.png"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    image.save(folder / path, optimize=True)
    ipc = settings["hyperparameters"].get("ipc", 0)
    sprite = Sprite(
        path=path,
        label=name.partition(f", {settings['dataset']}")[0],
        method=settings["method"],
        dataset=settings["dataset"],
        ipc=ipc,
        steps=tuple(taken),
        rows=pictures[0].shape[1],
        size=(image.width, image.height // len(pictures)),
        classes=tuple(product.class_names[:CLASSES]),
    )
    return sprite, settings


def _stacked(pictures: Sequence[Tensor]) -> Image.Image:
    """Pictures (K, n, C, H, W) below one another; in each, classes are columns with clear lines between the images."""
    side = max(pictures[0].shape[-2:])
    stacked = Image.fromarray(torch.cat([_framed(picture) for picture in pictures]).numpy(), "RGBA")
    if side <= GREATEST:
        return stacked
    part = GREATEST / side
    each = round(stacked.height / len(pictures) * part)
    return stacked.resize((round(stacked.width * part), each * len(pictures)), Image.Resampling.BOX)


def _framed(picture: Tensor) -> Tensor:
    """One picture as (height, width, RGBA)."""
    classes, rows, channels, height, width = picture.shape
    colours = picture if channels == 3 else picture[:, :, :1].expand(-1, -1, 3, -1, -1)
    opaque = torch.full((classes, rows, 1, height, width), 255, dtype=torch.uint8)
    tiles = torch.nn.functional.pad(torch.cat([colours, opaque], dim=2), (0, GAP, 0, GAP))
    return tiles.permute(1, 3, 0, 4, 2).reshape(rows * (height + GAP), classes * (width + GAP), 4).contiguous()


def _placed(sprite: Sprite, settings: Mapping[str, Any], runs: Iterable[Run]) -> Sprite:
    """The sprite with the record that its set was evaluated for, that of a leading experiment if there is one."""
    found = [(run, record) for run in runs for record in run.records if record.n and _is_of(record, settings)]
    found.sort(key=lambda pair: pair[0].name.partition("/")[2] not in LEADING)
    if not found:
        return sprite
    run, record = found[0]
    label = record.label if settings["hyperparameters"].get("ipc") else sprite.label
    return replace(sprite, run=run, record=record, label=label)


def _is_of(record: Record, settings: Mapping[str, Any]) -> bool:
    cell = record.cell
    same = all(cell.get(name) == settings.get(name) for name in ("method", "version", "dataset", "whitened"))
    theirs = cell.get("hyperparameters", {})
    return same and all(theirs.get(name) == value for name, value in settings["hyperparameters"].items())
