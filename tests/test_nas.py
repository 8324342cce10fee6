"""The architecture search: the space, the store, and what a ranking is worth."""

import json
import math
import multiprocessing
import operator
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from refusals import refuses
from scipy import stats

from ddlib import evaluation, study
from ddlib.analyses import architecture_search as nas
from ddlib.data import datasets, synthetic
from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import Protocol
from ddlib.evaluation.images import training_images
from ddlib.methods import build
from ddlib.seeding import generator
from ddlib.study import work
from ddlib.study.rows import Cell

SMALL = {"depth": [1], "width": [4], "activation": ["relu"], "norm": ["none", "batch", "group"], "pooling": ["avg"]}


def cell(label, method, **evaluation):
    """A cell on digits with short training."""
    protocol = Protocol(**{"num_networks": 1, "epochs": 2, "lr": 0.05} | evaluation)
    return Cell(
        label=label, method=method, dataset="digits", whitened=False, seeds=(0, 1), protocol=protocol,
        reference_dataset="cifar10", paper="atom", table="nas",
    )  # fmt: skip


def cells():
    """Random images, as many updates of all data, and all data."""
    whole = build("whole")
    return [
        cell("Random", build("random", ipc=2)),
        cell("Early stopping", whole, epoch_images=20),
        cell("Whole", whole, epochs=1),
    ]


# The space


def test_the_space_has_720_networks_in_a_stable_order():
    every = nas.space()
    assert len(every) == len({one.name for one in every}) == 4 * 4 * 3 * 5 * 3 == 720
    assert [every[0].name, every[1].name] == ["d1-w32-sigmoid-none-none", "d1-w32-sigmoid-none-max"]
    assert every[-1].name == "d4-w256-leaky_relu-group-avg"
    part = nas.space({"pooling": ["avg"], "width": [64, 32]})
    assert len(part) == 4 * 2 * 3 * 5 and part[0].name == "d1-w64-sigmoid-none-avg" and set(part) <= set(every)


test_a_space_that_there_is_not_is_refused = refuses(
    lambda **values: nas.space(values),
    [
        ({"heads": [1]}, "unknown factor 'heads' of the space; known: depth, width, activation, norm, pooling"),
        ({"depth": []}, r"space\['depth'\]=\[\]; it must be a list of values"),
        ({"width": [8, 8]}, r"each of them once"),
        ({"width": ["8"]}, r"space\['width'\] has '8'; it must be int, such as 64"),
        ({"depth": [0]}, r"space\['depth'\] has 0: depth 0: at least 1 expected"),
    ],
)


# Ranking


def correlation(ours, full, kind="spearman"):
    """Of one search, as it is."""
    return float(nas.coefficients([ours], full, kind)[0, 0])


def agreement(searches, full, kind="spearman", **how):
    """The mean correlation of searches, with its interval."""
    return nas.interval(nas.coefficients(searches, full, kind, **how))


def gain(ours, other, full, **how):
    """The agreement of some searches less that of others."""
    return nas.interval(*(nas.coefficients(table, full, **how) for table in (ours, other)))


@pytest.mark.parametrize("levels", [1000, 7, 2])
def test_correlations_are_those_of_scipy(levels):
    drawn = np.random.default_rng(levels).integers(0, levels, (6, 40)).astype(float)
    for ours, full in zip(drawn[::2], drawn[1::2], strict=True):
        assert correlation(ours, full) == pytest.approx(stats.spearmanr(ours, full).statistic, abs=1e-12)
        assert correlation(ours, full, "kendall") == pytest.approx(stats.kendalltau(ours, full).statistic, abs=1e-12)


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
def test_the_bootstrap_is_that_of_networks_drawn_again(kind):
    """Weights stand for networks that are drawn several times: the same as a plain loop over scipy."""
    stream = np.random.default_rng(0)
    full = np.arange(12.0)
    ours = full + stream.normal(0, 4, 12)
    plain = {"spearman": stats.spearmanr, "kendall": stats.kendalltau}[kind]
    rows = torch.randint(12, (nas.RESAMPLES, 12), generator=generator(0, "bootstrap", "networks", 12)).numpy()
    values = [plain(ours[row], full[row]).statistic for row in rows]
    found = agreement([ours], full, kind)
    assert (found.low, found.high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-9)
    assert found.value == pytest.approx(plain(ours, full).statistic)


