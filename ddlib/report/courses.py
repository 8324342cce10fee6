"""How quantities changed while something was made."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from ddlib.report.style import GREY, PALETTE, WIDTH, Picture, colors, legend_below, note, picture, styled

Course = Sequence[tuple[int, float]]
"""(step, value) pairs in order."""


def courses(histories: Mapping[str, Course], *, quantity: str = "loss") -> Picture:
    """The course of `quantity` over the steps, one panel for each name, since their scales differ.

    Args:
        histories: name -> course of values > 0; what has fewer than two is left out.
    """
    shown = {name: list(points) for name, points in histories.items() if len(points) > 1}
    if not shown:
        return note("nothing with a course was run")
    shades = colors(list(shown))
    figure = picture(WIDTH, 1.9, layout="constrained")
    with styled():
        for ax, (name, points) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=shades[name], linewidth=1)
            ax.set(yscale="log", title=name, xlabel="step")
        figure.axes[0].set_ylabel(quantity)
    return figure


def loss_reduction(histories: Mapping[str, Course], *, quantity: str = "matching loss") -> Picture:
    """How far several runs lower a loss: the loss itself, and what is left of it, both on axes that they share.

    Each step has its own networks and real images, so that single losses (faint) scatter; lines are means over a tenth
    of the course.  What is left is relative to the first of these means.

    Args:
        histories: name -> course of values > 0; what has fewer than two is left out.
    """
    shown = {name: list(points) for name, points in histories.items() if len(points) > 1}
    if not shown:
        return note("nothing with a course was run")
    figure = picture(WIDTH, 2.7, layout="constrained")
    with styled():
        both, handles = figure.subplots(1, 2), []
        for name, color in colors(list(shown)).items():
            steps, values = zip(*shown[name], strict=True)
            smooth = _running_mean(values)
            both[0].plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            handles += both[0].plot(steps, smooth, color=color, linewidth=1.4, label=name)
            both[1].plot(steps, [100 * value / smooth[0] for value in smooth], color=color, linewidth=1.4)
        both[0].set(yscale="log", title=quantity, xlabel="iteration", ylabel=quantity)
        both[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        both[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        both[0].yaxis.set_minor_formatter(NullFormatter())
        both[1].set(title="what is left of it", xlabel="iteration", ylabel="% of the beginning's")
        legend_below(figure, handles)
    return figure


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and those around it, a tenth of all together, fewer at the ends."""
    half = len(values) // 20
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def metric_panels(metrics: Mapping[str, Course], *, over: str = "step") -> Picture:
    """The courses of several metrics of one run, a panel for each on a linear axis of its own.

    Args:
        metrics: name -> course, such as some of `study.history`; an empty one is left out.
        over: what the courses run over.
    """
    shown = {name: list(points) for name, points in metrics.items() if points}
    if not shown:
        return note("nothing with a course was run")
    columns = min(len(shown), 4 if len(shown) in (4, 7, 8) else 3)
    rows = math.ceil(len(shown) / columns)
    figure = picture(WIDTH, 0.2 + 1.6 * rows, layout="constrained")
    with styled():
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
        for ax, (name, points) in zip(axes, shown.items(), strict=False):
            steps, values = zip(*points, strict=True)
            ax.plot(steps, values, color=PALETTE[0], linewidth=1, marker="o" if len(points) < 10 else "", markersize=3)
            ax.set(title=name, xlabel=over)
            ax.ticklabel_format(useOffset=False, axis="y")
            ax.xaxis.set_major_locator(MaxNLocator(3, integer=True, min_n_ticks=1))
    return figure


def loss_against_start(points: Sequence[tuple[int, float]]) -> Picture:
    """The loss of trajectory matching against the expert's epoch that a step starts from, with the mean of each.

    The line L = 1 is what a student reaches that does not move at all.

    Args:
        points: (start epoch, loss), one an outer step, in any order.
    """
    if not points:
        return note("nothing was matched")
    losses: dict[int, list[float]] = {}
    for start, loss in points:
        losses.setdefault(int(start), []).append(loss)
    means = [(start, fmean(losses[start])) for start in sorted(losses)]
    figure = picture(WIDTH, 2.6, layout="constrained")
    with styled():
        ax = figure.subplots()
        each = {"s": 9, "color": PALETTE[0], "alpha": 0.45, "linewidth": 0, "label": "one step"}
        ax.scatter(*zip(*points, strict=True), **each)
        ax.plot(*zip(*means, strict=True), color=PALETTE[5], linewidth=1.3, marker="s", markersize=4, label="mean")
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--", label="L = 1: unmoved")
        ax.set(xlabel="start epoch of the expert", ylabel="matching loss L")
        ax.set_ylim(0, 1.06 * max(1.0, *(loss for _, loss in points)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.legend(loc="outside right upper")
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure
