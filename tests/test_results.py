"""Records, verdicts and claims, against hand-worked numbers and scipy's own tests."""

import json
import math
import random

import pytest
from refusals import refuses
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from ddlib import results
from ddlib.results import Claim, Record, Reference, verdict
from ddlib.results.statistics import ASSUMED_N, DELTA, VERDICTS


def reference(value=50.0, **fields):
    common = {"paper": "p", "table": "main", "method": "dm", "dataset": "cifar10", "ipc": 1, "source": "a poster"}
    return Reference(value=value, **(common | fields))


def record(accuracies=(49.0, 50.0, 51.0), **fields):
    common = {"label": "DM", "method": "dm", "dataset": "cifar10", "ipc": 1, "cell": {"width": 8}}
    return Record(accuracies=accuracies, **(common | fields))


# Four values with mean 50, deviation 0.8165, standard error 0.40825 and 3 degrees of freedom, where t is 2.35336 (95 %
# one-sided) and 3.18245 (95 % two-sided): the equivalence test leaves a margin of 0.96076, the interval is +-1.29923.
FOUR = (49.0, 50.0, 51.0, 50.0)


@pytest.mark.parametrize(
    ("accuracies", "given", "expected"),
    [
        (FOUR, {"value": 50.0}, "REPRODUCED"),
        (FOUR, {"value": 49.961}, "REPRODUCED"),  # 1 - 0.039 = 0.961, just beyond the margin
        (FOUR, {"value": 49.960}, "CLOSE"),  # 0.960, just short of it
        (FOUR, {"value": 48.702}, "CLOSE"),  # a difference of 1.298, inside the interval
        (FOUR, {"value": 48.700}, "ABOVE"),  # 1.300, outside
        (FOUR, {"value": 51.298}, "CLOSE"),
        (FOUR, {"value": 51.300}, "BELOW"),
        (FOUR, {"value": 50.0, "delta": 0.65}, "CLOSE"),  # 2 delta = 1.30
        (FOUR, {"value": 50.0, "delta": 0.649}, "INCONCLUSIVE"),  # 2 delta = 1.298, and the interval is wider
        (FOUR, {"value": 48.7, "delta": 2.3}, "REPRODUCED"),  # significant, yet equivalent: 2.3 - 1.3 = 1.0
        ((50.6, 50.9, 51.2), {"value": 50.0}, "ABOVE"),  # 0.9 +- 0.745: within delta, but not shown to be
        ((50.0,), {"value": 50.0}, "INCONCLUSIVE"),
        ((50.0, 50.0), {"value": 50.0}, "REPRODUCED"),  # no spread anywhere: the difference is exact
        ((50.0, 50.0), {"value": 51.0}, "BELOW"),  # at delta itself, not within
        ((50.0, 50.0), {"value": 50.5}, "REPRODUCED"),
    ],
)
def test_verdict_by_hand(accuracies, given, expected):
    assert verdict(accuracies, reference(**given)) == expected


def test_order_of_the_verdicts_that_need_no_statistics():
    missing, incomparable = reference(None, state="not found", comparable=False), reference(comparable=False)
    assert verdict((), missing, deviations=["narrow"]) == "NOT RUN"
    assert {verdict(FOUR, given, deviations=["narrow"]) for given in (missing, None)} == {"PROXY"}
    assert verdict(FOUR, incomparable) == "PROXY"
    assert {verdict(FOUR, given) for given in (missing, None)} == {"NO REFERENCE"}


