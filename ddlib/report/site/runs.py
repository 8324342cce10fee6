"""What the report tells of: every notebook at every profile, with the results, figures and pages that there are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from ddlib import OUTPUT, results
from ddlib.report import stale
from ddlib.results import Measurements, Record
from ddlib.study import notebooks
from ddlib.study.parameters import PROFILES

COST = re.compile(r"^\|\s*`(\w+)`[^|]*\|(?P<data>[^|]*)\|(?P<cost>[^|]*)\|", re.MULTILINE)
"""A line of the table of profiles that every notebook begins with."""


@dataclass(frozen=True)
class Run:
    """A notebook at a profile.

    name: `paper/experiment`, or one of its `notebooks.variants`.
    profile: quick, hour or paper.
    records, measured: what its results file holds; neither where there is none.
    problem: why the results, or the notebook, cannot be read; empty if nothing is wrong.
    executed: the notebook as executed here, or None.
    stale: path of a product relative to `ddlib.OUTPUT` -> why it is stale.
    """

    name: str
    profile: str
    records: tuple[Record, ...] = ()
    measured: Measurements | None = None
    problem: str = ""
    executed: Path | None = None
    stale: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def paper(self) -> str:
        """The folder that the notebook lies in: a paper, or "compare"."""
        return self.name.partition("/")[0]

    @property
    def slug(self) -> str:
        """`experiment.profile`, with which the names of its products begin."""
        return f"{self.name.partition('/')[2]}.{self.profile}"

    @property
    def anchor(self) -> str:
        """Its place on the paper's page."""
        return f"run-{self.slug}"

    @property
    def order(self) -> int:
        """Its profile's place among the profiles."""
        return PROFILES.index(self.profile)

    @property
    def has_results(self) -> bool:
        """Whether a results file was read."""
        return bool(self.records) or self.measured is not None

    @property
    def page(self) -> str:
        """The notebook's page, relative to the report: as executed at this profile, or as it is committed."""
        if self.executed:
            return f"notebook/{self.paper}/{self.slug}.html"
        return f"notebook/{self.name.partition('.')[0]}.html"

    @property
    def results_path(self) -> str:
        """The results file, relative to `ddlib.OUTPUT`."""
        return f"results/{self.name}.{self.profile}.json"

    @property
    def why_stale(self) -> Sequence[str]:
        """Why the results are stale; empty if they are not."""
        return self.stale.get(self.results_path, ())

    @cached_property
    def notebook(self) -> NotebookNode | None:
        """The committed notebook; None where there is none (any more)."""
        return read_notebook(notebooks.path_of(self.name))

    @property
    def title(self) -> str:
        """The first heading of the notebook, or its name."""
        heading = self.notebook and re.search(r"^# (.+)$", self.notebook.cells[0].source, re.MULTILINE)
        return heading[1] if heading else self.name

    @property
    def told_cost(self) -> tuple[str, str]:
        """What the notebook says that it works on at this profile, and what that takes; two empty texts if nothing."""
        lines = COST.finditer(self.notebook.cells[0].source) if self.notebook else ()
        return next(((m["data"].strip(), m["cost"].strip()) for m in lines if m[1] == self.profile), ("", ""))

    @property
    def figures(self) -> list[Path]:
        """One file for each figure, in the notebook's order: the SVG, or the PNG where there is none."""
        found = {path.stem: path for kind in ("png", "svg") for path in self._drawn(kind)}
        source = "\n".join(cell.source for cell in self.notebook.cells) if self.notebook else ""
        return sorted(found.values(), key=lambda path: (_position(source, what_of(path)), path.name))

    def _drawn(self, kind: str) -> list[Path]:
        return [path for path in (OUTPUT / "figures").glob(f"{self.name}.{self.profile}.*.{kind}")]

    @property
    def dataset(self) -> str:
        """The data set that the notebook works on at this profile, "data not told" where that cannot be told."""
        try:
            return str(notebooks.parameters(self.name, self.profile)["dataset"])
        except (ValueError, OSError, KeyError):
            return "data not told"

    @cached_property
    def cells(self) -> Sequence[Any]:
        """The notebook's cells at this profile; none where that cannot be told."""
        try:
            return notebooks.cells(self.name, self.profile)
        except (ValueError, OSError):
            return ()

    @cached_property
    def planned(self) -> Sequence[Record]:
        """A record of each cell, as if it had been run; its accuracies say nothing."""
        return [
            Record.of(
                (50.0, 50.0),
                label=cell.label,
                method=cell.method.name,
                dataset=cell.dataset,
                ipc=cell.ipc,
                cell=cell.settings(),
            )
            for cell in self.cells
        ]


def what_of(figure: Path) -> str:
    """What a figure shows, the last part of its name: "bars" of `accuracy.quick.bars.svg`."""
    return figure.stem.rpartition(".")[2]


def _position(source: str, what: str) -> int:
    """Where a notebook saves a figure; the end of it for one that it does not save."""
    at = source.find(f'.{what}"')
    return at if at >= 0 else len(source)


@cache
def read_notebook(path: Path) -> NotebookNode | None:
    """A notebook; None where there is none or it cannot be read, such as one that is being written."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return None


def gathered(profiles: Sequence[str] = PROFILES) -> list[Run]:
    """Every run that there is or could be at `profiles`, by paper, notebook and profile."""
    why: dict[str, list[str]] = {}
    for finding in stale.findings():
        why.setdefault(finding.path, []).append(finding.reason)
    known = _known() | {(name, profile) for name, profile in _with_results()}
    order = {profile: i for i, profile in enumerate(PROFILES)}
    chosen = [place for place in known if place[1] in profiles]
    return [_read(*place, why) for place in sorted(chosen, key=lambda place: (place[0], order[place[1]]))]


def _known() -> set[tuple[str, str]]:
    """(name, profile) of the notebooks of the repository; none outside a clone."""
    try:
        names = notebooks.names()
    except FileNotFoundError:
        return set()
    all_names = [(name, profile) for name in names for profile in PROFILES]
    found = {(name, profile) for name, profile in all_names if notebooks.has_profile(name, profile)}
    return found | {(one, profile) for name, profile in all_names for one in notebooks.variants(name, profile)}


def _with_results() -> list[tuple[str, str]]:
    found = []
    for path in (OUTPUT / "results").glob("*/*.json"):
        experiment, _, profile = path.stem.rpartition(".")
        found += [(f"{path.parent.name}/{experiment}", profile)] if profile in PROFILES and experiment else []
    return found


def _read(name: str, profile: str, why: Mapping[str, Sequence[str]]) -> Run:
    path = OUTPUT / "results" / f"{name}.{profile}.json"
    executed = OUTPUT / "runs" / "notebooks" / f"{name}.{profile}.ipynb"
    told = {"executed": executed if read_notebook(executed) else None, "stale": why}
    if not path.is_file():
        return Run(name, profile, **told)
    try:
        measured = results.read_measurements(path)
        records = () if measured else tuple(results.read(path))
    except ValueError as error:
        return Run(name, profile, problem=str(error).replace(str(OUTPUT), "."), **told)
    return Run(name, profile, records, measured, **told)
