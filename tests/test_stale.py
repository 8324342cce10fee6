"""What is older than its code or its parameters is found, with the reason, and what is not is left alone."""

import dataclasses
import json

import pytest
import test_rows
from test_reproduce import notebook

from ddlib import methods, report, results, study
from ddlib.batch import cli
from ddlib.report import stale
from ddlib.store import codeprint
from ddlib.study import notebooks, parameters

PARAMETERS = test_rows.CHOSEN | {
    "methods": {"Random": {"method": "random"}, "DM": {"method": "dm", "iterations": 2}},
    "evaluation": {"num_networks": 1, "epochs": 2},
}
COMMIT = "0123456789abcdef"
LOOP = "ddlib.store.loop"
CODE = {}
"""Method -> the fingerprint that its code had when records were made; where none is given, that of now."""


def assigned(parameters):
    """The source of a parameters cell."""
    return "\n".join(f"{name} = {value!r}" for name, value in parameters.items())


def ask(repository, **changed):
    """Write the notebook with these parameters."""
    cells = 'cells = study.cells(settings, paper="atom", table="main")'
    notebook(repository, "atom/accuracy", cells, parameters=assigned(PARAMETERS | changed))


def record(cell):
    """What a run of the cell by the code of now would leave."""
    made = {"commit": COMMIT, "dirty": False, "date": "2026-11-20"}
    provenance = made | {"code": codeprint.fingerprint(codeprint.EVALUATION), "parameters": cell.parameters}
    code = CODE.get(cell.method.name) or codeprint.fingerprint(codeprint.distillation(type(cell.method)))
    fields = {"label": cell.label, "method": cell.method.name, "dataset": cell.dataset, "ipc": cell.ipc}
    fields |= {"cell": cell.settings(), "provenance": provenance | {"distilled": made | {"code": code}}}
    return results.Record(accuracies=(50.0, 51.0), **fields)


def current(name="atom/accuracy", profile="quick"):
    """Records of a notebook's cells as they are now."""
    return [record(cell) for cell in notebooks.cells(name, profile)]


def keep(repository, records, slug="atom/accuracy.quick"):
    """Write records and a figure drawn from them."""
    results.write(records, repository / f"results/{slug}.json")
    provenance = results.provenance(records)
    report.save(report.accuracy_bars(records), f"{slug}.bars", provenance=provenance, folder=repository / "figures")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository in a temporary folder with one notebook, its results and its figure, all up to date; no git."""
    for folder in ("notebooks/atom", "params/atom"):
        (tmp_path / folder).mkdir(parents=True)
    for module, name in ((notebooks, "ROOT"), (stale, "OUTPUT")):
        monkeypatch.setattr(module, name, tmp_path)
    monkeypatch.setattr(codeprint, "sources_at", lambda commit: None)
    ask(tmp_path)
    keep(tmp_path, current())
    return tmp_path


def stale_files():
    """Every file that is stale, with the reasons."""
    return {path: why for path, why in stale.reasons().items() if why}


def reasons(name="results/atom/accuracy.quick.json"):
    """Why one file is stale."""
    return stale.reasons()[name]


def rewrite(repository, change):
    """Change every record as its JSON, and keep them with their figure."""
    path = repository / "results/atom/accuracy.quick.json"
    content = json.loads(path.read_text())
    for entry in content:
        change(entry)
    keep(repository, [results.Record.from_json(entry) for entry in content])


def of_dm(change):
    """A change to DM's record alone."""
    return lambda entry: change(entry) if entry["method"] == "dm" else None


def test_what_is_up_to_date_is_left_alone(repository, capsys):
    assert cli.main(["report", "stale"]) == 0
    assert capsys.readouterr().out == "0 of 3 results and figures are stale\n"


