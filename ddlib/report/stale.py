"""Which results and figures are older than the code or the parameters they depend on, and why.

Results are `results/<paper>/<experiment>.<profile>.json`, figures `figures/<paper>/<experiment>.<profile>.<what>`.
What they say of themselves is compared with the notebook, its parameters and the code as they are now.  The code of a
record that does not name it is looked up in git, where its tree was clean and its commit is at hand.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib import OUTPUT, methods, report, results
from ddlib.results import Measurements, Record
from ddlib.store import codeprint
from ddlib.study import notebooks
from ddlib.study.parameters import PROFILES, settings
from ddlib.study.rows import Cell, fingerprint

KINDS = (".png", ".svg")
SHOWN = 6
"""Cells, or files, that a reason names before it counts the rest."""


@dataclass(frozen=True)
class Finding:
    """One reason why a file is stale.

    path: of the file, relative to `ddlib.OUTPUT`.
    reason: in plain words.
    """

    path: str
    reason: str


def files() -> list[Path]:
    """The results and the figures that there are, results first."""
    figures = [path for path in (OUTPUT / "figures").glob("*/*") if path.suffix in KINDS]
    return sorted((OUTPUT / "results").glob("*/*.json")) + sorted(figures)


def findings() -> list[Finding]:
    """Every reason why one of `files()` is stale, file by file; empty where none is."""
    paths = files()
    reasons = {path: list(_of_results(path)) for path in paths if path.suffix == ".json"}
    reasons |= {path: list(_of_figure(path, reasons)) for path in paths if path.suffix in KINDS}
    return [Finding(_relative(path), why) for path in paths for why in reasons[path]]


def _of_results(path: Path) -> Iterator[str]:
    """Why a file of results is stale."""
    try:
        measured = results.read_measurements(path)
        records = results.read(path) if measured is None else []
    except ValueError as error:
        yield f"cannot be read: {error}"
        return
    experiment, _, profile = path.stem.rpartition(".")
    name = f"{path.parent.name}/{experiment}"
    yield from _of_notebook(records if measured is None else measured, name, profile)
    if measured is None:
        yield from _of_code([record for record in records if record.n])
    else:
        yield from _of_measuring(measured)


def _of_notebook(found: Sequence[Record] | Measurements, name: str, profile: str) -> Iterator[str]:
    """In what the notebook and its parameters ask for other results than these."""
    if not notebooks.path_of(name).is_file():
        yield f"there is no notebook {name} any more"
    elif profile not in PROFILES or not notebooks.has_profile(name, profile):
        yield f"{name} has no parameters for profile {profile!r} any more"
    else:
        try:
            current = fingerprint(settings(notebooks.parameters(name, profile)))
            now = notebooks.cells(name, profile)
        except ValueError as error:
            yield f"the notebook's parameters are refused now: {error}"
            return
        if isinstance(found, Measurements):
            yield from _of_parameters([found], {current})
        else:
            yield from _of_parameters(found, {cell.parameters for cell in now})
            yield from _of_cells(found, now)


def _of_parameters(found: Sequence[Record | Measurements], current: set[str]) -> Iterator[str]:
    then = {one.provenance.get("parameters") for one in found}
    if None in then:
        yield "says nothing of its parameters"
    if then - {None} - current:
        yield f"parameters changed since: {_few(sorted(then - {None} - current))} then, {_few(sorted(current))} now"


def _of_cells(records: Sequence[Record], now: Sequence[Cell]) -> Iterator[str]:
    """In what the cells of the notebook are not those of the records."""
    theirs = {_place(record): record.cell for record in records}
    ours = {_place(cell): json.loads(json.dumps(cell.settings())) for cell in now}
    both = [place for place in ours if place in theirs]
    other = [place for place in both if ours[place] | {"version": None} != theirs[place] | {"version": None}]
    groups = {
        "not computed": [place for place in ours if place not in theirs],
        "no longer in the notebook": [place for place in theirs if place not in ours],
        "computed with other settings": other,
    }
    yield from (f"cells {what}: {_few(places)}" for what, places in groups.items() if places)
    raised = {(ours[p]["method"], theirs[p].get("version"), ours[p]["version"]) for p in both if p not in other}
    for method, then, version in sorted(raised, key=str):
        if then != version:
            yield f"method {method} has version {version} now, {then} then"


def _place(cell: Cell | Record) -> str:
    tested_on = cell.tested_on if isinstance(cell, Cell) else cell.cell.get("tested_on")
    on = f" on {tested_on}" if tested_on else ""
    return f"{cell.label} at IPC {'all' if cell.ipc is None else cell.ipc}{on}"


@dataclass(frozen=True)
class _Change:
    """How a piece of work's code is not that of now: since which commits, in which files, as far as that is known.

    told: whether the work says by which code it was done, itself or through its commit.
    """

    told: bool
    commits: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


def _of_code(records: Sequence[Record]) -> Iterator[str]:
    """Why the code that `records` come from is not that of now."""
    known = methods.discover()
    for method in dict.fromkeys(record.method for record in records if record.method not in known):
        yield f"there is no method {method} any more"
    works = [list(_works(record, known)) for record in records]
    if any(made.get("dirty") for work in works for made, _ in work):
        yield "made from a modified tree"
    found = [{change for made, modules in work if (change := _change(made, modules))} for work in works]
    untold = [changes for changes in found if any(not change.told for change in changes)]
    if untold:
        yield f"says nothing of its code{_share(untold, records)}"
    moved = [changes for changes in found if any(change.told for change in changes)]
    if moved:
        yield _changed([change for changes in moved for change in changes], _share(moved, records))


def _of_measuring(measured: Measurements) -> Iterator[str]:
    """Why the code that measurements come from is not that of now."""
    if measured.provenance.get("dirty"):
        yield "made from a modified tree"
    change = _change(measured.provenance, measured.modules)
    if change:
        yield _changed([change]) if change.told else "says nothing of its code"


def _changed(changes: Sequence[_Change], share: str = "") -> str:
    commits = sorted({commit[:7] for change in changes for commit in change.commits})
    paths = sorted({path for change in changes for path in change.files})
    since = f" since {_few(commits)}" if commits else ""
    return f"code changed{since}{share}{': ' if paths else ''}{_few(paths)}"


def _works(record: Record, known: Mapping[str, type]) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    """Provenance and modules of a record's evaluation and of its distillation."""
    yield record.provenance, codeprint.EVALUATION
    if record.method in known:
        yield record.provenance.get("distilled", {}), codeprint.distillation(known[record.method])