TIMES, HELD = 120, range(108, 120)
"""By chance fewer of 120 hold the truth seven times in 1,000 where 95 % do, and as many three times where 80 % do."""


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch):
    """Of normal pairs with correlation r, Spearman's is 6 / pi * asin(r / 2)."""
    monkeypatch.setattr(nas, "RESAMPLES", 300)
    stream, inside, r = np.random.default_rng(1), 0, 0.6
    for seed in range(TIMES):
        full = stream.normal(size=60)
        ours = r * full + math.sqrt(1 - r * r) * stream.normal(size=60)
        found = agreement([ours], full, seed=seed)
        inside += found.low <= 6 / math.pi * math.asin(r / 2) <= found.high
    assert inside in HELD


@pytest.mark.parametrize("compared", [False, True])
def test_intervals_of_three_searches_hold_the_truth_about_as_often_as_they_say(compared, monkeypatch):
    """Sets are worth more or less, of which three searches say little, and drawing from these three still less."""
    monkeypatch.setattr(nas, "RESAMPLES", 300)
    stream, inside = np.random.default_rng(5), 0
    mean = (6 / math.pi * np.arcsin(np.linspace(0, 0.95, 10001) / 2)).mean()
    for seed in range(TIMES):
        full = stream.normal(size=100)
        r = stream.uniform(0, 0.95, (6, 1))
        tables = r * full + np.sqrt(1 - r * r) * stream.normal(size=(6, 100))
        found = gain(tables[:3], tables[3:], full, seed=seed) if compared else agreement(tables[:3], full)
        inside += found.low <= (0 if compared else mean) <= found.high
    assert inside in HELD


def test_searches_that_differ_widen_the_interval_by_student_t():
    full = np.arange(30.0)
    same = agreement([full, full], full)
    differing = agreement([full, -full], full)
    assert (same.low, same.value, same.high) == (1, 1, 1)
    assert differing.value == 0 and (differing.low, differing.high) == (-1, 1)
    worse = full[np.random.default_rng(0).permutation(30)] + full
    found, values = agreement([full, worse], full), [1, correlation(worse, full)]
    half = 12.7062 * np.std(values, ddof=1) / 2**0.5  # Student's t of one degree of freedom
    assert found.low <= max(-1, found.value - half) and found.high == 1
    single = agreement([worse], full)  # nothing is known of other searches
    assert single.high - single.low < 1


def test_a_gain_is_over_the_same_networks_whatever_the_numbers_of_searches():
    stream = np.random.default_rng(2)
    full = stream.normal(size=25)
    ours = full + stream.normal(0, 1, 25)
    none = gain([ours], [ours], full)
    assert (none.low, none.value, none.high) == (0, 0, 0)
    assert gain([full], [ours], full).low > 0
    found = gain([full, full, full], [-full], full)
    assert (found.low, found.value, found.high) == (2, 2, 2)


def test_the_top_is_by_all_data_and_keeps_ties():
    full = np.array([5, 9, 9, 1, 2, 3, 4, 6, 7, 8, 0, 8, 8, 7.5, 1])
    found = nas.levels(full)
    assert [*found] == ["all", "top 20 %", "top 10"]
    assert [*found["top 20 %"]] == [1, 2, 9, 11, 12]  # three of fifteen; three tie for the third place
    assert len(found["top 10"]) == 10
    assert [*nas.levels(np.arange(10.0))] == ["all"]  # two of ten are too few, and ten are all


def test_repeats_of_all_data_are_ranked_by_the_others():
    """Of pure noise a repeat says nothing, among the best too; by a mean that holds it, it would seem to."""
    noise = np.random.default_rng(3).normal(size=(3, 400))
    rows = nas.correlations({"Whole": noise}, "Whole")
    assert {row["among"] for row in rows} == {"all", "top 20 %", "top 10"}
    assert all(row["low"] < 0 < row["high"] for row in rows)
    assert nas.correlations({"Whole": noise[:1]}, "Whole") == []


