"""Figures of what was measured: courses of losses, costs, gradients, effects of choices, architecture searches."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from ddlib.report import style
from ddlib.report.figures import draw_line, line_handles, t_interval
from ddlib.report.style import DASHES, GREY, PALETTE, WIDTH, Picture, legend, note, picture, styled
from ddlib.results import Effect, Reference, group_means

Course = Sequence[tuple[int, float]]
"""(step, value) pairs in order."""

Row = Mapping[str, Any]

NORMS = {
    "instance": "InstanceNorm",
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "group": "GroupNorm",
    "none": "no norm",
}

PLAIN = "none"
"""The residual of the unmodified sampler, which Table 1 of LD3M is about."""

RESIDUALS = {PLAIN: "none (plain DDIM)", "x0": "x0 (clean estimate)", "eq7": "eq7 (equation 7)"}
SCALED_AT = 10

EXTREMES = ("pi", 100)
"""seaborn's `errorbar` from the least to the greatest value."""


def check_rows(rows: Sequence[Row], keys: Sequence[str]) -> None:
    """Refuse rows that lack one of `keys`.

    Raises:
        ValueError: a row does.
    """
    for row in rows:
        if missing := [key for key in keys if key not in row]:
            raise ValueError(f"row {dict(row)!r} lacks {', '.join(missing)}; it must have {', '.join(keys)}")


def courses(histories: Mapping[str, Course], *, quantity: str = "loss") -> Picture:
    """The course of `quantity` over the steps, one panel for each name, since their scales differ.

    Args:
        histories: name -> course of values > 0; what has fewer than two is left out.
    """
    histories = {name: list(points) for name, points in histories.items() if len(points) > 1}
    if not histories:
        return note("nothing with a course was run")
    figure = picture(WIDTH, 1.9, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(histories), squeeze=False)[0]
        for ax, (name, color) in zip(axes, style.colors(list(histories)).items(), strict=True):
            ax.plot(*zip(*histories[name], strict=True), color=color, linewidth=1)
            ax.set(yscale="log", title=name, xlabel="step")
        axes[0].set_ylabel(quantity)
    return figure


