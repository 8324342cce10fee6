"""LRS and ARS against values worked out by hand, their bounds, and intervals against plain ones."""

import math
from itertools import product
from statistics import fmean, stdev

import pytest
from refusals import refuses
from scipy import stats

from ddlib.results import Record, scores
from ddlib.results.scores import Estimate, gain

FULL, HARD = [96.0, 95.0, 97.0, 96.5], [61.0, 63.0, 60.0, 64.0]
OWN, RANDOM = [75.0, 70.0, 77.0, 74.0], [50.0, 56.0, 52.0, 51.0]
SIDES = {"full": FULL, "hard": HARD, "own": OWN, "random": RANDOM}
AUGMENTED = {"aug": OWN, "noaug": HARD, "random_aug": RANDOM, "random_noaug": FULL}


def score(exponent):
    """(e^x - e^-1) / (e - e^-1), as the papers write it."""
    return (math.e**exponent - math.e**-1) / (math.e - math.e**-1)


def t_interval(values):
    """Mean, low and high of the t interval, from scipy.stats."""
    low, high = stats.t.interval(0.95, len(values) - 1, fmean(values), stats.sem(values))
    return fmean(values), low, high


def same(estimate, expected, rel=1e-12):
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(expected, rel=rel, abs=1e-12)


def record(accuracies, label="row", *, seeds=(0, 1), ipc=1, dataset="digits", network="convnet"):
    cell = {"seeds": list(seeds), "tested_on": network}
    return Record(accuracies=accuracies, label=label, method="m", dataset=dataset, ipc=ipc, cell=cell)


def rounds(sides):
    """Records of the sides that are lists: a network a round."""
    return {name: record(side, seeds=()) if isinstance(side, list) else side for name, side in sides.items()}


def lrs(**sides):
    return scores.lrs(**rounds(sides))


def ars(**sides):
    return scores.ars(**rounds(sides))


@pytest.mark.parametrize(
    ("ior", "hlr", "expected"),
    [
        *((0, 0, 0.269), (0.10, 0.35, 0.219), (0.20, 0.10, 0.291), (0.05, 0.45, 0.192), (0.9, 0, 0.511)),
        (0, 0, 1 / (math.e + 1)),
        (0.4, 0.2, 0.313687),  # a = (0.4 - 0.2) / 2 = 0.1: (1.105171 - 0.367879) / 2.350402
        *((-1, 1, 0), (1, -1, 1)),  # nothing and all
    ],
)
def test_scores_of_the_published_reading_aid_and_by_hand(ior, hlr, expected):
    def pair(difference):
        return ([100 * difference], [0.0]) if difference >= 0 else ([0.0], [-100 * difference])

    (full, hard), (own, random) = pair(hlr), pair(ior)
    label = lrs(full=full, hard=hard, own=own, random=random)
    augmentation = ars(aug=own, random_aug=random, noaug=hard, random_noaug=full)
    assert label.estimate.value == pytest.approx(expected, abs=5e-4 if round(expected, 3) == expected else 1e-6)
    assert augmentation.estimate.value == label.estimate.value  # d_noaug is -HLR


def test_sides_of_one_length_are_paired_round_by_round():
    found = lrs(**SIDES)
    losses = [(a - b) / 100 for a, b in zip(FULL, HARD, strict=True)]
    gains = [(a - b) / 100 for a, b in zip(OWN, RANDOM, strict=True)]
    same(found.components["HLR"], t_interval(losses))
    same(found.components["IOR"], t_interval(gains))
    rounds = [score((gain - loss) / 2) for loss, gain in zip(losses, gains, strict=True)]
    same(found.estimate, t_interval(rounds))
    assert found.estimate.n == 4
    assert found.estimate.value > score((fmean(gains) - fmean(losses)) / 2) + 1e-7  # not that of the means


def test_ars_is_paired_likewise():
    found = ars(**AUGMENTED)
    with_, without = ([(a - b) / 100 for a, b in zip(*pair, strict=True)] for pair in ((OWN, RANDOM), (HARD, FULL)))
    same(found.components["d_aug"], t_interval(with_))
    same(found.components["d_noaug"], t_interval(without))
    same(found.estimate, t_interval([score((a + b) / 2) for a, b in zip(with_, without, strict=True)]))
    wide = ars(aug=[100.0, 60.0], noaug=[100.0, 60.0], random_aug=[0.0, 0.0], random_noaug=[0.0, 0.0])
    assert (wide.estimate.low, wide.estimate.high) == (0, 1) and wide.components["d_aug"].high == 1  # what is possible


def test_other_rounds_are_independent_as_welch_has_it():
    full = [96.0, 95.0, 97.0]
    found = lrs(full=full, hard=HARD, own=HARD, random=RANDOM).components["HLR"]
    plain = stats.ttest_ind(full, HARD, equal_var=False).confidence_interval(0.95)
    same(found, ((fmean(full) - fmean(HARD)) / 100, plain.low / 100, plain.high / 100))
    assert found.n == 3