def _change(made: Mapping[str, Any], modules: tuple[str, ...]) -> _Change | None:
    """How the code of `modules` differs from that by which a piece of work was done; None if it does not."""
    codes, commits = set(_listed(made.get("code"))), _listed(made.get("commit"))
    current = {codeprint.fingerprint(modules)}
    if codes == current:
        return None
    clean = made.get("dirty") is False
    states = [codeprint.sources_at(commit) if clean and commit else None for commit in commits]
    if None not in states:  # git knows the code itself; its fingerprint may have been taken another way then
        codes = {codeprint.fingerprint(modules, state) for state in states}
    if None in codes:
        return _Change(told=False)
    if codes == current:
        return None
    paths = {path for state in states if state is not None for path in codeprint.changed(modules, state)}
    return _Change(True, frozenset(filter(None, commits)), frozenset(paths))


def _of_figure(path: Path, of_results: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    """Why a figure is stale: it is not drawn from its results as they are, or they are stale themselves.

    One whose provenance names `modules` was measured where it was drawn, and is kept nowhere else.
    """
    source = OUTPUT / "results" / path.parent.name / f"{path.name.rsplit('.', 2)[0]}.json"
    if source not in of_results:
        yield f"its results, {_relative(source)}, are gone"
        return
    try:
        drawn = report.read_provenance(path)
        if "modules" in drawn:
            yield from _of_measuring(Measurements({}, tuple(drawn["modules"]), drawn))
            return
        measured = results.read_measurements(source)
        made = results.provenance(results.read(source)) if measured is None else measured.provenance
        if drawn != made:
            yield f"drawn from other results than {_relative(source)} holds now"
        elif of_results[source]:
            yield f"its results, {_relative(source)}, are stale"
    except ValueError as error:
        yield str(error)


def _relative(path: Path) -> str:
    return path.relative_to(OUTPUT).as_posix()


def _listed(value: Any) -> list[Any]:
    """The entries of a joined provenance."""
    return value if isinstance(value, list) else [value]


def _share(some: Sequence[Any], everything: Sequence[Any]) -> str:
    return f" for {len(some)} of {len(everything)} cells" if len(some) < len(everything) else ""


def _few(entries: Sequence[str]) -> str:
    more = [f"{len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return ", ".join([*entries[:SHOWN], *more])
