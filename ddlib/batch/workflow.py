"""A batch of notebooks under Snakemake: one job a cell, then one a notebook, on one machine or on a cluster.

Each batch has a fresh folder, `runs/workflow/<time>`, for Snakemake's own files, the jobs' marks and their logs, so
that nothing an earlier batch left can pass for this one's.  What is done already is asked of the store alone.
"""

import contextlib
import importlib.util
import itertools
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from ddlib import OUTPUT, ROOT, study
from ddlib.batch import reproduce
from ddlib.batch.reproduce import Outcome, Run
from ddlib.results import Record
from ddlib.store import files
from ddlib.study import notebooks
from ddlib.study.rows import Cell

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads when it is first used; a name in it is a number or a UUID."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables that fix a job's number of threads, which its sums depend on."""

BACKOFF = 30
"""Seconds before the second attempt of a job; twice as many before the third, and so on."""


def visible() -> tuple[str, ...]:
    """The GPUs that CUDA can use here, by their names in CUDA_VISIBLE_DEVICES where it is set, else by number."""
    import torch

    count = torch.cuda.device_count()
    names = os.environ[VARIABLE].split(",") if VARIABLE in os.environ else map(str, range(count))
    return tuple(name.strip() for name in names)[:count]  # CUDA stops at the first name that is not there


@contextlib.contextmanager
def pinned(names: Sequence[str]) -> Iterator[str | None]:
    """Within the block CUDA sees one of the GPUs `names`, as soon as no other process of this user is pinned to it.

    A file is locked for each GPU in use, in the machine's temporary folder; the lock of a process that died is free.
    Enter the block before CUDA is first used.  Without `names` nothing is changed.
    """
    if not names:
        yield None
        return
    folder = Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for name in itertools.cycle(names):
        lock = FileLock(folder / f"{quote(name, safe='')}.lock")
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.2)
            break
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield name
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        lock.release()


def compute(run: Run, name: str, gpus: Sequence[str] = ()) -> Record:
    """Compute one of `run.cells()` into the store, on a free one of `gpus`, within the notebook's `budget_hours`."""
    cells = run.cells()
    if name not in cells:
        known = "; ".join(f"{name} ({cell})" for name, cell in cells.items())
        raise ValueError(f"unknown cell {name!r} of {run.name} at {run.profile}; known: {known}")
    budget_hours = notebooks.parameters(run.name, run.profile, run.changes).get("budget_hours")
    with pinned(gpus):
        (record,) = study.run([cells[name]], study.Workplace(run.device), budget_hours=budget_hours)
    return record


@dataclass(frozen=True, kw_only=True)
class Where:
    """On what a batch runs: so many `cores` of this machine, or a cluster, by its `executor` "slurm".

    jobs: at most so many at once in the cluster's queue; None: as the profile says.
    threads: of each job, whatever the number of cores.
    gpus: of this machine, by name; one job runs on each at a time.
    options: further words for Snakemake, laid over the profile's.
    """

    cores: int | None = None
    executor: str | None = None
    jobs: int | None = None
    threads: int = 1
    gpus: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.jobs is not None and self.executor is None:
            raise ValueError(f"jobs={self.jobs} is for a cluster; on this machine give cores alone")
        if self.gpus and self.executor is not None:
            raise ValueError(f"gpus={','.join(self.gpus)} are this machine's; on a cluster its scheduler assigns them")
        if self.cores is not None and self.threads > self.cores:
            raise ValueError(f"threads={self.threads} of each job are more than cores={self.cores}")


@dataclass(frozen=True)
class Batch:
    """What is to run: `needs` has notebook -> name -> cell, of its cells that are not in the store."""

    folder: Path
    runs: tuple[Run, ...]
    needs: Mapping[str, Mapping[str, Cell]]

    @property
    def cells(self) -> dict[str, Cell]:
        """The cells of all notebooks, each once."""
        return {name: cell for cells in self.needs.values() for name, cell in cells.items()}

    def mark(self, kind: str, name: str) -> Path:
        """Is there once a job has ended well; `kind` is "cells" or "notebooks"."""
        return self.folder / kind / f"{name}.done"

    def log(self, kind: str, name: str) -> Path:
        """What a job printed."""
        return self.folder / "logs" / kind / f"{name}.log"


def prepare(runs: Sequence[Run], where: Where) -> Batch:
    """Make the folder of a batch and write its plan there: which cells are still to compute, and each job's command.

    The file of overrides is copied, so that a later change of it touches no job.  A ValueError says where Snakemake or
    SLURM is not there, a notebook's device cannot be spread over, or a parameter is wrong.
    """
    runs = [run for run in runs if notebooks.has_profile(run.name, run.profile)]
    _require(where, runs)
    here, needs = study.Workplace("cpu"), {}
    for run in runs:
        needs[run.name] = {name: cell for name, cell in run.cells().items() if not study.finished(cell, here)}
    home = OUTPUT / "runs" / "workflow"
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=home))
    copies = {path: Path(shutil.copyfile(path, folder / path.name)) for path in {run.overrides for run in runs} if path}
    batch = Batch(folder, tuple(replace(run, overrides=copies.get(run.overrides)) for run in runs), needs)
    for log in [batch.log("cells", name) for name in batch.cells] + [batch.log("notebooks", name) for name in needs]:
        log.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(batch.folder / "plan.json", _plan(batch, where))
    return batch


