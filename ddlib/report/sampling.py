"""What the number of sampling steps T does: to gradients, to accuracy, and to the cost of a distillation."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ddlib.report.figures import interval_handle
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
from ddlib.results import Record, Reference, interval

KEYS = ("residual", "T", "norm", "noising")
PLAIN = "none"
"""The residual of the unmodified sampler, which Table 1 of LD3M is about."""

RESIDUALS = {PLAIN: "none (plain DDIM)", "x0": "x0 (clean estimate)", "eq7": "eq7 (equation 7)"}
"""A form of the residual -> its name in a legend."""

SCALED_AT = 10
DASHES = ("--", ":", "-.")


def gradient_norms(rows: Sequence[Mapping[str, Any]], *, reported: Sequence[Reference] = ()) -> Picture:
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
    for row in rows:
        if missing := [key for key in KEYS if key not in row]:
            raise ValueError(f"row {dict(row)!r} lacks {', '.join(missing)}; it must have {', '.join(KEYS)}")
        if wrong := [key for key in KEYS[1:] if not row[key] > 0]:
            raise ValueError(f"{wrong[0]}={row[wrong[0]]!r} of a row; it must be > 0")
    if not rows:
        return note("nothing was measured")
    shades = colors(list(dict.fromkeys(row["residual"] for row in rows)))
    looks = {name: _look(i, color) for i, (name, color) in enumerate(shades.items())}
    panels = (
        ("as it is", "‖dL/dZ‖", lambda row: row["norm"], "gradient_norm"),
        ("less the noising", "‖dL/dZ‖ / a_K", lambda row: row["norm"] / row["noising"], "start_gradient_norm"),
    )
    figure = picture(WIDTH, 3.0, layout="constrained")
    with styled():
        for ax, (title, label, value, metric) in zip(figure.subplots(1, 2), panels, strict=True):
            points = {name: _grouped([row for row in rows if row["residual"] == name], value) for name in looks}
            for name, look in looks.items():
                _draw_norms(ax, points[name], look)
            theirs = _scaled(reported, metric, points.get(PLAIN, {}))
            ax.plot([*theirs], [*theirs.values()], **_REPORTED)
            ax.set(title=title, ylabel=label, yscale="log")
            _scale_steps(ax, sorted({row["T"] for row in rows} | {*theirs}))
        handles = [Line2D([], [], label=RESIDUALS.get(name, name), **look) for name, look in looks.items()]
        handles += [Line2D([], [], label=f"paper, scaled to ours at T = {SCALED_AT}", **_REPORTED)] if theirs else []
        legend_below(figure, handles)
    return figure


_REPORTED = {
    "color": GREY,
    "linestyle": "--",
    "linewidth": 1,
    "marker": "D",
    "markersize": 4,
    "markerfacecolor": "none",
}


def _look(position: int, color: str) -> dict[str, Any]:
    return {"color": color, "marker": MARKERS[position % len(MARKERS)], "markersize": 4, "linewidth": 1.3}


def _grouped(rows: Sequence[Mapping[str, Any]], value: Callable[[Mapping], float]) -> dict[int, list[float]]:
    """T, rising -> the values there."""
    return {steps: [value(row) for row in rows if row["T"] == steps] for steps in sorted({row["T"] for row in rows})}


def _draw_norms(ax: Axes, points: Mapping[int, Sequence[float]], look: Mapping[str, Any]) -> None:
    ax.plot([*points], [fmean(values) for values in points.values()], **look)
    for steps, values in points.items():
        if len(values) > 1:
            ax.plot([steps, steps], [min(values), max(values)], color=look["color"], linewidth=0.9)


def _scaled(reported: Sequence[Reference], metric: str, ours: Mapping[int, Sequence[float]]) -> dict[int, float]:
    """T -> what is reported, so scaled that it meets the mean of ours at `SCALED_AT`; empty where nothing is."""
    found = {
        int(reference.condition.removeprefix("T = ")): reference.value
        for reference in reported
        if reference.metric == metric and reference.value is not None
    }
    if not found:
        return {}
    if SCALED_AT not in ours or SCALED_AT not in found:
        lacking = "reported" if SCALED_AT in ours else "rows"
        raise ValueError(
            f"{lacking} hold no norm at T = {SCALED_AT} without residual; what is reported is scaled there"
        )
    factor = fmean(ours[SCALED_AT]) / found[SCALED_AT]
    return {steps: factor * found[steps] for steps in sorted(found)}


def course_over_steps(groups: Mapping[str, Sequence[Record]]) -> Picture:
    """Accuracy, seconds an iteration and peak memory of a distillation against its sampling steps T, side by side.

    Accuracies are means with 95 % t intervals over all networks of all distillation seeds; the other two are those of
    `Record.cost`, and left out where it has none.

    Args:
        groups: name of the line -> records that differ in the hyper-parameter `steps`.  A record that has no such
            hyper-parameter, as of GLaD or of random real images, is a horizontal line.  What was not run is left out.
    """
    shown = [(name, record) for name, group in groups.items() for record in group if record.n]
    if not any(_steps(record) is not None for _, record in shown):
        return note("no cell was run")
    looks = _looks(shown)
    panels = (
        ("accuracy", "test accuracy (%)", lambda record: record.accuracy_mean),
        ("time", "seconds per iteration", _seconds),
        ("peak memory", "MB", _megabytes),
    )
    figure = picture(WIDTH, 2.5, layout="constrained")
    with styled():
        for ax, (title, label, value) in zip(figure.subplots(1, 3), panels, strict=True):
            _draw_course(ax, [(name, r, y) for name, r in shown if (y := value(r)) is not None], looks)
            ax.set(title=title, ylabel=label)
            if title == "accuracy":
                _draw_intervals(ax, shown, looks)
            else:
                ax.set_ylim(0)
            _scale_steps(ax, sorted({_steps(record) for _, record in shown} - {None}), columns=3)
        handles = [Line2D([], [], label=name, **look) for name, look in looks.items()]
        legend_below(figure, [*handles, *interval_handle([record for _, record in shown])])
    return figure


def _steps(record: Record) -> int | None:
    """The sampling steps of a record's method, where it has such."""
    return record.cell.get("hyperparameters", {}).get("steps")


