"""Fingerprints of code: of the modules of ddlib that a number depends on, found by following their imports.

What is compared is the parsed code: comments, docstrings, layout and the version of Python do not count.  A module that
imports another depends on all of it; a package's own file counts where a name is taken from it, not where one of its
modules is, so that a method does not depend on the other methods.  The package root, which holds the version and the
folders, decides no number and does not count.
"""

import ast
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ddlib import ROOT

Sources = Mapping[str, bytes]
"""Path within the repository ("ddlib/methods/dm.py") -> what is in the file."""

IMMATERIAL = ("ctx", "kind", "type_comment")
"""Fields of the syntax tree that say nothing of what the code does."""


def sources() -> dict[str, bytes]:
    """The package's modules as they are on disk."""
    package = Path(__file__).parent
    return {f"ddlib/{path.relative_to(package).as_posix()}": path.read_bytes() for path in package.rglob("*.py")}


LOADED: Sources = sources()
"""The modules as they were when this process imported them: what is edited while it runs made none of its numbers."""


@cache
def sources_at(commit: str) -> dict[str, bytes] | None:
    """The package's modules as they were at a commit; None without git, or where it does not have the commit."""
    words = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "--", "ddlib"]
    try:
        packed = subprocess.run(words, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.name.endswith(".py")}


def distillation(method: type) -> tuple[str, ...]:
    """The modules that what a method makes begins with: its own, and the loop that drives it."""
    return method.__module__, "ddlib.loop"


EVALUATION = ("ddlib.evaluate", "ddlib.datasets")
"""The modules that an accuracy begins with, given what is evaluated."""


def fingerprint(modules: tuple[str, ...], among: Sources = LOADED) -> str | None:
    """16 hex digits of the SHA-256 of `modules` and all that they import from ddlib, transitively.

    Args:
        modules: dotted names.
        among: the sources; default: those that this process runs.

    Returns:
        None where one of `modules` is not among the sources, such as a method that a reader has defined elsewhere.
    """
    found = prints(modules, among)
    return None if found is None else hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]


def prints(modules: tuple[str, ...], among: Sources = LOADED) -> dict[str, str] | None:
    """File -> fingerprint of its code, for `modules` and all that they import; None as for `fingerprint`."""
    starts = [_file(module, among) for module in modules]
    if None in starts:
        return None
    found, waiting = {}, starts
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path], imported = _parsed(path, among[path])
            waiting += [file for name in imported if (file := _file(name, among) or _file(_parent(name), among))]
    return found


def changed(modules: tuple[str, ...], before: Sources, after: Sources = LOADED) -> list[str]:
    """The files whose code differs between two states, among those that `modules` depend on in either."""
    old, new = prints(modules, before) or {}, prints(modules, after) or {}
    return sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))


def _file(module: str, among: Sources) -> str | None:
    """The file of a module; None where it is none of ddlib's, or the package root."""
    stem = module.replace(".", "/")
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py") if "/" in stem and path in among), None)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


@cache
def _parsed(path: str, source: bytes) -> tuple[str, tuple[str, ...]]:
    """The fingerprint of a module's code, and every name that it imports in full."""
    tree = ast.parse(source)
    return hashlib.sha256(canonical(tree).encode()).hexdigest(), tuple(_imported(path, tree))


def _imported(path: str, tree: ast.AST) -> Iterator[str]:
    """Every imported name in full, wherever in the module it stands: `from ddlib import x` is "ddlib.x"."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield from (".".join(filter(None, [*base, node.module, alias.name])) for alias in node.names)


def canonical(node: Any) -> str:
    """A syntax tree as text that is the same in every version of Python and however the code is laid out.

    Texts that stand alone, which are documentation, are left out, and so is every empty field: versions differ in which
    of these they have.
    """
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in IMMATERIAL]
        kept = [f"{name}={canonical(value)}" for name, value in fields if value is not None and value != []]
        return f"{type(node).__name__}({','.join(kept)})"
    if isinstance(node, list):
        return f"[{','.join(canonical(entry) for entry in node if not _documentation(entry))}]"
    return ascii(node)


def _documentation(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
