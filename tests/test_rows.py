"""From a notebook's parameters to cells: the language of rows, what it refuses, and deviations from papers."""

import pytest
from refusals import refuses

from ddlib import methods, results, study
from ddlib.study import notebooks
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
RANDOM, DM = {"method": "random"}, {"method": "dm"}
NETWORKS = {"ConvNet": {"network": "convnet"}, "wide": {"network": "convnet", "norm": "batch", "width": 9},
            "MLP": {"network": "mlp", "width": 16}}  # fmt: skip


def cells(**changed):
    """The cells of the parameters above, changed."""
    return study.cells(settings(CHOSEN | changed), paper="atom", table="main")


# --- the language of rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipcs", "rows", "expected"),
    [
        ([1, 10], {"Random": RANDOM, "DM": DM}, [("Random", 1), ("DM", 1), ("Random", 10), ("DM", 10)]),
        ([1, 2], {"whole": {"method": "whole"}, "Random": RANDOM}, [("Random", 1), ("Random", 2), ("whole", None)]),
        ([1, 2], {"DM": DM | {"ipcs": [2, 50], "by_ipc": {50: {}}}, "Random": RANDOM},
         [("Random", 1), ("DM", 2), ("Random", 2)]),
        ([1], {"DM": DM | {"ipcs": [29]}, "Random": RANDOM}, [("Random", 1), ("DM", 29)]),
    ],
)  # fmt: skip
def test_rows_stand_at_numbers_of_images(ipcs, rows, expected):
    assert [(cell.label, cell.ipc) for cell in cells(ipcs=ipcs, methods=rows)] == expected


def test_the_notebooks_network_and_evaluation_are_those_of_every_row():
    atom = cells()[2]
    assert (atom.method.width, atom.method.depth, atom.method.iterations) == (8, 2, 2)
    assert atom.protocol.options == {"norm": "instance", "width": 8, "depth": 2} and atom.protocol.epochs == 2
    norms = {"ATOM": {"method": "atom"}, "DM": DM, "Random": RANDOM}  # evaluated with the norm it is distilled with
    assert [cell.protocol.options["norm"] for cell in cells(methods=norms)] == ["batch", "instance", "instance"]
    mlp = {"network": "mlp", "options": {"width": 16}}
    assert all(cell.protocol.options == {"width": 16} for cell in cells(evaluation=mlp))


def test_a_row_may_have_an_evaluation_and_seeds_of_its_own_and_be_none_of_the_papers():
    own = RANDOM | {"evaluation": {"batch_size": 128, "epochs": 7}, "seeds": [0, 5, 9], "reported": False}
    random, dm = cells(methods={"Random": own, "DM": DM})
    assert (random.protocol.batch_size, random.protocol.epochs, random.protocol.num_networks) == (128, 7, 2)
    assert (dm.protocol.batch_size, dm.protocol.epochs, dm.protocol.num_networks) == (256, 2, 2)
    assert (random.seeds, dm.seeds, random.reported, dm.reported) == ((0, 5, 9), (0, 1), False, True)


def test_a_row_may_be_like_one_above_it():
    first = {"method": "dm", "iterations": 5, "seeds": [3], "by_ipc": {10: {"lr_images": 2.0}}}
    rows = {"DM": first, "Longer": {"like": "DM", "iterations": 9}, "Chain": {"like": "Longer", "by_ipc": {}}}
    found = [(c.label, c.method.iterations, c.method.lr_images, c.seeds) for c in cells(ipcs=[1, 10], methods=rows)]
    assert found == [
        ("DM", 5, 1.0, (3,)), ("Longer", 9, 1.0, (3,)), ("Chain", 9, 1.0, (3,)),
        ("DM", 5, 2.0, (3,)), ("Longer", 9, 2.0, (3,)), ("Chain", 9, 1.0, (3,)),
    ]  # fmt: skip
    assert "like" in rows["Longer"]  # what the notebook holds stays as it was