def plain_verdict(accuracies, mean, std, n, delta):
    """The rule as the docstring states it, from scipy's test on summaries."""
    ours = (stats.tmean(accuracies), stats.tstd(accuracies), len(accuracies))

    def p(shift, side):
        return stats.ttest_ind_from_stats(*ours, mean + shift, std, n, equal_var=False, alternative=side).pvalue

    if p(-delta, "greater") < 0.05 and p(delta, "less") < 0.05:
        return "REPRODUCED"
    if p(0, "two-sided") < 0.05:
        return "ABOVE" if ours[0] > mean else "BELOW"
    error = math.sqrt(ours[1] ** 2 / ours[2] + std**2 / n)
    t = stats.ttest_ind_from_stats(*ours, mean, std, n, equal_var=False)
    df = error**4 / (ours[1] ** 4 / ours[2] ** 2 / (ours[2] - 1) + std**4 / n**2 / (n - 1))
    assert math.isclose(2 * stats.t.sf(abs(t.statistic), df), t.pvalue)
    return "INCONCLUSIVE" if error * stats.t.ppf(0.975, df) > 2 * delta else "CLOSE"


def test_verdict_agrees_with_scipy_on_many_draws():
    rng, seen = random.Random(0), set()
    for _ in range(600):
        spread, n = rng.choice([0.2, 0.6, 1.5, 4.0]), rng.choice([2, 3, 5, 15])
        accuracies = [rng.gauss(50 + rng.uniform(-3, 3), spread) for _ in range(n)]
        std, count, delta = rng.choice([0.1, 0.5, 2.0]), rng.choice([2, 5, 100]), rng.choice([1.0, 1.5, 2.0])
        given = reference(std=std, n=count, delta=delta)
        expected = plain_verdict(accuracies, 50.0, std, count, delta)
        assert verdict(accuracies, given) == expected
        seen.add(expected)
    assert seen == {"REPRODUCED", "CLOSE", "ABOVE", "BELOW", "INCONCLUSIVE"} <= set(VERDICTS)


def test_a_reference_without_n_rests_on_the_assumed_number():
    sharp = (50.9, 51.0, 51.1)
    assert plain_verdict(sharp, 50.0, 1.0, ASSUMED_N, DELTA) != plain_verdict(sharp, 50.0, 1.0, 100, DELTA)
    assert verdict(sharp, reference(std=1.0)) == plain_verdict(sharp, 50.0, 1.0, ASSUMED_N, DELTA)


def test_compare_is_welch_where_the_sets_are_not_known():
    rng = random.Random(1)
    a, b = [rng.gauss(60, 2) for _ in range(7)], [rng.gauss(57, 0.5) for _ in range(4)]
    found, oracle = results.compare(record(a), record(b)), stats.ttest_ind(a, b, equal_var=False)
    assert (found.low, found.high) == pytest.approx(oracle.confidence_interval(0.95), rel=1e-9)
    assert (found.p, found.df) == pytest.approx((oracle.pvalue, oracle.df), rel=1e-9)
    by_statsmodels = CompareMeans(DescrStatsW(a), DescrStatsW(b))
    assert (found.low, found.high) == pytest.approx(by_statsmodels.tconfint_diff(usevar="unequal"), rel=1e-9)


def test_rows_of_several_sets_are_compared_by_the_means_of_their_sets():
    rng = random.Random(2)
    a, b = ([rng.gauss(mean, 2) for _ in range(6)] for mean in (60, 57))  # two networks a set
    means = [[stats.tmean(values[i : i + 2]) for i in (0, 2, 4)] for values in (a, b)]
    of = [record(a, cell={"seeds": [0, 1, 2]}), record(b, cell={"seeds": [0, 1, 2]})]
    found, oracle = results.compare(*of), stats.ttest_rel(*means)
    assert (found.low, found.high) == pytest.approx(oracle.confidence_interval(0.95), rel=1e-9)
    for other, values in (({"seeds": [3, 4, 5]}, means[1]), ({"seeds": [0]}, b)):  # other sets; one set: its networks
        oracle = stats.ttest_ind(means[0], values, equal_var=False)
        found = results.compare(of[0], record(b, cell=other))
        assert (found.p, found.df) == pytest.approx((oracle.pvalue, oracle.df), rel=1e-9)


