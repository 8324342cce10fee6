"""What a step costs, in time and in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ddlib.report.style import MARKERS, WIDTH, Picture, colors, legend_below, note, picture, styled, ticks_at

KEYS = ("method", "N", "B", "seconds", "bytes")
AXES = {"N": "inner steps N", "B": "images in a mini-batch B"}
DASHES = ("-", "--", ":", "-.")

WIDE = 4
"""Values that differ by this factor, or more, stand on a logarithmic axis."""


def cost_lines(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Seconds of an outer step, and its peak memory, against the inner steps N; of one N, against the mini-batch B.

    Args:
        rows: one a measurement: "method", "N", "B", "seconds" > 0, and "bytes" > 0, or None where the memory was not
            measured.  Each method has a colour, and each B, where N varies, a style of line.

    Raises:
        ValueError: a row lacks one of these.
    """
    for row in rows:
        if missing := [key for key in KEYS if key not in row]:
            raise ValueError(f"row {dict(row)!r} lacks {', '.join(missing)}; it must have {', '.join(KEYS)}")
    if not rows:
        return note("nothing was measured")
    along, across = ("N", "B") if len({row["N"] for row in rows}) > 1 else ("B", "N")
    looks = _looks(rows, across)
    figure = picture(WIDTH, 2.7, layout="constrained")
    panels = [("time", "seconds per outer step", [(row, row["seconds"]) for row in rows])]
    if measured := [(row, row["bytes"] / 1e6) for row in rows if row["bytes"] is not None]:
        panels.append(("peak memory", "MB", measured))
    with styled():
        for ax, (title, unit, found) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(ax, found, along, across, looks)
            ax.set(title=title, ylabel=unit)
        several = len({row[across] for row in rows}) > 1
        handles = [
            Line2D([], [], label=f"{method}, {across} = {value}" if several else method, **look)
            for (method, value), look in looks.items()
        ]
        legend_below(figure, handles, columns=3)
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    figure.legends[0].set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)  # stays there when small print is added
    return figure


def _looks(rows: Sequence[Mapping[str, Any]], across: str) -> dict[tuple, dict]:
    """(method, value) -> how its line is drawn."""
    shades = colors(list(dict.fromkeys(row["method"] for row in rows)))
    values, methods = sorted({row[across] for row in rows}), list(shades)
    return {
        (method, value): {
            "color": shades[method],
            "linestyle": DASHES[values.index(value) % len(DASHES)],
            "marker": MARKERS[methods.index(method) % len(MARKERS)],
            "markersize": 4,
            "linewidth": 1.3,
        }
        for method, value in dict.fromkeys((row["method"], row[across]) for row in rows)
    }


def _draw(ax: Axes, found: Sequence[tuple[Mapping, float]], along: str, across: str, looks: Mapping) -> None:
    """The lines of one panel; an axis is logarithmic where its values differ much."""
    for (method, value), look in looks.items():
        points = sorted((r[along], y) for r, y in found if (r["method"], r[across]) == (method, value))
        ax.plot([x for x, _ in points], [y for _, y in points], **look)
    xs, ys = sorted({row[along] for row, _ in found}), [y for _, y in found]
    ax.set_xlabel(AXES[along])
    if xs[-1] >= WIDE * xs[0]:
        ax.set_xscale("log")
        ax.set_xlim(xs[0] / 1.2, xs[-1] * 1.2)
    if max(ys) >= WIDE * min(ys):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.set_yticks([], minor=True)
    else:
        ax.set_ylim(0, 1.1 * max(ys))
    ticks_at(ax, xs, inches=0.4 * WIDTH)
