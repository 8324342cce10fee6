"""The shape of the code, module by module: sizes, names, and draws that name their generator.

What ruff checks (docstrings, nesting, printing, seeding of global random state) is in pyproject.toml.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddlib

PACKAGE = Path(ddlib.__file__).parent

FILE_LINES = 600
BODY_LINES = 60
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}

DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
DRAWS_IN_PLACE = {"normal_", "uniform_", "bernoulli_", "random_", "exponential_", "trunc_normal_"}
DRAWS_IN_PLACE |= {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def faults(path: str, source: str) -> list[str]:
    """What one module breaks, as sentences; `path` is its file relative to the package."""
    tree = ast.parse(source)
    lines = len(source.splitlines())
    found = [f"{path}: {lines} lines, more than {FILE_LINES}"] if lines > FILE_LINES else []
    if EMPTY_NAMES & {part.removesuffix(".py").strip("_") for part in path.split("/")}:
        found.append(f"{path}: a name that does not say what is in it")
    for node in ast.walk(tree):
        if isinstance(node, Function):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = node.end_lineno - body[0].lineno + 1 if body else 0
            if length > BODY_LINES:
                found.append(f"{path}:{node.lineno} {node.name}: a body of {length} lines, more than {BODY_LINES}")
        elif isinstance(node, ast.Call):
            found += _calls(path, node)
    return found


def _calls(path: str, node: ast.Call) -> Iterator[str]:
    """The use of anybody's global random state."""
    name, last = dotted(node.func), dotted(node.func).split(".")[-1]
    where = f"{path}:{node.lineno}"
    draws = (name.startswith("torch.") and last in DRAWS) or ("." in name and last in DRAWS_IN_PLACE)
    if draws and "generator" not in {keyword.arg for keyword in node.keywords}:
        yield f"{where} {name}: draws from the global random state; pass a generator"


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name, an attribute, or what is called or subscripted by it; else `?`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return dotted(inner)
    return "?"


MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES)
def test_shape(path):
    assert faults(path, (PACKAGE / path).read_text()) == []


DOCUMENTED = '"""A module."""\n\n\ndef f(x):\n    """Says what it computes."""\n'


@pytest.mark.parametrize(
    ("path", "source", "match"),
    [
        ("a.py", '"""A module."""\n' + "x = 1\n" * 600, "601 lines"),
        ("models/utils.py", '"""A module."""\n', "does not say"),
        ("a.py", DOCUMENTED + "    x = 1\n" * 61, "a body of 61 lines"),
        ("a.py", DOCUMENTED + "    return torch.randn(x)\n", "pass a generator"),
        ("a.py", DOCUMENTED + "    return x.weight.normal_(0, 1)\n", "pass a generator"),
    ],
)
def test_a_fault_is_seen(path, source, match):
    found = faults(path, source)
    assert len(found) == 1 and match in found[0]
