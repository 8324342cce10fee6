"""Fingerprints of code: of the definitions of ddlib that a number depends on, wherever in the package they stand.

A definition is a function, a class or a name that a module assigns.  It depends on every definition that it mentions,
in its own module or through an import.  What is compared is the parsed code: comments, docstrings, layout, imports and
the version of Python do not count, and a definition of another module is a name, however it was imported.  So a
definition that moves to another file, as it is, changes no fingerprint.  Nor does code that reads files of data: what
it read is fingerprinted itself.
"""

import ast
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ddlib import ROOT

Sources = Mapping[str, bytes]
"""Path within the repository ("ddlib/methods/feature_matching.py") -> what is in the file."""

Definition = tuple[str, str]
"""Path of a module and a name that it defines."""

IMMATERIAL = ("ctx", "kind", "type_comment")
"""Fields of the syntax tree that say nothing of what the code does."""

COMPARED = ("ddlib/data/readers.py", "ddlib/data/catalogue.py")
"""Modules whose code does not count: what they give, the pixels and labels of data, is part of a record itself."""


def sources() -> dict[str, bytes]:
    """The package's modules as they are on disk."""
    package = ROOT / "ddlib"
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
    """What the product of a method begins with: its class, and the loop that drives it."""
    return f"{method.__module__}.{method.__qualname__}", "ddlib.store.loop.run"


EVALUATION = ("ddlib.evaluation.evaluate", "ddlib.data.datasets.load")
"""What an accuracy begins with, given what is evaluated."""


def fingerprint(starts: Sequence[str], among: Sources = LOADED) -> str | None:
    """16 hex digits of the SHA-256 of `starts` and of all definitions that they depend on.

    Starts are dotted names of definitions, or of modules, which stand for all that they define.  None where one is not
    among the sources, such as a method that a reader has defined elsewhere.
    """
    prints = definitions(starts, among)
    if prints is None:
        return None
    content = sorted((name, text) for (_, name), text in prints.items())
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def changed(starts: Sequence[str], before: Sources, after: Sources = LOADED) -> list[str]:
    """The files with definitions that differ between two states, among those that `starts` depend on in either."""
    states = [definitions(starts, sources) or {} for sources in (before, after)]
    old, new = ({(name, text): path for (path, name), text in state.items()} for state in states)
    return sorted({(old | new)[each] for each in old.keys() ^ new.keys()})


def definitions(starts: Sequence[str], among: Sources = LOADED) -> dict[Definition, str] | None:
    """Definition -> fingerprint of its code, for `starts` and all that they depend on; None as for `fingerprint`."""
    beginnings = [_definitions_of(start, among) for start in starts]
    if not all(beginnings):
        return None
    prints: dict[Definition, str] = {}
    waiting = [definition for beginning in beginnings for definition in beginning]
    while waiting:
        path, name = definition = waiting.pop()
        if definition not in prints and path not in COMPARED:
            statements = _parsed(path, among[path]).statements[name]
            prints[definition] = hashlib.sha256("\n".join(text for text, _ in statements).encode()).hexdigest()
            mentions = {dotted for _, dotted_names in statements for dotted in dotted_names}
            waiting += [mentioned for dotted in mentions for mentioned in _resolved(path, dotted, among)]
    return prints


# --- what a name means ----------------------------------------------------------------------------------------------


def _definitions_of(dotted: str, among: Sources) -> list[Definition]:
    path = _file(dotted, among)
    if path is not None:
        module = _parsed(path, among[path])
        public = module.imports if path.endswith("/__init__.py") else ()  # names that a package's face shows
        return [each for name in (*module.statements, *public) for each in _resolved(path, name, among)]
    parent, _, name = dotted.rpartition(".")
    path = _file(parent, among)
    if path is not None:
        return _resolved(path, name, among)
    return _definitions_of(parent, among) if "." in parent else []  # an attribute of a definition


