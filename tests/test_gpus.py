"""Each job its own GPU: which there are, and how one is held. The GPUs are made up; the locks are real."""

import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest
import torch

from ddlib.batch import workflow


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    """Lock files of this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv(workflow.VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("told", "count", "names"),
    [
        (None, 0, ()),
        (None, 3, ("0", "1", "2")),
        ("", 0, ()),
        ("2, 5", 2, ("2", "5")),
        ("GPU-8f3a,GPU-11", 2, ("GPU-8f3a", "GPU-11")),
        ("1,-1,0", 1, ("1",)),
    ],
)
def test_the_visible_gpus_have_the_names_that_they_are_given_by(told, count, names, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    if told is not None:
        monkeypatch.setenv(workflow.VARIABLE, told)
    assert workflow.visible() == names


def test_each_is_held_once_and_free_again_afterwards(monkeypatch):
    with workflow.pinned(()) as name:
        assert name is None and workflow.VARIABLE not in os.environ
    monkeypatch.setenv(workflow.VARIABLE, "4,7")
    with workflow.pinned(("4", "7")) as first:
        assert (first, os.environ[workflow.VARIABLE]) == ("4", "4")
        with workflow.pinned(("4", "7")) as second:
            assert (second, os.environ[workflow.VARIABLE]) == ("7", "7")
        with workflow.pinned(("7", "4")) as again:
            assert again == "7"
    assert os.environ[workflow.VARIABLE] == "4,7"


def test_where_all_are_held_one_waits(monkeypatch):
    taken = threading.Event()

    def wait():
        with workflow.pinned(("MIG-1/0",)):
            taken.set()

    waiting = threading.Thread(target=wait, daemon=True)
    with workflow.pinned(("MIG-1/0",)):
        waiting.start()
        assert not taken.wait(0.5)
    assert taken.wait(10)
    waiting.join()


def test_a_dead_process_frees_its_gpu():
    hold = "import sys, ddlib.batch.workflow as w\nwith w.pinned('01') as name: print(name, flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "0\n"
        with workflow.pinned(["0", "1"]) as name:
            assert name == "1"
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        with workflow.pinned(["0", "1"]) as name:
            assert name == "0"
    finally:
        child.kill()
        child.communicate()
