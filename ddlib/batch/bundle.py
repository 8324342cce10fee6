"""Files that travel in pieces of a bounded size: what a machine without network lacks, and what was computed there."""

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ddlib import OUTPUT, ROOT

FOLDER = OUTPUT / "runs" / "bundle"
"""Where `bundle` leaves its pieces, and where they are looked for."""

PIECE = 60_000_000
DATA = ("cifar10", "fashion_mnist")
PACKAGES = (
    *("diffusers", "filelock", "jinja2", "matplotlib", "nbformat", "numpy", "pandas", "pillow", "psutil", "pytest"),
    *("pytest-timeout", "pytest-xdist", "pyyaml", "safetensors", "scikit-learn", "scipy", "seaborn", "statsmodels"),
    "tqdm",
)
"""What `ddlib gpu` needs beside torch and torchvision; what these need themselves comes with them."""

BLOCK, END = 512, 10_240
"""Bytes of a tar file that each file's header takes, and to which the file's end is filled up."""


def pack(files: Mapping[str, Path], folder: Path, name: str, piece: int = PIECE) -> list[Path]:
    """Write files, by the names that they get, into `name-1.tar`, `name-2.tar`, ... of at most `piece` bytes each.

    Raises:
        ValueError: a file does not fit into a piece.
    """
    groups: list[list[str]] = []
    left = 0
    for member, path in files.items():
        room = 2 * BLOCK + -(-path.stat().st_size // BLOCK) * BLOCK
        if room > piece - END:
            raise ValueError(f"{member} has {path.stat().st_size} bytes, which do not fit into a piece of {piece}")
        if room > left:
            groups.append([])
            left = piece - END
        groups[-1].append(member)
        left -= room
    for old in folder.glob(f"{name}-*.tar"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [folder / f"{name}-{number}.tar" for number, _ in enumerate(groups, 1)]
    for path, group in zip(pieces, groups, strict=True):
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for member in group:
                tar.add(files[member], member)
    return pieces


def unpack(folder: Path, name: str, target: Path) -> int:
    """Take the files that are not in `target` yet out of the pieces in `folder`; returns how many."""
    count = 0
    for piece in sorted(folder.glob(f"{name}-*.tar")):
        with tarfile.open(piece) as tar:
            members = [member for member in tar if member.isfile() and not (target / member.name).exists()]
            tar.extractall(target, members, filter="data")
            count += len(members)
    return count


def bundle(folder: Path = FOLDER, python: str = "3.12") -> list[str]:
    """Pack `DATA` and the wheels of `PACKAGES` for a Python of this version on this kind of processor; lines about it.

    The versions are those of requirements.lock.

    Raises:
        ValueError: a wheel cannot be had.
    """
    from ddlib.data import datasets

    lines = []
    root, files = datasets.data_root(), {}
    for name in DATA:
        place = root / datasets.describe(name).location
        found = sorted(path for path in place.rglob("*") if path.is_file())
        lines += [] if found else [f"left out: {name} is not in {root}; `ddlib data get {name}` gets it"]
        files |= {path.relative_to(root).as_posix(): path for path in found}
    with tempfile.TemporaryDirectory() as temporary:
        wheels = {path.name: path for path in download(Path(temporary), python)}
        pieces = [*pack(files, folder, "data"), *pack(wheels, folder, "wheels")]
        lines.append(f"{len(files)} files of data and {len(wheels)} wheels for Python {python}")
    return lines + [f"{path}: {path.stat().st_size / 1e6:.1f} MB" for path in pieces]


def download(folder: Path, python: str) -> list[Path]:
    """The wheels of `PACKAGES` and of what they need, at the versions of requirements.lock."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", lock, re.MULTILINE))
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items() if name != "torch"))
    words = ["download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--python-version", python]
    words += ["--implementation", "cp", "--dest", str(folder), "--constraint", str(constraints)]
    for minor in range(40, 16, -1):  # pip takes each of them by its exact name
        words += ["--platform", f"manylinux_2_{minor}_{platform.machine()}"]
    words += ["--platform", f"manylinux2014_{platform.machine()}", *PACKAGES]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was printed"])[-1]
        raise ValueError(f"the wheels for Python {python} cannot be had: {reason}")
    return sorted(folder.glob("*.whl"))


def unpack_wheels(folder: Path = FOLDER, site: Path = OUTPUT / "runs" / "site") -> list[str]:
    """Put the packages of the bundle that are not installed where this process and its children find them; their names.

    A wheel is an archive of what it installs, but for commands and the like, which nobody calls here.
    """
    added = []
    with tempfile.TemporaryDirectory() as temporary:
        unpack(folder, "wheels", Path(temporary))
        sys.path[:0] = [str(site)] * (folder.exists() and str(site) not in sys.path)
        for wheel in sorted(Path(temporary).glob("*.whl")):
            name = wheel.name.partition("-")[0]
            if not _installed(name):
                zipfile.ZipFile(wheel).extractall(site)
                added.append(name)
    if str(site) in sys.path:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return added


def _installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.distribution(name))
    except importlib.metadata.PackageNotFoundError:
        return False
