"""An artefact of the store: found whole, or taken up where it was left, finished and kept.

An artefact has a folder:

    run.json                 settings, cost, course and provenance; written last: with it the artefact is finished
    <product>                what was made: a file of tensors, or a folder
    checkpoint.safetensors   while it is under way: what it goes on from
    snapshots.safetensors    pictures at a few steps, of methods that ask for them
    log.txt                  a line now and then: how far it is, when it was interrupted, resumed and finished
    .lock                    held by the process that works on it; `.lock.owner` says which
"""

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ddlib import OUTPUT
from ddlib.store import files, loop
from ddlib.store.files import Damaged, read_seal, read_tensors, write_tensors
from ddlib.store.locks import locked
from ddlib.store.loop import Checkpoint
from ddlib.store.progress import MODES, Progress, peak_memory, reset_peak_memory
from ddlib.store.provenance import checkout, device_name, provenance

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """Where a study computes and keeps what it has computed.

    device: "cpu", "cuda", "cuda:1", ...
    folder: the store.
    progress: what is shown of loops; one of `ddlib.store.progress.MODES`.
    checkpoint_seconds: least time between two checkpoints of a job.
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


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is to be made, and how it is kept.

    folder: of its own in the store; its name says everything that the product depends on.
    name: for people.
    product: name of the product's file or folder.
    job: a method or a builder: iterations, step, finish.
    start: gives the state before the first step, with whatever that needs made beforehand.
    save, load: write the product to a path, and read it.
    about: settings, for `run.json`.
    code: the modules whose code decides the product, for `provenance`.
    size: bytes of a product.
    snapshot, snapshot_steps: a picture of the state, and the steps after which one is kept.
    save_snapshots: writes the pictures, by step, to the folder.
    """

    folder: Path
    name: str
    product: str
    job: Any
    start: Callable[[], Any]
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    about: Mapping[str, Any]
    code: Sequence[str]
    size: Callable[[Any], int]
    snapshot: Callable[[Any], torch.Tensor] | None = None
    snapshot_steps: Sequence[int] = ()
    save_snapshots: Callable[[Mapping[int, torch.Tensor], Path], None] | None = None


def product(piece: Piece, workplace: Workplace) -> Any:
    """The product of a piece of work: from the store, or made now and kept there.

    Whatever is damaged or missing in a finished piece is named in a warning, put aside and made again.  A piece that
    another process works on is waited for; one whose process died is taken over, from its last checkpoint.

    Raises:
        OSError: the store cannot be written, or the disk is full; the last checkpoint stays.
        FloatingPointError: the work came to numbers that are not finite.
    """
    try:
        if (found := _finished(piece)) is not None:
            return found
    except (Damaged, FileNotFoundError):
        pass  # looked at again, and mended, by whoever holds the lock
    with locked(piece.folder / ".lock", piece.name):
        found = _mended(piece)
        return found if found is not None else _made(piece, workplace)


def _finished(piece: Piece) -> Any:
    """The product of a finished piece; None if it is not finished."""
    if files.read_json(piece.folder / "run.json") is None:
        return None
    return piece.load(piece.folder / piece.product)


def _mended(piece: Piece) -> Any:
    """As `_finished`, with what is damaged put aside, and `run.json` taken away: the piece is not finished any more."""
    try:
        return _finished(piece)
    except Damaged as error:
        files.put_aside(error.path, error)
    except FileNotFoundError:
        LOG.warning("%s is missing; it is made again", piece.folder / piece.product)
    (piece.folder / "run.json").unlink(missing_ok=True)
    return None


def _made(piece: Piece, workplace: Workplace) -> Any:
    """Do the work, from its checkpoint where there is one, and keep what comes of it."""
    reset_peak_memory(workplace.device)
    begin = time.perf_counter()
    state = piece.start()
    before = time.perf_counter() - begin
    checkpoint = Checkpoint(piece.folder / "checkpoint.safetensors", workplace.checkpoint_seconds)
    with progress(piece.name, piece.job.iterations, workplace, log=piece.folder / "log.txt") as report:
        at = checkpoint.step()
        begun = f"goes on from step {at} of" if at else "begins,"
        report.note(f"{piece.name}: {begun} {piece.job.iterations} steps on {device_name(workplace.device)}")
        outcome = _driven(piece, state, report, checkpoint, workplace.device)
        sittings = f" in {len(outcome.sittings)} sittings" if len(outcome.sittings) > 1 else ""
        report.note(f"finished after {outcome.seconds:.1f} s of steps{sittings}")
    path = piece.folder / piece.product
    piece.save(outcome.product, path)
    if outcome.snapshots:
        piece.save_snapshots(outcome.snapshots, piece.folder)
    made = {
        "name": piece.name,
        "product": piece.product,
        **piece.about,
        "steps": piece.job.iterations,
        "seconds": before + outcome.seconds,
        "sittings": outcome.sittings,
        "history": outcome.history,
        "bytes_stored": piece.size(outcome.product),
        "peak_memory_bytes": peak_memory(workplace.device),
    }
    files.write_json(piece.folder / "run.json", made)
    checkpoint.remove()
    return piece.load(path)


