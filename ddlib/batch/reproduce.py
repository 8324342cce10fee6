"""Runs notebooks as papermill does, each in a process of its own, and says what came of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
import psutil
from tqdm import tqdm

from ddlib import OUTPUT, ROOT, results
from ddlib.store import files
from ddlib.store.progress import duration
from ddlib.study import notebooks, parameters, planning
from ddlib.study.rows import Cell

SIGNALS = (signal.SIGINT, signal.SIGTERM)

POLL = 0.2
"""Seconds after which it is looked again which children have ended."""

KERNEL_DIED = 138
"""papermill's exit code when the kernel was killed, most often for memory."""


def run(words: Sequence[str], **options: Any) -> int:
    """Run a command, with the options of `subprocess.Popen`, and return its exit code; signals as in `stoppable`."""
    children = []
    with stoppable(children):
        children.append(psutil.Popen(words, process_group=0, **options))
        return children[0].wait()


@contextlib.contextmanager
def stoppable(children: Collection[psutil.Popen]) -> Iterator[threading.Event]:
    """A block in which SIGINT and SIGTERM reach `children`, and all that they have started, as SIGINT.

    Upon it they save their work and cancel their jobs.  The block begins each in a process group of its own, so that a
    terminal's Ctrl-C comes from here alone, and waits for all of them; once the event that it is given is set, it
    begins no more, and ends with KeyboardInterrupt.
    """
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopped.set()
        for child in children:
            _interrupt(child)

    # Handled before a child begins: a command in a script's background would else inherit that SIGINT is ignored.
    # Elsewhere than in the main thread Python has no handlers.
    handled = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if stopped.is_set():
        raise KeyboardInterrupt


def _interrupt(child: psutil.Popen) -> None:
    """Send SIGINT to a child and all that it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (*child.children(recursive=True), child):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Run:
    """One notebook at one profile, and where its products lie.

    name: `paper/experiment`, e.g. "atom/accuracy", or one of its `notebooks.variants`.
    profile: one of `ddlib.PROFILES`.
    output: folder of the executed notebooks.
    overrides: a YAML file laid over the profile's parameters.
    """

    name: str
    profile: str
    output: Path
    overrides: Path | None = None

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
    def committed(self) -> Path:
        """The same of the repository, which are others where `ddlib.OUTPUT` lies elsewhere."""
        return ROOT / "results" / f"{self.name}.{self.profile}.json"

    @property
    def changes(self) -> dict[str, Any]:
        """The parameters in the file of overrides."""
        return parameters.read_params(self.overrides) if self.overrides else {}

    @property
    def device(self) -> str:
        """The device that the notebook's parameters name."""
        return parameters.device(notebooks.parameters(self.name, self.profile, self.changes).get("device", "cpu"))

    def cells(self) -> dict[str, Cell]:
        """The cells that the notebook computes, in its order, by a stable name of all that decides their numbers."""
        cells = notebooks.cells(self.name, self.profile, self.changes)
        return {files.key(cell.settings()): cell for cell in cells}


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

    @property
    def refused(self) -> bool:
        """Whether the notebook refused its parameters or lacks a file, so that another try would end alike."""
        return self.error.startswith(("ValueError: ", "FileNotFoundError: "))

    def __str__(self) -> str:
        if self.seconds is None:
            return f"not run: no {self.run.profile} parameters"
        if self.error:
            return "FAILED"
        if self.verdicts is None:
            return "no results written"
        return ", ".join(f"{count} {verdict}" for verdict, count in sorted(self.verdicts.items())) or "measurements"


def plan(wanted: Sequence[str], profile: str, *, output: Path, overrides: Path | None = None) -> list[Run]:
    """The runs that `wanted` asks for at a profile; ValueError and FileNotFoundError as `notebooks.chosen`.

    Those that compare papers come last: most of their work is done by then.  A ValueError names overrides that are no
    parameters of a notebook.
    """
    names = sorted(notebooks.chosen(wanted, profile), key=lambda name: name.startswith("compare/"))
    runs = [Run(name, profile, output, overrides) for name in names]
    for run in runs if overrides else []:
        if "profile" in run.changes:
            raise ValueError(f"{overrides} sets 'profile', which --profile does; leave it out")
        if notebooks.has_profile(run.name, profile):
            try:
                run.cells()
            except ValueError as error:
                raise ValueError(f"{overrides} does not suit {run.name}: {error}") from error
    return runs