def test_interval_is_the_t_interval_and_a_single_value_knows_nothing():
    assert results.interval(FOUR) == pytest.approx(stats.ttest_1samp(FOUR, 0).confidence_interval(0.95), rel=1e-9)
    assert results.interval([50.0]) == (-math.inf, math.inf)
    found = results.compare(record([60.0]), record())
    assert (found.difference, found.low, found.high, found.significant) == (10.0, -math.inf, math.inf, False)
    with pytest.raises(ValueError, match="values is empty"):
        results.interval([])
    with pytest.raises(ValueError, match="b='DM' was not run"):
        results.compare(record(), record([]))


def test_record_has_sample_statistics_and_plain_json():
    assert (record(FOUR).n, record(FOUR).accuracy_mean) == (4, 50.0)
    assert record(FOUR).accuracy_std == pytest.approx(math.sqrt(2 / 3))
    assert (record([]).accuracy_mean, record([50.0]).accuracy_std) == (None, None)
    of_sets = record([1.0, 3.0, 5.0, 7.0, 9.0, 11.0], cell={"seeds": [0, 1, 2]})
    assert of_sets.accuracy_std_between_seeds == 4.0  # of the means 2, 6 and 10
    assert record([1.0, 3.0]).accuracy_std_between_seeds is None
    assert (record(cell={"protocol": {"network": "vgg11"}}).network, record().network) == ("vgg11", "convnet")
    assert record(cell={"seeds": (0, 1)}).cell == {"seeds": [0, 1]}


test_record_refuses = refuses(
    record,
    [
        ({"accuracies": [50.0, 101.0]}, "accuracies contain 101.0"),
        ({"accuracies": [50.0, math.nan]}, "accuracies contain nan; allowed: percent"),
        ({"cost": {"seconds": math.nan}}, "cost is not plain JSON"),
        ({"ipc": 0}, "ipc=0; allowed: an integer from 1"),
        ({"ipc": True}, "ipc=True; allowed"),
    ],
)


def test_write_and_read_return_the_same(tmp_path):
    records = [
        record((1 / 3, 0.1 + 0.2, 99.99999999999999), reference=reference(std=0.7), cost={"seconds": 1e-9}),
        record([], cost={"estimated_hours": 3.5}, deviations=["künstlich klein"], ipc=None),
    ]
    path = results.write(records, tmp_path / "paper" / "accuracy.quick.json")
    before = path.read_bytes()
    assert results.read(path) == records and "künstlich klein" in before.decode()
    assert results.write(results.read(path), path).read_bytes() == before
    assert json.loads(before)[0]["verdict"] == records[0].verdict
    assert results.read(results.write([], path)) == []


def edited(**changes):
    return record(reference=reference()).to_json() | changes


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[{", "is not whole"),
        ("{}", "holds no list of records"),
        ("[3]", "record 0: no record: unknown or missing 3"),
        (json.dumps([edited(colour="red")]), r"record 0: no record: unknown or missing \['colour'\]"),
        (json.dumps([edited(accuracy_mean=51.0)]), "accuracy_mean is 51.0; from the rest follows 50.0"),
        (json.dumps([edited(n=4)]), "n is 4; from the rest follows 3"),
        (json.dumps([edited(verdict="REPRODUCED")]), "verdict is 'REPRODUCED'; from the rest follows 'INCONCLUSIVE'"),
        (json.dumps([edited(accuracies=["high"])]), "could not convert"),
        (json.dumps([edited(reference={"value": 1})]), "of the wrong type .*missing"),
    ],
)
def test_read_refuses(tmp_path, content, match):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=match) as caught:
        results.read(path)
    assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        results.read(tmp_path / "none.json")


def claim(**fields):
    common = {"paper": "p", "id": "c", "statement": "S.", "where": "table", "source": "abstract"}
    return Claim(**(common | {"datasets": ("cifar10",), "ipc": (1, 10)} | fields))


def row(name, ipc, mean, label=None, **fields):
    return record([mean - 1, mean, mean + 1], label=label or name.upper(), method=name, ipc=ipc, **fields)


def where(found):
    return [(test.where, test.outcome) for test in found.tests]


def compared(claim, records):
    """(where, outcome) of every comparison."""
    return where(results.check_claim(claim, records))


