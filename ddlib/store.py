"""Where finished work lies: one folder a piece of work, named by a hash of everything that it depends on."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def key(content: Mapping[str, Any]) -> str:
    """A stable name for `content`: 16 hex digits of the SHA-256 of its sorted JSON."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: the block fills a temporary one beside `path`, synced and renamed after it.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error
    part = Path(name)
    try:
        yield part
        os.fsync(descriptor)
        os.replace(part, path)
    finally:
        os.close(descriptor)
        part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder for products before anything is computed for it.

    Raises:
        OSError: nothing can be written there; the message names the folder and the way to choose another.
    """
    try:
        with whole(folder / "writable") as part:
            part.touch()
        (folder / "writable").unlink()
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(
            f"folder={str(folder)!r} cannot be written ({getattr(reason, 'strerror', None) or reason}); allowed: a "
            "folder that can; DDLIB_OUTPUT names another place for results, figures and runs"
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON, whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    with whole(path) as part:
        part.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))


def read_tensors(path: Path, device: str) -> dict[str, Tensor]:
    """What `write_tensors` wrote, on `device`.

    Raises:
        ValueError: the file is not whole; the message names it.
    """
    try:
        return load_file(path, device=device)
    except SafetensorError as error:
        raise ValueError(f"{path} is not whole ({error}); delete it and run again") from error


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote, or None where there is nothing.

    Raises:
        ValueError: the file is not whole; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not whole ({error}); delete it and run again") from error
