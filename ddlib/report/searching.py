"""What an architecture search on a small set finds, beside one on all data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ddlib.report.style import GREY, WIDTH, Picture, colors, legend_below, note, picture, styled
from ddlib.report.tables import Table
from ddlib.results import Reference

SEARCH_COLUMNS = ("method", "winner", "spread", "rho", "95 % interval", "seconds", "distilling", "images", "outcome")
RANK_COLUMNS = ("method", "searches", "rho", "95 % interval", "tau-b", "95 % interval", "over Random", "outcome")
REPORTED_COLUMNS = ("method", "winner", "rho, all", "rho, top 20 %", "rho, few", "minutes", "images", "source")

PANELS = 3
"""Scatters beside one another."""


def search_table(
    winners: Sequence[Mapping[str, Any]], correlations: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]
) -> Table:
    """What each search finds and takes: a row a method.

    Args:
        winners: rows of "method", "accuracy", "least" and "most" (percent on all data, of what the search finds),
            "seconds", "distil_seconds" and "images".
        correlations: rows of "method", "among", "kind", "value", "low" and "high".
        provenance: where they come from.
    """
    over_all = {r["method"]: r for r in correlations if (r["among"], r["kind"]) == ("all", "spearman")}
    rows = tuple(_searched(row, over_all.get(row["method"])) for row in winners)
    notes = (
        "winner: accuracy on all data, in %, of the network that is best on the set, mean over searches, which "
        "differ by the spread. Networks are chosen by the test images that they are then judged by. The winner of a "
        "repeat on all data is judged by the other repeats; a single repeat's is the maximum of its own noise.",
        "rho: Spearman's rank correlation with the ranking by all data. A repeat on all data stands beside the others.",
        "seconds: training and testing all networks, a search; distilling: making its set. images: stored.",
    )
    return Table(f"{len(rows)} ways to search.", SEARCH_COLUMNS, (("among all networks", rows),), notes, provenance)


def _searched(row: Mapping[str, Any], ranked: Mapping[str, Any] | None) -> tuple[str, ...]:
    rho = ("-", "-") if ranked is None else (_number(ranked["value"]), _range(ranked["low"], ranked["high"]))
    found = f"{row['accuracy']:.1f}", f"{row['least']:.1f} to {row['most']:.1f}"
    cost = f"{row['seconds']:,.1f}", f"{row['distil_seconds']:,.1f}", f"{row['images']:,}"
    return row["method"], *found, *rho, *cost, "measured"


def correlation_table(correlations: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> Table:
    """Spearman's rho and Kendall's tau-b of each method with their intervals, among all networks and the best.

    Args:
        correlations: as `search_table`, with "networks", "searches", "gain", "gain_low" and "gain_high".
        provenance: where they come from.
    """
    found = {(r["among"], r["method"], r["kind"]): r for r in correlations}
    groups = []
    for among, count in dict.fromkeys((r["among"], r["networks"]) for r in correlations):
        methods = [r["method"] for r in correlations if (r["among"], r["kind"]) == (among, "spearman")]
        rows = tuple(_ranked(found[among, name, "spearman"], found[among, name, "kendall"]) for name in methods)
        groups.append((f"{among}: {count} networks", rows))
    notes = (
        "searches: draws or distillations, each with its own ranking; rho and tau-b are means over them, and over the "
        "rankings by all data: for each repeat the mean of the others, by which it is ranked itself.",
        "Intervals: bootstrap over networks, with Student's t over searches where there are several, given the "
        "rankings by all data.",
        "top: by the accuracy on all data, with those that tie with the last. over Random: difference in rho, on the "
        "same networks, search by search.",
        "outcome: whether the interval of that difference lies above zero, below it, or has it inside.",
    )
    return Table("Rank correlation with all data.", RANK_COLUMNS, tuple(groups), notes, provenance)


def _ranked(rho: Mapping[str, Any], tau: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = [text for r in (rho, tau) for text in (_number(r["value"]), _range(r["low"], r["high"]))]
    if rho["gain_low"] is None:
        return rho["method"], str(rho["searches"]), *numbers, "-", "-"
    gain = f"{rho['gain']:+.2f} [{rho['gain_low']:+.2f}, {rho['gain_high']:+.2f}]"
    outcome = "above" if rho["gain_low"] > 0 else "below" if rho["gain_high"] < 0 else "not told apart"
    return rho["method"], str(rho["searches"]), *numbers, gain, outcome


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"[{low:.2f}, {high:.2f}]"


def reported_search_table(references: Sequence[Reference]) -> Table:
    """What is reported of the search, a row a method.

    Args:
        references: of a paper; those of the table "nas" are shown.
    """
    own = [reference for reference in references if reference.table == "nas"]
    found = {(r.method, r.condition, r.metric): r for r in sorted(own, key=lambda r: r.primary)}
    places = (
        *(("whole space", "accuracy"), ("whole space", "correlation"), ("top 20 %", "correlation")),
        *(("whole space", "minutes"), ("whole space", "images")),
    )
    rows = []
    for method in dict.fromkeys(reference.method for reference in own):
        entries = [found.get((method, *place)) for place in places]
        correlations = [r for r in own if r.method == method and r.metric == "correlation"]
        few = [r for r in correlations if r.condition.startswith("top") and r.condition != "top 20 %"]
        told = ", ".join(f"{r.condition} {_reported(r)}" for r in few) or "-"
        source = next(r.source for r in own if r.method == method)
        texts = [*map(_reported, entries)]
        if few or any(entries):
            rows.append((method, *texts[:3], told, *texts[3:], source))
    return Table("As reported.", REPORTED_COLUMNS, (("CIFAR-10, 720 networks", tuple(rows)),))


def _reported(reference: Reference | None) -> str:
    if reference is None:
        return "-"
    return reference.state if reference.value is None else f"{reference.value:g}"


def proxy_scatter(networks: Sequence[Mapping[str, Any]], reference: str) -> Picture:
    """Accuracy on all data against accuracy on each proxy, a point a network, the proxy's winner in a ring.

    Args:
        networks: rows of "network" and the accuracy (percent) by each method.
        reference: the method that has all data.
    """
    labels = [key for key in (networks[0] if networks else {}) if key not in ("network", reference)]
    if not labels:
        return note("nothing was searched")
    shades, rows = colors(labels), -(-len(labels) // PANELS)
    figure = picture(WIDTH, 0.3 + 2.2 * rows, layout="constrained")
    with styled():
        axes = figure.subplots(rows, min(PANELS, len(labels)), sharey=True, squeeze=False)
        for ax, label in zip(axes.flat, labels, strict=False):
            _draw_points(ax, [r[label] for r in networks], [r[reference] for r in networks], shades[label])
            ax.set_title(label)
        for ax in [*axes.flat][len(labels) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel("accuracy on all data (%)")
        for ax in [*axes.flat][: len(labels)][-axes.shape[1] :]:
            ax.set_xlabel("accuracy on the set (%)")
        point = {"linestyle": "", "marker": "o", "color": GREY}
        ring = {"linestyle": "", "marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": "black"}
        legend_below(
            figure, [Line2D([], [], label="network", **point), Line2D([], [], label="best on the set", **ring)]
        )
    return figure


def _draw_points(ax: Axes, ours: Sequence[float], full: Sequence[float], color: str) -> None:
    ax.scatter(ours, full, s=14, color=color, alpha=0.8, linewidths=0)
    best = int(np.argmax(ours))
    ax.scatter([ours[best]], [full[best]], s=80, facecolors="none", edgecolors="black", linewidths=1)


def correlation_bars(correlations: Sequence[Mapping[str, Any]], *, kind: str = "spearman") -> Picture:
    """Rank correlation with all data, a group of bars for all networks, the top 20 % and the top 10, with intervals.

    Args:
        correlations: as `search_table`.
        kind: "spearman" or "kendall".
    """
    rows = [row for row in correlations if row["kind"] == kind and row["value"] is not None]
    if not rows:
        return note("nothing to correlate")
    labels, groups = (list(dict.fromkeys(row[key] for row in rows)) for key in ("method", "among"))
    shades, width = colors(labels), 0.8 / len(labels)
    counts = {row["among"]: row["networks"] for row in rows}
    figure = picture(WIDTH, 3.0, layout="constrained")
    with styled():
        ax = figure.subplots()
        for row in rows:
            x = groups.index(row["among"]) + (labels.index(row["method"]) - (len(labels) - 1) / 2) * width
            ax.bar(x, row["value"], 0.9 * width, color=shades[row["method"]], linewidth=0)
            if row["low"] is not None:
                ax.plot([x, x], [row["low"], row["high"]], color="black", linewidth=0.9)
        ax.axhline(0, color="black", linewidth=0.7)
        ax.set_xticks(range(len(groups)), [f"{name}\n({counts[name]} networks)" for name in groups])
        name = {"spearman": "Spearman's rho", "kendall": "Kendall's tau-b"}[kind]
        ax.set(ylabel=f"{name} with all data", ylim=(-1.02, 1.02))
        handles = [Line2D([], [], linestyle="", marker="s", color=c, label=name) for name, c in shades.items()]
        handles.append(Line2D([], [], color="black", linewidth=0.9, marker="|", label="95 % interval"))
        legend_below(figure, handles)
    return figure
