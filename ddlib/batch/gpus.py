"""Which GPUs there are, and one of them for this process alone."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

VARIABLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads when it is first used; a name in it is a number or a UUID."""


def visible() -> tuple[str, ...]:
    """The GPUs that CUDA can use here, by their names in CUDA_VISIBLE_DEVICES where it is set, else by number."""
    import torch

    count = torch.cuda.device_count()
    told = os.environ.get(VARIABLE)
    names = [str(number) for number in range(count)] if told is None else [name.strip() for name in told.split(",")]
    return tuple(names[:count])  # CUDA stops at the first name that is not there


@contextlib.contextmanager
def pinned(names: Sequence[str]) -> Iterator[str | None]:
    """Within the block CUDA sees one of the GPUs `names`, which no other process of this user is pinned to.

    It waits until one is free.  A file is locked for each GPU in use; the lock of a process that died is free.
    Enter the block before CUDA is first used.

    Returns:
        The GPU's name; None where `names` is empty, and nothing is changed.
    """
    if not names:
        yield None
        return
    name, lock = _free(names)
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield name
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        lock.release()


def lock_path(name: str) -> Path:
    """The file that is locked while the GPU is in use: in the machine's temporary folder, whatever the store."""
    return Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}" / f"{quote(name, safe='')}.lock"


def _free(names: Sequence[str], *, poll_seconds: float = 1.0) -> tuple[str, FileLock]:
    """The first GPU that is free, and its lock, held."""
    lock_path(names[0]).parent.mkdir(exist_ok=True)
    while True:
        for name in names:
            lock = FileLock(lock_path(name))
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                return name, lock
        time.sleep(poll_seconds)
