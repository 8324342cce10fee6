"""`ddlib gpu`: what it refuses, what a failed check leaves out, that it ends in time, and that what travels arrives."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest
import torch

from ddlib import methods, results, study
from ddlib.batch import cli, gpu

OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."


@pytest.mark.parametrize(
    ("minutes", "error", "free", "message"),
    [
        ("2", None, 9e9, "minutes=2; it must be >= 3, two thirds of which"),
        ("nan", None, 9e9, "minutes=nan; it must be >= 3, two thirds of which"),
        ("3", RuntimeError(f"{OLD}\nmore"), 9e9, f"device='cuda': {OLD}; --device cpu rehearses the command"),
        (
            "3",
            AssertionError("Torch not compiled with CUDA"),
            9e9,
            "device='cuda': Torch not compiled with CUDA; --dev",
        ),
        ("3", None, 7e9, "device='cuda': 7.0 of 9.0 GB are free; at least 8 GB must be"),
    ],
)
def test_what_is_missing_is_said_in_one_line(minutes, error, free, message, monkeypatch, capsys, tmp_path):
    order = []

    def init():
        order.append("torch")
        if error:
            raise error

    monkeypatch.setattr(gpu, "use_packages", lambda: order.append("packages"))
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 9e9))
    assert cli.main(["gpu", "--minutes", minutes, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"ddlib: {message}") and err.count("\n") == 1
    assert not (tmp_path / "out").exists() and order == (["packages", "torch"] if minutes == "3" else [])
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


def test_each_check_has_a_verdict(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "printed", lambda words, seconds, log, **more: PRINTED.strip().split("\n"))
    lines, failed = [], []

    def told():
        failed.extend((yield from gpu.check("cpu", 1, tmp_path / "log")))

    lines += told()
    assert failed == ["a_step[dc]"]
    last = "checks: FAILED tests/test_gpu.py::test_a_step[dc] - AssertionError: images"
    assert lines == ["check: a step: FAILED: a_step[dc]", "check: pinning: ok", last]


@pytest.fixture(scope="module")
def jobs():
    """DM and Random on a few digits' worth of training, and DM on data that are not there."""
    (table, random), (_, dm) = (
        job for job in gpu.chosen("cpu") if job[1].ipc == 1 and job[1].label in ("Random", "DM") and "atom" in job[0]
    )
    few = {"seeds": (0,), "protocol": dataclasses.replace(random.protocol, epochs=1, num_networks=2)}
    dm = dataclasses.replace(dm, method=dataclasses.replace(dm.method, iterations=3), **few)
    return [
        (table, dataclasses.replace(random, **few)),
        (table, dm),
        (table, dataclasses.replace(dm, dataset="imagenette_128")),
    ]


@pytest.mark.parametrize(
    ("failed", "concerned"),
    [
        (["a_step_is_that_of_the_host[dm]"], {"dm"}),
        (["a_step_is_that_of_the_host[dsa]", "the_adjoint_is_exact[mtt-ftd-datm]"], {"dsa", "mtt", "ftd", "datm"}),
        (["networks_trained_together_are_those_trained_alone"], set(methods.discover())),
        (["a_step_in_bfloat16_is_near[dm]", "a_compiled_step[compiled]"], set()),
    ],
)
def test_a_failed_check_leaves_out_what_it_concerns(failed, concerned):
    assert gpu.concerned(failed) == concerned


@pytest.mark.parametrize("wanted", [True, False])
def test_nothing_is_compiled_where_that_failed(wanted):
    cells = [cell for table, cell in gpu.chosen("cuda", compiled=wanted) if "ld3m" not in table]
    assert {cell.protocol.compiled for cell in cells} == {wanted}
    assert {cell.method.compiled for cell in cells if hasattr(cell.method, "compiled")} <= {wanted}


def test_all_cells_are_found_in_the_notebooks():
    assert {table for table, _ in gpu.chosen("cpu")} == {f"{p}/accuracy.quick" for p in ("atom", "datm", "dim", "ld3m")}
    wanted = {(notebook, row, ipc) for notebook, rows, ipcs in gpu.CELLS for row in rows for ipc in ipcs}
    cells = [(table.removesuffix(".paper"), cell) for table, cell in gpu.chosen("cuda")]
    assert {(table, cell.label.removesuffix(", small prior"), cell.ipc) for table, cell in cells} == wanted


def test_a_block_is_interrupted_at_its_end_and_not_after_it():
    with gpu.until(time.monotonic() + 0.2):
        pass
    with pytest.raises(KeyboardInterrupt), gpu.until(time.monotonic() + 0.1):
        time.sleep(20)
    time.sleep(0.3)


