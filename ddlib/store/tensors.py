"""Named tensors in one safetensors file, with plain JSON about them and a checksum over both."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddlib.store.files import Damaged, canonical, write_whole

HEADER = "ddlib"
"""The entry of a safetensors file's metadata that holds ours."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, and plain JSON about them, as one safetensors file with its checksum, whole or not at all.

    Args:
        tensors: on any device; views are written out.
        about: kept in the file's header.
    """
    dense = _dense(tensors)
    header = {"about": dict(about or {}), "sha256": _checksum(about or {}, dense)}
    content = safetensors.torch.save(dense, {HEADER: json.dumps(header, allow_nan=False)})
    write_whole(path, content)


def _dense(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors dense on the CPU, copied only where they are not, or where an earlier one has the same memory."""
    dense, taken = {}, set()
    for name, tensor in tensors.items():
        found = tensor.detach().cpu().contiguous()
        dense[name] = found.clone() if found.untyped_storage().data_ptr() in taken else found
        taken.add(dense[name].untyped_storage().data_ptr())
    return dense


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: the tensors on `device`, and what was said about them.

    On a CPU they are mapped from the file, which is read once for its checksum and takes no memory of the process;
    writing to such a tensor changes neither the file nor what others read.

    Raises:
        OSError: the file cannot be opened (FileNotFoundError: there is none); that does not make it damaged.
        Damaged: the file is not what was written; the message names it.
    """
    _open(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, ValueError) as error:
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
        OSError: the file is there and cannot be opened.
        Damaged: the header cannot be read.
    """
    return None if (header := _header(path)) is None else header["about"]


def read_seal(path: Path) -> str | None:
    """The checksum that a file's header states; None where there is no file.  Raises as `read_about`."""
    return None if (header := _header(path)) is None else header["sha256"]


def _header(path: Path) -> dict[str, Any] | None:
    try:
        _open(path)
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
        return {name: header[name] for name in ("about", "sha256")}
    except FileNotFoundError:
        return None
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(path, f"is truncated or not a safetensors file of ddlib's: {error}") from error


def _open(path: Path) -> None:
    """Raise what stands in the way of opening a file: safetensors calls all of it "not found"."""
    with path.open("rb"):
        pass


def _checksum(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the JSON and over names, types, shapes and values of the tensors, which lie dense on the CPU."""
    digest = hashlib.sha256(canonical(content).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
