"""The report to read in a browser: every claim with its evidence, a page a paper, every notebook.

Pages are filled into one template, notebooks are as nbconvert has them.  Every page opens from the file system; the
equations of notebooks alone are set by a script from the network, and without it stand as LaTeX.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from nbconvert import HTMLExporter

from ddlib import OUTPUT, __version__, results
from ddlib.report import evidence, stale
from ddlib.report.evidence import Run
from ddlib.report.style import footer, read_provenance
from ddlib.report.tables import claims_table, table
from ddlib.store import files
from ddlib.store.provenance import checkout
from ddlib.study import notebooks

ACROSS = "compare"
"""The folder of notebooks that compare papers."""


def build(output: Path | None = None) -> Path:
    """Write the site, whole or not at all, in place of an earlier one, and return its front page.

    It goes to the folder `output`, by default `report/` under `ddlib.OUTPUT`; a ValueError where that is there and is
    no site, an OSError that names it where it cannot be written.
    """
    output = Path(output or OUTPUT / "report")
    is_site = output.is_dir() and not files.foreign(output) and (output / "index.html").is_file()
    is_empty = output.is_dir() and not any(output.iterdir())
    if output.exists() and not is_site and not is_empty:
        raise ValueError(f"output='{output}' is there and is no report; allowed: a new folder, or a report's alone")
    with files.whole_folder(output) as folder:
        write(folder)
    return output / "index.html"


def write(folder: Path) -> None:
    """Write every page of the site into a new folder."""
    papers = [*results.papers(), ACROSS]
    runs, damaged = evidence.read_runs(sorted((OUTPUT / "results").glob("*/*.json")))
    template = _template(papers)

    def page(path: str, title: str, **values: Any) -> None:
        (folder / path).write_text(template.render(path=path, title=title, **values), encoding="utf-8")

    sources = {f"notebook/{name}.html": notebooks.path_of(name) for name in notebooks.names()}
    for path in sorted((OUTPUT / "runs" / "notebooks").glob("*/*.ipynb")):
        sources[f"notebook/{path.parent.name}/{path.stem}.html"] = path
    exporter = HTMLExporter(embed_images=True)
    for place, path in [*sources.items()]:
        try:
            notebook = nbformat.read(path, as_version=4)
        except ValueError as error:  # half of one, as a full disk leaves it
            damaged[f"{path.parent.name}/{path.name}"] = f"{path.name}: {str(error)[:100]}"
            del sources[place]
            continue
        text, _ = exporter.from_notebook_node(notebook)
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text, encoding="utf-8")
    verdicts = {paper: evidence.verdicts(paper, runs) for paper in results.papers()}
    testers = {name: evidence.claims_of(name) for name in notebooks.names()}
    page("index.html", "Claims", verdicts=verdicts, testers=testers, claims_table=claims_table)
    reasons = stale.reasons()
    for paper in papers:
        own = [(run, _tables(run), _figures(run, folder, reasons)) for run in runs if run.paper == paper]
        counts = Counter(record.verdict for run, _, _ in own for record in run.records)
        faults = {name: damaged[name].replace(str(OUTPUT), ".") for name in damaged if name.startswith(f"{paper}/")}
        pages = [place for place in sources if place.startswith(f"notebook/{paper}/")]
        page(f"{paper}.html", paper, runs=own, counts=counts, reasons=reasons, damaged=faults, pages=pages)


def _template(papers: Sequence[str]) -> Any:
    """The template of all pages, with what each may use."""
    environment = Environment(
        loader=PackageLoader("ddlib.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    commit, modified, _ = checkout()
    environment.globals.update(
        made_by=f"ddlib {__version__}" + (f", commit {commit[:7]}{', modified' * bool(modified)}" if commit else ""),
        titles={paper: "Across papers" if paper == ACROSS else results.title(paper) for paper in papers},
    )
    return environment.get_template("site.html.jinja")


def _tables(run: Run) -> list[Markup]:
    """The table of a run's records, as the notebook shows it, or each table that it measured."""
    import pandas

    if run.records:
        return [Markup(table(run.records)._repr_html_())]
    frames = [pandas.DataFrame(rows) for rows in run.measured.tables.values()] if run.measured else []
    texts = [frame.to_html(index=False, border=0, na_rep="–", float_format="{:.4g}".format) for frame in frames]
    return [Markup(f'<div style="overflow-x:auto">{text}</div>') for text in texts]


def _figures(run: Run, folder: Path, reasons: Mapping[str, Sequence[str]]) -> list[tuple[str, str, Sequence[str]]]:
    """Place in the site, provenance and reasons to be stale of each figure: the SVG, or the PNG where there is none."""
    paths = sorted((OUTPUT / "figures").glob(f"{run.slug}.*"))
    figures = []
    for path in {path.stem: path for path in paths if path.suffix in stale.KINDS}.values():
        place = f"figures/{run.paper}/{path.name}"
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)
        try:
            origin = footer(read_provenance(path))
        except ValueError:
            origin = "carries no provenance"
        figures.append((place, origin, reasons.get(path.relative_to(OUTPUT).as_posix(), ())))
    return figures
