"""What the papers report: every file, by discovery, and what a file may not say."""

import dataclasses
import sys
from collections import Counter

import pytest
import yaml

from ddlib import ROOT, evaluation, methods, results, study
from ddlib.data import datasets
from ddlib.study.parameters import settings
from ddlib.study.rows import for_network

PAPERS = results.papers()


OF_NO_CELL = {"imagenet64", "imagenet100", "imagenet_a_to_e_128", "unstated"}
"""Data sets of references that no cell of ours is on."""


@pytest.mark.parametrize("paper", PAPERS)
def test_references_are_plausible_with_one_primary_a_cell_and_no_source_twice(paper):
    known = results.references(paper)
    assert results.title(paper)
    for reference in known:
        assert reference.paper == paper and reference.source and reference.source_key
        assert reference.dataset in datasets.names() or reference.dataset in OF_NO_CELL
        assert reference.comparable or reference.note, f"not comparable, but why? {reference}"
        if reference.value is not None:
            assert reference.std is None or 0 <= reference.std <= max(5.0, 0.6 * reference.value)
        if reference.metric == "accuracy" and reference.ipc is not None and reference.value is not None:
            assert reference.value <= 99.5
    assert set(Counter(r.cell for r in known if r.primary).values()) == {1}
    assert {r.cell for r in known} == {r.cell for r in known if r.primary}
    assert max(Counter((r.cell, r.source_key) for r in known).values()) == 1


@pytest.mark.parametrize("paper", PAPERS)
def test_accuracy_rises_with_images_per_class_or_the_value_is_marked(paper):
    """Where a primary value falls as images are added, a misprint is likely: it must be known as such."""
    falls = {("dc", "tiny_imagenet", 50)}  # two sources agree on this one
    falls |= {("dim", "cifar10", 50)}  # one number, of 10 or of 50 images: both readings stand there
    rows: dict = {}
    for r in results.references(paper):
        if r.primary and r.metric == "accuracy" and r.value is not None and r.ipc is not None:
            rows.setdefault(dataclasses.replace(r, ipc=None).cell, []).append(r)
    for row in rows.values():
        row.sort(key=lambda r: r.ipc)
        for fewer, more in zip(row, row[1:], strict=False):
            assert more.value > fewer.value or (more.method, more.dataset, more.ipc) in falls, more


@pytest.mark.parametrize("paper", PAPERS)
def test_verified_claims_follow_from_the_reported_numbers(paper):
    value = {}
    proxies = {("cifar10", 100), ("cifar10", 200)}  # not reported: the paper's shares of a set, in a fifth of CIFAR-10
    for r in results.references(paper):
        if r.metric == "accuracy" and r.primary and r.table in ("main", "cross_architecture", "architectures"):
            side = ", ".join(filter(None, (r.method, r.condition)))  # as a claim calls it
            value[side, r.dataset, r.ipc, r.network] = r.value
    for claim in (claim for claim in results.claims(paper) if not claim.unverified):
        places = [(d, i, n) for d in claim.datasets for i in claim.ipc for n in claim.networks]
        places = [(d, i, n) for d, i, n in places if (d, i) not in proxies]
        for (d, i, n), (e, j, m) in zip(places, places[1:], strict=False) if claim.rises else ():
            followed = (d, i) == (e, j) if claim.along == "networks" else d == e
            assert not followed or value[claim.rises, d, i, n] < value[claim.rises, e, j, m], claim.id
        for d, i, n in places if claim.higher else ():
            lower = value.get((claim.lower, d, i, n)) or value[claim.lower, d, None, n]
            assert value[claim.higher, d, i, n] > lower, claim.id


def test_atoms_own_cells_were_not_found():
    own = [r for r in results.references("atom") if r.method.startswith("atom")]
    assert {r.table for r in own} == {"main", "cross_architecture", "nas", "cost", "components", "powers"}
    assert sum(r.table == "main" for r in own) == 9
    assert all((r.value, r.state, r.unverified) == (None, "not found", True) for r in own)


