"""Which results and figures are older than the code or the parameters they depend on, and why.

What they say of themselves is compared with the notebook, its parameters and the code as they are now.  The code of a
record that does not name it is looked up in git, where its tree was clean and its commit is at hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ddlib import OUTPUT, PROFILES, methods, report, results
from ddlib.data.catalogue import CATALOGUE
from ddlib.report.evidence import read_run
from ddlib.report.style import several
from ddlib.results import Measurements, Record
from ddlib.store import codeprint
from ddlib.study import notebooks
from ddlib.study.parameters import settings
from ddlib.study.rows import fingerprint

KINDS = (".png", ".svg")
"""Of figures."""


def reasons() -> dict[str, list[str]]:
    """Every results file and figure, by its path relative to `ddlib.OUTPUT` -> why it is stale; empty if it is not."""
    _change.cache_clear()
    by_file: dict[str, list[str]] = {}
    for path in sorted((OUTPUT / "results").glob("*/*.json")):
        by_file[_relative(path)] = list(_of_results(path))
    for path in sorted((OUTPUT / "figures").glob("*/*")):
        if path.suffix in KINDS:
            by_file[_relative(path)] = list(_of_figure(path, by_file))
    return by_file


def _of_results(path: Path) -> Iterator[str]:
    """Why a file of results is stale."""
    try:
        run = read_run(path)
    except ValueError as error:
        yield f"cannot be read: {error}"
        return
    yield from _of_notebook([run.measured] if run.measured else run.records, run.name, run.profile)
    if run.measured:
        yield from _of_code([(run.measured.provenance, run.measured.modules)])
        return
    known, records = methods.discover(), [record for record in run.records if record.n]
    for method in dict.fromkeys(record.method for record in records if record.method not in known):
        yield f"there is no method {method} any more"
    works = [(record.provenance, codeprint.EVALUATION) for record in records]
    for record in [record for record in records if record.method in known]:
        works.append((record.provenance.get("distilled", {}), codeprint.distillation(known[record.method])))
    yield from _of_code(works)
    for name, data in sorted({(record.dataset, record.provenance.get("data") or "") for record in records}):
        info = CATALOGUE.get(name)
        if data and info and info.exact and info.fingerprints and data != info.fingerprints[0]:
            yield f"the images of {name} were others"


def _of_notebook(stored: Sequence[Record | Measurements], name: str, profile: str) -> Iterator[str]:
    """In what the notebook and its parameters ask for other results than those stored."""
    if not notebooks.path_of(name).is_file():
        yield f"there is no notebook {name} any more"
        return
    if profile not in PROFILES or not notebooks.has_profile(name, profile):
        yield f"{name} has no parameters for profile {profile!r} any more"
        return
    try:
        now = {fingerprint(settings(notebooks.parameters(name, profile)))}
        now |= {cell.parameters for cell in notebooks.cells(name, profile)}
    except ValueError as error:
        yield f"the notebook's parameters are refused now: {error}"
        return
    then = {item.provenance.get("parameters") for item in stored}
    if None in then:
        yield "says nothing of its parameters"
    if changed := sorted(then - {None} - now):
        yield f"parameters changed since: {several(changed, most=6)} then, {several(sorted(now), most=6)} now"


def _of_code(works: Sequence[tuple[Mapping[str, Any], tuple[str, ...]]]) -> Iterator[str]:
    """Why code is not that of now: of each work its provenance, and the definitions that computed it."""
    if any(provenance.get("dirty") for provenance, _ in works):
        yield "made from a modified tree"
    changes = set()
    for provenance, modules in works:
        code_and_commit = provenance.get("code"), provenance.get("commit")  # lists where records of several were joined
        codes, commits = (tuple(value) if isinstance(value, list) else (value,) for value in code_and_commit)
        changes.add(_change(modules, codes, commits, provenance.get("dirty") is False))
    if UNKNOWN in changes:
        yield "says nothing of its code"
    if known := changes - {None, UNKNOWN}:
        since = several(sorted({commit[:7] for commits, _ in known for commit in commits}), most=6)
        files = several(sorted({file for _, files in known for file in files}), most=6)
        yield "code changed" + (f" since {since}" if since else "") + (f": {files}" if files else "")


UNKNOWN = (), ("unknown",)
"""Nothing says by what code something was computed."""


@cache
def _change(modules: tuple[str, ...], codes: tuple, commits: tuple, clean: bool) -> tuple[tuple, tuple] | None:
    """Since which commits and in which files, as far as known, the code of `modules` has changed; None if it has not.

    Args:
        codes: fingerprints by which something was computed, None for an unknown one.
        commits: at which it was computed, likewise.
        clean: whether from a tree without changes, so that git has the code.
    """
    now = {codeprint.fingerprint(modules)}
    if set(codes) == now:
        return None
    states = [codeprint.sources_at(commit) if clean and commit else None for commit in commits]
    if None not in states:  # git has the code itself, whose fingerprint may have been taken in another way then
        codes = tuple(codeprint.fingerprint(modules, state) for state in states)
    if None in codes:
        return UNKNOWN
    if set(codes) == now:
        return None
    files = [file for state in states if state is not None for file in codeprint.changed(modules, state)]
    return tuple(commit for commit in commits if commit), tuple(files)


def _of_figure(path: Path, by_file: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Why a figure is stale; one whose provenance names `modules` was measured where it was drawn."""
    source = OUTPUT / "results" / path.parent.name / f"{path.name.rsplit('.', 2)[0]}.json"
    name = _relative(source)
    if name not in by_file:
        yield f"its results, {name}, are gone"
        return
    try:
        drawn = report.read_provenance(path)
        if "modules" in drawn:
            yield from _of_code([(drawn, tuple(drawn["modules"]))])
            return
        run = read_run(source)
        if drawn != (run.measured.provenance if run.measured else results.provenance(run.records)):
            yield f"drawn from other results than {name} holds now"
        elif by_file[name]:
            yield f"its results, {name}, are stale"
    except ValueError as error:
        yield str(error)


def _relative(path: Path) -> str:
    return path.relative_to(OUTPUT).as_posix()
