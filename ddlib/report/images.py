"""Synthetic images as grids."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from ddlib.report.style import WIDTH, Picture, note, picture, styled

TILE = 0.62  # inches, at most
LEFT, TOP, BETWEEN = 0.7, 0.3, 0.1  # inches: for the sets' names, for the classes' names, between two sets
PANEL = 0.8  # inches: a tile of `image_panels`, at most
COLUMNS = 10
LONG = 10  # letters of a class's name that fit above its column


class Images(Protocol):
    """What a grid needs of a `SyntheticSet`."""

    labels: Tensor
    class_names: tuple[str, ...]

    def pixels(self) -> Tensor:
        """(N, C, H, W) in [0, 1]."""


def image_grid(
    sets: Mapping[str, Images],
    *,
    classes: Sequence[int | str] | None = None,
    per_class: int = 1,
) -> Picture:
    """Synthetic images, a column for every class and a block of rows for every set, pixel by pixel.

    Args:
        sets: name of the block -> SyntheticSet; all have the same classes.  Soft labels count as their greatest.
        classes: numbers or names of the classes to show; None: the first ten.
        per_class: rows of a block, at least 1; a class with fewer images leaves its place empty.

    Raises:
        ValueError: sets of different classes, an unknown class, or per_class below 1.
    """
    if not sets:
        return note("no set was made")
    _check_alike(sets)
    if per_class < 1:
        raise ValueError(f"per_class={per_class!r}; allowed: from 1")
    names = tuple(next(iter(sets.values())).class_names)
    chosen = _numbers(classes, names)
    left = max(LEFT, 0.085 * max(map(len, sets)) + 0.1)
    tile = min(TILE, (WIDTH - left) / len(chosen))
    width, block = left + tile * len(chosen), tile * per_class
    height = TOP + (block + BETWEEN) * len(sets) - BETWEEN
    figure = picture(width, height)
    for row, (name, images) in enumerate(sets.items()):
        bottom = height - TOP - row * (block + BETWEEN) - block
        place = (left / width, bottom / height, 1 - left / width, block / height)
        _draw_block(figure, place, name, mosaic(images, chosen, per_class))
    turned = max(len(names[c]) for c in chosen) > LONG * tile / TILE
    for column, c in enumerate(chosen):
        place = (left + (column + 0.5) * tile) / width, (height - TOP + 0.05) / height
        _draw_name(figure, place, names[c], turned)
    return figure


def image_panels(columns: Mapping[str, Images], rows: Sequence[int]) -> Picture:
    """The same images of several sets side by side: a column for every set, a row for every index.

    Shows what became of the same real images under several settings.  The name of an image's class, in the first set,
    stands before its row.

    Args:
        columns: name of the column -> SyntheticSet; all have the same classes.
        rows: indices into each set.

    Raises:
        ValueError: sets of different classes, no rows, or an index that a set does not have.
    """
    if not columns:
        return note("no set was made")
    _check_alike(columns)
    least = min(len(s.labels) for s in columns.values())
    if not len(rows) or not all(0 <= row < least for row in rows):
        raise ValueError(f"rows={list(rows)!r}; allowed: indices in 0..{least - 1}, at least one")
    first = next(iter(columns.values()))
    names = [first.class_names[c].replace("_", " ") for c in _hard(first)[list(rows)].tolist()]
    return _panels(names, {name: _bytes(images.pixels())[list(rows)] for name, images in columns.items()})


def image_strips(names: Sequence[str], columns: Mapping[str | int, Tensor]) -> Picture:
    """What became of some images, a row for each: such as the real one, its encoding, and it after some iterations.

    Args:
        names: what the rows show, such as classes.
        columns: title -> (B, C, H, W) pixels in [0, 1], as many as `names`; a number stands for as many iterations.

    Raises:
        ValueError: a column of another number of images than there are names, or of neither 1 nor 3 channels.
    """
    if not columns or not len(names):
        return note("no image was made")
    for title, pixels in columns.items():
        if pixels.ndim != 4 or len(pixels) != len(names):
            raise ValueError(f"columns[{title!r}] is {tuple(pixels.shape)}; allowed: ({len(names)}, C, H, W), as names")
    titles = [title if isinstance(title, str) else f"after {title:,}" for title in columns]
    shown = dict(zip(titles, map(_bytes, columns.values()), strict=True))
    return _panels([name.replace("_", " ") for name in names], shown)


def _panels(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> Picture:
    """A column of images (rows, H, W, C) uint8 for every title, a name before every row."""
    left = 0.075 * max(map(len, names)) + 0.1
    tile = min(PANEL, (WIDTH - left) / len(columns))
    titles = [textwrap.fill(name, max(1, int((tile + 0.2) / 0.085))) for name in columns]
    top = 0.16 * max(title.count("\n") + 1 for title in titles) + 0.06
    width, height = left + (tile + BETWEEN) * len(columns) - BETWEEN, top + tile * len(names)
    figure = picture(width, height)
    for place, (title, shown) in enumerate(zip(titles, columns.values(), strict=True)):
        x = left + place * (tile + BETWEEN)
        _draw_block(figure, (x / width, 0, tile / width, tile * len(names) / height), "", _stacked(shown))
        with styled():
            middle, above = (x + tile / 2) / width, 1 - (top - 0.05) / height
            figure.text(middle, above, title, fontsize=8, ha="center", va="bottom", parse_math=False)
    with styled():
        for row, name in enumerate(names):
            middle = 1 - (top + (row + 0.5) * tile) / height
            figure.text((left - 0.06) / width, middle, name, fontsize=8, ha="right", va="center", parse_math=False)
    return figure


def _check_alike(sets: Mapping[str, Images]) -> None:
    if len({tuple(s.class_names) for s in sets.values()}) > 1:
        raise ValueError(f"sets={list(sets)}; allowed: sets that all have the same class_names")


def _hard(images: Images) -> Tensor:
    """The labels as numbers of classes; of soft ones the greatest."""
    labels = images.labels.detach().cpu()
    return labels.argmax(1) if labels.ndim == 2 else labels


def _bytes(pixels: Tensor) -> np.ndarray:
    """Pixels in [0, 1] as (N, H, W, C) uint8."""
    shown = (pixels.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    if shown.shape[3] not in (1, 3):
        raise ValueError(f"pixels have {shown.shape[3]} channels; allowed: 1 or 3")
    return shown


def _stacked(shown: np.ndarray) -> np.ndarray:
    """(N, H, W, C) below one another on white, as far apart as in a mosaic: (rows, W, 3) uint8."""
    count, height, width, _ = shown.shape
    pitch = height + max(1, height // 16)
    canvas = np.full((count * pitch, width, 3), 255, np.uint8)
    for row, image in enumerate(shown):
        canvas[row * pitch : row * pitch + height] = image
    return canvas


def _numbers(classes: Sequence[int | str] | None, names: tuple[str, ...]) -> list[int]:
    if classes is None:
        return list(range(min(COLUMNS, len(names))))
    chosen = [names.index(c) if c in names else c for c in classes]
    wrong = [c for c in chosen if type(c) is not int or not 0 <= c < len(names)]
    if wrong or not chosen:
        raise ValueError(f"classes={list(classes)!r}; known: {', '.join(names)}, or their numbers from 0")
    return chosen


def mosaic(images: Images, classes: Sequence[int], per_class: int) -> np.ndarray:
    """Images side by side on white, a column for every class: (rows, columns, 3) uint8.

    Images are a sixteenth of their height apart, at least a pixel.
    """
    shown, labels = _bytes(images.pixels()), _hard(images)
    _, height, width, _ = shown.shape
    gap = max(1, height // 16)
    canvas = np.full((per_class * (height + gap) - gap, len(classes) * (width + gap) - gap, 3), 255, np.uint8)
    for column, c in enumerate(classes):
        for row, index in enumerate(np.flatnonzero(labels.numpy() == c)[:per_class]):
            y, x = row * (height + gap), column * (width + gap)
            canvas[y : y + height, x : x + width] = shown[index]
    return canvas


def _draw_name(figure: Picture, place: tuple[float, float], name: str, turned: bool) -> None:
    """A class's name above its column; all are turned where one is too long."""
    tilt = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"} if turned else {"ha": "center"}
    with styled():
        figure.text(*place, name.replace("_", " "), fontsize=7, va="bottom", parse_math=False, **tilt)


def _draw_block(figure: Picture, place: tuple[float, ...], name: str, canvas: np.ndarray) -> None:
    with styled():
        ax = figure.add_axes(place)
        ax.imshow(canvas, interpolation="none", aspect="auto")
        ax.set_axis_off()
        beside = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
        ax.annotate(name, (0, 0.5), (-6, 0), fontsize=9, parse_math=False, **beside)
