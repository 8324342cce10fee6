"""What a job is continued from: its state on disk, renewed from time to time."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddlib.store import files
from ddlib.store.files import Damaged
from ddlib.store.tensors import read_about, read_tensors, write_tensors

SHARE = 50
"""A checkpoint that takes t seconds to write is not renewed before 50 t: at most 2 % of the time goes into it."""


class Checkpoint:
    """The newest state of a job, in one file that is replaced whole.

    Args:
        path: of the file.
        seconds: least time between two writes; 0 asks for one after every step, whatever it costs.
    """

    def __init__(self, path: Path, seconds: float):
        self.path, self.seconds = path, seconds
        self._next = time.monotonic() + seconds

    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() >= self._next

    def step(self) -> int:
        """At which step it stands, unchecked; 0 where there is nothing, or nothing that can be read."""
        try:
            return (read_about(self.path) or {}).get("step", 0)
        except Damaged:
            return 0

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors last written, on the CPU, and what was said about them; None where there is nothing.

        A file that is not what was written is put aside with a warning, and counts as nothing.
        """
        try:
            return read_tensors(self.path)
        except FileNotFoundError:
            return None
        except Damaged as error:
            files.put_aside(self.path, error)
            return None

    def write(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Replace what is there.

        Raises:
            OSError: the file cannot be written; the one before it is still there.
        """
        begin = time.monotonic()
        write_tensors(self.path, tensors, about)
        now = time.monotonic()
        self._next = now + (max(self.seconds, SHARE * (now - begin)) if self.seconds else 0.0)

    def remove(self) -> None:
        """Delete the file: the job is done."""
        self.path.unlink(missing_ok=True)


def share_left(path: Path) -> float:
    """The share of a job's steps that its checkpoint at `path` has not taken; all of them where it cannot be read."""
    try:
        about = read_about(path)
    except Damaged:
        return 1.0
    return 1.0 - about["step"] / about["iterations"] if about and about["iterations"] else 1.0
