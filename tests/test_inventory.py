"""The store as its user sees it: what is listed, shown and thrown away."""

import pytest
from test_faults import cell, damage, interrupted

from ddlib import study
from ddlib.batch import cli
from ddlib.data import datasets, synthetic
from ddlib.store import artefacts, files, inventory
from ddlib.study import work


def runs(workplace, *words):
    return cli.main(["runs", *words, "--store", str(workplace.folder)])


def test_finished_and_interrupted_work_is_listed_with_its_state(workplace, capsys, monkeypatch):
    assert runs(workplace, "list") == 0
    assert capsys.readouterr().out == f"0 pieces of work in {workplace.folder}, 0.0 kB\n"
    interrupted(monkeypatch, workplace)
    study.run([cell("Herding")], workplace)
    assert runs(workplace, "list") == 0
    head, _, titles, _, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("3 pieces of work in ") and titles.split()[:3] == ["key", "kind", "what"]
    atom, herding, embedding = lines
    assert "distilled  ATOM, digits, IPC 1, seed 0" in atom and atom.endswith("interrupted: step 3 of 6")
    assert "Herding, digits, IPC 1, seed 0" in herding and herding.split()[-2:] == ["1", "finished"]
    assert "embedding  embedding, digits" in embedding
    for key, count in (("zzz", 0), ("", 3)):
        assert runs(workplace, "show", key) == 2
        assert f"key={key!r} is the beginning of {count} pieces in " in capsys.readouterr().err


def test_work_under_way_is_listed_with_who_does_it_and_cannot_be_deleted(workplace, capsys, monkeypatch):
    path = interrupted(monkeypatch, workplace)
    with artefacts.locked(path.with_name(".lock"), "ATOM"):
        runs(workplace, "list")
        assert "under way: process " in capsys.readouterr().out
        assert runs(workplace, "clean", path.parent.name[:6]) == 2
        assert "is under way in process" in capsys.readouterr().err
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "how", "state"),
    [
        ("run.json", "flipped", "damaged: run.json"),
        ("synthetic.safetensors", "deleted", "damaged: synthetic.safetensors is missing"),
        ("synthetic.safetensors", "flipped", "finished"),  # tensors are read by `show` alone
    ],
)
def test_damage_is_listed_or_shown(name, how, state, workplace, capsys):
    study.run([cell()], workplace)
    (path,) = workplace.folder.glob(f"distilled/*/{name}")
    damage(path, how)
    runs(workplace, "list")
    assert capsys.readouterr().out.splitlines()[-1].endswith(state)
    found = runs(workplace, "show", path.parent.name)
    assert found == (0 if how == "deleted" else 1)
    assert (f"{path} is " in capsys.readouterr().out) == (how != "deleted")


