"""Images as grids, a column a class, and as strips, a row an image."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.utils import make_grid

from ddlib.report.style import WIDTH, Picture, note, styled

if TYPE_CHECKING:
    from ddlib.data.synthetic import SyntheticSet

TILE = 0.62  # inches: an image of a grid with the gap to the next one, at most
PANEL = 0.8  # inches: an image of a strip, at most
COLUMNS = 10  # classes of a grid
LONG = 10  # letters of a class's name that fit above its column


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
    names = next(iter(sets.values())).class_names[:COLUMNS]
    left, top, between = max(0.7, 0.085 * max(map(len, sets)) + 0.1), 0.3, 0.1
    tile = min(TILE, (WIDTH - left) / len(names))
    block = tile * per_class
    figure = Picture(figsize=(left + tile * len(names), top + (block + between) * len(sets) - between))
    for row, (name, images) in enumerate(sets.items()):
        y = top + row * (block + between)
        _show(figure, mosaic(images, len(names), per_class), left, y, tile * len(names), block)
        _write(figure, name, left - 0.08, y + block / 2, fontsize=9, ha="right", va="center")
    look: dict[str, Any] = {"ha": "center"}
    if max(map(len, names)) > LONG * tile / TILE:  # all are turned where one is too long
        look = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    for column, name in enumerate(names):
        _write(figure, name, left + (column + 0.5) * tile, top - 0.05, fontsize=7, va="bottom", **look)
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
    left, between = 0.075 * max(map(len, names)) + 0.1, 0.1
    tile = min(PANEL, (WIDTH - left) / len(columns))
    titles = [title if isinstance(title, str) else f"after {title:,}" for title in columns]
    titles = [textwrap.fill(title, max(1, int((tile + 0.2) / 0.085))) for title in titles]
    top = 0.16 * max(title.count("\n") + 1 for title in titles) + 0.06
    figure = Picture(figsize=(left + (tile + between) * len(columns) - between, top + tile * len(names)))
    for column, (title, pixels) in enumerate(zip(titles, columns.values(), strict=True)):
        x = left + column * (tile + between)
        _show(figure, _tiled(pixels, 1), x, top, tile, tile * len(names))
        _write(figure, title, x + tile / 2, top - 0.05, fontsize=8, ha="center", va="bottom")
    for row, name in enumerate(names):
        _write(figure, name, left - 0.06, top + (row + 0.5) * tile, fontsize=8, ha="right", va="center")
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
    """(N, C, H, W) in [0, 1] row by row, a sixteenth of their height apart: (rows, columns, 3) uint8."""
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise ValueError(f"pixels are {tuple(pixels.shape)}; allowed: (N, C, H, W) with 1 or 3 channels")
    gap = max(1, pixels.shape[2] // 16)
    canvas = make_grid(pixels.detach().cpu().clamp(0, 1), nrow=columns, padding=gap, pad_value=1)
    return (canvas[:, gap:-gap, gap:-gap] * 255).round().byte().permute(1, 2, 0)


def _show(figure: Picture, canvas: Tensor, left: float, top: float, width: float, height: float) -> None:
    """Pixels at a place of the figure; inches, from its upper left corner."""
    across, down = figure.get_size_inches()
    ax = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    ax.imshow(canvas.numpy(), interpolation="none", aspect="auto")
    ax.set_axis_off()


def _write(figure: Picture, text: str, x: float, y: float, **look: Any) -> None:
    """Text at a place of the figure; inches, from its upper left corner."""
    across, down = figure.get_size_inches()
    figure.text(x / across, 1 - y / down, text.replace("_", " "), parse_math=False, **look)