def _driven(piece: Piece, state: Any, report: Progress, checkpoint: Checkpoint, device: str) -> loop.Outcome:
    """The loop, with what stops it noted in the log."""
    sitting = {"provenance": provenance(device, piece.code)}
    told = {"name": piece.name, "report": report, "checkpoint": checkpoint, "sitting": sitting}
    told |= {"snapshot": piece.snapshot, "snapshot_steps": tuple(piece.snapshot_steps)}
    told |= {"wait": functools.partial(_wait, device)}
    try:
        with deterministic():
            return loop.run(piece.job, state, **told)
    except BaseException as error:
        report.note(f"stopped at step {state.step}: {type(error).__name__} {error}".rstrip())
        raise


def _wait(device: str) -> None:
    """Until an accelerator has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside the block cuDNN takes the same algorithms each time, without which a GPU would not repeat its bits."""
    backend = torch.backends.cudnn
    before = backend.deterministic, backend.benchmark
    backend.deterministic, backend.benchmark = True, False
    try:
        yield
    finally:
        backend.deterministic, backend.benchmark = before


def progress(name: str, total: int, workplace: Workplace, *, log: Path, unit: str = "step") -> Progress:
    """How far a piece of work is, shown as the workplace wants it and logged beside what it makes."""
    peak = lambda: peak_memory(workplace.device)  # noqa: E731
    return Progress(name, total, unit=unit, mode=workplace.progress, memory=peak, log=log)


@dataclass(frozen=True)
class Keeping:
    """How one artefact is kept; the fields are those of `Piece`.

    product: name of its file or folder.
    save: writes it to a path, whole or not at all.
    load: reads it from there; raises FileNotFoundError or `Damaged`.
    size: its bytes.
    """

    product: str
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    size: Callable[[Any], int]


def keeping(builder: Any, device: str = "cpu") -> Keeping:
    """How what `builder` makes is kept, and read for `device`."""
    if hasattr(builder, "product"):
        return Keeping(builder.product, builder.save, lambda path: builder.load(path, device), builder.size)
    where = "cpu" if getattr(builder, "mapped", False) else device
    return Keeping(
        product=f"{builder.name}.safetensors",
        save=lambda made, path: write_tensors(path, made),
        load=lambda path: read_tensors(path, where)[0],
        size=lambda made: sum(tensor.nbytes for tensor in made.values()),
    )


def mended(path: Path) -> dict[str, Any]:
    """What is kept of an evaluation; nothing where it is missing or damaged."""
    try:
        return files.read_json(path) or {}
    except Damaged as error:
        files.put_aside(path, error)
        return {}


def joined(kept: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Two parts of one evaluation as one: networks beside networks, seconds added."""
    lists = ("networks", "accuracies", "train_losses", "sittings")
    parts = {name: [*kept.get(name, ()), *found[name]] for name in lists}
    times = {name: kept.get(name, 0.0) + found[name] for name in ("seconds", "generation_seconds")}
    return {**found, **parts, **times}


def complete(path: Path, count: int) -> bool:
    """Whether `count` networks judged the set that lies beside the file.

    Raises:
        Damaged: the file is not what was written.
    """
    kept = files.read_json(path)
    of = read_seal(path.with_name("synthetic.safetensors"))
    return kept is not None and len(kept["networks"]) == count and kept["of"] == of


def share_left(path: Path, count: int) -> float:
    """The share of `count` networks that are not kept."""
    try:
        kept = files.read_json(path) or {"networks": ()}
    except Damaged:
        return 1.0
    return 1.0 - len(kept["networks"]) / count