def test_a_piece_is_shown_with_settings_cost_accuracies_and_log_and_deleted_by_its_key(workplace, capsys):
    (record,) = study.run([cell()], workplace)
    (folder,) = workplace.folder.glob("distilled/*")
    assert runs(workplace, "show", folder.name[:8]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ATOM, digits, IPC 1, seed 0 (distilled), finished\n")
    assert '"batch_real": 4' in out and "seconds: " in out and out.endswith("every file is what was written\n")
    assert f"2 of 2 networks: {record.accuracies[0]:.2f}, {record.accuracies[1]:.2f} %" in out
    assert "log: " in out and "finished after" in out
    assert runs(workplace, "clean", folder.name) == 0 and not folder.exists()
    assert capsys.readouterr().out.splitlines()[0].startswith("deleted ATOM, digits, IPC 1, seed 0 (")


def test_clean_deletes_what_nothing_can_use_and_nothing_else(workplace, capsys, monkeypatch):
    checkpoint = interrupted(monkeypatch, workplace)
    study.run([cell("Herding")], workplace)
    (run,) = workplace.folder.glob("distilled/*/run.json")
    rubbish = [run.with_name(name) for name in (".x.json.ab12.part", "run.json.damaged", "x.damaged.2")]
    rubbish.append(run.with_name("checkpoint.safetensors"))
    for path in rubbish:
        path.write_bytes(b"12345")
    kept = {path for path in workplace.folder.rglob("*") if path.is_file()} - set(rubbish)
    assert runs(workplace, "clean") == 0
    assert "deleted 4 files, 0.0 kB" in capsys.readouterr().out
    assert {path for path in workplace.folder.rglob("*") if path.is_file()} == kept and checkpoint in kept


PLACES = {
    "ATOM": "distilled/e9751f314d19f496",
    "Herding": "distilled/61c07c0ab2dc9878",
    "embedding": "embedding/e4d162aadb5551c6",
    "evaluation": "evaluation-e0be7f982800fc93.json",
}
"""Where version 0.1 of the package keeps the cells of `test_faults`."""


def test_a_store_lies_as_it_always_did_and_what_it_holds_is_found(workplace):
    study.run([cell("ATOM"), cell("Herding")], workplace)
    files_of = {"run.json", "synthetic.safetensors", "log.txt", PLACES["evaluation"]}
    expected = {f"{PLACES[row]}/{name}" for row in ("ATOM", "Herding") for name in files_of}
    expected |= {f"{PLACES['embedding']}/{name}" for name in ("run.json", "embedding.safetensors", "log.txt")}
    held = [path for path in workplace.folder.rglob("*") if path.is_file() and "lock" not in path.name]
    assert {path.relative_to(workplace.folder).as_posix() for path in held} == expected


@pytest.fixture
def unread(monkeypatch):
    """From here on whoever reads a data set, or a tensor, fails."""

    class Header:
        def __init__(self, path, **options):
            self._open = real(path, **options)

        def __enter__(self):
            self.metadata = self._open.__enter__().metadata
            return self

        def __exit__(self, *error):
            self._open.__exit__(*error)

    def refuse():
        monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data were read"))
        monkeypatch.setattr(files, "safe_open", Header)

    real = files.safe_open
    return refuse


def test_finished_work_is_listed_without_reading_data_or_tensors(workplace, unread):
    found = cell("Herding")
    study.run([found], workplace)
    made, accuracies = work.distillation(found, 0, workplace), work.Accuracies(found, 0, workplace)
    (made.folder / "snapshots.safetensors").touch()  # of an earlier version
    unread()
    assert study.finished(found, workplace) and not work.under_way(found, workplace)
    for artefact in (made, accuracies):
        assert artefact.finished() and artefacts.holder(artefact.lock) is None
    lacking = work.missing(found, workplace)
    assert (lacking.needs, lacking.distil, lacking.evaluate, lacking.left) == ({}, (), (), {})
    assert work.pretraining_seconds(found, found.method.needs.values(), workplace) >= 0
    assert {entry.state for entry in inventory.entries(workplace.folder)} == {"finished"}
    assert list(work.missing(cell("Herding", epochs=2), workplace).left.values()) == [1.0] * 3
    kept = files.read_json(accuracies.path)
    files.write_json(accuracies.path, kept | {"of": "another set"})
    assert accuracies.left() == 1.0 and not accuracies.finished()
    (need,) = (work.prerequisite(found, builder, "", workplace) for builder in found.method.needs.values())
    (need.folder / "run.json").write_text("{")
    assert work.pretraining_seconds(found, found.method.needs.values(), workplace) is None


def test_what_is_known_of_a_set_is_read_without_building_it_and_its_file_is_checked(workplace, monkeypatch):
    (record,) = study.run([cell()], workplace)
    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "load", lambda *_: pytest.fail("built"))
        assert work.distillation_record(cell(), 0, workplace)["bytes_stored"] == record.cost["bytes_stored"]
        assert study.run([cell()], workplace)[0].accuracies == record.accuracies
    (path,) = workplace.folder.glob("distilled/*/synthetic.safetensors")
    damage(path, "flipped")
    assert (
        work.distillation_record(cell(), 0, workplace)["steps"] == 6 and path.with_name(f"{path.name}.damaged").exists()
    )


def test_an_unfinished_evaluation_is_seen_for_what_it_is(workplace, capsys):
    study.run([cell()], workplace)
    (path,) = workplace.folder.glob("distilled/*/evaluation-*.json")
    record = files.read_json(path)
    files.write_json(path, record | {name: record[name][:1] for name in ("networks", "accuracies", "train_losses")})
    assert not study.finished(cell(), workplace)
    runs(workplace, "show", path.parent.name)
    assert "1 of 2 networks" in capsys.readouterr().out
