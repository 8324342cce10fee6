"""The command `ddlib`: data sets, and notebooks run in bulk.

    ddlib data list | get NAME | check [NAME]
    ddlib reproduce [NOTEBOOK ...] [--profile quick|hour|paper] [--output FOLDER]

Exit codes: 0 all is well; 1 a notebook failed, or data are missing or differ; 2 the command was refused.
A command imports what it needs when it is carried out, since torch takes seconds to import.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddlib import ROOT
from ddlib.settings import PROFILES

if TYPE_CHECKING:
    from ddlib import datasets


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code; an error is one line on stderr.

    Args:
        arguments: the words after `ddlib`; None: those of the process.
    """
    told = _parser().parse_args(arguments)
    try:
        return told.command(told)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"ddlib: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ddlib: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ddlib", description="Data sets, and notebooks run in bulk.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="the data sets: what is known, there, and as it should be")
    verbs = data.add_subparsers(title="verbs", required=True, metavar="VERB")
    verbs.add_parser("list", help="all data sets and how to get them").set_defaults(command=_data_list)
    get = verbs.add_parser("get", help="download one, or say how it is got by hand")
    get.add_argument("name", metavar="NAME")
    get.set_defaults(command=_data_get)
    check = verbs.add_parser("check", help="compare what is there with its fingerprints")
    check.add_argument("name", metavar="NAME", nargs="?", help="one data set; without it, all of them")
    check.set_defaults(command=_data_check)

    run = commands.add_parser("reproduce", help="run notebooks and print what came of them")
    run.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    run.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
    run.add_argument("--output", type=Path, default=ROOT / "runs" / "notebooks", metavar="FOLDER",
                     help="where the executed notebooks go (default: %(default)s)")  # fmt: skip
    run.set_defaults(command=_reproduce)
    return parser


def _data_list(told: argparse.Namespace) -> int:
    from ddlib import datasets

    root = datasets.data_root()
    print(f"looked for under {root} (the environment variable DDLIB_DATA names another folder)\n")
    print(f"{'name':<17} {'images':>14}  {'shape':<11} {'classes':>7}  {'state':<8} to get it")
    for name in datasets.names():
        info = datasets.describe(name)
        images = " + ".join("?" if size is None else str(size) for size in info.sizes)
        shape = "x".join(map(str, info.shape))
        state, way = _state(info, root)
        print(f"{name:<17} {images:>14}  {shape:<11} {info.num_classes:>7}  {state:<8} {way}".rstrip())
    return 0


def _state(info: "datasets.DatasetInfo", root: Path) -> tuple[str, str]:
    """Whether a data set's files are there, unread, and the way to get them if not."""
    if not info.location or (root / info.location).exists():
        return "there", ""
    return "missing", f"ddlib data get {info.name}" + ("" if info.downloadable else "  (tells how)")


def _data_get(told: argparse.Namespace) -> int:
    from ddlib import datasets

    return _report(datasets.get(told.name))


def _data_check(told: argparse.Namespace) -> int:
    from ddlib import datasets

    if told.name is not None:
        return _report(datasets.check(told.name))
    root, worst = datasets.data_root(), 0
    for name in datasets.names():
        state, way = _state(datasets.describe(name), root)
        if state == "missing":
            print(f"{name}: missing; {way}")
        else:
            worst = max(worst, _report(datasets.check(name)))
    return worst


def _report(check: "datasets.Check") -> int:
    """Print what was found of one data set; 0 if it can be used."""
    for split, message in check.messages.items():
        print(f"{check.name} {split}: {check.state}; {message}")
    return 0 if check.state in ("ok", "no reference") else 1


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
