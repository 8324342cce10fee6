"""`ddlib runs`: what lies in the store, and what of it can go."""

import argparse
import json
from pathlib import Path

from ddlib import OUTPUT

SHORT = 10
"""Hex digits of a key that are shown."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    runs = commands.add_parser("runs", help="what lies in the store: finished, interrupted or damaged")
    verbs = runs.add_subparsers(title="verbs", required=True, metavar="VERB")
    listing = verbs.add_parser("list", help="every piece of work, its state and size")
    listing.set_defaults(command=_list)
    show = verbs.add_parser("show", help="one piece: settings, cost, accuracies, whether its files are whole")
    show.add_argument("key", metavar="KEY", help="its key, or how that begins")
    show.set_defaults(command=_show)
    clean = verbs.add_parser("clean", help="delete what nothing can use any more, or the pieces named")
    clean.add_argument("keys", metavar="KEY", nargs="*", help="delete these pieces of work altogether")
    clean.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    clean.set_defaults(command=_clean)
    for parser in (listing, show, clean):
        parser.add_argument("--store", type=Path, default=OUTPUT / "runs", metavar="FOLDER",
                            help="the store (default: %(default)s)")  # fmt: skip


def _list(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    found = inventory.entries(told.store)
    print(f"{len(found)} pieces of work in {told.store}, {_size(sum(entry.size for entry in found))}")
    if found:
        width = max(len(entry.name) for entry in found)
        print(f"\n{'key':<{SHORT}}  {'kind':<10} {'what':<{width}}  {'size':>8}  {'evaluations':>11}  state")
    for entry in found:
        state = f"{entry.state}{f': {entry.detail}' if entry.detail else ''}"
        line = f"{entry.key[:SHORT]}  {entry.kind:<10} {entry.name:<{width}}  {_size(entry.size):>8}"
        print(f"{line}  {entry.evaluations:>11}  {state}")
    return 0


def _show(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    entry = inventory.find(told.store, told.key)
    print(f"{entry.name} ({entry.kind}), {entry.state}{f': {entry.detail}' if entry.detail else ''}")
    print(f"in {entry.folder}, {_size(entry.size)}")
    for name, value in inventory.described(entry).items():
        if name != "name":
            print(f"  {name}: {json.dumps(value)}")
    for found in inventory.evaluations(entry):
        protocol = found["protocol"]
        done = f"{len(found['networks'])} of {protocol['num_networks']} networks"
        accuracies = ", ".join(f"{accuracy:.2f}" for accuracy in found["accuracies"])
        print(f"  evaluation: {protocol['network']}, {protocol['epochs']} epochs, {done}: {accuracies} %")
    log = entry.folder / inventory.LOG
    for line in log.read_text(encoding="utf-8").splitlines()[-5:] if log.exists() else []:
        print(f"  log: {line}")
    faults = inventory.faults(entry)
    print("\n".join(faults) if faults else "every file is what was written")
    return 1 if faults else 0


def _clean(told: argparse.Namespace) -> int:
    from ddlib.store import inventory

    verb = "would delete" if told.dry_run else "deleted"
    for entry in [inventory.find(told.store, key) for key in told.keys]:
        if not told.dry_run:
            inventory.remove(entry)
        print(f"{verb} {entry.name} ({entry.folder}), {_size(entry.size)}")
    if told.keys:
        return 0
    found = inventory.leftovers(told.store)
    total = sum(inventory.size(path) for path in found)
    for path in found:
        if not told.dry_run:
            inventory.discard(path)
        print(f"{verb} {path}")
    print(f"{verb} {len(found)} files, {_size(total)}")
    return 0


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
