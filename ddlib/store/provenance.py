"""Where a number comes from: commit, code, versions, device, date."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from ddlib import ROOT, __version__
from ddlib.store import codeprint

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")


def provenance(device: str = "cpu", modules: tuple[str, ...] = ()) -> dict[str, Any]:
    """Where a number comes from that is computed now, on `device`, by the code of `modules`.

    The commit, None outside a git checkout; whether the tree was modified, products aside; the fingerprint of the code,
    where modules are given; the date, versions and the device's name.
    """
    commit, dirty = checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        **({"code": codeprint.fingerprint(modules)} if modules else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"ddlib": __version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": device_name(device),
    }


@cache
def checkout() -> tuple[str | None, bool | None]:
    """The commit, and whether the tree was modified (products aside), when this process first asked; None without git.

    What is edited later, while the process runs, made none of its numbers.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!figures", ":!notebooks")
    return commit, bool(changes) if commit else None


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
