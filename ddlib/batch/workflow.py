"""A batch of notebooks under Snakemake: one job a cell, then one a notebook, on one machine or on a cluster.

Each batch has a fresh folder, `runs/workflow/<time>`, for Snakemake's own files, the jobs' marks and their logs, so
that nothing an earlier batch left can pass for this one's.  What is done already is asked of the store alone.
"""

import contextlib
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
import time
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


def visible() -> tuple[str, ...]:
    """The GPUs that CUDA can use here, by their names in CUDA_VISIBLE_DEVICES where it is set, else by number."""
    import torch

    count = torch.cuda.device_count()
    told = os.environ.get(VARIABLE)
    names = [str(number) for number in range(count)] if told is None else [name.strip() for name in told.split(",")]
    return tuple(names[:count])  # CUDA stops at the first name that is not there


@contextlib.contextmanager
def pinned(names: Sequence[str]) -> Iterator[str | None]:
    """Within the block CUDA sees one of the GPUs `names`, which no other process of this user is pinned to.

    It waits until one is free.  A file is locked for each GPU in use; the lock of a process that died is free.
    Enter the block before CUDA is first used.

    Returns:
        The GPU's name; None where `names` is empty, and nothing is changed.
    """
    if not names:
        yield None
        return
    name, lock = _free(names)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield name
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        lock.release()


def lock_path(name: str) -> Path:
    """The file that is locked while the GPU is in use: in the machine's temporary folder, whatever the store."""
    return Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}" / f"{quote(name, safe='')}.lock"


def _free(names: Sequence[str], *, poll_seconds: float = 1.0) -> tuple[str, FileLock]:
    """The first GPU that is free, and its lock, held."""
    lock_path(names[0]).parent.mkdir(exist_ok=True)
    while True:
        for name in names:
            lock = FileLock(lock_path(name))
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return name, lock
        time.sleep(poll_seconds)


def identity(cell: Cell) -> str:
    """A short stable name of everything that decides the cell's numbers; notebooks that share a cell share it."""
    return files.key(cell.settings())


def describe(cell: Cell) -> str:
    """Row, data, images per class and, of several, the network, for people."""
    return str(cell)


def cells_of(run: Run) -> dict[str, Cell]:
    """The cells that a run computes, by identity, in the notebook's order."""
    return {identity(cell): cell for cell in notebooks.cells(run.name, run.profile, reproduce.told(run))}


def listing(run: Run) -> list[tuple[str, str, str]]:
    """Of each cell of a run its identity, what it is, and "in the store" or "to do"."""
    here = study.Workplace("cpu")
    states = {True: "in the store", False: "to do"}
    return [(name, describe(cell), states[study.finished(cell, here)]) for name, cell in cells_of(run).items()]


def compute(run: Run, wanted: str, names: Sequence[str] = ()) -> Record:
    """Compute one cell of a notebook into the store, within the notebook's `budget_hours`, and return its record.

    Args:
        wanted: the cell's `identity`.
        names: GPUs, of which a free one is taken; empty: as CUDA chooses.

    Raises:
        ValueError: the notebook has no such cell; its cells are listed.
    """
    found = cells_of(run)
    if wanted not in found:
        known = "; ".join(f"{name} ({describe(cell)})" for name, cell in found.items())
        raise ValueError(f"unknown cell {wanted!r} of {run.name} at {run.profile}; known: {known}")
    parameters = notebooks.parameters(run.name, run.profile, reproduce.told(run))
    with pinned(names):
        workplace = study.Workplace(parameters["device"])
        (record,) = study.run([found[wanted]], workplace, budget_hours=parameters.get("budget_hours"))
    return record


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""The variables that fix a job's number of threads, which its sums depend on."""

