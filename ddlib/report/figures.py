"""Accuracies as figures: bars, lines over what was varied, and methods side by side.

Every interval is the 95 % t interval of the mean over what is independent: the distilled sets where there are several,
each by the mean of its networks, else the networks.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ddlib.report import style
from ddlib.report.style import GREY, LETTER, MARKERS, PALETTE, WIDTH, Picture, legend, note, picture, styled
from ddlib.results import Record, interval, ranked, seed_means

ACCURACY = "test accuracy (%)"
NEVER = "never"
"""Where a generator's images are not drawn anew."""

REPORTED = {False: ("D", "paper"), True: ("o", "paper, unverified")}
"""Whether a reference is unverified -> its hollow marker and its name in the legend."""

FAMILIES = {
    "real images": ("random", "whole"),
    "chosen real images": ("herding", "k_center"),
    "gradients": ("dc", "dsa"),
    "distributions": ("dm", "datadam", "atom"),
    "trajectories": ("mtt", "tesla", "ftd", "datm"),
    "a generator": ("gan", "dim"),
    "latents of a prior": ("glad", "ld3m"),
    "other": (),
}
"""What is matched, chosen or kept -> the methods that do so."""

SHADES = (GREY, "#000000", PALETTE[0], PALETTE[2], PALETTE[5], PALETTE[3], PALETTE[1], PALETTE[4])
FAMILY_LOOKS = {name: {"color": SHADES[i], "marker": MARKERS[i]} for i, name in enumerate(FAMILIES)}


