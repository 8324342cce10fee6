"""`ddlib reproduce`: notebooks run in bulk, one by one or as a batch on several cores, GPUs or a cluster."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ddlib import OUTPUT
from ddlib.study.parameters import PROFILES

if TYPE_CHECKING:
    from ddlib.batch.reproduce import Outcome, Run
    from ddlib.batch.workflow import Where

BATCH = ("jobs", "threads", "snakemake")
"""Options that mean nothing to notebooks run one by one."""


def add(commands: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    run = commands.add_parser("reproduce", help="run notebooks and print what came of them")
    run.add_argument("notebooks", metavar="NOTEBOOK", nargs="*", help="paper/experiment, a path or a paper")
    add_settings(run)
    run.add_argument("--output", type=Path, default=OUTPUT / "runs" / "notebooks", metavar="FOLDER",
                     help="where the executed notebooks go (default: %(default)s)")  # fmt: skip
    run.add_argument("--at-once", type=int, default=1, metavar="N",
                     help="run N notebooks at the same time, each on its share of the cores (default: 1)")  # fmt: skip
    run.add_argument("--outcomes", type=Path, metavar="FILE", help="write the table as JSON too")
    batch = run.add_argument_group("a batch", "one job a cell, then one a notebook, driven by Snakemake")
    batch.add_argument("--cores", type=int, metavar="N", help="use N cores of this machine")
    batch.add_argument("--executor", choices=("slurm",), help="submit to this cluster")
    batch.add_argument("--jobs", type=int, metavar="N", help="at most N jobs in the cluster's queue")
    batch.add_argument("--threads", type=int, metavar="N", help="of each job, on which its sums depend (default: 1)")
    batch.add_argument("--snakemake", metavar="'OPTIONS'", help="further options, laid over workflow/profiles")
    run.set_defaults(command=_reproduce)


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add what decides a notebook's parameters, and the GPUs that it may use."""
    command.add_argument("--profile", choices=PROFILES, default="quick", help="the budget (default: %(default)s)")
    command.add_argument("-f", "--parameters", type=Path, metavar="FILE", help="YAML laid over them")
    command.add_argument("--gpus", type=lambda text: tuple(text.split(",")), default=(), metavar="LIST",
                         help="each job takes a free one of these, e.g. 0,1 (default: all, in a batch)")  # fmt: skip


def _reproduce(told: argparse.Namespace) -> int:
    from ddlib.batch import reproduce

    where = _where(told)
    overrides = told.parameters and told.parameters.absolute()
    runs = reproduce.plan(told.notebooks, told.profile, output=told.output.absolute(), overrides=overrides)
    outcomes = _batch(runs, where) if where else _as_they_are(runs, told)
    if told.outcomes:
        reproduce.write(outcomes, told.outcomes)
    print(reproduce.table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"ddlib: {outcome.run.name} failed: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


def _where(told: argparse.Namespace) -> "Where | None":
    """On what the batch runs; None for notebooks without one."""
    if told.cores is None and told.executor is None:
        for name in BATCH:
            if getattr(told, name) is not None:
                raise ValueError(f"--{name} is for a batch: give --cores or --executor too")
        return None
    if told.at_once > 1:
        raise ValueError(f"--at-once {told.at_once} is for notebooks without a batch; leave it out")
    from ddlib.batch import gpus, workflow

    return workflow.Where(
        cores=told.cores,
        executor=told.executor,
        jobs=told.jobs,
        threads=1 if told.threads is None else told.threads,
        gpus=told.gpus or (() if told.executor else gpus.visible()),
        options=tuple(shlex.split(told.snakemake or "")),
    )


def _as_they_are(runs: "Sequence[Run]", told: argparse.Namespace) -> "list[Outcome]":
    """Notebooks without a batch, one by one or a few at once."""
    from ddlib.batch import gpus, reproduce

    if told.at_once > 1 and told.gpus:
        raise ValueError(f"--at-once {told.at_once} is for notebooks on the CPU; with --gpus give --cores")

    def note(run: "Run") -> None:
        print(f"{run.name} ({run.profile}): running, log in {run.log}", file=sys.stderr, flush=True)

    with gpus.pinned(told.gpus):
        return reproduce.execute_all(runs, at_once=told.at_once, on_begin=note)


def _batch(runs: "Sequence[Run]", where: "Where") -> "list[Outcome]":
    from ddlib.batch import workflow

    batch = workflow.prepare(runs, where)
    print(f"{len(batch.cells)} cells to compute, {len(batch.runs)} notebooks to run; jobs and logs in {batch.folder}",
          file=sys.stderr, flush=True)  # fmt: skip
    workflow.execute(batch, where)
    return workflow.outcomes(runs, batch)
