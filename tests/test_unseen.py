"""The mean over networks that nothing was distilled with: numbers worked out by hand."""

import math

import pytest
from refusals import refuses

from ddlib import report, results
from ddlib.results import Record, Reference, compare, unseen

NETWORKS = {"convnet": (90.0, 80.0, 70.0), "vgg11": (30.0, 32.0, 34.0), "vit": (20.0, 24.0, 19.0)}


def record(network, accuracies, label="LD3M", **fields):
    common = {"method": "ld3m", "dataset": "cifar10", "ipc": 1}
    cell = {"tested_on": network, "protocol": {"network": network}, "seeds": [0, 1, 2]}
    return Record(accuracies=accuracies, label=label, **(common | {"cell": cell} | fields))


def records(**fields):
    return [record(network, accuracies, **fields) for network, accuracies in NETWORKS.items()]


def reference(network, value=None):
    state = "reported" if value else "not found"
    place = {"paper": "p", "table": "t", "method": "ld3m", "dataset": "cifar10", "ipc": 1, "condition": "dm"}
    return Reference(**place, network=network, value=value, source="S", state=state)


def test_the_mean_is_over_the_unseen_networks_repeat_by_repeat():
    (mean,) = unseen(records())
    assert mean.accuracies == (25.0, 28.0, 26.5) and mean.network == results.UNSEEN == "unseen"
    assert mean.accuracy_mean == 26.5 and mean.accuracy_std == pytest.approx(1.5)
    assert mean.accuracy_std_between_seeds == pytest.approx(1.5)
    assert mean.cell["networks"] == {"vgg11": {"network": "vgg11"}, "vit": {"network": "vit"}}
    assert mean.cell["their_deviation"] == pytest.approx((math.sqrt(8 / 3) + math.sqrt((1 + 9 + 4) / 3)) / 2)
    assert unseen(records(), seen=())[0].accuracies == (140 / 3, 136 / 3, 123 / 3)
    assert unseen([]) == []


def test_convnets_are_told_by_their_protocol_whatever_they_are_called():
    protocols = {"convnet": "convnet", "vgg11": "vgg11", "no DSA": "convnet"}
    cells = [{"tested_on": name, "protocol": {"network": kind}} for name, kind in protocols.items()]
    found = [record("x", (1.0,), cell=cell) for cell in (*cells, {"tested_on": "vit"})]
    assert results.convnets(found) == ("convnet", "no DSA")


def test_a_mean_deviates_where_one_of_its_records_does():
    of = [("vgg11", ["a"], "x"), ("vit", ["b", "a"], "y")]
    group = [
        record(network, (1.0, 2.0), deviations=deviations, provenance={"commit": commit, "dirty": False})
        for network, deviations, commit in of
    ]
    (mean,) = unseen(group, seen=())
    assert mean.deviations == ("a", "b") and mean.verdict == "PROXY"
    assert mean.provenance == {"commit": ["x", "y"], "dirty": False}


def test_a_mean_stands_beside_what_the_paper_reports_for_it(monkeypatch):
    asked = []

    def find(**where):
        asked.append(where)
        return reference("unseen", 26.4)

    monkeypatch.setattr("ddlib.results.records.find", find)
    known = [record(name, found, reference=reference(name)) for name, found in NETWORKS.items()]
    assert unseen(known)[0].reference.value == 26.4
    place = {"paper": "p", "table": "t", "method": "ld3m", "dataset": "cifar10", "ipc": 1, "condition": "dm"}
    assert asked == [place | {"network": "unseen"}]
    assert unseen(records())[0].reference is None


def test_means_serve_wherever_records_do():
    ours, other = unseen([*records(), *(record(n, [a - 5 for a in v], "GLaD") for n, v in NETWORKS.items())])
    assert compare(ours, other).difference == pytest.approx(5)
    claim = results.Claim(
        paper="p", id="c", statement="S.", where="t", source="s", higher="LD3M", lower="GLaD", datasets=("cifar10",),
        ipc=(1,), networks=("unseen",),
    )  # fmt: skip
    assert results.check_claim(claim, [ours, other]).outcome == "holds"
    assert Record.from_json(ours.to_json()) == ours


def test_the_table_has_the_deviation_both_ways_and_a_mean_with_what_was_not_run_was_not_run():
    missing = record("vit", (), "GLaD", cost={"estimated_hours": 3.0})
    (mean,) = unseen([record("vgg11", (1.0, 2.0), "GLaD"), missing], seen=())
    assert mean.verdict == "NOT RUN" and mean.cost == {"estimated_hours": 3.0} and mean.n == 0
    assert mean.cell["their_deviation"] is None
    shown = report.unseen_table([*records(), *(record(name, (), "GLaD") for name in NETWORKS)])
    lines = [" ".join(line.split()) for line in str(shown).splitlines()]
    assert lines[:3] == ["2 cells: 1 NOT RUN, 1 NO REFERENCE", "", "cifar10, mean test accuracy in % over vgg11, vit"]
    assert lines[3] == "method IPC paper ours their ± verdict"
    assert lines[5:7] == ["LD3M 1 - 26.5 ± 1.5 (3) ± 1.9 NO REFERENCE", "GLaD 1 - not run - NOT RUN"]
    assert "ours: mean over the networks ± sample deviation of that mean (number of repeats)." in " ".join(lines)
    assert "the mean of the networks' own deviations (population)" in " ".join(lines)
    assert "NOT RUN</td>" in shown._repr_html_()


test_what_has_no_mean_is_refused = refuses(
    unseen,
    [
        (records(), ["convnot"], "seen names 'convnot'; known: convnet, vgg11, vit"),
        (records(), list(NETWORKS), "leaves no network of convnet, vgg11, vit"),
        (records()[:2] + [record("vit", (1.0,))], ["convnet"], "accuracies of 3 on vgg11, 1 on vit; allowed: as many"),
        ([*records(), record("vgg11", (1.0,), "GLaD")], ["convnet"], r"'GLaD', .* on vgg11; allowed: vgg11, vit, each"),
        ([*records(), records()[2]], ["convnet"], "tested on vgg11, vit, vit; allowed: vgg11, vit, each once"),
    ],
)  # fmt: skip
