"""Rows that are like those of another notebook."""

from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ddlib import study
from ddlib.study import notebooks, rows

SOURCE = {
    "Random": {"method": "random"},
    "DM": {"method": "dm", "iterations": 7, "seeds": [0], "evaluation": {"lr": 0.5}, "reported": False},
    "Shorter": {"like": "DM", "iterations": 3, "by_ipc": {10: {"iterations": 4}, 50: {"iterations": 5}}},
    "Large": {"like": "DM", "ipcs": [50]},
}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A repository with one notebook `p/source`, and its file for the profile `hour`."""
    for folder in ("notebooks/p", "params/p"):
        (tmp_path / folder).mkdir(parents=True)
    told = new_code_cell(f'profile = "quick"\nmethods = {SOURCE!r}', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[new_markdown_cell("# t"), told]), tmp_path / "notebooks/p/source.ipynb")
    hour = {"methods": {"DM": {"method": "dm", "iterations": 70}}}
    (tmp_path / "params/p/source.hour.yaml").write_text(yaml.safe_dump(hour))
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    return tmp_path


def chosen(methods, **changed):
    common = {"profile": "quick", "dataset": "digits", "reference_dataset": "cifar10", "ipcs": (1, 10), "seeds": (0, 1)}
    common |= {"network": {"width": 8, "depth": 2}, "evaluation": {"epochs": 1}}
    return SimpleNamespace(**common, methods=methods, **{"precision": "float32", "compiled": False}, **changed)


def cells(methods, **changed):
    told = chosen(methods)
    vars(told).update(changed)
    return study.cells(told, paper="atom", table="main")


def test_a_row_is_that_of_another_notebook_with_the_seeds_and_the_evaluation_of_this_one(house):
    ours, spelt_out = (cells({"DM": row}) for row in ({"like": "p/source"}, {"method": "dm", "iterations": 7}))
    assert [cell.settings() for cell in ours] == [cell.settings() for cell in spelt_out]
    assert all(cell.reported and cell.seeds == (0, 1) and cell.protocol.lr == 0.01 for cell in ours)


def test_its_own_settings_come_first_and_what_differs_by_number_comes_along(house):
    found = {cell.ipc: cell.method.iterations for cell in cells({"Shorter": {"like": "p/source"}})}
    assert found == {1: 3, 10: 4}  # and not 50, which is not here
    (one, ten) = cells({"DM": {"like": "p/source", "batch_real": 9}})
    assert one.method.batch_real == 9 and one.method.iterations == 7


def test_all_rows_of_a_notebook_come_where_they_stand_here(house):
    found = cells({"*": {"like": "p/source"}, "More": {"like": "DM", "iterations": 9}})
    assert [cell.label for cell in found[:4]] == ["Random", "DM", "Shorter", "More"]  # "Large" has no number in common
    assert "Large" in {cell.label for cell in cells({"*": {"like": "p/source"}}, ipcs=(50,))}


def test_the_rows_are_those_of_the_same_profile(house):
    assert cells({"DM": {"like": "p/source"}}, profile="hour")[0].method.iterations == 70


def test_the_name_of_the_parameters_follows_the_rows_elsewhere(house):
    before = study.fingerprint(chosen({"DM": {"like": "p/source"}}))
    path = house / "notebooks/p/source.ipynb"
    path.write_text(path.read_text().replace("'iterations': 7", "'iterations': 8"))
    assert study.fingerprint(chosen({"DM": {"like": "p/source"}})) != before


@pytest.mark.parametrize(
    ("methods", "profile", "match"),
    [
        ({"MTT": {"like": "p/source"}}, "quick", "is like 'p/source', which has no such row; it has Random, DM"),
        ({"DM": {"like": "p/nothing"}}, "quick", "no rows of 'p/nothing' .* there is no notebooks/p/nothing.ipynb"),
        ({"DM": {"like": "p/source"}}, "paper", "there is no params/p/source.paper.yaml"),
        ({"DM": {"like": "p/../p/source"}}, "quick", "there is no"),
        ({"*": {"like": "p/source", "iterations": 3}}, "quick", r"methods\['\*'\] is like 'p/source'"),
    ],
)
def test_rows_that_are_nowhere_are_refused(house, methods, profile, match):
    with pytest.raises(ValueError, match=match):
        cells(methods, profile=profile)


def test_a_file_without_rows_is_refused(house):
    (house / "params/p/source.hour.yaml").write_text("profile: hour\n")
    with pytest.raises(ValueError, match="source.hour.yaml has no methods"):
        rows.rows_at("p/source", "hour")


def test_the_tour_and_the_leaderboard_distil_what_the_papers_notebooks_do():
    """So that either finds the work of the others; matching has the same width in all of them."""

    def distilled(name, label):
        found = [cell for cell in notebooks.cells(name, "quick") if (cell.label, cell.ipc) == (label, 1)]
        return found[0].settings(deployed=False) | {"protocol": None, "tested_on": None}

    for label, name in {"DATM": "datm", "DiM": "dim", "GAN": "dim", "GLaD, DM": "ld3m", "LD3M, DM": "ld3m"}.items():
        there = distilled(f"{name}/accuracy", label)
        assert distilled("compare/tour", label) == there
        assert distilled("compare/leaderboard", label) == there
