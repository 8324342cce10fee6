"""One command for a GPU: what it has to show first, what it takes, and the papers' cells that fit into the minutes.

docs/gpu.md says what it does, leaves and refuses; on a CPU it is a rehearsal, with small benchmarks and `quick` cells.
"""

import contextlib
import importlib.util
import itertools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddlib import OUTPUT, ROOT

if TYPE_CHECKING:
    from ddlib.study import Cell, Workplace

LEAST_MINUTES, LEAST_MEMORY = 3, 8e9
CHECKING, TIMING, COLLECTING = 60, 120, 15
"""Most seconds for the checks and for the times, each at most a third of all; seconds that are kept for the end."""

LARGEST = 15_000_000
"""Bytes of a piece of work that comes back: expert trajectories are larger and stay."""

BUNDLE = OUTPUT / "runs" / "bundle"
"""Where `make gpu-bundle` leaves its pieces, and where they are looked for."""

CHECKS = ("tests/test_gpu.py", "tests/test_augmentation.py")
"""Files with tests marked `gpu`."""

CELLS = (
    ("atom/accuracy", ("Random",), (1, 10)),
    ("atom/accuracy", ("DM", "DataDAM", "ATOM"), (1, 10)),
    ("datm/accuracy", ("DATM",), (1,)),
    ("dim/accuracy.fashion_mnist", ("Random", "GAN", "DiM"), (10,)),
    ("ld3m/accuracy", ("LD3M, DM",), (1,)),
)
"""Notebook, rows, images per class, in the order of claims that are decided a second."""

Job = tuple[str, "Cell"]
"""A notebook and profile, such as "atom/accuracy.paper", and a cell of it."""


def run(minutes: float, out: Path, device: str = "cuda") -> Iterator[str]:
    """Check, time and compute for so many minutes; gives a line for everything that comes out, as it does.

    What an earlier call left in the folder `out` is gone on with.  With the device "cpu" it is a rehearsal.  A
    ValueError says, before anything begins, where time, GPU, driver or memory do not do.
    """
    begin, memory, out = time.monotonic(), require(minutes, device), out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    for line in itertools.chain([memory], _stages(60 * minutes, begin, out, device)):
        text = f"{time.monotonic() - begin:5.0f} s  {line}"
        with (out / "report.txt").open("a", encoding="utf-8") as report:
            report.write(f"{text}\n")
        yield text


def _stages(seconds: float, begin: float, out: Path, device: str) -> Iterator[str]:
    from ddlib import study
    from ddlib.data import datasets

    unpack("data", datasets.data_root())
    workplace, started = study.Workplace(device, progress="none", checkpoint_seconds=10), time.time()
    copy_newer(out / "runs", workplace.folder)
    failed = yield from check(device, min(CHECKING, seconds / 3), out / "checks.txt")
    limit = min(TIMING, seconds / 3)
    words = ["benchmarks", "--device", device, "--seconds", f"{0.8 * limit}", "--out", f"{out}/docs/speed"]
    yield f"times: {printed(words + ['--quick'] * (device == 'cpu'), limit, out / 'times.txt')[-1]}; in docs/speed"
    jobs, left_out = [], concerned(failed)
    for table, cell in chosen(device, compiled="compiled" not in " ".join(failed)):
        if cell.method.name in left_out:
            yield f"left out, by a check that failed: {cell}"
        else:
            jobs.append((table, cell))
    yield from compute(jobs, workplace, begin + seconds - COLLECTING, out)
    count = copy_newer(workplace.folder, out / "runs", since=started)
    yield f"all is in {out}; pieces of work that the next call goes on with: {count}"


def require(minutes: float, device: str) -> str:
    """The memory that is free, in a line; or a ValueError in one line that says what is missing.

    The packages of a bundle are in place after it.
    """
    if not LEAST_MINUTES <= minutes < math.inf:
        raise ValueError(f"minutes={minutes:g}; it must be >= {LEAST_MINUTES}, two thirds of which are for checks")
    if not (ROOT / CHECKS[0]).exists():
        raise ValueError(f"no {CHECKS[0]} in {ROOT}: this command needs a checkout; install in place: pip install -e .")
    use_packages()  # torch that was imported before numpy was there would take no arrays
    if device == "cpu":
        return "cpu: a rehearsal, with small benchmarks and the cells of quick"
    import torch

    try:
        torch.cuda.init()
        free, whole = torch.cuda.mem_get_info()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"device={device!r}: {reason}; --device cpu rehearses the command") from error
    memory = f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB are free"
    if free < LEAST_MEMORY:
        raise ValueError(f"device={device!r}: {memory}; at least {LEAST_MEMORY / 1e9:.0f} GB must be")
    return f"{torch.cuda.get_device_name()}: {memory}"


# --- what travels -----------------------------------------------------------------------------------------------------


def unpack(name: str, target: Path) -> None:
    """Take what is not in `target` yet out of the bundle's pieces of this name, where there are such."""
    if not (pieces := sorted(BUNDLE.glob(f"{name}-*"))):
        return
    target.mkdir(parents=True, exist_ok=True)
    words = ["tar", "--extract", "--gzip", "--skip-old-files", f"--directory={target}"]
    if subprocess.run(words, input=b"".join(piece.read_bytes() for piece in pieces)).returncode:
        raise ValueError(f"{BUNDLE}: the {len(pieces)} pieces of {name} are damaged, or not all there")


def use_packages() -> None:
    """Put the packages of a bundle where this process and those that it starts find them, unless it has its own.

    They come before what is installed, and are of one version of Python; diffusers stands for all.
    """
    if importlib.util.find_spec("diffusers"):
        return
    unpack("packages", BUNDLE)
    if (packages := BUNDLE / "packages").is_dir():
        sys.path.insert(0, str(packages))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))