BACKOFF = 30
"""Seconds before the second attempt of a job; twice as many before the third, and so on."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """On what a batch runs.

    cores: of this machine; None for a cluster.
    executor: None for this machine, or "slurm".
    jobs: at most so many at once in the cluster's queue; None: as the profile says.
    threads: of each job, whatever the number of cores.
    gpus: of this machine, by name; one job runs on each at a time.  On a cluster its scheduler assigns them.
    options: further words for Snakemake, laid over the profile's.
    """

    cores: int | None = None
    executor: str | None = None
    jobs: int | None = None
    threads: int = 1
    gpus: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cores", "jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; it must be >= 1")
        if self.executor not in (None, "slurm"):
            raise ValueError(f"unknown executor {self.executor!r}; known: slurm (or none, with cores)")
        if (self.cores is None) == (self.executor is None):
            raise ValueError(f"cores={self.cores} and executor={self.executor!r}; exactly one of them must be given")
        if self.jobs is not None and self.executor is None:
            raise ValueError(f"jobs={self.jobs} is for a cluster; on this machine give cores alone")
        if self.gpus and self.executor is not None:
            raise ValueError(f"gpus={','.join(self.gpus)} are this machine's; on a cluster its scheduler assigns them")
        if self.cores is not None and self.threads > self.cores:
            raise ValueError(f"threads={self.threads} of each job are more than cores={self.cores}")

    @property
    def profile(self) -> Path:
        """Snakemake's profile."""
        return ROOT / "workflow" / "profiles" / (self.executor or "local")


@dataclass(frozen=True)
class Batch:
    """What is to run.

    folder: of this batch alone.
    runs: the notebooks.
    cells: identity -> one of the notebooks' cells that is not in the store.
    needs: notebook -> the identities of its cells that are not in the store.
    """

    folder: Path
    runs: tuple[Run, ...]
    cells: Mapping[str, Cell]
    needs: Mapping[str, tuple[str, ...]]

    def mark(self, identity: str) -> Path:
        """Is there once the cell's job has ended well."""
        return self.folder / "cells" / f"{identity}.done"

    def log(self, kind: str, name: str) -> Path:
        """What a job printed; `kind` is "cells" or "notebooks"."""
        return self.folder / "logs" / kind / f"{name}.log"

    def outcome(self, name: str) -> Path:
        """Where a notebook's job tells what came of it."""
        return self.folder / "outcomes" / f"{name}.json"


def prepare(runs: Sequence[Run], where: Where) -> Batch:
    """Make the folder of a batch and write its plan there: which cells are still to compute, and each job's command.

    The file of overrides is copied, so that a later change of it touches no job.  What an earlier run left of the
    executed notebooks is removed.

    Raises:
        ValueError: Snakemake or SLURM is not there; a notebook's device cannot be spread over; a parameter is wrong.
        FileNotFoundError: data are missing.
    """
    _require(where)
    runs = [run for run in runs if notebooks.has_profile(run.name, run.profile)]
    for run in runs:
        _check_device(run, where)
    here, cells, needs = study.Workplace("cpu"), {}, {}
    for run in runs:
        unfinished = {name: cell for name, cell in cells_of(run).items() if not study.finished(cell, here)}
        needs[run.name] = tuple(unfinished)
        cells |= unfinished
    batch = _fresh(runs, cells, needs)
    for log in [batch.log("cells", name) for name in cells] + [batch.log("notebooks", run.name) for run in runs]:
        log.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(batch.folder / "plan.json", _plan(batch, where))
    return batch


def execute(batch: Batch, where: Where) -> None:
    """Run a batch under Snakemake, whose own messages go to this process's stderr, and wait for its end.

    Stopped by SIGINT or SIGTERM, it waits until Snakemake has stopped its jobs, those of a cluster too.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    for run in batch.runs:
        run.executed.unlink(missing_ok=True)
        run.log.unlink(missing_ok=True)
    reproduce.run(command(batch, where), env=_environment(), stdout=sys.stderr)


def command(batch: Batch, where: Where) -> list[str]:
    """Snakemake's command line for a batch."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    words += ["--workflow-profile", str(where.profile), "--directory", str(batch.folder)]
    words += ["--configfile", str(batch.folder / "plan.json")]
    if where.executor is None:
        words += ["--cores", str(where.cores), "--resources", f"gpu={len(where.gpus)}"]
    elif where.jobs is not None:
        words += ["--jobs", str(where.jobs)]
    return [*words, *where.options]


def outcomes(runs: Sequence[Run], batch: Batch) -> list[Outcome]:
    """What came of each of `runs`, in order, from what the jobs of the batch left."""
    return [_outcome(run, batch) if run.name in batch.needs else Outcome(run, None) for run in runs]


