"""What a step of each method costs against the number of images."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ddlib.report.style import MARKERS, WIDTH, Picture, colors, legend_below, note, picture, styled, ticks_at
from ddlib.report.tables import DOUBLE_DAGGER, Table, theirs
from ddlib.results import Reference

KEYS = ("method", "ipc", "steps", "seconds", "bytes")
COLUMNS = ("method", "IPC", "ms", "time", "MB", "memory", "T", "paper, s", "paper, MB", "outcome")
SPREAD = 10
"""The highest value of an axis over the lowest from which on it is logarithmic."""


def step_lines(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Seconds of a step, and the memory that it takes at most, against images per class; a line for each method.

    Args:
        rows: as `step_costs.measure` gives them; what did not fit is left out.

    Raises:
        ValueError: a row lacks a key.
    """
    done = [row for row in _whole(rows) if row["seconds"] is not None]
    if not done:
        return note("nothing was measured")
    shades = colors(list(dict.fromkeys(row["method"] for row in done)))
    figure = picture(WIDTH, 2.9, layout="constrained")
    panels = (("time", "seconds per step", "seconds", 1.0), ("peak memory", "MB", "bytes", 1e6))
    with styled():
        for ax, (title, label, key, unit) in zip(figure.subplots(1, 2), panels, strict=True):
            for marker, (method, color) in zip(_markers(shades), shades.items(), strict=True):
                points = sorted((row["ipc"], row[key] / unit) for row in done if row["method"] == method)
                ax.plot(*zip(*points, strict=True), color=color, marker=marker, markersize=4, linewidth=1.3)
            ax.set(title=title, ylabel=label, xlabel="images per class")
            _scale(ax, sorted({row["ipc"] for row in done}), [row[key] / unit for row in done])
        looks = zip(_markers(shades), shades.items(), strict=True)
        legend_below(figure, [Line2D([], [], color=c, marker=m, markersize=4, label=name) for m, (name, c) in looks])
    return figure


def _whole(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    for row in rows:
        if missing := [key for key in KEYS if key not in row]:
            raise ValueError(f"row {dict(row)!r} lacks {', '.join(missing)}; it must have {', '.join(KEYS)}")
    return rows


def _markers(shades: Mapping[str, str]) -> list[str]:
    return [MARKERS[position % len(MARKERS)] for position in range(len(shades))]


def _scale(ax: Axes, ipcs: Sequence[int], values: Sequence[float]) -> None:
    """Logarithmic axes where values differ much, and a tick at each number of images."""
    if len(ipcs) > 1:
        ax.set_xscale("log")
        ax.set_xlim(ipcs[0] / 1.2, ipcs[-1] * 1.2)
    if max(values) >= SPREAD * min(values):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.set_yticks([], minor=True)
    else:
        ax.set_ylim(0, 1.1 * max(values))
    ticks_at(ax, ipcs, inches=0.4 * WIDTH)


def step_table(
    rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any], *, reported: Sequence[Reference] = ()
) -> Table:
    """Time and memory of a step, their ratios to the first method's, and what a paper reports of other hardware.

    Args:
        rows: as `step_costs.measure` gives them.
        provenance: where they come from.
        reported: references, of which those of the metrics `seconds` and `megabytes` stand beside the rows: their
            method is a row's label in small letters, "_" for ", ".

    Raises:
        ValueError: a row lacks a key.
    """
    first = {row["ipc"]: row for row in reversed(_whole(rows)) if row["method"] == rows[0]["method"]}
    found = {(r.method, r.ipc, r.metric): r for r in reported if r.metric in ("seconds", "megabytes")}
    shown = {metric: [found.get((_method(row), row["ipc"], metric)) for row in rows] for metric in _METRICS}
    texts = [
        (*_measured(row, first[row["ipc"]]), *(theirs(shown[metric][i], _plain) for metric in _METRICS), _outcome(row))
        for i, row in enumerate(rows)
    ]
    known = [r for references in shown.values() for r in references if r is not None]
    done = sum(row["seconds"] is not None for row in rows)
    notes = [
        "ms: the median of steps of which those of one IPC take turns. MB: most that tensors held at once in a step, "
        "beyond what was there before.",
        f"time, memory: divided by those of {rows[0]['method']} at the same IPC." if rows else "",
        "T: steps that make up one network's; a paper's second of DC and DSA may be for all of them.",
        *(f"{DOUBLE_DAGGER} never a verdict: {text}." for text in dict.fromkeys(r.note for r in known if r.note)),
        *(f"{r.state}: {r.source}." for r in {r.state: r for r in known if r.value is None}.values()),
        *(f"Source: {text}." for text in dict.fromkeys(r.source for r in known if r.value is not None)),
    ]
    head = f"One step of each method: {done} of {len(rows)} measured."
    return Table(head, COLUMNS, (("on this device", tuple(texts)),), tuple(filter(None, notes)), provenance)


_METRICS = ("seconds", "megabytes")


def _method(row: Mapping[str, Any]) -> str:
    return row["method"].casefold().replace(", ", "_")


def _measured(row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[str, ...]:
    place, steps = (row["method"], str(row["ipc"])), str(row["steps"])
    if row["seconds"] is None:
        return (*place, "-", "-", "-", "-", steps)
    ratios = [f"x {row[key] / first[key]:.2f}" if first[key] else "-" for key in ("seconds", "bytes")]
    return (*place, f"{1e3 * row['seconds']:.1f}", ratios[0], f"{row['bytes'] / 1e6:.1f}", ratios[1], steps)


def _plain(value: float, _: float | None) -> str:
    return f"{value:g}"


def _outcome(row: Mapping[str, Any]) -> str:
    return "out of memory" if row["seconds"] is None else "measured"
