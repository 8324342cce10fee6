"""One engine for all that is made once: an artefact is taken from the store, or made now from what is kept of it.

`get` gives an artefact's product, `facts` its record.  Most are `Stepwise`: driven by `loop.run`, in a folder of their
own, whose files docs/running.md lists; `run.json` is written last, and with it the artefact is finished.
"""

import contextlib
import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ddlib import OUTPUT
from ddlib.store import files, loop
from ddlib.store.files import Damaged
from ddlib.store.loop import Checkpoint
from ddlib.store.progress import MODES, Progress, peak_memory, reset_peak_memory
from ddlib.store.provenance import checkout, device_name, provenance

LOG = logging.getLogger(__name__)

RUN, CHECKPOINT, LOG_FILE, LOCK = "run.json", "checkpoint.safetensors", "log.txt", ".lock"
"""Files in the folder of an artefact."""


@dataclass(frozen=True)
class Workplace:
    """Where a study computes and keeps what it has computed.

    device: "cpu", "cuda", "cuda:1", ...
    folder: the store.
    progress: what is shown of loops; one of `ddlib.store.progress.MODES`.
    checkpoint_seconds: least time between two checkpoints of an artefact.
    """

    device: str = "cpu"
    folder: Path = field(default_factory=lambda: OUTPUT / "runs")
    progress: str = "auto"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.progress not in MODES:
            raise ValueError(f"progress={self.progress!r}; it must be one of {', '.join(MODES)}")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds={self.checkpoint_seconds!r}; it must be >= 0")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device={self.device!r} cannot be used here: {str(error).splitlines()[0]}") from error
        for folder in (self.folder, OUTPUT / "results", OUTPUT / "figures"):
            files.check_writable(folder)
        checkout()  # asked before the work begins: what is edited while it runs made none of its numbers

    def watch(self, name: str, total: int, *, unit: str = "step", log: Path | None = None) -> Progress:
        """How far a piece of work is, shown as this workplace shows it."""
        return Progress(name, total, unit=unit, mode=self.progress, device=self.device, log=log)


class Artefact(ABC):
    """What is made once and kept.

    name: for people.
    lock: path of the lock that is held by the process that makes it.
    """

    name: str
    lock: Path

    @abstractmethod
    def load(self) -> Any:
        """The product; None where it is not finished.

        Raises `Damaged` or FileNotFoundError where a file of the finished artefact is not what was written, or is gone.
        """

    @abstractmethod
    def make(self, workplace: Workplace) -> Any:
        """Make the product, from what is kept of it, keep it and return it.  The caller holds the lock."""

    def reopen(self) -> None:  # noqa: B027 - nothing to do where the damaged file was all that said so
        """Take back that the artefact is finished: something of it was found damaged or missing."""


def get(artefact: Artefact, workplace: Workplace) -> Any:
    """The product of an artefact: from the store, or made now and kept there.

    Whatever is damaged or missing of a finished artefact is named in a warning, put aside and made again.  One that
    another process works on is waited for; one whose process died is taken over, from its last checkpoint.

    Raises:
        OSError: the store cannot be written, or the disk is full; the last checkpoint stays.
        FloatingPointError: the work came to numbers that are not finite.
    """
    with contextlib.suppress(Damaged, FileNotFoundError):  # looked at again, and mended, by whoever holds the lock
        if (product := artefact.load()) is not None:
            return product
    with locked(artefact.lock, artefact.name):
        product = None
        try:
            product = artefact.load()
        except Damaged as error:
            files.put_aside(error.path, error)
            artefact.reopen()
        except FileNotFoundError as error:
            LOG.warning("%s; it is made again", error)
            artefact.reopen()
        return artefact.make(workplace) if product is None else product


def in_turn(items: Sequence[Any], busy: Callable[[Any], Any]) -> Iterator[Any]:
    """Each of `items`, in order, those that other processes are busy with after the rest."""
    waiting = list(items)
    while waiting:
        yield waiting.pop(next((i for i, item in enumerate(waiting) if not busy(item)), 0))


