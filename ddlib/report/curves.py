"""Accuracies as lines: against images per class, steps, the interval of redrawing, and the size of the network."""

import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ddlib.report.figures import REPORTED, interval_handle, panel_title, reported, reported_handles
from ddlib.report.style import (
    GREY,
    MARKERS,
    WIDTH,
    Picture,
    colors,
    is_random,
    legend_below,
    note,
    picture,
    styled,
    ticks_at,
)
from ddlib.results import Record, interval

DASHES = ("--", ":", "-.")
"""Of the horizontal lines, in order."""

WIDE = 20
"""Steps that differ by more than this factor stand on a logarithmic axis."""

Points = Sequence[tuple[float, Record]]
"""Where a record stands on the horizontal axis, and the record."""


def accuracy_curves(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a line for every row, with 95 % t intervals of the mean.

    Records of a whole training set are a horizontal broken line, their interval a band.  Intervals are over all
    networks of all distillation seeds.  A hollow marker shows what the paper reports where the comparison is fair: in
    the paper's setting, with a comparable reference.  Each data set (and each network) has a panel.  Where no record
    was run, the figure says so.
    """
    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    panels: dict[str, list[Record]] = {}
    for record in records:
        panels.setdefault(panel_title(record, records), []).append(record)
    looks = _looks([r.label for r in records if r.ipc is not None], [r.label for r in records if r.ipc is None])
    figure = picture(WIDTH, 0.3 + 2.6 * len(panels), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for ax, (name, group) in zip(axes, panels.items(), strict=True):
            shown = [record for record in group if record.ipc is not None]
            _draw(ax, [(r.label, r.ipc, r) for r in shown], [(r.label, r) for r in group if r.ipc is None], looks)
            _scale_ipc(ax, sorted({record.ipc for record in shown}))
            ax.set_title(name)
        axes[-1].set_xlabel("images per class")
        _finish(figure, records, looks)
    return figure


def accuracy_against_iterations(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Test accuracy against the steps of the distillation, a line for every group, a panel for every IPC.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `iterations`.  A record that has no such
            hyper-parameter, as of random real images, is a horizontal line; one of a whole training set is so in
            every panel.  What was not run is left out.

    Intervals are as in `accuracy_curves`, and so are hollow markers.
    """
    return _against(groups, _steps, _scale_steps, "steps of distillation")


def accuracy_against_redraw(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Test accuracy against the epochs after which a generator's images are drawn anew, a panel for every IPC.

    The axis is logarithmic, from 1, streaming, to "never", the frozen set, at its right end.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `redraw`; else as in
            `accuracy_against_iterations`.
    """
    finite = [interval for group in groups.values() for r in group if (interval := _redraw(r)) not in (None, NEVER)]
    never = 30 * max(finite, default=1)

    def place(record: Record) -> int | None:
        return never if _redraw(record) == NEVER else _redraw(record)

    def scale(ax: Axes, intervals: Sequence[int], *, inches: float) -> None:
        if not intervals:
            ax.set_xticks([])
            return
        ax.set_xscale("log")
        ax.set_xlim(intervals[0] / 1.5, intervals[-1] * 1.5)
        ticks_at(ax, intervals, inches=inches, names={never: NEVER})

    return _against(groups, place, scale, "epochs until drawn anew")


NEVER = "never"


def _redraw(record: Record) -> int | str | None:
    """Epochs until images are drawn anew, `NEVER`, or None where the method has no generator."""
    chosen = record.cell.get("hyperparameters", {})
    return (chosen["redraw"] or NEVER) if "redraw" in chosen else None


def accuracy_against_size(panels: Mapping[str, Sequence[Record]], parameters: Mapping[str, int]) -> Picture:
    """Test accuracy against the number of parameters of the network tested on, a line for every row.

    Args:
        panels: title -> records of its lines, each row once on each network.  What was not run is left out.
        parameters: name of a network, as `Record.network` -> its number of parameters, >= 1.

    Intervals are as in `accuracy_curves`, and so are hollow markers.

    Raises:
        ValueError: the size of a record's network is not known.
    """
    shown = {title: done for title, group in panels.items() if (done := [r for r in group if r.n])}
    if not shown:
        return note("no cell was run")
    every = [record for group in shown.values() for record in group]
    if unknown := dict.fromkeys(r.network for r in every if r.network not in parameters):
        raise ValueError(f"parameters lacks {', '.join(unknown)}; it has {', '.join(parameters) or 'none'}")
    sizes = {name: count for name, count in parameters.items() if name in {r.network for r in every}}
    looks = _looks([r.label for r in every], [])
    figure = picture(WIDTH, 0.7 + 2.3 * len(shown), layout="constrained")
    with styled():
        axes = figure.subplots(len(shown), squeeze=False, sharex=True)[:, 0]
        for ax, (title, group) in zip(axes, shown.items(), strict=True):
            _draw(ax, [(r.label, sizes[r.network], r) for r in group], [], looks)
            ax.set_title(title)
        _scale_sizes(axes[-1], sizes)
        _finish(figure, every, looks)
    return figure


def _against(
    groups: Mapping[str, Sequence[Record]],
    place: Callable[[Record], int | None],
    scale: Callable[..., None],
    axis: str,
) -> Picture:
    """A line for every group, a panel for every IPC.

    Args:
        place: where a record stands; None: it is a horizontal line.
        scale: sets up a horizontal axis for the places on it, `inches` long.
        axis: what the horizontal axis shows.
    """
    shown = [(name, record) for name, group in groups.items() for record in group if record.n]
    ipcs = sorted({record.ipc for _, record in shown if record.ipc is not None})
    if not ipcs:
        return note("no cell was run")
    looks = _looks([n for n, r in shown if place(r) is not None], [n for n, r in shown if place(r) is None])
    columns = 2 if len(ipcs) == 4 else min(3, len(ipcs))
    rows = math.ceil(len(ipcs) / columns)
    figure = picture(WIDTH, 0.3 + 2.3 * rows, layout="constrained")
    with styled():
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax in axes[len(ipcs) :]:
            ax.set_axis_off()
        for ax, ipc in zip(axes, ipcs, strict=False):
            here = [(name, record) for name, record in shown if record.ipc in (ipc, None)]
            levels = [(name, record) for name, record in here if place(record) is None]
            _draw(ax, [(n, place(r), r) for n, r in here if place(r) is not None], levels, looks)
            scale(ax, sorted({place(r) for _, r in here} - {None}), inches=0.68 * WIDTH / columns)
            ax.set(title=f"IPC {ipc}", xlabel=axis)
        for ax in axes[1:]:
            ax.set_ylabel("test accuracy (%)" if ax in axes[::columns] else "")
        _finish(figure, [record for _, record in shown], looks, below=True)
    return figure


def _steps(record: Record) -> int | None:
    """How many steps the distillation took, where its method has a number of them to choose."""
    return record.cell.get("hyperparameters", {}).get("iterations")


def _looks(lines: Sequence[str], levels: Sequence[str]) -> dict[str, dict]:
    """Name -> how its line is drawn: a colour and a marker, or, for a horizontal one, dashes in black or grey."""
    shades = colors(list(dict.fromkeys(lines)))
    found = {
        name: {"color": shades[name], "marker": MARKERS[i % len(MARKERS)], "linewidth": 1.3, "markersize": 4}
        for i, name in enumerate(shades)
    }
    rest = [name for name in dict.fromkeys(levels) if name not in found]
    return found | {
        name: {
            "color": GREY if is_random(name) else "black",
            "linestyle": DASHES[i % len(DASHES)],
            "linewidth": 1,
        }
        for i, name in enumerate(rest)
    }


def _draw(
    ax: Axes,
    series: Sequence[tuple[str, float, Record]],
    levels: Sequence[tuple[str, Record]],
    looks: Mapping[str, Mapping],
) -> None:
    """The lines of one panel, and its vertical axis."""
    for name, record in levels:
        _draw_level(ax, record, looks[name])
    for name in dict.fromkeys(name for name, _, _ in series):
        points = sorted(((x, r) for n, x, r in series if n == name), key=lambda point: point[0])
        _draw_line(ax, points, looks[name])
    ends = [end for record in [r for *_, r in (*series, *levels)] for end in _ends(record)]
    room = max(1.5, 0.06 * (max(ends) - min(ends)))
    ax.set_ylim(max(0, min(ends) - room), min(100, max(ends) + room))
    ax.set_ylabel("test accuracy (%)")


def _draw_line(ax: Axes, points: Points, look: Mapping) -> None:
    ax.plot([x for x, _ in points], [record.accuracy_mean for _, record in points], **look)
    for x, record in points:
        if record.n > 1:
            low, high = interval(record.accuracies)
            around = [[record.accuracy_mean - low], [high - record.accuracy_mean]]
            ax.errorbar(x, record.accuracy_mean, around, color=look["color"], linewidth=0.9, capsize=2, capthick=0.9)
        if reported(record) is not None:
            _draw_reported(ax, x, record, look["color"])


def _draw_level(ax: Axes, record: Record, look: Mapping) -> None:
    """A horizontal line; what the paper reports stands at its left end."""
    ax.axhline(record.accuracy_mean, **{key: look[key] for key in look.keys() - {"marker", "markersize"}})
    if record.n > 1:
        ax.axhspan(*interval(record.accuracies), color=look["color"], alpha=0.1, linewidth=0)
    if reported(record) is not None:
        _draw_reported(ax, 0.02, record, look["color"], transform=ax.get_yaxis_transform())


def _draw_reported(ax: Axes, x: float, record: Record, color: str, **place) -> None:
    """A hollow marker round the point of ours, if the two are one."""
    marker, _ = REPORTED[record.reference.unverified]
    hollow = {"markersize": 7, "markerfacecolor": "none", "markeredgecolor": color, "zorder": 4}
    ax.plot(x, reported(record), marker, linestyle="", **hollow, **place)


def _ends(record: Record) -> list[float]:
    """What has to be seen of a record: its interval, up to a tenth of the mean, and its reference."""
    low, high = interval(record.accuracies)
    mean, theirs = record.accuracy_mean, reported(record)
    return [max(low, 0.9 * mean), min(high, 1.1 * mean), *([] if theirs is None else [theirs])]


def _scale_ipc(ax: Axes, ipcs: Sequence[int]) -> None:
    """A logarithmic axis from a bit before the least to a bit after the greatest."""
    if not ipcs:
        ax.set_xticks([])
        return
    ax.set_xscale("log")
    ax.set_xlim(ipcs[0] / 1.3, ipcs[-1] * 1.3)
    ticks_at(ax, ipcs, inches=0.65 * WIDTH)


def _scale_steps(ax: Axes, steps: Sequence[int], *, inches: float) -> None:
    """A linear axis; where steps span more than `WIDE`, a logarithmic one that still holds 0."""
    if not steps:
        ax.set_xticks([])
        return
    least = min((step for step in steps if step > 0), default=1)
    if steps[-1] > WIDE * least:
        ax.set_xscale("symlog", linthresh=least, linscale=0.5)
        ax.set_xlim(-0.3 * least if steps[0] == 0 else 0.8 * least, steps[-1] * 1.3)
    else:
        room = 0.07 * (steps[-1] - steps[0]) or 1
        ax.set_xlim(steps[0] - room, steps[-1] + room)
    ticks_at(ax, steps, inches=inches)


def _scale_sizes(ax: Axes, sizes: Mapping[str, int]) -> None:
    """A logarithmic axis with a tick at every network, its name and size turned, so that none is left out."""
    ax.set_xscale("log")
    ax.set_xlim(min(sizes.values()) / 1.3, max(sizes.values()) * 1.3)
    texts = [f"{name}, {size / 1e6:.2g} M" for name, size in sizes.items()]
    ax.set_xticks([*sizes.values()], texts, rotation=30, ha="right", rotation_mode="anchor")
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="x", which="major", length=3)
    ax.set_xlabel("network tested on, by its number of parameters")


def _finish(figure: Picture, records: Sequence[Record], looks: Mapping[str, Mapping], *, below: bool = False) -> None:
    """The legend, and where things stand settled, however often the figure is drawn."""
    handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
    handles += [*reported_handles(records), *interval_handle(records)]
    if below:
        legend_below(figure, handles)
    else:
        figure.legend(handles=handles, loc="outside right upper")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
