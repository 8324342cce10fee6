"""Peak memory, measured on this process."""

import numpy as np
import pytest

from ddlib.store import progress

MIB = 2**20


def allocate(mib):
    """Touch so many MiB and give them back."""
    np.ones(mib * MIB, np.uint8)


def test_what_was_freed_before_the_reset_does_not_count():
    if not (progress.PROCESS / "clear_refs").exists():
        pytest.skip("this system cannot reset a process's peak")
    allocate(400)
    before = progress.peak_memory("cpu")
    progress.reset_peak_memory("cpu")
    reset = progress.peak_memory("cpu")
    assert before - reset > 300 * MIB
    allocate(200)
    assert 190 * MIB < progress.peak_memory("cpu") - reset < 300 * MIB


def test_elsewhere_it_is_the_peak_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PROCESS", tmp_path / "nothing")
    progress.reset_peak_memory("cpu")
    assert progress.peak_memory("cpu") > 50 * MIB
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "status").write_text("Name: python\nVmRSS: 1 kB\n")
    assert progress.peak_memory("cpu") > 50 * MIB


def test_the_kernels_kilobytes_are_bytes(tmp_path, monkeypatch):
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\n")
    monkeypatch.setattr(progress, "PROCESS", tmp_path)
    assert progress.peak_memory("cpu") == 2 * MIB