@pytest.mark.parametrize("ten", [10, "10"])  # papermill makes text of the keys of a mapping
def test_a_row_may_differ_by_images_per_class(ten):
    own = {"iterations": 7, "lr_images": 2.0, "whitened": True, "evaluation": {"batch_size": 128}, "seeds": [4]}
    rows = {"DM": {"method": "dm", "iterations": 5, "by_ipc": {ten: own}}, "All": {"method": "whole"}}
    one, ten, whole = cells(ipcs=[1, 10], methods=rows)
    assert (one.method.iterations, one.method.lr_images, one.whitened, one.seeds) == (5, 1.0, False, (0, 1))
    assert (ten.method.iterations, ten.method.lr_images, ten.whitened, ten.seeds) == (7, 2.0, True, (4,))
    assert (one.protocol.batch_size, ten.protocol.batch_size, whole.ipc) == (256, 128, None)
    assert one.settings() == cells(methods={"DM": {"method": "dm", "iterations": 5}})[0].settings()


def test_a_row_has_a_cell_for_each_network_it_is_tested_on():
    rows = {"Random": RANDOM, "DM": DM}
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
    common = {"networks": NETWORKS, "lr": 0.5, "by_network": {"MLP": {"lr": 0.1, "epochs": 7}}}
    rows = {
        "Random": RANDOM,
        "own": RANDOM | {"evaluation": {"lr": 0.2, "by_network": {"wide": {"lr": 0.3}}}},
        "sized": RANDOM | {"evaluation": {"by_ipc": {1: {"by_network": {"wide": {"lr": 0.4}}}}}},
    }
    found = cells(methods=rows, evaluation=common)
    rates = {label: [cell.protocol.lr for cell in found if cell.label == label] for label in rows}
    # a row's setting goes before any of the notebook's
    assert rates == {"Random": [0.5, 0.5, 0.1], "own": [0.2, 0.3, 0.2], "sized": [0.5, 0.4, 0.1]}
    assert found[2].protocol.epochs == 7 and all("by_network" not in cell.protocol.settings() for cell in found)


def test_what_is_whitened_is_so_as_its_paper_does_it_unless_told():
    few = {"experts": 1, "shard": 1}
    rows = {"DATM": {"method": "datm", **few}, "other": {"method": "datm", **few, "whitened": "normalised"},
            "Full set": {"method": "whole", "whitened": "pixels"}, "ATOM": {"method": "atom"}, "DM": DM,
            "raw": {"method": "atom", "whitened": False}}  # fmt: skip
    found = {cell.label: cell for cell in cells(dataset="cifar10", methods=rows, ipcs=(10,))}
    assert {label: cell.whitened for label, cell in found.items()} == {
        "DATM": "pixels", "other": True, "Full set": "pixels", "ATOM": True, "DM": False, "raw": False,
    }  # fmt: skip
    assert not any("whiten" in phrase for phrase in study.deviations(found["DATM"]))
    assert "whitened after normalisation" in study.deviations(found["other"])
    assert found["DATM"].protocol.batch_size == 128  # as its paper, where nobody says otherwise
    assert not cells(dataset="tiny_imagenet", methods={"ATOM": {"method": "atom"}})[0].whitened


@pytest.mark.parametrize("own", [False, True], ids=["the evaluation", "evaluation of 'r'"])
@pytest.mark.parametrize(
    ("networks", "by_network", "match"),
    [
        (NETWORKS, {"vgg": {}}, "by_network of {} speaks of 'vgg'; allowed: ConvNet, wide, MLP"),
        (None, {"convnet": {"lr": 0.1}}, "of {} speaks of 'convnet'; allowed: none, for there are no networks"),
        (NETWORKS, 3, "by_network of {}=3 is int; it must be dict"),
        (NETWORKS, {"MLP": 3}, "by_network of {} at MLP=3 is int; it must be dict"),
        (NETWORKS, {"MLP": {"options": {}}}, "by_network of {} at MLP says options; say that in networks"),
        (NETWORKS, {"MLP": {"lt": 1}}, "unknown setting 'lt' of the evaluation"),
        (NETWORKS, {"MLP": {"lr": "1e-4"}}, "lr of the evaluation='1e-4' is text, not a number"),
    ],
)
def test_what_is_no_setting_by_network_is_refused(networks, by_network, match, own):
    common, differing = {"networks": networks} if networks else {}, {"by_network": by_network}
    rows = {"r": RANDOM | ({"evaluation": differing} if own else {})}
    with pytest.raises(ValueError, match=match.format("evaluation of 'r'" if own else "the evaluation")):
        cells(methods=rows, evaluation=common if own else common | differing)


