"""Methods side by side: accuracy against bytes, against seconds, and across networks, coloured by family."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from ddlib.report.leaderboard import seconds_of_a_set
from ddlib.report.style import GREY, MARKERS, PALETTE, WIDTH, Picture, legend_below, note, picture, styled
from ddlib.results import Record, interval, ranked

FAMILIES = {
    "real images": ("random", "whole"),
    "chosen real images": ("herding", "k_center"),
    "gradients": ("dc", "dsa"),
    "distributions": ("dm", "datadam", "atom"),
    "trajectories": ("mtt", "tesla", "ftd", "datm"),
    "a generator": ("gan", "dim"),
    "latents of a prior": ("glad", "ld3m"),
}
"""What is matched, chosen or kept -> the methods that do so."""

OTHER = "other"
SHADES = (GREY, "#000000", PALETTE[0], PALETTE[2], PALETTE[5], PALETTE[3], PALETTE[1])
LOOKS = dict(zip((*FAMILIES, OTHER), zip((*SHADES, PALETTE[4]), MARKERS, strict=True), strict=True))
"""Family -> colour and marker."""

LINE = 0.135  # inches between two labels
LABELS = 1.35  # inches for the column of labels
LEAST = 0.01  # seconds: what took less stands here


def family(record: Record) -> str:
    """The name in `FAMILIES` of the record's method, or "other"."""
    return next((name for name, methods in FAMILIES.items() if record.method in methods), OTHER)


def accuracy_against_bytes(records: Sequence[Record]) -> Picture:
    """Test accuracy against the bytes stored, with 95 % t intervals of the mean; the points of a row are joined.

    Args:
        records: by one protocol.  What was not run is left out.
    """
    records = [record for record in records if record.n and record.cost.get("bytes_stored")]
    if not records:
        return note("no cell was run")
    figure = picture(WIDTH, 0.9 + max(2.6, LINE * len({r.label for r in records})), layout="constrained")
    with styled():
        ax = figure.subplots()
        _scatter(ax, records, lambda record: record.cost["bytes_stored"] / 1e3)
        ax.set_xlabel("stored (kB), labels and generators included")
        _finish(figure, records)
    return figure