TABLE_1 = """
random   15.4±.3  31.0±.5 50.6±.3 73.2±.3 78.4±.2 4.2±.3  14.6±.5 33.4±.4 42.8±.3 1.4±.1  5.0±.2  15.0±.4
dc       28.3±.5  44.9±.5 53.9±.5 72.1±.4 76.6±.3 12.8±.3 25.2±.3 -       -       -       -       -
dm       26.0±.8  48.9±.6 63.0±.4 75.1±.3 78.8±.1 11.4±.3 29.7±.3 43.6±.4 -       3.9±.2  12.9±.4 24.1±.3
dsa      28.8±.7  52.1±.5 60.6±.5 73.6±.3 78.7±.3 13.9±.3 32.3±.3 42.8±.4 -       -       -       -
cafe     30.3±1.1 46.3±.6 55.5±.6 -       -       12.9±.3 27.8±.3 37.9±.3 -       -       -       -
kip      49.9±.2  62.7±.3 68.6±.2 -       -       15.7±.2 28.3±.1 -       -       -       -       -
frepo    46.8±.7  65.5±.4 71.7±.2 -       -       28.7±.1 42.5±.2 44.3±.2 -       15.4±.3 25.4±.2 -
rcig     53.9±1.0 69.1±.4 73.5±.3 -       -       39.3±.4 44.1±.4 46.7±.3 -       25.6±.3 29.4±.2 -
mtt      46.2±.8  65.4±.7 71.6±.2 ?       ?       24.3±.3 39.7±.4 47.7±.2 49.2±.4 8.8±.3  23.2±.2 28.0±.3
tesla    48.5±.8  66.4±.8 72.6±.7 ?       ?       24.8±.4 41.7±.3 47.9±.3 49.2±.4 -       -       -
ftd      46.0±.4  65.3±.4 73.2±.2 ?       ?       24.4±.4 42.5±.2 48.5±.3 49.7±.4 10.5±.2 23.4±.3 28.2±.4
datm     46.9±.5  66.8±.2 76.1±.3 83.5±.2 85.5±.4 27.9±.2 47.2±.4 55.0±.2 57.5±.2 17.1±.3 31.1±.3 39.7±.3
"""
COLUMNS = [("cifar10", ipc) for ipc in (1, 10, 50, 500, 1000)]
COLUMNS += [("cifar100", ipc) for ipc in (1, 10, 50, 100)] + [("tiny_imagenet", ipc) for ipc in (1, 10, 50)]


BASELINES_OF_DIM = """
random 15.4±.3  31.0±.5 50.6±.3 ?        ?        ?        ?        ?        ?        ?        ?        ?
dc     28.3±.5  44.9±.5 53.9±.5 91.7±.5  97.4±.2  98.8±.1  70.5±.6  82.3±.4  83.6±.4  31.2±1.4 76.1±.6  82.3±.3
dsa    28.8±.7  52.1±.5 60.6±.5 88.7±.6  97.8±.1  99.2±.1  70.6±.6  84.6±.3  88.7±.2  27.5±1.4 79.2±.5  84.4±.4
dm     26.0±.8  48.9±.6 63.0±.4 ?        ?        ?        ?        ?        ?        ?        ?        ?
cafe   30.3±1.1 46.3±.6 55.5±.6 ?        ?        ?        ?        ?        ?        ?        ?        ?
kip    49.9±.2  62.7±.3 68.6±.2 96.5±.1  99.1±.1  99.5±.1  76.7±.2  88.8±.1  91.0±.1  64.3±.4  80.9±.5  84.0±.1
mtt    46.2±.8  65.4±.7 71.6±.2 ?        ?        ?        ?        ?        ?        ?        ?        ?
idc_i  36.7     58.3    69.5    88.9     98.0     98.8     70.7     85.3     89.1     46.7     77.0     87.9
idc    50.6     67.5    74.5    94.2     98.4     99.1     81.0     86.0     86.2     68.5     87.5     90.1
"""
COLUMNS_OF_DIM = [(d, ipc) for d in ("cifar10", "mnist", "fashion_mnist", "svhn") for ipc in (1, 10, 50)]
QUOTED = {"random", "dc", "dsa", "dm", "cafe", "mtt"}
"""Methods beside DiM whose numbers stand in papers of others alone."""

PRINTED = [("datm", COLUMNS, line) for line in TABLE_1.strip().splitlines()]
PRINTED += [("dim", COLUMNS_OF_DIM, line) for line in BASELINES_OF_DIM.strip().splitlines()]


