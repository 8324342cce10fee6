"""Accuracy while classes come in steps: a table, and lines over the classes seen."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from ddlib.report.style import MARKERS, WIDTH, Picture, colors, legend_below, note, picture, styled
from ddlib.report.tables import DAGGER, Table
from ddlib.results import group_means, interval

Row = Mapping[str, Any]
"""A row of `ddlib.analyses.continual.run`, or of its `averages`."""


def continual_table(found: Sequence[Row], averages: Sequence[Row], provenance: Mapping[str, Any]) -> Table:
    """Accuracy on all classes seen after the first and the last step, and its mean over all steps.

    Args:
        found: a row for each method, number of steps and step.
        averages: the mean over the steps, a row for each method and number of steps.
        provenance: where they come from.
    """
    groups: dict[int, list[tuple[str, ...]]] = {}
    for mean in averages:
        course = [row for row in found if (row["label"], row["steps"]) == (mean["label"], mean["steps"])]
        groups.setdefault(mean["steps"], []).append(_texts(course, mean))
    columns = ("method", "first step", "last step", "paper", "average", "paper", "verdict")
    notes = [
        "ours: mean ± sample deviation (number of orders x networks); average: over the steps, then likewise.",
        "verdict: of the last step. Forgetting is not measured: no network is carried from step to step.",
    ]
    if any(row["reference"] is not None for row in found):
        notes.append(f"paper {DAGGER}: unverified, read off a figure of DataDAM's poster to 0.3 points.")
    head = f"Continual learning: test accuracy in % on all classes seen, {len(averages)} courses."
    blocks = tuple((f"{steps} steps", tuple(rows)) for steps, rows in groups.items())
    return Table(head, columns, blocks, tuple(notes), provenance)


def _texts(course: Sequence[Row], mean: Row) -> tuple[str, ...]:
    first, last = course[0], course[-1]
    theirs = [_theirs(row["reference"]) for row in (last, mean)]
    return (mean["label"], _ours(first), _ours(last), theirs[0], _ours(mean), theirs[1], last["verdict"])


def _ours(row: Row) -> str:
    values = row["accuracies"]
    spread = f" ± {stdev(values):3.1f}" if len(values) > 1 else ""
    return f"{fmean(values):4.1f}{spread} ({len(values)})"


def _theirs(value: float | None) -> str:
    return "-" if value is None else f"{value:4.1f} {DAGGER}"


def accuracy_against_classes(found: Sequence[Row]) -> Picture:
    """Test accuracy against the classes seen: a line for every method, with bands, a panel for every number of steps.

    Bands are 95 % t intervals of the mean over orders, whose networks count as one, drawn within 0 and 100.  The whole
    training set of the classes seen, the joint upper line, is broken and black; small crosses show what was published.

    Args:
        found: as `ddlib.analyses.continual.run` gives it.
    """
    if not found:
        return note("nothing was run")
    numbers = list(dict.fromkeys(row["steps"] for row in found))
    looks = _looks({row["label"]: row["ipc"] for row in found})
    figure = picture(WIDTH, 3.1, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(numbers), squeeze=False, sharey=True)[0]
        for ax, steps in zip(axes, numbers, strict=True):
            for label, look in looks.items():
                _draw(ax, [row for row in found if (row["label"], row["steps"]) == (label, steps)], look)
            ax.set(title=f"{steps} steps", xlabel="classes seen")
            places = sorted({row["classes"] for row in found if row["steps"] == steps})
            ax.xaxis.set_major_locator(FixedLocator(places))
        axes[0].set_ylabel("test accuracy on them (%)")
        handles = [Line2D([], [], label=label, **look) for label, look in looks.items()]
        if any(row["reference"] is not None for row in found):
            handles.append(Line2D([], [], label="published, unverified", color="black", marker="x", linestyle=""))
        legend_below(figure, handles)
    return figure


def _looks(ipcs: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """Label -> how its line is drawn; one without images per class takes all of them."""
    shades, marks = colors([label for label, ipc in ipcs.items() if ipc is not None]), iter(MARKERS * len(ipcs))
    line = {"linewidth": 1.3, "markersize": 4}
    return {
        label: line | ({"color": "black", "linestyle": "--"} if ipc is None else {"color": shades[label]})
        | ({} if ipc is None else {"marker": next(marks)})
        for label, ipc in ipcs.items()
    }  # fmt: skip


def _draw(ax: Axes, course: Sequence[Row], look: Mapping[str, Any]) -> None:
    places = [row["classes"] for row in course]
    ax.plot(places, [fmean(row["accuracies"]) for row in course], **look)
    if all(len(row["orders"]) > 1 for row in course):
        means = [[*group_means(row["accuracies"], row["orders"]).values()] for row in course]
        lows, highs = zip(*map(interval, means), strict=True)
        inside = [max(0, low) for low in lows], [min(100, high) for high in highs]
        ax.fill_between(places, *inside, color=look["color"], alpha=0.13, linewidth=0)
    published = [(row["classes"], row["reference"]) for row in course if row["reference"] is not None]
    if published:
        ax.plot(*zip(*published, strict=True), "x", color=look["color"], markersize=5)
