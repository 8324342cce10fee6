"""`ddlib cell`: the cells of a notebook one at a time, as the jobs of a batch compute them."""

import argparse
from typing import TYPE_CHECKING

from ddlib.batch.cli.reproduce import add_settings

if TYPE_CHECKING:
    from ddlib.results import Record


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    cell = commands.add_parser("cell", help="list a notebook's cells, or compute one of them into the store")
    cell.add_argument("notebook", metavar="NOTEBOOK", help="paper/experiment, or a path")
    cell.add_argument("cell", metavar="CELL", nargs="?", help="as the list names it; without it, the list")
    add_settings(cell)
    cell.set_defaults(command=_cell)


def _cell(told: argparse.Namespace) -> int:
    from ddlib import OUTPUT
    from ddlib.batch import jobs, reproduce

    runs = reproduce.plan([told.notebook], told.profile, output=OUTPUT, overrides=told.parameters)
    if len(runs) != 1:
        names = ", ".join(run.name for run in runs)
        raise ValueError(f"{told.notebook!r} names {len(runs)} notebooks; name one of {names}")
    if told.cell is None:
        for name, text, state in jobs.listing(runs[0]):
            print(f"{name}  {state:<12}  {text}")
        return 0
    record = jobs.compute(runs[0], told.cell, told.gpus)
    amount = "all images" if record.ipc is None else f"IPC {record.ipc}"
    print(f"{record.label}, {record.dataset}, {amount}: {_reached(record)}")
    return 0


def _reached(record: "Record") -> str:
    if not record.n:
        return f"not begun, since {record.cost['estimated_hours']} h are more than budget_hours"
    return f"{record.accuracy_mean:.2f} % over {record.n} networks"
