"""Where a number comes from: commit, versions, device."""

import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from ddlib import ROOT, __version__

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Commit and whether the tree was dirty (products aside), date, versions, and the name of the device."""
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!figures"))
        if commit
        else None,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"ddlib": __version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": device_name(device),
    }


def reset_peak_memory(device: str) -> None:
    """Begin to measure `peak_memory` anew, where the device can: on an accelerator."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int:
    """Most bytes in use: of the accelerator since `reset_peak_memory`, or of this process since its start on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_name(device: str) -> str:
    """The accelerator's name, or the processor's architecture with the number of threads in use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _git(*words: str) -> str | None:
    """Output of a git command in the repository, or None where it is no git checkout."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
