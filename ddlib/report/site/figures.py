"""The figures of a run: copies in the report, with what they show and where they come from."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ddlib import OUTPUT, report
from ddlib.report.site import markdown
from ddlib.report.site.runs import Run, what_of

PICTURES = ("images", "samples", "strips", "panels")
"""What figures that show synthetic images are called."""


@dataclass(frozen=True)
class Figure:
    """A figure in the report.

    path: relative to the report.
    what: its name within the notebook, such as "bars".
    see: the notebook's text on it, or None.
    provenance: as `report.save` wrote it; empty where it carries none.
    stale: why it is stale; empty if it is not.
    """

    run: Run
    path: str
    what: str
    see: Markup | None
    provenance: Mapping[str, Any]
    stale: Sequence[str]

    @property
    def anchor(self) -> str:
        """Its place on the paper's page."""
        return f"fig-{self.run.slug}.{self.what}"

    @property
    def described(self) -> str:
        """For those who do not see it: what it is of, and the first sentence on what to see.

        The notebook's text speaks of its own parameters, the quick ones, and so of no other profile's figure.
        """
        if self.run.profile != "quick":
            return f"{self.run.title}, {self.run.profile}: {self.what}"
        text = Markup(self.see or "").striptags()
        first = re.match(r".*?[.;](?=\s|$)", text)
        return f"{self.run.title}, {self.run.profile}: {self.what}. {first[0] if first else text}".strip()

    @property
    def commits(self) -> list[str]:
        """The commits that its numbers come from, shortened."""
        found = self.provenance.get("commit")
        return [str(one)[:7] for one in (found if isinstance(found, list) else [found]) if one]

    @property
    def footer(self) -> str:
        """Versions, date and device in a line."""
        return report.footer(self.provenance) if self.provenance else "carries no provenance"


def collected(run: Run, folder: Path) -> list[Figure]:
    """The figures of a run, copied to `folder`, the report's."""
    return [_figure(run, path, folder) for path in run.figures]


def _figure(run: Run, path: Path, folder: Path) -> Figure:
    to = f"figures/{run.paper}/{path.name}"
    (folder / to).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / to)
    what = what_of(path)
    try:
        provenance, stale = report.read_provenance(path), run.stale.get(path.relative_to(OUTPUT).as_posix(), ())
    except ValueError as error:
        provenance, stale = {}, [str(error).replace(str(OUTPUT), ".")]
    return Figure(run, to, what, markdown.to_see(run, what), provenance, stale)
