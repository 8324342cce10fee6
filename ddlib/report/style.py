"""The look of every figure, the footer that says where its numbers come from, and figures as files."""

import io
import itertools
import json
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from ddlib import OUTPUT
from ddlib.results import joined
from ddlib.store.files import write_whole

PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
"""Okabe and Ito's colours, told apart with any colour vision; grey is left to random images."""

STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so that every machine draws the same
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "black",
    "axes.grid.axis": "y",
    "patch.force_edgecolor": False,
    "ytick.left": True,
    "ytick.major.size": 3,
    "svg.fonttype": "path",  # letters as outlines: the file needs no font
    "svg.hashsalt": "ddlib",  # names inside the file that do not change from run to run
    "image.composite_image": False,
}
"""What figures change in seaborn's style "whitegrid" and context "paper"."""

GREY = "#999999"
GREYS = (GREY, "#c8c8c8", "#666666")
"""Of rows of random images, in order."""

WIDTH = 6.4  # inches: the text width of a page

LIMIT = 200_000
"""Greatest size of a figure's file, in bytes."""

RESOLUTIONS = (220, 180, 150, 120, 100, 80)
"""Dots per inch; the first that keeps a PNG within `LIMIT` is taken."""


@contextmanager
def styled() -> Iterator[None]:
    """Seaborn's theme with `STYLE` inside the block, and what was there before after it; a decorator too."""
    import seaborn

    theme = seaborn.axes_style("whitegrid") | seaborn.plotting_context("paper", font_scale=0.93) | STYLE
    with matplotlib.rc_context(theme):
        yield


def set_theme() -> None:
    """The same theme from now on, for the figures that a notebook draws with seaborn itself."""
    import seaborn

    seaborn.set_theme(context="paper", style="whitegrid", font_scale=0.93, rc=STYLE)


class Picture(Figure):
    """A figure that shows itself in a notebook and is registered nowhere."""

    def _repr_png_(self) -> bytes:
        return render(self, "png", dpi=120)


@styled()
def note(text: str) -> Picture:
    """A figure that says why there is nothing to draw."""
    figure = Picture(figsize=(WIDTH, 0.6))
    figure.text(0.0, 0.5, text, va="center", color=GREY)
    return figure


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """A legend right of all panels; where everything stands is settled by it."""
    figure.legend(handles=handles, loc="outside right upper")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour for every label: greys in order for random images, the palette for the others."""
    greys, others = itertools.cycle(GREYS), itertools.cycle(PALETTE)
    is_random = {label: label.casefold().startswith("random") for label in labels}
    return {label: next(greys if random else others) for label, random in is_random.items()}


def footer(provenance: Mapping[str, Any]) -> str:
    """One line on where numbers come from: ddlib's version, commits, dates, torch's version, devices.

    What was `distilled` earlier is included.
    """
    distilled = provenance.get("distilled")
    whole = joined([provenance, distilled] if distilled else [provenance])
    versions = whole.get("versions") or {}
    commits = [commit[:7] for commit in _entries(whole.get("commit"))]
    changed = " (modified)" if whole.get("dirty") else ""
    parts = [
        f"ddlib {several(_entries(versions.get('ddlib')))}".rstrip(),
        f"commit{'s' * (len(commits) > 1)} {several(commits)}{changed}" if commits else "",
        several(_entries(whole.get("date")), " to "),
        f"torch {several(_entries(versions['torch']))}" if "torch" in versions else "",
        several(_entries(whole.get("device")), " and "),
    ]
    return " · ".join(filter(None, parts))


def _entries(value: Any) -> list[str]:
    """The entries of a joined provenance that say something."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if entry]


def several(entries: Sequence[str], between: str = ", ", *, most: int = 3) -> str:
    """The first few entries, and how many more there are."""
    more = [f"{len(entries) - most} more"] if len(entries) > most else []
    return between.join([*entries[:most], *more])


