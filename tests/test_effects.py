"""Effects of single choices, against differences written out; rows of a grid; figures of both."""

import pytest
from refusals import refuses
from test_rows import cells

from ddlib import results
from ddlib.results import Record
from ddlib.study import notebooks
from ddlib.study.rows import crossed


def record(label, accuracies, seeds=(0, 1, 2)):
    cell = {"seeds": list(seeds)}
    return Record(label=label, method="atom", dataset="digits", ipc=5, cell=cell, accuracies=tuple(accuracies))


GRID = [
    record("DM, IN", (60, 62, 70, 72, 50, 52)),
    record("ATOM, IN", (61, 65, 73, 75, 51, 53)),  # by seed: +2, +3, +1
    record("DM, BN", (55, 57, 65, 67, 45, 47)),  # -5 for every seed
    record("ATOM, BN", (61, 63, 71, 73, 51, 53)),  # +6 over DM, BN
    record("ATOM, GN", (90, 90, 90, 90, 90, 90)),  # without a DM: tells of the norm alone
]


def effects(records, factors=("loss", "norm"), **options):
    """The effects, by what they are called."""
    return {row["effect"]: row for _, row in results.main_effects(records, factors, **options).iterrows()}


def test_an_effect_is_the_mean_over_pairs_that_differ_in_one_choice():
    found = effects(GRID)
    atom, bn, gn = (found[name] for name in ("ATOM for DM", "BN for IN", "GN for IN"))
    assert [*found] == ["ATOM for DM", "BN for IN", "GN for IN"]
    assert (atom.factor, atom.pairs, bn.factor, bn.pairs, gn.pairs) == ("loss", 2, "norm", 2, 1)
    assert atom.difference == pytest.approx((2 + 6) / 2)
    assert (atom["least pair"], atom.most) == (pytest.approx(2), pytest.approx(6))
    assert bn.difference == pytest.approx((-5 + (-1 - 2 + 0) / 3) / 2) and gn["least pair"] == gn.most


def test_its_interval_is_that_of_the_seeds_alone():
    atom = effects(GRID)["ATOM for DM"]
    half = 4.302653 * 0.5 / 3**0.5  # by seed 4, 4.5 and 3.5: deviation 0.5, and Student's t of two degrees of freedom
    assert (atom.low, atom.high) == (pytest.approx(4 - half, abs=1e-4), pytest.approx(4 + half, abs=1e-4))
    apart = [record("DM", (10, 10, 50, 50, 90, 90)), record("ATOM", (11, 11, 51, 51, 91, 91))]
    paired = effects(apart, ("loss",))["ATOM for DM"]
    assert paired.low == paired.high == pytest.approx(1)  # what the seeds have in common does not blur it


REAL = [
    record("Real, IN", (50, 50, 60, 60, 40, 40)),
    record("Real, BN", (20, 22, 30, 32, 10, 12)),  # -29 for every seed
]


def test_real_images_tell_of_distilled_ones_nothing_and_have_lines_of_their_own():
    alone, found = effects(GRID), effects([*GRID, *REAL], apart="Real")
    assert [*found] == ["ATOM for DM", "Real for DM", "BN for IN", "GN for IN", "BN for IN, Real"]
    assert all(found[name].equals(effect) for name, effect in alone.items())  # else BN would seem to cost far more
    assert found["Real for DM"].pairs == 2 and found["BN for IN, Real"].pairs == 1
    assert found["BN for IN, Real"].difference == pytest.approx(-29)


@pytest.mark.parametrize("profile", ["quick", "hour", "paper"])
def test_the_control_of_the_components_is_trained_on_as_they_are(profile):
    """Otherwise what parts are worth over random images would be what their norm and their whitening are worth."""
    own = [cell for cell in notebooks.cells("atom/components", profile) if ", " not in cell.label]
    assert {"Random", "ATOM", "features"} <= {cell.label for cell in own}
    assert len({(cell.whitened, str(cell.protocol.settings())) for cell in own}) == 1


def test_what_was_not_run_is_left_out_and_nothing_is_nothing():
    some = [*GRID[:3], record("ATOM, BN", ())]
    assert {name: e.pairs for name, e in effects(some).items()} == {"ATOM for DM": 1, "BN for IN": 1}
    assert results.main_effects([], ("loss", "norm")).empty


test_records_that_are_no_grid_are_refused = refuses(
    lambda records: results.main_effects(records, ("loss", "norm")),
    [
        ([record("ATOM", (1, 2, 3))], "label 'ATOM' has 1 parts; allowed: one level of each of loss, norm"),
        (GRID[:1] * 2, "label 'DM, IN' stands twice; allowed: one level"),
        ([GRID[0], record("DM, BN", (1, 2), (0, 1))], "different seeds or numbers of networks"),
        ([GRID[0], record("DM, BN", (1, 2, 3))], "different seeds or numbers of networks"),
        ([record("DM, IN", (1, 2, 3, 4, 5)), record("ATOM, IN", (1, 2, 3, 4, 5))], "5 accuracies of 3 seeds; allowed"),
    ],
)


FACTORS = {
    "norm": {"IN": {"norm": "instance"}, "BN": {"norm": "batch"}},
    "init": {"random": {}, "herding": {"init": "h"}},
}


def test_a_grid_is_every_combination_and_later_factors_lie_over_earlier_ones():
    assert crossed(FACTORS) == {
        "IN, random": {"norm": "instance"},
        "IN, herding": {"norm": "instance", "init": "h"},
        "BN, random": {"norm": "batch"},
        "BN, herding": {"norm": "batch", "init": "h"},
    }
    assert crossed({"a": {"x": {"v": 1}}, "b": {"y": {"v": 2}}}) == {"x, y": {"v": 2}}
    assert crossed({}) == {}


test_what_is_no_factor_is_refused = refuses(
    lambda **factors: crossed(factors),
    [
        ({"norm": {}}, r"factors\['norm'\]={}; it must not be empty"),
        ({"norm": {"IN": "instance"}}, "level 'IN' of 'norm'='instance' is str; it must be dict"),
        ({"norm": {"IN, BN": {}}}, "level 'IN, BN' of 'norm'; it must be a text without ', '"),
        ({"norm": {1: {}}}, r"factors\['norm'\] has 1 for a name; it must be a text"),
    ],
)


GRID_OF = {
    "loss": {"DM": {"like": "ATOM", "w_spatial": 0.0, "w_channel": 0.0}, "all": {"like": "ATOM"}},
    "norm": FACTORS["norm"],
}
ATOM = {"ATOM": {"method": "atom"}}


def test_the_rows_of_a_grid_follow_the_others_and_none_is_said_twice():
    found = {cell.label: cell for cell in cells(methods=ATOM, factors=GRID_OF)}
    assert [*found] == ["ATOM", "DM, IN", "DM, BN", "all, IN", "all, BN"]
    assert found["DM, IN"].method.w_channel == 0 and found["DM, IN"].method.norm == "instance"
    assert found["all, BN"].settings() == found["ATOM"].settings()  # computed once
    with pytest.raises(ValueError, match=r"methods\['DM, IN'\] stands in the grid of factors too; say it once"):
        cells(methods=ATOM | {"DM, IN": {"method": "dm"}}, factors=GRID_OF)
