"""What `settings` lets through and what it refuses, with the words a user reads."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from refusals import refuses

from ddlib.methods.contract import fill
from ddlib.study.parameters import literals, settings

GOOD = {"profile": "quick", "dataset": "digits", "ipcs": [1, 10], "seeds": [0, 1], "budget_hours": None}
CELL = "profile = 'quick'\nipcs = [1, 10]  # images per class"
CALL = "from ddlib import study\nsettings = study.settings(globals())"


def notebook(*sources, **values):
    """A namespace as IPython leaves it after the cells `sources`."""
    return {"In": ["", *sources], "profile": "quick", "ipcs": [1, 10], **values}


def test_good_parameters_pass():
    chosen = settings(GOOD)
    assert chosen.ipcs == (1, 10) and chosen.budget_hours is None and chosen.dataset == "digits"
    chosen = settings(GOOD | {"profile": "cifar100.paper", "budget_hours": 2})
    assert chosen.profile == "cifar100.paper" and isinstance(chosen.budget_hours, float)
    no_history = {"In": [""], "profile": "quick", "records": []}  # as nbval's kernel has
    assert vars(settings(no_history)) == {"profile": "quick"}


@pytest.mark.parametrize(("gpu", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, gpu, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert settings(GOOD | {"device": "auto"}).device == expected
    assert settings(GOOD | {"device": "cuda:1"}).device == "cuda:1"  # a device that is named stays


test_bad_parameters_are_refused = refuses(
    lambda **changed: settings(GOOD | changed),
    [
        ({"seed": [1]}, r"unknown parameter 'seed' \(did you mean 'seeds'\?\)"),
        ({"ipcs": [0]}, r"ipcs=0; it must be >= 1"),
        ({"ipcs": []}, r"ipcs=\[\]; it must be a non-empty list of int"),
        ({"ipcs": [1, 1]}, r"every entry may stand in it once"),
        ({"ipcs": [1.5]}, r"ipcs=1.5; it must be an integer"),
        ({"budget_hours": "1e-3"}, r"budget_hours='1e-3' is text, not a number; in YAML write 1.0e-3"),
        ({"budget_hours": -1.0}, r"budget_hours=-1.0; it must be >= 0"),
        ({"budget_hours": True}, r"budget_hours=True is bool"),
        ({"budget_hours": float("nan")}, r"budget_hours=nan; it must be finite"),
        ({"methods": {}}, r"methods=\{\}; it must not be empty"),
        ({"profile": "fast"}, r"profile='fast'; it must be one of quick, hour, paper"),
        (
            {"profile": "cifar100.fast"},
            r"'cifar100.fast'; .* paper, where a name and a dot may stand before it",
        ),
        ({"profile": "../cifar100.paper"}, r"profile='../cifar100.paper'; it must be one of"),
        ({"dataset": False}, r"dataset=False is bool; it must be str"),
    ],
)


@pytest.mark.parametrize(
    ("sources", "values", "ipcs"),
    [
        ([CELL, CALL], {"later": "not a parameter"}, (1, 10)),
        ([CELL, "# Parameters\nipcs = [1]\n", CALL], {"ipcs": [1]}, (1,)),  # injected
        ([CELL, "x = 3", CALL], {"x": 3}, (1, 10)),  # a scratch cell is no parameters cell
        ([CELL, CALL, "records = compute()", CALL], {"records": []}, (1, 10)),  # the third cell alone, once more
        ([CELL, CALL, "records = run()", "ipcs = [5]", CALL], {"ipcs": [5]}, (5,)),  # changed in a cell of its own
        ([CELL, CALL, "seed = [7]", CALL], {"seed": [7]}, (1, 10)),  # a reader's own business
        ([CELL + "\nipc = [0]", CALL, CELL, CALL], {"ipc": [0]}, (1, 10)),  # misspelt, and then mended
    ],
)
def test_a_notebook_declares_its_parameters_in_cells_of_literals(sources, values, ipcs):
    assert vars(settings(notebook(*sources, **values))) == {"profile": "quick", "ipcs": ipcs}


NOT_LITERAL = "import os\nprofile = 'quick'\nseeds: list[int] = list(range(2))\nlr = print('read')"


@pytest.mark.parametrize(
    ("sources", "values", "expected"),
    [
        ([NOT_LITERAL.replace("\nlr", "\nrepeats"), CALL], {"seeds": [0, 1], "repeats": 3}, {"seeds": (0, 1)}),
        ([CELL + "\n" + CALL], {"seeds": [7]}, {"ipcs": (1, 10)}),  # parameters and call in one cell
        ([CELL, "%matplotlib inline", "profile = 'hour'", CALL], {"profile": "hour"}, {"profile": "hour"}),
        (["from parameters import *", CALL], {"seeds": [3], "os": pytest}, {"seeds": (3,), "ipcs": (1, 10)}),
    ],
)
def test_a_parameters_cell_may_compute(sources, values, expected):
    chosen = vars(settings(notebook(*sources, **values)))
    assert chosen.items() >= expected.items() and ("seeds" in chosen) == ("seeds" in expected)


def test_what_is_no_literal_is_named_with_its_line_where_the_notebook_is_only_read():
    assert literals("import os\nipcs: list[int] = [1]  # images") == {"ipcs": [1]}
    with pytest.raises(ValueError, match=r"line 3, `seeds: .* = list\(range\(2\)\)`, assigns no literal, and is known"):
        literals(NOT_LITERAL)
    with pytest.raises(ValueError, match=r"line 2, `a = b = 1`, assigns no literal"):
        literals("x = 1\na = b = 1")
    with pytest.raises(ValueError, match=r"line 2 is no plain Python: invalid syntax"):
        literals("x = 1\n%matplotlib inline")


SEEDED, INJECTED = CELL + "\nseeds = [0]", "# Parameters\n"


@pytest.mark.parametrize(
    ("sources", "values", "match"),
    [
        ([CELL, INJECTED + "ipc = [1]", CALL], {"ipc": [1]}, r"'ipc' \(did you mean 'ipcs'\?\); known: ipcs, profile$"),
        ([CELL, INJECTED + "seeds = [1]", CALL], {"seeds": [1]}, "'seeds'"),
        ([CELL + "\nsedes = [0]", CALL], {"sedes": [0]}, r"'sedes' \(did you mean 'seeds'\?\)"),
        ([CELL, "draws = 3", CALL], {"draws": 3}, "'draws'; known: ipcs, profile"),  # another notebook's
        *(
            (
                [SEEDED, written, CALL],
                {"seeds": [0], "seed": [7]},
                r"'seed' \(did you mean 'seeds'\?\); known: ipcs, pro",
            )
            for written in ("seed = [7]", "seed = list(range(7))", "print(3)\nseed: list = [7]")
        ),
    ],
)
def test_a_name_that_the_notebook_does_not_declare_is_refused(sources, values, match):
    with pytest.raises(ValueError, match=f"unknown parameter {match}"):
        settings(notebook(*sources, **values))


def test_a_script_runs():
    script = {"__name__": "__main__", "__file__": "accuracy.py", "results": pytest, "step": print, **GOOD}
    assert vars(settings(script)) == vars(settings(GOOD))
    with pytest.raises(ValueError, match=r"unknown parameter 'seed' \(did you mean 'seeds'\?\)"):
        settings(script | {"seed": [7]})


def test_numbers_and_arrays_of_numpy_are_pythons_own():
    rows = {"DM": {"method": "dm", "lr_images": np.float64(0.5), "by_ipc": {np.int64(1): {"iterations": np.int64(3)}}}}
    chosen = settings(
        GOOD | {"seeds": np.arange(2), "repeats": np.int64(3), "powers": [np.float32(0.5)], "methods": rows}
    )
    assert (chosen.seeds, chosen.repeats, chosen.powers) == ((0, 1), 3, (0.5,))
    plain = {"DM": {"method": "dm", "lr_images": 0.5, "by_ipc": {1: {"iterations": 3}}}}
    assert json.dumps(chosen.methods) == json.dumps(plain)
    assert fill(Recipe, "the recipe", {"lr": np.float32(0.5), "epochs": np.int64(3)}) == Recipe(lr=0.5, epochs=3)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    lr: float = 0.1
    epochs: int | None = None
    name: str = "x"
    deep: bool = False


def test_fill_takes_whole_numbers_for_others_and_none_where_it_may_stand():
    assert fill(Recipe, "the recipe", {"lr": 1, "epochs": None}) == Recipe(lr=1.0)


test_fill_refuses = refuses(
    lambda **values: fill(Recipe, "the recipe", values),
    [
        ({"lrr": 1.0}, r"unknown setting 'lrr' of the recipe \(did you mean 'lr'\?\); known: lr, epochs, name, deep"),
        ({"lr": "1e-3"}, r"lr of the recipe='1e-3' is text, not a number"),
        ({"epochs": np.float64(3.0)}, r"epochs of the recipe=np.float64\(3.0\); it must be an integer"),
        ({"name": 3}, r"name of the recipe=3 is int; it must be str"),
        ({"deep": 1}, r"deep of the recipe=1 is int; it must be bool"),
    ],
)
