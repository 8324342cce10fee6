"""Notebooks run in bulk: found, run on the kernel of this environment, and told of truthfully."""

import json
import os
import re
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ddlib import results
from ddlib.batch import cli, reproduce
from ddlib.report import evidence
from ddlib.study import notebooks

OVERRIDABLE = 'profile = "quick"  # the budget\nseeds = [0]  # of each cell'


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository in a temporary folder, taken for the real one; also the working directory."""
    for folder in ("notebooks/atom", "params/atom", "results/atom", "figures/atom"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "OUTPUT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def notebook(repository, name, *sources, parameters="lr = 0.1  # learning rate"):
    """Write a notebook of these code cells after its parameters."""
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), repository / "notebooks" / f"{name}.ipynb")


def printed(path):
    """What the cells of an executed notebook wrote to stdout."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def record(label, accuracies):
    return results.Record(accuracies=accuracies, label=label, method="dm", dataset="digits", ipc=1, cell={})


def test_a_run_uses_this_kernel_its_folder_and_its_parameters(repository, monkeypatch):
    # A kernel of the same name registered elsewhere, as an older project may have left one, is not taken.
    stray = repository / "stray" / "kernels" / "python3"
    stray.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "stray", "language": "python"}
    (stray / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(repository / "stray"))
    source = "import os, sys\nprint(sys.executable, os.getcwd(), ipcs, seeds, sep='|')"
    notebook(repository, "atom/accuracy", source, parameters=f"{OVERRIDABLE}\nipcs = [1]")
    (repository / "params/atom/accuracy.hour.yaml").write_text("profile: hour\nseeds: [1, 2]\nipcs: [5]\n")
    (repository / "mine.yaml").write_text("seeds: [3]\n")

    (run,) = reproduce.plan([], "hour", output=repository / "runs", overrides=repository / "mine.yaml")
    (outcome,) = reproduce.execute([run])

    assert outcome.error == "" and outcome.verdicts is None and outcome.seconds > 0
    assert run.executed == repository / "runs/atom/accuracy.hour.ipynb"
    executable, folder, *values = printed(run.executed).strip().split("|")
    assert os.path.samefile(executable, sys.executable) and values == ["[5]", "[3]"]
    assert folder == str((repository / "notebooks/atom").resolve())


def test_a_failure_is_told_and_the_others_still_run(repository, monkeypatch, capsys):
    results.write([record("DM", ())], repository / "results/atom/broken.quick.json")  # an earlier run's
    results.write([record("DM", (50.0, 51.0))] * 2, repository / "made.json")
    notebook(repository, "atom/broken", "raise ValueError('no such thing\\nand more')")
    made, wanted = repository / "made.json", repository / "results/atom/sound.quick.json"
    figure = repository / "figures/atom/sound.quick.bars.png"
    moved = f"import os\nos.replace({str(made)!r}, {str(wanted)!r})"
    notebook(repository, "atom/sound", moved, f"open({str(figure)!r}, 'w').close()")
    notebook(repository, "atom/torn", "raise SystemExit(3)")
    last_error = reproduce._last_error

    def torn(run, code):  # what a full disk leaves
        if run.name == "atom/torn":
            run.executed.write_text(run.executed.read_text()[:99])
            run.log.write_text("OSError: [Errno 28] No space left on device")
        return last_error(run, code)

    monkeypatch.setattr(reproduce, "_last_error", torn)
    assert cli.main(["reproduce", "--output", "runs"]) == 1

    out, err = capsys.readouterr()
    assert "ddlib: atom/broken failed: ValueError: no such thing" in err.splitlines()
    assert "ddlib: atom/torn failed: OSError: [Errno 28] No space left on device" in err.splitlines()
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("atom/")}
    assert "FAILED" in rows["atom/broken"] and "FAILED" in rows["atom/torn"] and "NOT RUN" not in out
    assert "2 NO REFERENCE" in rows["atom/sound"] and "runs/atom/sound.quick.ipynb" in rows["atom/sound"]
    assert cli.main(["reproduce", "atom/broken", "--output", "runs"]) == 2  # refused, and nothing else ran
    assert "results/atom/sound.quick.json" in out and "figures/atom/sound.quick.* (1 file)" in out


@pytest.mark.parametrize(
    ("source", "parameters", "error"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "lr: 1.0", "kernel died"),
        ("open('../../results/atom/accuracy.hour.json', 'w').write('[{')", "lr: 1.0", "is not whole"),
        ("", "lr: [0.1", ""),  # as its log has it
    ],
)
def test_a_killed_kernel_broken_results_and_broken_parameters_are_told(source, parameters, error, repository):
    notebook(repository, "atom/accuracy", source)
    (repository / "params/atom/accuracy.hour.yaml").write_text(parameters)
    (outcome,) = reproduce.execute(reproduce.plan([], "hour", output=repository / "runs"))
    assert outcome.error and error in outcome.error


