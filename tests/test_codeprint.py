"""Fingerprints of code: what they see, what they leave out, and that every Python agrees."""

import ast
import shutil
import subprocess

import pytest

from ddlib import ROOT, codeprint, methods

METHODS = methods.discover()
PACKAGE = {
    "ddlib/__init__.py": b"ROOT = 1",
    "ddlib/seeding.py": b"def draw(seed):\n    return seed",
    "ddlib/models/__init__.py": b"from ddlib.models.mlp import MLP",
    "ddlib/models/mlp.py": b"from .layers import linear\nMLP = linear",
    "ddlib/models/layers.py": b"linear = 1",
    "ddlib/methods/__init__.py": b"from ddlib import settings",
    "ddlib/settings.py": b"x = 1",
    "ddlib/methods/dm.py": b"import torch\nfrom ddlib import ROOT, models\nfrom . import _pixels as pixels",
    "ddlib/methods/_pixels.py": b"def f():\n    import ddlib.seeding as s\n    return s.draw(1)",
    "ddlib/methods/dc.py": b"from ddlib.models.layers import linear",
}
DM, DC = ("ddlib.methods.dm",), ("ddlib.methods.dc",)


def test_imports_are_followed_and_nothing_else_is():
    models = {f"ddlib/models/{name}.py" for name in ("__init__", "mlp", "layers")}
    beside = {"ddlib/methods/dm.py", "ddlib/methods/_pixels.py", "ddlib/seeding.py"}
    assert codeprint.prints(DM, PACKAGE).keys() == models | beside
    assert codeprint.prints(DC, PACKAGE).keys() == {"ddlib/methods/dc.py", "ddlib/models/layers.py"}


@pytest.mark.parametrize("path", PACKAGE)
def test_a_change_is_seen_where_it_matters(path):
    after = PACKAGE | {path: PACKAGE[path] + b"\ny = 2"}
    depends = path in codeprint.prints(DM, PACKAGE)
    assert (codeprint.fingerprint(DM, PACKAGE) != codeprint.fingerprint(DM, after)) == depends
    assert codeprint.changed(DM, PACKAGE, after) == ([path] if depends else [])


def test_a_file_that_comes_or_goes_is_a_change():
    after = PACKAGE | {"ddlib/methods/dc.py": b"from ddlib import seeding"}
    came_and_went = ["ddlib/methods/dc.py", "ddlib/models/layers.py", "ddlib/seeding.py"]
    assert codeprint.changed(DC, PACKAGE, after) == came_and_went
    assert codeprint.changed(DC, {}, PACKAGE) == ["ddlib/methods/dc.py", "ddlib/models/layers.py"]


def test_a_module_of_nowhere_has_no_fingerprint():
    assert codeprint.fingerprint(("ddlib.methods.fifth",)) is None
    assert codeprint.fingerprint(("__main__", "ddlib.loop")) is None


WRITTEN = '''
def f(x, y=1):
    """Adds."""
    return {"a": x, **y}, f"{x!r:>{y}}" "b"
LIMIT = 3
"""A limit."""
'''
REWRITTEN = """
# f adds
def f(
    x,
    y = 1,
):
    # here
    return ({'a': x, **y}, f'{x!r:>{y}}' 'b',)

LIMIT = (3)
"""


def canonical(source):
    return codeprint.canonical(ast.parse(source))


def test_layout_comments_and_docstrings_do_not_count():
    assert canonical(WRITTEN) == canonical(REWRITTEN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y=1", "y=2"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("{x!r", "{x!s"),
        ('"a"', '"c"'),
        ("**y", '"y": y'),
        ("x, y", "y, x"),
    ],
)
def test_every_other_change_counts(old, new):
    assert canonical(WRITTEN) != canonical(WRITTEN.replace(old, new))


def test_none_in_its_place_is_not_nothing():
    texts = ["f(None)", "f()", "def f(*, a=None): ...", "def f(*, a): ...", "x = None", "x = ''"]
    assert len({canonical(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_every_python_gives_the_same(minor):
    python = shutil.which(f"python3.{minor}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no python3.{minor} here")
    script = "from ddlib import codeprint\nprint(codeprint.fingerprint(('ddlib.methods.atom', 'ddlib.loop')))"
    done = subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [codeprint.fingerprint(("ddlib.methods.atom", "ddlib.loop"))], done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_a_method_depends_on_its_own_module_and_not_on_all_others(name):
    found = codeprint.prints(codeprint.distillation(METHODS[name]))
    others = {f"ddlib/methods/{other}.py" for other in METHODS}
    assert {f"ddlib/methods/{METHODS[name].__module__.rpartition('.')[2]}.py", "ddlib/loop.py"} <= found.keys()
    assert "ddlib/methods/__init__.py" not in found and not others <= found.keys()
    assert "ddlib/report/figures.py" not in found and "ddlib/study.py" not in found


def test_an_evaluation_depends_on_no_method():
    found = codeprint.prints(codeprint.EVALUATION)
    assert {"ddlib/evaluate/training.py", "ddlib/augment.py", "ddlib/models/convnet.py"} <= found.keys()
    assert not any(path.startswith("ddlib/methods/") for path in found)


def test_a_commit_is_read_through_git(tmp_path, monkeypatch):
    (tmp_path / "ddlib").mkdir()
    (tmp_path / "ddlib" / "loop.py").write_text("x = 1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "ddlib" / "loop.py").write_text("x = 2")
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setattr(codeprint, "ROOT", tmp_path)
    assert codeprint.sources_at(commit) == {"ddlib/loop.py": b"x = 1"}
    assert codeprint.sources_at("0" * 40) is None