def test_the_score_of_other_rounds_is_the_mean_over_all_their_combinations():
    full = [96.0, 95.0, 97.0]
    found = lrs(**SIDES | {"full": full}).estimate
    rest = [0.5 * (h + o - r) for h, o, r in zip(HARD, OWN, RANDOM, strict=True)]
    every = [score((a - 0.5 * b) / 100) for a, b in product(rest, full)]
    assert found.value == pytest.approx(fmean(every), rel=1e-12) and found.n == 3
    outer, inner = ([math.exp(x / 100) for x in values] for values in (rest, [-0.5 * f for f in full]))
    shares = [(stdev(v) / fmean(v)) ** 2 / len(v) for v in (outer, inner)]  # the delta method on a product
    freedom = sum(shares) ** 2 / sum(s**2 / (len(v) - 1) for s, v in zip(shares, (outer, inner), strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(shares)) * fmean(outer) * fmean(inner) / (math.e - 1 / math.e)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-12)


def of_sets(accuracies):
    """Means of two seeds."""
    half = len(accuracies) // 2
    return [fmean(accuracies[:half]), fmean(accuracies[half:])]


def test_records_of_several_seeds_have_them_for_rounds():
    hard = [61.0, 63.0, 60.0, 66.0]
    sides = {"hard": record(hard), "own": record(OWN), "random": record(RANDOM, "Random")}
    sets = {"hard": of_sets(hard), "own": of_sets(OWN), "random": of_sets(RANDOM)}
    paired = lrs(full=record(FULL, "Whole", ipc=None), **sides)
    assert paired == lrs(full=of_sets(FULL), **sets) and paired.estimate.n == 2
    fewer = record(of_sets(FULL), "Whole", ipc=None)  # one network a seed, and so the same seeds
    assert lrs(full=fewer, **sides) == paired
    apart = lrs(full=record(FULL, "Whole", ipc=None, seeds=(2, 3)), **sides)
    plain = stats.ttest_ind(of_sets(FULL), of_sets(hard), equal_var=False).confidence_interval(0.95)
    same(apart.components["HLR"], (paired.components["HLR"].value, plain.low / 100, plain.high / 100))
    assert apart.components["IOR"] == paired.components["IOR"]
    for seeds in ((0,), ()):  # networks are the rounds
        assert lrs(**{name: record(side, seeds=seeds) for name, side in SIDES.items()}) == lrs(**SIDES)


def test_many_networks_of_a_set_say_no_more_than_the_set():
    own = record([80.0, 80.2, 60.0, 60.2], seeds=(0, 1))
    more = record([80.0, 80.2] * 50 + [60.0, 60.2] * 50, seeds=(0, 1))
    for side in (own, more):
        found = gain(own=side, other=record([50.0, 50.0], seeds=(0, 1), ipc=29))  # other images per class
        mean, low, high = t_interval([0.301, 0.101])
        same(found, (mean, max(low, -1), min(high, 1)), rel=1e-9)
        assert found.n == 2


def test_a_single_round_says_nothing_of_the_spread():
    found = lrs(full=[90.0], hard=[60.0], own=[70.0], random=[50.0])
    assert found.estimate == Estimate(pytest.approx(score(0.5 * 0.2 - 0.5 * 0.3)), 0.0, 1.0, 1)
    assert (found.components["HLR"].low, found.components["HLR"].high) == (-1, 1)


def test_an_ars_may_call_its_network_otherwise_without_augmentation():
    plain = {"network": "convnet, plain"}
    found = ars(
        aug=record(OWN), random_aug=record(RANDOM), noaug=record(HARD, **plain), random_noaug=record(FULL, **plain)
    )
    assert found == ars(**{name: of_sets(side) for name, side in AUGMENTED.items()})


test_records_that_cannot_be_scored_are_refused = refuses(
    lambda **changed: ars(**AUGMENTED | changed) if "aug" in changed else lrs(**SIDES | changed),
    [
        ({"own": record(OWN[:3])}, "'row' has 3 accuracies of 2 seeds; allowed: as many for each"),
        ({"full": []}, "'row' was not run; allowed: records with accur"),
        (
            {
                "full": record(FULL, ipc=None),
                "hard": record(HARD),
                "own": record(OWN, ipc=10),
                "random": record(RANDOM),
            },
            "different ipc: hard 1, own 10, random 1; allowed: one ipc",
        ),
        (
            {"full": record(FULL, dataset="mnist"), "hard": record(HARD)},
            "different dataset: full 'mnist', hard 'digits', .*; allowed: one dataset",
        ),
        (
            {"own": record(OWN, network="vit"), "random": record(RANDOM)},
            "different network: .*own 'vit', random 'convnet'",
        ),
        (
            {"aug": record(OWN), "random_aug": record(RANDOM, network="vit")},
            "different network: own 'convnet', other 'vit'",
        ),
    ],
)
