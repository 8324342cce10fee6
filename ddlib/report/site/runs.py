"""Every notebook at every profile, with the results, the figures and the notebook's text that there are."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ddlib import OUTPUT, PROFILES, results
from ddlib.report import stale
from ddlib.results import Measurements, Record
from ddlib.study import notebooks


@dataclass(frozen=True)
class Run:
    """A notebook at a profile.

    name: `paper/experiment`, or one of its `notebooks.variants`.
    profile: one of `ddlib.PROFILES`.
    records, measured: what its results file holds; neither where there is none.
    problem: why the results cannot be read; empty if they can.
    stale: path of a product relative to `ddlib.OUTPUT` -> why it is stale.
    """

    name: str
    profile: str
    records: tuple[Record, ...] = ()
    measured: Measurements | None = None
    problem: str = ""
    stale: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """With which the paths of its products begin."""
        return f"{self.name}.{self.profile}"

    @property
    def paper(self) -> str:
        """The folder that the notebook lies in: a paper, or "compare"."""
        return self.name.partition("/")[0]

    @property
    def file_name(self) -> str:
        """`paper/experiment` of the notebook's file, which its variants share."""
        return self.name.partition(".")[0]

    @property
    def page(self) -> str:
        """The notebook's page within the site: as executed at this profile, or as committed."""
        return f"notebook/{self.slug if self.executed else self.file_name}.html"

    @property
    def link(self) -> str:
        """The run's place within the site."""
        return f"paper/{self.paper}.html#{self.slug}"

    @property
    def why_stale(self) -> Sequence[str]:
        """Why the results are stale; empty if they are not."""
        return self.stale.get(f"results/{self.slug}.json", ())

    @cached_property
    def executed(self) -> NotebookNode | None:
        """The notebook as executed here at this profile; None where it was not."""
        return read_notebook(OUTPUT / "runs" / "notebooks" / f"{self.slug}.ipynb")

    @cached_property
    def notebook(self) -> NotebookNode | None:
        """The committed notebook; None where there is none (any more)."""
        return read_notebook(notebooks.path_of(self.name))

    @property
    def introduction(self) -> str:
        """The notebook's first cell, which begins with its title."""
        return self.notebook.cells[0].source if self.notebook else f"# {self.name}"

    @property
    def title(self) -> str:
        """The title of the notebook, or its name."""
        return self.introduction.partition("\n")[0].removeprefix("# ")

    @property
    def cost(self) -> str:
        """What the run takes, by the table of profiles in the notebook's first cell."""
        row = re.search(rf"^\|\s*`{self.profile}`[^|]*\|[^|]*\|([^|]*)\|", self.introduction, re.MULTILINE)
        return row[1].strip() if row else "an unknown time"

    @property
    def claims(self) -> Sequence[str]:
        """The claims that the notebook tests at some profile, by its metadata; empty where it may test any."""
        return self.notebook.metadata.get("ddlib", {}).get("claims", ()) if self.notebook else ()

    @property
    def figures(self) -> list[Path]:
        """One file for each figure, in the notebook's order: the SVG, or the PNG where there is none."""
        files = sorted((OUTPUT / "figures").glob(f"{self.slug}.*"))  # PNG before SVG
        chosen = {path.stem: path for path in files if path.suffix in stale.KINDS}
        source = "\n".join(cell.source for cell in self.notebook.cells) if self.notebook else ""
        places = {path: source.find(f'{path.suffixes[-2]}"') for path in chosen.values()}
        return sorted(places, key=lambda path: (places[path] < 0, places[path]))


@cache
def read_notebook(path: Path) -> NotebookNode | None:
    """A notebook; None where there is none or it cannot be read, such as one that is being written."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        return None


def gathered(profiles: Sequence[str] = PROFILES) -> list[Run]:
    """Every run that there is or could be at `profiles`, by paper, notebook and profile."""
    reasons = stale.reasons()
    try:
        names = notebooks.names()
    except FileNotFoundError:  # not in a clone
        names = ()
    places = set()
    for profile in profiles:
        places |= {(name, profile) for name in names if notebooks.has_profile(name, profile)}
        places |= {(variant, profile) for name in names for variant in notebooks.variants(name, profile)}
        files = (OUTPUT / "results").glob(f"*/*.{profile}.json")
        places |= {(f"{path.parent.name}/{path.stem.removesuffix(f'.{profile}')}", profile) for path in files}
    order = sorted(places, key=lambda place: (place[0], PROFILES.index(place[1])))
    return [_read(name, profile, reasons) for name, profile in order]


def _read(name: str, profile: str, reasons: Mapping[str, Sequence[str]]) -> Run:
    """The run with what its results file holds."""
    path = OUTPUT / "results" / f"{name}.{profile}.json"
    if not path.is_file():
        return Run(name, profile, stale=reasons)
    try:
        measured = results.read_measurements(path)
        records = () if measured else tuple(results.read(path))
    except ValueError as error:
        return Run(name, profile, problem=str(error).replace(str(OUTPUT), "."), stale=reasons)
    return Run(name, profile, records, measured, stale=reasons)