def row(**settings):
    """A row of DM, changed."""
    return {"methods": {"DM": DM | settings}}


PRIOR = {"prior": {"autoencoder_steps": 1, "diffusion_steps": 1, "width": 16}}
LARGE = {"prior": PRIOR["prior"] | {"factor": 32}}
ODD = {"network": "vit", "options": {"patch": 5}}


test_bad_cells_are_refused = refuses(
    cells,
    [
        (row(by_ipc={2: {}}), r"by_ipc of 'DM' speaks of '2'; allowed: 1, its ipcs"),
        (row(by_ipc={1: 3}), r"by_ipc of 'DM' at 1=3 is int; it must be dict"),
        (row(by_ipc={1: {"lr": 1.0}}), r"unknown setting 'lr' of method 'dm'"),
        (row(ipcs=[0]), r"ipcs of 'DM'=0; it must be >= 1"),
        (row(ipcs=[]), r"ipcs of 'DM'=\[\]; it must be a non-empty list"),
        (row(seeds=[-1]), r"seeds of 'DM'=-1; it must be >= 0"),
        (row(reported="no"), r"reported of 'DM'='no' is str; it must be bool"),
        (row(lr_imgs=1.0), r"unknown setting 'lr_imgs' of method 'dm'"),
        (row(lr_images="1e-3"), r"lr_images of method 'dm'='1e-3' is text"),
        (row(lr_images=-1.0), r"lr_images=-1.0; it must be > 0"),
        (row(whitened="no"), r"whitened of 'DM'='no'; it must be true, false, normalised or pixels"),
        (row(network="convnett"), r"network='convnett'; it must be one of convnet"),
        (row(evaluation={"epoch": 3}), r"unknown setting 'epoch' of the evaluation \(did you mean 'epochs'\?\)"),
        ({"methods": {"A": {"like": "B"}, "B": DM}}, r"methods\['A'\] is like 'B'; .* row above it: none"),
        ({"methods": {"DM": "dm"}}, r"methods\['DM'\]='dm'; it must be a mapping"),
        ({"methods": {"A": {"method": ["dm"]}}}, r"method of 'A'=\['dm'\] is list; it must be str"),
        ({"methods": {"DM": DM | {3: 4}}}, r"methods\['DM'\] has 3 for a name; it must be a text"),
        (row(by_ipc={1: {3: 4}}), r"by_ipc of 'DM' at 1 has 3 for a name; it must be a text"),
        ({"evaluation": {3: 4}}, r"evaluation has 3 for a name; it must be a text"),
        ({"evaluation": {"options": {3: 4}}}, r"options of the evaluation has 3 for a name; it must be a text"),
        ({"evaluation": {"networks": {3: {"network": "mlp"}}}}, r"networks of the evaluation has 3 for a name"),
        ({"evaluation": {"labels": "fixed", "teacher": "x"}}, r"teacher of the evaluation='x' is str; it must be dict"),
        ({"methods": {"X": {"method": "atomm"}}}, r"unknown method 'atomm'; known: atom"),
        ({"methods": {"Whole": {"method": "whole", "ipc": 1}}}, r"unknown setting 'ipc' of method 'whole'"),
        ({"dataset": "cifar11"}, r"unknown dataset 'cifar11'; known: .*cifar10"),
        ({"network": {"width": "8"}}, r"width of network='8' is text"),
        ({"network": {"widht": 8}}, r"unknown setting 'widht' of network"),
        ({"evaluation": {"options": 3}}, r"options of the evaluation=3 is int; it must be dict"),
        ({"evaluation": {"network": "convnett"}}, r"unknown network 'convnett'; known: "),
        ({"evaluation": {"networks": {}}}, r"networks of the evaluation={}; it must not be empty"),
        ({"evaluation": {"networks": {"a": "mlp"}}}, r"networks\['a'\]='mlp'; it must be a mapping"),
        ({"evaluation": {"networks": {"a": {"network": "vgg"}}}}, r"unknown network 'vgg'; known: convnet"),
        ({"evaluation": {"networks": {"a": {"network": "mlp", "nrm": 1}}}}, r"unknown option 'nrm' of networks\['a'\]"),
        ({"evaluation": {"network": "mlp", "networks": NETWORKS}}, r"evaluation says networks and network; say one"),
        # what a method or an evaluation would refuse once work is done
        ({"network": {"width": 8, "depth": 7}}, r"of 'Random' at IPC 1: shape \(1, 16, 16\) is too small for ConvNet"),
        (row(network="vgg11"), r"methods\['DM'\] on digits: norm 'instance' needs maps of more than"),
        (row(norm="grup"), r"methods\['DM'\] on digits: unknown norm 'grup'; known: instance"),
        (row(strategy="colour"), r"on digits: unknown strategy 'colour'; allowed: 'none' or"),
        (row(whitened=True) | {"dataset": "imagenette_128"}, r"zca takes images of at most C\*H\*W"),
        (row(whitened=True) | {"dataset": "digits:0,1"}, r"whitening is fitted on all classes; allowed"),
        (row(method="herding", epochs=-1), r"epochs=-1; it must be >= 0"),
        (row(method="dim", pool=["convnet"], depth=7), r"methods\['DM'\] on digits: .* too small"),
        (row(method="dim", latent=12), "on digits: num_classes=10; a one-hot code in noise of 12 values allows at"),
        (row(method="dim", pool=[["convnet"]]), r"pool=\[\['convnet'\]\]; it must be a list of at least one of con"),
        (row(method="gan"), r"'DM' at IPC 1: batch_size=256 does not divide the 10 .* nearest 10"),
        (row(method="glad", layer=9, **PRIOR), r"layer=9; it must be at most 5, the sta"),
        (row(method="glad", **LARGE), r"images of 16x16 pixels; with this prior sides must be multiples of 32"),
        (row(method="ld3m", whitened=True, **PRIOR), r"whitened of 'DM'=True; .* ld3m takes normalised images alone"),
        ({"evaluation": ODD}, r"evaluation of 'Random' at IPC 1: .*multiples of patch"),
        ({"evaluation": {"labels": "fixed", "teacher": ODD}}, r"of 'Random' at IPC 1: .*multiples of patch"),
        ({"evaluation": {"augmentation": 3}}, "augmentation"),
        ({"evaluation": {"augmentation": "twirl"}}, "unknown strategy 'twirl'"),
        ({"evaluation": {"options": {"width": "8"}}}, r"of 'Random' at IPC 1: options .*'width': '8'.* of network"),
        ({"evaluation": {"options": {"norm": "foo"}}}, r"evaluation of 'Random' at IPC 1: unknown norm 'foo'"),
    ],
)


