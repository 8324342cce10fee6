"""Runs notebooks as papermill does, each in a process of its own, and tells what came of them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import nbformat
import psutil

from ddlib import OUTPUT, results
from ddlib.store import files
from ddlib.study import notebooks, parameters

SIGNALS = (signal.SIGINT, signal.SIGTERM)

POLL = 0.2
"""Seconds after which it is looked again which children have ended."""


def run(words: Sequence[str], **options: Any) -> int:
    """Run a command, wait for its end, and return its exit code; signals are passed on as by `run_all`.

    Args:
        words: of the command.
        options: of `subprocess.Popen`.

    Raises:
        KeyboardInterrupt: it was stopped; the child has ended.
    """
    return run_all([lambda: psutil.Popen(words, process_group=0, **options)])[0][0]


def run_all(starts: Sequence[Callable[[], psutil.Popen]], *, at_once: int = 1) -> list[tuple[int, float]]:
    """Run child processes, at most `at_once` at a time, and wait for all of them.

    SIGINT and SIGTERM to this process reach the children and all that they have started as SIGINT, upon which work is
    saved and jobs are cancelled; no further child is begun.

    Args:
        starts: each begins one child, in a process group of its own, so that a terminal's Ctrl-C comes from here alone;
            called in their order, in this thread.
        at_once: >= 1.

    Returns:
        Exit code and seconds of each.

    Raises:
        KeyboardInterrupt: they were stopped; all that were begun have ended.
    """
    running: dict[psutil.Popen, tuple[int, float]] = {}
    ended: dict[int, tuple[int, float]] = {}
    stopped: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        for child in running:
            _interrupt(child)

    with _handled(stop):  # begun inside: a command in a script's background would else inherit that SIGINT is ignored
        waiting = iter(enumerate(starts))
        while len(ended) < len(starts) and not (stopped and not running):
            for position, start in islice(waiting, 0 if stopped else at_once - len(running)):
                begin = time.perf_counter()
                running[start()] = position, begin
            for child in psutil.wait_procs([*running], timeout=POLL)[0]:
                position, begin = running.pop(child)
                ended[position] = child.returncode, time.perf_counter() - begin
    if stopped:
        raise KeyboardInterrupt
    return [ended[position] for position in range(len(starts))]


def _interrupt(child: psutil.Popen) -> None:
    """Send SIGINT to a child and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (*child.children(recursive=True), child):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)


@contextlib.contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """The handler for `SIGNALS` inside the block; elsewhere than in the main thread, where Python has none, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


KERNEL_DIED = 138
"""papermill's exit code when the kernel was killed, most often for memory."""


@dataclass(frozen=True)
class Run:
    """One notebook at one profile, and where its products lie.

    name: `paper/experiment`, e.g. "atom/accuracy", or one of its `notebooks.variants`.
    profile: one of `ddlib.PROFILES`.
    output: folder of the executed notebooks.
    overrides: a YAML file laid over the profile's parameters, or None.
    """

    name: str
    profile: str
    output: Path
    overrides: Path | None = None

    @property
    def notebook(self) -> Path:
        """The notebook in the repository."""
        return notebooks.path_of(self.name)

    @property
    def params(self) -> Path | None:
        """The parameter file of the profile; None for `quick`, the notebook's own defaults."""
        return notebooks.params_file(self.name, self.profile)

    @property
    def executed(self) -> Path:
        """The notebook as executed, with all its outputs."""
        return self.output / f"{self.name}.{self.profile}.ipynb"

    @property
    def log(self) -> Path:
        """What papermill and the notebook printed."""
        return self.executed.with_suffix(".log")

    @property
    def results(self) -> Path:
        """The records that the notebook writes."""
        return OUTPUT / "results" / f"{self.name}.{self.profile}.json"

    @property
    def figures(self) -> Path:
        """What the names of the notebook's figures begin with."""
        return OUTPUT / "figures" / f"{self.name}.{self.profile}"


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    seconds: wall time; None if it was left out for want of a parameter file.
    verdicts: verdict -> number of cells, none where it measures something else; None if the run wrote no results.
    error: the last line of what went wrong; empty if nothing did.
    """

    run: Run
    seconds: float | None
    verdicts: dict[str, int] | None = None
    error: str = ""


def plan(wanted: Sequence[str], profile: str, *, output: Path, overrides: Path | None = None) -> list[Run]:
    """The runs of `notebooks.chosen(wanted, profile)`, whose executed notebooks go to `output`.

    Those that compare papers come last: they find most of their work done.

    Args:
        overrides: a YAML file laid over the profile's parameters of each notebook.

    Raises:
        ValueError, FileNotFoundError: as `notebooks.chosen`; or the overrides are no parameters of a notebook.
    """
    chosen = sorted(notebooks.chosen(wanted, profile), key=lambda name: name.startswith("compare/"))
    runs = [Run(name, profile, output, overrides) for name in chosen]
    for run in runs if overrides else []:
        if "profile" in told(run):
            raise ValueError(f"{overrides} sets 'profile', which --profile does; leave it out")
        if notebooks.has_profile(run.name, profile):
            _check_overrides(run)
    return runs


def told(run: Run) -> dict[str, Any]:
    """The overrides of a run; empty where it has none."""
    return parameters.read_params(run.overrides) if run.overrides else {}


def _check_overrides(run: Run) -> None:
    try:
        notebooks.cells(run.name, run.profile, told(run))
    except ValueError as error:
        raise ValueError(f"{run.overrides} does not suit {run.name}: {error}") from error


def execute(run: Run) -> Outcome:
    """`execute_all` of one notebook."""
    return execute_all([run])[0]


def execute_all(
    runs: Sequence[Run], *, at_once: int = 1, on_begin: Callable[[Run], object] = lambda run: None
) -> list[Outcome]:
    """Execute notebooks with papermill, each in a process of its own, on the kernel of this very environment.

    The working directory is the notebook's folder, as in JupyterLab.  A notebook without parameters for the
    profile is left out.  What an earlier run left is never taken for this one's.

    Args:
        at_once: how many run at the same time, >= 1.  Each then has its share of the cores, unless OMP_NUM_THREADS
            says otherwise; a cell that two of them need is computed by one.
        on_begin: told of each notebook that begins.

    Raises:
        ValueError: `at_once` is smaller.
        KeyboardInterrupt: it was stopped, by SIGINT or SIGTERM; the notebooks' work is saved.
    """
    if at_once < 1:
        raise ValueError(f"at_once={at_once}; it must be at least 1")
    able = [run for run in runs if notebooks.has_profile(run.name, run.profile)]
    before = [_stamp(run.results) for run in able]
    environment = _environment(at_once)

    def start(run: Run) -> psutil.Popen:
        on_begin(run)
        run.executed.parent.mkdir(parents=True, exist_ok=True)
        run.executed.unlink(missing_ok=True)
        with run.log.open("wb") as log:
            return psutil.Popen(_command(run), env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0)

    ends = run_all([partial(start, run) for run in able], at_once=at_once)
    done = {run: _outcome(run, *end, stamp) for run, end, stamp in zip(able, ends, before, strict=True)}
    return [done.get(run, Outcome(run, None)) for run in runs]


def _outcome(run: Run, code: int, seconds: float, before: tuple[int, int] | None) -> Outcome:
    """What came of a run that ended with `code`; its results had the stamp `before` when it began."""
    error = _last_error(run, code) if code else ""
    if _stamp(run.results) == before:
        return Outcome(run, seconds, error=error)
    try:
        measured = results.read_measurements(run.results) is not None
        verdicts = {} if measured else dict(Counter(record.verdict for record in results.read(run.results)))
    except ValueError as fault:
        return Outcome(run, seconds, error=error or str(fault))
    return Outcome(run, seconds, verdicts, error)


def write(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write outcomes as JSON, for `read`."""
    files.write_json(path, {"outcomes": [{**asdict(one), "run": one.run.name} for one in outcomes]})


