"""The report as a folder of pages."""

import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddlib import OUTPUT, __version__, results
from ddlib.data import snapshots
from ddlib.report.site import claims, figures, gallery, markdown, tables
from ddlib.report.site.figures import Figure
from ddlib.report.site.runs import Run, gathered, read_notebook
from ddlib.store import files
from ddlib.store.provenance import checkout
from ddlib.study.parameters import PROFILES

ACROSS = "compare"
NAMES = {"dim": "DiM", ACROSS: "Across papers"}
"""What is not called by its folder's name in capitals."""

MARK = "index.html"


def build(output: Path | None = None, profiles: Sequence[str] = ()) -> Path:
    """Write the report and return its front page.

    The folder is written whole or not at all; an earlier report there is replaced.

    Args:
        output: the folder; default: `report/` under `ddlib.OUTPUT`.
        profiles: those to show; none: all.

    Raises:
        ValueError: a profile is unknown, or `output` is there and is no report.
        OSError: the folder cannot be written; the message names it.
    """
    output = Path(output or OUTPUT / "report")
    wrong = [profile for profile in profiles if profile not in PROFILES]
    if wrong:
        raise ValueError(f"profiles contain {wrong[0]!r}; allowed: {', '.join(PROFILES)}")
    if output.exists() and not _is_report(output):
        raise ValueError(
            f"output={str(output)!r} is there and is no report; allowed: a new folder, or a report's alone"
        )
    read_notebook.cache_clear()
    with files.whole_folder(output) as folder:
        _write(folder, gathered(tuple(profiles) or PROFILES))
    return output / MARK


def _is_report(folder: Path) -> bool:
    """Whether a folder holds nothing but a report, by the report's own list of files; or nothing at all."""
    if not folder.is_dir() or files.foreign(folder):
        return False
    return not any(folder.iterdir()) or (folder / MARK).is_file()


def _write(folder: Path, runs: Sequence[Run]) -> None:
    static = resources.files("ddlib.report.site") / "static"
    with resources.as_file(static) as assets:
        shutil.copytree(assets, folder / "assets")
    (folder / "assets" / "code.css").write_text(markdown.code_style(), encoding="utf-8")
    pages = _Pages(folder)
    drawn = {(run.name, run.profile): figures.collected(run, folder) for run in runs}
    verdicts = {paper: claims.verdicts(paper, runs) for paper in results.papers()}
    shared = {"runs": runs, "figures": drawn, "verdicts": verdicts}
    pages.write(MARK, "index.html.j2", hero=_hero(drawn), **shared)
    for paper in _papers():
        own = [run for run in runs if run.paper == paper]
        pages.write(f"paper/{paper}.html", "paper.html.j2", **shared | {"paper": paper, "own": own})
    for run in {run.page: run for run in runs if run.notebook}.values():
        _notebook(pages, run, drawn)
    shown = gallery.sprites(runs, folder)
    pictures = [one for found in drawn.values() for one in found if one.what in figures.PICTURES]
    pages.write("gallery.html", "gallery.html.j2", sprites=shown, pictures=pictures, **_choices(shown))


def _hero(drawn: Mapping[tuple[str, str], Sequence[Figure]]) -> Figure | None:
    """The picture of the front page: the images of all papers beside one another; None where there are none."""
    found = drawn.get((f"{ACROSS}/tour", "quick"), ())
    return next((figure for figure in found if figure.what in figures.PICTURES), None)


def _notebook(pages: "_Pages", run: Run, drawn: Mapping[Any, Sequence[Figure]]) -> None:
    """The page of a notebook as executed, or as committed."""
    notebook = (read_notebook(run.executed) if run.executed else None) or run.notebook
    found = drawn[run.name, run.profile] if run.executed else []
    content = markdown.body(notebook, run.title)
    pages.write(run.page, "notebook.html.j2", run=run, content=content, figures=found)


def _choices(sprites: Sequence[gallery.Sprite]) -> dict[str, Any]:
    """What can be chosen on the gallery's page: data sets, images per class, and places on the slider."""
    return {
        "datasets": sorted({sprite.dataset for sprite in sprites}),
        "amounts": sorted({sprite.ipc for sprite in sprites}),
        "places": snapshots.FRACTIONS,
    }


class _Pages:
    """Writes pages from templates into a folder."""

    def __init__(self, folder: Path):
        commit, dirty = checkout()
        told = {
            "version": __version__,
            "commit": commit and commit[:7] + (", modified" if dirty else ""),
            "papers": _papers(),
            "called": _called,
            "paper_title": _title,
            "tables": tables,
            "markdown": markdown,
            "signed": claims.signed,
        }
        loader = PackageLoader("ddlib.report.site", "templates")
        self._folder = folder
        self._templates = Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
        )
        self._templates.globals.update(told)

    def write(self, path: str, template: str, **told: Any) -> None:
        """Render one page; `root` leads from it back to the report's folder."""
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        text = self._templates.get_template(template).render(root="../" * path.count("/"), here=path, **told)
        target.write_text(text, encoding="utf-8")


def _papers() -> tuple[str, ...]:
    """The folders that have a page: every paper, and what compares them."""
    return (*results.papers(), ACROSS)


def _called(paper: str) -> str:
    return NAMES.get(paper, paper.upper())


def _title(paper: str) -> str:
    return results.title(paper) if paper in results.papers() else "All papers under one protocol"