def accuracy_against_seconds(records: Sequence[Record]) -> Picture:
    """Test accuracy against the seconds of making one set, a panel for each number of images per class.

    Full markers are the distillation alone, faint ones with all that is trained beforehand.  What took less than a
    hundredth of a second stands there.

    Args:
        records: by one protocol, with images per class.  What was not run, or not timed, is left out.
    """
    records = [r for r in records if r.n and r.ipc is not None and seconds_of_a_set(r) is not None]
    if not records:
        return note("no cell was run")
    panels = _by_ipc(records)
    most = max(map(len, panels.values()))
    figure = picture(WIDTH, 0.7 + len(panels) * (0.3 + max(2.4, LINE * most)), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            for record in group:
                _draw_whole_time(ax, record)
            _scatter(ax, group, _seconds)
            ax.set_title(title)
        axes[-1].set_xlabel("seconds for one set; faint: with what is trained beforehand")
        _finish(figure, records)
    return figure


def accuracy_across_networks(records: Sequence[Record]) -> Picture:
    """Test accuracy of each row on each network, with 95 % t intervals, the best on the first network on top.

    Args:
        records: of several networks.  What was not run is left out.
    """
    records = [record for record in records if record.n and record.ipc is not None]
    if not records:
        return note("no cell was run")
    networks = list(dict.fromkeys(record.network for record in records))
    panels = _by_ipc(records)
    heights = [len({r.label for r in group}) for group in panels.values()]
    figure = picture(WIDTH, 0.7 + sum(0.35 + 0.2 * height for height in heights), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            _draw_networks(ax, group, networks)
            ax.set_title(title)
        axes[-1].set_xlabel("test accuracy (%)")
        looks = {"linestyle": "", "color": "black", "markersize": 4}
        handles = [Line2D([], [], marker=m, label=n, **looks) for n, m in zip(networks, MARKERS, strict=False)]
        legend_below(figure, handles)
    return figure


def _by_ipc(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.ipc):
        found.setdefault(record.ipc, []).append(record)
    return {f"{group[0].dataset}, IPC {ipc}": group for ipc, group in found.items()}


def _seconds(record: Record) -> float:
    return max(LEAST, seconds_of_a_set(record))


def _draw_whole_time(ax: Axes, record: Record) -> None:
    """A faint marker where the row stands with its prerequisites, joined to its own."""
    before = record.cost.get("prerequisite_seconds") or 0.0
    color, marker = LOOKS[family(record)]
    if before:
        ends = [_seconds(record), _seconds(record) + before]
        ax.plot(ends, [record.accuracy_mean] * 2, color=color, linewidth=0.8, alpha=0.35)
        ax.plot(ends[1:], [record.accuracy_mean], marker, color=color, markersize=5, alpha=0.35)


def _scatter(ax: Axes, records: Sequence[Record], place: Callable[[Record], float]) -> None:
    """A point with its interval for each record, rows joined, and their names in a column on the right."""
    rows: dict[str, list[Record]] = {}
    for record in sorted(records, key=place):
        rows.setdefault(record.label, []).append(record)
    for group in rows.values():
        color, marker = LOOKS[family(group[0])]
        ax.plot([place(r) for r in group], [r.accuracy_mean for r in group], color=color, linewidth=0.8, alpha=0.6)
        for record in group:
            style = {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 0.9, "linestyle": ""}
            ax.errorbar(place(record), record.accuracy_mean, _around(record), **style)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ends = [end for record in records for end in _ends(record)]
    ax.set_ylim(max(0, min(ends) - 2), min(100.5, max(ends) + 2))
    ax.set_ylabel("test accuracy (%)")
    last = {label: group[-1] for label, group in rows.items()}
    _name(ax, [(label, place(r), r) for label, r in last.items()])


def _around(record: Record) -> list[list[float]] | None:
    """What the error bar of a record reaches below and above its mean."""
    if record.n < 2:
        return None
    low, high = interval(record.accuracies)
    return [[record.accuracy_mean - low], [high - record.accuracy_mean]]


def _ends(record: Record) -> tuple[float, float]:
    """Where an interval ends, as far as a tenth of the mean from it."""
    mean, (low, high) = record.accuracy_mean, interval(record.accuracies)
    return max(low, 0.9 * mean), min(high, 1.1 * mean)


def _name(ax: Axes, points: Sequence[tuple[str, float, Record]]) -> None:
    """Labels right of the axes, in the order of the points' heights, a thin line from each to its point."""
    points = sorted(points, key=lambda point: point[2].accuracy_mean)
    figure = ax.figure
    low, high = ax.get_ylim()
    figure.get_layout_engine().execute(figure)
    tall = ax.get_position().height * figure.get_size_inches()[1]
    heights = spread([(r.accuracy_mean - low) / (high - low) for *_, r in points], LINE / tall)
    for (label, x, record), height in zip(points, heights, strict=True):
        color, _ = LOOKS[family(record)]
        text = {"xycoords": "data", "textcoords": "axes fraction", "fontsize": 7.5, "va": "center", "color": color}
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.4, "alpha": 0.5, "shrinkA": 0, "shrinkB": 3}
        line |= {"relpos": (0, 0.5)}  # to the label's left end
        ax.annotate(label, (x, record.accuracy_mean), (1.02, height), arrowprops=line, annotation_clip=False, **text)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places, moved as little as they can be, in squares, to be `gap` apart; within [0, 1] where they all fit.

    Args:
        places: rising.
    """
    blocks: list[list[float]] = []  # places, each less the gaps below it: those of a block get their mean
    for i, place in enumerate(places):
        blocks.append([place - i * gap])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    levels = [fmean(block) for block in blocks for _ in block]
    most = 1 - (len(places) - 1) * gap
    return [max(0.0, min(level, most)) + i * gap for i, level in enumerate(levels)]


def _draw_networks(ax: Axes, records: Sequence[Record], networks: Sequence[str]) -> None:
    """A line of the panel for every row, a marker on it for every network."""
    by_first = ranked([r for r in records if r.network == networks[0]])
    order = dict.fromkeys([r.label for r in (*by_first, *ranked(records))])
    for height, label in enumerate(order):
        for record in (r for r in records if r.label == label):
            position = networks.index(record.network)
            color, _ = LOOKS[family(record)]
            y = height + 0.16 * (position - (len(networks) - 1) / 2)
            style = {"color": color, "marker": MARKERS[position % len(MARKERS)], "markersize": 4, "linewidth": 0.8}
            style |= {} if position == 0 else {"markerfacecolor": "white"}
            ax.errorbar(record.accuracy_mean, y, xerr=_around(record), **style)
    ax.set_yticks(range(len(order)), list(order))
    for text, label in zip(ax.get_yticklabels(), order, strict=True):
        text.set_color(LOOKS[family(next(r for r in records if r.label == label))][0])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ends = [end for record in records for end in _ends(record)]
    ax.set_xlim(max(0, math.floor(min(ends)) - 2), min(100, math.ceil(max(ends)) + 2))
    ax.grid(True, axis="x")


def _finish(figure: Picture, records: Sequence[Record]) -> None:
    """The families below, and the layout settled with room for the labels on the right."""
    present = dict.fromkeys(map(family, sorted(records, key=lambda r: -fmean(r.accuracies))))
    handles = [
        Line2D([], [], linestyle="", marker=LOOKS[name][1], color=LOOKS[name][0], markersize=4.5, label=name)
        for name in LOOKS
        if name in present
    ]
    legend_below(figure, handles)