@pytest.mark.parametrize(
    ("paper", "columns", "line"), PRINTED, ids=[f"{p}-{line.split()[0]}" for p, _, line in PRINTED]
)
def test_main_tables_as_they_are_printed(paper, columns, line):
    method, *printed = line.split()
    for (dataset, ipc), text in zip(columns, printed, strict=True):
        found = results.find(paper, table="main", method=method, dataset=dataset, ipc=ipc)
        if text == "-":
            assert found is None
            continue
        value, _, std = text.partition("±")
        expected = (None, None, "not found") if text == "?" else (float(value), float(std) if std else None, "reported")
        assert (found.value, found.std, found.state) == expected
        unverified = method != "datm" if paper == "datm" else method in QUOTED or found.source_key == "pad"
        assert text == "?" and paper == "datm" or found.unverified == unverified


AVERAGES = {  # as printed beside the eight networks of each row
    "cifar10": {"random": 75.60, "glister": 66.81, "forgetting": 76.17, "datm": 79.37},
    "cifar100": {"random": 39.95, "glister": 34.16, "forgetting": 42.30, "datm": 50.92},
    "tiny_imagenet": {"random": 17.08, "glister": 15.32, "forgetting": 18.20, "datm": 31.76},
}


@pytest.mark.parametrize("dataset", AVERAGES)
def test_the_networks_of_datms_cross_architecture_table_have_its_averages(dataset):
    ipc = {"cifar10": 1000, "cifar100": 100, "tiny_imagenet": 50}[dataset]
    rows: dict = {}
    for r in results.references("datm"):
        if (r.table, r.dataset, r.ipc) == ("cross_architecture", dataset, ipc):
            rows.setdefault(r.method, []).append(r.value)
    assert {method: len(values) for method, values in rows.items()} == dict.fromkeys(AVERAGES[dataset], 8)
    for method, values in rows.items():
        assert sum(values) / 8 == pytest.approx(AVERAGES[dataset][method], abs=0.01), method  # some are cut off


SETTINGS_OF_DATM = """
cifar10       1    80 2 0  -  4  -    100   5  1e-7 10   correct 1.1
cifar10       10   80 2 0  10 20 1000 100   2  1e-5 100  correct 1.0
cifar10       50   80 2 0  20 40 2000 1000  2  1e-5 500  correct 1.0
cifar10       500  40 2 40 -  60 -    50    10 1e-5 1000 correct 1.0
cifar10       1000 100 2 40 - 60 -    50    10 1e-5 1000 correct 1.0
cifar100      1    40 3 0  10 20 1000 1000  10 1e-5 1000 correct 1.0
cifar100      10   80 2 0  30 50 2000 1000  10 1e-5 1000 correct 1.0
cifar100      50   80 2 20 -  70 -    1000  10 1e-5 1000 real    1.0
cifar100      100  80 2 30 -  70 -    50    10 1e-5 1000 correct 1.0
tiny_imagenet 1    40 2 0  15 20 2000 10000 10 1e-4 1000 correct 1.0
tiny_imagenet 10   40 2 10 -  50 -    100   10 1e-4 500  correct 1.0
tiny_imagenet 50   20 2 40 -  70 -    100   10 1e-4 1000 correct 1.0
"""
NAMES = ("syn_steps", "expert_epochs", "min_start_epoch", "initial_max_start_epoch", "max_start_epoch", "expansion_end")
NAMES += ("lr_images", "lr_labels", "lr_lr", "batch_syn", "init", "threshold")


@pytest.mark.parametrize("line", SETTINGS_OF_DATM.strip().splitlines(), ids=lambda line: "-".join(line.split()[:2]))
def test_datms_twelve_settings_as_they_are_published(line):
    dataset, ipc, *printed = line.split()
    found = results.published("datm", method="datm", dataset=dataset, ipc=int(ipc))
    for name, text in zip(NAMES, printed, strict=True):
        expected = text if name == "init" else None if text == "-" else float(text)
        assert found[name] == expected, name
    assert (found["lr_student"], found["experts"], found["expert_training"], found["alpha"]) == (0.01, 100, 100, 0.3)
    assert found["evaluation"] == {"batch_size": 128}