def test_the_products_of_a_notebooks_further_parameter_files_are_looked_at(repository):
    (repository / "params/atom/accuracy.other.hour.yaml").write_text("profile: other.hour\nipcs: [2]\n")
    records = current("atom/accuracy.other", "hour")
    assert {record.ipc for record in records} == {2}
    keep(repository, records, "atom/accuracy.other.hour")
    assert stale_files() == {}
    (repository / "params/atom/accuracy.other.hour.yaml").write_text("profile: other.hour\nipcs: [1]\n")
    figures = {f"figures/atom/accuracy.other.hour.bars.{ending}" for ending in ("png", "svg")}
    assert stale_files().keys() == {"results/atom/accuracy.other.hour.json", *figures}


def measured():
    """The provenance of what the code of now measures."""
    return {"commit": COMMIT, "dirty": False, "code": codeprint.fingerprint((LOOP,))}


OTHER_CODE = [
    ({"code": "0" * 16}, "code changed since 0123456"),
    ({"code": None}, "says nothing of its code"),
    ({"dirty": True}, "made from a modified tree"),
]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, None),
        *OTHER_CODE,
        ({"parameters": None}, "says nothing of its parameters"),
        ({"parameters": "0" * 16}, "parameters changed since: 0000000000000000 then, "),
    ],
)
def test_measurements_left_behind_are_found_with_their_figure(repository, changed, reason):
    chosen = {name: value for name, value in PARAMETERS.items() if name in ("profile", "dataset", "device")}
    notebook(repository, "atom/cost", parameters=assigned(chosen))
    settings = parameters.settings(notebooks.parameters("atom/cost", "quick"))
    provenance = measured() | {"parameters": study.fingerprint(settings)}
    kept = results.Measurements({"rows": [{"N": 1}]}, (LOOP,), provenance | changed)
    results.write_measurements(kept, repository / "results/atom/cost.quick.json")
    report.save(report.accuracy_bars([]), "atom/cost.quick.lines", provenance=provenance, folder=repository / "figures")
    if reason is None:
        assert stale_files() == {}
    else:
        (why,) = reasons("results/atom/cost.quick.json")
        assert why.startswith(reason)
        drawn = "drawn from other results than results/atom/cost.quick.json holds now"
        assert reasons("figures/atom/cost.quick.lines.png") == [drawn]


@pytest.mark.parametrize(("changed", "reason"), [({}, None), *OTHER_CODE])
def test_a_figure_of_what_is_kept_nowhere_else_is_judged_by_its_own_code(repository, changed, reason):
    provenance = measured() | {"modules": [LOOP]} | changed
    figure = report.accuracy_bars([])
    report.save(figure, "atom/accuracy.quick.own", provenance=provenance, folder=repository / "figures")
    assert reasons("figures/atom/accuracy.quick.own.png") == ([] if reason is None else [reason])


def test_changed_parameters_are_found_but_not_where_and_how_far_it_was_computed(repository):
    (then,) = {record.provenance["parameters"] for record in current()}
    ask(repository, device="cuda:1", budget_hours=2.0)
    assert stale_files() == {}
    ask(repository, evaluation={"epochs": 3})
    (now,) = {record.provenance["parameters"] for record in current()}
    assert reasons() == [f"parameters changed since: {then} then, {now} now"] and then != now
    ask(repository, dataset="cifar11")
    (reason,) = reasons()
    assert "parameters are refused now: unknown dataset 'cifar11'" in reason


CHANGED_RECORDS = {
    "says nothing of its parameters": lambda e: e["provenance"].pop("parameters"),
    "says nothing of its code": lambda e: e["provenance"].pop("code"),
    "says nothing of its code ": of_dm(lambda e: e["provenance"].pop("distilled")),
    "code changed since 0123456": lambda e: e["provenance"].update(code="another"),
    "code changed since 0123456 ": of_dm(lambda e: e["provenance"]["distilled"].update(code="x")),
    "code changed since 0123456, 89abcde": lambda e: e["provenance"].update(code=["x"], commit=[COMMIT, "89abcdef"]),
    "code changed": lambda e: e["provenance"].update(code="another", commit=None),
    "the images of digits were others": lambda e: e["provenance"].update(data="0" * 64),
    "made from a modified tree": of_dm(lambda e: e["provenance"]["distilled"].update(dirty=True)),
}


