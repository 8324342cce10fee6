"""What lies in the store: its pieces of work, what is known of each, and what can be thrown away."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib.store import files
from ddlib.store.files import Damaged, read_about, read_tensors
from ddlib.store.locks import holder

RUN, CHECKPOINT, LOG, LOCKS = "run.json", "checkpoint.safetensors", "log.txt", ".*lock"


@dataclass(frozen=True)
class Entry:
    """One piece of work in the store.

    folder: its own.
    name: what it is, in words; its key where nothing says.
    state: "finished", "under way", "interrupted" (it goes on from its checkpoint) or "damaged".
    detail: step and steps, who works on it, or which file is damaged.
    evaluations: how many are kept.
    size: bytes of all its files.
    """

    folder: Path
    name: str
    state: str
    detail: str
    evaluations: int
    size: int

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """What was made: "distilled", "embedding", ..."""
        return self.folder.parent.name


def entries(store: Path) -> list[Entry]:
    """The pieces of work in `store`, by kind and name.  Tensors are not read; `faults` does that."""
    found = (_entry(folder) for folder in sorted(store.glob("*/*")) if _is_piece(folder))
    return sorted(found, key=lambda entry: (entry.kind, entry.name, entry.key))


def find(store: Path, key: str) -> Entry:
    """The piece whose key begins with `key`.

    Raises:
        ValueError: there is none, or more than one.
    """
    found = [entry for entry in entries(store) if entry.key.startswith(key)]
    if len(found) != 1:
        those = ": " + ", ".join(entry.key for entry in found) if found else ""
        raise ValueError(f"key={key!r} is the beginning of {len(found)} pieces in {store}{those}; it must be of one")
    return found[0]


def described(entry: Entry) -> dict[str, Any]:
    """What `run.json` says, without the course; empty for a piece that is not finished."""
    try:
        made = files.read_json(entry.folder / RUN) or {}
    except Damaged:
        return {}
    return {name: value for name, value in made.items() if name != "history"}


def evaluations(entry: Entry) -> list[dict[str, Any]]:
    """The evaluations kept beside a distilled set; damaged ones are left out."""
    found = []
    for path in sorted(entry.folder.glob("evaluation-*.json")):
        try:
            found.append(files.read_json(path))
        except Damaged:
            continue
    return found


def faults(entry: Entry) -> list[str]:
    """Read every file and folder of a piece, and say which are not what was written."""
    found = []
    for path in sorted(entry.folder.iterdir()):
        read = _reader(path)
        try:
            if read is not None:
                read(path)
        except ValueError as error:
            found.append(str(error))
    return found


def leftovers(store: Path) -> list[Path]:
    """What nothing can use: files and folders half-written or put aside as damaged, checkpoints of finished pieces."""
    found = [*store.rglob(".*.part"), *store.rglob("*.damaged"), *store.rglob("*.damaged.*")]
    pieces = [folder for folder in store.glob("*/*") if _is_piece(folder)]
    found += [f / CHECKPOINT for f in pieces if (f / RUN).exists() and (f / CHECKPOINT).exists()]
    found = [path for path in found if not set(found) & set(path.parents)]  # a folder stands for what is in it
    busy = [folder for folder in pieces if _worker(folder) is not None]
    return sorted(path for path in found if not any(path.is_relative_to(folder) for folder in busy))


def remove(entry: Entry) -> int:
    """Delete a piece of work, and return the bytes that it took.

    Raises:
        ValueError: a process works on it.
    """
    who = _worker(entry.folder)
    if who is not None:
        raise ValueError(f"key={entry.key!r} is under way in {who}; allowed: pieces that nobody works on")
    shutil.rmtree(entry.folder)
    return entry.size


def discard(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    return sum(os.stat(file).st_size for file in (path, *path.rglob("*")) if file.is_file())


def _worker(folder: Path) -> str | None:
    """Who works on a piece, on itself or on an evaluation of it; None if nobody does."""
    return next(filter(None, map(holder, folder.glob(LOCKS))), None)


def _is_piece(folder: Path) -> bool:
    return any((folder / name).exists() for name in (RUN, CHECKPOINT, LOG))


def _entry(folder: Path) -> Entry:
    state, detail, about = _state(folder)
    kept = len(list(folder.glob("evaluation-*.json")))
    return Entry(folder, about.get("name", folder.name), state, detail, kept, size(folder))


def _state(folder: Path) -> tuple[str, str, dict[str, Any]]:
    """State, detail, and what is known of the piece."""
    who = _worker(folder)
    try:
        made = files.read_json(folder / RUN)
        about = made or read_about(folder / CHECKPOINT) or {}
    except Damaged as error:
        return "damaged", error.path.name, {}
    step = f"step {about['step']} of {about['iterations']}" if "step" in about else ""
    if made is None:
        return ("under way", who, about) if who else ("interrupted", step or "before its first checkpoint", about)
    if not (folder / made["product"]).exists():
        return "damaged", f"{made['product']} is missing", about
    return "finished", f"evaluation under way in {who}" if who else "", about


def _reader(path: Path) -> Callable[[Path], Any] | None:
    if path.is_dir():
        return None if path.suffix else files.check_folder  # half-written, or put aside
    return {".json": files.read_json, ".safetensors": read_tensors}.get(path.suffix)
