"""One command for a GPU: what it has to show first, what it takes, and the papers' cells that fit into the minutes.

`run` checks, times and computes on one device, and leaves everything in one folder of small files:

    report.txt                         the lines that `run` gave
    checks.txt, times.txt              what the tests marked `gpu` and the benchmarks printed
    times.json, times.md               seconds of each side of each benchmark; what cells were estimated at and took
    results/<notebook>.<profile>.json  the records of the finished cells, to be put into results/ of the repository
    figures/                           pictures of what they distilled
    store-1.tar, ...                   what the store has of them, and what is under way: the next call goes on with it

It needs a checkout, for the tests and the benchmarks.  On a CPU it is a rehearsal: small benchmarks, and the cells of
`quick` in place of the papers'.
"""

import contextlib
import importlib.util
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddlib import OUTPUT, ROOT
from ddlib.batch import bundle

if TYPE_CHECKING:
    from ddlib.results import Record
    from ddlib.study import Cell, Workplace

LEAST_MINUTES, LEAST_MEMORY = 3, 8e9
CHECKING, TIMING, COLLECTING = (60, 1 / 3), (120, 1 / 3), 15
"""Most seconds, and most of all the time, for the checks and for the times; seconds that are kept for the end."""

PIECE, WORTH = 15_000_000, 45_000_000
"""Bytes of a piece of what the store has, and of all pieces."""

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


class Job(NamedTuple):
    """A cell, and the notebook and profile that it belongs to: "atom/accuracy.paper"."""

    table: str
    cell: "Cell"


class Done(NamedTuple):
    """What came of a job; seconds as estimated before, 0 where the store had it, and as they were."""

    job: Job
    record: "Record"
    estimated: float
    took: float


def run(minutes: float, out: Path, device: str = "cuda") -> Iterator[str]:
    """Check, time and compute for so many minutes; gives a line for everything that comes out, as it does.

    Args:
        out: the folder; what an earlier call left in it is gone on with.
        device: "cuda", or "cpu" for a rehearsal.

    Raises:
        ValueError: too few minutes, no GPU, a driver that is too old, or too little memory; nothing was begun.
    """
    begin = time.monotonic()
    memory = require(minutes, device)
    bundle.unpack_wheels()
    out.mkdir(parents=True, exist_ok=True)
    with (out / "report.txt").open("w", encoding="utf-8") as report:
        for line in itertools.chain([memory], _stages(60 * minutes, begin, out.absolute(), device)):
            text = f"{time.monotonic() - begin:5.0f} s  {line}"
            report.write(f"{text}\n")
            report.flush()
            yield text


def _stages(seconds: float, begin: float, out: Path, device: str) -> Iterator[str]:
    from ddlib import study
    from ddlib.data import datasets

    bundle.unpack(bundle.FOLDER, "data", datasets.data_root())
    bundle.unpack(out, "store", OUTPUT / "runs")
    verdicts = check(device, min(CHECKING[0], CHECKING[1] * seconds), out / "checks.txt")
    yield from summary(verdicts)
    yield f"checks: {last_line(out / 'checks.txt')}"
    rows = measure(device, min(TIMING[0], TIMING[1] * seconds), out)
    yield f"times: {len(rows)} sides of benchmarks, in times.md; {last_line(out / 'times.txt')}"
    jobs, reasons = fit(list(chosen(device)), verdicts)
    yield from reasons
    workplace = study.Workplace(device, progress="none", checkpoint_seconds=10)
    done: list[Done] = []
    for line in compute(jobs, workplace, begin + seconds - COLLECTING, done):
        keep_records(done, out)
        yield line
    keep_times(rows, done, device, out)
    kept = keep_store(jobs, workplace, out)
    keep_pictures(done, workplace, out)
    yield f"in {out}: {len(done)} of {len(jobs)} cells; {kept} pieces of work, which the next call goes on with"


def require(minutes: float, device: str) -> str:
    """The memory that is free, in a line; or a ValueError in one line that says what is missing."""
    if not LEAST_MINUTES <= minutes < math.inf:
        raise ValueError(
            f"minutes={minutes:g}; it must be >= {LEAST_MINUTES}, two thirds of which may be checks and times"
        )
    if not (ROOT / CHECKS[0]).exists():
        raise ValueError(f"no {CHECKS[0]} in {ROOT}: this command needs a checkout; install in place: pip install -e .")
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


# --- checks and times -------------------------------------------------------------------------------------------------


def printed(words: Sequence[str], seconds: float, log: Path, **environment: str) -> str:
    """What a Python module printed, which goes to `log` too; it and all that it started end after the seconds."""
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
    return log.read_text(encoding="utf-8", errors="replace")