@pytest.mark.parametrize("reason", CHANGED_RECORDS)
def test_what_the_records_say_of_themselves_is_compared(repository, reason):
    rewrite(repository, CHANGED_RECORDS[reason])
    assert reasons() == [reason.strip()]
    stale_too = "its results, results/atom/accuracy.quick.json, are stale"
    assert reasons("figures/atom/accuracy.quick.bars.svg") == [stale_too]


def test_a_method_that_is_gone_and_a_figure_that_says_nothing_are_named(repository):
    rewrite(repository, of_dm(lambda e: e.update(method="dm2")))
    assert "there is no method dm2 any more" in reasons()
    (repository / "figures/atom/accuracy.quick.bars.svg").write_text("<svg/>")
    (reason,) = reasons("figures/atom/accuracy.quick.bars.svg")
    assert reason.endswith("accuracy.quick.bars.svg carries no provenance")


def test_a_cell_that_was_not_run_rests_on_no_code(repository):
    cells = notebooks.cells("atom/accuracy", "quick")
    left_out = dataclasses.replace(record(cells[1]), accuracies=(), provenance={"parameters": cells[1].parameters})
    keep(repository, [record(cells[0]), left_out])
    assert stale_files() == {}


@pytest.fixture
def history(monkeypatch):
    """A git that knows one commit, at which the objectives and a comment were others."""
    before = dict(codeprint.LOADED)
    before["ddlib/methods/objectives.py"] += b"\nclass_means = 1\n"
    before["ddlib/seeding.py"] += b"\n# a comment\n"
    monkeypatch.setattr(codeprint, "sources_at", {COMMIT: before}.get)
    monkeypatch.setitem(CODE, "dm", codeprint.fingerprint(codeprint.distillation(methods.find("dm")), before))


def test_the_changed_files_are_named_where_git_knows_them(repository, history):
    expected = ["code changed since 0123456: ddlib/methods/objectives.py"]
    keep(repository, current())
    assert reasons() == expected
    rewrite(repository, lambda e: (e["provenance"].pop("code"), e["provenance"]["distilled"].pop("code")))
    assert reasons() == expected  # a clean commit speaks for records that do not name their code


def test_a_modified_tree_speaks_for_nothing(repository, history):
    rewrite(repository, lambda e: e["provenance"].update(dirty=True))
    rewrite(repository, lambda e: e["provenance"].pop("code"))
    assert reasons() == ["made from a modified tree", "says nothing of its code"]


def test_results_renewed_after_their_figure_are_found(repository):
    path = repository / "results/atom/accuracy.quick.json"
    path.write_text(path.read_text().replace("2026-11-20", "2026-11-21"))
    reason = "drawn from other results than results/atom/accuracy.quick.json holds now"
    assert stale_files() == {f"figures/atom/accuracy.quick.bars.{kind}": [reason] for kind in ("png", "svg")}


def test_files_without_a_source_are_named(repository, capsys):
    (repository / "results/atom/accuracy.quick.json").rename(repository / "results/atom/accuracy.hour.json")
    results.write([], repository / "results/atom/cost.quick.json")
    (repository / "results/atom/broken.quick.json").write_text("[{")
    (repository / "figures/atom/accuracy.quick.bars.svg").write_text("<svg/>")
    assert cli.main(["report", "stale"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "results/atom/accuracy.hour.json: atom/accuracy has no parameters for profile 'hour' any more"
    assert out[1].startswith("results/atom/broken.quick.json: cannot be read: ") and "is not whole" in out[1]
    assert out[2] == "results/atom/cost.quick.json: there is no notebook atom/cost any more"
    gone = "its results, results/atom/accuracy.quick.json, are gone"
    assert out[3:5] == [f"figures/atom/accuracy.quick.bars.{kind}: {gone}" for kind in ("png", "svg")]
    assert out[5] == "5 of 5 results and figures are stale"