def test_a_label_is_of_a_side_with_what_it_has_beyond_its_name():
    assert results.beyond("dim", "DiM, width 64") == ("width 64",)
    assert results.beyond("dim, lambda = 0", "DiM, width 64, lambda = 0") == ("width 64",)
    assert results.beyond("ld3m, dm", "LD3M, DM") == ()
    assert results.beyond("dim, frozen", "DiM, width 64") is None
    assert results.beyond("dm", "ATOM, DM") is None and results.beyond("atom", "ATOM-c, few") is None


def test_a_reduced_row_stands_for_one_that_was_not_run_against_one_reduced_alike_or_real_images():
    few = row("atom", 1, 41, "ATOM, few")
    rows = [record([], label="ATOM", method="atom"), few, row("atom", 1, 91, "control")]
    alike, fewer = (row("dm", 1, 50, f"DM, {how}") for how in ("few", "fewer"))
    against, control = claim(higher="atom", lower="dm"), claim(higher="atom", lower="random")
    for about, others, outcomes in (
        (against, [row("dm", 1, 50)], []),  # distilled in full: no match for it
        (against, [row("dm", 1, 30), alike], [("cifar10, IPC 1: ATOM, few against DM, few", "fails")]),
        (against, [fewer], []),
        (control, [row("random", 1, 30)], [("cifar10, IPC 1: ATOM, few against RANDOM", "holds")]),
    ):
        assert compared(about, [*rows, *others]) == outcomes
    assert compared(against, [row("atom", 1, 60), few, row("dm", 1, 50), alike]) == [("cifar10, IPC 1", "holds")]
    narrow = [row("dim", 1, 73, "DiM, width 64"), row("dim", 1, 77, "DiM, width 64, lambda = 0")]  # a control of it
    for lower, outcome in (("dim, lambda = 0", "fails"), ("random", "holds")):
        found = compared(claim(higher="dim", lower=lower), [*narrow, row("random", 1, 50)])
        assert [of for _, of in found] == [outcome]


def test_rows_that_cannot_be_told_apart_are_refused():
    others = [record(label=label, method="atom") for label in ("ATOM, few", "ATOM, fewer")]
    with pytest.raises(ValueError, match="several records of 'atom' at .*: 'ATOM, few', 'ATOM, fewer'; pass those"):
        results.check_claim(claim(higher="atom", lower="random"), [*others, row("random", 1, 40)])
    assert results.check_claim(claim(higher="atom", lower="random"), others).tests == ()  # nothing to compare with


def test_a_side_may_have_several_names_and_labels_come_before_methods():
    named = claim(higher="atom", lower="Z and c, no residual | no residual")
    assert compared(named, [row("atom", 1, 60), row("ld3m", 1, 31, "No residual")]) == [("cifar10, IPC 1", "holds")]
    assert results.side_names(named) == ("atom", "Z and c, no residual", "no residual")
    rows = [row("atom", 1, 50, "both"), row("atom", 1, 10, "Channel"), row("dm", 1, 50)]
    assert compared(claim(higher="channel", lower="dm"), rows) == [("cifar10, IPC 1", "fails")]


def measured(**rows):
    return results.Measurements({"t": list(rows.values())}, (), {"commit": "c"})


def in_table(**fields):
    told = {"table": "t", "column": "label", "rows": {"kind": "k"}, "higher": "ATOM", "field": "gain"}
    return claim(shown_in="p/n", measured=results.Measured(**(told | fields)))


