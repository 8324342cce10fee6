"""A test that kills or hangs its process ends the run of `make test`, which names it."""

import re
import subprocess
import sys

import pytest

from ddlib import ROOT

TESTS = """
import os, signal, threading, time
import pytest

@pytest.mark.parametrize("index", range(6))
def test_of_the_first(index):
    time.sleep(0.05)
    {fault}
"""


@pytest.mark.parametrize(
    ("fault", "limit"),
    [("index == 2 and os.kill(os.getpid(), signal.SIGSEGV)", 1800), ("index == 2 and threading.Event().wait()", 2)],
    ids=["killed", "hung"],
)
def test_a_dead_worker_ends_the_run_with_its_name_and_test(tmp_path, fault, limit):
    for name in ("first", "second", "third"):
        (tmp_path / f"test_{name}.py").write_text(TESTS.format(fault=fault if name == "first" else "pass"))
    options = re.search(r"-n \$\(AT_ONCE\) (--dist \w+)", (ROOT / "Makefile").read_text()).group(1).split()
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-n", "2", *options]
    run = subprocess.run([*command, f"--timeout={limit}", tmp_path], capture_output=True, text=True, timeout=600)
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"worker 'gw\d' crashed while running '.*test_first.py::test_of_the_first\[2\]'", run.stdout)
