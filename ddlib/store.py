"""Where finished work lies: one folder a piece of work, named by a hash of everything that it depends on.

Every file carries the SHA-256 of its content.  One that is not what was written is never read: `Damaged` names it, and
`put_aside` keeps it out of the way for whoever wants to see it, so that it can be made again.
"""

import hashlib
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddlib.files import canonical, whole

LOG = logging.getLogger(__name__)


def key(content: Mapping[str, Any]) -> str:
    """A stable name for `content`: 16 hex digits of the SHA-256 of its sorted JSON."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()[:16]


def check_writable(folder: Path) -> None:
    """Refuse a folder for products before anything is computed for it.

    Raises:
        OSError: nothing can be written there; the message names the folder and the way to choose another.
    """
    try:
        with whole(folder / ".writable") as part:
            part.touch()
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        reason = error.__cause__ or error
        raise OSError(
            f"folder={str(folder)!r} cannot be written ({getattr(reason, 'strerror', None) or reason}); allowed: a "
            "folder that can; DDLIB_OUTPUT names another place for results, figures and runs"
        ) from error


def put_aside(path: Path, reason: object) -> Path:
    """Rename a file that cannot be used to `<name>.damaged` (or .damaged.2, ...), and say so in a warning."""
    endings = itertools.chain([".damaged"], (f".damaged.{i}" for i in itertools.count(2)))
    target = next(t for ending in endings if not (t := path.with_name(path.name + ending)).exists())
    path.rename(target)
    LOG.warning("%s; it was moved to %s and is made again", reason, target.name)
    return target
