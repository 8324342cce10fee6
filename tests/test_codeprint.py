"""Fingerprints of code: what they see, what they leave out, and that every Python agrees."""

import ast
import shutil
import subprocess

import pytest

from ddlib import ROOT, methods
from ddlib.store import codeprint, provenance

METHODS = methods.discover()
PACKAGE = {
    "ddlib/__init__.py": b"ROOT = 1",
    "ddlib/seeding.py": b"def draw(seed):\n    return seed\ndef unused():\n    return draw(2)",
    "ddlib/models/__init__.py": b"from ddlib.models.mlp import MLP",
    "ddlib/models/mlp.py": b"from .layers import linear\nMLP = linear",
    "ddlib/models/layers.py": b"linear, other = {}, {}\nlinear['a'] = 1\nother['a'] = 1",
    "ddlib/methods/__init__.py": b"from ddlib import settings",
    "ddlib/settings.py": b"x = 1",
    "ddlib/data/readers.py": b"def read():\n    return 0",
    "ddlib/methods/dm.py": b"""
import torch
from ddlib import ROOT, models
from . import _pixels as pixels
class DM:
    def step(self):
        from ddlib.data.readers import read
        return models.MLP, pixels.f()
class Other:
    pass
""",
    "ddlib/methods/_pixels.py": b"LIMIT = 3\ndef f():\n    import ddlib.seeding as s\n    return s.draw(LIMIT)",
    "ddlib/methods/dc.py": b"from ddlib.models.layers import linear\nDC = linear",
}
DM, DC = ("ddlib.methods.dm.DM",), ("ddlib.methods.dc",)


def names(starts, among=PACKAGE):
    return {name for _, name in codeprint.definitions(starts, among)}


def test_what_a_definition_mentions_is_followed_and_nothing_else_is():
    assert names(DM) == {"DM", "MLP", "linear", "other", "f", "LIMIT", "draw"}  # one statement defines two
    assert names(("ddlib.methods.dm",)) == names(DM) | {"Other"}
    assert names(DC) == {"DC", "linear", "other"}
    assert names(("ddlib.models.MLP",)) == names(("ddlib.models",)) == {"MLP", "linear", "other"}  # by a package's face


@pytest.mark.parametrize(
    ("path", "old", "new", "seen"),
    [
        ("methods/dm.py", "models.MLP, pixels.f()", "pixels.f(), models.MLP", True),
        ("methods/dm.py", "pass", "x = 1", False),  # another class
        ("methods/_pixels.py", "LIMIT = 3", "LIMIT = 4", True),
        ("seeding.py", "return seed", "return -seed", True),
        ("seeding.py", "draw(2)", "draw(3)", False),
        ("models/layers.py", "linear['a'] = 1", "linear['a'] = 2", True),  # an entry of a table
        ("models/mlp.py", "MLP = linear", "MLP = linear, 1", True),
        ("settings.py", "x = 1", "x = 2", False),
        ("__init__.py", "ROOT = 1", "ROOT = 2", False),
        ("data/readers.py", "return 0", "return 1", False),  # what was read is compared itself
    ],
)
def test_a_change_is_seen_where_it_matters(path, old, new, seen):
    path = f"ddlib/{path}"
    after = PACKAGE | {path: PACKAGE[path].replace(old.encode(), new.encode())}
    assert after != PACKAGE
    assert (codeprint.fingerprint(DM, PACKAGE) != codeprint.fingerprint(DM, after)) == seen
    assert codeprint.changed(DM, PACKAGE, after) == ([path] if seen else [])


def test_a_definition_that_comes_or_goes_is_a_change():
    after = PACKAGE | {"ddlib/methods/dc.py": b"from ddlib import seeding\nDC = seeding.draw"}
    files = ["ddlib/methods/dc.py", "ddlib/models/layers.py", "ddlib/seeding.py"]
    assert codeprint.changed(DC, PACKAGE, after) == files