def execute(runs: Sequence[Run], *, at_once: int = 1) -> list[Outcome]:
    """Execute notebooks with papermill, each in a process of its own, on the kernel of this very environment.

    The working directory is the notebook's folder, as in JupyterLab.  A notebook without parameters for the
    profile is left out.  What an earlier run left is never taken for this one's.  With several `at_once`, each has its
    share of the cores, unless OMP_NUM_THREADS says otherwise; a cell that two of them need is computed by one.  How far
    it is goes to stderr (`Display`).  Stopped by SIGINT or SIGTERM, it raises KeyboardInterrupt; the work is saved.
    """
    outcomes = {run: Outcome(run, None) for run in runs}
    waiting = [run for run in runs if notebooks.has_profile(run.name, run.profile)]
    running: dict[psutil.Popen, tuple[Run, float, int | None]] = {}
    with Display(waiting) as display, stoppable(running) as stopped:
        while running or (waiting and not stopped.is_set()):
            while waiting and len(running) < at_once and not stopped.is_set():
                run = waiting.pop(0)
                display.begin(run)
                running[_start(run, at_once)] = run, time.perf_counter(), _written(run.results)
            for child in psutil.wait_procs([*running], timeout=POLL)[0]:
                run, begin, before = running.pop(child)
                error = _last_error(run, child.returncode) if child.returncode else ""
                seconds, fresh = time.perf_counter() - begin, _written(run.results) != before
                outcomes[run] = outcome(run, seconds, error, fresh=fresh)
                display.end(outcomes[run])
            display.update()
    return list(outcomes.values())


def _start(run: Run, at_once: int) -> psutil.Popen:
    """Begin to execute a notebook, with the kernels of this Python before any that are registered elsewhere."""
    run.executed.parent.mkdir(parents=True, exist_ok=True)
    run.executed.unlink(missing_ok=True)
    notebook, file = notebooks.path_of(run.name), notebooks.params_file(run.name, run.profile)
    words = [sys.executable, "-m", "papermill", notebook, run.executed, "--kernel", "python3"]
    words += ["--cwd", notebook.parent, "--log-output", "--no-progress-bar"]
    words += [word for path in (file, run.overrides) if path for word in ("-f", path)]
    kernels = [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH", "")]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))} if at_once > 1 else {}
    environment = {**threads, **os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, kernels))}
    with run.log.open("wb") as log:
        return psutil.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT, process_group=0)