def test_sets_are_ranked_against_what_repeats_are_ranked_against():
    """A set that is worth a repeat comes to the same; against a mean of one more repeat it would come out better."""
    stream = np.random.default_rng(4)
    truth = stream.normal(size=600)
    table = truth + stream.normal(size=(6, 600))
    assert nas.targets(table[:3])[1] == pytest.approx(table[[0, 2]].mean(0))
    assert nas.targets(table[:1]) == pytest.approx(table[:1])
    rows = nas.correlations({"P": table[3:], "Whole": table[:3]}, "Whole", baseline="P")
    p, whole = [row for row in rows if (row["among"], row["kind"]) == ("all", "spearman")]
    goals = nas.targets(table[:3])
    assert p["value"] == pytest.approx(np.mean([correlation(a, g) for a in table[3:] for g in goals]), abs=1e-4)
    assert whole["value"] == pytest.approx(np.mean([correlation(table[i], goals[i]) for i in range(3)]), abs=1e-4)
    assert whole["gain_low"] < 0 < whole["gain_high"] and p["gain"] is None


def test_the_winner_of_a_search_is_judged_on_all_data_and_that_of_a_repeat_by_the_others():
    full = np.array([90.0, 80.0, 70.0])
    assert nas.winner_accuracies([[1, 5, 2], [3, 1, 3], [9, 1, 1]], [full] * 3) == [80, 80, 90]  # the second ties
    assert [*nas.winners([3, 1, 3])] == [0, 2]
    noise = [[9, 1, 1], [1, 9, 2], [3, 3, 9]]  # by a mean that holds it, a winner would seem better than any
    assert nas.winner_accuracies(noise, nas.targets(noise)) == [2, 2, 1.5]
    assert nas.winner_accuracies([[1, 5, 2]], nas.targets([[1, 5, 2]])) == [5]


test_what_cannot_be_correlated_is_refused = refuses(
    operator.call,
    [
        (lambda: correlation([1, 2], [1, 2]), "2 networks to correlate; at least 3 are needed"),
        (lambda: correlation([1, 2, 3], [1, 2, 3, 4]), r"shape \(1, 3\) beside 4 of the full data"),
        (lambda: correlation([1, 2, math.nan], [1, 2, 3]), "not finite"),
        (lambda: correlation([1, 2, 3], [1, 2, 3], "pearson"), "unknown kind 'pearson'.*spearman, kendall"),
    ],
)


def test_constant_accuracies_have_no_correlation():
    rows = nas.correlations({"P": np.ones((1, 20)), "Whole": np.arange(20.0)[None]}, "Whole")
    assert {row["value"] for row in rows} == {None} and json.dumps(rows, allow_nan=False)


# Early stopping: as many updates as a small set has

CLASSES, PLAIN = tuple("abcde"), ValueSpace((0.0,), (1.0,))


def drawn(count, seed):
    """Random images, and labels in turn."""
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return images, torch.arange(count) % 5


def test_a_large_set_is_walked_through_in_pieces():
    one = synthetic.SyntheticSet(*drawn(50, seed=0), CLASSES, PLAIN, "none")
    protocol = Protocol(epochs=6, batch_size=8, epoch_images=20)
    walked = training_images(one, protocol, 0)
    batches = [[*walked.epoch(epoch, [0], 0, 8)] for epoch in range(protocol.rounds)]
    assert [[images.shape[1] for images, _ in epoch] for epoch in batches] == [[8, 8, 4]] * 7
    assert protocol.updates(50) == 21 and protocol.updates(10) == 14 and len(walked) == 20
    places = {tuple(image.flatten().tolist()): i for i, image in enumerate(one.images)}
    seen = [places[tuple(image.flatten().tolist())] for epoch in batches for images, _ in epoch for image in images[0]]
    assert sorted(seen[:50]) == sorted(seen[50:100]) == [*range(50)]  # each walk has every image once
    assert seen[:50] != seen[50:100] and walked.distinct == 50
    assert training_images(one, replace(protocol, epochs=1), 0).distinct == 40


def test_a_set_that_is_no_larger_is_shown_whole_and_nothing_else_changes():
    one = synthetic.SyntheticSet(*drawn(20, seed=0), CLASSES, PLAIN, "crop_scale")
    test = datasets.ImageSet("s", "test", *drawn(50, seed=9), CLASSES, PLAIN)
    protocol = Protocol(options={"width": 8, "depth": 1}, epochs=3)
    assert "epoch_images" not in protocol.settings()
    asked = replace(protocol, epoch_images=20)
    assert asked.settings()["epoch_images"] == 20
    found, usual = (evaluation.evaluate(one, test, p, seed=0) for p in (asked, protocol))
    assert replace(found, seconds=0) == replace(usual, seconds=0)


# The search


