"""How much memory a piece of work took at most."""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

PROCESS = Path("/proc/self")
"""Where Linux tells a process of itself."""


def reset_peak_memory(device: str) -> None:
    """Begin to measure `peak_memory` anew, where the device can: an accelerator, or a CPU under Linux."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:  # another system, or a container that forbids it: the peak is that of the process's life
        return


def peak_memory(device: str) -> int:
    """Most bytes in use since `reset_peak_memory`: of the accelerator, or of this whole process on a CPU.

    Where the process cannot reset its own peak, it is that since its start.
    """
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

    Tensors alone count, those of compiled code and of automatic differentiation included: not the interpreter, not the
    code, and on a CPU not the scratch space of the libraries that convolve.  There the profiler tells each allocation,
    which slows the work down; it is no run to be timed.
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
