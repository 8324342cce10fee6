"""`ddlib data`: the data sets: what is known, there, and as it should be."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddlib.data import datasets


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    data = commands.add_parser("data", help="the data sets: what is known, there, and as it should be")
    verbs = data.add_subparsers(title="verbs", required=True, metavar="VERB")
    verbs.add_parser("list", help="all data sets and how to get them").set_defaults(command=_list)
    get = verbs.add_parser("get", help="download one, or say how it is got by hand")
    get.add_argument("name", metavar="NAME")
    get.set_defaults(command=_get)
    check = verbs.add_parser("check", help="compare what is there with its fingerprints")
    check.add_argument("name", metavar="NAME", nargs="?", help="one data set; without it, all of them")
    check.set_defaults(command=_check)


def _list(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

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


def _get(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

    return _report(datasets.get(told.name))


def _check(told: argparse.Namespace) -> int:
    from ddlib.data import datasets

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
