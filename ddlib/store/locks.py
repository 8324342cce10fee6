"""One process at a time: locks that the operating system takes from a process when it dies."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ddlib.store.files import cannot_write, write_whole

LOG = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str, *, poll: float = 0.5) -> Iterator[None]:
    """Hold the lock at `path` inside the block, waiting for whoever holds it; looks again every `poll` seconds.

    A file of the same name with `.owner` says who holds it.  Where one is found beside a free lock, its owner died, and
    a line in the log says that its work, called `what`, is taken over.
    """
    owner = path.with_name(path.name + ".owner")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOG.warning("%s: under way in %s; waiting for it", what, _noted(owner) or "another process")
            lock.acquire(poll_interval=poll)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        if (dead := _noted(owner)) is not None:
            LOG.warning("%s: taken over from %s, which died", what, dead)
        since = datetime.now().isoformat(" ", "seconds")
        write_whole(owner, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str | None:
    """Who holds the lock at `path`, in words; None if nobody does."""
    if not path.exists():
        return None
    lock, owner = FileLock(path), path.with_name(path.name + ".owner")
    try:
        lock.acquire(timeout=0)
    except PermissionError:  # of a store that may only be read
        return _noted(owner)
    except Timeout:
        return _noted(owner) or "another process"
    lock.release()
    return None


def _noted(owner: Path) -> str | None:
    """Who holds or held the lock, in words; None if nobody is noted."""
    try:
        return owner.read_text(encoding="utf-8") or "an unknown process"
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return "an unknown process"
