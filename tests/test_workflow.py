"""Notebooks as a batch: the same numbers on one core, on two and on a cluster, whatever is killed or fails."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from ddlib import ROOT, results, study
from ddlib.batch import cli, reproduce, workflow
from ddlib.batch.reproduce import Run
from ddlib.batch.workflow import Batch, Where
from ddlib.data import synthetic
from ddlib.store import artefacts, files
from ddlib.study import notebooks, work

NAME = "atom/accuracy"
SMALL = {
    "ipcs": [1],
    "seeds": [0, 1],
    "methods": {
        "Random": {"method": "random"},
        "DM": {"method": "dm", "iterations": 40, "batch_real": 8},
    },
    "network": {"width": 8, "depth": 2},
    "evaluation": {"num_networks": 2, "epochs": 5},
}
NAN = {"method": "dm", "iterations": 2, "batch_real": 4, "lr_images": 1.0e30}


def overrides(folder: Path, **changed) -> Path:
    """The small parameters in a file, changed."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changed, sort_keys=False))
    return path


def run_of(path: Path | None, name: str = NAME) -> Run:
    return Run(name, "quick", Path("executed"), path)


@dataclass
class Done:
    """A batch that ended: exit code, what it printed, where it wrote."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def records(self) -> dict[str, results.Record]:
        """Row -> record of each cell that is in the store."""
        workplace = study.Workplace("cpu", folder=self.output / "runs", progress="none")
        cells = [cell for cell in notebooks.cells(NAME, "quick", SMALL) if study.finished(cell, workplace)]
        return {record.label: record for record in study.run(cells, workplace)}

    @property
    def images(self) -> dict[str, torch.Tensor]:
        """Folder in the store -> the synthetic images there."""
        found = (self.output / "runs").rglob("synthetic.safetensors")
        return {path.parent.name: synthetic.load(path).images for path in found}


def reproduced(folder: Path, *words: str, during=lambda process: None, **changed) -> Done:
    """`ddlib reproduce` on the small parameters, with an output folder of its own; `during` sees it while it runs."""
    path = overrides(folder, **changed)
    command = [sys.executable, "-m", "ddlib", "reproduce", NAME, "-f", path, "--output", folder / "executed", *words]
    environment = os.environ | {"DDLIB_OUTPUT": str(folder)}
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        child = psutil.Popen(command, stdout=out, stderr=err, env=environment, start_new_session=True)
        try:
            during(child)
            code = child.wait(300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return Done(code, (folder / "stdout").read_text(), (folder / "stderr").read_text(), folder)


def kill_midway(output: Path):
    """Kills, with SIGKILL, the job of the cell DM once its first seed is evaluated."""
    (dm,) = [cell for cell in notebooks.cells(NAME, "quick", SMALL) if cell.label == "DM"]
    workplace = study.Workplace("cpu", folder=output / "runs")
    first = work.Accuracies(dm, 0, workplace).path
    assert not first.exists()

    def kill(process: psutil.Popen) -> None:
        while not first.exists():
            assert process.poll() is None, "ended before the cell was begun"
            time.sleep(0.01)
        wanted = ["-m", "ddlib", "cell", NAME, files.key(dm.settings())]
        (job,) = [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [])[1:6] == wanted]
        job.kill()
        assert not study.finished(dm, workplace)

    return kill


def same(reference: Done, done: Done, rows: set[str]) -> None:
    """Of `rows`, the same cells with every accuracy equal and every synthetic image equal to the last bit."""
    wanted, found = reference.records, done.records
    assert found.keys() == rows
    for label, record in found.items():
        assert record.n == 4 and record.accuracies == wanted[label].accuracies
        assert record.cell == wanted[label].cell
    assert len(done.images) == 2 * len(rows)
    for name, images in done.images.items():
        assert torch.equal(images, reference.images[name])


@pytest.fixture(scope="module")
def on_two_cores(tmp_path_factory):
    """The small parameters with `--cores 2`, notebook and all."""
    return reproduced(tmp_path_factory.mktemp("two"), "--cores", "2")


def test_a_batch_ends_with_the_notebook_and_its_table(on_two_cores):
    assert on_two_cores.code == 0, on_two_cores.err
    row = next(line for line in on_two_cores.out.splitlines() if line.startswith(NAME))
    assert "2 PROXY" in row and "accuracy.quick.ipynb" in row
    written = results.read(on_two_cores.output / "results" / f"{NAME}.quick.json")
    assert {record.label: record.accuracies for record in written} == {
        label: record.accuracies for label, record in on_two_cores.records.items()
    }
    assert written[0].provenance["device"].endswith("1 threads")
    everything = {path.name for path in on_two_cores.output.iterdir()}
    assert everything == {"small.yaml", "stdout", "stderr", "executed", "runs", "results", "figures"}


def test_one_core_a_job_that_is_killed_and_one_that_fails_leave_the_numbers_as_they_are(on_two_cores, tmp_path):
    words = ("--cores", "1", "--snakemake", "--retries 1 --config backoff=1")
    rows = {"DM": SMALL["methods"]["DM"], "Bad": NAN}
    done = reproduced(tmp_path, *words, during=kill_midway(tmp_path), methods=rows)
    same(on_two_cores, done, {"DM"})
    # The notebook was not run, since one of its cells failed at both attempts, the second after the backoff.
    assert done.code == 1 and "FAILED" in done.out and "Traceback" not in done.err
    assert f"{NAME} failed: 1 of its cells not computed; Bad, digits, IPC 1: FloatingPointError: " in done.err
    (log,) = [line.split("(log: ")[1].rstrip(")") for line in done.err.splitlines() if "(log: " in line]
    assert Path(log).read_text().count("FloatingPointError: ") == 2
    assert done.err.count("sleep 0;") == 2 and done.err.count("sleep 1;") == 1  # attempts that failed
    assert not list(tmp_path.rglob("*.ipynb"))


def test_finished_cells_are_left_out_whatever_marks_there_are(on_two_cores, monkeypatch):
    for module in (artefacts, workflow, reproduce):
        monkeypatch.setattr(module, "OUTPUT", on_two_cores.output)
    run = run_of(on_two_cores.output / "small.yaml")
    assert workflow.prepare([run], Where(cores=1)).needs == {NAME: {}}

    (name, random), _ = run.cells().items()
    kept = work.Accuracies(random, 1, study.Workplace("cpu")).path
    away = kept.rename(kept.with_suffix(".away"))
    try:
        batch = workflow.prepare([run], Where(cores=1))
    finally:
        away.rename(kept)
    assert list(on_two_cores.output.rglob(f"{name}.done"))
    assert batch.needs == {NAME: {name: random}} and not batch.mark("cells", name).exists()


@pytest.mark.parametrize(("code", "attempts"), [(2, 1), (1, 3)])
def test_what_was_refused_is_not_tried_again(code, attempts, tmp_path):
    job = {"command": f"sh -c 'echo tried; exit {code}'", "gpu": 0}
    plan = {"threads": 1, "backoff": 1, "cells": {"one": job}, "notebooks": {"a/b": job | {"cells": ["one"]}}}
    batch = Batch(tmp_path, (), {})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    batch.log("cells", "one").parent.mkdir(parents=True)
    workflow.execute(batch, Where(cores=1))
    assert batch.log("cells", "one").read_text() == "tried\n" * attempts
    assert not batch.mark("cells", "one").exists()


# SLURM.


def missing() -> str:
    """Why no SLURM can be started here; empty where it can."""
    absent = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)} (packages slurm-wlm and munge)"
    return "" if os.getuid() == 0 else "the daemons must be started by root"


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Iterator[None]:
    """A SLURM of one node, and the environment in which its commands find it."""
    script, folder = ROOT / "workflow" / "slurm_node.sh", tmp_path / "slurm"
    try:
        done = subprocess.run([script, "start", folder], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for word in shlex.split(done.stdout)[1:]:
            name, value = word.split("=", 1)
            monkeypatch.setenv(name, os.path.expandvars(value))
        yield
    finally:
        subprocess.run([script, "stop", folder], timeout=60, check=True)
    left = [one.pid for one in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(one.info["cmdline"] or [])]
    assert left == []


@pytest.mark.slurm
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_slurm_gives_the_same_numbers_and_a_killed_job_is_submitted_again(on_two_cores, slurm, tmp_path):
    words = ("--executor", "slurm", "--snakemake", "--slurm-no-account --config backoff=1")
    done = reproduced(tmp_path, *words, during=kill_midway(tmp_path))
    assert done.code == 0, done.err
    same(on_two_cores, done, {"Random", "DM"})
    assert done.err.count("has been submitted with SLURM jobid") == 4 and done.err.count("Trying to restart job") == 1
    path = Path("results") / f"{NAME}.quick.json"
    here, there = results.read(on_two_cores.output / path), results.read(done.output / path)
    assert [(r.label, r.accuracies, r.cell) for r in here] == [(r.label, r.accuracies, r.cell) for r in there]


# Planning, without running.


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    """An empty output folder."""
    for module in (artefacts, workflow, reproduce):
        monkeypatch.setattr(module, "OUTPUT", tmp_path / "output")
    return tmp_path / "output"


def plan_of(batch: Batch) -> dict:
    return json.loads((batch.folder / "plan.json").read_text())


def test_a_cell_is_known_by_all_its_settings_and_by_nothing_else(tmp_path):
    def cells(**changed):
        return run_of(overrides(tmp_path, **changed)).cells().keys()

    first, second = cells(), cells(device="cuda")
    assert first == second and len(first) == 2
    assert set(cells(methods={"another row": SMALL["methods"]["DM"]})) == {list(first)[1]}
    for changed in ({"seeds": [0]}, {"evaluation": {"num_networks": 2, "epochs": 6}}, {"network": {"width": 16}}):
        assert not first & cells(**changed)


def test_a_cell_that_notebooks_share_is_one_job(tmp_path, store):
    path = overrides(tmp_path)
    runs = [run_of(path, name) for name in (NAME, "compare/tour")]
    batch = workflow.prepare(runs, Where(cores=2))
    plan = plan_of(batch)
    assert set(plan["cells"]) == set(batch.cells) and len(plan["cells"]) == 2
    assert batch.cells.keys() == batch.needs[NAME].keys() == batch.needs["compare/tour"].keys()
    assert all(f" cell {NAME} {name} " in job["command"] for name, job in plan["cells"].items())
    assert plan["notebooks"]["compare/tour"]["cells"] == list(batch.cells)


def test_a_batch_has_a_folder_of_its_own_and_its_own_copy_of_the_parameters(tmp_path, store):
    path = overrides(tmp_path)
    first, second = (workflow.prepare([run_of(path)], Where(cores=2)) for _ in range(2))
    assert first.folder != second.folder and first.folder.parent == second.folder.parent == store / "runs" / "workflow"
    path.write_text("ipcs: [2]\n")
    assert first.runs[0].changes == SMALL
    assert f"-f {first.folder / 'small.yaml'}" in plan_of(first)["notebooks"][NAME]["command"]


@pytest.mark.parametrize("cores", [2, 8])
def test_each_job_has_its_threads_whatever_the_cores(cores, tmp_path, store):
    plan = plan_of(workflow.prepare([run_of(overrides(tmp_path))], Where(cores=cores, threads=2)))
    commands = [job["command"] for kind in ("cells", "notebooks") for job in plan[kind].values()]
    assert plan["threads"] == 2 and len(commands) == 3
    assert all(command.startswith("env OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 ") for command in commands)


def test_jobs_on_gpus_take_one_each(tmp_path, store):
    run, where = run_of(overrides(tmp_path, device="cuda")), Where(cores=4, gpus=("0", "3"))
    batch = workflow.prepare([run], where)
    plan = plan_of(batch)
    for job in [*plan["cells"].values(), *plan["notebooks"].values()]:
        assert job["gpu"] == 1 and job["command"].endswith(" --gpus 0,3")
    words = workflow.command(batch, where)
    assert words[words.index("--resources") + 1] == "gpu=2"
    on_cluster = plan_of(workflow.prepare([run], Where(executor="slurm"))) if shutil.which("sbatch") else plan
    assert {job["gpu"] for job in on_cluster["cells"].values()} == {1}
    assert ("--gpus" in str(on_cluster)) == (on_cluster is plan)


def test_what_snakemake_is_told(tmp_path):
    batch = Batch(tmp_path, (), {})
    local = shlex.join(workflow.command(batch, Where(cores=3, options=("--retries", "5"))))
    assert " --cores 3 " in local and local.endswith(" --retries 5") and "profiles/local" in local
    cluster = shlex.join(workflow.command(batch, Where(executor="slurm", jobs=7)))
    assert cluster.endswith(" --jobs 7") and "profiles/slurm" in cluster and "--cores" not in cluster
    assert all(f"--directory {tmp_path}" in words for words in (local, cluster))


@pytest.mark.parametrize(("device", "match"), [("cuda:1", "names one GPU for all"), ("cuda", "but CUDA sees no GPU")])
def test_a_device_that_cannot_be_spread_over_is_refused(device, match, tmp_path, store):
    with pytest.raises(ValueError, match=f"device='{device}' of atom/accuracy.*{match}"):
        workflow.prepare([run_of(overrides(tmp_path, device=device))], Where(cores=2))


def test_what_is_not_installed_is_told_with_the_way_to_get_it(tmp_path, store, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"executor='slurm' needs SLURM's commands, and there is no sbatch here"):
        workflow.prepare([run_of(None)], Where(executor="slurm"))
    monkeypatch.setattr(workflow.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"snakemake is not installed; `make setup` brings it"):
        workflow.prepare([run_of(None)], Where(cores=2))


# What came of a batch.


def test_what_came_of_a_batch_is_told_from_what_its_jobs_left(tmp_path, store):
    (tmp_path / "plan.json").touch()
    random, dm = notebooks.cells(NAME, "quick", SMALL)
    run, other, left_out = run_of(None), run_of(None, "compare/tour"), Run("atom/none", "hour", tmp_path)
    batch = Batch(tmp_path, (run, other), {NAME: {"a": random, "b": dm}, "compare/tour": {"a": random}})

    def errors():
        return [outcome.error for outcome in workflow.outcomes([run, other, left_out], batch)]

    assert errors()[0].startswith("2 of its cells not computed; Random, digits, IPC 1: its job was not begun (log: ")
    for path in (batch.mark("cells", "a"), batch.log("cells", "b"), batch.log("notebooks", "compare/tour")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    batch.log("cells", "b").write_text("step 1\nOSError: no space left\n")
    first, second, third = errors()
    assert first.startswith("1 of its cells not computed; DM, digits, IPC 1: OSError: no space left (log: ")
    assert second.startswith("the notebook's job: nothing printed, as when a job is killed (log: ") and third == ""

    record = results.Record(accuracies=(), label="DM", method="dm", dataset="digits", ipc=1, cell={})
    results.write([record], run.results)
    for mark in (batch.mark("cells", "b"), batch.mark("notebooks", NAME)):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    first, *_ = workflow.outcomes([run], batch)
    assert (first.error, first.verdicts) == ("", {"NOT RUN": 1})
    os.utime(run.results, (0, 0))
    assert workflow.outcomes([run], batch)[0].verdicts is None, "results of before the batch are none of its own"


# One cell.


def test_cells_are_listed_and_one_is_computed_alone(tmp_path, store, capsys):
    path = overrides(tmp_path, device="auto")
    listed = ["cell", NAME, "-f", str(path)]
    assert cli.main(listed) == 0
    (name, text) = capsys.readouterr().out.splitlines()[0].split(maxsplit=1)
    assert text == "to do         Random, digits, IPC 1"
    assert cli.main([*listed[:2], name, *listed[2:]]) == 0
    assert capsys.readouterr().out.endswith(" % over 4 networks\n")
    assert cli.main(listed) == 0
    states = [line.split(maxsplit=1)[1][:12] for line in capsys.readouterr().out.splitlines()]
    assert states == ["in the store", "to do       "]


def test_a_cell_keeps_to_the_budget(tmp_path, store, capsys):
    path = overrides(tmp_path, budget_hours=0.0)
    name = next(iter(run_of(path).cells()))
    assert cli.main(["cell", NAME, name, "-f", str(path)]) == 0
    assert "not begun, since" in capsys.readouterr().out and not list(store.rglob("*.safetensors"))
