"""Every params/<paper>/<experiment>[.<variant>].<profile>.yaml fits its notebook, found by discovery."""

import re
from pathlib import Path

import pytest
import yaml

from ddlib import PROFILES, ROOT
from ddlib.study import notebooks
from ddlib.study.parameters import of_notebook, settings

FILES = sorted((ROOT / "params").glob("[!.]*/[!.]*.yaml"))


def header(path: Path) -> str:
    """The comment at the top of a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(lines[:end])


def texts(value):
    """Every text at any depth."""
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from texts(entry)
    elif isinstance(value, str):
        yield value


def test_there_are_parameter_files():
    assert FILES, "no file in params/<paper>/"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_parameter_file_fits_its_notebook(path):
    """It has exactly the notebook's names, values that the notebook takes, and says what it reproduces and costs."""
    stem, _, profile = path.stem.rpartition(".")
    name = f"{path.parent.name}/{stem}"
    assert profile in PROFILES[1:] and stem.count(".") <= 1, "the name is <experiment>[.<variant>].<profile>.yaml"
    assert notebooks.path_of(name).is_file() and notebooks.params_file(name, profile) == path
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values.keys() == of_notebook(notebooks.path_of(name)).keys()
    assert values["profile"] == path.stem.partition(".")[2], "under which its results lie"
    assert not [t for t in texts(values) if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", t)], "YAML reads 1e-3 as text"
    settings(notebooks.parameters(name, profile))
    for cell in notebooks.cells(name, profile):  # which refuses wrong names, types and ranges at any depth
        assert cell.settings()
    text, notebook = header(path), notebooks.path_of(name).relative_to(ROOT).as_posix()
    assert f"papermill {notebook}" in text and f"-f {path.relative_to(ROOT).as_posix()}" in text
    assert "cost" in text.lower() and "reproduces" in text.lower()
