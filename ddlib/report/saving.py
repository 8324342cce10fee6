"""Figures as files: PNG and vector, with their provenance inside."""

import json
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from ddlib import OUTPUT
from ddlib.report.style import footer, render, styled
from ddlib.store.files import write_whole

LIMIT = 200_000
"""Greatest size of a figure's file, in bytes."""

RESOLUTIONS = (220, 180, 150, 120, 100, 80)
"""Dots per inch, the first of which keeps a PNG within `LIMIT` is taken."""

LETTERS, NARROW = 20, 60
"""Of small print: how many go on an inch, and on the narrowest line."""


def save(
    fig: Figure,
    name: str,
    *,
    provenance: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> tuple[Path, ...]:
    """Write `fig` as `<folder>/<name>.png` and `.svg`, each whole or not at all; the same data give the same bytes.

    The PNG is at most `LIMIT` bytes, at the finest of `RESOLUTIONS` that allows it.  An SVG beyond that, which
    happens to large photographs alone, is not written, and one of an earlier run is removed.

    Args:
        fig: left as it was.
        name: without an ending, e.g. "atom/accuracy.quick.bars".
        provenance: written into the files (PNG: text `provenance`; SVG: the description, both JSON) and, in brief,
            below the figure.
        folder: default `figures/` under `ddlib.OUTPUT`; made if missing.

    Returns:
        The paths written, the PNG first.

    Raises:
        ValueError: `name` leads out of the folder, or no resolution is coarse enough.
        OSError: the folder cannot be written; the message names the path.
    """
    target = Path(folder or OUTPUT / "figures") / _checked(name)
    text = json.dumps(dict(provenance or {}), sort_keys=True, allow_nan=False)
    with _footed(fig, footer(provenance) if provenance else ""):
        png = _png(fig, name, {"provenance": text})
        svg = render(fig, "svg", dpi=72, metadata={"Description": text})
    paths = [write_whole(f"{target}.png", png)]
    vector = Path(f"{target}.svg")
    if len(svg) <= LIMIT:
        paths.append(write_whole(vector, svg))
    else:
        vector.unlink(missing_ok=True)
    return tuple(paths)


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What `save` wrote into a figure's file on where its numbers come from; empty if it was told nothing.

    Raises:
        ValueError: the file is neither PNG nor SVG, is damaged, or carries none; the message names it.
        OSError: it cannot be read.
    """
    path = Path(path)
    readers = {".png": _png_text, ".svg": _svg_text}
    if path.suffix not in readers:
        raise ValueError(f"path={str(path)!r}; allowed: a .png or .svg file")
    try:
        return json.loads(readers[path.suffix](path))
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} carries no provenance") from error
    except (ValueError, SyntaxError, UnidentifiedImageError) as error:  # in its JSON, its XML or its image data
        raise ValueError(f"{path} is damaged: {error}") from error


def _png_text(path: Path) -> str:
    with Image.open(path, formats=["PNG"]) as image:
        return image.info["provenance"]


def _svg_text(path: Path) -> str:
    return ElementTree.parse(path).find(".//{http://purl.org/dc/elements/1.1/}description").text


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or path.suffix in (".png", ".svg"):
        raise ValueError(f"name={name!r}; allowed: a path within the folder, without an ending: 'atom/accuracy.quick'")
    return path


def _png(fig: Figure, name: str, metadata: Mapping[str, str]) -> bytes:
    for dpi in RESOLUTIONS:
        content = render(fig, "png", dpi=dpi, metadata=metadata)
        if len(content) <= LIMIT:
            return content
    raise ValueError(f"{name}: {len(content)} bytes at {dpi} dpi, more than {LIMIT}; show fewer images")


@contextmanager
def _footed(fig: Figure, text: str) -> Iterator[None]:
    """`fig` with small print below everything else, no wider than it, inside the block."""
    if not text:
        yield
        return
    with styled():
        box = fig.get_tightbbox(FigureCanvasAgg(fig).get_renderer())
        width, height = fig.get_size_inches()
        text = textwrap.fill(text, max(NARROW, int(LETTERS * box.width)))
        print_ = fig.text(
            box.x0 / width, (box.y0 - 0.08) / height, text, fontsize=6, color="#666666", va="top", parse_math=False
        )
    try:
        yield
    finally:
        print_.remove()