MEET = """
import os, pathlib, time
here, end = pathlib.Path({folder!r}), time.monotonic() + 60
(here / {own!r}).touch()
while not (here / {other!r}).exists():
    assert time.monotonic() < end, "the other notebook does not run"
    time.sleep(0.05)
print(os.environ["OMP_NUM_THREADS"])
"""


def test_notebooks_that_run_at_once_meet_and_share_the_cores(repository, monkeypatch, capsys):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(reproduce.os, "cpu_count", lambda: 6)
    for own, other in (("a", "b"), ("b", "a")):  # each waits for the other: one by one, both would fail
        notebook(repository, f"atom/{own}", MEET.format(folder=str(repository), own=own, other=other))
    notebook(repository, "atom/last", "print(1)")
    assert cli.main(["reproduce", "--output", "runs", "--at-once", "2"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("atom/")] == [
        "atom/a", "atom/b", "atom/last",
    ]  # fmt: skip
    assert [printed(repository / f"runs/atom/{name}.quick.ipynb") for name in "ab"] == ["3\n", "3\n"]


def test_what_is_left_of_a_batch_is_said_once_a_quarter_is_done(repository, monkeypatch, capsys):
    for name in "abcde":
        notebook(repository, f"atom/{name}")
    now = [0.0]
    monkeypatch.setattr(reproduce.time, "monotonic", lambda: now[0])
    runs = reproduce.plan([], "quick", output=repository / "runs")
    display = reproduce.Display(runs)
    for run in runs:  # of none is recorded what it took: all count alike
        display.begin(run)
        now[0] += 60
        display.end(reproduce.Outcome(run, 60.0, {}))
    lines = [line for line in capsys.readouterr().err.splitlines() if "done after" in line]
    left = [line.partition(", about ")[2] for line in lines]
    assert left == ["", "3 min left", "2 min left", "60 s left", ""]


def test_what_is_asked_for_is_found(repository):
    (repository / "notebooks/compare").mkdir()
    (repository / "notebooks/ld3m").mkdir()
    for name in ("atom/accuracy", "atom/cost", "compare/tour", "ld3m/accuracy"):
        notebook(repository, name)
    (repository / "notebooks/atom/.ipynb_checkpoints").mkdir()
    (repository / "notebooks/atom/.ipynb_checkpoints/cost.ipynb").write_text("{}")
    (repository / "params/atom/cost.hour.yaml").write_text("lr: 1.0\n")

    def asked(*wanted, profile="quick"):
        return [run.name for run in reproduce.plan(wanted, profile, output=repository / "runs")]

    assert asked("atom") == asked("atom/cost", "atom/accuracy") == ["atom/accuracy", "atom/cost"]
    assert asked() == ["atom/accuracy", "atom/cost", "ld3m/accuracy", "compare/tour"]  # what compares papers is last
    assert asked("notebooks/atom/cost.ipynb") == asked("atom/cost") == ["atom/cost"]
    assert asked("atom/cost", profile="hour") == ["atom/cost"]
    left_out = reproduce.execute(reproduce.plan([], "hour", output=repository / "runs")[:1])
    assert "not run: no hour parameters" in reproduce.table(left_out)


def test_a_notebook_may_have_several_parameter_files_at_one_profile_each_with_its_own_products(repository):
    keep = "print(profile)\nopen(f'../../results/atom/accuracy.{profile}.json', 'w').write('[]')"
    notebook(repository, "atom/accuracy", keep, parameters="profile = 'quick'")
    notebook(repository, "atom/accuracy_of_all")
    for variant in ("", "svhn.", "cifar100."):
        (repository / f"params/atom/accuracy.{variant}paper.yaml").write_text(f"profile: {variant}paper\n")

    def asked(*wanted, profile="paper"):
        return {run.name: run for run in reproduce.plan(wanted, profile, output=repository / "runs")}

    names = ["atom/accuracy", "atom/accuracy.cifar100", "atom/accuracy.svhn"]
    assert list(asked()) == list(asked("atom")) == [*names, "atom/accuracy_of_all"]
    assert list(asked("atom/accuracy")) == list(asked("notebooks/atom/accuracy.ipynb")) == ["atom/accuracy"]
    assert list(asked(profile="quick")) == ["atom/accuracy", "atom/accuracy_of_all"]
    (outcome,) = reproduce.execute([*asked("atom/accuracy.svhn").values()])
    assert (outcome.error, outcome.verdicts) == ("", {})
    assert outcome.run.results == repository / "results/atom/accuracy.svhn.paper.json"
    assert outcome.run.executed.name == "accuracy.svhn.paper.ipynb"
    assert printed(outcome.run.executed).strip() == "svhn.paper"
    assert "\natom/accuracy.svhn " in reproduce.table([outcome])


@pytest.mark.parametrize(
    ("words", "overrides", "message"),
    [
        (["atom/acuracy"], "", r"unknown notebook 'atom/acuracy'; known: atom/accuracy"),
        (["atom/accuracy.svhn"], "", r"unknown notebook 'atom/accuracy.svhn'; known: atom/accuracy"),
        (["atom/accuracy", "--profile", "paper"], "", "atom/accuracy has no parameters for profile"),
        (["-f", "nowhere.yaml"], "", r"\[Errno 2\] No such file or directory: "),
        (["-f", "mine.yaml"], "sedes: [3]", "mine.yaml does not suit atom/accuracy: .*'sedes'"),
        (["-f", "mine.yaml"], "seeds: [-3]", "mine.yaml does not suit atom/accuracy: seeds=-3; it must be >= 0"),
        (["-f", "mine.yaml"], "profile: hour", "mine.yaml sets 'profile', which --profile does"),
        (["-f", "mine.yaml"], "[1]", "mine.yaml holds list; it must be a mapping"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_line_before_anything_runs(repository, capsys, words, overrides, message):
    with pytest.raises(FileNotFoundError, match="no notebooks in"):
        reproduce.plan([], "quick", output=repository)
    notebook(repository, "atom/accuracy", parameters=OVERRIDABLE)
    (repository / "mine.yaml").write_text(overrides)
    assert cli.main(["reproduce", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.match(f"ddlib: {message}", err.replace(f"{repository}/", "")) and err.count("\n") == 1
    assert not (repository / "runs").exists()
    with pytest.raises(ValueError, match="unknown profile 'week'; known: quick, hour, paper"):
        reproduce.plan([], "week", output=repository)


def test_two_folders_of_results_are_set_beside_each_other(tmp_path, capsys):
    rows = {"a": [("Random", (70.0, 71.0, 72.0)), ("DM", (80.0, 81.0, 82.0)), ("Old", (1.0, 2.0))]}
    rows["b"] = [("Random", (70.0, 71.0, 72.0)), ("DM", (85.0, 86.0, 87.0)), ("New", (1.0, 2.0))]
    for folder, its in rows.items():
        results.write([record(*row) for row in its], tmp_path / folder / "atom/accuracy.quick.json")
    results.write([record("DM", (1.0, 2.0))], tmp_path / "b/datm/lossless.quick.json")

    assert cli.main(["report", "compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0

    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("1 of 2 rows agree") and "1 are equal" in head and "up to 5.0 points" in head
    assert "1 of 1 claims" in head  # that DM is above Random
    assert [line.strip() for line in lines] == [
        "atom/accuracy.quick: DM, digits, IPC 1, convnet: 81.0 -> 86.0 [+2.7, +7.3]",
        "datm/lossless.quick: only after",
        "atom/accuracy.quick: Old, digits, IPC 1, convnet: only before",
        "atom/accuracy.quick: New, digits, IPC 1, convnet: only after",
    ]
    assert cli.main(["report", "compare", str(tmp_path / "a"), str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err


def test_a_claim_with_another_outcome_is_named(tmp_path):
    higher, lower = (70.0, 71.0, 72.0), (50.0, 51.0, 52.0)
    for name, (dm, atom) in {"a": (lower, higher), "b": (higher, lower)}.items():
        both = [record("DM", dm), record("ATOM", atom)]
        results.write(both, tmp_path / name / "atom/accuracy.quick.json")
    found = evidence.agreement(*(evidence.read(tmp_path / name) for name in "ab"))
    changes = [line for line in found.splitlines() if line.endswith("holds -> fails")]
    assert changes and f"0 of {len(changes)} claims" in found and "of one network" not in found
    for name, accuracy in {"a": 90.0, "b": 10.0}.items():
        results.write(
            [record("DM", (accuracy,)), record("ATOM", (50.0,))], tmp_path / name / "atom/accuracy.quick.json"
        )
    found = evidence.agreement(*(evidence.read(tmp_path / name) for name in "ab"))
    assert found.startswith("0 of 0 rows agree (the 95 % interval of their difference holds zero; 0 are equal")
    assert "; 2 more are of one network, and tell nothing" in found
    assert evidence.agreement([], []).startswith("no rows to compare; 0 of 0 claims")