def read(path: Path, runs: Sequence[Run]) -> list[Outcome]:
    """The outcomes of those of `runs` that stand in a file of `write`; none where there is no file.

    Raises:
        ValueError: the file is not whole.
    """
    kept = (files.read_json(path) or {"outcomes": []})["outcomes"]
    by_name = {run.name: run for run in runs}
    return [Outcome(**{**one, "run": by_name[one["run"]]}) for one in kept if one["run"] in by_name]


def table(outcomes: Sequence[Outcome]) -> str:
    """The summary as text: notebook, seconds, cells by verdict, where to look."""
    rows = [("notebook", "seconds", "cells by verdict", "where to look")]
    for outcome in outcomes:
        first, *others = _where(outcome) or [""]
        rows.append((outcome.run.name, _seconds(outcome), _cells(outcome), first))
        rows += [("", "", "", other) for other in others]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _command(run: Run) -> list[str]:
    command = [sys.executable, "-m", "papermill", str(run.notebook), str(run.executed)]
    command += ["--kernel", "python3", "--cwd", str(run.notebook.parent), "--log-output", "--no-progress-bar"]
    return command + [word for file in (run.params, run.overrides) if file for word in ("-f", str(file))]


def _environment(at_once: int) -> dict[str, str]:
    """This process's, with the kernels of its own Python before any that are registered elsewhere.

    Where several run at once, each computes on its share of the cores.
    """
    paths = [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH", "")]
    share = max(1, (os.cpu_count() or 1) // at_once)
    threads = {"OMP_NUM_THREADS": str(share)} if at_once > 1 else {}
    return {**threads, **os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, paths))}


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is written or replaced; None where there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _last_error(run: Run, code: int) -> str:
    """The error that stopped the notebook in one line, from its cells or else from the log."""
    if code == KERNEL_DIED:
        return "the kernel died, most often for want of memory"
    cells = nbformat.read(run.executed, as_version=4).cells if run.executed.exists() else []
    errors = [o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]
    if errors:
        return f"{errors[-1].ename}: {errors[-1].evalue}".splitlines()[0]
    lines = run.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"papermill stopped with exit code {code}"


def _seconds(outcome: Outcome) -> str:
    return "-" if outcome.seconds is None else f"{outcome.seconds:.1f}"


def _cells(outcome: Outcome) -> str:
    if outcome.seconds is None:
        return f"not run: no {outcome.run.profile} parameters"
    if outcome.error:
        return "FAILED"
    if outcome.verdicts is None:
        return "no results written"
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(outcome.verdicts.items())) or "measurements"


def _where(outcome: Outcome) -> list[str]:
    run, places = outcome.run, []
    if outcome.seconds is not None:
        places += [path for path in (run.executed, run.log) if path.exists()]
    if outcome.verdicts is not None:
        places.append(run.results)
    shown = [_relative(path) for path in places]
    figures = list(run.figures.parent.glob(f"{run.figures.name}.*")) if outcome.verdicts is not None else []
    count = f"{len(figures)} file{'s' if len(figures) > 1 else ''}"
    return shown + ([f"{_relative(run.figures)}.* ({count})"] if figures else [])


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
