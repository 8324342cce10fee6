"""What a generator makes: walks through its noise, and its samples beside the real images nearest to them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from ddlib.report.style import PALETTE, WIDTH, Picture, note, picture, styled

TILE = 0.62  # inches, at most, the gap to the next image included
STRIPE = 0.24  # inches: of small print under a pair, and the gap to the next one
BELOW = 2.2  # inches: of the curves under the pairs, and the gap above them
COLUMNS = 10
DASHES = ("-", "--", ":", "-.")


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
    steps = next(iter(walks.values())).shape[0]
    left = 0.075 * max(map(len, walks)) + 0.1
    tile = min(TILE, (WIDTH - left) / steps)
    width, height = left + tile * steps, tile * len(walks)
    figure = picture(width, height)
    _draw_tiles(figure, (left / width, 0, 1 - left / width, 1), [_bytes("walks", images) for images in walks.values()])
    with styled():
        for row, name in enumerate(walks):
            middle = (height - (row + 0.5) * tile) / height
            label = name.replace("_", " ")
            figure.text((left - 0.06) / width, middle, label, fontsize=8, ha="right", va="center", parse_math=False)
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
        found = f"{tuple(samples.shape)}, {tuple(nearest.shape)} and {len(distances)}"
        raise ValueError(f"samples, nearest and distances are {found}; allowed: as many of each, at least one")
    for name, values in spread.items():
        if not len(values):
            raise ValueError(f"spread[{name!r}] is empty; allowed: at least one distance")
    columns, tile = min(COLUMNS, len(samples)), TILE
    height = math.ceil(len(samples) / columns) * (2 * tile + STRIPE) + BELOW * bool(spread)
    figure = picture(WIDTH, height)
    shown = _bytes("samples", samples), _bytes("nearest", nearest)
    for begin in range(0, len(samples), columns):
        row = range(begin, min(begin + columns, len(samples)))
        top = height - begin // columns * (2 * tile + STRIPE)
        place = (0, (top - 2 * tile) / height, len(row) * tile / WIDTH, 2 * tile / height)
        _draw_tiles(figure, place, [images[row.start : row.stop] for images in shown])
        with styled():
            for at, i in enumerate(row):
                x, y = (at + 0.48) * tile / WIDTH, (top - 2 * tile - 0.02) / height
                figure.text(x, y, f"{distances[i]:.3f}", fontsize=7, ha="center", va="top")
    if spread:
        with styled():
            ax = figure.add_axes((0.5 / WIDTH, 0.4 / height, 4.0 / WIDTH, (BELOW - 0.6) / height))
            _draw_spread(ax, spread)
            figure.legend(handles=ax.lines, loc="lower left", bbox_to_anchor=(4.6 / WIDTH, 0.6 / height))
    return figure


def _draw_spread(ax: Axes, spread: Mapping[str, Sequence[float]]) -> None:
    """The share of distances that are at most x, a rising line a name."""
    for i, (name, values) in enumerate(spread.items()):
        xs = np.sort(np.asarray(values, dtype=float))
        shares = np.arange(1, len(xs) + 1) / len(xs) * 100
        look = {"color": PALETTE[i % len(PALETTE)], "linestyle": DASHES[i % len(DASHES)], "linewidth": 1.3}
        ax.add_line(Line2D([xs[0], *xs], [0, *shares], drawstyle="steps-post", label=name, **look))
    ends = [end for values in spread.values() for end in (min(values), max(values))]
    ax.set(xlim=(0, 1.05 * max(*ends, 1e-6)), ylim=(0, 102))
    ax.set(xlabel="distance to the nearest training image (root mean square)", ylabel="share at most (%)")


def _bytes(name: str, images: Tensor) -> np.ndarray:
    """Pixels as (N, H, W, C) uint8."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"{name} are {tuple(images.shape)}; allowed: (N, C, H, W) with 1 or 3 channels")
    return (images.detach().cpu().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def _draw_tiles(figure: Picture, place: tuple[float, ...], rows: Sequence[np.ndarray]) -> None:
    """Rows of images (n, H, W, C), side by side on white, each a sixteenth of its height from the next."""
    height, width, channels = rows[0].shape[1:]
    down, right = height + max(1, height // 16), width + max(1, width // 16)
    canvas = np.full((len(rows) * down, len(rows[0]) * right, channels), 255, np.uint8)
    for y, images in enumerate(rows):
        for x, image in enumerate(images):
            canvas[y * down : y * down + height, x * right : x * right + width] = image
    with styled():
        ax = figure.add_axes(place)
        ax.imshow(canvas.repeat(3 // channels, axis=2), interpolation="none", aspect="auto")
        ax.set_axis_off()
