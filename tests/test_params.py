"""Every params/<paper>/<experiment>[.<variant>].<profile>.yaml fits its notebook, found by discovery."""

from pathlib import Path
from typing import Any

import nbformat
import notebook_form as form
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from ddlib import ROOT
from ddlib.study.parameters import PROFILES

FILES = sorted((ROOT / "params").glob("[!.]*/[!.]*.yaml"))
HEADER = ("cost", "reproduces")
"""What the comment at the top must speak of, besides the command."""


def faults(path: Path, root: Path = ROOT) -> list[str]:
    """What a parameter file breaks, as sentences."""
    experiment, _, named = path.stem.partition(".")
    variant, _, profile = named.rpartition(".")
    if profile not in PROFILES[1:]:
        return [f"{path.name}: the profile is {profile!r}; a file is for {' or '.join(PROFILES[1:])}"]
    if "." in variant:
        return [f"{path.name}: {variant!r} stands before the profile; it is one name"]
    notebook = root / "notebooks" / path.parent.name / f"{experiment}.ipynb"
    if not notebook.is_file():
        return [f"{path.name}: there is no notebook {notebook.relative_to(root)}"]
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(given, dict):
        return [f"{path.name}: holds no names and values"]
    defaults = form.parameters(nbformat.read(notebook, as_version=4))
    found = [f"{key}: not in the parameter file" for key in sorted(defaults.keys() - given.keys())]
    found += [f"{key}: not a parameter of the notebook" for key in sorted(given.keys() - defaults.keys())]
    for key in sorted(given.keys() & defaults.keys()):
        found += misfits(key, given[key], defaults[key])
    if "profile" in defaults and given.get("profile") != named:
        found.append(f"profile: {given.get('profile')!r} in the file of {named!r}")
    return found + _header(path, notebook.relative_to(root), path.relative_to(root))


def misfits(name: str, value: Any, default: Any) -> list[str]:
    """Where a value is of another type than its default, or is a number that YAML has read as text.

    An integer may stand for a float, and any value for a default of None, or None for any value.
    """
    texts = number_texts(name, value)
    found = [f"{where}: {text!r} is text to YAML; write 1.0e-3, with the dot" for where, text in texts]
    if None not in (value, default) and not _same_kind(value, default):
        found.append(f"{name}: {value!r} is {type(value).__name__}, the default is {type(default).__name__}")
    if isinstance(value, list) and isinstance(default, list) and default:
        kinds = [entry for entry in value if not any(_same_kind(entry, sample) for sample in default)]
        found += [f"{name}: the entry {entry!r} is of no type among the default's entries" for entry in kinds]
    return found


def number_texts(name: str, value: Any):
    """(where, text) of every text at any depth that reads as a number."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from number_texts(f"{name}.{key}", entry)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from number_texts(f"{name}[{index}]", entry)
    elif isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return
        yield name, value


def _same_kind(value: Any, default: Any) -> bool:
    return type(value) is type(default) or (type(value) is int and type(default) is float)


def _header(path: Path, notebook: Path, params: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = "\n".join(lines[:end])
    command = (f"papermill {notebook.as_posix()}", f"-f {params.as_posix()}")
    stated = all(part in header for part in command)
    found = [] if stated else [f"header: no command '{' ... '.join(command)}'"]
    return found + [f"header: does not speak of '{word}'" for word in HEADER if word not in header.lower()]


def test_there_are_parameter_files():
    assert FILES, "no file in params/<paper>/"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_parameter_file_fits_its_notebook(path):
    assert faults(path) == []


SOUND = """\
# papermill notebooks/atom/accuracy.ipynb out.ipynb -f params/atom/accuracy.hour.yaml
# Cost: an hour on one GPU.  Reproduces Table 1 at fewer iterations.
profile: hour
lr: 1
ipcs: [1, 10]
network: {name: convnet, width: 128}
budget_hours: 1.5
"""


def repository(folder, text, name="accuracy.hour.yaml"):
    """A repository in a folder with one notebook and one parameter file; returns the latter's path."""
    source = 'profile = "quick"\nlr = 0.1\nipcs = [1]\nnetwork = {"name": "convnet"}\nbudget_hours = None'
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    for where in ("notebooks", "params"):
        (folder / where / "atom").mkdir(parents=True)
    nbformat.write(new_notebook(cells=[cell]), folder / "notebooks" / "atom" / "accuracy.ipynb")
    path = folder / "params" / "atom" / name
    path.write_text(text)
    return path


def test_a_sound_file_passes(tmp_path):
    assert faults(repository(tmp_path, SOUND), tmp_path) == []


def test_a_sound_file_of_another_data_set_passes(tmp_path):
    text = SOUND.replace("accuracy.hour.yaml", "accuracy.svhn.hour.yaml")
    path = repository(tmp_path, text.replace("profile: hour", "profile: svhn.hour"), "accuracy.svhn.hour.yaml")
    assert faults(path, tmp_path) == []
    path.write_text(text)  # whose results would stand in the place of the other file's
    assert faults(path, tmp_path) == ["profile: 'hour' in the file of 'svhn.hour'"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 1\n", "", "lr: not in the parameter file"),
        ("lr: 1\n", "lr: 1\nlearning_rate: 1\n", "learning_rate: not a parameter of the notebook"),
        ("lr: 1\n", "lr: 1e-3\n", "lr: '1e-3' is text to YAML"),
        ("lr: 1\n", "lr: yes\n", "lr: True is bool, the default is float"),
        ("lr: 1\n", "lr: fast\n", "lr: 'fast' is str, the default is float"),
        ("[1, 10]", "[1, 10.0]", "ipcs: the entry 10.0"),
        ("[1, 10]", "[1, no]", "ipcs: the entry False"),
        ("[1, 10]", "10", "ipcs: 10 is int, the default is list"),
        ("width: 128", "width: '128'", "network.width: '128' is text to YAML"),
        ("profile: hour", "profile: paper", "profile: 'paper' in the file of 'hour'"),
        ("papermill", "run", "header: no command"),
        ("accuracy.hour.yaml", "accuracy.paper.yaml", "header: no command"),
        ("Cost", "Time", "header: does not speak of 'cost'"),
        ("Reproduces", "Is", "header: does not speak of 'reproduces'"),
    ],
)
def test_a_fault_is_seen(old, new, message, tmp_path):
    found = faults(repository(tmp_path, SOUND.replace(old, new, 1)), tmp_path)
    assert any(message in fault for fault in found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy.quick.yaml", "the profile is 'quick'"),
        ("accuracy.yaml", "the profile is"),
        ("accuracy.svhn.cut.hour.yaml", "'svhn.cut' stands before the profile; it is one name"),
        ("nas.hour.yaml", "there is no notebook"),
    ],
)
def test_a_file_that_belongs_to_nothing_is_seen(name, message, tmp_path):
    assert any(message in fault for fault in faults(repository(tmp_path, SOUND, name), tmp_path))
