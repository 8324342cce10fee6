"""The references that benchmarks time agree with what they are compared with, and what does not agree is not timed."""

import argparse
import functools
import json

import pytest

from benchmarks import __main__ as all_of_them
from benchmarks import (
    attention_matching,
    evaluation,
    experts,
    generative_matching,
    gradient_matching,
    growth,
    harness,
    latent_distillation,
    trajectory_matching,
)

COMPARISONS = {
    "attention, instance": lambda: attention_matching.compare("instance", 2, 4, ["float32"]),
    "attention, batch": lambda: attention_matching.compare("batch", 2, 4, ["float32"]),
    "DataDAM, instance": lambda: attention_matching.compare("instance", 2, 4, ["float32"], "datadam"),
    "DM, batch": lambda: attention_matching.compare("batch", 2, 4, ["float32"], "dm"),
    "DC": lambda: gradient_matching.compare("dc", 2, 4),
    "DSA": lambda: gradient_matching.compare("dsa", 2, 4),
    "experts": lambda: experts.main(["--quick"]),
    "evaluation": lambda: evaluation.main(["--quick"]),
    "evaluation, soft labels": lambda: evaluation.main(["--quick", "--soft"]),
    "trajectories": lambda: trajectory_matching.compare(3, 4, 4, ["all", "half", "none"]),
    "DiM, convnet": lambda: generative_matching.compare(["convnet"], "fashion_mnist"),
    "DiM, resnet10": lambda: generative_matching.compare(["resnet10"], "fashion_mnist"),
    "LD3M, one step": lambda: latent_distillation.compare(1),
    "LD3M": lambda: latent_distillation.compare(4),
}


@pytest.mark.parametrize("what", COMPARISONS)
def test_what_is_timed_computes_what_its_reference_does(what, capsys):
    COMPARISONS[what]()
    assert "off the reference in " in capsys.readouterr().out


REFUSED = [
    (attention_matching, "TOLERANCE", 1e-30, "attention, instance"),
    (experts, "TOLERANCE", {"float32": 1e-30}, "experts"),
    (evaluation, "TOLERANCE", {"float32": 1e-30}, "evaluation"),
    (trajectory_matching, "TOLERANCE", {"float64": 1e-30}, "trajectories"),
    (generative_matching, "TOLERANCE", 1e-30, "DiM, convnet"),
    (latent_distillation, "OURS", {"exact": {"backprop_steps": 1}, "checkpointed": {}}, "LD3M"),
]


@pytest.mark.parametrize(("module", "name", "value", "what"), REFUSED)
def test_what_computes_something_else_is_not_timed(module, name, value, what, monkeypatch):
    monkeypatch.setattr(module, name, value)
    with pytest.raises(SystemExit, match=r"off the reference in .*; no ratio is worth printing"):
        COMPARISONS[what]()


@pytest.fixture
def small(monkeypatch):
    """No side is compared or weighed by `main`, and stage B of DiM has two small steps."""
    prepared = functools.partial(generative_matching.prepared, width=8, inner_steps=2)
    monkeypatch.setattr(generative_matching, "prepared", prepared)
    for module in (generative_matching, latent_distillation):
        monkeypatch.setattr(module, "compare", lambda *case: None)


def test_stage_b_is_timed(small, monkeypatch, capsys):
    monkeypatch.setattr(harness, "apart", lambda work, *case: 7.0)
    words = "--width 4 --batch 4 --repeats 1 --pool convnet --only float32"
    generative_matching.main(words.split())
    assert "float32 over the networks above: time x" in capsys.readouterr().out


def test_a_side_is_weighed(small):
    case = argparse.Namespace(width=4, batch=4, size="cifar10")
    for side in ("reference", "bfloat16"):
        assert generative_matching.weigh(side, "convnet", case) > 10
    _, tensors = latent_distillation.weigh("checkpointed", 2, argparse.Namespace(batch_real=2, width=16, factor=4))
    assert 1 < tensors < 100


def test_work_apart_is_done_in_a_process_of_its_own():
    assert harness.apart(harness.pictures, 3).images.equal(harness.pictures(3).images)


def test_an_iteration_of_ld3m_is_timed_and_its_last_calls_are_compared(small, monkeypatch, capsys):
    monkeypatch.setattr(harness, "apart", lambda work, *case: (7.0, 3.0))
    words = ["--steps", "2", "--width", "16", "--factor", "4", "--batch-real", "2", "--repeats", "1"]
    latent_distillation.main([*words, "--only", "exact", "last two bfloat16"])
    printed = capsys.readouterr().out
    assert (
        "last two bfloat16" in printed and "tensors x1.00   Z: cosine 1.0000 x1.00, c: cosine 1.0000 x1.00" in printed
    )


@pytest.mark.parametrize("line", growth.LINES, ids=lambda line: f"{line.method}, {line.axis}")
def test_arithmetic_grows_as_theory_says(line):
    sizes, operations = line.sizes[:2], []
    for size in sizes:
        step = line.build(size)
        with growth.Counts() as counts:
            step()
        operations.append(counts.operations)
    wanted = growth.slope(sizes, [line.time(size) for size in sizes])
    # the encoder and decoder of LD3M are constant
    assert growth.slope(sizes, operations) == pytest.approx(wanted, abs=0.16)


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Runs some benchmarks by the words of all of them; the rows of the file that then is there."""
    monkeypatch.setattr(harness, "ROWS", [])

    def run(*runs, more=()):
        monkeypatch.setattr(all_of_them, "RUNS", runs)
        all_of_them.main(["--quick", "--out", str(tmp_path), *more])
        return [row for path in tmp_path.glob("cpu-*.json") for row in json.loads(path.read_text())["benchmarks"]]

    return run


def test_all_benchmarks_leave_one_file_of_rows_and_a_page(rows, tmp_path):
    first, second = rows((gradient_matching, "", "--ipc 1 --width 4 --method dsa"))
    assert first["side"] == "reference" and first["ratio"] == 1 and first["case"] == "dsa, IPC 1, width 4"
    assert second["ratio"] == second["seconds"] / first["seconds"] > 0
    (page,) = tmp_path.glob("cpu-*.md")
    assert page.read_text().startswith("CPU ") and "| dsa, IPC 1, width 4 | reference | " in page.read_text()


def test_what_differs_or_comes_too_late_is_said_and_the_rest_is_timed(rows, monkeypatch, capsys):
    monkeypatch.setattr(gradient_matching, "TOLERANCE", 1e-30)
    words = "--ipc 1 --width 4 --method dsa"
    assert rows((gradient_matching, "", words), (experts, "", "--quick --optimizer sgd"))[0]["benchmark"].startswith(
        "exp"
    )
    assert "gradient_matching: not timed: {'distance'" in capsys.readouterr().out
    rows((gradient_matching, "", words), more=["--seconds", "-1"])
    assert "gradient_matching: left out, no time is left" in capsys.readouterr().out
