"""How far work is, seldom enough for a notebook and often enough for a person; and peak memory, of this process."""

import subprocess
import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ddlib.store import progress
from ddlib.store.progress import Progress, duration

MIB = 2**20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (120, "2 min"), (7199, "2 h 0 min"), (12000, "3 h 20 min"), (190800, "2 days 5 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_ten_seconds_apart_and_a_month_gives_no_more_than_a_notebook_holds(clock, capsys):
    def lines_in(seconds, step):
        with Progress("work", 10**7, mode="lines") as report:
            begin = clock[0]
            for done in range(int(seconds / step) + 1):
                clock[0] = begin + done * step
                report(done)
        return len(capsys.readouterr().err.splitlines())

    assert [lines_in(seconds, 1.0) for seconds in (9, 10, 100, 1000)] == [0, 1, 10, 100]
    assert 150 * lines_in(30 * 86400, 50.0) < 200_000, "characters"


@pytest.mark.parametrize("mode", ["lines", "none"])
def test_a_line_says_step_rate_time_left_loss_and_memory_and_the_log_is_kept(
    mode, clock, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(progress, "peak_memory", lambda device: 1_500_000_000)
    log = tmp_path / "folder" / "log.txt"
    with Progress("DM, seed 0", 1000, mode=mode, device="cpu", log=log) as report:
        report.note("begins")
        report(100, None)  # continued at step 100
        clock[0] = 5.0
        report(150, 0.25)
        clock[0] = 20.0
        report(300, 0.125)
    line = "step 300 of 1000, 10 steps/s, 70 s left, loss 0.125, 1.50 GB"
    assert capsys.readouterr().err == (f"DM, seed 0: {line}\n" if mode == "lines" else "")
    begins, second = log.read_text().splitlines()
    assert begins.endswith("  begins") and second.endswith(f"  {line}") and second[:4].isdigit()


def test_a_bar_shows_the_same(clock, capsys):
    with Progress("work", 10, mode="bar") as report:
        report._bar.delay = 0
        report(1)
        clock[0] = 5.0
        report(6, 0.5)
        assert report._bar.n == 6 and "loss 0.5" in str(report._bar)


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match=r"cannot write .*log.txt"):
        Progress("work", 1, mode="none", log=tmp_path / "file" / "log.txt").note("text")


@pytest.mark.parametrize(
    ("words", "above", "mode"),
    [
        (["python", "-m", "papermill"], ["bash"], "lines"),
        (["/bin/jupyter-lab"], ["bash"], "bar"),
        (["pytest"], ["bash"], "lines"),
        (["python", "-c", "a worker of pytest"], ["python", "-m", "pytest", "-n", "2"], "lines"),
    ],
)
def test_a_kernel_shows_a_bar_to_people_and_lines_to_programs(words, above, mode, monkeypatch):
    parent = SimpleNamespace(cmdline=lambda: words, parents=lambda: [SimpleNamespace(cmdline=lambda: above)])
    monkeypatch.setattr(progress.psutil, "Process", lambda number: parent)
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert progress.shown() == mode
    monkeypatch.delenv("JPY_PARENT_PID")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress.shown() == "bar", "a terminal"


SHOUTING = """
from ddlib.store import progress
progress.LEAST = 0.01
with progress.Progress("work", 300_000) as report:
    for step in range(300_000):
        report(step + 1, 1.0 / (step + 1))
"""


def test_a_notebook_run_by_papermill_holds_few_plain_lines(tmp_path):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(SHOUTING)], metadata=kernel), tmp_path / "in.ipynb")
    words = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--kernel", "python3", "--no-progress-bar"]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    (cell,) = nbformat.read(tmp_path / "out.ipynb", nbformat.NO_CONVERT).cells
    lines = "".join(output.text for output in cell.outputs).splitlines()
    assert 2 <= len(lines) < 400 and all(line.startswith("work: step ") and "\r" not in line for line in lines)


def test_memory_that_was_freed_before_the_reset_does_not_count():
    if not (progress.PROCESS / "clear_refs").exists():
        pytest.skip("this system cannot reset a process's peak")
    pieces = [np.ones(16 * MIB, np.uint8) for _ in range(30)]  # small enough for glibc to keep them
    del pieces
    np.ones(400 * MIB, np.uint8)
    before = progress.peak_memory("cpu")
    progress.reset_peak_memory("cpu")
    reset = progress.peak_memory("cpu")
    np.ones(200 * MIB, np.uint8)
    assert before - reset > 300 * MIB and 190 * MIB < progress.peak_memory("cpu") - reset < 300 * MIB


@pytest.mark.parametrize("status", [None, "Name: python\nVmRSS: 1 kB\n", "Name:\tpython\nVmHWM:\t  2048 kB\n"])
def test_memory_is_that_of_the_kernel_or_elsewhere_the_peak_of_the_process(status, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PROCESS", tmp_path)
    if status is not None:
        (tmp_path / "status").write_text(status)
    progress.reset_peak_memory("cpu")
    peak = progress.peak_memory("cpu")
    assert peak == 2 * MIB if status and "VmHWM" in status else peak > 50 * MIB
