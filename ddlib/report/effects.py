"""What single choices are worth, and how hard single terms of a loss pull."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ddlib.report.style import GREY, MARKERS, WIDTH, Picture, colors, legend_below, note, picture, styled, ticks_at
from ddlib.results import Effect

KEYS = ("term", "norm", "p", "gradient")
NAMES = {
    "instance": "InstanceNorm",
    "batch": "BatchNorm",
    "layer": "LayerNorm",
    "group": "GroupNorm",
    "none": "no norm",
}


def effects(found: Sequence[Effect]) -> Picture:
    """What each choice is worth in points of accuracy, all else equal: one line an effect, grouped by factor.

    A dot with its 95 % interval over the distillation seeds; behind it, in grey, from the least to the greatest
    difference of a single pair, which shows whether the choice is worth the same everywhere.
    """
    if not found:
        return note("no pair of cells was run that differs in one choice alone")
    shades = colors(list(dict.fromkeys(effect.factor for effect in found)))
    figure = picture(WIDTH, 0.7 + 0.3 * len(found), layout="constrained")
    with styled():
        ax = figure.subplots()
        for y, effect in enumerate(found):
            _draw_effect(ax, y, effect, shades[effect.factor])
        ax.set_yticks(range(len(found)), [_name(effect) for effect in found])
        ax.set_ylim(len(found) - 0.5, -0.5)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("difference in test accuracy (points), 95 % interval")
        handles = [Line2D([], [], color=shade, marker="o", markersize=4, label=name) for name, shade in shades.items()]
        handles.append(Line2D([], [], color=GREY, linewidth=4, alpha=0.4, label="single pairs"))
        legend_below(figure, handles)
    return figure


def _name(effect: Effect) -> str:
    """Such as "BN for IN (4 pairs)", or "BN for IN, Real (2 pairs)"."""
    of = f", {effect.of}" if effect.of else ""
    return f"{effect.level} for {effect.base}{of} ({effect.pairs} {'pair' if effect.pairs == 1 else 'pairs'})"


def _draw_effect(ax: Axes, y: int, effect: Effect, color: str) -> None:
    """The dot, its interval where seeds tell one, and the range of the pairs; the axis is that of what is finite."""
    value = effect.difference
    ax.plot([effect.least, effect.most], [y, y], color=GREY, linewidth=4, alpha=0.4, solid_capstyle="butt")
    if value.high < float("inf"):
        ax.plot([value.low, value.high], [y, y], color=color, linewidth=1.3)
    ax.plot(value.difference, y, "o", color=color, markersize=4.5)


def term_norms(rows: Sequence[Mapping[str, Any]]) -> Picture:
    """The gradient's norm of each term of a loss against the power p, a panel for each norm layer, on one scale.

    Args:
        rows: as `branches.gradient_norms` gives them; the mean over draws is drawn, with whiskers from the least to
            the greatest.  A term without power is a dashed line.

    Raises:
        ValueError: a row lacks "term", "norm", "p" or "gradient".
    """
    for row in rows:
        if missing := [key for key in KEYS if key not in row]:
            raise ValueError(f"row {dict(row)!r} lacks {', '.join(missing)}; it must have {', '.join(KEYS)}")
    if not rows:
        return note("nothing was measured")
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    shades = colors(list(dict.fromkeys(row["term"] for row in rows)))
    figure = picture(WIDTH, 2.7, layout="constrained")
    with styled():
        axes = figure.subplots(1, len(norms), sharey=True, squeeze=False)[0]
        for ax, norm in zip(axes, norms, strict=True):
            _draw_terms(ax, [row for row in rows if row["norm"] == norm], shades)
            ax.set(title=NAMES.get(norm, norm), xlabel="power p", yscale="log")
            powers = sorted({row["p"] for row in rows} - {None})
            if powers:
                ax.set_xscale("log", base=2)
                ax.set_xlim(powers[0] / 1.2, powers[-1] * 1.2)
                ticks_at(ax, powers, inches=0.7 * WIDTH / len(norms), names={p: f"{p:g}" for p in powers})
        axes[0].set_ylabel("norm of the pixels' gradient")
        looks = zip(MARKERS, shades.items(), strict=False)
        legend_below(figure, [Line2D([], [], color=c, label=t, **_look(rows, t, m)) for m, (t, c) in looks])
    return figure


def _look(rows: Sequence[Mapping[str, Any]], term: str, marker: str) -> dict[str, Any]:
    """How a legend shows a term: dashed where it has no power."""
    plain = all(row["p"] is None for row in rows if row["term"] == term)
    return {"linestyle": "--", "linewidth": 1} if plain else {"marker": marker, "markersize": 4, "linewidth": 1.3}


def _draw_terms(ax: Axes, rows: Sequence[Mapping[str, Any]], shades: Mapping[str, str]) -> None:
    for marker, (term, color) in zip(MARKERS, shades.items(), strict=False):
        of: dict[Any, list[float]] = {}
        for row in [row for row in rows if row["term"] == term]:
            of.setdefault(row["p"], []).append(row["gradient"])
        if None in of:
            ax.axhline(fmean(of.pop(None)), color=color, linestyle="--", linewidth=1)
        if of:
            ax.plot([*of], [*map(fmean, of.values())], color=color, marker=marker, markersize=4, linewidth=1.3)
        for p, values in of.items():
            ax.plot([p, p], [min(values), max(values)], color=color, linewidth=0.9)
