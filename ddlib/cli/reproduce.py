"""`ddlib reproduce`: notebooks run in bulk."""

import argparse
import sys
from pathlib import Path

from ddlib import OUTPUT
from ddlib.settings import PROFILES


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    run = commands.add_parser("reproduce", help="run notebooks and print what came of them")
    run.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    run.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
    run.add_argument("--output", type=Path, default=OUTPUT / "runs" / "notebooks", metavar="FOLDER",
                     help="where the executed notebooks go (default: %(default)s)")  # fmt: skip
    run.set_defaults(command=_reproduce)


def _reproduce(told: argparse.Namespace) -> int:
    from ddlib import reproduce

    outcomes = []
    for run in reproduce.plan(told.notebooks, told.profile, output=told.output.absolute()):
        print(f"{run.name} ({run.profile}): running, log in {run.log}", file=sys.stderr, flush=True)
        outcomes.append(reproduce.execute(run))
    print(reproduce.table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"ddlib: {outcome.run.name} failed: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0