def test_a_search_is_in_the_store_where_the_evaluations_are(workplace):
    every = nas.space(SMALL)
    assert "to do: 4 distillations and 18 trainings" in nas.outlook(cells(), every, workplace)
    found = nas.search(cells(), every, workplace)
    assert {label: table.shape for label, table in found.accuracies.items()} == dict.fromkeys(
        ("Random", "Early stopping", "Whole"), (2, 3)
    )
    assert found.reference == "Whole" and found.full == pytest.approx(found.accuracies["Whole"].mean(0))
    random, early, whole = (found.spent[label] for label in found.accuracies)
    assert random["updates"] == early["updates"] == 3 and whole["updates"] > 3
    assert (random["images"], early["images"]) == (20, whole["images"])
    options = {"network": "convnet", "options": asdict(every[1])}
    placed = replace(cells()[0], protocol=replace(cells()[0].protocol, **options))
    assert work.Accuracies(placed, 1, workplace).finished()
    assert np.mean(work.evaluated(placed, 1, workplace)["accuracies"]) == found.accuracies["Random"][1, 1]
    assert "18 of them in the store; to do: 0 distillations and 0 trainings" in nas.outlook(cells(), every, workplace)
    again = nas.search(cells(), every, workplace)
    assert all((again.accuracies[label] == table).all() for label, table in found.accuracies.items())
    assert [row["network"] for row in found.networks()] == [one.name for one in every]
    won = {row["method"]: row for row in found.winners()}
    assert [*won] == [*found.accuracies]
    repeats = found.accuracies["Whole"]
    others = [float(repeats[1 - i][nas.winners(repeats[i])].mean()) for i in (0, 1)]
    assert won["Whole"]["accuracy"] == pytest.approx(np.mean(others), abs=1e-3)


def test_a_search_that_was_killed_goes_on_with_what_is_missing(workplace, monkeypatch):
    every, trained, real = nas.space(SMALL), [], evaluation.evaluate

    def counted(images, test, protocol, **how):
        trained.append(protocol.options["norm"])
        if len(trained) == 8:
            raise KeyboardInterrupt
        return real(images, test, protocol, **how)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        nas.search(cells(), every, workplace)
    nas.search(cells(), every, workplace)
    norms = ["none"] * 6 + ["batch"] * 2 + ["batch"] * 5 + ["group"] * 6  # the eighth was killed, and is done again
    assert trained == norms


def _search(folder, started, log):
    """In a process of its own; the network of every result that it writes goes to `log`."""
    torch.set_num_threads(1)
    real, written = work.Accuracies._added, []

    def add(accuracies, outcome, record):
        written.append(nas.Architecture(**accuracies.cell.protocol.options).name)
        log.write_text(" ".join(written))
        return real(accuracies, outcome, record)

    work.Accuracies._added = add
    log.write_text("")
    started.wait()
    nas.search(cells(), nas.space(SMALL), study.Workplace(folder=folder, progress="none"))


def test_two_processes_share_a_search_and_do_nothing_twice(workplace):
    for one in cells():
        for seed in one.seeds:
            work.synthetic_set(one, seed, workplace)
    context = multiprocessing.get_context("fork")
    started = context.Barrier(2)
    counts = [workplace.folder / name for name in ("first", "second")]
    both = [context.Process(target=_search, args=(workplace.folder, started, log)) for log in counts]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    written = [line for log in counts for line in log.read_text().split()]
    assert sorted(written) == sorted(one.name for one in nas.space(SMALL) for _ in range(6))
    assert not nas.missing(nas.tasks(cells(), nas.space(SMALL)), workplace)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c[:2], "none of the cells trains on all data; a search needs one: {'method': 'whole'}"),
        (lambda c: [*c, replace(c[2], label="Again")], "'Whole', 'Again' of the cells trains on all data"),
        (lambda c: [*c, replace(c[0], label="R5", method=build("random", ipc=5))], "number of images: IPC 2, IPC 5"),
        (lambda c: [replace(c[0], dataset="mnist"), *c[1:]], "data set: mnist, digits; allowed: one"),
    ],
)
def test_cells_that_make_no_search_are_refused(change, match, workplace):
    with pytest.raises(ValueError, match=match):
        nas.search(change(cells()), nas.space(SMALL), workplace)


def test_a_ranking_needs_three_networks(workplace):
    with pytest.raises(ValueError, match="2 networks in the space; a ranking needs at least 3"):
        nas.search(cells(), nas.space(SMALL)[:2], workplace)
