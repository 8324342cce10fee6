"""Accuracies as figures."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ddlib.report.style import LETTER, WIDTH, Picture, colors, note, picture, styled
from ddlib.results import Record, interval

GROUP = 0.8  # share of the distance between two ticks that their bars take
REPORTED = {False: ("D", "paper"), True: ("o", "paper, unverified")}
"""Whether a reference is unverified -> its hollow marker and its name in the legend."""


def accuracy_bars(records: Sequence[Record]) -> Picture:
    """Test accuracy against images per class, a bar for every method, with 95 % t intervals of the mean.

    Intervals are over all networks of all distillation seeds.  A hollow marker shows what the paper reports where the
    comparison is fair: in the paper's setting, with a comparable reference.  Each data set (and each network) has a
    panel; with one number of images per class and several networks, the networks stand along the axis instead.
    Where no record was run, the figure says so.
    """
    records = [record for record in records if record.n]
    if not records:
        return note("no cell was run")
    by_network = len({r.ipc for r in records}) == 1 and len({r.network for r in records}) > 1
    panels: dict[str, list[Record]] = {}
    for record in records:
        panels.setdefault(_title(record, records, by_network), []).append(record)
    shades = colors(list(dict.fromkeys(r.label for r in records)))
    figure = picture(WIDTH, 0.3 + 2.5 * len(panels), layout="constrained")
    with styled():
        axes = figure.subplots(len(panels), squeeze=False)[:, 0]
        for ax, (name, group) in zip(axes, panels.items(), strict=True):
            _draw_panel(ax, group, shades, by_network)
            ax.set_title(name)
        axes[-1].set_xlabel("network tested on" if by_network else "images per class")
        _legend(figure, records, shades)
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # where things stand is settled now, however often it is drawn
    return figure


def _title(record: Record, records: Sequence[Record], by_network: bool) -> str:
    """The title of the panel in which a record is drawn."""
    return f"{record.dataset}, {_amount(record)}" if by_network else panel_title(record, records)


def _amount(record: Record) -> str:
    return {None: "all images", 1: "1 image per class"}.get(record.ipc, f"{record.ipc} images per class")


def panel_title(record: Record, records: Sequence[Record]) -> str:
    """Data set of a record and, where `records` are of several networks, the one it is tested on."""
    on = f", tested on {record.network}" if len({r.network for r in records}) > 1 else ""
    return f"{record.dataset}{on}"


def _draw_panel(ax: Axes, records: Sequence[Record], shades: Mapping[str, str], by_network: bool) -> None:
    """The bars of one data set, side by side in groups."""
    ticks = list(dict.fromkeys(_tick(r, by_network) for r in sorted(records, key=_ipc)))
    labels = [label for label in shades if label in {r.label for r in records}]
    width = GROUP / len(labels)
    for record in records:
        offset = (labels.index(record.label) - (len(labels) - 1) / 2) * width
        _draw_bar(ax, record, ticks.index(_tick(record, by_network)) + offset, width, shades[record.label])
    ax.set_xticks(range(len(ticks)), ticks)
    if LETTER * (max(map(len, ticks)) + 1) > 0.65 * WIDTH / len(ticks):
        ax.tick_params(axis="x", labelrotation=30)
        for text in ax.get_xticklabels():
            text.set(ha="right", rotation_mode="anchor")
    ax.set_xlim(-0.5 - GROUP / 20, len(ticks) - 0.5 + GROUP / 20)
    ax.set_ylim(0, min(100, 1.08 * max(max(_top(r), reported(r) or 0) for r in records)))
    ax.set_ylabel("test accuracy (%)")


def _draw_bar(ax: Axes, record: Record, x: float, width: float, color: str) -> None:
    mean = record.accuracy_mean
    ax.bar(x, mean, 0.9 * width, color=color, linewidth=0)
    if record.n > 1:
        low, high = interval(record.accuracies)
        ax.errorbar(x, mean, [[mean - low], [high - mean]], color="black", linewidth=0.9, capsize=2, capthick=0.9)
    if reported(record) is not None:
        marker, _ = REPORTED[record.reference.unverified]
        ax.plot(x + 0.3 * width, reported(record), marker, **HOLLOW)


HOLLOW = {"markersize": 4.5, "markerfacecolor": "white", "markeredgecolor": "black", "zorder": 4}


def _tick(record: Record, by_network: bool) -> str:
    if by_network:
        return record.network
    return "all" if record.ipc is None else str(record.ipc)


def _ipc(record: Record) -> float:
    return float("inf") if record.ipc is None else record.ipc


def _top(record: Record) -> float:
    """The upper end of a bar with its interval, which counts for at most a quarter of the bar."""
    return min(interval(record.accuracies)[1], 1.25 * record.accuracy_mean)


def reported(record: Record) -> float | None:
    """The reference's value where it may stand beside ours: in the paper's setting, and comparable."""
    shown = record.verdict not in ("PROXY", "NO REFERENCE", "NOT RUN")
    return record.reference.value if shown else None


def _legend(figure: Picture, records: Sequence[Record], shades: Mapping[str, str]) -> None:
    """Outside, on the right: the methods, and what the markers are."""
    handles = [Patch(color=color, label=label) for label, color in shades.items()]
    figure.legend(handles=[*handles, *reported_handles(records), *interval_handle(records)], loc="outside right upper")


def reported_handles(records: Sequence[Record]) -> list[Line2D]:
    """Entries of a legend for the hollow markers that the records have."""
    found = {r.reference.unverified for r in records if reported(r) is not None}
    return [
        Line2D([], [], linestyle="", marker=marker, label=name, **HOLLOW)
        for unverified, (marker, name) in REPORTED.items()
        if unverified in found
    ]


def interval_handle(records: Sequence[Record]) -> list[Line2D]:
    """The entry of a legend for intervals, where a record has one."""
    line = Line2D([], [], color="black", linewidth=0.9, marker="|", label="95 % interval")
    return [line] if any(record.n > 1 for record in records) else []
