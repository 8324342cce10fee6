"""The pages of the site, from templates."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ddlib import OUTPUT, PROFILES, __version__, report, results
from ddlib.data import snapshots
from ddlib.report.site import claims, gallery, notebook
from ddlib.report.site.runs import Run, gathered, read_notebook
from ddlib.store import files
from ddlib.store.provenance import checkout

ACROSS = "compare"
"""The folder of notebooks that compare papers."""

NAMES = {"dim": "DiM", ACROSS: "Across papers"}
"""What is not called by its folder's name in capitals."""

FRONT = "index.html"

PICTURES = ("images", "samples", "strips", "panels")
"""What figures that show synthetic images are called."""


def build(output: Path | None = None, profiles: Sequence[str] = ()) -> Path:
    """Write the site and return its front page.

    The folder is written whole or not at all; an earlier site there is replaced.

    Args:
        output: the folder; default: `report/` under `ddlib.OUTPUT`.
        profiles: those to show; none: all.

    Raises:
        ValueError: a profile is unknown, or `output` is there and is no site.
        OSError: the folder cannot be written; the message names it.
    """
    output = Path(output or OUTPUT / "report")
    if wrong := [profile for profile in profiles if profile not in PROFILES]:
        raise ValueError(f"profiles contain {wrong[0]!r}; allowed: {', '.join(PROFILES)}")
    if output.exists() and not _is_site(output):
        raise ValueError(
            f"output={str(output)!r} is there and is no report; allowed: a new folder, or a report's alone"
        )
    read_notebook.cache_clear()
    with files.whole_folder(output) as folder:
        write(folder, gathered(tuple(profiles) or PROFILES))
    return output / FRONT


def _is_site(folder: Path) -> bool:
    """Whether a folder holds nothing but a site, by the site's own list of files; or nothing at all."""
    if not folder.is_dir() or files.foreign(folder):
        return False
    return not any(folder.iterdir()) or (folder / FRONT).is_file()


@dataclass(frozen=True)
class Figure:
    """A figure in the site: its path and its anchor there, where its numbers come from, and why it is stale."""

    run: Run
    path: str
    anchor: str
    footer: str
    stale: Sequence[str]

    @property
    def name(self) -> str:
        """What it shows, such as "bars"."""
        return self.anchor.rpartition(".")[2]


def write(folder: Path, runs: Sequence[Run]) -> None:
    """Write every page of the site into a new folder."""
    with resources.as_file(resources.files("ddlib.report.site") / "static") as static:
        shutil.copytree(static, folder / "assets")
    (folder / "assets" / "code.css").write_text(notebook.code_style(), encoding="utf-8")
    templates = _templates()

    def page(path: str, template: str, **values: Any) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = templates.get_template(template).render(root="../" * path.count("/"), here=path, **values)
        (folder / path).write_text(text, encoding="utf-8")

    papers = [*results.papers(), ACROSS]
    figures = {(run.name, run.profile): [_figure(run, path, folder) for path in run.figures] for run in runs}
    verdicts = {paper: claims.verdicts(paper, runs) for paper in results.papers()}
    counts = {paper: Counter() for paper in papers}
    for run in (run for run in runs if run.paper in counts):
        counts[run.paper].update(record.verdict for record in run.records)
    page(FRONT, "index.html.j2", verdicts=verdicts, figures=figures, counts=counts)
    for paper in papers:
        own = [run for run in runs if run.paper == paper]
        page(f"paper/{paper}.html", "paper.html.j2", paper=paper, runs=own, verdicts=verdicts, figures=figures)
    for run in {run.page: run for run in runs if run.notebook}.values():
        content = notebook.body(run.executed or run.notebook, run.title)
        page(run.page, "notebook.html.j2", run=run, content=content)
    pictures = [figure for group in figures.values() for figure in group if figure.name in PICTURES]
    sprites = gallery.sprites(folder)
    page("gallery.html", "gallery.html.j2", sprites=sprites, pictures=pictures, places=snapshots.FRACTIONS)


def _templates() -> Environment:
    """The templates, with what they all may use."""
    loader = PackageLoader("ddlib.report.site", "templates")
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    papers = results.papers()
    commit, modified = checkout()
    environment.globals.update(
        version=__version__,
        commit=commit and commit[:7] + (", modified" if modified else ""),
        names={paper: NAMES.get(paper, paper.upper()) for paper in (*papers, ACROSS)},
        titles={paper: results.title(paper) for paper in papers} | {ACROSS: "All papers under one protocol"},
        outcomes=results.VERDICTS,
        signed=claims.signed,
        notebook=notebook,
        tables=_tables,
    )
    return environment


def _figure(run: Run, path: Path, folder: Path) -> Figure:
    """A figure, copied into the site."""
    copy = f"figures/{run.paper}/{path.name}"
    (folder / copy).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / copy)
    stale = run.stale.get(path.relative_to(OUTPUT).as_posix(), ())
    try:
        footer = report.footer(report.read_provenance(path))
    except ValueError:
        footer = "carries no provenance"
    return Figure(run, copy, f"{run.paper}/{path.stem}", footer, stale)


def _tables(run: Run) -> list[Markup]:
    """The table of a run's records, as the notebook shows it, or each table that it measured."""
    if run.records:
        return [notebook.scrollable(report.table(run.records)._repr_html_())]
    frames = [pandas.DataFrame(rows) for rows in run.measured.tables.values()] if run.measured else []
    texts = [frame.to_html(index=False, border=0, na_rep="–", float_format="{:.4g}".format) for frame in frames]
    return [notebook.scrollable(text) for text in texts]