def _resolved(path: str, dotted: str, among: Sources) -> list[Definition]:
    """What a name means in the module at `path`: a definition of its own, or one that it imported."""
    module, (name, _, rest) = _parsed(path, among[path]), dotted.partition(".")
    if name in module.statements:
        return [(path, name)]
    if name not in module.imports:
        return []
    full = ".".join(filter(None, [module.imports[name], rest]))
    # a module's name alone may be a local variable's too
    return [] if _file(full, among) else _definitions_of(full, among)


def _file(module: str, among: Sources) -> str | None:
    """The file of a module; None where it is none of ddlib's, or the package root, which decides no number."""
    stem = module.replace(".", "/")
    paths = (f"{stem}.py", f"{stem}/__init__.py")
    return next((path for path in paths if stem.startswith("ddlib/") and path in among), None)


# --- what a module says ---------------------------------------------------------------------------------------------


class _Module(NamedTuple):
    """statements: name -> code and mentioned names of the statements that define it, or change it afterwards.

    imports: local name -> the full dotted name that it was imported as.
    """

    statements: Mapping[str, Sequence[tuple[str, Sequence[str]]]]
    imports: Mapping[str, str]


@cache
def _parsed(path: str, source: bytes) -> _Module:
    """The definitions and imports of a module.

    A statement that defines nothing, such as an entry added to a table, counts with the definitions that it mentions,
    or with all of them.
    """
    tree = ast.parse(source)
    imports = dict(_imported(path, tree))
    bound = [(node, _bound(node)) for node in tree.body if not _ignored(node)]
    names = {name for _, defined in bound for name in defined}
    statements: dict[str, list[tuple[str, Sequence[str]]]] = {name: [] for name in names}
    for node, defined in bound:
        mentions = sorted(_mentions(node))
        local = names & {dotted.partition(".")[0] for dotted in mentions}
        for name in defined or local or names:
            statements[name].append((canonical(node, imports), mentions))
    return _Module(statements, imports)


def _imported(path: str, tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(local name, full dotted name) of every import, wherever in the module it stands."""
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                yield alias.asname or name, name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            for alias in node.names:
                yield alias.asname or alias.name, ".".join(filter(None, [*base, node.module, alias.name]))


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _mentions(node: ast.AST) -> set[str]:
    """Every name in a statement, with the attributes that follow it: "torch", "datasets.load"."""
    dotted = _dotted(node)
    return {dotted} if dotted else set().union(*map(_mentions, ast.iter_child_nodes(node)))


def _dotted(node: ast.AST) -> str | None:
    """A name and the attributes that follow it as text; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    before = _dotted(node.value) if isinstance(node, ast.Attribute) else None
    return None if before is None else f"{before}.{node.attr}"


def canonical(node: Any, imports: Mapping[str, str]) -> str:
    """A syntax tree as text that is the same in every version of Python and however the code is laid out.

    Documentation, imports and every empty field, in which versions differ, are left out.  A name imported from ddlib
    is its last part: `datasets.load`, `load` and `data.load` are one.
    """
    if isinstance(node, ast.AST):
        name, _, rest = (_dotted(node) or "").partition(".")
        if imports.get(name, "").startswith("ddlib."):
            return f"Name({(rest or imports[name]).rpartition('.')[2]})"
        if isinstance(node, ast.Name):
            return f"Name({node.id})"
        fields = [(name, value) for name, value in ast.iter_fields(node) if name not in IMMATERIAL]
        texts = [f"{name}={canonical(value, imports)}" for name, value in fields if value is not None and value != []]
        return f"{type(node).__name__}({','.join(texts)})"
    if isinstance(node, list):
        return f"[{','.join(canonical(entry, imports) for entry in node if not _ignored(entry))}]"
    return ascii(node)


def _ignored(node: Any) -> bool:
    """Whether a statement is an import, or a text that stands alone: documentation."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