# --- deviations -----------------------------------------------------------------------------------------------------

PAPER = {"dataset": "cifar10", "network": {}, "evaluation": {}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"evaluation": {"num_networks": 3}, "methods": {"R": RANDOM, "DM": DM, "ATOM": {"method": "atom"}}}, [[]] * 3),
        ({"precision": "bfloat16", "compiled": True, "methods": {"R": RANDOM, "DM": DM}}, [[], []]),
        (row(iterations=5, whitened=True), [["whitened", "iterations 5 (default: 20000)"]]),
        ({"evaluation": {"epochs": 300}} | row(), [["evaluation epochs 300 (default: 1000)"]]),
        ({"network": {"width": 32}} | row(), [["width 32 (default: by data)"]]),
        (
            {"evaluation": {"schedule": "warmup_cosine", "ema": 0.9}, "methods": {"R": RANDOM}},
            [["evaluation schedule warmup_cosine (default: step)", "evaluation ema 0.9 (default: none)"]],
        ),
        # the network that a table names is none, the width of a ConvNet is
        (
            {"evaluation": {"networks": NETWORKS}, "methods": {"R": RANDOM}},
            [[], ["evaluation width 9 (default: by data)"], []],
        ),
        (
            {"evaluation": {"networks": NETWORKS}, "methods": {"R": RANDOM}, "network": {"width": 8}},
            [["evaluation width 8 (default: by data)"], ["evaluation width 9 (default: by data)"], []],
        ),
    ],
)
def test_the_papers_own_cell_has_no_deviations_and_every_other_names_its_own(changed, expected):
    assert [study.deviations(cell) for cell in cells(**PAPER | changed)] == expected