def test_what_moves_as_it_is_changes_nothing():
    """Two modules merged, one renamed, a package's face taken away; every import written another way."""
    after = {
        "ddlib/methods/matching.py": b"""
from ddlib.zoo import networks
from ddlib.draws import draw as drawn
LIMIT = 3
def f():
    return drawn(LIMIT)
class DM:
    def step(self):
        return networks.MLP, f()
""",
        "ddlib/draws.py": PACKAGE["ddlib/seeding.py"],
        "ddlib/zoo/networks.py": b"linear, other = {}, {}\nlinear['a'] = 1\nother['a'] = 1\nMLP = linear",
    }
    moved = ("ddlib.methods.matching.DM",)
    assert codeprint.fingerprint(moved, after) == codeprint.fingerprint(DM, PACKAGE) is not None
    assert codeprint.fingerprint(moved, PACKAGE) is None
    assert codeprint.fingerprint(("__main__.Fifth", "ddlib.store.loop.run")) is None


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
    return codeprint.canonical(ast.parse(source), {})


def test_layout_comments_and_docstrings_do_not_count_and_every_other_change_does():
    assert canonical(WRITTEN) == canonical(REWRITTEN)
    changes = {"y=1": "y=2", "LIMIT = 3": "LIMIT = 3.0", "{x!r": "{x!s", '"a"': '"c"', "**y": '"y": y', "x, y": "y, x"}
    for old, new in changes.items():
        assert old in WRITTEN and canonical(WRITTEN) != canonical(WRITTEN.replace(old, new)), new


def test_none_in_its_place_is_not_nothing():
    texts = ["f(None)", "f()", "def f(*, a=None): ...", "def f(*, a): ...", "x = None", "x = ''"]
    assert len({canonical(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_every_python_gives_the_same(minor):
    python = shutil.which(f"python3.{minor}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no python3.{minor} here")
    starts = ("ddlib.methods.feature_matching", "ddlib.store.loop")
    script = f"from ddlib.store import codeprint\nprint(codeprint.fingerprint({starts}))"
    done = subprocess.run([python, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [codeprint.fingerprint(starts)], done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_a_method_depends_on_its_own_class_its_loop_and_no_engine(name):
    found = codeprint.definitions(codeprint.distillation(METHODS[name]))
    names = {defined for _, defined in found}
    assert {METHODS[name].__name__, "run", "Checkpoint"} <= names and "discover" not in names
    assert not {"report", "study", "results"} & {path.split("/")[1].removesuffix(".py") for path, _ in found}
    assert name != "dm" or not {"ATOM", "DATM", "DiM", "LD3M"} & names  # those beside it


def test_an_evaluation_depends_on_no_method():
    found = codeprint.definitions(codeprint.EVALUATION)
    assert {"Protocol", "ConvNet", "augment", "load"} <= {name for _, name in found}
    assert not any(path.startswith("ddlib/methods/") for path, _ in found)


def git(folder, *commands):
    """Run commands of git in a folder, and return what the last one printed."""
    who = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in commands:
        done = subprocess.run([*who, *words.split()], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_stated_and_read_where_git_tracks_the_code_and_else_why_not(tmp_path, monkeypatch):
    (tmp_path / "unpacked" / "ddlib").mkdir(parents=True)
    (tmp_path / "unpacked" / "ddlib" / "loop.py").write_text("x = 1")
    monkeypatch.setattr(provenance, "ROOT", tmp_path / "unpacked")
    stated = provenance.checkout.__wrapped__
    assert stated() == (None, None, "fatal: not a git repository (or any of the parent directories): .git")
    git(tmp_path, "init", "commit -m another --allow-empty")
    assert stated() == (None, None, "git does not track this code")
    git(tmp_path, "add .", "commit -m copy")
    commit, *rest = stated()
    assert len(commit) == 40 and rest == [False, ""]
    for file, text in {"loop.py": "x = 2", "fifth.py": "y = 1"}.items():  # an edited one, and one that git has not
        (tmp_path / "unpacked" / "ddlib" / file).write_text(text)
        assert stated() == (commit, True, "")
        git(tmp_path, "checkout .")
    monkeypatch.setattr(codeprint, "ROOT", tmp_path / "unpacked")
    assert codeprint.sources_at(commit) == {"ddlib/loop.py": b"x = 1"} and codeprint.sources_at("0" * 40) is None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # as in a container that mounts another user's folder
    assert stated()[:2] == (None, None) and "dubious ownership" in stated()[2]
    monkeypatch.setenv("PATH", "")
    assert stated() == (None, None, "git cannot be run: No such file or directory")
