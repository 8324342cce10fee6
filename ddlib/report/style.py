"""The look of every figure, and the footer that says where its numbers come from."""

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddlib.results import joined

STYLE = MappingProxyType(
    {
        "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.title_fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "xtick.major.size": 0,
        "ytick.major.size": 3,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "svg.fonttype": "path",  # letters as outlines: the file needs no font
        "svg.hashsalt": "ddlib",  # names inside the file that do not change from run to run
        "image.composite_image": False,
    }
)
"""The settings of matplotlib that hold while a figure is made or drawn."""

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""Okabe and Ito's colours, told apart with any colour vision; grey is left to random images."""

MARKERS = ("o", "s", "^", "v", "P", "X", "<", ">")
"""Of lines, in order, so that they are told apart without colour too."""

GREY = "#999999"
WIDTH = 6.4  # inches: the text width of a page
SCREEN_DPI = 120
LETTER = 0.075  # inches: the width of a digit below an axis
SHOWN = 3  # commits or devices in a footer


def styled() -> AbstractContextManager[None]:
    """The style inside the block, and what was there before after it."""
    return matplotlib.rc_context(dict(STYLE))


class Picture(Figure):
    """A figure that shows itself in a notebook and is registered nowhere."""

    def _repr_png_(self) -> bytes:
        return render(self, "png", dpi=SCREEN_DPI)


def picture(width: float, height: float, **options: Any) -> Picture:
    """An empty figure of `width` x `height` inches in the style."""
    with styled():
        return Picture(figsize=(width, height), **options)


def legend_below(figure: Picture, handles: Sequence[Any], *, columns: int = 4) -> None:
    """A legend along the lower edge, where it stays when small print is added below; the layout is settled by it."""
    legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)


def note(text: str) -> Picture:
    """A figure that says why there is nothing to draw."""
    figure = picture(WIDTH, 0.6)
    with styled():
        figure.text(0.0, 0.5, text, va="center", color=GREY)
    return figure


def render(figure: Figure, kind: str, *, dpi: float, metadata: Mapping[str, str | None] | None = None) -> bytes:
    """The bytes of `figure` as "png" or "svg", cut to what is drawn; without date or version of a program."""
    blank = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "ddlib"}}[kind]
    buffer = io.BytesIO()
    with styled():
        figure.savefig(
            buffer, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.05, metadata=blank | dict(metadata or {})
        )
    return buffer.getvalue()


def colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour for every label: grey for random images, the palette in order for the others."""
    others = [label for label in labels if not is_random(label)]
    cycle = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(others)}
    return {label: cycle.get(label, GREY) for label in labels}


def ticks_at(
    ax: Axes, values: Sequence[float], *, inches: float, names: Mapping[float, str] = MappingProxyType({})
) -> None:
    """A tick at every value of the horizontal axis, numbered where there is room, the last one always; none between.

    Args:
        values: rising, at least one; scale and limits of the axis are set already.
        inches: about how long the axis is.
        names: of values that are not called by their number.
    """
    texts = {value: names.get(value, str(value)) for value in values}
    numbered: dict[float, tuple[float, float]] = {}
    for value in (values[-1], *values[:-1]):
        place = inches * ax.transAxes.inverted().transform(ax.transData.transform((value, ax.get_ylim()[1])))[0]
        half = LETTER * (len(texts[value]) + 1) / 2
        if all(abs(place - other) >= half + its_half for other, its_half in numbered.values()):
            numbered[value] = place, half
    ax.set_xticks(values, [texts[value] if value in numbered else "" for value in values])
    ax.set_xticks([], minor=True)
    ax.tick_params(axis="x", which="major", length=3)


def is_random(label: str) -> bool:
    """Whether a row's label stands for random real images."""
    return label.casefold().startswith("random")


def footer(provenance: Mapping[str, Any]) -> str:
    """One line on where numbers come from: ddlib's version, commits, dates, torch's version, devices.

    What was distilled earlier, elsewhere or by other code than it was evaluated by counts too.

    Args:
        provenance: of a record, or joined over several; `versions`, `commit`, `dirty`, `date`, `device` and `distilled`
            are used, as far as they are there.
    """
    whole = joined([provenance, *filter(None, [provenance.get("distilled")])])
    versions = whole.get("versions") or {}
    commits = [commit[:7] for commit in _known(whole.get("commit"))]
    parts = [
        f"ddlib {_several(versions.get('ddlib'), ', ')}".rstrip(),
        f"commit{'s' * (len(commits) > 1)} {_several(commits, ', ')}" if commits else "",
        _several(whole.get("date"), " to "),
        f"torch {_several(versions['torch'], ', ')}" if "torch" in versions else "",
        _several(whole.get("device"), " and "),
    ]
    parts[1] += " (modified)" if commits and whole.get("dirty") else ""
    return " · ".join(part for part in parts if part)


def _known(value: Any) -> list[str]:
    """The entries of a joined provenance that say something."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if entry]


def _several(value: Any, between: str) -> str:
    """The first few entries, and how many more there are."""
    entries = _known(value)
    more = [f"{len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return between.join([*entries[:SHOWN], *more])
