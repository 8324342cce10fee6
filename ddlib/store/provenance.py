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

    The commit, or None and the reason as `no_commit`; whether the tree was modified, products aside; the fingerprint of
    the code, where modules are given; the date, versions and the device's name.
    """
    commit, dirty, reason = checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        **({"no_commit": reason} if reason else {}),
        **({"code": codeprint.fingerprint(modules)} if modules else {}),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"ddlib": __version__, "python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "device": device_name(device),
    }


@cache
def checkout() -> tuple[str | None, bool | None, str]:
    """The commit and whether the tree is modified (products aside), as this process first asked; or why none is known.

    What is edited later, while the process runs, made none of its numbers.
    """
    products = (":!results", ":!figures", ":!notebooks")
    try:
        if not _git("ls-files", "ddlib"):  # unpacked without git inside another repository
            return None, None, "git does not track this code"
        commit = _git("rev-parse", "HEAD")
        modified = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *products)
        return commit, bool(modified or _git("ls-files", "--others", "--exclude-standard", "ddlib")), ""
    except OSError as error:
        return None, None, f"git cannot be run: {error.strerror}"
    except subprocess.CalledProcessError as error:
        return None, None, error.stderr.strip().partition("\n")[0]


def device_name(device: str) -> str:
    """The accelerator's name, or the processor's architecture with the number of threads in use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _git(*words: str) -> str:
    """Output of a git command in the repository."""
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
