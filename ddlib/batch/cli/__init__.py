"""The command `ddlib`: data sets, notebooks run in bulk, and the store of what they computed.

    ddlib data list | get NAME | check [NAME]
    ddlib prior convert CKPT FOLDER [--yes]
    ddlib plan [NOTEBOOK ...] [--profile quick|hour|paper] [-f FILE] [--device D] [--budget-hours H] [--memory 16GB]
    ddlib reproduce [NOTEBOOK ...] [--profile quick|hour|paper] [-f FILE] [--cores N | --executor slurm] ...
    ddlib cell NOTEBOOK [CELL] [--profile quick|hour|paper] [-f FILE]
    ddlib runs list | show KEY | clean [KEY ...]
    ddlib export RUN --to npz|pt|png|hf|safetensors|ddranking|dcbench [--output FOLDER] [--force] ...
    ddlib report [--output FOLDER] [--profile quick|hour|paper ...]
    ddlib report stale

Exit codes: 0 all is well; 1 a notebook failed, data are missing or differ, or a product is stale or damaged; 2 the
command was refused, or a plan does not fit.
A command imports what it needs when it is carried out, since torch takes seconds to import.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from ddlib.batch.cli import cell, data, export, plan, prior, report, reproduce, runs


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
    parser = argparse.ArgumentParser(prog="ddlib", description="Data sets, notebooks run in bulk, and the store.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for part in (data, prior, plan, reproduce, cell, runs, export, report):
        part.add(commands)
    return parser