def accuracy_bars(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a bar for every method, with 95 % intervals of the mean.

    A hollow marker shows what the paper reports where the comparison is fair: in the paper's setting, with a comparable
    reference.  Each data set (and each network) has a panel; with one number of images per class and several networks,
    the networks stand along the axis instead.  Where no record was run, the figure says so.
    """
    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    by_network = len({r.ipc for r in records}) == 1 and len({r.network for r in records}) > 1
    panels: dict[str, list[Record]] = {}
    for record in records:
        amount = f"{record.dataset}, {_amount(record)}"
        panels.setdefault(amount if by_network else _panel_title(record, records), []).append(record)
    shades = style.colors(list(dict.fromkeys(r.label for r in records)))
    figure = picture(WIDTH, 0.3 + 2.5 * len(panels), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            _draw_bars(ax, group, shades, by_network)
            ax.set(title=title, xlabel="")
        axes[-1].set_xlabel("network tested on" if by_network else "images per class")
        handles = [Patch(color=color, label=label) for label, color in shades.items()]
        legend(figure, [*handles, *_marker_handles(records)], below=False)
    return figure


def _draw_bars(ax: Axes, records: Sequence[Record], shades: Mapping[str, str], by_network: bool) -> None:
    """The bars of one data set, side by side in groups."""
    import pandas
    import seaborn

    def tick(record: Record) -> str:
        ipc = "all" if record.ipc is None else str(record.ipc)
        return record.network if by_network else ipc

    records = sorted(records, key=lambda r: math.inf if r.ipc is None else r.ipc)
    ticks = list(dict.fromkeys(map(tick, records)))
    labels = [label for label in shades if label in {r.label for r in records}]
    rows = [(tick(record), record.label, value) for record in records for value in independent(record)]
    seaborn.barplot(
        pandas.DataFrame(rows, columns=["tick", "label", "accuracy"]), x="tick", y="accuracy", order=ticks,
        hue="label", hue_order=labels, palette=shades, saturation=1, gap=0.1, linewidth=0, errorbar=t_interval,
        err_kws={"color": "black", "linewidth": 0.9}, capsize=0.2 / len(labels), legend=False, ax=ax,
    )  # fmt: skip
    width = 0.8 / len(labels)
    for record in records:
        if reported(record) is not None:
            marker, _ = REPORTED[record.reference.unverified]
            middle = ticks.index(tick(record)) + (labels.index(record.label) - (len(labels) - 1) / 2) * width
            ax.plot(middle + 0.3 * width, reported(record), marker, **_hollow(size=4.5))
    if LETTER * (max(map(len, ticks)) + 1) > 0.65 * WIDTH / len(ticks):
        ax.tick_params(axis="x", labelrotation=30)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    tops = [min(interval(independent(r))[1], 1.25 * r.accuracy_mean) for r in records]
    highest = max([*tops, *(reported(r) or 0 for r in records)])
    ax.set(xlim=(-0.54, len(ticks) - 0.46), ylim=(0, min(100, 1.08 * highest)), ylabel=ACCURACY)


def accuracy_curves(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a line for every row, with 95 % intervals of the mean.

    Records of a whole training set are a horizontal broken line, their interval a band.  A hollow marker shows what the
    paper reports where the comparison is fair: in the paper's setting, with a comparable reference.  Each data set (and
    each network) has a panel.  Where no record was run, the figure says so.
    """
    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    panels: dict[str, list[Record]] = {}
    for record in records:
        panels.setdefault(_panel_title(record, records), []).append(record)
    look = style.looks([r.label for r in records if r.ipc is not None], [r.label for r in records if r.ipc is None])
    figure = picture(WIDTH, 0.3 + 2.6 * len(panels), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            _draw_accuracies(ax, [(r.label, r.ipc, r) for r in group], look)
            style.logarithmic_x(ax, [r.ipc for r in group if r.ipc is not None], inches=0.65 * WIDTH)
            ax.set_title(title)
        axes[-1].set_xlabel("images per class")
        legend(figure, [*line_handles(look), *_marker_handles(records)], below=False)
    return figure


def accuracy_against_iterations(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Test accuracy against the steps of the distillation, a line for every group, a panel for every IPC.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `iterations`.  A record that has no such
            hyper-parameter, as of random real images, is a horizontal line; one of a whole training set is so in
            every panel.  What was not run is left out.

    Intervals are as in `accuracy_curves`, and so are hollow markers.
    """

    def scale(ax: Axes, steps: Sequence[int], inches: float) -> None:
        """Linear; logarithmic, and still with 0, where steps span more than a factor of 20."""
        least = min((step for step in steps if step > 0), default=1)
        if not steps:
            ax.set_xticks([])
        elif steps[-1] > 20 * least:
            ax.set_xscale("symlog", linthresh=least, linscale=0.5)
            ax.set_xlim(-0.3 * least if steps[0] == 0 else 0.8 * least, steps[-1] * 1.3)
            style.ticks_at(ax, steps, inches=inches)
        else:
            room = 0.07 * (steps[-1] - steps[0]) or 1
            ax.set_xlim(steps[0] - room, steps[-1] + room)
            style.ticks_at(ax, steps, inches=inches)

    return _by_ipc_panels(groups, lambda r: _chosen(r).get("iterations"), scale, "steps of distillation")


def accuracy_against_redraw(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Test accuracy against the epochs after which a generator's images are drawn anew, a panel for every IPC.

    The axis is logarithmic, from 1, streaming, to "never", the frozen set, at its right end.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `redraw`; else as in
            `accuracy_against_iterations`.
    """
    intervals = [_chosen(record).get("redraw") for group in groups.values() for record in group]
    never = 30 * max(filter(None, intervals), default=1)

    def place(record: Record) -> int | None:
        return (_chosen(record)["redraw"] or never) if "redraw" in _chosen(record) else None

    def scale(ax: Axes, epochs: Sequence[int], inches: float) -> None:
        style.logarithmic_x(ax, epochs, inches=inches, names={never: NEVER})

    return _by_ipc_panels(groups, place, scale, "epochs until drawn anew")


def _by_ipc_panels(
    groups: Mapping[str, Sequence[Record]],
    place: Callable[[Record], int | None],
    scale: Callable[[Axes, Sequence[int], float], None],
    xlabel: str,
) -> Picture:
    """A line for every group, a panel for every IPC.

    Args:
        place: where a record stands; None: it is a horizontal line.
        scale: sets up a horizontal axis for the places on it, of so many inches.
    """
    named = [(name, record) for name, group in groups.items() for record in group if record.n]
    ipcs = sorted({record.ipc for _, record in named if record.ipc is not None})
    if not ipcs:
        return note("no cell was run")
    lines = [name for name, record in named if place(record) is not None]
    look = style.looks(lines, [name for name, record in named if place(record) is None])
    columns = 2 if len(ipcs) == 4 else min(3, len(ipcs))
    rows = math.ceil(len(ipcs) / columns)
    figure = picture(WIDTH, 0.3 + 2.3 * rows, layout="constrained")
    with styled():
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax in axes[len(ipcs) :]:
            ax.set_axis_off()
        for i, (ax, ipc) in enumerate(zip(axes, ipcs, strict=False)):
            here = [(name, place(record), record) for name, record in named if record.ipc in (ipc, None)]
            _draw_accuracies(ax, here, look)
            scale(ax, sorted({x for _, x, _ in here} - {None}), 0.68 * WIDTH / columns)
            ax.set(title=f"IPC {ipc}", xlabel=xlabel, ylabel="" if i % columns else ACCURACY)
        legend(figure, [*line_handles(look), *_marker_handles([record for _, record in named])])
    return figure


def accuracy_against_size(panels: Mapping[str, Sequence[Record]], parameters: Mapping[str, int]) -> Picture:
    """Test accuracy against the number of parameters of the network tested on, a line for every row.

    Args:
        panels: title -> records of its lines, each row once on each network.  What was not run is left out.
        parameters: name of a network, as `Record.network` -> its number of parameters, >= 1.

    Intervals are as in `accuracy_curves`, and so are hollow markers.

    Raises:
        ValueError: the size of a record's network is not known.
    """
    panels = {title: [r for r in group if r.n] for title, group in panels.items()}
    panels = {title: group for title, group in panels.items() if group}
    if not panels:
        return note("no cell was run")
    records = [record for group in panels.values() for record in group]
    if unknown := dict.fromkeys(r.network for r in records if r.network not in parameters):
        raise ValueError(f"parameters lacks {', '.join(unknown)}; it has {', '.join(parameters) or 'none'}")
    sizes = {name: count for name, count in parameters.items() if name in {r.network for r in records}}
    look = style.looks([r.label for r in records])
    figure = picture(WIDTH, 0.7 + 2.3 * len(panels), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            _draw_accuracies(ax, [(r.label, sizes[r.network], r) for r in group], look)
            ax.set_title(title)
        style.logarithmic_x(axes[-1], list(sizes.values()), inches=WIDTH)
        texts = [f"{name}, {size / 1e6:.2g} M" for name, size in sizes.items()]  # turned, so that all are there
        axes[-1].set_xticks([*sizes.values()], texts, rotation=30, ha="right", rotation_mode="anchor")
        axes[-1].set_xlabel("network tested on, by its number of parameters")
        legend(figure, [*line_handles(look), *_marker_handles(records)], below=False)
    return figure


def course_over_steps(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Accuracy, seconds an iteration and peak memory of a distillation against its sampling steps T, side by side.

    Accuracies are means with 95 % intervals; the other two are those of `Record.cost`, left out where it has none.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `steps`.  A record that has no such
            hyper-parameter, as of GLaD or of random real images, is a horizontal line.  What was not run is left out.
    """
    named = [(name, _chosen(r).get("steps"), r) for name, group in groups.items() for r in group if r.n]
    steps = [t for _, t, _ in named if t is not None]
    if not steps:
        return note("no cell was run")
    look = style.looks([n for n, t, _ in named if t is not None], [n for n, t, _ in named if t is None])
    costs = {name: [(n, t, _step_costs(r)[name]) for n, t, r in named] for name in ("seconds per iteration", "MB")}
    figure = picture(WIDTH, 2.5, layout="constrained")
    with styled():
        axes = figure.subplots(1, 3)
        _draw_accuracies(axes[0], named, look)
        for ax, (unit, points) in zip(axes[1:], costs.items(), strict=True):
            _draw_costs(ax, [point for point in points if point[2] is not None], look)
            ax.set_ylabel(unit)
        for ax, title in zip(axes, ("accuracy", "time", "peak memory"), strict=True):
            style.logarithmic_x(ax, steps, inches=0.23 * WIDTH)
            ax.set(title=title, xlabel="sampling steps T")
        legend(figure, [*line_handles(look), *_marker_handles([r for *_, r in named])])
    return figure


def _draw_costs(
    ax: Axes, points: Sequence[tuple[str, int | None, float]], look: Mapping[str, Mapping[str, Any]]
) -> None:
    """Values over T from zero on, horizontal lines where there is no T."""
    for name, line in look.items():
        draw_line(ax, [(t, value) for n, t, value in points if n == name and t is not None], line, errorbar=None)
    for name, t, value in points:
        if t is None:
            ax.axhline(value, **_level(look[name]))
    ax.set_ylim(0, 1.1 * max((value for *_, value in points), default=1))


def _step_costs(record: Record) -> dict[str, float | None]:
    """Seconds of an iteration and MB held at most; None where they were not measured."""
    rate, held = record.cost.get("steps_per_second"), record.cost.get("peak_memory_bytes")
    timed = rate and record.cost.get("distil_seconds", 1)
    return {"seconds per iteration": 1 / rate if timed else None, "MB": held / 1e6 if held else None}


def accuracy_against_bytes(records: Sequence[Record]) -> Picture:
    """Test accuracy against the bytes stored, with 95 % intervals of the mean; the points of a row are joined.

    Args:
        records: by one protocol.  What was not run is left out.
    """
    records = [record for record in records if record.n and record.cost.get("bytes_stored")]
    if not records:
        return note("no cell was run")
    figure = picture(WIDTH, 0.9 + max(2.6, 0.135 * len({r.label for r in records})), layout="constrained")
    with styled():
        ax = figure.subplots()
        _draw_families(ax, [(record.cost["bytes_stored"] / 1e3, record) for record in records])
        ax.set_xlabel("stored (kB), labels and generators included")
        legend(figure, _family_handles(records))
    return figure


def accuracy_against_seconds(records: Sequence[Record]) -> Picture:
    """Test accuracy against the seconds of making one set, a panel for each number of images per class.

    Full markers are the distillation alone, faint ones with all that is trained beforehand.  What took less than a
    hundredth of a second stands there.

    Args:
        records: by one protocol, with images per class.  What was not run, or not timed, is left out.
    """
    timed = [(seconds_of_a_set(r), r) for r in records if r.n and r.ipc is not None]
    timed = [(max(0.01, seconds), record) for seconds, record in timed if seconds is not None]
    if not timed:
        return note("no cell was run")
    panels = _by_ipc(timed)
    most = max(map(len, panels.values()))
    figure = picture(WIDTH, 0.7 + len(panels) * (0.3 + max(2.4, 0.135 * most)), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
        for ax, (title, points) in zip(axes, panels.items(), strict=True):
            _draw_families(ax, points)
            _draw_prerequisites(ax, points)
            ax.set_title(title)
        axes[-1].set_xlabel("seconds for one set; faint: with what is trained beforehand")
        legend(figure, _family_handles([record for _, record in timed]))
    return figure


def _draw_prerequisites(ax: Axes, points: Sequence[tuple[float, Record]]) -> None:
    """A faint marker where each row stands with what is trained beforehand, joined to its own."""
    for seconds, record in points:
        before = record.cost.get("prerequisite_seconds")
        if before:
            look = _family_look(record) | {"alpha": 0.35, "markersize": 5, "linewidth": 0.8, "markevery": [1]}
            ax.plot([seconds, seconds + before], [record.accuracy_mean] * 2, **look)


def _draw_families(ax: Axes, points: Sequence[tuple[float, Record]]) -> None:
    """A point with its interval for each record, rows joined, and the rows' names in a column on the right."""
    rows: dict[str, list[tuple[float, Record]]] = {}
    for x, record in sorted(points, key=lambda point: point[0]):
        rows.setdefault(record.label, []).append((x, record))
    for group in rows.values():
        look = _family_look(group[0][1]) | {"markersize": 4.5, "linewidth": 0.9}
        ax.plot(
            [x for x, _ in group], [record.accuracy_mean for _, record in group], color=look["color"], linewidth=0.8
        )
        for x, record in group:
            ax.errorbar(x, record.accuracy_mean, yerr=_around(record), **look)
    ax.set_xscale("log")
    style.plain_ticks(ax.xaxis)
    ends = [end for _, record in points for end in _ends(record)]
    ax.set(ylim=(max(0, min(ends) - 2), min(100.5, max(ends) + 2)), ylabel=ACCURACY)
    last = sorted((group[-1] for group in rows.values()), key=lambda point: point[1].accuracy_mean)
    for i, (x, record) in enumerate(last):  # names evenly in the order of the points' heights, with a line to each
        color = _family_look(record)["color"]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.4, "alpha": 0.5, "relpos": (0, 0.5), "shrinkB": 3}
        place = (1.02, (i + 0.5) / len(last))
        ax.annotate(
            record.label, (x, record.accuracy_mean), place, textcoords="axes fraction", fontsize=7.5, va="center",
            color=color, arrowprops=line, annotation_clip=False,
        )  # fmt: skip


def accuracy_across_networks(records: Sequence[Record]) -> Picture:
    """Test accuracy of each row on each network, with 95 % intervals, the best on the first network on top.

    Args:
        records: of several networks.  What was not run is left out.
    """
    records = [record for record in records if record.n and record.ipc is not None]
    if not records:
        return note("no cell was run")
    networks = list(dict.fromkeys(record.network for record in records))
    panels = {title: [r for _, r in group] for title, group in _by_ipc([(0.0, r) for r in records]).items()}
    heights = [len({r.label for r in group}) for group in panels.values()]
    figure = picture(WIDTH, 0.7 + sum(0.35 + 0.2 * height for height in heights), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for ax, (title, group) in zip(axes, panels.items(), strict=True):
            _draw_networks(ax, group, networks)
            ax.set_title(title)
        axes[-1].set_xlabel(ACCURACY)
        point = {"linestyle": "", "color": "black", "markersize": 4}
        legend(figure, [Line2D([], [], marker=MARKERS[i % 8], label=n, **point) for i, n in enumerate(networks)])
    return figure


def _draw_networks(ax: Axes, records: Sequence[Record], networks: Sequence[str]) -> None:
    """A line of the panel for every row, a marker on it for every network, filled for the first."""
    by_first = ranked([r for r in records if r.network == networks[0]])
    order = list(dict.fromkeys(r.label for r in (*by_first, *ranked(records))))
    for record in records:
        i = networks.index(record.network)
        y = order.index(record.label) + 0.16 * (i - (len(networks) - 1) / 2)
        look = _family_look(record) | {"marker": MARKERS[i % 8], "markersize": 4, "linewidth": 0.8}
        ax.errorbar(
            record.accuracy_mean, y, xerr=_around(record), markerfacecolor="white" if i else look["color"], **look
        )
    ax.set_yticks(range(len(order)), order)
    first = {record.label: record for record in reversed(records)}
    for text, label in zip(ax.get_yticklabels(), order, strict=True):
        text.set_color(_family_look(first[label])["color"])
    ends = [end for record in records for end in _ends(record)]
    low, high = max(0, math.floor(min(ends)) - 2), min(100, math.ceil(max(ends)) + 2)
    ax.set(xlim=(low, high), ylim=(len(order) - 0.4, -0.6))
    ax.grid(True, axis="x")


def _around(record: Record) -> list[list[float]]:
    """What the interval of a record reaches below and above its mean."""
    low, high = t_interval(independent(record))
    return [[record.accuracy_mean - low], [high - record.accuracy_mean]]


def _by_ipc(points: Sequence[tuple[float, Record]]) -> dict[str, list[tuple[float, Record]]]:
    panels: dict[str, list[tuple[float, Record]]] = {}
    for x, record in sorted(points, key=lambda point: point[1].ipc):
        panels.setdefault(f"{points[0][1].dataset}, IPC {record.ipc}", []).append((x, record))
    return panels


def family(record: Record) -> str:
    """The name in `FAMILIES` of the record's method, or "other"."""
    return next((name for name, methods in FAMILIES.items() if record.method in methods), "other")


def _family_look(record: Record) -> dict[str, Any]:
    return FAMILY_LOOKS[family(record)]


def _family_handles(records: Sequence[Record]) -> list[Line2D]:
    present = {family(record) for record in records}
    return [
        Line2D([], [], linestyle="", markersize=4.5, label=name, **look)
        for name, look in FAMILY_LOOKS.items()
        if name in present
    ]


def seconds_of_a_set(record: Record) -> float | None:
    """Seconds of one of the record's distillations, or None where they are not recorded."""
    seconds, seeds = record.cost.get("distil_seconds"), len(record.cell.get("seeds", ()))
    return None if seconds is None or not seeds else seconds / seeds


def independent(record: Record) -> tuple[float, ...]:
    """The accuracies that are independent: the mean of each distilled set where there are several, else all."""
    seeds = len(record.cell.get("seeds", ()))
    return seed_means(record) if seeds > 1 and record.n % seeds == 0 else record.accuracies


def t_interval(values: Iterable[float]) -> tuple[float, float]:
    """The 95 % t interval of the mean, for seaborn's `errorbar`; not a number for a single value."""
    values = [*values]
    return interval(values) if len(values) > 1 else (math.nan, math.nan)


def draw_line(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    look: Mapping[str, Any],
    *,
    errorbar: Any = t_interval,
    err_style: str = "bars",
    capsize: float = 2,
) -> None:
    """A line through the means of (x, y) points, several a place, with what `errorbar` says of each place.

    Axes must be linear still: on a logarithmic one seaborn would draw the geometric mean.
    """
    import pandas
    import seaborn

    if not points:
        return
    look = {"markeredgecolor": look["color"]} | dict(look)  # seaborn's own is white
    bars = {"elinewidth": 0.9, "capsize": capsize, "capthick": 0.9}
    frame = pandas.DataFrame([*points], columns=["x", "y"])
    seaborn.lineplot(
        frame, x="x", y="y", errorbar=errorbar, err_style=err_style,
        err_kws=bars if err_style == "bars" else {"alpha": 0.13, "linewidth": 0}, ax=ax, **look,
    )  # fmt: skip
    ax.set(xlabel="", ylabel="")


def _draw_accuracies(
    ax: Axes, points: Sequence[tuple[str, float | None, Record]], look: Mapping[str, Mapping[str, Any]]
) -> None:
    """The lines of one panel, horizontal where records have no place, and its vertical axis."""
    for name, line in look.items():
        own = [(x, record) for n, x, record in points if n == name]
        draw_line(ax, [(x, value) for x, record in own if x is not None for value in independent(record)], line)
        for record in [record for x, record in own if x is None]:
            ax.axhline(record.accuracy_mean, **_level(line))
            if record.n > 1:
                ax.axhspan(*t_interval(independent(record)), color=line["color"], alpha=0.1, linewidth=0)
    for name, x, record in points:
        if reported(record) is not None:
            marker, _ = REPORTED[record.reference.unverified]
            hollow = _hollow(size=7) | {"markerfacecolor": "none", "markeredgecolor": look[name]["color"]}
            at, across = (0.02, ax.get_yaxis_transform()) if x is None else (x, ax.transData)
            ax.plot(at, reported(record), marker, linestyle="", transform=across, **hollow)
    records = [record for *_, record in points]
    ends = [end for record in records for end in _ends(record)]
    ends += [reported(record) for record in records if reported(record) is not None]
    room = max(1.5, 0.06 * (max(ends) - min(ends)))
    ax.set(ylim=(max(0, min(ends) - room), min(100, max(ends) + room)), ylabel=ACCURACY)


def _level(look: Mapping[str, Any]) -> dict[str, Any]:
    return {key: look[key] for key in ("color", "linestyle", "linewidth") if key in look}


def _ends(record: Record) -> tuple[float, float]:
    """Where an interval ends, as far as a tenth of the mean from it."""
    mean, (low, high) = record.accuracy_mean, interval(independent(record))
    return max(low, 0.9 * mean), min(high, 1.1 * mean)


def _chosen(record: Record) -> Mapping[str, Any]:
    """The hyper-parameters of a record's method."""
    return record.cell.get("hyperparameters", {})


def _amount(record: Record) -> str:
    return {None: "all images", 1: "1 image per class"}.get(record.ipc, f"{record.ipc} images per class")


def _panel_title(record: Record, records: Sequence[Record]) -> str:
    """Data set of a record and, where `records` are of several networks, the one it is tested on."""
    on = f", tested on {record.network}" if len({r.network for r in records}) > 1 else ""
    return f"{record.dataset}{on}"


def reported(record: Record) -> float | None:
    """The reference's value where it may stand beside ours: in the paper's setting, and comparable."""
    return None if record.verdict in ("PROXY", "NO REFERENCE", "NOT RUN") else record.reference.value


def _hollow(*, size: float) -> dict[str, Any]:
    return {"markersize": size, "markerfacecolor": "white", "markeredgecolor": "black", "zorder": 4}


def line_handles(look: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """Entries of a legend for lines."""
    return [Line2D([], [], label=name, **line) for name, line in look.items()]


def _marker_handles(records: Sequence[Record]) -> list[Line2D]:
    """Entries of a legend for the hollow markers and the intervals that the records have."""
    unverified = {record.reference.unverified for record in records if reported(record) is not None}
    handles = [
        Line2D([], [], linestyle="", marker=marker, label=name, **_hollow(size=4.5))
        for state, (marker, name) in REPORTED.items()
        if state in unverified
    ]
    if any(record.n > 1 for record in records):
        handles.append(Line2D([], [], color="black", linewidth=0.9, marker="|", label="95 % interval"))
    return handles