def _outcome(run: Run, batch: Batch) -> Outcome:
    found = reproduce.read(batch.outcome(run.name), [run])
    if found:
        return found[0]
    failed = [name for name in batch.needs[run.name] if not batch.mark(name).exists()]
    if failed:
        what = f"{len(failed)} of its cells not computed; {describe(batch.cells[failed[0]])}"
        return Outcome(run, 0.0, error=f"{what}: {_last_line(batch, 'cells', failed[0])}")
    return Outcome(run, 0.0, error=f"the notebook's job: {_last_line(batch, 'notebooks', run.name)}")


def _last_line(batch: Batch, kind: str, name: str) -> str:
    """How the log of a job ends, and where it lies."""
    log = batch.log(kind, name)
    if not log.exists():
        return f"its job was not begun (log: {batch.folder / '.snakemake' / 'log'})"
    lines = log.read_text(errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'nothing printed, as when a job is killed'} (log: {log})"


def _plan(batch: Batch, where: Where) -> dict[str, Any]:
    """Snakemake's configuration: what the Snakefile needs to know, and no more."""
    cells, told = {}, {}
    for run in batch.runs:
        for name in batch.needs[run.name]:
            cells.setdefault(name, _job(run, where, ["cell", run.name, name]))
        words = ["reproduce", run.name, "--output", str(run.output), "--outcomes", str(batch.outcome(run.name))]
        told[run.name] = _job(run, where, words) | {"cells": list(batch.needs[run.name])}
    return {"threads": where.threads, "backoff": BACKOFF, "cells": cells, "notebooks": told}


def _job(run: Run, where: Where, words: Sequence[str]) -> dict[str, Any]:
    """One job: its shell command, and how many GPUs it takes."""
    on_gpu = _device(run) == "cuda"
    words = [*words, "--profile", run.profile]
    words += ["-f", str(run.overrides)] if run.overrides else []
    words += ["--gpus", ",".join(where.gpus)] if on_gpu and where.gpus else []
    fixed = [f"{name}={where.threads}" for name in THREADS]
    return {"command": shlex.join(["env", *fixed, sys.executable, "-m", "ddlib", *words]), "gpu": int(on_gpu)}


def _fresh(runs: Sequence[Run], cells: Mapping[str, Cell], needs: Mapping[str, tuple[str, ...]]) -> Batch:
    """A batch in a new folder, with its own copy of the overrides."""
    home = (OUTPUT / "runs" / "workflow").absolute()
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{datetime.now():%Y%m%d-%H%M%S}-", dir=home))
    kept = {path: folder / path.name for path in {run.overrides for run in runs} if path}
    for path, copy in kept.items():
        shutil.copyfile(path, copy)
    return Batch(folder, tuple(replace(run, overrides=kept.get(run.overrides)) for run in runs), cells, needs)


def _environment() -> dict[str, str]:
    """This process's, with the folders told in it made absolute, as the jobs have another working directory."""
    told = {
        name: str(Path(os.environ[name]).absolute()) for name in ("DDLIB_DATA", "DDLIB_OUTPUT") if name in os.environ
    }
    return {**os.environ, **told}


def _device(run: Run) -> str:
    return notebooks.parameters(run.name, run.profile, reproduce.told(run)).get("device", "cpu")


def _check_device(run: Run, where: Where) -> None:
    device = _device(run)
    if device.startswith("cuda:"):
        raise ValueError(
            f"device={device!r} of {run.name} names one GPU for all jobs; allowed: cuda, and --gpus or "
            f"{VARIABLE} to choose among them"
        )
    if device == "cuda" and where.executor is None and not where.gpus:
        raise ValueError(f"device='cuda' of {run.name}, but CUDA sees no GPU here; allowed: cpu, or a machine with one")


def _require(where: Where) -> None:
    """Refuse what cannot be driven from here."""
    needed = ["snakemake"] + (["snakemake_executor_plugin_slurm"] if where.executor else [])
    for module in needed:
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"{module} is not installed; `make setup` brings it, and so does pip install ddlib[batch]")
    if where.executor and shutil.which("sbatch") is None:
        raise ValueError("executor='slurm' needs SLURM's commands, and there is no sbatch here")
