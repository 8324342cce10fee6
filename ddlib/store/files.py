"""Files that are there whole or not at all, and that are known to be what was written: JSON, tensors, folders.

Every file carries the SHA-256 of its content.  One that is not what was written is never read: `Damaged` names it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:  # torch takes a second to import, and JSON does without
    from torch import Tensor

LOG = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""The file of a folder that lists the others."""

HEADER = "ddlib"
"""The entry of a safetensors file's metadata that holds ours: "about", plain JSON, and "sha256"."""


class Damaged(ValueError):
    """The file at `path` is not what was written to it."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} {reason}")
        self.path = path


def cannot_write(path: Path, error: OSError) -> OSError:
    """An error of the same kind as `error` that names the path, and says what to do where the disk is full."""
    text = f"cannot write {path}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += "; what was there before is whole: free some space and run again, it goes on from there"
    return OSError(error.errno, text)


# --- whole or not at all --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Write a file whole or not at all: the block fills the file that it is given, which then takes the name `path`.

    Whoever reads `path` meanwhile sees what was there before, and keeps it if anything fails.  Folders are made.  An
    OSError names the path, and on a full disk says what to do.
    """
    path = Path(path)
    part = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch(exist_ok=False)
        yield part
        _sync(part)
        os.replace(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Write a folder, as `whole` a file, with a list of its files and their checksums that `check_folder` reads.

    A folder that had the name is replaced, and is there again if anything fails.
    """
    path = Path(path)
    part, old = _beside(path), _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        write_json(part / MANIFEST, {"files": _checksums(part)})
        for file in filter(Path.is_file, part.rglob("*")):
            _sync(file)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, old)
        os.rename(part, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if old.exists() and not path.exists():
            os.rename(old, path)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` whole or not at all, as `whole`, and return the path."""
    with whole(path) as part:
        part.write_bytes(content)
    return Path(path)


def check_writable(folder: Path) -> None:
    """Refuse, with an OSError that names the way to choose another, a folder in which nothing can be written."""
    try:
        write_whole(folder / ".writable", b"").unlink(missing_ok=True)
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(
            f"folder={str(folder)!r} cannot be written ({getattr(reason, 'strerror', None) or reason}); allowed: a "
            "folder that can; DDLIB_OUTPUT names another place for results, figures and runs"
        ) from error


def put_aside(path: Path, reason: object) -> None:
    """Rename a file that cannot be used to `<name>.damaged` (or .damaged.2, ...), and say so in a warning."""
    endings = itertools.chain([".damaged"], (f".damaged.{i}" for i in itertools.count(2)))
    target = next(t for ending in endings if not (t := path.with_name(path.name + ending)).exists())
    path.rename(target)
    LOG.warning("%s; it was moved to %s and is made again", reason, target.name)


def _beside(path: Path) -> Path:
    """A new name in the folder of `path`, hidden."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _sync(path: Path) -> None:
    """Have the system write a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


# --- checksums ------------------------------------------------------------------------------------------------------


def canonical(content: Mapping[str, Any]) -> str:
    """`content` as JSON with sorted keys, the same before it is written and after it is read."""
    return json.dumps(json.loads(json.dumps(content, allow_nan=False)), sort_keys=True)


def key(content: Mapping[str, Any]) -> str:
    """A stable name for `content`: 16 hex digits of the SHA-256 of its sorted JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def _checksum(content: Mapping[str, Any], tensors: "Mapping[str, Tensor]" = MappingProxyType({})) -> str:
    """SHA-256 over the JSON, and over names, types, shapes and values of the tensors, which lie dense on the CPU."""
    digest = hashlib.sha256(canonical(content).encode())
    for name, tensor in sorted(tensors.items()):
        import torch

        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `folder`, by its path there, less the list itself."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MANIFEST]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def check(path: Path) -> None:
    """Read a file or folder of the store, and compare it with its checksum, where it has one.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not what was written.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        check_folder(path)
    elif path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".safetensors":
        read_tensors(path)


def check_folder(path: Path) -> None:
    """Compare every file of a folder that `whole_folder` wrote with its checksum; raises as `check`."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        written = (read_json(path / MANIFEST) or {}).get("files")
    except Damaged as error:
        raise Damaged(path, f"is damaged: {error}") from error
    if written is None:
        raise Damaged(path, f"is damaged: it has no {MANIFEST}")
    present = _checksums(path)
    if changed := sorted(name for name in written | present if written.get(name) != present.get(name)):
        raise Damaged(path, f"is damaged: {', '.join(changed)} are not what was written")


def foreign(folder: Path) -> list[str]:
    """What lies in a folder that `whole_folder` did not put there: paths in it, sorted; all, where it has no list."""
    try:
        written = (read_json(folder / MANIFEST) or {}).get("files", {})
    except Damaged:
        written = {}
    listed = {*written, MANIFEST} if written else set()
    present = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted({path.relative_to(folder).as_posix() for path in present} - listed)


# --- JSON and tensors -----------------------------------------------------------------------------------------------


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON with its checksum, whole or not at all."""
    sealed = {**content, "sha256": _checksum(content)}
    write_whole(path, json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None where there is nothing.  Raises `Damaged`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Damaged(path, f"is not whole: {error}") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != _checksum(content):
        raise Damaged(path, "is damaged: its content is not what was written")
    return content


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]", about: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, of any device, and JSON about them as one safetensors file with its checksum."""
    import safetensors.torch

    dense: dict[str, Tensor] = {}
    memory = set()
    for name, tensor in tensors.items():  # copied only where an earlier one has the same memory
        plain = tensor.detach().cpu().contiguous()
        dense[name] = plain.clone() if plain.untyped_storage().data_ptr() in memory else plain
        memory.add(dense[name].untyped_storage().data_ptr())
    header = {"about": dict(about or {}), "sha256": _checksum(about or {}, dense)}
    write_whole(path, safetensors.torch.save(dense, {HEADER: json.dumps(header, allow_nan=False)}))


def read_tensors(path: Path, device: str = "cpu") -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """What `write_tensors` wrote: the tensors on `device`, and what was said about them.

    On a CPU they are mapped from the file; writing to such a tensor changes neither the file nor what others read.

    Raises:
        OSError: the file cannot be opened (FileNotFoundError: there is none); that does not make it damaged.
        Damaged: the file is not what was written.
    """
    with _opened(path) as (file, header):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if header["sha256"] != _checksum(header["about"], tensors):
        raise Damaged(path, "is damaged: its content is not what was written")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, header["about"]


def read_about(path: Path) -> dict[str, Any] | None:
    """What is said about the tensors of a file, unchecked and without reading them; None where there is no file.

    Raises OSError where the file cannot be opened, and `Damaged` where its header cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), _opened(path) as (_, header):
        return header["about"]


def read_seal(path: Path) -> str | None:
    """The checksum that a file's header states; None where there is no file.  Raises as `read_about`."""
    with contextlib.suppress(FileNotFoundError), _opened(path) as (_, header):
        return header["sha256"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A file that `write_tensors` wrote, and its header; what stands in the way of opening it is raised as it is."""
    with path.open("rb"):  # safetensors calls every reason "not found"
        pass
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            yield file, {name: header[name] for name in ("about", "sha256")}
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise Damaged(path, f"is truncated or not a safetensors file of ddlib's: {error}") from error