@dataclass(frozen=True, kw_only=True)
class Stepwise(Artefact):
    """An artefact that the loop makes, step by step, in a folder of its own.

    folder: its name says everything that the product depends on.
    job: a method or a builder: iterations, step, finish.
    start: gives the state before the first step, with whatever that needs made beforehand.
    keeping: how the product is kept: `product`, the name of its file or folder; `save`, `load`, and `size` in bytes.
    device: where the product is read to.
    about: settings, for `run.json`.
    code: the modules whose code decides the product, for `provenance`.
    """

    folder: Path
    name: str
    job: Any
    start: Callable[[], Any]
    keeping: Any
    device: str = "cpu"
    about: Mapping[str, Any]
    code: Sequence[str]

    @property
    def lock(self) -> Path:
        """In the folder."""
        return self.folder / LOCK

    @property
    def path(self) -> Path:
        """Of the product."""
        return self.folder / self.keeping.product

    def record(self) -> dict[str, Any] | None:
        """What `run.json` says; None where the artefact is not finished.  Raises `Damaged`."""
        return files.read_json(self.folder / RUN)

    def finished(self) -> bool:
        """Whether product and record are there; the product is not read."""
        with contextlib.suppress(Damaged):
            return self.path.exists() and self.record() is not None
        return False

    def left(self) -> float:
        """The share of the steps that the checkpoint has not taken."""
        taken, steps = Checkpoint(self.folder / CHECKPOINT).steps()
        return 1.0 - taken / steps if steps else 1.0

    def load(self) -> Any:
        """The product; None where it is not finished."""
        if self.record() is None:
            return None
        try:
            return self.keeping.load(self.path, self.device)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.path} is missing") from error

    def reopen(self) -> None:
        """Take `run.json` away."""
        (self.folder / RUN).unlink(missing_ok=True)

    def make(self, workplace: Workplace) -> Any:
        """Take the steps, from the checkpoint where there is one, and keep what comes of it."""
        reset_peak_memory(workplace.device)
        begin = time.perf_counter()
        state = self.start()
        seconds_before = time.perf_counter() - begin
        checkpoint = Checkpoint(self.folder / CHECKPOINT, workplace.checkpoint_seconds)
        outcome = self._driven(state, checkpoint, workplace)
        self.keeping.save(outcome.product, self.path)
        record = {
            "name": self.name,
            "product": self.keeping.product,
            **self.about,
            "steps": self.job.iterations,
            "seconds": seconds_before + outcome.seconds,
            "sittings": outcome.sittings,
            "history": outcome.history,
            "bytes_stored": self.keeping.size(outcome.product),
            "peak_memory_bytes": peak_memory(workplace.device),
        }
        files.write_json(self.folder / RUN, record)
        checkpoint.remove()
        return self.keeping.load(self.path, self.device)

    def _driven(self, state: Any, checkpoint: Checkpoint, workplace: Workplace) -> loop.Outcome:
        """Take the steps that are left, and log how that went."""
        with workplace.watch(self.name, self.job.iterations, log=self.folder / LOG_FILE) as report, deterministic():
            taken, _ = checkpoint.steps()
            begins = f"goes on from step {taken} of" if taken else "begins,"
            report.note(f"{self.name}: {begins} {self.job.iterations} steps on {device_name(workplace.device)}")
            try:
                outcome = loop.run(
                    self.job,
                    state,
                    name=self.name,
                    report=report,
                    checkpoint=checkpoint,
                    sitting={"provenance": provenance(workplace.device, self.code)},
                )
            except BaseException as error:
                report.note(f"stopped at step {state.step}: {type(error).__name__} {error}".rstrip())
                raise
            sittings = f" in {len(outcome.sittings)} sittings" if len(outcome.sittings) > 1 else ""
            report.note(f"finished after {outcome.seconds:.1f} s of steps{sittings}")
        return outcome


def facts(artefact: Stepwise, workplace: Workplace) -> dict[str, Any]:
    """What `run.json` says of an artefact, which is made now where the store does not have it whole.

    The product is checked against its checksum, and neither built nor moved to the device.
    """
    with contextlib.suppress(Damaged, FileNotFoundError):
        if (record := artefact.record()) is not None:
            files.check(artefact.path)
            return record
    get(artefact, workplace)
    return artefact.record()


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """Inside the block cuDNN takes the same algorithms each time, without which a GPU would not repeat its bits."""
    backend = torch.backends.cudnn
    before = backend.deterministic, backend.benchmark
    backend.deterministic, backend.benchmark = True, False
    try:
        yield
    finally:
        backend.deterministic, backend.benchmark = before


# --- one process at a time --------------------------------------------------------------------------------------------


@contextlib.contextmanager
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
        raise files.cannot_write(path, error) from error
    try:
        if (dead := _noted(owner)) is not None:
            LOG.warning("%s: taken over from %s, which died", what, dead)
        since = datetime.now().isoformat(" ", "seconds")
        files.write_whole(owner, f"process {os.getpid()} on {socket.gethostname()}, since {since}".encode())
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
    except Timeout:
        return _noted(owner) or "another process"
    except OSError:  # of a store that may only be read
        return _noted(owner)
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
