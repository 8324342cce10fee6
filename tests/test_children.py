"""A child process is stopped as a person would stop it, with all that it has started."""

import signal
import subprocess
import sys
import time

import pytest

from ddlib.batch import reproduce

CHILD = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1], "begun").touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1], "asked").touch()
"""
PARENT = """
import sys
from ddlib.batch import reproduce
shell = f"{sys.executable} -c '{sys.argv[2]}' {sys.argv[1]}; exit 0"
reproduce.run(["sh", "-c", shell])
"""


def interrupted(words, folder, number):
    """What a process printed and told that was sent a signal once its child had begun."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 60
    while not (folder / "begun").exists() and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(number)
    printed, told = process.communicate(timeout=30)
    assert (folder / "asked").exists() and told.rstrip().endswith("KeyboardInterrupt")
    return printed


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_what_the_child_has_started_as_an_interrupt(number, background, tmp_path):
    words = [sys.executable, "-c", PARENT, str(tmp_path), CHILD]
    if background:  # as a script's `command &` is begun: with SIGINT ignored
        words = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]
    interrupted(words, tmp_path, number)


def test_the_exit_code_is_the_childs_and_handlers_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    assert reproduce.run([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_none_is_begun_after_a_signal(tmp_path):
    code = """
import pathlib, sys, psutil
from ddlib.batch import reproduce
def start(run, at_once):
    words = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
    return psutil.Popen(words) if run.name == "a/first" else print("more")
reproduce._start, reproduce.notebooks.has_profile = start, lambda name, profile: True
reproduce._last_error = lambda run, code: str(code)
reproduce.execute([reproduce.Run(f"a/{name}", "quick", pathlib.Path(sys.argv[1])) for name in ("first", "second")])
"""
    assert interrupted([sys.executable, "-c", code, str(tmp_path), CHILD], tmp_path, signal.SIGTERM) == ""
