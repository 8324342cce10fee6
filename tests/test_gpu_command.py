"""`ddlib gpu`: what it refuses, what a failed check leaves out, that it ends in time, and that what travels arrives."""

import dataclasses
import os
import sys
import time
import zipfile

import pytest
import torch

from ddlib import study
from ddlib.batch import bundle, cli, gpu

OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."


def failing(error):
    """A function that raises."""

    def fail():
        raise error

    return fail


@pytest.mark.parametrize(
    ("minutes", "error", "free", "message"),
    [
        ("2", None, 9e9, "minutes=2; it must be >= 3, two thirds of which"),
        ("nan", None, 9e9, "minutes=nan; it must be >= 3, two thirds of which"),
        ("3", RuntimeError(f"{OLD}\nmore"), 9e9, f"device='cuda': {OLD}; --device cpu rehearses the command"),
        (
            "3",
            RuntimeError("No CUDA GPUs are available"),
            9e9,
            "device='cuda': No CUDA GPUs are available; --device cpu",
        ),
        (
            "3",
            AssertionError("Torch not compiled with CUDA enabled"),
            9e9,
            "device='cuda': Torch not compiled with CUDA",
        ),
        ("3", None, 7e9, "device='cuda': 7.0 of 9.0 GB are free; at least 8 GB must be"),
    ],
)
def test_what_is_missing_is_said_in_one_line(minutes, error, free, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "init", failing(error) if error else lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 9e9))
    assert cli.main(["gpu", "--minutes", minutes, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"ddlib: {message}") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_a_checkout_nothing_begins(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"no tests/test_gpu.py in .*: this command needs a checkout"):
        gpu.require(3, "cpu")


PRINTED = """
tests/test_gpu.py::test_a_step[dm] PASSED                  [ 33%]
[gw1] [ 66%] FAILED tests/test_gpu.py::test_a_step[dc]
[gw0] [ 99%] SKIPPED tests/test_gpu.py::test_pinning
=========================== short test summary info ============================
FAILED tests/test_gpu.py::test_a_step[dc] - AssertionError: images
"""


def test_each_check_has_a_verdict():
    found = gpu.verdicts(PRINTED)
    assert found == {"a_step[dm]": "", "a_step[dc]": "AssertionError: images", "pinning": ""}
    lines = ["check: a step: 1 of 2 FAILED", "  a_step[dc]: AssertionError: images", "check: pinning: ok (1)"]
    assert list(gpu.summary(found)) == lines


@pytest.fixture(scope="module")
def jobs():
    """DM and Random on a few digits' worth of training, and DM on data that are not there."""
    found = [job for job in gpu.chosen("cpu") if job.cell.ipc == 1 and job.cell.label in ("Random", "DM")]
    protocol = dataclasses.replace(found[0].cell.protocol, epochs=1, num_networks=2, compiled=True)
    few = {"seeds": (0,), "protocol": dataclasses.replace(protocol, compiled=False)}
    random, dm = (gpu.Job(job.table, dataclasses.replace(job.cell, **few)) for job in found)
    method = dataclasses.replace(dm.cell.method, iterations=3)
    dm = gpu.Job(dm.table, dataclasses.replace(dm.cell, method=method))
    return random, dm, gpu.Job(dm.table, dataclasses.replace(dm.cell, dataset="imagenette_128"))


@pytest.mark.parametrize(
    ("check", "left"),
    [
        ("a_step_is_that_of_the_host[dm]", ["Random"]),
        ("a_step_is_that_of_the_host[dsa]", ["Random", "DM"]),
        ("the_adjoint_is_exact[mtt-ftd-datm]", ["Random", "DM"]),
        ("networks_trained_together_are_those_trained_alone", []),
        ("a_step_in_bfloat16_is_near[dm]", ["Random", "DM"]),
        ("a_compiled_step[compiled]", ["Random", "DM"]),
    ],
)
def test_a_failed_check_leaves_out_what_it_concerns(check, left, jobs):
    compiled = [
        gpu.Job(table, dataclasses.replace(cell, protocol=dataclasses.replace(cell.protocol, compiled=True)))
        for table, cell in jobs[:2]
    ]
    able, reasons = gpu.fit(compiled, {check: "it failed", "another[dm]": ""})
    assert [job.cell.label for job in able] == left and len(reasons) == 2 - len(left)
    assert all(reason.startswith("left out: ") and reason.endswith(check) for reason in reasons)
    assert {job.cell.protocol.compiled for job in able} <= {"compiled" not in check}


def test_all_cells_are_found_in_the_notebooks(monkeypatch):
    assert {job.table for job in gpu.chosen("cpu")} == {f"{p}/accuracy.quick" for p in ("atom", "datm", "dim", "ld3m")}
    wanted = {(notebook, row, ipc) for notebook, rows, ipcs in gpu.CELLS for row in rows for ipc in ipcs}
    found = {
        (job.table.removesuffix(".paper"), job.cell.label.removesuffix(", small prior"), job.cell.ipc)
        for job in gpu.chosen("cuda")
    }
    assert found == wanted


def test_a_block_is_interrupted_at_its_end_and_not_after_it():
    with gpu.until(time.monotonic() + 0.2):
        pass
    with pytest.raises(KeyboardInterrupt), gpu.until(time.monotonic() + 0.1):
        time.sleep(20)
    time.sleep(0.3)


def test_cells_are_computed_until_the_end_and_what_cannot_be_is_said(jobs, workplace, monkeypatch, tmp_path):
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "none"))
    done = []
    lines = list(gpu.compute([jobs[0], jobs[2]], workplace, time.monotonic() + 600, done))
    assert lines[0].startswith("Random, digits, IPC 1: ") and "% over 2 networks, " in lines[0]
    assert lines[1].startswith("not computed: DM, imagenette_128, IPC 1: imagenette_128") and len(lines) == 3
    assert [(d.job, d.record.n) for d in done] == [(jobs[0], 2)]
    late = list(gpu.compute(jobs[1:], workplace, time.monotonic() - 1, done))
    after = "then DM, imagenette_128, IPC 1; 1 not begun"
    assert late == [f"stopped in time; next: the rest of DM, digits, IPC 1; {after}"]


