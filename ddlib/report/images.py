"""Images as grids, a column a class, and as strips, a row an image."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import Tensor

from ddlib.report.style import WIDTH, Picture, note, styled

if TYPE_CHECKING:
    from ddlib.data.synthetic import SyntheticSet

TILE = 0.62  # inches: an image of a grid with the gap to the next one, at most
PANEL = 0.8  # inches: an image of a strip, at most
CLASSES = 10  # of a grid
LETTERS = 10  # of a class's name that fit above its column


@styled()
def image_grid(sets: "Mapping[str, SyntheticSet]", *, per_class: int = 1) -> Picture:
    """Synthetic images, a column for each of the first ten classes and a block of rows for every set, pixel by pixel.

    Args:
        sets: name of the block -> set; all have the same classes.  Soft labels count as their greatest.
        per_class: rows of a block; a class with fewer images leaves its place empty.
    """
    if not sets:
        return note("no set was made")
    if len({tuple(s.class_names) for s in sets.values()}) > 1:
        raise ValueError(f"sets={list(sets)}; allowed: sets that all have the same class_names")
    if per_class < 1:
        raise ValueError(f"per_class={per_class!r}; allowed: from 1")
    names = next(iter(sets.values())).class_names[:CLASSES]
    tile, left = _tile(TILE, len(names), sets)
    figure = Picture(figsize=(left + tile * len(names), 1 + (tile * per_class + 0.1) * len(sets)), layout="compressed")
    axes = figure.subplots(len(sets), squeeze=False)[:, 0]
    for ax, (name, images) in zip(axes, sets.items(), strict=True):
        _show(ax, mosaic(images, len(names), per_class), per_class, len(names))
        ax.set_yticks([per_class / 2], [_plain(name)], fontsize=9)
    slanted = max(map(len, names)) > LETTERS  # all are turned where one is too long
    look = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if slanted else {}
    axes[0].set_xticks([i + 0.5 for i in range(len(names))], map(_plain, names), fontsize=7, **look)
    return figure


@styled()
def image_strips(names: Sequence[str], columns: Mapping[str | int, Tensor]) -> Picture:
    """What became of some images, a row for each: such as the real one, its encoding, and it after some iterations.

    Args:
        names: what the rows show, such as classes.
        columns: title -> (B, C, H, W) pixels in [0, 1], as many as `names`; a number stands for as many iterations.
    """
    if not columns or not len(names):
        return note("no image was made")
    for title, pixels in columns.items():
        if pixels.ndim != 4 or len(pixels) != len(names):
            raise ValueError(f"columns[{title!r}] is {tuple(pixels.shape)}; allowed: ({len(names)}, C, H, W), as names")
    tile, left = _tile(PANEL, len(columns), names)
    figure = Picture(figsize=(left + (tile + 0.1) * len(columns), 0.6 + tile * len(names)), layout="compressed")
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for ax, (title, pixels) in zip(axes, columns.items(), strict=True):
        _show(ax, _tiled(pixels, 1), len(names), 1)
        text = _plain(title) if isinstance(title, str) else f"after {title:,}"
        text = textwrap.fill(text, int(14 * tile), break_long_words=False)
        ax.set_title(text, loc="center", fontsize=8, fontweight="normal")
    axes[0].set_yticks([i + 0.5 for i in range(len(names))], map(_plain, names), fontsize=8)
    return figure


def mosaic(images: "SyntheticSet", classes: int, per_class: int) -> Tensor:
    """Images side by side on white, a column for each of the first classes: (rows, columns, 3) uint8."""
    pixels, labels = images.pixels()[:, :3], images.labels  # transparency, a fourth channel, is not shown
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    grid = torch.ones(per_class, classes, *pixels.shape[1:])
    for c in range(classes):
        members = pixels[labels == c][:per_class]
        grid[: len(members), c] = members
    return _tiled(grid.flatten(0, 1), classes)


def _tiled(pixels: Tensor, columns: int) -> Tensor:
    """(N, C, H, W) in [0, 1] row by row, N whole rows, a sixteenth of their height apart: (rows, columns, 3) uint8."""
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"pixels are {tuple(pixels.shape)}; allowed: (N, C, H, W) with 1 or 3 channels")
    gap = max(1, pixels.shape[2] // 16)
    tiles = F.pad(pixels.detach().cpu().clamp(0, 1), (0, gap, 0, gap), value=1).unflatten(0, (-1, columns))
    canvas = tiles.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)[:-gap, :-gap]  # rows, H, columns, W, C
    return (canvas * 255).round().byte().expand(-1, -1, 3)


def _tile(most: float, columns: int, names: Iterable[str]) -> tuple[float, float]:
    """The side of an image, and the room for the names of rows left of them, in inches."""
    left = 0.085 * max(map(len, names)) + 0.1
    return min(most, (WIDTH - left) / columns), left


def _show(ax: Axes, canvas: Tensor, rows: int, columns: int) -> None:
    """Images on axes without lines that count them: row i lies from i to i + 1."""
    height, width, _ = canvas.shape
    extent = (0, columns, rows, 0)
    ax.imshow(canvas.numpy(), interpolation="none", extent=extent, aspect=height * columns / (width * rows))
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.xaxis.tick_top()
    ax.spines[:].set_visible(False)
    ax.grid(False)


def _plain(name: str) -> str:
    return name.replace("_", " ")
