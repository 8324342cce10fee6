"""What the user sees when files are damaged, the disk is full, a process has died, or numbers run away."""

import contextlib
import logging
import subprocess
import threading

import pytest
import torch
from few_digits import Cut
from test_rows import cells

from ddlib import study
from ddlib.store import artefacts, files, inventory
from ddlib.store.files import read_tensors
from ddlib.store.loop import run as drive
from ddlib.study import work

ROWS = {
    "ATOM": {"method": "atom", "iterations": 6, "batch_real": 4, "norm": "instance"},
    "Herding": {"method": "herding", "epochs": 1},
}


def cell(label="ATOM", **hyperparameters):
    """The row `label` of the table above, changed."""
    rows = {label: ROWS[label] | hyperparameters}
    return cells(methods=rows, seeds=[0], evaluation={"num_networks": 2, "epochs": 1})[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The set that uninterrupted work comes to."""
    return study.synthetic_set(cell(), 0, study.Workplace("cpu", tmp_path_factory.mktemp("whole"), "none"))


@contextlib.contextmanager
def stopped_after(monkeypatch, steps):
    """Inside the block, make what the loop drives end with an error after so many steps, as a power cut would."""

    def driven(*job, report, **options):
        cut = Cut(steps)
        cut.note = report.note
        return drive(*job, report=cut, **options)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="cut"):
        patched.setattr("ddlib.store.loop.run", driven)
        yield


def interrupted(monkeypatch, workplace, steps=3):
    """Leave a distillation after `steps` steps, and return its checkpoint."""
    with stopped_after(monkeypatch, steps):
        study.synthetic_set(cell(), 0, workplace)
    (path,) = workplace.folder.rglob("checkpoint.safetensors")
    assert read_tensors(path)[1]["step"] == steps
    return path


def damage(path, how):
    """Truncate a file, flip one bit in its middle, or delete it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "deleted":
        path.unlink()
    else:
        path.write_bytes(content if how == "flipped" else content[: len(content) // 3])


@pytest.mark.parametrize("how", ["whole", "truncated", "flipped"])
def test_a_checkpoint_is_gone_on_from_or_named_and_put_aside(how, workplace, expected, monkeypatch, caplog):
    path = interrupted(monkeypatch, workplace)
    assert "stopped at step 4: RuntimeError cut" in path.with_name("log.txt").read_text()
    if how != "whole":
        damage(path, how)
    assert torch.equal(study.synthetic_set(cell(), 0, workplace).images, expected.images) and not path.exists()
    sittings = [sitting["step"] for sitting in files.read_json(path.with_name("run.json"))["sittings"]]
    assert sittings == ([0, 3] if how == "whole" else [0])
    assert path.with_name("checkpoint.safetensors.damaged").exists() == (how != "whole") == bool(caplog.records)
    if how != "whole":
        assert f"{path} is " in caplog.text and "it was moved to checkpoint.safetensors.damaged" in caplog.text


def test_a_set_that_is_being_made_again_keeps_its_checkpoint_and_what_is_kept_is_not_planned_again(
    workplace, monkeypatch
):
    study.synthetic_set(cell(), 0, workplace)
    (path,) = workplace.folder.glob("distilled/*/synthetic.safetensors")
    damage(path, "deleted")
    interrupted(monkeypatch, workplace)
    (entry,) = inventory.entries(workplace.folder)
    assert entry.state == "interrupted: step 3 of 6"
    assert inventory.leftovers(workplace.folder) == [] and not study.finished(cell(), workplace)
    found = work.missing(cell(), workplace)
    assert [found.left[path] for path in found.distil] == [0.5] and list(found.left.values()) == [0.5, 1.0]


FINISHED = {
    "synthetic.safetensors": "distilled/*/synthetic.safetensors",
    "run.json": "distilled/*/run.json",
    "evaluation": "distilled/*/evaluation-*.json",
    "embedding.safetensors": "embedding/*/embedding.safetensors",
}


@pytest.mark.parametrize("how", ["flipped", "deleted"])
@pytest.mark.parametrize("which", FINISHED)
def test_damage_to_finished_work_is_named_and_it_is_made_again(which, how, workplace, caplog):
    (before,) = study.run([cell("Herding")], workplace)
    (path,) = workplace.folder.glob(FINISHED[which])
    damage(path, how)
    if which == "embedding.safetensors":  # read only when something is made of it
        for run in workplace.folder.glob("distilled/*/run.json"):
            run.unlink()
    if which == "evaluation":
        assert not study.finished(cell("Herding"), workplace)
    (after,) = study.run([cell("Herding")], workplace)
    assert after.accuracies == before.accuracies and path.exists()
    if how != "deleted":
        assert f"{path} is " in caplog.text and path.with_name(f"{path.name}.damaged").exists()
    elif path.suffix == ".safetensors":
        assert f"{path} is missing; it is made again" in caplog.text


def test_damage_seen_twice_keeps_both_files(workplace):
    for _ in range(3):
        study.synthetic_set(cell(), 0, workplace)
        (path,) = workplace.folder.glob("distilled/*/synthetic.safetensors")
        damage(path, "flipped")
    assert {p.name for p in path.parent.glob("*.damaged*")} == {f"{path.name}.damaged", f"{path.name}.damaged.2"}


@pytest.fixture
def mounted(tmp_path):
    """(options) -> a small file system of its own; only root can mount one."""
    folder = tmp_path / "mounted"
    folder.mkdir()

    def mount(*options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.mark.parametrize("room", [0, 12288])
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(room, mounted, expected, monkeypatch):
    folder = mounted("size=512k")
    workplace = study.Workplace("cpu", folder=folder / "runs", progress="none", checkpoint_seconds=0)
    path = interrupted(monkeypatch, workplace)
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    with filler.open("rb+") as file:  # room for a lock's owner and a log, and for no checkpoint
        file.truncate(filler.stat().st_size - room)
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device; what was there before is whole"):
        study.synthetic_set(cell(), 0, workplace)
    assert read_tensors(path)[1]["step"] == 3 and not list(folder.rglob("*.part"))
    filler.unlink()
    assert torch.equal(study.synthetic_set(cell(), 0, workplace).images, expected.images)
    assert [s["step"] for s in files.read_json(path.with_name("run.json"))["sittings"]] == [0, 3]


def test_a_lock_whose_owner_died_is_taken_over_and_said(workplace, expected, monkeypatch, caplog):
    path = interrupted(monkeypatch, workplace)
    owner = path.with_name(".lock.owner")
    files.write_whole(owner, b"process 4194999 on node7, since 2026-01-01 00:00:00")
    assert torch.equal(study.synthetic_set(cell(), 0, workplace).images, expected.images)
    assert "seed 0: taken over from process 4194999 on node7, since 2026-01-01 00:00:00, which died" in caplog.text
    assert not owner.exists()


def test_who_holds_a_lock_is_said_to_whoever_waits_and_one_that_cannot_be_is_refused(tmp_path, caplog):
    def wait():
        with artefacts.locked(tmp_path / ".lock", "the work", poll=0.01):
            pass

    waiting = threading.Thread(target=wait)
    with artefacts.locked(tmp_path / ".lock", "the work"), caplog.at_level(logging.WARNING):
        waiting.start()
        for _ in range(500):
            if "under way in process" in caplog.text:
                break
            waiting.join(0.01)
    waiting.join(10)
    assert "the work: under way in process" in caplog.text and not waiting.is_alive()
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OSError, match=r"cannot write .*\.lock"),
        artefacts.locked(tmp_path / "file" / ".lock", "the work"),
    ):
        pass


@pytest.mark.parametrize("kept", [[0], [1], None])
def test_an_evaluation_that_goes_on_in_other_groups_counts_no_network_twice_nor_one_of_another_set(
    kept, workplace, monkeypatch
):
    (whole,) = study.run([cell()], workplace)
    (path,) = workplace.folder.glob("distilled/*/evaluation-*.json")
    found, others = files.read_json(path), {"of": "another set", "accuracies": [1.0, 2.0]}
    short = {name: [found[name][i] for i in kept or ()] for name in ("networks", "accuracies", "train_losses")}
    files.write_json(path, found | (short if kept else others))
    monkeypatch.setattr("ddlib.evaluation.training.at_once", lambda *_: 2)
    assert not study.finished(cell(), workplace)
    (record,) = study.run([cell()], workplace)
    assert record.n == 2 and sorted(record.accuracies) == pytest.approx(sorted(whole.accuracies), abs=1e-9)