def _seconds(record: Record) -> float | None:
    rate = record.cost.get("steps_per_second")
    return 1 / rate if rate and record.cost.get("distil_seconds", 1) else None


def _megabytes(record: Record) -> float | None:
    stored = record.cost.get("peak_memory_bytes")
    return stored / 1e6 if stored else None


def _looks(shown: Sequence[tuple[str, Record]]) -> dict[str, dict[str, Any]]:
    """Name -> how its line is drawn: with markers over T, else dashed in black, or grey for random images."""
    lines = list(dict.fromkeys(name for name, record in shown if _steps(record) is not None))
    looks = {name: _look(i, color) for i, (name, color) in enumerate(colors(lines).items())}
    levels = [name for name in dict.fromkeys(name for name, _ in shown) if name not in looks]
    return looks | {
        name: {"color": GREY if is_random(name) else "black", "linestyle": DASHES[i % len(DASHES)], "linewidth": 1}
        for i, name in enumerate(levels)
    }


def _draw_course(ax: Axes, found: Sequence[tuple[str, Record, float]], looks: Mapping[str, Mapping[str, Any]]) -> None:
    for name, look in looks.items():
        points = sorted((s, y) for n, record, y in found if n == name and (s := _steps(record)) is not None)
        if points:
            ax.plot(*zip(*points, strict=True), **look)
    for name, record, y in found:
        if _steps(record) is None:
            ax.axhline(y, **{key: value for key, value in looks[name].items() if not key.startswith("marker")})


def _draw_intervals(ax: Axes, shown: Sequence[tuple[str, Record]], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Intervals of the mean, whiskers at T and bands of what has none; an axis that shows them."""
    for name, record in shown:
        low, high = interval(record.accuracies) if record.n > 1 else (record.accuracy_mean,) * 2
        if _steps(record) is None:
            ax.axhspan(low, high, color=looks[name]["color"], alpha=0.1, linewidth=0)
        else:
            ax.plot([_steps(record)] * 2, [low, high], color=looks[name]["color"], linewidth=0.9)
    low, high = ax.get_ylim()
    ax.set_ylim(max(0, low), min(100, high))


def _scale_steps(ax: Axes, steps: Sequence[int], *, columns: int = 2) -> None:
    """A logarithmic axis of T with a tick at every value."""
    ax.set_xscale("log")
    ax.set_xlim(steps[0] / 1.3, steps[-1] * 1.3)
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("sampling steps T")
    ticks_at(ax, steps, inches=0.7 * WIDTH / columns)
