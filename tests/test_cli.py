"""The command line: what it prints, where, and with which exit code."""

import os
import subprocess
import sys

import pytest

from ddlib import ROOT
from ddlib.batch import cli
from ddlib.data import datasets


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A data folder with nothing in it."""
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path))
    return tmp_path


def test_list_tells_every_set_where_and_how(no_data, capsys):
    assert cli.main(["data", "list"]) == 0
    head, *_, table = capsys.readouterr().out.split("\n", 4)
    lines = {line.split()[0]: line for line in table.splitlines()}
    assert str(no_data) in head and tuple(lines) == datasets.names()
    assert "there" in lines["digits"] and "3x32x32" in lines["cifar10"]
    assert lines["cifar10"].endswith("missing  ddlib data get cifar10")


def test_check_fails_for_damage_and_for_what_is_named_and_absent(no_data, capsys):
    assert cli.main(["data", "check", "digits"]) == 0
    assert "digits train: " in capsys.readouterr().out
    assert cli.main(["data", "check", "cifar10"]) == 1
    assert "cifar10 train: missing" in capsys.readouterr().out
    assert cli.main(["data", "check"]) == 0
    assert "cifar10: missing; ddlib data get cifar10" in capsys.readouterr().out
    folder = no_data / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cut short")
    assert cli.main(["data", "check"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data get cifar11", "unknown dataset 'cifar11'; known: digits, "),
        ("data get imagenette_128", "imagenette_128 is not under "),
        ("reproduce --threads 2", "--threads is for a batch: give --cores or --executor too"),
        ("reproduce --snakemake=-n", "--snakemake is for a batch"),
        ("reproduce --at-once 2 --gpus 0", "--at-once 2 is for notebooks on the CPU; with --gpus give --cores"),
        ("reproduce --at-once 2 --cores 2", "--at-once 2 is for notebooks without a batch; leave it out"),
        ("reproduce --cores 1 --threads 2", "threads=2 of each job are more than cores=1"),
        ("reproduce --cores 2 --jobs 2", "jobs=2 is for a cluster"),
        ("reproduce --executor slurm --gpus 0", "gpus=0 are this machine's"),
        ("cell atom/accuracy abc", "unknown cell 'abc' of atom/accuracy at quick; known: "),
        ("cell atom/acuracy", "unknown notebook 'atom/acuracy'"),
    ],
)
def test_a_refusal_is_one_line_on_stderr(no_data, capsys, words, message):
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"ddlib: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "required: COMMAND"),
        ("data", "required: VERB"),
        ("paint", "invalid choice: 'paint'"),
        ("reproduce --profile week", "--profile: invalid choice: 'week'"),
        ("reproduce --at-once 0", "--at-once: '0'; it must be a whole number >= 1"),
        ("reproduce --cores 0", "--cores: '0'; it must"),
        ("reproduce --cores 2 --threads -1", "--threads: '-1'; it must"),
        ("plan --memory 16", "--memory: '16'; it must be a number with a unit, such as 16GB"),
        ("plan --budget-hours -1", "--budget-hours: '-1'; it must be a number of hours >= 0"),
        ("plan --budget-hours long", "--budget-hours: 'long'; it must be a number of hours >= 0"),
        ("reproduce --cores 2 --executor slurm", "not allowed with argument --cores"),
    ],
)
def test_a_wrong_command_shows_its_usage(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words.split())
    err = capsys.readouterr().err
    assert "usage: ddlib" in err and message in err


def test_relative_paths_of_the_environment_lie_in_the_repository_from_everywhere():
    code = "import ddlib\nfrom ddlib.data import datasets\nprint(ddlib.OUTPUT, datasets.data_root())"
    environment = os.environ | {"DDLIB_OUTPUT": "out", "DDLIB_DATA": "some/data", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd="/", env=environment)
    assert done.stdout.split() == [str(ROOT / "out"), str(ROOT / "some" / "data")]


HEAVY = {"torch", "pandas", "seaborn", "scipy", "diffusers", "matplotlib", "sklearn", "statsmodels"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import ddlib", HEAVY),
        ("from ddlib.batch import cli\ncli.main(['plan', '--help'])", HEAVY),
        ("import ddlib.methods, ddlib.methods.sampler, ddlib.models.priors", {"diffusers"}),
    ],
)
def test_nothing_that_takes_long_to_import_is_imported_where_it_is_not_used(code, heavy):
    watch = f"import atexit, sys\natexit.register(lambda: print(sorted({heavy!r} & sys.modules.keys())))\n"
    done = subprocess.run([sys.executable, "-c", watch + code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
