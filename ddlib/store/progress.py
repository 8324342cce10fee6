"""How far a piece of work is (a bar, sparse lines, a log in its folder), and how much memory it takes."""

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from ddlib.store.files import cannot_write

MODES = ("auto", "bar", "lines", "none")
"""What may be shown: `auto` is a bar in JupyterLab and in a terminal, else lines."""

LEAST, SHARE = 10.0, 0.01
"""Seconds between two lines at least, and the share of the time gone by: a week gives a thousand lines."""

RUNNERS = {"papermill", "jupyter-nbconvert", "nbconvert", "jupyter-execute", "pytest"}
"""Programs that run notebooks with nobody looking on."""


class Progress:
    """One piece of work under way.

    Args:
        total: steps in all, each called `unit`.
        mode: one of `MODES`.
        device: whose peak memory is shown; None: none.
        log: a file to which lines are added.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        unit: str = "step",
        mode: str = "auto",
        device: str | None = None,
        log: Path | None = None,
    ):
        self.name, self.total, self.unit, self.device, self.log = name, total, unit, device, log
        self._mode = shown() if mode == "auto" else mode
        self._begin: tuple[float, int] | None = None
        self._line_at = self._drawn_at = time.monotonic()
        self._bar = tqdm(total=total, desc=name, unit=unit, delay=2, leave=False, disable=self._mode != "bar")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, done: int, loss: float | None = None) -> None:
        """`done` steps of all are done; cheap enough to be called after each."""
        now = time.monotonic()
        if self._begin is None:
            self._begin = now, done
            self._bar.initial = self._bar.n = done
        if self._mode == "bar" and (now - self._drawn_at >= 1 or done == self.total):
            self._drawn_at = now
            self._bar.set_postfix_str(", ".join(self._extras(loss)), refresh=False)
            self._bar.update(done - self._bar.n)
        if now - self._line_at >= max(LEAST, SHARE * (now - self._begin[0])):
            self._line_at = now
            line = self._line(now, done, loss)
            if self._mode == "lines":
                sys.stderr.write(f"{self.name}: {line}\n")
                sys.stderr.flush()
            self.note(line)

    def note(self, text: str) -> None:
        """Add a line to the log; an OSError names a log that cannot be written."""
        if self.log is None:
            return
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now().isoformat(' ', 'seconds')}  {text}\n")
        except OSError as error:
            raise cannot_write(self.log, error) from error

    def _line(self, now: float, done: int, loss: float | None) -> str:
        begin, first = self._begin
        parts = [f"{self.unit} {done} of {self.total}"]
        if now > begin and done > first:
            rate = (done - first) / (now - begin)
            parts += [f"{rate:.3g} {self.unit}s/s", f"{duration((self.total - done) / rate)} left"]
        return ", ".join(parts + self._extras(loss))

    def _extras(self, loss: float | None) -> list[str]:
        parts = [] if loss is None else [f"loss {loss:.4g}"]
        return parts + ([f"{peak_memory(self.device) / 1e9:.2f} GB"] if self.device else [])


def shown() -> str:
    """`bar` where a person looks on, in JupyterLab or a terminal; else `lines`."""
    parent = os.environ.get("JPY_PARENT_PID")
    if parent is None:
        return "bar" if sys.stderr.isatty() else "lines"
    try:  # a kernel: who started it, or who started that?
        starter = psutil.Process(int(parent))
        words = {Path(word).name for process in (starter, *starter.parents()) for word in process.cmdline()}
    except (psutil.Error, ValueError):
        return "bar"
    return "lines" if words & RUNNERS else "bar"


def duration(seconds: float) -> str:
    """Seconds in two units at most: 42 s, 7 min, 3 h 20 min, 2 days 4 h."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} days {minutes % 1440 // 60} h"


PROCESS = Path("/proc/self")
"""What Linux knows of this process."""


def reset_peak_memory(device: str) -> None:
    """Measure `peak_memory` from now on, where the device can: a GPU, or a CPU under Linux."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # freed memory that glibc keeps is in nobody's use
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:  # another system, or a container that forbids it: the peak is that of the process's life
        return


def peak_memory(device: str) -> int:
    """Most bytes in use since `reset_peak_memory`: of the GPU, or of this whole process on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        lines = (PROCESS / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak


def peak_of_tensors(work: Callable[[], object], device: str | torch.device) -> int:
    """Most bytes that torch's allocator held at once for what `work` allocates, beyond what was there before it.

    Tensors alone count, those of compiled code and of automatic differentiation included; on a CPU not the scratch
    space of the libraries that convolve.  There the profiler sees each allocation, which slows the work down.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes to the terminal that it begins
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most
