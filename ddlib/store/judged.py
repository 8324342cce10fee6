"""What is kept of the evaluation of one distilled set: a JSON file beside it, filled network by network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddlib.store import files
from ddlib.store.files import Damaged
from ddlib.store.tensors import read_seal


def mended(path: Path) -> dict[str, Any]:
    """What is kept of an evaluation; nothing where it is missing or damaged."""
    try:
        return files.read_json(path) or {}
    except Damaged as error:
        files.put_aside(path, error)
        return {}


def joined(kept: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of one evaluation as one: networks beside networks, seconds added."""
    lists = ("networks", "accuracies", "train_losses", "sittings")
    parts = {name: [*kept.get(name, ()), *found[name]] for name in lists}
    times = {name: kept.get(name, 0.0) + found[name] for name in ("seconds", "generation_seconds")}
    return {**found, **parts, **times}


def complete(path: Path, count: int) -> bool:
    """Whether `count` networks judged the set that lies beside the file.

    Raises:
        Damaged: the file is not what was written.
    """
    kept = files.read_json(path)
    of = read_seal(path.with_name("synthetic.safetensors"))
    return kept is not None and len(kept["networks"]) == count and kept["of"] == of


def share_left(path: Path, count: int) -> float:
    """The share of `count` networks that are not kept."""
    try:
        kept = files.read_json(path) or {"networks": ()}
    except Damaged:
        return 1.0
    return 1.0 - len(kept["networks"]) / count