def _require(where: Where, runs: Sequence[Run]) -> None:
    """Refuse what cannot be driven from here."""
    for module in ["snakemake"] + (["snakemake_executor_plugin_slurm"] if where.executor else []):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"{module} is not installed; `make setup` brings it, and so does pip install ddlib[batch]")
    if where.executor and shutil.which("sbatch") is None:
        raise ValueError("executor='slurm' needs SLURM's commands, and there is no sbatch here")
    for run in runs:
        what = f"device={run.device!r} of {run.name}"
        if run.device.startswith("cuda:"):
            way = f"cuda, and --gpus or {VARIABLE} to choose among them"
            raise ValueError(f"{what} names one GPU for all jobs; allowed: {way}")
        if run.device == "cuda" and where.executor is None and not where.gpus:
            raise ValueError(f"{what}, but CUDA sees no GPU here; allowed: cpu, or a machine with one")


def _plan(batch: Batch, where: Where) -> dict[str, Any]:
    """Snakemake's configuration: what the Snakefile needs to know, and no more."""
    cells, notebook_jobs = {}, {}
    for run in batch.runs:
        for name in batch.needs[run.name]:
            cells.setdefault(name, _job(run, where, ["cell", run.name, name]))
        job = _job(run, where, ["reproduce", run.name, "--output", str(run.output)])
        notebook_jobs[run.name] = job | {"cells": list(batch.needs[run.name])}
    return {"threads": where.threads, "backoff": BACKOFF, "cells": cells, "notebooks": notebook_jobs}


def _job(run: Run, where: Where, words: Sequence[str]) -> dict[str, Any]:
    """One job: its shell command, and how many GPUs it takes."""
    on_gpu = run.device == "cuda"
    threads = [f"{name}={where.threads}" for name in THREADS]
    words = ["env", *threads, sys.executable, "-m", "ddlib", *words, "--profile", run.profile]
    words += ["-f", str(run.overrides)] if run.overrides else []
    words += ["--gpus", ",".join(where.gpus)] if on_gpu and where.gpus else []
    return {"command": shlex.join(words), "gpu": int(on_gpu)}


def execute(batch: Batch, where: Where) -> None:
    """Run a batch under Snakemake, whose own messages go to this process's stderr, and wait for its end.

    Stopped by SIGINT or SIGTERM, it waits until Snakemake has stopped its jobs, and raises KeyboardInterrupt.
    """
    for run in batch.runs:
        run.executed.unlink(missing_ok=True)
        run.log.unlink(missing_ok=True)
    reproduce.run(command(batch, where), stdout=sys.stderr)


def command(batch: Batch, where: Where) -> list[str]:
    """Snakemake's command line for a batch."""
    home = ROOT / "workflow"
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(home / "Snakefile")]
    words += ["--workflow-profile", str(home / "profiles" / (where.executor or "local"))]
    words += ["--directory", str(batch.folder), "--configfile", str(batch.folder / "plan.json")]
    if where.executor is None:
        words += ["--cores", str(where.cores), "--resources", f"gpu={len(where.gpus)}"]
    elif where.jobs is not None:
        words += ["--jobs", str(where.jobs)]
    return [*words, *where.options]


def outcomes(runs: Sequence[Run], batch: Batch) -> list[Outcome]:
    """What came of each of `runs`, in order, from what the jobs of the batch left."""
    return [_outcome(run, batch) if run.name in batch.needs else Outcome(run, None) for run in runs]


def _outcome(run: Run, batch: Batch) -> Outcome:
    failures = [item for item in batch.needs[run.name].items() if not batch.mark("cells", item[0]).exists()]
    error = ""
    if failures:
        name, cell = failures[0]
        error = f"{len(failures)} of its cells not computed; {cell}: {_last_line(batch, 'cells', name)}"
    elif not batch.mark("notebooks", run.name).exists():
        error = f"the notebook's job: {_last_line(batch, 'notebooks', run.name)}"
    seconds = reproduce.executed(run).metadata.get("papermill", {}).get("duration") or 0.0
    begin = (batch.folder / "plan.json").stat().st_mtime_ns
    fresh = run.results.exists() and run.results.stat().st_mtime_ns >= begin
    return reproduce.outcome(run, seconds, error, fresh=fresh)


def _last_line(batch: Batch, kind: str, name: str) -> str:
    """How the log of a job ends, and where it lies."""
    log = batch.log(kind, name)
    if not log.exists():
        return f"its job was not begun (log: {batch.folder / '.snakemake' / 'log'})"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'nothing printed, as when a job is killed'} (log: {log})"