def last_line(log: Path) -> str:
    """How a log ends: pytest's counts, or after how many seconds it was ended."""
    return (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing was printed"])[
        -1
    ].strip("= ")


def check(device: str, seconds: float, log: Path) -> dict[str, str]:
    """Run the tests marked `gpu`: the name of each that came to an end -> "" if it did not fail, else why."""
    words = ["pytest", "-v", "--no-header", "-pno:cacheprovider", "-oaddopts=", "-m", "gpu and not slow", *CHECKS]
    if importlib.util.find_spec("xdist") and (cores := os.cpu_count() or 1) > 3:
        words += ["-n", str(min(8, cores // 2))]
    return verdicts(printed(words, seconds, log, DDLIB_TEST_DEVICE=device))


def verdicts(text: str) -> dict[str, str]:
    """What pytest's lines say of each test: its name and case -> "" if it did not fail, else why."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, state = re.search(r"::test_(\S+)", line), re.search(r"\b(PASSED|SKIPPED|FAILED|ERROR)\b", line)
        if name and state:
            reason = line.partition(" - ")[2].strip() or found.get(name[1]) or "no reason was printed"
            found[name[1]] = reason if state[1] in ("FAILED", "ERROR") else ""
    return found


def summary(found: Mapping[str, str]) -> Iterator[str]:
    """A verdict for each check, over all of its cases."""
    checks: dict[str, list[str]] = {}
    for name in found:
        checks.setdefault(name.partition("[")[0], []).append(name)
    for title, names in checks.items():
        failed = [name for name in names if found[name]]
        verdict = f"{len(failed)} of {len(names)} FAILED" if failed else f"ok ({len(names)})"
        yield f"check: {title.replace('_', ' ')}: {verdict}"
        yield from (f"  {name}: {found[name]}" for name in failed)


def measure(device: str, seconds: float, out: Path) -> list[dict[str, Any]]:
    """What the benchmarks timed, those that came to an end: a row for each side of each case."""
    path = out / "rows.json"
    path.unlink(missing_ok=True)
    words = ["benchmarks", "--device", device, "--seconds", str(0.8 * seconds), "--json", str(path)]
    printed(words + ["--quick"] * (device == "cpu"), seconds, out / "times.txt")
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def keep_times(rows: Sequence[Mapping[str, Any]], done: Sequence[Done], device: str, out: Path) -> None:
    """Write times.json and times.md; those of a GPU are docs/speed/<device> of the repository too."""
    from ddlib.store import files
    from ddlib.store.provenance import provenance

    origin = provenance(device)
    cells = [{"cell": str(d.job.cell), "estimated": d.estimated, "took": d.took} for d in done if d.estimated]
    lines = [f"{origin['device']}, {origin['date']}, commit {origin['commit']}:", ""]
    lines += ["| benchmark | case | side | ms | of the reference |", "|---|---|---|---|---|"]
    for row in rows:
        names = " | ".join(row[name].replace("_", " ") for name in ("benchmark", "case", "side"))
        lines.append(f"| {names} | {1e3 * row['seconds']:.3g} | {row['ratio']:.2f} |")
    lines += ["", "| cell | estimated, s | took, s |", "|---|---|---|"]
    lines += [f"| {each['cell']} | {each['estimated']:.0f} | {each['took']:.0f} |" for each in cells]
    places = [out / "times"]
    if device != "cpu":
        places.append(OUTPUT / "docs" / "speed" / re.sub(r"\W+", "-", origin["device"].lower()))
    for place in places:
        files.write_json(place.with_suffix(".json"), {"provenance": origin, "benchmarks": [*rows], "cells": cells})
        files.write_whole(place.with_suffix(".md"), ("\n".join(lines) + "\n").encode())


# --- cells ------------------------------------------------------------------------------------------------------------


def chosen(device: str) -> Iterator[Job]:
    """The jobs of `CELLS`: at `paper`, or at `quick` on a CPU.

    Where the prior is a folder that is not there, the small one that is trained on the data stands in.
    """
    from ddlib.study import notebooks

    profile = "quick" if device == "cpu" else "paper"
    for notebook, rows, ipcs in CELLS:
        name = notebook.partition(".")[0] if profile == "quick" else notebook
        for cell in notebooks.cells(name, profile):
            if cell.label not in rows or cell.ipc not in ipcs:
                continue
            prior = getattr(cell.method, "prior", None)
            if isinstance(prior, str) and not (ROOT / prior).exists():
                method = replace(cell.method, prior={})
                cell = replace(cell, method=method, label=f"{cell.label}, small prior", reported=False)
            yield Job(f"{name}.{profile}", cell)


def fit(jobs: Sequence[Job], found: Mapping[str, str]) -> tuple[list[Job], list[str]]:
    """The jobs that no failed check concerns, not compiled where that check failed; and why the others are left out."""
    failed, able, reasons = [name for name in found if found[name]], [], []
    for job in jobs:
        against = [name for name in failed if concerns(name, job.cell.method.name)]
        if against:
            reasons.append(f"left out: {job.cell}: {against[0]}")
        else:
            able.append(uncompiled(job) if any("compiled" in name for name in failed) else job)
    return able, reasons


def concerns(check: str, method: str) -> bool:
    """Whether a failed check leaves out a method: it names it, or none at all.

    What is in bfloat16 concerns no cell, since all are in float32, nor does what is compiled: see `fit`.
    """
    from ddlib import methods

    words = set(re.split(r"[^a-z0-9]+", check))
    return not words & {"bfloat16", "compiled"} and (method in words or not words & set(methods.discover()))


def uncompiled(job: Job) -> Job:
    """The same cell without `torch.compile`, which changes its speed alone."""
    method, protocol = job.cell.method, replace(job.cell.protocol, compiled=False)
    if "compiled" in {each.name for each in fields(method)}:
        method = replace(method, compiled=False)
    return Job(job.table, replace(job.cell, method=method, protocol=protocol))


@contextlib.contextmanager
def until(end: float) -> Iterator[None]:
    """A block that is interrupted at `end`, as by Ctrl-C, upon which the store saves what is under way."""
    timer = threading.Timer(max(0.0, end - time.monotonic()), os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def compute(jobs: Sequence[Job], workplace: "Workplace", end: float, done: list[Done]) -> Iterator[str]:
    """Compute cells one after another until `end`, of the monotonic clock, and put them into `done` as they are.

    What is under way at the end is saved; a cell that cannot be computed is said, and the next one is begun.
    """
    from ddlib import study

    for position, job in enumerate(jobs):
        try:
            with until(end):
                estimated, begin = study.plan([job.cell], workplace).seconds, time.monotonic()
                (record,) = study.run([job.cell], workplace)
        except KeyboardInterrupt:
            after = [str(job.cell) for job in jobs[position + 1 :]]
            rest = f"then {'; '.join(after[:2])}" if after else "it was the last"
            yield f"stopped in time; next: the rest of {job.cell}; {rest}; {len(after)} not begun"
            return
        except (ArithmeticError, OSError, RuntimeError, ValueError) as error:
            yield f"not computed: {job.cell}: {' '.join(str(error).split())[:300]}"
            continue
        done.append(Done(job, record, estimated, time.monotonic() - begin))
        times = f"{done[-1].took:.0f} s, estimated at {estimated:.0f}"
        yield f"{job.cell}: {record.accuracy_mean:.2f} % over {record.n} networks, {times}"
    yield "all cells were come to"


def keep_records(done: Sequence[Done], out: Path) -> None:
    """Write the records of each table."""
    from ddlib import results

    for table in {each.job.table for each in done}:
        records = [each.record for each in done if each.job.table == table]
        results.write(records, out / "results" / f"{table}.json")


def keep_pictures(done: Sequence[Done], workplace: "Workplace", out: Path) -> None:
    """Draw the first set of each cell that distils images."""
    from ddlib import report, study

    for job, record, _, _ in done:
        distilled = study.synthetic_set(job.cell, job.cell.seeds[0], workplace)
        if hasattr(distilled, "images"):
            figure, name = report.image_grid({job.cell.label: distilled}), re.sub(r"\W+", "-", str(job.cell).lower())
            report.save(figure, name, folder=out / "figures", provenance=record.provenance)


def keep_store(jobs: Sequence[Job], workplace: "Workplace", out: Path) -> int:
    """Pack what the store has of the jobs, what is finished first, up to `WORTH` bytes; how many pieces of work."""
    from ddlib.study import work

    finished = {}
    for _, cell in jobs:
        with contextlib.suppress(OSError, ValueError):  # its data are not there, which is said already
            artefacts = [work.distillation(cell, seed, workplace) for seed in cell.seeds]
            artefacts += [work.prerequisite(cell, builder, "", workplace) for builder in cell.method.needs.values()]
            finished |= {artefact.folder: artefact.finished() for artefact in artefacts}
    packed: dict[str, Path] = {}
    left, count = WORTH, 0
    for folder in sorted(filter(Path.is_dir, finished), key=lambda folder: not finished[folder]):
        paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        sizes = [path.stat().st_size for path in paths]
        if paths and max(sizes) <= 0.9 * PIECE and sum(sizes) <= left:
            packed |= {path.relative_to(workplace.folder).as_posix(): path for path in paths}
            left, count = left - sum(sizes), count + 1
    bundle.pack(packed, out, "store", PIECE)
    return count
