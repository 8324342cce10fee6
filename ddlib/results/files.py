"""Files that are there whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` whole or not at all: a temporary file beside it, synced, then renamed.

    Missing folders are made.  Whoever reads `path` meanwhile sees what was there before.

    Raises:
        OSError: the folder cannot be written (PermissionError where it is read-only); the message names the path.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return path
