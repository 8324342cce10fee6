"""`ddlib report`: a static site of all that was computed, and what the committed results and figures are worth."""

import argparse
import time
from pathlib import Path

from ddlib import OUTPUT
from ddlib.study.parameters import PROFILES


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    report = commands.add_parser("report", help="build the site to read in a browser; what is stale")
    report.add_argument("--output", type=Path, default=OUTPUT / "report", metavar="FOLDER",
                        help="where the site goes (default: %(default)s)")  # fmt: skip
    report.add_argument("--profile", choices=PROFILES, nargs="+", default=[], help="those to show (default: all)")
    report.set_defaults(command=_build)
    verbs = report.add_subparsers(title="verbs", metavar="VERB")
    stale = verbs.add_parser("stale", help="results and figures older than their code or parameters, and why")
    stale.set_defaults(command=_stale)


def _build(told: argparse.Namespace) -> int:
    from ddlib.report import site

    begin = time.perf_counter()
    page = site.build(told.output.absolute(), told.profile)
    pages = len(list(page.parent.rglob("*.html")))
    print(f"{pages} pages in {time.perf_counter() - begin:.0f} s; open {page.as_uri()}")
    return 0


def _stale(told: argparse.Namespace) -> int:
    from ddlib.report import stale

    found = stale.findings()
    for finding in found:
        print(f"{finding.path}: {finding.reason}")
    print(f"{len({finding.path for finding in found})} of {len(stale.files())} results and figures are stale")
    return 1 if found else 0
