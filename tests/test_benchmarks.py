"""The references that benchmarks time agree with what they are compared with."""

import pytest

from benchmarks import attention_matching, experts, trajectory_matching


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_attention_matching_computes_what_its_reference_does(norm, capsys):
    attention_matching.compare(norm, 2, 4, ["float32"])
    assert "float64: loss differs by" in capsys.readouterr().out


def test_a_side_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setitem(attention_matching.TOLERANCE, "gradient", 1e-30)
    with pytest.raises(SystemExit, match=r"off the reference in float64; no ratio is worth printing"):
        attention_matching.compare("instance", 1, 4, ["float32"])


@pytest.mark.parametrize("optimizer", ["sgd", "gsam"])
def test_experts_take_the_steps_of_their_reference(optimizer, capsys):
    experts.main(["--quick", "--optimizer", optimizer])
    printed = capsys.readouterr().out
    assert "float32, at once: loss differs by" in printed and "reference" in printed


def test_experts_that_take_other_steps_are_not_timed(monkeypatch):
    monkeypatch.setitem(experts.TOLERANCE, "float32", 1e-30)
    with pytest.raises(AssertionError, match="float32"):
        experts.main(["--quick"])


def test_trajectory_matching_computes_what_its_references_do(capsys):
    trajectory_matching.compare(3, 4, 4, ["eager"])
    told = capsys.readouterr().out
    assert "float64: ours off its reference by" in told and "float32: ours" in told


def test_a_trajectory_that_matches_something_else_is_not_timed(monkeypatch):
    monkeypatch.setitem(trajectory_matching.TOLERANCE, "float64", 1e-30)
    with pytest.raises(SystemExit, match=r"off the references in float64; no ratio is worth printing"):
        trajectory_matching.compare(1, 2, 4, ["eager"])
