"""Synthetic images as grids, walks and strips, and what a network attends to in an image."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ddlib.report.style import DASHES, PALETTE, WIDTH, Picture, note, picture, styled

TILE = 0.62  # inches: an image of a grid with the gap to the next one, at most
PANEL = 0.8  # inches: an image of `image_panels`, at most
MAP = 0.95  # inches: an image of `attention_maps`
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
    chosen = _class_numbers(classes, names)
    left, top, between = max(0.7, 0.085 * max(map(len, sets)) + 0.1), 0.3, 0.1
    tile = min(TILE, (WIDTH - left) / len(chosen))
    block = tile * per_class
    figure = picture(left + tile * len(chosen), top + (block + between) * len(sets) - between)
    for row, (name, images) in enumerate(sets.items()):
        y = top + row * (block + between)
        _show(figure, mosaic(images, chosen, per_class), left, y, tile * len(chosen), block)
        _write(figure, name, left - 0.08, y + block / 2, fontsize=9, ha="right", va="center")
    look: dict[str, Any] = {"ha": "center"}
    if max(len(names[c]) for c in chosen) > LONG * tile / TILE:  # all are turned where one is too long
        look = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    for column, c in enumerate(chosen):
        _write(figure, names[c], left + (column + 0.5) * tile, top - 0.05, fontsize=7, va="bottom", **look)
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
    names = [first.class_names[c] for c in _hard_labels(first)[list(rows)].tolist()]
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
    return _panels(names, dict(zip(titles, map(_bytes, columns.values()), strict=True)))


def _panels(names: Sequence[str], columns: Mapping[str, np.ndarray]) -> Picture:
    """A column of images (rows, H, W, C) uint8 for every title, a name before every row."""
    left, between = 0.075 * max(map(len, names)) + 0.1, 0.1
    tile = min(PANEL, (WIDTH - left) / len(columns))
    titles = [textwrap.fill(name, max(1, int((tile + 0.2) / 0.085))) for name in columns]
    top = 0.16 * max(title.count("\n") + 1 for title in titles) + 0.06
    figure = picture(left + (tile + between) * len(columns) - between, top + tile * len(names))
    for column, (title, images) in enumerate(zip(titles, columns.values(), strict=True)):
        x, width = left + column * (tile + between), images.shape[2]
        _show(figure, _tiled(images[:, None])[:, :width], x, top, tile, tile * len(names))
        _write(figure, title, x + tile / 2, top - 0.05, fontsize=8, ha="center", va="bottom")
    _write_rows(figure, names, left, top, tile)
    return figure


def interpolation(walks: Mapping[str, Tensor]) -> Picture:
    """A row for every walk between two noises of one class, image by image.

    Args:
        walks: what the row shows, such as the class -> (steps, C, H, W) pixels in [0, 1]; all of one size.

    Raises:
        ValueError: walks of different sizes, or images of neither 1 nor 3 channels.
    """
    if not walks:
        return note("no walk was made")
    shapes = {tuple(images.shape) for images in walks.values()}
    if len(shapes) > 1:
        raise ValueError(f"walks are of the sizes {sorted(shapes)}; allowed: one for all")
    images = np.stack([_bytes(images, "walks") for images in walks.values()])
    left = 0.075 * max(map(len, walks)) + 0.1
    tile = min(TILE, (WIDTH - left) / images.shape[1])
    width, height = tile * images.shape[1], tile * len(walks)
    figure = picture(left + width, height)
    _show(figure, _tiled(images), left, 0, width, height)
    _write_rows(figure, list(walks), left, 0, tile)
    return figure


def neighbours(
    samples: Tensor, nearest: Tensor, distances: Sequence[float], *, spread: Mapping[str, Sequence[float]]
) -> Picture:
    """Each sample above its nearest real image with their distance, and below how such distances spread.

    A generator that repeats its training images has samples far nearer to them than real images of the same kind that
    it never saw: held-out ones are the yardstick.

    Args:
        samples: (n, C, H, W) pixels in [0, 1], n >= 1; ten stand in a row.
        nearest: (n, C, H, W), of each the nearest real image.
        distances: of each pair, the root mean square of their pixels' differences.
        spread: name -> distances >= 0 to the nearest training image, such as of more samples and of held-out images;
            drawn as the share that is at most as far.

    Raises:
        ValueError: the first three differ in number or size, none are given, or a name has no distances.
    """
    if samples.shape != nearest.shape or len(samples) != len(distances) or not len(samples):
        sizes = f"{tuple(samples.shape)}, {tuple(nearest.shape)} and {len(distances)}"
        raise ValueError(f"samples, nearest and distances are {sizes}; allowed: as many of each, at least one")
    for name, values in spread.items():
        if not len(values):
            raise ValueError(f"spread[{name!r}] is empty; allowed: at least one distance")
    pairs = np.stack([_bytes(samples, "samples"), _bytes(nearest, "nearest")])
    pitch, curves = 2 * TILE + 0.24, 2.2 * bool(spread)  # inches: of a row with its distances, of the curves
    height = math.ceil(len(samples) / COLUMNS) * pitch + curves
    figure = picture(WIDTH, height)
    for begin in range(0, len(samples), COLUMNS):
        row, y = pairs[:, begin : begin + COLUMNS], begin // COLUMNS * pitch
        _show(figure, _tiled(row), 0, y, row.shape[1] * TILE, 2 * TILE)
        for column, distance in enumerate(distances[begin : begin + COLUMNS]):
            text, x = f"{distance:.3f}", (column + 0.48) * TILE
            _write(figure, text, x, y + 2 * TILE + 0.02, fontsize=7, ha="center", va="top")
    if spread:
        _draw_distances(figure, spread, bottom=0.4 / height, height=(curves - 0.6) / height)
    return figure


def _draw_distances(figure: Picture, spread: Mapping[str, Sequence[float]], *, bottom: float, height: float) -> None:
    """The share of distances that are at most x, a rising line a name."""
    import seaborn

    with styled():
        ax = figure.add_axes((0.5 / WIDTH, bottom, 4.0 / WIDTH, height))
        for i, (name, values) in enumerate(spread.items()):
            look = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.3}
            seaborn.ecdfplot(x=np.asarray(values, dtype=float), stat="percent", label=name, ax=ax, **look)
        farthest = max(max(values) for values in spread.values())
        ax.set(xlim=(0, 1.05 * max(farthest, 1e-6)), ylim=(0, 102))
        ax.set(xlabel="distance to the nearest training image (root mean square)", ylabel="share at most (%)")
        figure.legend(handles=ax.lines, loc="lower left", bbox_to_anchor=(4.6 / WIDTH, bottom + 0.1 * height))


def attention_maps(
    names: Sequence[str], pixels: Tensor, spatial: Sequence[Tensor], channel: Sequence[Tensor]
) -> Picture:
    """A row an image: the image, then for every layer its spatial attention as a map and its channel attention.

    Args:
        names: what the rows show.
        pixels: (B, C, H, W) in [0, 1].
        spatial: for each layer, (B, H_l * W_l) unit vectors of a square map.
        channel: for each layer, (B, C_l) unit vectors; drawn sorted, since channels have no order.

    Raises:
        ValueError: the rows of the arguments differ in number.
    """
    counts = {len(names), len(pixels), *map(len, spatial), *map(len, channel)}
    if len(counts) > 1 or len(spatial) != len(channel):
        raise ValueError(f"names, pixels, spatial and channel must agree in rows and layers; got rows {sorted(counts)}")
    layers = len(spatial)
    figure = picture(MAP * (1 + 2.2 * layers) + 0.9, MAP * len(names) + 0.5, layout="constrained")
    with styled():
        axes = figure.subplots(len(names), 1 + 2 * layers, squeeze=False, width_ratios=[1] + [1, 1.2] * layers)
        for row, name in enumerate(names):
            _draw_map(axes[row, 0], pixels[row].permute(1, 2, 0).squeeze(-1), cmap="gray", vmax=1)
            axes[row, 0].set_ylabel(name)
            for layer in range(layers):
                where, which = axes[row, 1 + 2 * layer : 3 + 2 * layer]
                side = round(spatial[layer].shape[1] ** 0.5)
                _draw_map(where, spatial[layer][row].reshape(side, side), cmap="viridis")
                heights = channel[layer][row].cpu().sort(descending=True).values.numpy()
                which.bar(range(len(heights)), heights, width=1.0, color=PALETTE[0], linewidth=0)
                which.set(xlim=(-0.5, len(heights) - 0.5), ylim=(0, 1))
                which.tick_params(labelsize=6)
        for layer in range(layers):
            axes[0, 1 + 2 * layer].set_title(f"layer {layer + 1}: where")
            axes[0, 2 + 2 * layer].set_title("which channels")
            axes[-1, 2 + 2 * layer].set_xlabel("channel, sorted")
    return figure


def _draw_map(ax: Any, values: Tensor, **look: Any) -> None:
    ax.imshow(values.cpu().numpy(), vmin=0, interpolation="nearest", **look)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)


def mosaic(images: Images, classes: Sequence[int], per_class: int) -> np.ndarray:
    """Images side by side on white, a column for every class: (rows, columns, 3) uint8.

    Images are a sixteenth of their height apart, at least a pixel.
    """
    pixels, labels = _bytes(images.pixels()), _hard_labels(images).numpy()
    grid = np.full((per_class, len(classes), *pixels.shape[1:]), 255, np.uint8)
    for column, c in enumerate(classes):
        members = pixels[labels == c][:per_class]
        grid[: len(members), column] = members
    gap = _gap(grid)
    return _tiled(grid)[:-gap, :-gap]


def _tiled(grid: np.ndarray) -> np.ndarray:
    """Images (rows, columns, H, W, C) as one (rows, columns, 3), each with white right of it and below."""
    rows, columns, height, width, channels = grid.shape
    gap = _gap(grid)
    framed = np.pad(grid, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)), constant_values=255)
    canvas = framed.transpose(0, 2, 1, 3, 4).reshape(rows * (height + gap), columns * (width + gap), channels)
    return canvas.repeat(3 // channels, axis=2)


def _gap(grid: np.ndarray) -> int:
    return max(1, grid.shape[2] // 16)


def _bytes(images: Tensor, name: str = "pixels") -> np.ndarray:
    """Pixels in [0, 1] as (N, H, W, C) uint8."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{name} are {tuple(images.shape)}; allowed: (N, C, H, W) with 1 or 3 channels")
    return (images.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _hard_labels(images: Images) -> Tensor:
    """The labels as numbers of classes; of soft ones the greatest."""
    labels = images.labels.detach().cpu()
    return labels.argmax(1) if labels.ndim == 2 else labels


def _check_alike(sets: Mapping[str, Images]) -> None:
    if len({tuple(s.class_names) for s in sets.values()}) > 1:
        raise ValueError(f"sets={list(sets)}; allowed: sets that all have the same class_names")


def _class_numbers(classes: Sequence[int | str] | None, names: tuple[str, ...]) -> list[int]:
    if classes is None:
        return list(range(min(COLUMNS, len(names))))
    chosen = [names.index(c) if c in names else c for c in classes]
    wrong = [c for c in chosen if type(c) is not int or not 0 <= c < len(names)]
    if wrong or not chosen:
        raise ValueError(f"classes={list(classes)!r}; known: {', '.join(names)}, or their numbers from 0")
    return chosen


def _show(figure: Picture, canvas: np.ndarray, left: float, top: float, width: float, height: float) -> None:
    """Pixels at a place of the figure; inches, from its upper left corner."""
    across, down = figure.get_size_inches()
    with styled():
        ax = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
        ax.imshow(canvas, interpolation="none", aspect="auto")
        ax.set_axis_off()


def _write(figure: Picture, text: str, x: float, y: float, **look: Any) -> None:
    """Text at a place of the figure; inches, from its upper left corner."""
    across, down = figure.get_size_inches()
    with styled():
        figure.text(x / across, 1 - y / down, text.replace("_", " "), parse_math=False, **look)


def _write_rows(figure: Picture, names: Sequence[str], left: float, top: float, tile: float) -> None:
    """A name before each row of images."""
    for row, name in enumerate(names):
        _write(figure, name, left - 0.06, top + (row + 0.5) * tile, fontsize=8, ha="right", va="center")
