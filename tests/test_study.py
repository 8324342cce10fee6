"""From parameters to cells to records, on a small real set, with the store in a temporary folder."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from papermill.translators import PythonTranslator

from ddlib import methods, report, results, study
from ddlib.data import datasets, synthetic
from ddlib.store import artefacts, codeprint, files, locks
from ddlib.study import planning, work
from ddlib.study.parameters import settings

CHOSEN = {
    "profile": "quick",
    "dataset": "digits",
    "reference_dataset": "cifar10",
    "ipcs": [1],
    "seeds": [0, 1],
    "methods": {
        "Random": {"method": "random"},
        "Herding": {"method": "herding", "epochs": 1},
        "ATOM": {"method": "atom", "iterations": 2, "batch_real": 4, "norm": "instance"},
    },
    "network": {"width": 8, "depth": 2},
    "evaluation": {"num_networks": 2, "epochs": 2},
    "device": "cpu",
    "precision": "float32",
    "compiled": False,
    "budget_hours": None,
}


def cells(**changed):
    """The cells of the parameters above, changed."""
    return study.cells(settings(CHOSEN | changed), paper="atom", table="main")


@pytest.fixture
def workplace(tmp_path):
    """A store of its own."""
    return study.Workplace("cpu", folder=tmp_path / "runs", progress="none")


def test_cells_are_the_rows_at_each_number_of_images():
    found = cells(ipcs=[1, 10])
    assert [(cell.label, cell.ipc) for cell in found] == [
        ("Random", 1), ("Herding", 1), ("ATOM", 1), ("Random", 10), ("Herding", 10), ("ATOM", 10),
    ]  # fmt: skip
    atom = found[2]
    assert (atom.method.width, atom.method.depth, atom.method.iterations) == (8, 2, 2)
    assert atom.protocol.options == {"norm": "instance", "width": 8, "depth": 2}
    assert atom.protocol.epochs == 2


def test_a_method_is_evaluated_with_the_norm_it_was_distilled_with():
    rows = {"ATOM": {"method": "atom"}, "DM": {"method": "dm"}, "Random": {"method": "random"}}
    assert [cell.protocol.options["norm"] for cell in cells(methods=rows)] == ["batch", "instance", "instance"]


def test_another_evaluation_network_keeps_its_own_options():
    evaluation = {"network": "mlp", "options": {"width": 16}}
    assert {str(cell.protocol.options) for cell in cells(evaluation=evaluation)} == {"{'width': 16}"}


NETWORKS = {"ConvNet": {"network": "convnet"}, "wide": {"network": "convnet", "norm": "batch", "width": 9},
            "MLP": {"network": "mlp", "width": 16}}  # fmt: skip


def test_a_row_has_a_cell_for_each_network_it_is_tested_on():
    rows = {"Random": {"method": "random"}, "DM": {"method": "dm"}}
    found = cells(methods=rows, evaluation={"epochs": 2, "networks": NETWORKS})
    assert [(cell.label, cell.tested_on) for cell in found] == [(r, n) for r in rows for n in NETWORKS]
    assert [str(cell) for cell in found[:2]] == [f"Random, digits, IPC 1, tested on {n}" for n in ("ConvNet", "wide")]
    plain, wide, mlp = (cell.protocol for cell in found[:3])
    assert (plain.network, plain.options) == ("convnet", {"norm": "instance", "width": 8, "depth": 2})
    assert (wide.network, wide.options) == ("convnet", {"norm": "batch", "width": 9, "depth": 2})
    assert (mlp.network, mlp.options, mlp.epochs) == ("mlp", {"width": 16}, 2)
    assert [cell.settings()["tested_on"] for cell in found[:3]] == list(NETWORKS)
    assert "tested_on" not in cells()[0].settings() and str(cells()[0]) == "Random, digits, IPC 1"


def test_an_evaluation_may_differ_by_network():
    told = {"networks": NETWORKS, "lr": 0.5, "by_network": {"MLP": {"lr": 0.1, "epochs": 7}}}
    rows = {
        "Random": {"method": "random"},
        "own": {"method": "random", "evaluation": {"lr": 0.2, "by_network": {"wide": {"lr": 0.3}}}},
        "sized": {"method": "random", "evaluation": {"by_ipc": {1: {"by_network": {"wide": {"lr": 0.4}}}}}},
    }
    found = {(cell.label, cell.tested_on): cell.protocol for cell in cells(methods=rows, evaluation=told)}
    assert [found["Random", name].lr for name in NETWORKS] == [0.5, 0.5, 0.1] and found["Random", "MLP"].epochs == 7
    assert [found["own", name].lr for name in NETWORKS] == [
        0.2,
        0.3,
        0.2,
    ]  # a row's setting goes before any of the notebook's
    assert [found["sized", name].lr for name in NETWORKS] == [0.5, 0.4, 0.1]
    assert all("by_network" not in protocol.settings() for protocol in found.values())


def test_what_a_methods_own_paper_says_of_a_network_is_no_deviation(monkeypatch):
    told = {"schedule": "warmup_cosine", "ema": 0.9, "lr": 0.5, "by_network": {"MLP": {"lr": 0.1}, "untested": {}}}
    monkeypatch.setattr(methods.find("dm"), "evaluation", told, raising=False)
    paper = {"dataset": "cifar10", "network": {}, "evaluation": {"networks": NETWORKS}}
    plain, wide, mlp = cells(**paper, methods={"DM": {"method": "dm"}})
    assert mlp.protocol.lr == 0.1 and mlp.protocol.ema == plain.protocol.ema == 0.9
    assert study.deviations(plain) == study.deviations(mlp) == []
    other = cells(**paper, methods={"DM": {"method": "dm", "evaluation": {"lr": 0.5}}})[-1]
    assert study.deviations(other) == ["evaluation lr 0.5 (default: 0.1)"]
    alone = cells(dataset="cifar10", network={}, evaluation={}, methods={"DM": {"method": "dm"}})[0]
    assert alone.protocol.lr == 0.5 and study.deviations(alone) == []


def test_an_average_that_the_paper_does_not_have_is_a_deviation():
    paper = {"dataset": "cifar10", "network": {}, "evaluation": {"schedule": "warmup_cosine", "ema": 0.9}}
    (found,) = cells(**paper, methods={"Random": {"method": "random"}})
    expected = ["evaluation schedule warmup_cosine (default: step)", "evaluation ema 0.9 (default: none)"]
    assert study.deviations(found) == expected


@pytest.mark.parametrize("own", [False, True], ids=["the evaluation", "evaluation of 'r'"])
@pytest.mark.parametrize(
    ("networks", "told", "match"),
    [
        (NETWORKS, {"vgg": {}}, "by_network of {} speaks of 'vgg'; allowed: ConvNet, wide, MLP"),
        (
            None,
            {"convnet": {"lr": 0.1}},
            "by_network of {} speaks of 'convnet'; allowed: none, for there are no networks",
        ),
        (NETWORKS, 3, "by_network of {}=3 is int; it must be dict"),
        (NETWORKS, {"MLP": 3}, "by_network of {} at MLP=3 is int; it must be dict"),
        (NETWORKS, {"MLP": {"options": {}}}, "by_network of {} at MLP says options; say that in networks"),
        (NETWORKS, {"MLP": {"lt": 1}}, "unknown setting 'lt' of the evaluation"),
        (NETWORKS, {"MLP": {"lr": "1e-4"}}, "lr of the evaluation='1e-4' is text, not a number"),
    ],
)
def test_what_is_no_setting_by_network_is_refused(networks, told, match, own):
    row, which = {"method": "random"}, {"networks": networks} if networks else {}
    told = {"by_network": told}
    rows = {"r": row | {"evaluation": told} if own else row}
    with pytest.raises(ValueError, match=match.format("evaluation of 'r'" if own else "the evaluation")):
        cells(methods=rows, evaluation=which if own else which | told)


def test_a_set_is_distilled_once_for_all_networks(workplace, monkeypatch):
    rows, told = {"Random": {"method": "random"}}, {"num_networks": 2, "epochs": 1}
    study.run(cells(methods=rows, evaluation=told), workplace)
    monkeypatch.setattr(artefacts.loop, "run", lambda *_, **__: pytest.fail("distilled again"))
    records = study.run(cells(methods=rows, evaluation=told | {"networks": NETWORKS}), workplace)
    assert [record.network for record in records] == list(NETWORKS) and all(record.n == 4 for record in records)
    with pytest.raises(ValueError, match=r"label='Random', ipc=1: 3 records; exactly one"):
        results.pick(records, "Random", 1)


def test_the_network_that_a_table_names_is_no_deviation_and_the_width_of_a_convnet_is():
    paper = {"dataset": "cifar10", "evaluation": {"networks": NETWORKS}, "methods": {"Random": {"method": "random"}}}
    wide = ["evaluation width 9 (default: by data)"]
    assert [study.deviations(cell) for cell in cells(**paper, network={})] == [[], wide, []]
    narrow = ["evaluation width 8 (default: by data)"]
    assert [study.deviations(cell) for cell in cells(**paper, network={"width": 8})] == [narrow, wide, []]


def test_a_record_stands_beside_what_the_paper_reports_for_its_network(workplace, monkeypatch):
    asked = []
    monkeypatch.setattr(results, "find", lambda _, **where: asked.append(where.get("network")))
    told = {"num_networks": 1, "epochs": 1}
    rows = {"Random": {"method": "random"}}
    study.run(cells(methods=rows, evaluation=told), workplace)
    study.run(cells(methods=rows, evaluation=told | {"networks": {"alexnet": {"network": "mlp"}}}), workplace)
    assert asked == [None, "alexnet"]


def test_a_row_may_have_an_evaluation_of_its_own():
    rows = {"Random": {"method": "random", "evaluation": {"batch_size": 128, "epochs": 7}}, "DM": {"method": "dm"}}
    random, dm = (cell.protocol for cell in cells(methods=rows))
    assert (random.batch_size, random.epochs, random.num_networks) == (128, 7, 2)
    assert (dm.batch_size, dm.epochs, dm.num_networks) == (256, 2, 2)


def test_the_evaluation_of_a_methods_own_paper_is_no_deviation(monkeypatch):
    monkeypatch.setattr(methods.find("dm"), "evaluation", {"batch_size": 128}, raising=False)
    paper = {"dataset": "cifar10", "network": {}, "evaluation": {}}
    rows = {"DM": {"method": "dm"}, "other": {"method": "dm", "evaluation": {"batch_size": 256}}}
    found = [study.deviations(cell) for cell in cells(**paper, methods=rows)]
    assert found == [[], ["evaluation batch_size 256 (default: 128)"]]


def test_the_whole_set_has_one_cell_whatever_the_numbers_of_images(workplace):
    rows = {"whole set": {"method": "whole", "seeds": [0]}, "Random": {"method": "random"}}
    found = cells(ipcs=[1, 2], methods=rows, evaluation={"num_networks": 1, "epochs": 1})
    assert [(cell.label, cell.ipc) for cell in found] == [("Random", 1), ("Random", 2), ("whole set", None)]
    whole = found[-1]
    assert str(whole) == "whole set, digits, all images" and study.deviations(whole)[0] == "digits instead of cifar10"
    assert "whole set  " in planning.table(study.plan([whole], workplace))
    (record,) = study.run([whole], workplace)
    images = len(datasets.load("digits", "train"))
    assert record.cost["images_shown"] == images and record.ipc is None
    assert results.pick([record], "whole set", None) is record
    assert "\nwhole set  all" in str(report.table([record]))


def test_what_is_whitened_is_so_as_its_paper_does_it_unless_told():
    few = {"experts": 1, "shard": 1}
    rows = {"DATM": {"method": "datm", **few}, "other": {"method": "datm", **few, "whitened": "normalised"}}
    rows |= {"Full set": {"method": "whole", "whitened": "pixels"}, "ATOM": {"method": "atom", "whitened": True}}
    found = {cell.label: cell for cell in cells(dataset="cifar10", methods=rows, ipcs=(10,))}
    assert {label: cell.whitened for label, cell in found.items()} == {
        "DATM": "pixels", "other": True, "Full set": "pixels", "ATOM": True,
    }  # fmt: skip
    assert not any("whiten" in phrase for phrase in study.deviations(found["DATM"]))
    assert "whitened after normalisation" in study.deviations(found["other"])
    assert found["DATM"].protocol.batch_size == 128  # as its paper, where nobody says otherwise


def test_a_row_that_the_paper_does_not_have_stands_beside_no_number():
    rows = {"Random": {"method": "random"}, "control": {"method": "random", "reported": False}}
    assert [cell.reported for cell in cells(methods=rows, ipcs=(1,))] == [True, False]


def test_a_cell_is_whitened_where_its_paper_does_it_unless_told():
    rows = {"ATOM": {"method": "atom"}, "DM": {"method": "dm"}, "raw": {"method": "atom", "whitened": False}}
    assert [cell.whitened for cell in cells(dataset="cifar10", methods=rows)] == [True, False, False]
    assert [cell.whitened for cell in cells(dataset="tiny_imagenet", methods=rows)] == [False, False, False]


def test_the_papers_own_cell_has_no_deviations_and_every_other_names_its_own():
    rows = {"Random": {"method": "random"}, "DM": {"method": "dm"}, "ATOM": {"method": "atom"}}
    paper = {"dataset": "cifar10", "network": {}, "evaluation": {"num_networks": 3}, "methods": rows}
    assert [study.deviations(cell) for cell in cells(**paper)] == [[], [], []]
    faster = cells(**paper | {"precision": "bfloat16", "compiled": True})
    assert [study.deviations(cell) for cell in faster] == [[], [], []]
    changed = cells(**paper | {"methods": {"DM": {"method": "dm", "iterations": 5, "whitened": True}}})[0]
    assert study.deviations(changed) == ["whitened", "iterations 5 (default: 20000)"]
    shorter = cells(**paper | {"evaluation": {"epochs": 300}})[0]
    assert study.deviations(shorter) == ["evaluation epochs 300 (default: 1000)"]
    narrow = cells(**paper | {"network": {"width": 32}})[1]
    assert study.deviations(narrow) == ["width 32 (default: by data)"]


def test_a_method_may_say_which_of_its_papers_rows_it_is(monkeypatch):
    monkeypatch.setattr(methods.find("dm"), "condition", "fast", raising=False)
    stated = {"": {}, "fast": {"iterations": 7}}
    monkeypatch.setattr(results, "published", lambda paper, *, condition="", **place: dict(stated[condition]))
    rows = {"DM": {"method": "dm", "iterations": 7}, "Random": {"method": "random"}}
    dm, random = cells(dataset="cifar10", ipcs=[1], network={}, evaluation={}, methods=rows)
    assert (dm.condition, random.condition) == ("fast", "")
    assert study.deviations(dm) == [] and study.deviations(random) == []


def test_its_number_stands_beside_that_row(workplace, monkeypatch):
    monkeypatch.setattr(methods.find("random"), "condition", "fast", raising=False)
    asked = []
    monkeypatch.setattr(results, "find", lambda paper, **where: asked.append(where))
    study.run(cells(methods={"Random": {"method": "random"}}, seeds=[0]), workplace)
    assert asked == [{"table": "main", "method": "random", "dataset": "cifar10", "ipc": 1, "condition": "fast"}]


def test_settings_that_the_paper_states_are_no_deviations(monkeypatch):
    stated = {"iterations": 7, "lr_images": 2.0, "whitened": True, "evaluation": {"batch_size": 128}}

    def published(paper, *, method, dataset, ipc):
        return dict(stated) if (paper, method, dataset, ipc) == ("atom", "dm", "cifar10", 10) else {}

    monkeypatch.setattr(results, "published", published)
    row = {"method": "dm", "iterations": 7, "lr_images": 2.0, "whitened": True}
    paper = {"dataset": "cifar10", "network": {}, "methods": {"DM": row}, "evaluation": {"batch_size": 128}}
    one, ten = cells(ipcs=[1, 10], **paper)
    assert study.deviations(ten) == []
    assert study.deviations(one) == [
        "whitened", "lr_images 2.0 (default: 1.0)", "iterations 7 (default: 20000)",
        "evaluation batch_size 128 (default: 256)",
    ]  # fmt: skip
    (plain,) = cells(ipcs=[10], **paper | {"methods": {"DM": {"method": "dm", "lr_images": 2.0}}, "evaluation": {}})
    assert study.deviations(plain) == [
        "not whitened", "iterations 20000 (default: 7)", "evaluation batch_size 256 (default: 128)",
    ]  # fmt: skip


def test_a_row_may_have_seeds_of_its_own():
    rows = {"Random": {"method": "random", "seeds": [0, 5, 9]}, "DM": {"method": "dm"}}
    assert [cell.seeds for cell in cells(methods=rows)] == [(0, 5, 9), (0, 1)]


def test_a_row_may_be_like_one_above_it():
    first = {"method": "dm", "iterations": 5, "seeds": [3], "by_ipc": {10: {"lr_images": 2.0}}}
    rows = {"DM": first, "Longer": {"like": "DM", "iterations": 9}, "Chain": {"like": "Longer", "by_ipc": {}}}
    found = cells(ipcs=[1, 10], methods=rows)
    told = [(cell.label, cell.method.iterations, cell.method.lr_images, cell.seeds) for cell in found]
    assert told == [
        ("DM", 5, 1.0, (3,)), ("Longer", 9, 1.0, (3,)), ("Chain", 9, 1.0, (3,)),
        ("DM", 5, 2.0, (3,)), ("Longer", 9, 2.0, (3,)), ("Chain", 9, 1.0, (3,)),
    ]  # fmt: skip
    assert first == rows["DM"] and "like" in rows["Longer"]  # what the notebook holds stays as it was


@pytest.mark.parametrize("ten", [10, "10"])  # papermill makes text of the keys of a mapping
def test_a_row_may_differ_by_images_per_class(ten):
    row = {"method": "dm", "iterations": 5, "by_ipc": {ten: {"iterations": 7, "lr_images": 2.0, "whitened": True}}}
    found = cells(ipcs=[1, 10], methods={"DM": row, "Random": {"method": "random"}})
    assert [cell.label for cell in found] == ["DM", "Random"] * 2
    one, ten = found[0], found[2]
    assert (one.ipc, one.method.iterations, one.method.lr_images, one.whitened) == (1, 5, 1.0, False)
    assert (ten.ipc, ten.method.iterations, ten.method.lr_images, ten.whitened) == (10, 7, 2.0, True)
    assert one.settings() == cells(methods={"DM": {"method": "dm", "iterations": 5}})[0].settings()


def test_papermill_hands_on_the_same_cells():
    rows = {"DM": {"method": "dm", "ipcs": [10], "by_ipc": {10: {"lr_images": 2.0}}}, "Random": {"method": "random"}}
    code = PythonTranslator.codify({"methods": rows}, "Parameters")
    handed_on: dict = {}
    exec(code, handed_on)
    assert handed_on["methods"] != rows
    assert cells(ipcs=[1, 10], methods=handed_on["methods"]) == cells(ipcs=[1, 10], methods=rows)


def test_a_row_may_stand_at_some_numbers_of_images_alone():
    rows = {"DM": {"method": "dm", "ipcs": [2, 10, 50], "by_ipc": {50: {}}}, "Random": {"method": "random"}}
    found = cells(ipcs=[1, 2, 10], methods=rows)
    assert [(cell.label, cell.ipc) for cell in found] == [
        ("Random", 1), ("DM", 2), ("Random", 2), ("DM", 10), ("Random", 10),
    ]  # fmt: skip


def test_what_differs_by_images_per_class_may_be_the_evaluation_and_the_seeds():
    row = {"method": "dm", "by_ipc": {10: {"evaluation": {"batch_size": 128}, "seeds": [4]}}}
    one, ten, whole = cells(ipcs=[1, 10], methods={"DM": row, "All": {"method": "whole"}})
    assert (one.protocol.batch_size, one.seeds) == (256, (0, 1))
    assert (ten.protocol.batch_size, ten.seeds) == (128, (4,))
    assert (whole.label, whole.ipc) == ("All", None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": {"All": {"method": "whole", "ipcs": [1]}}}, r"unknown setting 'ipcs' of method 'whole'"),
        ({"methods": {"DM": {"method": "dm", "by_ipc": {2: {}}}}}, r"by_ipc of 'DM' speaks of 2; allowed: 1, its ipcs"),
        (
            {"methods": {"DM": {"method": "dm", "ipcs": [1, 10], "by_ipc": {"one": {}}}}},
            r"by_ipc of 'DM' speaks of 'one'; allowed: 1, 10, its ipcs",
        ),
        ({"methods": {"DM": {"method": "dm", "by_ipc": 3}}}, r"by_ipc of 'DM'=3 is int; it must be dict"),
        ({"methods": {"DM": {"method": "dm", "by_ipc": {1: 3}}}}, r"by_ipc of 'DM' at 1=3 is int; it must be dict"),
        ({"methods": {"DM": {"method": "dm", "by_ipc": {1: {"lr": 1.0}}}}}, r"unknown setting 'lr' of method 'dm'"),
        ({"methods": {"DM": {"method": "dm", "ipcs": [0]}}}, r"ipcs of 'DM'=0; it must be >= 1"),
        ({"methods": {"DM": {"method": "dm", "ipcs": []}}}, r"ipcs of 'DM'=\[\]; it must be a non-empty list"),
        ({"methods": {"DM": {"method": "dm", "seeds": [-1]}}}, r"seeds of 'DM'=-1; it must be >= 0"),
        (
            {"methods": {"A": {"like": "B"}, "B": {"method": "dm"}}},
            r"methods\['A'\] is like 'B'; .* row above it: none",
        ),
        ({"methods": {"A": {"method": "dm"}, "B": {"like": ["A"]}}}, r"is like \['A'\]; .* row above it: 'A'"),
        ({"dataset": "cifar11"}, r"unknown dataset 'cifar11'; known: .*cifar10"),
        ({"methods": {"X": {"method": "atomm"}}}, r"unknown method 'atomm'; known: atom"),
        ({"methods": {"DM": {"method": "dm", "lr_imgs": 1.0}}}, r"unknown setting 'lr_imgs' of method 'dm'"),
        ({"methods": {"DM": {"method": "dm", "lr_images": "1e-3"}}}, r"lr_images of method 'dm'='1e-3' is text"),
        ({"methods": {"DM": {"method": "dm", "lr_images": -1.0}}}, r"lr_images=-1.0; it must be > 0"),
        ({"evaluation": {"lr": -0.1}}, r"lr must be a finite number > 0, got -0.1"),
        ({"evaluation": {"network": "convnett"}}, r"unknown network 'convnett'; known: "),
        ({"evaluation": {"epoch": 3}}, r"unknown setting 'epoch' of the evaluation \(did you mean 'epochs'\?\)"),
        (
            {"methods": {"DM": {"method": "dm", "whitened": "no"}}},
            r"whitened of 'DM'='no'; it must be true, false, normalised or pixels",
        ),
        (
            {"methods": {"DM": {"method": "dm", "network": "convnett"}}},
            r"network='convnett'; it must be one of convnet",
        ),
        ({"network": {"width": "8"}}, r"width of network='8' is text"),
        ({"network": {"widht": 8}}, r"unknown setting 'widht' of network"),
        (
            {"methods": {"DM": {"method": "dm", "evaluation": {"epoch": 3}}}},
            r"unknown setting 'epoch' of the evaluation \(did you mean 'epochs'\?\)",
        ),
        ({"methods": {"DM": {"method": "dm", "evaluation": 3}}}, r"evaluation of 'DM'=3 is int; it must be dict"),
        ({"methods": {"Whole": {"method": "whole", "ipc": 1}}}, r"unknown setting 'ipc' of method 'whole'"),
        ({"evaluation": {"networks": {}}}, r"networks of the evaluation={}; it must not be empty"),
        ({"evaluation": {"networks": {"a": "mlp"}}}, r"networks\['a'\]='mlp'; it must be a mapping"),
        ({"evaluation": {"networks": {"a": {"norm": "batch"}}}}, r"networks\['a'\]={'norm': 'batch'}; it must be"),
        ({"evaluation": {"networks": {"a": {"network": "vgg"}}}}, r"unknown network 'vgg'; known: convnet"),
        (
            {"evaluation": {"networks": {"a": {"network": "mlp", "nrm": 1}}}},
            r"unknown option 'nrm' of networks\['a'\]; known: width",
        ),
        (
            {"evaluation": {"network": "mlp", "networks": {"a": {"network": "mlp"}}}},
            r"the evaluation says networks and network; say one",
        ),
        ({"methods": {"DM": "dm"}}, r"methods\['DM'\]='dm'; it must be a mapping"),
    ],
)
def test_bad_cells_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        cells(**changed)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"device='warp' cannot be used here"):
        study.Workplace("warp")


def test_ipc_above_the_class_size_is_refused(workplace):
    with pytest.raises(ValueError, match=r"ipc=10000 is not in 1..\d+, the size of the smallest class"):
        study.run(cells(ipcs=[10000], methods={"Random": {"method": "random"}}), workplace)


def test_a_run_records_every_network_and_a_second_one_computes_nothing(workplace, monkeypatch):
    records = study.run(cells(), workplace)
    assert [(record.label, record.n) for record in records] == [("Random", 4), ("Herding", 4), ("ATOM", 4)]
    for record in records:
        assert all(0 <= accuracy <= 100 for accuracy in record.accuracies) and record.verdict == "PROXY"
        assert record.deviations[0] == "digits instead of cifar10"
        assert {"commit", "dirty", "versions", "device", "date", "data", "seeds"} <= record.provenance.keys()
        assert record.provenance["parameters"] == study.fingerprint(settings(CHOSEN))
        assert record.provenance["code"] == codeprint.fingerprint(codeprint.EVALUATION)
        assert record.provenance["seeds"] == [0, 1]
        assert record.cost["images_shown"] == 10 and record.cost["bytes_stored"] > 0
    codes = [record.provenance["distilled"]["code"] for record in records]
    assert codes == [codeprint.fingerprint(codeprint.distillation(type(cell.method))) for cell in cells()]
    monkeypatch.setattr(work.evaluation, "evaluate", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(artefacts.loop, "run", lambda *_, **__: pytest.fail("distilled again"))
    again = study.run(cells(), workplace)
    assert [record.accuracies for record in again] == [record.accuracies for record in records]


def test_a_cell_that_another_process_works_on_comes_last(workplace, monkeypatch):
    begun = []
    compute = study._compute
    monkeypatch.setattr(study, "_compute", lambda cell, place: (begun.append(cell.label), compute(cell, place))[1])
    monkeypatch.setattr(work, "under_way", lambda cell, _: cell.label == "Random" and len(begun) < 2)
    records = study.run(cells(), workplace)
    assert begun == ["Herding", "ATOM", "Random"] and [r.label for r in records] == ["Random", "Herding", "ATOM"]


def test_work_under_way_is_seen_by_its_lock_and_finished_work_never_is(workplace):
    cell = cells()[0]
    lock = work.distillation(cell, 1, workplace).lock
    with locks.locked(lock, "the work"):
        assert work.under_way(cell, workplace)
    assert not work.under_way(cell, workplace)
    study.run([cell], workplace)
    with locks.locked(lock, "the work"):
        assert not work.under_way(cell, workplace)


def test_records_round_trip_through_their_file(workplace, tmp_path):
    records = study.run(cells(), workplace)
    results.write(records, tmp_path / "out.json")
    assert results.read(tmp_path / "out.json") == records


def test_a_longer_evaluation_uses_the_same_distilled_set(workplace, monkeypatch):
    study.run(cells(), workplace)
    monkeypatch.setattr(artefacts.loop, "run", lambda *_, **__: pytest.fail("distilled again"))
    study.run(cells(evaluation={"num_networks": 2, "epochs": 3}), workplace)


def test_another_setting_is_another_piece_of_work(workplace):
    first = study.synthetic_set(cells()[2], 0, workplace)
    rows = {"ATOM": CHOSEN["methods"]["ATOM"] | {"p_channel": 2}}
    second = study.synthetic_set(cells(methods=rows)[0], 0, workplace)
    assert not torch.equal(first.images, second.images)


def test_without_budget_nothing_is_begun_and_the_cost_is_estimated(workplace):
    records = study.run(cells(), workplace, budget_hours=0.0)
    assert [record.verdict for record in records] == ["NOT RUN"] * 3
    assert all(record.cost["estimated_hours"] > 0 and record.n == 0 for record in records)
    assert not list(workplace.folder.rglob("*.safetensors"))


def test_finished_cells_are_shown_whatever_the_budget(workplace):
    study.run(cells()[:1], workplace)
    assert [r.verdict for r in study.run(cells()[:1], workplace, budget_hours=0.0)] == ["PROXY"]


def test_the_outlook_counts_what_is_to_be_done(workplace):
    assert study.outlook(cells(), workplace).startswith(
        "3 cells, 0 of them in the store; to do: 6 distillations and 12 trainings, about "
    )
    study.run(cells()[:1], workplace)
    assert "1 of them in the store; to do: 4 distillations and 8 trainings" in study.outlook(cells(), workplace)


def test_the_course_of_the_loss_is_kept(workplace):
    random, _, atom = cells()
    assert [step for step, _ in study.loss_course(atom, 0, workplace)] == [1, 2]
    assert study.loss_course(random, 0, workplace) == []


def test_every_metric_of_a_distillation_is_kept(workplace):
    random, _, atom = cells()
    history = study.history(atom, 0, workplace)
    assert history["loss"] == study.loss_course(atom, 0, workplace) and study.history(random, 0, workplace) == {}
    assert all([step for step, _ in points] == [1, 2] for points in history.values())


def test_measurements_are_kept_there_too_with_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "OUTPUT", tmp_path)
    train, chosen = datasets.load("digits", "train"), settings({"profile": "quick", "dataset": "digits"})
    found = study.measured({"rows": [{"N": 1}]}, chosen, train, "ddlib.store.loop")
    path = study.keep(found, "datm/cost", "quick")
    assert path == tmp_path / "results" / "datm" / "cost.quick.json" and results.read_measurements(path) == found
    made = found.provenance
    assert (made["parameters"], made["data"]) == (study.fingerprint(chosen), train.fingerprint)
    assert made["code"] == codeprint.fingerprint(("ddlib.store.loop",)) and found.modules == ("ddlib.store.loop",)


def test_records_are_kept_where_reports_look_for_them(workplace, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "OUTPUT", tmp_path)
    path = study.keep(study.run(cells()[:1], workplace), "atom/accuracy", "quick")
    assert path == tmp_path / "results" / "atom" / "accuracy.quick.json" and len(results.read(path)) == 1


@pytest.mark.parametrize("which", ["runs", "results", "figures"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(which, tmp_path, monkeypatch):
    (tmp_path / which).write_text("a file where a folder should be")
    monkeypatch.setattr(artefacts, "OUTPUT", tmp_path)
    with pytest.raises(
        OSError, match=rf"folder='.*{which}' cannot be written \(.*\); allowed: a folder that can; DDLIB_OUT"
    ):
        study.Workplace("cpu", folder=tmp_path / "runs")


def test_the_key_of_content_is_stable_and_sees_every_change():
    assert files.key({"a": 1, "b": [2]}) == files.key({"b": [2], "a": 1})
    assert files.key({"a": 1}) != files.key({"a": 2})
    assert len(files.key({})) == 16


def test_fingerprints_of_parameters_follow_the_parameters():
    first, second = settings(CHOSEN), settings(CHOSEN | {"seeds": [0]})
    assert study.fingerprint(first) == study.fingerprint(settings(CHOSEN)) != study.fingerprint(second)
    assert isinstance(first, SimpleNamespace)
    elsewhere = CHOSEN | {"profile": "hour", "device": "cuda", "budget_hours": 1.0}
    assert study.fingerprint(settings(elsewhere)) == study.fingerprint(first)


def test_what_the_parameters_are_called_does_not_change_a_cells_key():
    assert [cell.settings() for cell in cells(ipcs=[1, 10])[:3]] == [cell.settings() for cell in cells()]
    assert cells(ipcs=[1, 10])[0].parameters != cells()[0].parameters == study.fingerprint(settings(CHOSEN))


def test_seeds_of_different_days_and_commits_are_told_apart(workplace, monkeypatch):
    (cell,) = cells(methods={"Random": {"method": "random"}})
    for seed, commit in zip(cell.seeds, "ab", strict=True):
        made = {"commit": commit, "dirty": commit == "a", "date": f"2026-11-2{seed}"}
        monkeypatch.setattr(work, "provenance", lambda *_, made=made: made)
        monkeypatch.setattr(artefacts, "provenance", lambda *_, made=made: made)
        work.evaluated(cell, seed, workplace)
    (record,) = study.run([cell], workplace)
    said = {"commit": ["a", "b"], "dirty": True, "date": ["2026-11-20", "2026-11-21"]}
    assert said.items() <= record.provenance.items() and record.provenance["distilled"] == said


def test_a_subset_is_another_data_set():
    full = datasets.load("digits", "train")
    half = dataclasses.replace(full, images=full.images[::2], labels=full.labels[::2])
    assert half.fingerprint != full.fingerprint


def test_what_was_made_says_where_it_comes_from(workplace):
    made = study.synthetic_set(cells()[2], 1, workplace)
    assert dict(made.provenance) == {"method": "atom", "seed": 1, "dataset": "digits", "iterations": 2, "batch_real": 4}
    assert isinstance(made, synthetic.SyntheticSet)


def test_a_cell_that_comes_to_no_number_is_named_once_the_others_are_done(workplace, monkeypatch):
    compute, done = study._compute, []

    def spoilt(cell, place):
        if cell.label == "DM":
            raise FloatingPointError("the step size became -1")
        done.append(cell.label)
        return compute(cell, place)

    monkeypatch.setattr(study, "_compute", spoilt)
    rows = {label: {"method": method} for label, method in (("DM", "dm"), ("Random", "random"))}
    with pytest.raises(FloatingPointError, match=r"^DM, digits, IPC 1: the step size became -1$"):
        study.run(cells(methods=rows, evaluation={"num_networks": 1, "epochs": 1}), workplace)
    assert done == ["Random"]