def test_cells_are_computed_until_the_end_and_what_cannot_be_is_said(jobs, workplace, monkeypatch, tmp_path):
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "none"))
    lines = list(gpu.compute([jobs[0], jobs[2]], workplace, time.monotonic() + 600, tmp_path))
    assert lines[0].startswith("Random, digits, IPC 1: ") and "% over 2 networks, " in lines[0]
    assert lines[1].startswith("not computed: DM, imagenette_128, IPC 1: imagenette_128") and len(lines) == 3
    (record,) = results.read(tmp_path / "results" / f"{jobs[0][0]}.json")
    assert (record.label, record.n) == ("Random", 2)
    late = list(gpu.compute(jobs[1:], workplace, time.monotonic() - 1, tmp_path))
    assert late == ["stopped in time; next: the rest of DM, digits, IPC 1; cells not begun: 1"]


@pytest.fixture
def small_run(jobs, monkeypatch, tmp_path):
    """A whole run on a machine of this name, of one cell, whose checks and benchmarks print what was printed before."""
    monkeypatch.setattr(gpu, "chosen", lambda device, compiled: [jobs[0], jobs[2]])
    monkeypatch.setattr(gpu, "BUNDLE", tmp_path / "no bundle")
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(gpu, "printed", lambda words, seconds, log, **more: PRINTED.strip().split("\n"))
    place = study.Workplace

    def run(machine):
        folder = tmp_path / machine / "runs"
        monkeypatch.setattr(study, "Workplace", lambda *words, **more: place(*words, **more | {"folder": folder}))
        return list(gpu.run(3, tmp_path / "out", "cpu")), folder

    return run


def test_everything_comes_back_in_one_folder_and_is_gone_on_with(small_run, jobs, tmp_path):
    lines, _ = small_run("first")
    assert "cpu: a rehearsal" in lines[0] and "check: a step: FAILED: a_step[dc]" in lines[1]
    assert lines[-1].endswith("goes on with: 1")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"report.txt", "results/atom/accuracy.quick.json"} <= names
    assert any(name.startswith("figures/random") for name in names)
    small_run("second")
    again, folder = small_run("third")  # what the second only took over is still there
    assert any("% over 2 networks, 0 s, estimated at 0" in line for line in again)
    assert study.finished(jobs[0][1], study.Workplace("cpu", folder=folder))


def test_what_is_newer_and_small_is_copied_and_nothing_older_over_it(tmp_path, monkeypatch):
    source, target = tmp_path / "store", tmp_path / "out"
    for number, (key, size) in enumerate({"old": 1, "small": 1, "large": 9}.items()):
        (source / "distilled" / key).mkdir(parents=True)
        (source / "distilled" / key / "log.txt").write_text(size * "x")
        os.utime(source / "distilled" / key / "log.txt", (1000 + number, 1000 + number))
    monkeypatch.setattr(gpu, "LARGEST", 8)
    assert gpu.copy_newer(source, target, since=1000) == 1 and not (target / "distilled" / "large").exists()
    assert (target / "distilled" / "small" / "log.txt").read_text() == "x"
    (source / "distilled" / "small" / "log.txt").write_text("newer")
    assert gpu.copy_newer(target, source) == 0
    assert gpu.copy_newer(source, target, since=1001) == 1
    assert (target / "distilled" / "small" / "log.txt").read_text() == "newer"


def test_a_child_and_what_it_started_end_in_time(tmp_path):
    (tmp_path / "waits.py").write_text("import time\nprint('begun', flush=True)\ntime.sleep(60)\n")
    begin = time.monotonic()
    lines = gpu.printed(["waits"], 3, tmp_path / "log", PYTHONPATH=str(tmp_path))
    assert lines[0] == "begun" and lines[-1] == "ended after 3 s" and time.monotonic() - begin < 30


def test_what_is_bundled_arrives_and_what_is_there_stays(tmp_path, monkeypatch):
    bundle, data = tmp_path / "bundle", tmp_path / "data"
    for name in ("data/cifar/batch", "data/cifar/meta", "packages/made_up.py"):
        (tmp_path / "made" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / name).write_text(f"here = '{name}'")
    bundle.mkdir()
    for name, folder, what in (("data", "made/data", "cifar"), ("packages", "made", "packages")):
        words = f"tar -cz -C {tmp_path / folder} {what} | split -b 100 - {bundle}/{name}-"  # as the Makefile does
        subprocess.run(words, shell=True, check=True)
    assert len([*bundle.glob("data-*")]) > 1
    monkeypatch.setattr(gpu, "BUNDLE", bundle)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    (data / "cifar").mkdir(parents=True)
    (data / "cifar" / "meta").write_text("mine")
    gpu.unpack("data", data)
    assert (data / "cifar" / "batch").read_text() == "here = 'data/cifar/batch'"
    assert (data / "cifar" / "meta").read_text() == "mine"
    gpu.use_packages()  # where there are packages, those of the bundle are left alone
    assert os.environ["PYTHONPATH"] == "before" and not (bundle / "packages").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gpu.use_packages()
    assert sys.path[0] == str(bundle / "packages") and (bundle / "packages" / "made_up.py").exists()
    assert os.environ["PYTHONPATH"] == os.pathsep.join([sys.path[0], "before"])
    max(bundle.glob("data-*")).unlink()
    with pytest.raises(ValueError, match="pieces of data are damaged, or not all there"):
        gpu.unpack("data", data)
