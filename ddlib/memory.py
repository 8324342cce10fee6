"""How much memory a piece of work took at most."""

import resource
import sys
from pathlib import Path

import torch

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