def loss_reduction(histories: Mapping[str, Course], *, quantity: str = "matching loss") -> Picture:
    """How far several runs lower a loss: the loss itself, and what is left of it, both on axes that they share.

    Each step has its own networks and real images, so that single losses (faint) scatter; lines are means over a tenth
    of the course, over fewer at its ends.  What is left is relative to the first of these means.

    Args:
        histories: name -> course of values > 0; what has fewer than two is left out.
    """
    import pandas

    histories = {name: list(points) for name, points in histories.items() if len(points) > 1}
    if not histories:
        return note("nothing with a course was run")
    figure = picture(WIDTH, 2.7, layout="constrained")
    with styled():
        (loss, left), handles = figure.subplots(1, 2), []
        for name, color in style.colors(list(histories)).items():
            steps, values = zip(*histories[name], strict=True)
            smooth = pandas.Series(values).rolling(2 * (len(values) // 20) + 1, center=True, min_periods=1).mean()
            loss.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            handles += loss.plot(steps, smooth, color=color, linewidth=1.4, label=name)
            left.plot(steps, 100 * smooth / smooth[0], color=color, linewidth=1.4)
        loss.set(yscale="log", title=quantity, xlabel="iteration", ylabel=quantity)
        style.plain_ticks(loss.yaxis)
        left.set(title="what is left of it", xlabel="iteration", ylabel="% of the beginning's")
        legend(figure, handles)
    return figure


def metric_panels(metrics: Mapping[str, Course], *, over: str = "step") -> Picture:
    """The courses of several metrics of one run, a panel for each on a linear axis of its own.

    Args:
        metrics: name -> course, such as some of `study.history`; an empty one is left out.
        over: what the courses run over.
    """
    metrics = {name: list(points) for name, points in metrics.items() if points}
    if not metrics:
        return note("nothing with a course was run")
    columns = min(len(metrics), 4 if len(metrics) in (4, 7, 8) else 3)
    rows = math.ceil(len(metrics) / columns)
    figure = picture(WIDTH, 0.2 + 1.6 * rows, layout="constrained")
    with styled():
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


def loss_against_start(points: Sequence[tuple[int, float]]) -> Picture:
    """The loss of trajectory matching against the expert's epoch that a step starts from, with the mean of each.

    The line L = 1 is what a student reaches that does not move at all.

    Args:
        points: (start epoch, loss), one an outer step, in any order.
    """
    if not points:
        return note("nothing was matched")
    figure = picture(WIDTH, 2.6, layout="constrained")
    with styled():
        ax = figure.subplots()
        step = {"s": 9, "color": PALETTE[0], "alpha": 0.45, "linewidth": 0, "label": "one step"}
        ax.scatter(*zip(*points, strict=True), **step)
        mean = {"color": PALETTE[5], "linewidth": 1.3, "marker": "s", "markersize": 4, "label": "mean"}
        draw_line(ax, points, mean, errorbar=None)
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--", label="L = 1: unmoved")
        ax.set(xlabel="start epoch of the expert", ylabel="matching loss L")
        ax.set_ylim(0, 1.06 * max(1.0, *(loss for _, loss in points)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        legend(figure, ax.get_legend_handles_labels()[0], below=False)
        if ax.get_legend():
            ax.get_legend().remove()
    return figure


def effects(found: Sequence[Effect]) -> Picture:
    """What each choice is worth in points of accuracy, all else equal: one line an effect, grouped by factor.

    A dot with its 95 % interval over the distillation seeds; behind it, in grey, from the least to the greatest
    difference of a single pair, which shows whether the choice is worth the same everywhere.
    """
    if not found:
        return note("no pair of cells was run that differs in one choice alone")
    shades = style.colors(list(dict.fromkeys(effect.factor for effect in found)))
    figure = picture(WIDTH, 0.7 + 0.3 * len(found), layout="constrained")
    with styled():
        ax = figure.subplots()
        for y, effect in enumerate(found):
            value, color = effect.difference, shades[effect.factor]
            ax.plot([effect.least, effect.most], [y, y], color=GREY, linewidth=4, alpha=0.4, solid_capstyle="butt")
            if value.high < float("inf"):
                ax.plot([value.low, value.high], [y, y], color=color, linewidth=1.3)
            ax.plot(value.difference, y, "o", color=color, markersize=5)
        ax.set_yticks(range(len(found)), [_effect_name(effect) for effect in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("difference in test accuracy (points), 95 % interval")
        handles = [Line2D([], [], color=shade, marker="o", markersize=4, label=name) for name, shade in shades.items()]
        legend(figure, [*handles, Line2D([], [], color=GREY, linewidth=4, alpha=0.4, label="single pairs")])
    return figure


def _effect_name(effect: Effect) -> str:
    """Such as "BN for IN (4 pairs)", or "BN for IN, Real (2 pairs)"."""
    of = f", {effect.of}" if effect.of else ""
    return f"{effect.level} for {effect.base}{of} ({effect.pairs} {'pair' if effect.pairs == 1 else 'pairs'})"


def term_norms(rows: Sequence[Row]) -> Picture:
    """The gradient's norm of each term of a loss against the power p, a panel for each norm layer, on one scale.

    Args:
        rows: as `gradients.term_norms` gives them; the mean over draws is drawn, with whiskers from the least to
            the greatest.  A term without power is a dashed line.

    Raises:
        ValueError: a row lacks "term", "norm", "p" or "gradient".
    """
    check_rows(rows, ("term", "norm", "p", "gradient"))
    if not rows:
        return note("nothing was measured")
    norms, terms = (list(dict.fromkeys(row[key] for row in rows)) for key in ("norm", "term"))
    powers = sorted({row["p"] for row in rows} - {None})
    look = style.looks(terms)
    for term in {row["term"] for row in rows} - {row["term"] for row in rows if row["p"] is not None}:
        look[term] = {"color": look[term]["color"], "linestyle": "--", "linewidth": 1}
    figure = picture(WIDTH, 2.7, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(norms), sharey=True, squeeze=False)[0]
        for ax, norm in zip(axes, norms, strict=True):
            _draw_terms(ax, [row for row in rows if row["norm"] == norm], look)
            style.logarithmic_x(ax, powers, inches=0.7 * WIDTH / len(norms), names={p: f"{p:g}" for p in powers})
            ax.set(title=NORMS.get(norm, norm), xlabel="power p")
        for ax in axes:
            ax.set_yscale("log")
        axes[0].set_ylabel("norm of the pixels' gradient")
        legend(figure, line_handles(look))
    return figure


def _draw_terms(ax: Axes, rows: Sequence[Row], look: Mapping[str, Mapping[str, Any]]) -> None:
    for term, line in look.items():
        own = [(row["p"], row["gradient"]) for row in rows if row["term"] == term]
        draw_line(ax, [point for point in own if point[0] is not None], line, errorbar=EXTREMES, capsize=0)
        level = [value for p, value in own if p is None]
        if level:
            ax.axhline(fmean(level), color=line["color"], linestyle="--", linewidth=1)


def gradient_norms(rows: Sequence[Row], *, reported: Sequence[Reference] = ()) -> Picture:
    """Norms of dL/dZ against the sampling steps T, as they are and divided by a_K, on logarithmic axes.

    Z enters the sampler as a_K Z alone where there is no residual, so that the second panel is the norm of dL/dz_K
    there: what of the fall is left when the start of the chain, which moves with T, is taken out.

    Args:
        rows: one a measurement: "residual", "T" >= 1, "norm" > 0 and "noising", a_K > 0.  Several of one residual and
            T, such as of several noises, are their mean with whiskers from the least to the greatest.
        reported: references, of which those of the metrics `gradient_norm` and `start_gradient_norm` are drawn, at
            their condition "T = ..."; scaled to ours without residual at T = 10, since no paper says at which inputs
            its own were taken.

    Raises:
        ValueError: a row lacks one of these or has a value <= 0, or there is nothing to scale what is reported to.
    """
    check_rows(rows, ("residual", "T", "norm", "noising"))
    for row in rows:
        if wrong := [key for key in ("T", "norm", "noising") if not row[key] > 0]:
            raise ValueError(f"{wrong[0]}={row[wrong[0]]!r} of a row; it must be > 0")
    if not rows:
        return note("nothing was measured")
    look = style.looks([row["residual"] for row in rows])
    published = {"color": GREY, "linestyle": "--", "linewidth": 1, "marker": "D", "markersize": 4}
    published["markerfacecolor"] = "none"
    panels: tuple[tuple[str, str, Callable[[Row], float], str], ...] = (
        ("as it is", "‖dL/dZ‖", lambda row: row["norm"], "gradient_norm"),
        ("less the noising", "‖dL/dZ‖ / a_K", lambda row: row["norm"] / row["noising"], "start_gradient_norm"),
    )
    figure = picture(WIDTH, 3.0, layout="constrained")
    with styled():
        for ax, (title, ylabel, value, metric) in zip(figure.subplots(1, 2), panels, strict=True):
            ours = [value(row) for row in rows if (row["residual"], row["T"]) == (PLAIN, SCALED_AT)]
            theirs = _scaled(reported, metric, ours)
            for name, line in look.items():
                points = [(row["T"], value(row)) for row in rows if row["residual"] == name]
                draw_line(ax, points, line, errorbar=EXTREMES, capsize=0)
            ax.plot([*theirs], [*theirs.values()], **published)
            ax.set_yscale("log")
            style.logarithmic_x(ax, [*(row["T"] for row in rows), *theirs], inches=0.35 * WIDTH)
            ax.set(title=title, xlabel="sampling steps T", ylabel=ylabel)
        handles = [Line2D([], [], label=RESIDUALS.get(name, name), **line) for name, line in look.items()]
        if theirs:
            handles.append(Line2D([], [], label=f"paper, scaled to ours at T = {SCALED_AT}", **published))
        legend(figure, handles)
    return figure


def _scaled(reported: Sequence[Reference], metric: str, ours: Sequence[float]) -> dict[int, float]:
    """T -> what is reported, so scaled that it meets the mean of ours at `SCALED_AT`; empty where nothing is."""
    values = {
        int(reference.condition.removeprefix("T = ")): reference.value
        for reference in reported
        if reference.metric == metric and reference.value is not None
    }
    if not values:
        return {}
    if not ours or SCALED_AT not in values:
        lacking = "reported" if ours else "rows"
        raise ValueError(
            f"{lacking} hold no norm at T = {SCALED_AT} without residual; what is reported is scaled there"
        )
    return {steps: fmean(ours) / values[SCALED_AT] * values[steps] for steps in sorted(values)}


def cost_lines(rows: Sequence[Row]) -> Picture:
    """Seconds of an outer step, and its peak memory, against the inner steps N; of one N, against the mini-batch B.

    Args:
        rows: one a measurement: "method", "N", "B", "seconds" > 0, and "bytes" > 0, or None where the memory was not
            measured.  Each method has a colour, and each B, where N varies, a style of line.

    Raises:
        ValueError: a row lacks one of these.
    """
    check_rows(rows, ("method", "N", "B", "seconds", "bytes"))
    if not rows:
        return note("nothing was measured")
    along, across = ("N", "B") if len({row["N"] for row in rows}) > 1 else ("B", "N")
    values = sorted({row[across] for row in rows})
    methods = style.looks([row["method"] for row in rows])
    lines = {}
    for method, value in dict.fromkeys((row["method"], row[across]) for row in rows):
        name = f"{method}, {across} = {value}" if len(values) > 1 else method
        dash = DASHES[values.index(value) % len(DASHES)]
        own = [row for row in rows if (row["method"], row[across]) == (method, value)]
        lines[name] = methods[method] | {"linestyle": dash}, own
    xlabel = {"N": "inner steps N", "B": "images in a mini-batch B"}[along]
    return _cost_panels(lines, along, xlabel, "seconds per outer step", factor=4, columns=3)


def step_lines(rows: Sequence[Row]) -> Picture:
    """Seconds of a step, and the memory that it takes at most, against images per class; a line for each method.

    Args:
        rows: as `costs.measure_steps` gives them; what did not fit is left out.

    Raises:
        ValueError: a row lacks a key.
    """
    check_rows(rows, ("method", "ipc", "steps", "seconds", "bytes"))
    measured = [row for row in rows if row["seconds"] is not None]
    if not measured:
        return note("nothing was measured")
    look = style.looks([row["method"] for row in measured])
    lines = {name: (line, [row for row in measured if row["method"] == name]) for name, line in look.items()}
    return _cost_panels(lines, "ipc", "images per class", "seconds per step", factor=10, columns=4)


def _cost_panels(
    lines: Mapping[str, tuple[Mapping[str, Any], Sequence[Row]]],
    along: str,
    xlabel: str,
    unit: str,
    *,
    factor: float,
    columns: int,
) -> Picture:
    """Time, and memory where it was measured, each on an axis that is logarithmic if values differ by `factor`."""
    rows = [row for _, group in lines.values() for row in group]
    panels = [("time", unit, "seconds", 1.0)]
    if any(row["bytes"] is not None for row in rows):
        panels.append(("peak memory", "MB", "bytes", 1e6))
    figure = picture(WIDTH, 2.8, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for ax, (title, ylabel, key, scale) in zip(axes, panels, strict=True):
            measured = [row for row in rows if row[key] is not None]
            places = sorted({row[along] for row in measured})
            for line, group in lines.values():
                points = [(row[along], row[key] / scale) for row in group if row[key] is not None]
                draw_line(ax, points, line, errorbar=None)
            if places[-1] >= 4 * places[0]:
                style.logarithmic_x(ax, places, inches=0.4 * WIDTH)
            style.vertical_from(ax, [row[key] / scale for row in measured], factor=factor)
            style.ticks_at(ax, places, inches=0.4 * WIDTH)
            ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        legend(figure, [Line2D([], [], label=name, **line) for name, (line, _) in lines.items()], columns=columns)
    return figure


def accuracy_against_classes(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Test accuracy against the classes seen: a line for every method, with bands, a panel for every number of steps.

    Bands are 95 % t intervals of the mean over orders, whose networks count as one, drawn within 0 and 100.  The whole
    training set of the classes seen, the joint upper line, is broken and black; small crosses show what was published.

    Args:
        rows: as `ddlib.analyses.continual.run` gives them.
    """
    if not rows:
        return note("nothing was run")
    look = style.looks([row["label"] for row in rows if row["ipc"] is not None], [row["label"] for row in rows])
    panels = list(dict.fromkeys(row["steps"] for row in rows))
    figure = picture(WIDTH, 3.1, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, steps in zip(axes, panels, strict=True):
            here = [row for row in rows if row["steps"] == steps]
            _draw_courses(ax, here, look)
            ax.set(title=f"{steps} steps", xlabel="classes seen", xticks=sorted({row["classes"] for row in here}))
        axes[0].set_ylabel("test accuracy on them (%)")
        handles = line_handles(look)
        if any(row["reference"] is not None for row in rows):
            handles.append(Line2D([], [], label="published, unverified", color="black", marker="x", linestyle=""))
        legend(figure, handles)
    return figure


def _draw_courses(ax: Axes, rows: Sequence[Row], look: Mapping[str, Mapping[str, Any]]) -> None:
    for label, line in look.items():
        course = [row for row in rows if row["label"] == label]
        means = [(row["classes"], group_means(row["accuracies"], row["orders"]).values()) for row in course]
        points = [(classes, mean) for classes, of_orders in means for mean in of_orders]
        draw_line(ax, points, line, errorbar=_interval_within, err_style="band")
        published = [(row["classes"], row["reference"]) for row in course if row["reference"] is not None]
        if published:
            ax.plot(*zip(*published, strict=True), "x", color=line["color"], markersize=5)


def _interval_within(values: Iterable[float]) -> tuple[float, float]:
    low, high = t_interval(values)
    return max(0.0, low), min(100.0, high)


def proxy_scatter(networks: Sequence[Row], reference: str) -> Picture:
    """Accuracy on all data against accuracy on each proxy, a point a network, the proxy's winner in a ring.

    Args:
        networks: rows of "network" and the accuracy (percent) by each method.
        reference: the method that has all data.
    """
    labels = [key for key in (networks[0] if networks else {}) if key not in ("network", reference)]
    if not labels:
        return note("nothing was searched")
    columns = min(3, len(labels))
    rows = math.ceil(len(labels) / columns)
    full = [row[reference] for row in networks]
    figure = picture(WIDTH, 0.3 + 2.2 * rows, layout="constrained")
    with styled():
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for ax in axes[len(labels) :]:
            ax.set_visible(False)
        for i, (ax, (label, color)) in enumerate(zip(axes, style.colors(labels).items(), strict=False)):
            ours = [row[label] for row in networks]
            best = int(np.argmax(ours))
            ax.scatter(ours, full, s=14, color=color, alpha=0.8, linewidths=0)
            ax.scatter(ours[best], full[best], s=80, facecolors="none", edgecolors="black", linewidths=1)
            ax.set(title=label, ylabel="" if i % columns else "accuracy on all data (%)")
            ax.set_xlabel("accuracy on the set (%)" if i >= len(labels) - columns else "")
        point = {"linestyle": "", "marker": "o", "color": GREY, "label": "network"}
        ring = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": "black"}
        legend(figure, [Line2D([], [], **point), Line2D([], [], label="best on the set", **ring)])
    return figure


def correlation_bars(correlations: Sequence[Row], *, kind: str = "spearman") -> Picture:
    """Rank correlation with all data, a group of bars for all networks, the top 20 % and the top 10, with intervals.

    Args:
        correlations: rows of "method", "among", "kind", "value", "low", "high" and "networks".
        kind: "spearman" or "kendall".
    """
    import pandas
    import seaborn

    rows = [row for row in correlations if row["kind"] == kind and row["value"] is not None]
    if not rows:
        return note("nothing to correlate")
    labels, groups = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "among"))
    shades, width = style.colors(labels), 0.8 / len(labels)
    counts = {row["among"]: row["networks"] for row in rows}
    figure = picture(WIDTH, 3.0, layout="constrained")
    with styled():
        ax = figure.subplots()
        seaborn.barplot(
            pandas.DataFrame(rows), x="among", y="value", hue="method", order=groups, hue_order=labels,
            palette=shades, saturation=1, gap=0.1, linewidth=0, errorbar=None, legend=False, ax=ax,
        )  # fmt: skip
        for row in [row for row in rows if row["low"] is not None]:
            x = groups.index(row["among"]) + (labels.index(row["method"]) - (len(labels) - 1) / 2) * width
            ax.plot([x, x], [row["low"], row["high"]], color="black", linewidth=0.9)
        ax.axhline(0, color="black", linewidth=0.7)
        ax.set_xticks(range(len(groups)), [f"{name}\n({counts[name]} networks)" for name in groups])
        name = {"spearman": "Spearman's rho", "kendall": "Kendall's tau-b"}[kind]
        ax.set(xlabel="", ylabel=f"{name} with all data", ylim=(-1.02, 1.02))
        handles = [Patch(color=color, label=label) for label, color in shades.items()]
        legend(figure, [*handles, Line2D([], [], color="black", linewidth=0.9, marker="|", label="95 % interval")])
    return figure