def test_the_two_numbers_of_dim_that_were_read():
    own = [r for r in results.references("dim") if r.method in ("dim", "gan") and r.value is not None]
    read = {(r.table, r.ipc, r.network, r.value, r.std) for r in own if not r.unverified}
    assert read == {
        *((table, 10, "convnet", 72.6, None) for table in ("main", "architectures", "redeployment", "components")),
        ("architectures", 10, "resnet18", 75.1, None),
    }
    assert {(r.ipc, r.network, r.value) for r in own if r.unverified} == {
        (50, "convnet", 72.6),
        (50, "resnet18", 75.1),
    }
    assert {(r.dataset, r.source_key) for r in own} == {("cifar10", "abstract"), ("cifar10", "hypothesis")}


@pytest.mark.parametrize(
    ("dataset", "epoch", "gan", "dim"),
    [
        ("cifar10", (390, 781), 58_500, 78_100),
        ("svhn", (572, 1144), 85_800, 114_400),
        ("mnist", (468, 937), 70_200, 93_700),
        ("fashion_mnist", (468, 937), 70_200, 93_700),
    ],
)
def test_dims_settings_follow_from_the_epochs_of_a_data_set(dataset, epoch, gan, dim):
    images = datasets.describe(dataset).sizes[0]
    for ipc, batch in {1: 10, 10: 25, 50: 50}.items():
        found = results.published("dim", method="dim", dataset=dataset, ipc=ipc)
        assert (found["gan_iterations"], found["iterations"], found["refresh"]) == (gan, dim, epoch[1])
        assert epoch == (images // found["gan_batch"], images // found["batch_size"])
        assert (gan, dim) == (150 * epoch[0], 100 * epoch[1])
        assert found["evaluation"] == {"batch_size": batch} and (10 * ipc) % batch == 0
        plain = results.published("dim", method="gan", dataset=dataset, ipc=ipc)
        assert plain == {name: found[name] for name in plain}


TABLE_4 = """
dsa  -  42.3±3.5 52.3±.7  45.1±8.3 40.1±7.6 36.1±.4  38.1±.4
dm   -  44.4±.5  52.6±.4  50.6±.5  47.5±.7  35.4±.4  36.0±.5
glad dc 45.9±1.0 53.1±1.4 50.1±.6  48.9±1.1 38.9±1.0 38.4±.7
glad dm 45.8±.6  52.8±1.0 51.3±.6  49.7±.4  36.4±.4  38.6±.7
ld3m dc 47.1±1.2 55.2±1.0 51.8±1.4 49.9±1.3 39.5±1.0 39.0±1.3
ld3m dm 47.3±2.1 57.0±1.3 52.3±1.1 48.2±4.9 39.5±1.5 39.4±1.8
"""


@pytest.mark.parametrize("line", TABLE_4.strip().splitlines(), ids=lambda line: "-".join(line.split()[:2]))
def test_ld3ms_table_4_as_it_is_printed_with_its_means(line):
    method, condition, *printed = line.split()
    place = {"table": "main", "method": method, "condition": condition.strip("-"), "ipc": 10, "network": "unseen"}
    found = [
        results.find("ld3m", dataset=f"imagenet_{name}_128", **place) for name in ("a_to_e", "a", "b", "c", "d", "e")
    ]
    assert [[r.value, r.std] for r in found] == [[float(n) for n in text.split("±")] for text in printed]
    assert not any(r.unverified for r in found) and {r.comparable for r in found} == {method != "glad"}
    mean, *each = (r.value for r in found)
    assert sum(each) / 5 == pytest.approx(mean, abs=0.06)


def test_ld3ms_gains_are_relative_where_they_are_called_so():
    known = results.references("ld3m")
    means = [r for r in known if (r.dataset, r.metric) == ("imagenet_a_to_e_128", "accuracy")]
    mean = {(r.method, r.condition): r.value for r in means}
    gain = {r.condition: r.value for r in known if r.metric == "gain"}
    for condition in ("dc", "dm"):
        ratio = mean["ld3m", condition] / mean["glad", condition]
        assert 100 * (ratio - 1) == pytest.approx(gain[condition], abs=0.25)  # of means that were rounded
    by_ipc = {r.ipc: r.value for r in known if r.metric == "points"}
    assert by_ipc[10] == pytest.approx(57.0 - 52.8)


NORMS = """
10 .0293 58.1 1984
20 .0188 33.5 1779
30 .0129 19.8 1535
40 .0149 15.4 1033
50 .0142 13.9 978
60 .0127 12.1 956
70 .0124 10.4 838
80 .0122 8.7  715
90 .0129 6.5  504
"""


@pytest.mark.parametrize("line", NORMS.strip().splitlines(), ids=lambda line: line.split()[0])
def test_ld3ms_table_1_and_what_of_it_is_noising(line):
    steps, noising, raw, divided = (float(text) for text in line.split())
    place = {"method": "ld3m", "dataset": "unstated", "ipc": 1, "condition": f"T = {steps:g}"}
    read, made = (
        results.find("ld3m", table="gradient_norms", metric=metric, **place)
        for metric in ("gradient_norm", "start_gradient_norm")
    )
    assert (read.value, read.unverified, made.value, made.unverified) == (raw, False, divided, True)
    assert raw / noising == pytest.approx(divided, rel=0.006)  # a_K has three figures


REPRINTED = """
unseen  mtt  -   22.0 14.8 17.1 22.3 16.2 25.5
unseen  glad mtt 30.4 17.1 21.1 -    19.6 28.2
unseen  ld3m mtt 32.0 19.9 21.4 -    22.1 30.4
unseen  gsdd -   58.1 34.6 39.9 53.6 34.0 58.0
convnet glad dm  32.2 21.2 21.8 -    22.3 27.6
convnet dsa  -   34.2 22.5 21.0 -    22.0 32.0
convnet ld3m dm  -    -    -    -    -    -
"""


@pytest.mark.parametrize("line", REPRINTED.strip().splitlines(), ids=lambda line: "-".join(line.split()[:3]))
def test_what_is_reprinted_beside_ld3m_is_unverified_and_its_own_tables_are_not_found(line):
    network, method, condition, *printed = line.split()
    for name, text in zip(("nette", "woof", "fruits", "yellow", "cats", "birds"), printed, strict=True):
        place = {"dataset": f"image{name}_128", "ipc": 1, "network": network, "condition": condition.strip("-")}
        found = results.find("ld3m", table="main", method=method, **place)
        if text != "-":
            assert (found.value, found.unverified, found.source_key) == (float(text), True, "gsdd")
        else:
            assert name == "yellow" or (found.value, found.state, found.unverified) == (None, "not found", True)


OF_ATOM = {"table": "main", "dataset": "cifar10"}
OF_DATM = {"method": "datm", "dataset": "cifar10"}
OF_LD3M = {"method": "ld3m", "dataset": "unstated", "ipc": 1}


@pytest.mark.parametrize(
    ("paper", "usual", "where", "value", "marks"),
    [
        ("datm", OF_DATM, {"table": "lossless", "ipc": 2000}, 87.2, (True, True, "plot")),
        ("datm", OF_DATM, {"table": "lossless", "ipc": 1000}, 85.5, (False, True, "table1")),
        ("datm", OF_DATM, {"table": "lossless", "method": "random", "ipc": 50}, 50.6, (True, True, "quoted")),
        ("datm", OF_DATM, {"table": "main", "method": "whole", "ipc": None}, 84.8, (True, False, "quoted")),
        ("datm", OF_DATM, {"table": "main", "method": "whole", "dataset": "tiny_imagenet", "ipc": None}, 37.6,
         (True, False, "quoted")),
        ("datm", OF_DATM, {"table": "cross_architecture", "ipc": 1000, "network": "resnet18_bn"}, 88.13,
         (True, True, "pad")),
        ("datm", OF_DATM, {"table": "large_images", "dataset": "imagewoof_128", "ipc": 50}, 47.1, (True, False, "edf")),
        ("datm", OF_DATM, {"table": "when_to_match", "ipc": 10, "condition": "late"}, None, (True, True, "unread")),
        ("datm", OF_DATM, {"table": "components", "ipc": 10, "condition": "hard labels"}, None, (True, True, "unread")),
        ("ld3m", OF_LD3M, {"table": "cifar10", "dataset": "cifar10", "ipc": 50, "condition": "mtt"}, 73.2,
         (True, True, "audit")),
        ("ld3m", OF_LD3M, {"table": "components", "condition": "with diffusion"}, 36.5, (False, False, "prose")),
        ("ld3m", OF_LD3M, {"table": "components", "condition": "Z and c, residual"}, 28.1, (False, False, "prose")),
        ("ld3m", OF_LD3M, {"table": "components", "condition": "dm, Gaussian start"}, None, (True, False, "unread")),
        ("ld3m", OF_LD3M, {"table": "steps", "condition": "T = 20", "metric": "minutes"}, 574, (False, False, "prose")),
        ("ld3m", OF_LD3M, {"table": "steps", "condition": "T = 20", "metric": "megabytes"}, 29400,
         (False, False, "prose")),
        ("ld3m", OF_LD3M, {"table": "steps", "condition": "T = 20"}, None, (True, True, "unread")),
        ("ld3m", OF_LD3M, {"table": "resolution", "dataset": "imagenet_a_256", "condition": "dc"}, None,
         (True, True, "unread")),
        ("atom", OF_ATOM, {"method": "datadam", "ipc": 50}, (67.0, 0.4, 2.0), (False, True)),
        ("atom", OF_ATOM, {"method": "datadam", "dataset": "tiny_imagenet", "ipc": 10}, (18.7, 0.3, 2.0),
         (False, True)),
        ("atom", OF_ATOM, {"method": "dm", "ipc": 10}, (48.9, 0.6, 1.5), (True, True)),
        ("atom", OF_ATOM, {"method": "dm", "dataset": "tiny_imagenet", "ipc": 50}, (24.1, 0.3, 1.5), (True, True)),
        ("atom", OF_ATOM, {"method": "random", "ipc": 1}, (15.4, None, 1.5), (False, True)),
        ("atom", OF_ATOM, {"method": "random", "ipc": 50}, (50.6, None, 1.5), (False, True)),
        ("atom", OF_ATOM, {"method": "dsa", "dataset": "tiny_imagenet", "ipc": 50}, (25.3, None, 1.5), (False, True)),
        ("atom", OF_ATOM, {"method": "dc", "ipc": 10}, (44.9, 0.5, 1.5), (True, False)),
        ("atom", OF_ATOM, {"method": "herding", "dataset": "cifar100", "ipc": 50}, (33.7, 0.5, None), (True, False)),
        ("atom", OF_ATOM, {"method": "mtt", "ipc": 50}, (71.6, 0.2, None), (True, True)),
        ("atom", OF_ATOM, {"method": "whole", "ipc": None}, (84.8, 0.1, None), (True, True)),
        ("atom", OF_ATOM, {"table": "cross_architecture", "method": "datadam", "ipc": 50, "network": "vgg11"}, 64.8,
         ()),
        ("atom", OF_ATOM, {"table": "nas", "method": "datadam", "ipc": 50, "condition": "top 20 %",
                           "metric": "correlation"}, 0.69, ()),
    ],
)  # fmt: skip
def test_single_cells(paper, usual, where, value, marks):
    found = results.find(paper, **usual | where)
    assert (
        (found.value, found.std, found.delta)[: len(value)] == value if type(value) is tuple else found.value == value
    )
    assert (found.unverified, found.comparable, found.source_key)[: len(marks)] == marks


def test_unknown_papers_and_tables():
    assert results.find("atom", table="main", method="nobody", dataset="cifar10", ipc=1) is None
    with pytest.raises(ValueError, match="unknown paper 'mota'; known: atom"):
        results.references("mota")
    with pytest.raises(ValueError, match="unknown table 'mian' of atom; known: main, "):
        results.find("atom", table="mian", method="dm", dataset="cifar10", ipc=1)


FILE = """
paper: x
title: X
sources: {a: A poster, b: A reader}
references:
  - table: main
    shared: {dataset: cifar10}
    rows:
      - {method: dm, source: a, n: 5, delta: 2, note: N, cells: {1: [26, 0.8], all: 80.5}}
claims:
  - {id: c, statement: S, where: here, source: a, test: {higher: dm, lower: random, datasets: [d], ipc: [1]}}
settings:
  - {method: dm, dataset: cifar10, source: a, values: {iterations: 5, lr: 1.0}, by_ipc: {1: {}, 10: {lr: 2.0}, all: {}}}
  - {method: dm, dataset: [cifar10, svhn], condition: fast, source: a, by_ipc: {10: {lr: 3.0}}}
"""
ROW = "{method: dm, source: a, n: 5, delta: 2, note: N, cells: {1: [26, 0.8], all: 80.5}}"
PLAIN = "{method: dm, source: a, cells: {1: 2}}"
TEST = "{higher: dm, lower: random, datasets: [d], ipc: [1]}"


def read(tmp_path, old="", new="", name="x.yaml"):
    """The file with one part of it replaced."""
    assert old in FILE
    (tmp_path / name).write_text(FILE.replace(old, new, 1) if old else FILE)
    return results.load(tmp_path / name)


def test_a_file_is_read(tmp_path, monkeypatch):
    paper = read(tmp_path)
    first, whole = paper.references
    assert (first.value, first.std, first.n, first.delta, first.ipc, first.note) == (26.0, 0.8, 5, 2, 1, "N")
    assert (whole.value, whole.std, whole.ipc, whole.primary) == (80.5, None, None, True)
    assert (first.source, first.source_key, first.dataset) == ("A poster", "a", "cifar10")
    assert (paper.claims[0].higher, paper.claims[0].ipc, paper.claims[0].networks) == ("dm", (1,), ("convnet",))
    monkeypatch.setattr(sys.modules["ddlib.results.papers"], "_named", lambda _: paper)
    places = {None: (None, ""), 1: (1, ""), 10: (10, ""), "fast": (10, "fast"), "slow": (10, "slow")}
    stated = {
        name: results.published("x", method="dm", dataset="cifar10", ipc=ipc, condition=condition)
        for name, (ipc, condition) in places.items()
    }
    usual = {"iterations": 5, "lr": 1.0}
    assert stated == {None: usual, 1: usual, 10: usual | {"lr": 2.0}, "fast": {"lr": 3.0}, "slow": {}}
    assert results.published("x", method="dm", dataset="svhn", ipc=10, condition="fast") == {"lr": 3.0}


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (ROW, "{method: dm, source: a, cell: {1: 2}}", "main, dm, cifar10: 'cells'"),
        (ROW, "{source: a, colour: red, cells: {1: 2}}", "unexpected keyword argument 'colour'"),
        (ROW, "{method: dm, source: z, cells: {1: 2}}", "unknown source 'z'; known: a, b"),
        (ROW, "{method: dm, source: a, metric: size, cells: {1: 2}}", "unknown metric 'size'; known: accuracy"),
        (ROW, "{method: dm, source: a, by: seed, cells: {1: 2}}", "unknown by 'seed'; known: ipc, network, condition"),
        (ROW, "{method: dm, source: a, ipc: 1, cells: {1: 2}}", "ipc stands in the row or in its cells"),
        (ROW, "{method: dm, source: a, n: 1, cells: {1: [1, 2]}}", "n is from 2"),
        (ROW, "{method: dm, source: a, delta: 0, cells: {1: [1, 2]}}", "delta positive"),
        (ROW, "{method: dm, source: a, cells: {0: 2}}", "ipc is 0; allowed: an integer from 1, or all"),
        (ROW, "{method: dm, source: a, cells: {1: 101}}", r"101 is not a number in \[0.0, 100.0\]"),
        (ROW, "{method: dm, source: a, cells: {1: [1, 2, 3]}}", "not a number"),
        (ROW, "{method: dm, source: a, cells: {1: [1, -2]}}", "the std -2 is not a number from 0"),
        (ROW, "{method: dm, source: a, cells: {1: null}}", "the value is None, but its state is 'reported'"),
        (ROW, "{method: dm, source: a, cells: {1: 3, 1: 4}}", "line 9: key 1 stands twice"),
        (ROW, "{method: dm, source: a, cells: {1: 3}", "x.yaml: while parsing"),
        (ROW, "three", "x.yaml: unsupported operand"),
        (ROW, f"{PLAIN}\n      - {PLAIN}", "has 2 references, of which 0 are primary; mark one"),
        (TEST, "{higher: dm, lower: r, rises: dm, datasets: [d], ipc: [1]}", "a test names higher and lower"),
        (TEST, "{rises: dm, along: width, datasets: [d], ipc: [1]}", "along is 'width'; allowed: ipc or networks"),
        (TEST, "{higher: dm, lower: r, along: ipc, datasets: [d], ipc: [1]}", "along is 'ipc'; .*, beside rises"),
        (TEST, "{rises: dm, shown_in: x/n, datasets: [d], ipc: [1]}", "or rises alone, or shown_in alone"),
        (TEST, "{shown_in: x/n, measured: {table: t, column: c}, datasets: [d], ipc: [1]}", "'c': .*'rows', 'higher'"),
        (TEST, "{rises: dm, ipc: [1]}", "claim 'c': .* missing .* 'datasets'"),
        (TEST, "{rises: dm, datasets: d, ipc: [1]}", "datasets is 'd'; allowed: a list"),
        (TEST, "{rises: dm, datasets: [d], ipc: [1], network: [vgg11]}", "unexpected keyword argument 'network'"),
        ("by_ipc", "ipcs", "settings of 'dm': unknown key 'ipcs'; known: method, dataset"),
        (", by_ipc: {1: {}, 10: {lr: 2.0}, all: {}}", "", "settings of 'dm': 'by_ipc'"),
        ("10: {lr: 2.0}", "10: 2.0", "settings of 'dm': .* 'float'"),
        ("condition: fast", "condition: ''", r"setting \('dm', 'cifar10', 10, ''\) stands twice"),
        ("paper: x", "paper: y", "paper is 'y'; the file's name says 'x'"),
        ("title: X", "", "x.yaml: 'title'"),
        ("claims:", "claims:\n  - {id: c, statement: S, where: h, source: a, test: {rises: d, datasets: [], ipc: []}}",
         "claim 'c' stands twice"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_say_is_refused(tmp_path, old, new, match):
    with pytest.raises(ValueError, match=match) as caught:
        read(tmp_path, old, new)
    assert "x.yaml" in str(caught.value)


def test_every_notebook_that_shows_a_claim_exists_and_is_named_by_it():
    shown = {claim.shown_in: claim for paper in results.papers() for claim in results.claims(paper) if claim.shown_in}
    assert set(shown) == {"compare/continual", "atom/nas", "atom/cost"}
    assert all((ROOT / "notebooks" / f"{name}.ipynb").exists() for name in shown)
    assert shown["compare/continual"].measured.lower == "DM" and shown["atom/cost"].measured is None


@pytest.mark.parametrize("paper", PAPERS)
def test_stated_settings_are_those_of_a_method(paper):
    """What a file states has the names of the method's fields, so that a cell can be compared with it."""
    stated = results.load(ROOT / "ddlib" / "results" / "papers" / f"{paper}.yaml").settings
    for (method, dataset, _, _), values in stated.items():
        values = dict(values)
        told = values.pop("evaluation", {})
        for network in ("", *told.get("by_network", {})):
            evaluation.Protocol(**for_network([told], network))
        assert type(values.pop("whitened", True)) is bool
        assert values.keys() <= set(methods.hyperparameters(methods.find(method))), method
        assert dataset in datasets.names()


MAIN_TABLES = sorted((ROOT / "params").glob("*/accuracy*.paper.yaml"))


@pytest.mark.parametrize("path", MAIN_TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_main_table_has_the_stated_settings(path):
    """What a file states of the methods of a table stands in the parameters too, all of it, and the same."""
    paper = path.parent.name
    chosen = settings(yaml.safe_load(path.read_text(encoding="utf-8")))
    stated = results.load(ROOT / "ddlib" / "results" / "papers" / f"{paper}.yaml").settings
    cells = study.cells(chosen, paper=paper, table="main")
    found = {(cell.method.name, chosen.reference_dataset) for cell in cells}
    wanted = {(method, ipc) for method, dataset, ipc, _ in stated if (method, dataset) in found}
    theirs = [cell for cell in cells if cell.reported and (cell.method.name, cell.ipc) in wanted]
    assert {(cell.method.name, cell.ipc) for cell in theirs} == wanted
    assert {cell.label: study.deviations(cell) for cell in theirs} == {cell.label: [] for cell in theirs}


WITH_CLAIMS = [
    path
    for path in sorted((ROOT / "params").glob("*/*.yaml"))
    if path.parent.name in results.papers() and not path.stem.startswith("cost.")
]
"""Parameter files of a paper's accuracies; the rows of a table of costs are one method many times."""


@pytest.mark.parametrize("path", WITH_CLAIMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_claims_can_be_checked_on_the_rows_of_every_parameter_file(path):
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    records = [
        results.Record(
            accuracies=[50.0, 51.0, 52.0], label=label, method=row["method"], dataset=told["dataset"], ipc=ipc, cell={}
        )
        for ipc in told["ipcs"]
        for label, row in told["methods"].items()
        if ipc in row.get("ipcs", told["ipcs"])
    ]
    for claim in results.claims(path.parent.name):
        assert results.check_claim(claim, records).outcome in ("holds", "fails", "undecided")
