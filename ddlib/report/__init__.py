"""Tables, figures and image grids that several notebooks have, the style of all figures, and the site.

`table`, `claims_table`, `budget_table` and `unseen_table` lay records out as in print; `accuracy_bars`,
`accuracy_curves`, `metric_panels` and `loss_against_start` draw them, `image_grid` and `image_strips` show images, and
`save` writes a figure with where its numbers come from.  What one notebook alone shows is drawn there, with seaborn
under `set_theme()` on `independent(records)` or on its own table; `source` shows the code beside its equation.
"""

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddlib import ROOT
from ddlib.report.figures import FAMILY, accuracy_bars, accuracy_curves, independent, loss_against_start, metric_panels
from ddlib.report.images import image_grid, image_strips
from ddlib.report.leaderboard import leaderboard, standings
from ddlib.report.style import LIMIT, PALETTE, Picture, colors, footer, read_provenance, save, set_theme
from ddlib.report.tables import Table, budget_table, claims_table, table, unseen_table

if TYPE_CHECKING:
    from IPython.display import Markdown


def source(*functions: Callable[..., Any]) -> "Markdown":
    """The very code of `functions`, methods or classes, highlighted, each under its name and the file it stands in.

    TypeError where something has no source in Python.
    """
    from IPython.display import Markdown

    texts = []
    for function in functions:
        lines, first = inspect.getsourcelines(function)
        file = Path(inspect.getsourcefile(inspect.unwrap(function))).resolve()
        file = (file.relative_to(ROOT) if file.is_relative_to(ROOT) else file).as_posix()
        code = textwrap.dedent("".join(lines)).rstrip()
        texts.append(f"`{function.__qualname__}` in `{file}`, line {first or 1}:\n\n```python\n{code}\n```")
    return Markdown("\n\n".join(texts))
