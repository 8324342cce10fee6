"""One process at a time: locks that the operating system takes from a process when it dies."""

import json
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
    """Hold the lock at `path` inside the block, waiting for whoever holds it.

    A file of the same name with `.owner` says who holds it.  Where one is found beside a free lock, its owner died, and
    a line in the log says that its work is taken over.

    Args:
        path: of the lock file, which stays when the lock is free.
        what: the work that it guards, for the lines that are logged.
        poll: seconds between two looks at a lock that is held.

    Raises:
        OSError: the folder cannot be written.
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
        myself = {"process": str(os.getpid()), "host": socket.gethostname(), "since": since}
        write_whole(owner, json.dumps(myself).encode())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def holder(path: Path) -> str | None:
    """Who holds the lock at `path`, in words; None if nobody does."""
    if not path.exists():
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except PermissionError:  # of a store that may only be read
        return _noted(path.with_name(path.name + ".owner"))
    except Timeout:
        return _noted(path.with_name(path.name + ".owner")) or "another process"
    lock.release()
    return None


def _noted(owner: Path) -> str | None:
    """Who holds or held the lock, in words; None if nobody is noted."""
    try:
        note = json.loads(owner.read_bytes())
        return f"process {note['process']} on {note['host']}, since {note['since']}"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
