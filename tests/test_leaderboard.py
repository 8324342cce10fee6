"""The ranking of all methods: its tests against worked examples, its table and its figures from hand-made records."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from refusals import refuses
from scipy import stats
from statsmodels.stats.multitest import multipletests

from ddlib import report
from ddlib.results import Record, neighbours, scores
from ddlib.results.statistics import ranked, seed_means


def record(accuracies, label="DM", method="", seeds=(0, 1, 2), network="convnet", ipc=1, **cost):
    cell = {"tested_on": network, "seeds": list(seeds)}
    known = {"bytes_stored": 10_240, "bits_per_class": 8192.0, "images_shown": 10, "distil_seconds": 6.0}
    known |= {"prerequisite_seconds": 0.0, "evaluate_seconds": 3.0}
    fields = {"method": method or label.lower(), "dataset": "digits", "ipc": ipc, "cell": cell, "cost": known | cost}
    return Record(accuracies=accuracies, label=label, **fields)


RANDOM = record((70.0, 72.0, 69.0, 71.0, 73.0, 71.0), "Random")
DM = record((89.0, 88.0, 90.0, 91.0, 87.0, 88.0), "DM")
ATOM = record((88.0, 89.0, 88.5, 90.0, 87.0, 88.0), "ATOM")
SOFT = record((80.0, 82.0, 81.0, 79.0, 83.0, 84.0), "DATM")
HARD = record((75.0, 76.0, 73.0, 74.0, 76.0, 77.0), "DATM, hard labels", "datm")
WHOLE = record((95.0, 96.0, 94.0), "Whole", ipc=None, bytes_stored=1_000_000)
GAN = record((84.0, 85.0, 86.0, 84.0, 83.0, 85.0), "GAN", bytes_stored=320_000, prerequisite_seconds=50.0)
JUDGED = [RANDOM, DM, ATOM, SOFT, HARD, WHOLE, GAN]


def on(network, records, shift):
    return [
        replace(r, cell=r.cell | {"tested_on": network}, accuracies=tuple(a + shift for a in r.accuracies))
        for r in records
    ]


RECORDS = [*JUDGED, *on("plain", JUDGED, 0.5), *on("mlp", JUDGED, -6.0), *on("resnet10", JUDGED, -10.0)]
TOLD = {"plain": "plain", "hard": {"DATM": "DATM, hard labels"}}


def holm(values):
    """p values by Holm's step-down correction, of statsmodels."""
    return multipletests(values, method="holm")[1]


def test_neighbours_are_tested_by_networks_and_by_sets():
    pairs = neighbours(JUDGED)
    assert [pair.above.label for pair in pairs] == ["Whole", "DM", "ATOM", "GAN", "DATM", "DATM, hard labels"]
    assert all(one.below is next_.above for one, next_ in itertools.pairwise(pairs))
    by_networks = [stats.ttest_ind(p.above.accuracies, p.below.accuracies, equal_var=False).pvalue for p in pairs]
    means = [[np.reshape(r.accuracies, (3, -1)).mean(1) for r in (p.above, p.below)] for p in pairs]
    by_sets = [stats.ttest_rel(*both).pvalue for both in means]  # all rows have the same three seeds
    assert [pair.p_networks for pair in pairs] == pytest.approx(holm(by_networks))
    assert [pair.p_sets for pair in pairs] == pytest.approx(holm(by_sets))
    assert [pair.significant() for pair in pairs] == [p < 0.05 for p in holm(by_sets)]


def test_networks_of_one_set_count_as_one_and_other_seeds_are_independent():
    many = record([95.0, 95.1] * 30 + [60.0, 60.1] * 30, "many", seeds=(0, 1))
    (pair,) = neighbours([many, record([70.0, 70.1] * 60, "few", seeds=(0, 1))])
    assert pair.p_networks < 0.01 and pair.p_sets > 0.5 and not pair.significant()
    (pair,) = neighbours([DM, replace(ATOM, cell=ATOM.cell | {"seeds": [3, 4, 5]})])
    means = [np.reshape(r.accuracies, (3, -1)).mean(1) for r in (DM, ATOM)]
    assert pair.p_sets == pytest.approx(stats.ttest_ind(*means, equal_var=False).pvalue)


def test_a_single_value_is_not_tested_and_corrects_no_other():
    one = record((99.0,), "Whole", seeds=(0,), ipc=None)
    pairs, alone = neighbours([one, DM, RANDOM]), neighbours([DM, RANDOM])
    assert pairs[0].p_networks is None and pairs[0].p_sets is None and not pairs[0].significant()
    assert pairs[1].p_networks == alone[0].p_networks


def test_equal_means_keep_their_order_and_what_was_not_run_is_left_out():
    twin = replace(DM, label="twin")
    assert [r.label for r in ranked([record((), "none"), twin, DM])] == ["twin", "DM"]
    for wrong in (record((1.0, 2.0)), record((1.0,), seeds=()), record(())):
        with pytest.raises(ValueError, match="as many for each"):
            seed_means(wrong)


