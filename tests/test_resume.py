"""Nothing is lost: work that is killed goes on where it was, and comes to the same bits as if it had not been."""

import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from test_rows import cells

from ddlib import study
from ddlib.store import files
from ddlib.store.files import read_tensors
from ddlib.study import work

KINDS = {
    "distillation": ({"method": "atom", "iterations": 150, "batch_real": 8, "norm": "batch"}, {"epochs": 1}),
    "prerequisite": ({"method": "herding", "epochs": 20}, {"epochs": 1}),
    "evaluation": ({"method": "random"}, {"num_networks": 20, "epochs": 10}),
}
"""Kind -> the row of the table, and the evaluation: each takes a second or two."""

STARTED = {
    "distillation": "distilled/*/checkpoint.safetensors",
    "prerequisite": "embedding/*/checkpoint.safetensors",
    "evaluation": "distilled/*/evaluation-*.json",
}
"""Kind -> what there is once a first part of it is kept."""


def labour(kind, folder):
    """One piece of real work in a store of its own, on one thread, with a checkpoint after each step."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a run of the tests in the background ignores
    row, evaluation = KINDS[kind]
    (cell,) = cells(methods={kind: row}, evaluation={"num_networks": 1} | evaluation, seeds=[0])
    workplace = study.Workplace("cpu", folder=Path(folder), progress="none", checkpoint_seconds=0)
    if kind == "evaluation":
        work.evaluated(cell, 0, workplace)
    else:
        study.synthetic_set(cell, 0, workplace)


@pytest.fixture(scope="module")
def start():
    """(kind, folder) -> a process at work; whatever still runs at the end is killed."""
    context = multiprocessing.get_context("forkserver")  # which has torch, so that a start takes no seconds
    context.set_forkserver_preload(["ddlib.study", "torch._dynamo", "sklearn.datasets"])
    begun = []

    def begin(kind, folder):
        process = context.Process(target=labour, args=(kind, str(folder)))
        process.start()
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """kind -> what uninterrupted work comes to, and the seconds that it takes with a process's start."""
    known = {}

    def find(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp(kind)
            finish(start("evaluation", folder / "warm"))
            begin = time.monotonic()
            finish(start(kind, folder / "whole"))
            known[kind] = made(folder / "whole"), time.monotonic() - begin
        return known[kind]

    return find


def made(folder):
    """Every number that was made: tensors, and what evaluations found."""
    tensors = {
        (path.name, name): tensor
        for path in folder.rglob("*.safetensors")
        for name, tensor in read_tensors(path)[0].items()
    }
    for path in folder.rglob("evaluation-*.json"):
        found = files.read_json(path)
        tensors |= {(path.name, k): torch.tensor(found[k]) for k in ("networks", "accuracies", "train_losses")}
    return tensors


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def finish(process):
    """Wait for a process that ends by itself."""
    process.join(60)
    assert process.exitcode == 0


def kill(process, folder, kind, wait, number=signal.SIGKILL):
    """Send a signal `wait` seconds after a first part is kept; whether it came before the end."""
    end = time.monotonic() + 60
    while process.is_alive() and not list(folder.glob(STARTED[kind])) and time.monotonic() < end:
        time.sleep(0.002)
    process.join(wait)
    if process.is_alive():
        with contextlib.suppress(ProcessLookupError):  # it ended, which the server of forks has yet to say
            os.kill(process.pid, number)
    process.join(60)
    return process.exitcode == -number


def survives(kind, kills, start, whole, target):
    """Kill a piece of work at random moments, and compare what it comes to with uninterrupted work."""
    draw, killed, begun = random.Random(kills), 0, False
    expected, seconds = whole(kind)
    while killed < kills:
        process = start(kind, target)
        if draw.random() < 0.2:  # anywhere, before the first checkpoint included
            time.sleep(draw.uniform(0, seconds / 2))
            process.kill()
            process.join(60)
            hit = process.exitcode == -signal.SIGKILL
        else:
            begun = True
            hit = kill(process, target, kind, draw.uniform(0, 2 * seconds / (kills + 1)))
        killed += hit
        if not hit:  # it came to its end first
            assert process.exitcode == 0 and same(made(target), expected)
            shutil.rmtree(target)
            begun = False
    finish(start(kind, target))
    assert same(made(target), expected)
    assert not list(target.rglob("*.damaged*")) and not list(target.rglob("checkpoint.safetensors"))
    for run in target.glob(STARTED[kind].replace("checkpoint.safetensors", "run.json")):
        assert kind == "evaluation" or not begun or len(files.read_json(run)["sittings"]) > 1, "it began anew"


@pytest.mark.parametrize("kills", [3, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_kills_change_nothing(kind, kills, start, whole, tmp_path):
    survives(kind, kills, start, whole, tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_once_the_step_is_saved(number, start, whole, tmp_path):
    process = start("distillation", tmp_path)
    killed = kill(process, tmp_path, "distillation", 0.2, number)
    assert killed or (number == signal.SIGINT and process.exitcode == 1)  # by KeyboardInterrupt
    (log,) = tmp_path.glob("distilled/*/log.txt")
    (checkpoint,) = tmp_path.glob("distilled/*/checkpoint.safetensors")
    step = read_tensors(checkpoint)[1]["step"]
    assert f"signal {int(number)} at step {step}: saved" in log.read_text()
    finish(start("distillation", tmp_path))
    (run,) = tmp_path.glob("distilled/*/run.json")
    assert [sitting["step"] for sitting in files.read_json(run)["sittings"]] == [0, step]
    assert same(made(tmp_path), whole("distillation")[0])


def test_two_processes_share_the_work_and_do_none_of_it_twice(start, whole, tmp_path):
    both = [start("distillation", tmp_path) for _ in range(2)]
    for process in both:
        finish(process)
    (log,) = tmp_path.glob("distilled/*/log.txt")
    assert log.read_text().count("150 steps on") == 1
    assert same(made(tmp_path), whole("distillation")[0])
