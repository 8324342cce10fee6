"""The notebooks of the repository: which there are, their parameters, and the cells that they compute.

A notebook is read, never run: its parameters are the literals of the cell tagged `parameters`, with the profile's file
laid over them, and its cells are what its calls `study.cells(settings, paper=..., table=...)` give.
"""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddlib import PROFILES, ROOT
from ddlib.study import rows
from ddlib.study.parameters import declared, of_notebook, read_params, settings
from ddlib.study.rows import Cell


def names() -> tuple[str, ...]:
    """The notebooks of the repository as `paper/experiment`, sorted."""
    folder = ROOT / "notebooks"
    paths = [*folder.glob("[!.]*/[!.]*.ipynb")]
    if not paths:
        raise FileNotFoundError(f"no notebooks in {folder}; install in place from a clone: pip install -e .")
    return tuple(sorted(f"{path.parent.name}/{path.stem}" for path in paths))


def variants(name: str, profile: str) -> tuple[str, ...]:
    """The names under which a notebook goes with the profile's further parameter files, sorted."""
    ending = f".{profile}.yaml"
    files = (ROOT / "params").glob(f"{name}.*{ending}")
    return tuple(sorted(f"{path.parent.name}/{path.name.removesuffix(ending)}" for path in files))


def chosen(wanted: Sequence[str], profile: str) -> list[str]:
    """The notebooks that `wanted` asks for, in the repository's order; nothing wanted means all, with their variants.

    One is wanted as `paper/experiment`, as one of its `variants`, or by its path; a paper alone means all of its own.
    ValueError for an unknown profile or notebook, FileNotFoundError for one that has no parameters at the profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    known = [variant for name in names() for variant in (name, *variants(name, profile))]
    matching: set[str] = set()
    for text in wanted:
        path = "/".join(Path(text).resolve().parts[-2:]) if text.endswith(".ipynb") else text
        name = path.removesuffix(".ipynb").strip("/")
        matches = {n for n in known if n == name or n.startswith(f"{name}/")}
        if not matches:
            raise ValueError(f"unknown notebook {text!r}; known: {', '.join(known)}")
        if name in matches and not has_profile(name, profile):
            file = params_file(name, profile)
            raise FileNotFoundError(f"{name} has no parameters for profile {profile!r}: no {file}")
        matching |= matches
    return [name for name in known if not wanted or name in matching]


def path_of(name: str) -> Path:
    """The file of the notebook `paper/experiment`, or of one of its variants."""
    return ROOT / "notebooks" / f"{name.partition('.')[0]}.ipynb"


def params_file(name: str, profile: str) -> Path | None:
    """The parameter file of a profile; None for `quick`, the notebook's own defaults."""
    return None if profile == "quick" else ROOT / "params" / f"{name}.{profile}.yaml"


def has_profile(name: str, profile: str) -> bool:
    """Whether the notebook can be run at the profile."""
    path = params_file(name, profile)
    return path is None or path.is_file()


def parameters(name: str, profile: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the notebook is run with: its own literals, then the profile's file, then `overrides`, name by name.

    Raises ValueError at a name that the notebook does not have, and FileNotFoundError where there is no such file.
    """
    values = of_notebook(path_of(name))
    file = params_file(name, profile)
    for more in (read_params(file) if file else {}, overrides or {}):
        values |= {declared(key, values): value for key, value in more.items()}
    return values


def cells(name: str, profile: str, overrides: Mapping[str, Any] | None = None) -> list[Cell]:
    """The cells that the notebook computes at the profile, in its order."""
    chosen = settings(parameters(name, profile, overrides))
    return [cell for table in _tables(name) for cell in rows.cells(chosen, **table)]


def _tables(name: str) -> Iterator[dict[str, Any]]:
    """The keywords of each `study.cells(settings, ...)` of the notebook, which are literals."""
    for cell in json.loads(path_of(name).read_text(encoding="utf-8"))["cells"]:
        code = "".join(cell["source"])
        for node in ast.walk(ast.parse(code)) if cell["cell_type"] == "code" and "study.cells" in code else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "study.cells":
                yield {word.arg: ast.literal_eval(word.value) for word in node.keywords}
