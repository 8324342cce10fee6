"""The references that benchmarks time agree with what they are compared with."""

import pytest

from benchmarks import attention_matching


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_attention_matching_computes_what_its_reference_does(norm, capsys):
    attention_matching.compare(norm, 2, 4, ["float32"])
    assert "float64: loss differs by" in capsys.readouterr().out


def test_a_side_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setitem(attention_matching.TOLERANCE, "gradient", 1e-30)
    with pytest.raises(SystemExit, match=r"off the reference in float64; no ratio is worth printing"):
        attention_matching.compare("instance", 1, 4, ["float32"])
