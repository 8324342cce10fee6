"""Rows of another notebook, so that a table can hold them as they stand there."""

import ast
import json
from collections.abc import Mapping
from typing import Any

import yaml

from ddlib import ROOT


def rows(notebook: str, profile: str) -> Mapping[str, Any]:
    """The parameter `methods` of a notebook at a profile: its own literal, or that of the profile's file.

    Args:
        notebook: `paper/experiment`.
        profile: "quick", or one that the notebook has a parameter file for.

    Raises:
        ValueError: there is no such notebook or file, or it has no rows.
    """
    quick = profile.rpartition(".")[2] == "quick"
    path = ROOT / (f"notebooks/{notebook}.ipynb" if quick else f"params/{notebook}.{profile}.yaml")
    if ".." in notebook or not path.is_file():
        raise ValueError(f"no rows of {notebook!r} at profile {profile!r}: there is no {path.relative_to(ROOT)}")
    found = (_literal if quick else yaml.safe_load)(path.read_text(encoding="utf-8"))
    if not isinstance(found, Mapping) or not isinstance(found.get("methods"), Mapping):
        raise ValueError(f"no rows of {notebook!r} at profile {profile!r}: {path.relative_to(ROOT)} has no methods")
    return found["methods"]


def _literal(text: str) -> dict[str, Any]:
    """The literals of the cell tagged `parameters`."""
    (cell,) = [cell for cell in json.loads(text)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    body = ast.parse("".join(cell["source"])).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}