def test_entries_have_the_scores_of_their_own_sides():
    (entries,) = report.standings(RECORDS, **TOLD).values()
    found = {entry.record.label: entry for entry in entries}
    mean = {r.label: np.mean(r.accuracies) / 100 for r in JUDGED}
    hlr, ior = (found["DATM"].lrs.components[name].value for name in ("HLR", "IOR"))
    assert hlr == pytest.approx(mean["Whole"] - mean["DATM, hard labels"])  # with the labels of the other row
    assert ior == pytest.approx(mean["DATM"] - mean["Random"])
    assert found["DM"].lrs.components["HLR"].value == pytest.approx(mean["Whole"] - mean["DM"])
    noaug, random_noaug = on("plain", [DM, RANDOM], 0.5)
    robust = scores.ars(aug=DM, random_aug=RANDOM, noaug=noaug, random_noaug=random_noaug)
    assert found["DM"].ars.estimate == robust.estimate
    assert found["Random"].lrs.components["IOR"].value == 0
    assert found["DM"].others.accuracies == pytest.approx([a - 8 for a in DM.accuracies])
    assert found["Whole"].lrs is None and found["Whole"].ars is None  # no random images are as many
    assert entries[-1].pair is None and entries[0].pair.above.label == "Whole"


@pytest.mark.parametrize(
    ("missing", "label", "robust"), [("Whole", False, True), ("Random", False, False), ("plain", True, False)]
)
def test_without_whole_plain_or_random_there_is_no_score(missing, label, robust):
    told = {"hard": TOLD["hard"]} if missing == "plain" else TOLD
    (entries,) = report.standings([r for r in RECORDS if r.label != missing], **told).values()
    assert any(entry.lrs for entry in entries) == label
    assert {entry.ars is not None for entry in entries} == {robust}


FILLING = record((91.0, 90.0, 92.0), "Random, equal bytes", "random", ipc=29)


def test_a_generator_is_held_against_the_real_images_of_its_bytes():
    told = TOLD | {"equal_bytes": {"GAN": "Random, equal bytes"}}
    ((ipc, entries),) = report.standings([*RECORDS, FILLING], **told).items()  # no group of its own
    found = {entry.record.label: entry for entry in entries}
    ten = [replace(r, ipc=10) for r in RECORDS if r.ipc and r.label != "GAN"]
    groups = report.standings([*RECORDS, *ten, FILLING], **told)
    assert [ipc for ipc, every in groups.items() if FILLING in [entry.record for entry in every]] == [1]
    assert ipc == 1 and [entry.record.label for entry in entries][:2] == ["Whole", "Random, equal bytes"]
    by_bytes = np.array(seed_means(GAN)) - seed_means(FILLING)
    low, high = stats.t.interval(0.95, 2, by_bytes.mean(), stats.sem(by_bytes))
    assert found["GAN"].by_bytes == scores.gain(own=GAN, other=FILLING)
    estimate = found["GAN"].by_bytes
    assert (100 * estimate.value, 100 * estimate.low, 100 * estimate.high) == pytest.approx(
        (by_bytes.mean(), low, high)
    )
    assert found["GAN"].lrs.components["IOR"].value > 0 > estimate.high
    assert [label for label, entry in found.items() if entry.by_bytes] == ["GAN"]
    assert found["Random, equal bytes"].lrs is None  # nothing says what as many images reach by another recipe
    text = " ".join(str(report.leaderboard(report.standings([*RECORDS, FILLING], **told))).split())
    assert f"{estimate.value:+.2f} ±" in text and "by the images shown, not by bytes" in text


def test_the_table_is_sorted_and_says_what_is_apart():
    table = report.leaderboard(report.standings(RECORDS, **TOLD))
    ((heading, rows),) = table.groups
    assert heading == "digits, 1 image per class"
    assert [row[0] for row in rows] == [r.label for r in ranked(JUDGED)]
    assert {len(row) for row in rows} == {len(table.columns)}
    p = [entry.pair.p_sets for entry in report.standings(RECORDS, **TOLD)[1][:-1]]
    assert [row[-1] for row in rows] == [*("above" if value < 0.05 else "not told apart" for value in p), ""]
    assert table.head == f"7 rows; {sum(value < 0.05 for value in p)} of 6 pairs of neighbours are apart."
    assert 0 < sum(value < 0.05 for value in p) < 6 and "tied" not in str(table)
    assert [float(row[3]) for row in rows[:-1]] == pytest.approx(p, abs=5e-4)  # before that of networks
    cells = dict(zip(table.columns, (text.strip() for text in rows[1]), strict=True))
    assert cells["accuracy"] == "88.8 ± 1.5" and cells["n"] == "6" and cells["images"] == "10"
    assert cells["making"] == "2" and cells["using"] == "0.5" and cells["kB"] == "10" and cells["kbit/class"] == "8.2"
    assert "Holm" in str(table)


def test_what_is_not_known_is_a_dash_and_one_round_has_no_interval():
    one = [replace(r, accuracies=r.accuracies[:1], cell=r.cell | {"seeds": [0]}) for r in JUDGED]
    rows = report.leaderboard(report.standings(one)).groups[0][1]
    assert {text.split("±")[1].strip() for row in rows for text in row[5:10] if "±" in text} == {"?"}
    bare = Record(accuracies=(50.0,), label="x", method="x", dataset="digits", ipc=1, cell={"seeds": [0]})
    row = report.leaderboard(report.standings([bare])).groups[0][1][0]
    assert row[1].strip() == "50.0" and {text.strip() for text in row[3:-1]} == {"–"}
    with pytest.raises(ValueError, match="different network: own 'convnet', other 'mlp'"):
        scores.gain(own=DM, other=replace(RANDOM, cell=RANDOM.cell | {"tested_on": "mlp"}))


test_standings_are_refused = refuses(
    report.standings,
    [
        ([DM, DM], {}, "two records"),
        ([DM], {"hard": {"DM": "nobody"}}, r"unknown rows \['nobody'\]; known: DM"),
        ([DM, replace(RANDOM, dataset="mnist"), WHOLE], {}, "different dataset"),
    ],
)
