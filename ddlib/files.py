"""Files that are there whole or not at all, and that are known to be what was written."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

HEADER = "ddlib"
"""The entry of a safetensors file's metadata that holds ours."""


class Damaged(ValueError):
    """A file is not what was written to it.

    path: of the file.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} {reason}")
        self.path = path


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: the block fills the file that it is given, which then takes the name `path`.

    The temporary file lies in the same folder, is synced and then renamed: whoever reads `path` meanwhile sees what
    was there before, and keeps it if anything fails.  Missing folders are made.

    Raises:
        OSError: it cannot be written (PermissionError where the folder is read-only); the message names the path, and
            on a full disk says what to do.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` whole or not at all, as `whole`, and return the path."""
    with whole(path) as part:
        part.write_bytes(content)
    return Path(path)


def cannot_write(path: Path, error: OSError) -> OSError:
    """An error of the same kind as `error` that names the path, and says what to do where the disk is full."""
    text = f"cannot write {path}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += "; what was there before is whole: free some space and run again, it goes on from there"
    return OSError(error.errno, text)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON with its checksum, whole or not at all."""
    sealed = {**content, "sha256": _checksum(content, {})}
    write_whole(path, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote, or None where there is nothing.

    Raises:
        Damaged: the file is not what was written; the message names it.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Damaged(path, f"is not whole: {error}") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != _checksum(content, {}):
        raise Damaged(path, "is damaged: its content is not what was written")
    return content


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, and plain JSON about them, as one safetensors file with its checksum, whole or not at all.

    Args:
        tensors: on any device; views are written out.
        about: kept in the file's header.
    """
    dense = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    header = {"about": dict(about or {}), "sha256": _checksum(about or {}, dense)}
    with whole(path) as part:
        safetensors.torch.save_file(dense, part, {HEADER: json.dumps(header, allow_nan=False)})


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: the tensors on `device`, and what was said about them.

    Raises:
        FileNotFoundError: there is no file.
        Damaged: the file is not what was written; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise
    except (SafetensorError, ValueError, OSError) as error:
        raise Damaged(path, f"is truncated or not a safetensors file of ddlib's: {error}") from error
    if not isinstance(header, dict):
        raise Damaged(path, f"is not a file of ddlib's: its header has no entry {HEADER!r}")
    about = header.get("about")
    if not isinstance(about, dict) or header.get("sha256") != _checksum(about, tensors):
        raise Damaged(path, "is damaged: its content is not what was written")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, about


def read_about(path: Path) -> dict[str, Any] | None:
    """What is said about the tensors of a file, unchecked and without reading them; None where there is no file.

    Raises:
        Damaged: the header cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})[HEADER])["about"]
    except FileNotFoundError:
        return None
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise Damaged(path, f"is truncated or not a safetensors file of ddlib's: {error}") from error


def canonical(content: Mapping[str, Any]) -> str:
    """`content` as JSON with sorted keys, the same before it is written and after it is read.

    Raises:
        TypeError, ValueError: it is no plain JSON.
    """
    return json.dumps(json.loads(json.dumps(content, allow_nan=False)), sort_keys=True)


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the JSON and over names, types, shapes and values of the tensors, which lie dense on the CPU."""
    digest = hashlib.sha256(canonical(content).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
