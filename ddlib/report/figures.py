"""Figures that several notebooks have: accuracies as bars and as lines, and courses of a distillation.

Every interval is the 95 % t interval of the mean over what is independent: the distilled sets where there are several,
each by the mean of its networks, else the networks.  `independent` is the table behind it, for figures of one notebook.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ddlib.report import style
from ddlib.report.style import PALETTE, WIDTH, Picture, legend, note, styled
from ddlib.report.tables import per_class
from ddlib.results import Record, frame, interval

if TYPE_CHECKING:
    import pandas

ACCURACY = "test accuracy (%)"

HOLLOW = {False: ("D", "paper"), True: ("o", "paper, unverified")}
"""Whether a reference is unverified -> its hollow marker and its name in the legend."""

HOLLOW_LOOK = {"markerfacecolor": "white", "markeredgecolor": "black", "zorder": 4}


class _Families(dict[str, str]):
    def __missing__(self, method: str) -> str:
        return "another"


FAMILY = _Families({
    **dict.fromkeys(("random", "whole"), "real images"),
    **dict.fromkeys(("herding", "k_center"), "chosen real images"),
    **dict.fromkeys(("dc", "dsa"), "gradients"),
    **dict.fromkeys(("dm", "datadam", "atom"), "distributions"),
    **dict.fromkeys(("mtt", "tesla", "ftd", "datm"), "trajectories"),
    **dict.fromkeys(("gan", "dim"), "a generator"),
    **dict.fromkeys(("glad", "ld3m"), "latents of a prior"),
})  # fmt: skip
"""Method -> what it matches, chooses or keeps; of one that is not here "another"."""


def independent(records: Sequence[Record]) -> "pandas.DataFrame":
    """The independent accuracies of `records`, a row each: what seaborn takes with `errorbar=results.interval`.

    Returns:
        label, method, dataset, ipc, network, unit and accuracy in percent: the mean of each distilled set (unit: its
        seed) where a record has several, else of each network (unit: its number).
    """
    place = ["label", "method", "dataset", "ipc", "network"]
    networks = frame(records).dropna(subset="accuracy")
    sets = networks.groupby(place, dropna=False)["distillation_seed"].transform("nunique")
    networks["unit"] = networks["distillation_seed"].where(sets > 1, networks["evaluation_seed"])
    return networks.groupby([*place, "unit"], dropna=False, sort=False, as_index=False)["accuracy"].mean()


@styled()
def accuracy_bars(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a bar for every method, with 95 % intervals of the mean.

    A hollow marker is what the paper reports for the same setting.  Each data set (and each network) has a panel; with
    one number of images per class and several networks, the networks stand along the axis instead.
    """
    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    by_network = len({r.ipc for r in records}) == 1 and len({r.network for r in records}) > 1
    panels = _panels(records, f", {per_class(records[0].ipc)}" if by_network else "")
    shades = style.colors([r.label for r in records])
    figure = Picture(figsize=(WIDTH, 0.3 + 2.5 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for ax, (title, group) in zip(axes, panels.items(), strict=True):
        _draw_bars(ax, group, shades, by_network)
        ax.set(title=title, xlabel="")
    axes[-1].set_xlabel("network tested on" if by_network else "images per class")
    handles = [Patch(color=color, label=label) for label, color in shades.items()]
    legend(figure, [*handles, *_marker_handles(records)])
    return figure


def _panels(records: Sequence[Record], images: str = "") -> dict[str, list[Record]]:
    """Title of a panel -> its records: by data set, and without `images` by network where there are several."""
    split = not images and len({r.network for r in records}) > 1
    panels: dict[str, list[Record]] = {}
    for record in records:
        title = f"{record.dataset}, tested on {record.network}" if split else f"{record.dataset}{images}"
        panels.setdefault(title, []).append(record)
    return panels


def _draw_bars(ax: Axes, records: Sequence[Record], shades: Mapping[str, str], by_network: bool) -> None:
    """The bars of one panel, side by side in groups, each about its tick."""
    records = sorted(records, key=lambda r: r.ipc or math.inf)
    groups = [r.network if by_network else str(r.ipc or "all") for r in records]
    ticks = list(dict.fromkeys(groups))
    width = 0.8 / len({r.label for r in records})
    for tick, group in enumerate(ticks):
        beside = [record for record, place in zip(records, groups, strict=True) if place == group]
        beside.sort(key=lambda r: [*shades].index(r.label))
        for i, record in enumerate(beside):
            x = tick + (i - (len(beside) - 1) / 2) * width
            units = independent([record])["accuracy"]
            ax.bar(x, units.mean(), 0.9 * width, color=shades[record.label], linewidth=0)
            ax.plot([x, x], interval(units), color="black", linewidth=0.9, marker="_", markersize=2)
            _draw_reported(ax, record, x + 0.3 * width, size=4.5)
    slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if by_network else {}
    ax.set_xticks(range(len(ticks)), ticks, **slanted)
    ax.set(xlim=(-0.54, len(ticks) - 0.46), ylim=(0, min(100, 1.1 * ax.dataLim.y1)), ylabel=ACCURACY)


@styled()
def accuracy_curves(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a line for every row, with 95 % intervals of the mean.

    The whole training set is a horizontal broken line.  A hollow marker is what the paper reports for the same setting.
    Each data set (and each network) has a panel.
    """
    import seaborn

    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    panels = _panels(records)
    shades = style.colors([r.label for r in records if r.ipc is not None])
    figure = Picture(figsize=(WIDTH, 0.3 + 2.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    handles = {}
    for ax, (title, group) in zip(axes, panels.items(), strict=True):
        table = independent(group).dropna(subset="ipc")
        if len(table):
            seaborn.lineplot(
                table, x="ipc", y="accuracy", hue="label", style="label", hue_order=[*shades], palette=shades,
                markers=True, dashes=False, errorbar=interval, err_style="bars", ax=ax,
            )  # fmt: skip
        for record in group:
            color, x, across = shades.get(record.label, "black"), record.ipc, ax.transData
            if record.ipc is None:
                x, across = 0.02, ax.get_yaxis_transform()
                ax.axhline(record.accuracy_mean, color=color, linestyle="--", linewidth=1, label=record.label)
            _draw_reported(ax, record, x, size=7, transform=across, markeredgecolor=color)
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if ax.get_legend():
            ax.get_legend().remove()
        low, high = ax.get_ylim()
        ax.set(title=title, xlabel="", ylabel=ACCURACY, xscale="log", ylim=(max(0, low), min(100, high)))
        ipcs = sorted({record.ipc for record in group if record.ipc})
        numbered = ipcs[-1:]  # where there is room, the last one always
        for ipc in reversed(ipcs[:-1]):
            numbered += [ipc] if 2 * ipc <= numbered[-1] else []
        ax.set_xticks(ipcs, [str(ipc) if ipc in numbered else "" for ipc in ipcs])
        ax.set_xticks([], minor=True)
    axes[-1].set_xlabel("images per class")
    legend(figure, [*handles.values(), *_marker_handles(records)])
    return figure


def reported(record: Record) -> float | None:
    """The reference's value where it may stand beside ours: in the paper's setting, and comparable."""
    return None if record.verdict in ("PROXY", "NO REFERENCE", "NOT RUN") else record.reference.value


def _draw_reported(ax: Axes, record: Record, x: float, *, size: float, **look: Any) -> None:
    """A hollow marker at what the paper reports, if it may stand there."""
    if reported(record) is not None:
        marker, _ = HOLLOW[record.reference.unverified]
        ax.plot(x, reported(record), marker, markersize=size, **HOLLOW_LOOK | look)


def _marker_handles(records: Sequence[Record]) -> list[Line2D]:
    """Entries of a legend for the hollow markers and the intervals that the records have."""
    unverified = {record.reference.unverified for record in records if reported(record) is not None}
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=4.5, label=name, **HOLLOW_LOOK)
        for state, (marker, name) in HOLLOW.items()
        if state in unverified
    ]
    if any(record.n > 1 for record in records):
        handles.append(Line2D([], [], color="black", linewidth=0.9, marker="|", label="95 % interval"))
    return handles


@styled()
def metric_panels(metrics: Mapping[str, Sequence[tuple[int, float]]], *, over: str = "step") -> Picture:
    """The courses, (step, value) pairs, of several metrics over steps, or `over` something else, a panel for each."""
    metrics = {name: list(points) for name, points in metrics.items() if points}
    if not metrics:
        return note("nothing with a course was run")
    columns = min(len(metrics), 4 if len(metrics) in (4, 7, 8) else 3)
    rows = math.ceil(len(metrics) / columns)
    figure = Picture(figsize=(WIDTH, 0.2 + 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes[len(metrics) :]:
        ax.set_axis_off()
    for ax, (name, points) in zip(axes, metrics.items(), strict=False):
        marker = "o" if len(points) < 10 else ""
        ax.plot(*zip(*points, strict=True), color=PALETTE[0], linewidth=1, marker=marker, markersize=3)
        ax.set(title=name, xlabel=over)
        ax.ticklabel_format(useOffset=False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    return figure


@styled()
def loss_against_start(points: Sequence[tuple[int, float]]) -> Picture:
    """The loss of trajectory matching against the expert's epoch that a step starts from, with the mean of each.

    points: (start epoch, loss), one an outer step, in any order.
    """
    import seaborn

    if not points:
        return note("nothing was matched")
    epochs, losses = zip(*points, strict=True)
    figure = Picture(figsize=(WIDTH, 2.6), layout="constrained")
    ax = figure.subplots()
    ax.scatter(epochs, losses, s=9, color=PALETTE[0], alpha=0.45, linewidth=0, label="one step")
    mean = {"color": PALETTE[5], "marker": "s", "label": "mean", "legend": False}
    seaborn.lineplot(x=epochs, y=losses, errorbar=None, ax=ax, **mean)
    ax.axhline(1, color=style.GREY, linewidth=1, linestyle="--", label="L = 1: unmoved")
    ax.set(xlabel="start epoch of the expert", ylabel="matching loss L")
    ax.set_ylim(0, 1.06 * max(1.0, *losses))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend(figure, ax.get_legend_handles_labels()[0])
    return figure