@styled()
def render(figure: Figure, kind: str, *, dpi: float, provenance: str | None = None) -> bytes:
    """The bytes of `figure` as "png" or "svg", cut to what is drawn; without date or version of a program."""
    metadata = {
        "png": {"Software": None, "provenance": provenance},
        "svg": {"Date": None, "Creator": "ddlib", "Description": provenance},
    }[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, bbox_inches="tight", pad_inches=0.05, metadata=metadata)
    return buffer.getvalue()


def save(
    fig: Figure,
    name: str,
    *,
    provenance: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> tuple[Path, ...]:
    """Write `fig` as `<folder>/<name>.png` and `.svg`; the same data give the same bytes.

    The PNG is at most `LIMIT` bytes, at the finest of `RESOLUTIONS` that allows it.  An SVG beyond that, as of large
    photographs, is not written, and one of an earlier run is removed.  The paths written are returned, the PNG first.

    Args:
        name: without an ending, e.g. "atom/accuracy.quick.bars".
        provenance: written into the files (PNG: text `provenance`; SVG: the description), in brief below the figure.
        folder: default `figures/` under `ddlib.OUTPUT`.

    Raises:
        ValueError: `name` leads out of the folder, or no resolution is coarse enough.
        OSError: the folder cannot be written; the message names the path.
    """
    inside = PurePosixPath(name)
    if not name or inside.is_absolute() or ".." in inside.parts or inside.suffix in (".png", ".svg"):
        raise ValueError(f"name={name!r}; allowed: a path within the folder, without an ending: 'atom/accuracy.quick'")
    target = Path(folder or OUTPUT / "figures") / inside
    text = json.dumps(dict(provenance or {}), sort_keys=True, allow_nan=False)
    with _footed(fig, footer(provenance)) if provenance else nullcontext():
        for dpi in RESOLUTIONS:
            png = render(fig, "png", dpi=dpi, provenance=text)
            if len(png) <= LIMIT:
                break
        else:
            raise ValueError(f"{name}: {len(png)} bytes at {dpi} dpi, more than {LIMIT}; show fewer images")
        svg = render(fig, "svg", dpi=72, provenance=text)
    paths = [write_whole(f"{target}.png", png)]
    if len(svg) <= LIMIT:
        paths.append(write_whole(f"{target}.svg", svg))
    else:
        Path(f"{target}.svg").unlink(missing_ok=True)
    return tuple(paths)


@contextmanager
def _footed(fig: Figure, text: str) -> Iterator[None]:
    """`fig` with small print below everything else, no wider than it, inside the block."""
    with styled():
        fig.draw_without_rendering()  # settles the layout
        box = fig.get_tightbbox()
        width, height = fig.get_size_inches()
        text = textwrap.fill(text, max(60, int(20 * box.width)))  # 20 letters of small print an inch
        look = {"fontsize": 6, "color": "#666666", "va": "top", "parse_math": False}
        small_print = fig.text(box.x0 / width, (box.y0 - 0.08) / height, text, **look)
    try:
        yield
    finally:
        small_print.remove()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What `save` wrote into a figure's file on where its numbers come from; empty if it was given nothing.

    A ValueError names a file that is neither PNG nor SVG, is damaged, or carries none; FileNotFoundError without one.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"path={str(path)!r}; allowed: a .png or .svg file")
    try:
        if path.suffix == ".png":
            with Image.open(path, formats=["PNG"]) as image:
                text = image.info.get("provenance")
        else:
            text = ElementTree.parse(path).findtext(".//{http://purl.org/dc/elements/1.1/}description")
        if text is not None:
            return json.loads(text)
    except (ValueError, SyntaxError, OSError) as error:  # in its JSON, its XML or its image data
        if isinstance(error, OSError) and error.errno is not None:  # the file itself cannot be read
            raise
        raise ValueError(f"{path} is damaged: {error}") from error
    raise ValueError(f"{path} carries no provenance")