@pytest.fixture
def small_run(jobs, monkeypatch, tmp_path):
    """A whole run in a fresh output folder, of one cell, whose checks and benchmarks print what was printed before."""
    monkeypatch.setattr(gpu, "OUTPUT", tmp_path / "machine")
    monkeypatch.setattr(gpu, "chosen", lambda device: [jobs[0], jobs[2]])
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(gpu, "printed", lambda words, seconds, log, **more: log.write_text(PRINTED) and PRINTED)
    monkeypatch.setattr(bundle, "FOLDER", tmp_path / "no bundle")
    place = study.Workplace

    def run(machine):
        folder = tmp_path / machine / "runs"
        monkeypatch.setattr(gpu, "OUTPUT", folder.parent)
        monkeypatch.setattr(study, "Workplace", lambda *words, **more: place(*words, **more | {"folder": folder}))
        return list(gpu.run(3, tmp_path / "out", "cpu")), folder

    return run


def test_everything_comes_back_in_one_folder_and_is_gone_on_with(small_run, jobs, tmp_path):
    lines, _ = small_run("first")
    assert "cpu: a rehearsal" in lines[0] and "check: a step: 1 of 2 FAILED" in lines[1]
    assert lines[4].endswith("checks: FAILED tests/test_gpu.py::test_a_step[dc] - AssertionError: images")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"report.txt", "times.json", "times.md", "results/atom/accuracy.quick.json", "store-1.tar"} <= names
    assert any(name.startswith("figures/random") for name in names)
    small_run("second")
    again, folder = small_run("third")  # what the second only took over is still there
    assert any("% over 2 networks, 0 s, estimated at 0" in line for line in again)
    assert study.finished(jobs[0].cell, study.Workplace("cpu", folder=folder))


def test_a_child_and_what_it_started_end_in_time(tmp_path, monkeypatch):
    (tmp_path / "waits.py").write_text("import time, sys\nprint('begun', flush=True)\ntime.sleep(60)\n")
    begin = time.monotonic()
    text = gpu.printed(["waits"], 3, tmp_path / "log", PYTHONPATH=str(tmp_path))
    assert "begun" in text and "ended after 3 s" in text and time.monotonic() - begin < 30


def test_pieces_are_small_and_hold_everything(tmp_path):
    files = {f"data/{k}": tmp_path / f"{k}" for k in range(5)}
    for k, path in enumerate(files.values()):
        path.write_bytes(bytes([k]) * 20_000)
    pieces = bundle.pack(files, tmp_path / "packed", "data", piece=60_000)
    assert len(pieces) == 3 and all(piece.stat().st_size <= 60_000 for piece in pieces)
    (tmp_path / "there" / "data").mkdir(parents=True)
    (tmp_path / "there" / "data" / "0").write_text("mine")
    assert bundle.unpack(tmp_path / "packed", "data", tmp_path / "there") == 4
    assert (tmp_path / "there" / "data" / "4").read_bytes() == bytes([4]) * 20_000
    assert (tmp_path / "there" / "data" / "0").read_text() == "mine"
    assert len(bundle.pack({}, tmp_path / "packed", "data")) == 0 and not list((tmp_path / "packed").glob("*.tar"))
    with pytest.raises(ValueError, match=r"data/0 has 20000 bytes, which do not fit into a piece of 20000"):
        bundle.pack(files, tmp_path / "packed", "data", piece=20_000)


def wheel(folder, name):
    """A wheel with one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(f"{name}.py", "here = True")
    return path


def test_a_bundle_brings_data_and_the_packages_that_are_not_there(tmp_path, monkeypatch):
    data, packed, site = tmp_path / "data", tmp_path / "packed", tmp_path / "site"
    (data / "cifar-10-batches-py").mkdir(parents=True)
    (data / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"pixels")
    monkeypatch.setenv("DDLIB_DATA", str(data))
    monkeypatch.setattr(bundle, "download", lambda folder, python: [wheel(folder, n) for n in ("torch", "made_up")])
    lines = bundle.bundle(packed)
    assert lines[0] == f"left out: fashion_mnist is not in {data}; `ddlib data get fashion_mnist` gets it"
    assert lines[1] == "1 files of data and 2 wheels for Python 3.12" and len(lines) == 4
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    assert bundle.unpack_wheels(packed, site) == ["made_up"]
    assert (site / "made_up.py").exists() and not (site / "torch.py").exists()
    assert sys.path[0] == str(site) and os.environ["PYTHONPATH"] == os.pathsep.join([str(site), "before"])
    bundle.unpack(packed, "data", tmp_path / "there")
    assert (tmp_path / "there" / "cifar-10-batches-py" / "data_batch_1").read_bytes() == b"pixels"


def test_a_wheel_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "PACKAGES", ("no-such-package-of-ddlib",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=r"the wheels for Python 3.12 cannot be had: ERROR: No matching distribution"):
        bundle.download(tmp_path, "3.12")