class Display:
    """How far notebooks are, on stderr: a line as each begins and ends; in a terminal, a bar below them.

    What is left is estimated from what the results that lie there cost, in proportion to the time that has gone, once a
    quarter is done: the first notebooks say little.
    """

    def __init__(self, runs: Sequence[Run]):
        costs = {run: _recorded_seconds(run) for run in runs}
        known = [seconds for seconds in costs.values() if seconds] or [1.0]
        self._weights = {run: seconds or sum(known) / len(known) for run, seconds in costs.items()}
        self._begin = self._drawn = time.monotonic()
        self._end: float | None = None
        self._running: list[Run] = []
        self._ended: list[Run] = []
        self._bar = tqdm(
            total=len(runs), bar_format="{n} of {total} |{bar:12}| {elapsed}{postfix}", dynamic_ncols=True,
            disable=not sys.stderr.isatty(), file=sys.stderr, leave=False,
        )  # fmt: skip

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, run: Run) -> None:
        """Say that a notebook begins."""
        self._running.append(run)
        self._say(f"{run.name} ({run.profile}): running, log in {run.log}")

    def end(self, outcome: Outcome) -> None:
        """Say what came of a notebook, and how much is left."""
        self._running.remove(outcome.run)
        self._ended.append(outcome.run)
        taken, whole = time.monotonic() - self._begin, sum(self._weights.values())
        if (part := sum(map(self._weights.get, self._ended))) > whole / 4:
            self._end = self._begin + taken * whole / part
        done = f"{len(self._ended)} of {len(self._weights)} done after {duration(taken)}"
        self._say(f"{outcome.run.name}: {outcome.seconds:.0f} s, {outcome}; {done}{self._left()}")
        self._bar.update()

    def update(self) -> None:
        """Draw the bar anew, where there is one and a while has gone by."""
        if not self._bar.disable and time.monotonic() - self._drawn > 1:
            self._drawn = time.monotonic()
            self._bar.set_postfix_str(" | ".join([self._left()[2:] or "...", *map(_position, self._running)]))

    def _left(self) -> str:
        if self._end is None or len(self._ended) == len(self._weights):
            return ""
        return f", about {duration(max(0.0, self._end - time.monotonic()))} left"

    def _say(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def _recorded_seconds(run: Run) -> float:
    """What distilling and evaluating took when the results that lie there were made; 0 where they do not say."""
    try:
        records = [] if results.read_measurements(run.results) else results.read(run.results)
    except (OSError, ValueError):
        return 0.0
    return sum(record.cost.get(name) or 0.0 for record in records for name in ("distil_seconds", "evaluate_seconds"))


def _position(run: Run) -> str:
    """The cell at which a notebook is and the last line that it printed, from the end of its log."""
    with run.log.open("rb") as log:
        log.seek(max(0, run.log.stat().st_size - 8192))
        _, begun, text = log.read().decode(errors="replace").rpartition("Executing Cell ")
    cell = f" cell {re.match('[0-9]*', text)[0]}" if begun else ""
    lines = [line.strip() for line in text.splitlines()[bool(begun) :] if not line.startswith("Ending Cell")]
    step = next(filter(None, reversed(lines)), "")
    return f"{run.name}{cell}{f': {step}' if step else ''}"


def _written(path: Path) -> int | None:
    """When a file was last written, in ns; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def executed(run: Run) -> nbformat.NotebookNode:
    """The notebook as executed; an empty one where it is not there, or not whole, as on a full disk."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return nbformat.read(run.executed, as_version=4)
    return nbformat.v4.new_notebook()


def outcome(run: Run, seconds: float, error: str, *, fresh: bool) -> Outcome:
    """What came of a run that ended; its results are read if it is they that lie there, `fresh`."""
    if not fresh:
        return Outcome(run, seconds, error=error)
    try:
        measured = results.read_measurements(run.results) is not None
        verdicts = {} if measured else dict(Counter(record.verdict for record in results.read(run.results)))
    except ValueError as damage:
        return Outcome(run, seconds, error=error or str(damage))
    return Outcome(run, seconds, verdicts, error)


def _last_error(run: Run, code: int) -> str:
    """The error that stopped the notebook in one line, from its cells or else from the log."""
    if code == KERNEL_DIED:
        return "the kernel died, most often for want of memory"
    errors = [o for cell in executed(run).cells for o in cell.get("outputs", []) if o.output_type == "error"]
    if errors:
        return f"{errors[-1].ename}: {errors[-1].evalue}".splitlines()[0]
    lines = run.log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"papermill stopped with exit code {code}"


def table(outcomes: Sequence[Outcome]) -> str:
    """The summary as text: notebook, seconds, cells by verdict, where to look."""
    rows = [("notebook", "seconds", "cells by verdict", "where to look")]
    for outcome in outcomes:
        seconds = "-" if outcome.seconds is None else f"{outcome.seconds:.1f}"
        rows += zip_longest([outcome.run.name], [seconds], [str(outcome)], _products(outcome), fillvalue="")
    return planning.aligned(rows, "<><<")


def _products(outcome: Outcome) -> list[str]:
    """What the run left, by path from here."""
    run, products = outcome.run, []
    if outcome.seconds is not None:
        products += [os.path.relpath(path) for path in (run.executed, run.log) if path.exists()]
    if outcome.verdicts is not None:
        products.append(os.path.relpath(run.results))
        figures = OUTPUT / "figures" / f"{run.name}.{run.profile}"
        if count := len(list(figures.parent.glob(f"{figures.name}.*"))):
            products.append(f"{os.path.relpath(figures)}.* ({count} file{'s' if count > 1 else ''})")
    return products
