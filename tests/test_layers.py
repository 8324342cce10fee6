"""The direction of imports: who may import whom, and that nothing points back."""

import ast
from pathlib import Path

import pytest

import ddlib

PACKAGE = Path(ddlib.__file__).parent

DATA = {"seeding", "zca", "datasets", "augment", "models", "synthetic"}
"""What holds images, labels and networks; most modules build on all of it."""

ALLOWED = {
    "seeding": set(),
    "files": set(),
    "tensors": {"files"},
    "zca": {"seeding"},
    "imagenet": set(),
    "sources": {"imagenet"},
    "readers": {"imagenet", "sources"},
    "imageset": {"zca", "sources", "readers"},
    "datasets": {"seeding", "zca", "sources", "readers", "imageset"},
    "transforms": {"seeding"},
    "augment": {"seeding", "imageset", "datasets", "transforms"},
    "models": {"seeding", "datasets", "augment"},
    "synthetic": DATA | {"files", "tensors"},
    "adversarial": DATA | {"objectives"},
    "embedding": DATA,
    "prior": DATA | {"adversarial", "files", "objectives"},
    "keeping": {"tensors"},
    "samples": {"seeding", "datasets", "synthetic"},
    "objectives": DATA,
    "sampler": {"models"},
    "unroll": DATA,
    "trajectories": DATA | {"tensors"},
    "costs": DATA | {"unroll", "trajectories", "loop", "memory"},
    "methods": DATA
    | {"adversarial", "prior", "sampler", "embedding", "objectives", "unroll", "trajectories", "settings"},
    "evaluate": DATA | {"embedding"},
    "norms": DATA | {"methods"},
    "branches": DATA | {"methods"},
    "store": {"files"},
    "locks": {"files"},
    "interrupts": set(),
    "progress": {"files"},
    "checkpoint": {"files", "store", "tensors"},
    "loop": {"checkpoint", "interrupts"},
    "snapshots": {"synthetic", "tensors"},
    "pieces": {"files", "snapshots", "store", "locks", "checkpoint", "loop", "progress", "memory", "provenance"},
    "settings": set(),
    "codeprint": set(),
    "memory": set(),
    "provenance": {"codeprint"},
    "results": {"files"},
    "scores": {"results"},
    "cells": DATA | {"methods", "evaluate", "results", "settings", "store"},
    "estimate": DATA | {"methods", "evaluate", "cells", "memory", "keeping"},
    "judged": {"files", "store", "tensors"},
    "step_costs": DATA | {"methods", "cells", "estimate", "memory"},
    "planning": DATA | {"cells", "estimate", "memory"},
    "work": DATA
    | {"methods", "evaluate", "cells", "files", "tensors"}
    | {"store", "locks", "pieces", "codeprint", "planning", "provenance", "keeping", "judged", "checkpoint"}
    | {"snapshots"},
    "nas": DATA
    | {"evaluate", "cells", "work", "planning", "pieces", "files", "locks", "store", "tensors"}
    | {"codeprint", "provenance", "results"},
    "study": {"datasets", "cells", "pieces", "planning", "provenance", "results", "settings", "work"},
    "continual": DATA
    | {"imageset", "cells", "codeprint", "evaluate", "locks", "pieces", "results", "store", "tensors", "work"},
    "report": {"files", "results", "scores", "synthetic"},
    "inventory": {"files", "tensors", "synthetic", "locks"},
    "notebooks": {"cells", "settings"},
    "exports": DATA | {"evaluate", "results", "cells", "files", "tensors", "pieces", "work", "inventory", "notebooks"},
    "children": set(),
    "reproduce": {"results", "notebooks", "files", "children"},
    "gpus": set(),
    "jobs": {"results", "notebooks", "store", "cells", "study", "gpus", "reproduce"},
    "workflow": {"notebooks", "files", "children", "cells", "study", "gpus", "reproduce", "jobs"},
    "stale": {"results", "report", "methods", "notebooks", "cells", "settings", "codeprint"},
    "site": {"files", "inventory", "notebooks", "provenance", "report", "results", "settings"}
    | {"snapshots", "stale", "synthetic"},
    "cli": {"datasets", "study", "results", "report", "reproduce", "notebooks", "settings", "gpus", "jobs"}
    | {"exports", "inventory", "models", "planning", "site", "stale", "workflow"},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Module or package -> the modules of ddlib it may import, besides its own package and the package root.

A new module of a package (a method, a network) needs no entry.  A new module beside these does, on purpose.
"""

DRAWING = {"matplotlib", "seaborn"}
"""Only the report draws."""


def violations(path: str, source: str) -> list[str]:
    """What the imports of one module break, as sentences.

    Args:
        path: its file relative to the package, e.g. "methods/dm.py".
        source: its text.
    """
    unit = path.split("/")[0].removesuffix(".py")
    if unit not in ALLOWED:
        return [f"{path}: a new module; give it its place in ALLOWED and in the design"]
    found = []
    for name in imports(path, ast.parse(source)):
        first, *rest = name.split(".")
        if first in DRAWING and unit != "report":
            found.append(f"{path} imports {first}: only report draws")
        if first == "ddlib" and rest:
            found += _inside(path, unit, rest)
    return found


def _inside(path: str, unit: str, rest: list[str]) -> list[str]:
    """What one import from within ddlib breaks; `rest` is the dotted name after "ddlib"."""
    target = rest[0]
    if target not in ALLOWED:  # a name of the package root, such as ROOT, or a module that is not declared
        declared = target.isupper() or target.startswith("__")
        return [] if declared else [f"{path} imports ddlib.{target}, which ALLOWED does not know"]
    if target != unit and target not in ALLOWED[unit]:
        return [f"{path} imports ddlib.{target}; allowed: {', '.join(sorted(ALLOWED[unit])) or 'nothing'}"]
    shared = 1 if target == unit else 0  # a package's own modules may be private, nobody's names
    private = [name for name in rest[1 + shared :] if name.startswith("_") and not name.startswith("__")]
    return [f"{path} imports the private name {'.'.join(rest)}"] if private else []


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


def test_the_table_has_no_cycle():
    remaining = {unit: allowed - {unit} for unit, allowed in ALLOWED.items()}
    while remaining:
        free = {unit for unit, allowed in remaining.items() if not allowed & set(remaining)}
        assert free, f"these import one another: {sorted(remaining)}"
        remaining = {unit: allowed for unit, allowed in remaining.items() if unit not in free}


@pytest.mark.parametrize(
    ("path", "source", "match"),
    [
        ("methods/dm.py", "from ddlib import evaluate", "methods/dm.py imports ddlib.evaluate"),
        ("methods/dm.py", "import ddlib.study as s", "imports ddlib.study"),
        ("methods/dm.py", "def f():\n    from ddlib.results import Record", "imports ddlib.results"),
        ("methods/dm.py", "from .. import report", "imports ddlib.report"),
        ("methods/dm.py", "from .datadam import _reduce", "private name methods.datadam._reduce"),
        ("methods/dm.py", "from ddlib.objectives import _unit", "private name objectives._unit"),
        ("work.py", "from ddlib.methods import _features", "private name methods._features"),
        ("seeding.py", "from ddlib.datasets import load", "allowed: nothing"),
        ("datasets.py", "from ddlib.augment import draw", "imports ddlib.augment"),
        ("evaluate.py", "from ddlib import methods", "imports ddlib.methods"),
        ("results.py", "from ddlib import seeding", "imports ddlib.seeding"),
        ("loop.py", "import ddlib.datasets", "imports ddlib.datasets"),
        ("report.py", "from ddlib.study import run", "imports ddlib.study"),
        ("study.py", "import matplotlib.pyplot as plt", "only report draws"),
        ("study.py", "from ddlib import utilities", "ALLOWED does not know"),
        ("stuff.py", "import torch", "a new module"),
    ],
)
def test_a_wrong_import_is_seen(path, source, match):
    found = violations(path, source)
    assert len(found) == 1 and match in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("methods/fifth_paper.py", "from ddlib.methods import _features as features\nfrom ._pixels import x"),
        ("methods/fifth_paper.py", "from ddlib import ROOT, objectives\nfrom . import datadam\nimport torch"),
        ("models/densenet.py", "from ddlib.models import convnet"),
        ("report.py", "import matplotlib.pyplot as plt\nfrom ddlib.results import Record"),
    ],
)
def test_a_right_import_is_allowed(path, source):
    assert violations(path, source) == []