def test_what_a_methods_own_paper_says_of_its_evaluation_is_no_deviation(monkeypatch):
    own = {"schedule": "warmup_cosine", "ema": 0.9, "lr": 0.5, "by_network": {"MLP": {"lr": 0.1}, "untested": {}}}
    monkeypatch.setattr(methods.find("dm"), "evaluation", own, raising=False)
    paper = PAPER | {"evaluation": {"networks": NETWORKS}}
    plain, wide, mlp = cells(**paper | row())
    assert mlp.protocol.lr == 0.1 and mlp.protocol.ema == plain.protocol.ema == 0.9
    assert study.deviations(plain) == study.deviations(mlp) == []
    assert study.deviations(cells(**paper | row(evaluation={"lr": 0.5}))[-1]) == ["evaluation lr 0.5 (default: 0.1)"]
    (alone,) = cells(**PAPER | row())
    assert alone.protocol.lr == 0.5 and study.deviations(alone) == []


def test_settings_that_the_paper_states_of_a_row_are_no_deviations(monkeypatch):
    ten_images = {"iterations": 7, "lr_images": 2.0, "whitened": True, "evaluation": {"batch_size": 128}}
    stated = {("dm", 10, ""): ten_images, ("dm", 1, "fast"): {"iterations": 7}}

    def published(paper, *, method, dataset, ipc, condition=""):
        return dict(stated.get((method, ipc, condition), {})) if (paper, dataset) == ("atom", "cifar10") else {}

    monkeypatch.setattr(results, "published", published)
    paper = PAPER | {"ipcs": [1, 10], "evaluation": {"batch_size": 128}}
    one, ten = cells(**paper | row(iterations=7, lr_images=2.0, whitened=True))
    assert study.deviations(ten) == []
    assert study.deviations(one) == [
        "whitened", "lr_images 2.0 (default: 1.0)", "iterations 7 (default: 20000)",
        "evaluation batch_size 128 (default: 256)",
    ]  # fmt: skip
    assert study.deviations(cells(**PAPER | {"ipcs": [10]} | row(lr_images=2.0))[0]) == [
        "not whitened", "iterations 20000 (default: 7)", "evaluation batch_size 256 (default: 128)",
    ]  # fmt: skip
    monkeypatch.setattr(methods.find("dm"), "condition", "fast", raising=False)
    dm, random = cells(**PAPER | {"methods": {"DM": DM | {"iterations": 7}, "Random": RANDOM}})
    assert (dm.method.condition, random.method.condition) == ("fast", "")
    assert study.deviations(dm) == study.deviations(random) == []


# --- names ----------------------------------------------------------------------------------------------------------


def test_fingerprints_follow_the_parameters_and_not_where_they_are_computed():
    first = study.fingerprint(settings(CHOSEN))
    elsewhere = {"profile": "hour", "device": "cuda", "budget_hours": 1.0}
    assert study.fingerprint(settings(CHOSEN | elsewhere)) == first
    assert study.fingerprint(settings(CHOSEN | {"seeds": [0]})) != first
    assert cells()[0].parameters == first != cells(ipcs=[1, 10])[0].parameters
    assert [cell.settings() for cell in cells(ipcs=[1, 10])[:3]] == [cell.settings() for cell in cells()]


def test_the_tour_and_the_leaderboard_distil_what_the_papers_notebooks_do():
    """So that either finds the work of the others; matching has the same width in all of them."""

    def distilled(name, label):
        found = [cell for cell in notebooks.cells(name, "quick") if (cell.label, cell.ipc) == (label, 1)]
        return found[0].settings(deployed=False) | {"protocol": None, "tested_on": None}

    for label, paper in {"DATM": "datm", "DiM": "dim", "GAN": "dim", "GLaD, DM": "ld3m", "LD3M, DM": "ld3m"}.items():
        there = distilled(f"{paper}/accuracy", label)
        assert distilled("compare/tour", label) == distilled("compare/leaderboard", label) == there