def copy_newer(source: Path, target: Path, since: float = 0) -> int:
    """Copy the small pieces of work in a store that changed since a time, and after those in `target`; how many."""
    from ddlib.store import inventory

    def changed(folder: Path) -> float:
        return max((file.stat().st_mtime for file in folder.glob("[!.]*")), default=0)

    count = 0
    for entry in inventory.entries(source):
        copy = target / entry.folder.relative_to(source)
        if entry.size <= LARGEST and changed(entry.folder) > max(since, changed(copy)):
            shutil.copytree(entry.folder, copy, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
            count += 1
    return count


# --- checks and times -------------------------------------------------------------------------------------------------


def printed(words: Sequence[str], seconds: float, log: Path, **environment: str) -> list[str]:
    """The lines of a Python module, which go to `log` too; it and all that it started end after the seconds."""
    words, more = [sys.executable, "-m", *words], {"stderr": subprocess.STDOUT, "start_new_session": True}
    with (
        log.open("wb") as file,
        subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, stdout=file, **more) as process,
    ):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            file.write(f"\nended after {seconds:.0f} s\n".encode())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return log.read_text(encoding="utf-8", errors="replace").strip().split("\n")


def check(device: str, seconds: float, log: Path) -> Iterator[str]:
    """Run the tests marked `gpu`; a line for the verdict of each over its cases.  Returns the cases that failed."""
    words = ["pytest", "-v", "--no-header", "-pno:cacheprovider", "-oaddopts=", "-m", "gpu and not slow", *CHECKS]
    if importlib.util.find_spec("xdist") and (cores := os.cpu_count() or 1) > 3:
        words += ["-n", str(min(8, cores // 2))]
    states, lines = {}, printed(words, seconds, log, DDLIB_TEST_DEVICE=device)
    for line in lines:
        case, state = re.search(r"::test_(\S+)", line), re.search(r"\b(PASSED|SKIPPED|FAILED|ERROR)\b", line)
        if case and state:
            states[case[1]] = state[1]
    failed = [case for case in states if states[case] in ("FAILED", "ERROR")]
    for name, cases in itertools.groupby(sorted(states), lambda case: case.partition("[")[0]):
        wrong = ", ".join(case for case in cases if case in failed)
        yield f"check: {name.replace('_', ' ')}: {wrong and 'FAILED: '}{wrong or 'ok'}"
    yield f"checks: {lines[-1].strip('= ')}"
    return failed


# --- cells ------------------------------------------------------------------------------------------------------------


def chosen(device: str, compiled: bool = True) -> Iterator[Job]:
    """The jobs of `CELLS`: at `paper`, or at `quick` on a CPU; compiled as their notebooks say, or not at all.

    Where the prior is a folder that is not there, the small one that is trained on the data stands in.
    """
    from ddlib.study import notebooks

    profile = "quick" if device == "cpu" else "paper"
    for notebook, rows, ipcs in CELLS:
        name = notebook.partition(".")[0] if profile == "quick" else notebook
        for cell in notebooks.cells(name, profile, {} if compiled else {"compiled": False}):
            if cell.label not in rows or cell.ipc not in ipcs:
                continue
            prior = getattr(cell.method, "prior", None)
            if isinstance(prior, str) and not (ROOT / prior).exists():
                method = replace(cell.method, prior={})
                cell = replace(cell, method=method, label=f"{cell.label}, small prior", reported=False)
            yield f"{name}.{profile}", cell


def concerned(failed: Sequence[str]) -> set[str]:
    """The methods that failed checks concern: those that a check names, or all where it names none.

    What is in bfloat16 concerns none, since all cells are in float32, nor what is compiled: then nothing will be.
    """
    from ddlib import methods

    known, concern = set(methods.discover()), set()
    for words in (set(re.split(r"[^a-z0-9]+", check)) for check in failed):
        if not words & {"bfloat16", "compiled"}:
            concern |= words & known or known
    return concern


@contextlib.contextmanager
def until(end: float) -> Iterator[None]:
    """A block that is interrupted at `end`, as by Ctrl-C, upon which the store saves what is under way."""
    timer = threading.Timer(max(0.0, end - time.monotonic()), os.kill, (os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def compute(jobs: Sequence[Job], workplace: "Workplace", end: float, out: Path) -> Iterator[str]:
    """Compute cells one after another until `end`, of the monotonic clock; each is written to `out` as it is done.

    What is under way at the end is saved; a cell that cannot be computed is said, and the next one is begun.
    """
    from ddlib import report, results, study

    records = {table: [] for table, _ in jobs}
    for position, (table, cell) in enumerate(jobs):
        try:
            with until(end):
                estimated, begin = study.plan([cell], workplace).seconds, time.monotonic()
                (record,) = study.run([cell], workplace)
        except KeyboardInterrupt:
            yield f"stopped in time; next: the rest of {cell}; cells not begun: {len(jobs) - position - 1}"
            return
        except (ArithmeticError, OSError, RuntimeError, ValueError) as error:
            yield f"not computed: {cell}: {' '.join(str(error).split())[:300]}"
            continue
        took = f"{time.monotonic() - begin:.0f} s, estimated at {estimated:.0f}"
        records[table].append(record)
        results.write(records[table], out / "results" / f"{table}.json")
        distilled = study.synthetic_set(cell, cell.seeds[0], workplace)
        if hasattr(distilled, "images"):
            picture, name = report.image_grid({cell.label: distilled}), re.sub(r"\W+", "-", str(cell).lower())
            report.save(picture, name, folder=out / "figures", provenance=record.provenance)
        yield f"{cell}: {record.accuracy_mean:.2f} % over {record.n} networks, {took}"
    yield "all cells were come to"