def test_a_claim_is_tested_by_a_difference_that_a_notebook_measured():
    atom = {"label": "atom", "kind": "k", "networks": 24, "gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    found = results.check_measured(in_table(), measured(a=atom, b=atom | {"kind": "other", "gain_low": -1}), "digits")
    assert where(found) == [("digits, 24 networks", "holds")] and found.provenance == {"commit": "c"}
    (test,) = found.tests
    assert (test.comparison.difference, test.comparison.low, test.comparison.high) == pytest.approx((20, 10, 30))
    assert results.check_measured(in_table(), measured(a=atom | {"gain": None}), "digits").tests == ()
    assert results.check_measured(claim(shown_in="p/n"), measured(a=atom), "digits").tests == ()
    assert results.check_claim(in_table(), [row("atom", 1, 60), row("dm", 1, 50)]).tests == ()


def test_a_claim_is_tested_by_accuracies_that_a_notebook_measured():
    atom = {"label": "ATOM", "kind": "k", "steps": 5, "ipc": 1, "gain": [60.0, 61.0, 62.0]}
    other = atom | {"label": "DM", "gain": [50.0, 51.0, 52.0]}
    more = {"c": atom | {"ipc": 20}, "d": other | {"ipc": 20}, "e": atom | {"steps": 10}}
    found = results.check_measured(in_table(lower="DM"), measured(a=atom, b=other, **more), "digits")
    assert where(found) == [("digits, 5 steps, IPC 1", "holds")]  # 20 is not the claim's, 10 steps have one side
    assert found.tests[0].comparison == results.compare(row("atom", 1, 61), row("dm", 1, 51))


def test_accuracies_of_several_orders_are_compared_order_by_order():
    atom = {"label": "ATOM", "kind": "k", "orders": [0, 1, 2], "gain": [53, 53, 51, 51, 52, 52.0]}
    other = atom | {"label": "DM", "gain": [50, 50, 50.5, 50.5, 50.2, 50.2]}
    (test,) = results.check_measured(in_table(lower="DM"), measured(a=atom, b=other), "digits").tests
    low, high = stats.ttest_1samp([3, 0.5, 1.8], 0).confidence_interval(0.95)
    assert (test.comparison.low, test.comparison.high) == pytest.approx((low, high)) and test.outcome == "undecided"


def test_a_table_that_cannot_test_a_claim_is_refused():
    atom = {"label": "ATOM", "kind": "k", "gain": 0.2, "gain_low": 0.1}
    with pytest.raises(ValueError, match=r"a row of 't' lacks \['gain_high'\] of claim 'c'"):
        results.check_measured(in_table(), measured(a=atom), "digits")
    atom |= {"gain_high": 0.3}
    with pytest.raises(ValueError, match="two rows of 't' are called 'ATOM'"):
        results.check_measured(in_table(), measured(a=atom, b=atom), "digits")


@pytest.mark.parametrize(
    ("higher", "lower", "outcomes", "outcome"),
    [
        ((60, 70), (50, 55), ["holds", "holds"], "holds"),  # three values each: the interval is +-2.27
        ((60, 50), (50, 55), ["holds", "fails"], "fails"),
        ((60, 56), (50, 55), ["holds", "undecided"], "undecided"),
        ((60,), (50,), ["holds"], "holds"),
        ((), (50, 55), [], "undecided"),
    ],
)
def test_claim_of_a_direction(higher, lower, outcomes, outcome):
    sides = {"atom": higher, "dm": lower}
    records = [row(name, ipc, m) for name, means in sides.items() for ipc, m in zip((1, 10), means, strict=False)]
    found = results.check_claim(claim(higher="atom", lower="dm"), records)
    assert where(found) == [*zip(("cifar10, IPC 1", "cifar10, IPC 10"), outcomes, strict=False)]
    assert found.outcome == outcome


def test_claim_of_a_rise_along_one_row():
    rising = claim(rises="dm", ipc=(1, 10, 50))
    falls = [row("dm", ipc, m) for ipc, m in ((50, 40), (1, 30), (10, 45))]
    assert compared(rising, falls) == [
        ("cifar10, IPC 1 to 10", "holds"), ("cifar10, IPC 10 to 50", "fails"),
    ]  # fmt: skip
    assert compared(rising, [row("dm", 1, 30), row("dm", 10, 45, dataset="digits")]) == []
    few = [row("dm", ipc, m, "DM, few") for ipc, m in ((1, 41), (10, 51))]
    assert compared(rising, [row("dm", 1, 30), *few]) == []


def test_claim_of_a_rise_from_network_to_network():
    growing = claim(rises="dim", along="networks", ipc=(1, 10), networks=("lenet", "convnet", "alexnet"))
    means = {("convnet", 1): 50, ("lenet", 1): 40, ("alexnet", 1): 45, ("lenet", 10): 60, ("alexnet", 10): 70}
    records = [row("dim", ipc, m, cell={"tested_on": network}) for (network, ipc), m in means.items()]
    assert compared(growing, records) == [
        ("cifar10, lenet, IPC 1 to convnet", "holds"),
        ("cifar10, IPC 1 to alexnet", "fails"),
        ("cifar10, lenet, IPC 10 to alexnet", "holds"),
    ]


def test_claim_of_one_above_the_whole_training_set():
    records = [row("datm", ipc, m) for ipc, m in ((10, 50), (1, 30), (50, 90))] + [row("whole", None, 40)]
    above = claim(higher="datm", lower="whole")
    assert compared(above, records) == [("cifar10, IPC 1", "fails"), ("cifar10, IPC 10", "holds")]
    on_another_network = row("whole", None, 40, cell={"protocol": {"network": "vgg11"}})
    assert compared(above, [*records[:3], on_another_network]) == []


def test_claim_keeps_to_its_own_data_networks_and_images_per_class():
    on_vgg = {"cell": {"protocol": {"network": "vgg11"}}}
    records = [row("atom", 1, 60), row("dm", 1, 50), row("atom", 50, 60), row("dm", 50, 50)]
    records += [row("atom", 1, 50, **on_vgg), row("dm", 1, 60, **on_vgg)]
    records += [row("atom", 1, 60, dataset="digits"), row("dm", 1, 50, dataset="digits")]
    for fields, tests in (
        ({}, [("cifar10, IPC 1", "holds"), ("digits, IPC 1", "holds")]),
        ({"own_data": True}, [("cifar10, IPC 1", "holds")]),
        ({"networks": ("vgg11",)}, [("cifar10, vgg11, IPC 1", "fails")]),
    ):
        assert compared(claim(higher="atom", lower="dm", **fields), records) == tests


FIRST = {"commit": "a", "dirty": False, "date": "2026-11-20", "seeds": [0, 1], "versions": {"torch": "2.14", "x": "1"}}
SECOND = {"commit": "b", "dirty": False, "date": "2026-11-22", "seeds": [1, 2], "versions": {"torch": "2.15", "x": "1"}}
BOTH = {"commit": ["a", "b"], "dirty": False, "date": ["2026-11-20", "2026-11-22"], "seeds": [0, 1, 2]}
BOTH |= {"versions": {"torch": ["2.14", "2.15"], "x": "1"}}


def test_joined_provenances_say_what_is_true_of_all():
    assert results.joined([FIRST, SECOND]) == results.joined([SECOND, FIRST]) == BOTH
    assert results.joined([FIRST]) == FIRST and results.joined([]) == {}
    assert results.joined([BOTH, FIRST]) == results.joined([BOTH]) == BOTH
    middle = results.joined([BOTH, {"date": "2026-11-21"}])
    assert middle["date"] == BOTH["date"] and middle["commit"] == [None, "a", "b"]
    assert results.joined([{"distilled": FIRST}, {"distilled": SECOND}, {}]) == {"distilled": BOTH}
    assert results.joined([FIRST | {"seeds": [3]}] * 2)["seeds"] == [3]


def test_one_modified_tree_makes_all_modified_and_records_that_were_not_run_made_no_number():
    for flags, all_of_them in (((False, True), True), ((None, True), True), ((None, False), None), ((False,), False)):
        assert results.joined({"dirty": flag} for flag in flags) == {"dirty": all_of_them}
    ran, left_out = record(provenance=FIRST), record([], provenance=SECOND)
    assert results.provenance([ran, left_out]) == FIRST
    assert results.provenance([left_out]) == SECOND and results.provenance([]) == {}
