"""What the runs at hand say of the papers' claims: what counts as evidence, and what is said where there is none."""

import dataclasses

import pytest

from ddlib import results
from ddlib.report.site import claims
from ddlib.report.site.runs import Run
from ddlib.results import Record
from ddlib.study import notebooks


def verdict(id, runs):
    return next(v for paper in results.papers() for v in claims.verdicts(paper, runs) if v.claim.id == id)


def record(label, mean, **fields):
    return Record.of(
        [mean - 1, mean, mean + 1], **({"label": label, "dataset": "digits", "ipc": 1, "cell": {}} | fields)
    )


DM, RANDOM = record("DM", 50.0, method="dm"), record("Random", 40.0, method="random")


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ((), "not run"),
        (("holds",), "holds"),
        (("holds", "undecided"), "holds"),
        (("undecided",), "undecided"),
        (("holds", "fails"), "undecided"),
        (("fails", "undecided"), "fails"),
    ],
)
def test_a_claim_with_evidence_both_ways_is_undecided(outcomes, word):
    (claim, *_) = results.claims("atom")
    checks = [type("Check", (), {"outcome": outcome, "tests": ()})() for outcome in outcomes]
    assert claims.Verdict(claim, tuple(claims.Evidence(None, check) for check in checks)).outcome == word


def test_a_claim_that_waits_for_rows_says_how_long_they_take_and_on_what():
    fields = {"cost": {"estimated_hours": 1.5}, "provenance": {"device": "One GPU"}, "accuracies": ()}
    missing = [dataclasses.replace(DM, ipc=ipc, **fields) for ipc in (1, 10)]
    run = Run("atom/accuracy", "hour", (*missing, RANDOM))
    found = verdict("dm_above_random", [run])
    why = "would take up to about 3 h on One GPU"
    assert found.outcome == "not run" and found.gaps == (claims.Gap(run, "not run", why),)


def test_a_claim_that_was_not_run_names_the_notebooks_that_would_test_it():
    runs = [Run(f"atom/{name}", profile) for name in ("accuracy", "components") for profile in ("hour", "paper")]
    (gap,) = verdict("channel_term_helps", runs).gaps
    assert gap.run == runs[-1] and gap.why == f"would take {runs[-1].cost}" and "days" in gap.why


def test_every_claim_but_one_is_tested_by_a_notebook_that_says_so():
    named = {id for name in notebooks.names() for id in Run(name, "quick").claims}
    known = {claim.id for paper in results.papers() for claim in results.claims(paper)}
    assert named < known and known - named == {"dim_above_dsa_on_svhn"}  # no notebook has DSA on SVHN


def test_rows_that_cannot_be_told_apart_are_listed():
    rows = (record("DM, few", 50.0, method="dm"), record("DM, fewer", 50.0, method="dm"), RANDOM)
    run = Run("compare/none", "quick", rows)
    found = verdict("dm_above_random", [run])
    assert found.evidence == () and found.outcome == "not run"
    (gap,) = found.gaps
    assert (gap.run, gap.word) == (run, "cannot be told apart") and "'DM, few', 'DM, fewer'" in gap.why


def test_one_measurement_in_two_notebooks_is_one_piece_of_evidence():
    a, b, c = (Run(f"compare/{name}", "quick", (DM, RANDOM)) for name in "abc")
    other = Run("compare/d", "quick", (record("DM", 51.0, method="dm"), RANDOM))
    first, second = verdict("dm_above_random", [a, b, other, c]).evidence
    assert (first.run, first.also, second.run, second.also) == (a, (b, c), other, ())
    more = tuple(dataclasses.replace(r, ipc=10) for r in (DM, RANDOM))
    (both,) = verdict("dm_above_random", [a, Run("compare/f", "quick", (DM, RANDOM, *more))]).evidence
    assert (both.run.name, both.also) == ("compare/f", (a,)) and len(both.check.tests) == 2
    assert both.summary == "2 of 2 comparisons hold, +10.0 points"
    assert verdict("dm_above_random", [a]).on_digits_alone
    real = Run("compare/e", "hour", tuple(dataclasses.replace(r, dataset="cifar10") for r in (DM, RANDOM)))
    assert not verdict("dm_above_random", [a, real]).on_digits_alone


def across(mean_of_label, networks):
    """Records at IPC 10 of rows on networks, each name with its kind."""
    return [
        record(label, mean, method="x", ipc=10, cell={"tested_on": name, "protocol": {"network": kind}})
        for label, mean in mean_of_label.items()
        for name, kind in networks.items()
    ]


def test_unseen_are_networks_of_another_kind_than_the_convnet():
    rows = across({"LD3M, DM": 50.0, "GLaD, DM": 40.0}, {"convnet": "convnet", "no DSA": "convnet", "vit": "vit"})
    rows = [dataclasses.replace(r, accuracies=(1.0, 2.0, 3.0)) if r.network == "no DSA" else r for r in rows]
    (evidence,) = verdict("ld3m_above_glad_by_dm", [Run("compare/none", "quick", tuple(rows))]).evidence
    where = [(t.where, t.comparison.difference) for t in evidence.check.tests]
    assert where == [("digits, unseen, IPC 10", 10.0)]
    seen_alone = Run("compare/none", "quick", tuple(r for r in rows if r.network != "vit"))
    found = verdict("ld3m_above_glad_by_dm", [seen_alone])
    assert found.evidence == () and found.gaps == ()


def test_a_mean_that_cannot_be_formed_is_no_silence():
    rows = across({"LD3M, DM": 50.0, "GLaD, DM": 50.0}, {"vit": "vit", "vgg11": "vgg11"})
    rows[0] = dataclasses.replace(rows[0], accuracies=(1.0, 2.0))
    (gap,) = verdict("ld3m_above_glad_by_dm", [Run("compare/none", "quick", tuple(rows))]).gaps
    assert "has accuracies of 2 on vit, 3 on vgg11; allowed: as many on each" in gap.why


def test_a_claim_that_a_notebook_measures_is_tested_by_its_table_or_shown():
    row = {"method": "ATOM", "kind": "spearman", "among": "all", "networks": 24}
    row |= {"gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    tables = {"nas": {"correlations": [row]}, "cost": {"steps": [{"method": "ATOM", "seconds": 1.0}]}}
    runs = [Run(f"atom/{name}", "quick", measured=results.Measurements(t, (), {})) for name, t in tables.items()]
    ranked, cost = (verdict(id, runs) for id in ("distilled_sets_rank_architectures", "atom_costs_as_datadam"))
    (evidence,) = ranked.evidence
    assert ranked.outcome == "holds" and ranked.on_digits_alone
    assert evidence.summary == "digits, 24 networks: +20.0 hundredths of a rank correlation [+10.0, +30.0]"
    assert (cost.outcome, cost.evidence) == ("not tested", ())
    assert [(gap.run, gap.word) for gap in cost.gaps] == [(runs[1], "shown, not tested")]
    assert verdict("distilled_sets_rank_architectures", []).outcome == "not run"
