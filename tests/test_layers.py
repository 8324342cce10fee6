"""The direction of imports: which room may import which, and that nothing points back."""

import ast
import graphlib
from pathlib import Path

import pytest

import ddlib

PACKAGE = Path(ddlib.__file__).parent

ROOMS = {
    "seeding": set(),
    "models": {"seeding"},
    "store": set(),
    "data": {"models", "seeding", "store"},
    "results": {"store"},
    "pretraining": {"data", "models", "seeding", "store"},
    "methods": {"data", "models", "pretraining", "seeding", "store"},
    "evaluation": {"data", "models", "pretraining", "seeding", "store"},
    "study": {"data", "evaluation", "methods", "models", "pretraining", "results", "seeding", "store"},
    "analyses": {"data", "evaluation", "methods", "models", "pretraining", "results", "seeding", "store", "study"},
    "report": {"data", "methods", "results", "store", "study"},
    "export": {"data", "evaluation", "models", "results", "seeding", "store", "study"},
    "batch": {"analyses", "data", "export", "methods", "models", "report", "results", "store", "study"},
}
"""Room -> the rooms that it may import."""


def violations(path: str, source: str) -> list[str]:
    """What the imports of one module, such as "methods/dm.py", break, as sentences."""
    room = path.split("/")[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return []
    if room not in ROOMS:
        return [f"{path}: a new room; give it its place in ROOMS and in the design"]
    found = []
    for name in imports(path, ast.parse(source)):
        package, *rest = name.split(".")
        if package != "ddlib" or not rest or rest[0].isupper() or rest[0].startswith("__"):
            continue
        own = rest[0] == room
        names = rest[2 if own else 1 :]  # a room's own modules may be private, nobody's names
        if not own and rest[0] not in ROOMS[room]:
            found.append(f"{path} imports {name}; allowed: {', '.join(sorted(ROOMS[room])) or 'nothing'}")
        elif any(part.startswith("_") and not part.startswith("__") for part in names):
            found.append(f"{path} imports the private name {'.'.join(rest)}")
    return found


def imports(path: str, tree: ast.AST) -> list[str]:
    """Every imported name in full, wherever in the module it stands: `from ddlib import x` is "ddlib.x"."""
    package = ["ddlib", *path.split("/")[:-1]]
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES)
def test_imports_point_one_way(path):
    assert violations(path, (PACKAGE / path).read_text()) == []


def test_the_table_is_of_the_rooms_that_there_are_which_lie_on_eight_floors_at_most():
    assert {path.split("/")[0].removesuffix(".py") for path in MODULES} - {"__init__", "__main__"} == set(ROOMS)
    order = graphlib.TopologicalSorter(ROOMS)
    order.prepare()
    floors = 0
    while order.is_active():
        order.done(*order.get_ready())
        floors += 1
    assert floors <= 8


@pytest.mark.parametrize(
    ("path", "source", "match"),
    [
        ("methods/dm.py", "from ddlib import evaluation", "methods/dm.py imports ddlib.evaluation"),
        ("methods/dm.py", "def f():\n    from ddlib.results import Record", "imports ddlib.results"),
        ("methods/dm.py", "from .. import report", "imports ddlib.report"),
        ("methods/dm.py", "from .datadam import _reduce", "private name methods.datadam._reduce"),
        ("seeding.py", "from ddlib.data import datasets", "allowed: nothing"),
        ("stuff.py", "import torch", "a new room"),
    ],
)
def test_a_wrong_import_is_seen(path, source, match):
    found = violations(path, source)
    assert len(found) == 1 and match in found[0]
