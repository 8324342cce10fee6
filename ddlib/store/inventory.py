"""What lies in the store: its artefacts, what is known of each, and what can be thrown away."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib.store import files
from ddlib.store.artefacts import CHECKPOINT, LOG_FILE, RUN, holder
from ddlib.store.files import Damaged, read_about


@dataclass(frozen=True)
class Entry:
    """An artefact in a folder of the store.

    state: "finished", "under way", "interrupted" (it goes on from its checkpoint) or "damaged"; then, after ": ", step
        and steps, who works on it, or which file is damaged.
    about: what `run.json` or else the checkpoint says of it, without the course.
    evaluations: how many are kept.
    size: bytes of all its files.
    """

    folder: Path
    state: str
    about: Mapping[str, Any]
    evaluations: int
    size: int

    @property
    def name(self) -> str:
        """What it is, in words; its key where nothing says."""
        return self.about.get("name", self.key)

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """What was made: "distilled", "embedding", ..."""
        return self.folder.parent.name


def entries(store: Path) -> list[Entry]:
    """The artefacts in `store`, by kind and name.  Tensors are not read; `faults` does that."""
    return sorted(map(_entry, _folders(store)), key=lambda entry: (entry.kind, entry.name, entry.key))


def find(store: Path, key: str) -> Entry:
    """The artefact whose key begins with `key`; ValueError where there is none, or more than one."""
    matching = [entry for entry in entries(store) if entry.key.startswith(key)]
    if len(matching) != 1:
        keys = ": " + ", ".join(entry.key for entry in matching) if matching else ""
        raise ValueError(f"key={key!r} is the beginning of {len(matching)} pieces in {store}{keys}; it must be of one")
    return matching[0]


def evaluations(entry: Entry) -> list[dict[str, Any]]:
    """The evaluations kept beside a distilled set; damaged ones are left out."""
    records = []
    for path in _evaluations(entry.folder):
        try:
            records.append(files.read_json(path))
        except Damaged:
            continue
    return records


def faults(entry: Entry) -> list[str]:
    """Read every file and folder of an artefact, and say which are not what was written."""
    messages = []
    for path in sorted(entry.folder.iterdir()):
        if path.is_dir() and path.suffix:
            continue  # half-written, or put aside
        try:
            files.check(path)
        except Damaged as error:
            messages.append(str(error))
    return messages


def leftovers(store: Path) -> list[Path]:
    """What nothing can use: files and folders half-written or put aside, and checkpoints of finished artefacts."""
    folders = _folders(store)
    useless = {*store.rglob(".*.part"), *store.rglob("*.damaged"), *store.rglob("*.damaged.*")}
    useless |= {f / CHECKPOINT for f in folders if (f / RUN).exists() and (f / CHECKPOINT).exists()}
    busy = {folder for folder in folders if _worker(folder) is not None}
    return sorted(path for path in useless if not (useless | busy) & {*path.parents})  # a folder stands for its files


def remove(entry: Entry) -> None:
    """Delete an artefact; a ValueError where a process works on it."""
    if (worker := _worker(entry.folder)) is not None:
        raise ValueError(f"key={entry.key!r} is under way in {worker}; allowed: pieces that nobody works on")
    shutil.rmtree(entry.folder)


def size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _folders(store: Path) -> list[Path]:
    """The folders of artefacts, sorted."""
    names = (RUN, CHECKPOINT, LOG_FILE)
    return [folder for folder in sorted(store.glob("*/*")) if any((folder / name).exists() for name in names)]


def _evaluations(folder: Path) -> list[Path]:
    """The files of the evaluations of a set, and of a memory whose last part it is."""
    return sorted([*folder.glob("evaluation-*.json"), *folder.glob("memory-*.json")])


def _worker(folder: Path) -> str | None:
    """Who works on an artefact, on itself or on an evaluation of it; None if nobody does."""
    return next(filter(None, map(holder, folder.glob(".*lock"))), None)


def _entry(folder: Path) -> Entry:
    try:
        record = files.read_json(folder / RUN)
        about = record or read_about(folder / CHECKPOINT) or {}
        state = _state(folder, record, about)
    except Damaged as error:
        about, state = {}, f"damaged: {error.path.name}"
    about = {name: value for name, value in about.items() if name != "history"}
    return Entry(folder, state, about, len(_evaluations(folder)), size(folder))


def _state(folder: Path, record: Mapping[str, Any] | None, about: Mapping[str, Any]) -> str:
    """State of an artefact whose JSON is whole."""
    worker = _worker(folder)
    if record is None and worker:
        return f"under way: {worker}"
    if record is None:
        step = f"step {about['step']} of {about['iterations']}" if "step" in about else "before its first checkpoint"
        return f"interrupted: {step}"
    if not (folder / record["product"]).exists():
        return f"damaged: {record['product']} is missing"
    return f"finished: evaluation under way in {worker}" if worker else "finished"
