"""What the runs at hand say of the papers' claims: what counts as evidence, and what is said where there is none."""

import dataclasses

import pytest

from ddlib import results
from ddlib.report import evidence
from ddlib.report.evidence import AMBIGUOUS, ONLY_MEASURED, Run, Verdict
from ddlib.results import Record
from ddlib.study import notebooks


def verdict(id, runs):
    return next(v for paper in results.papers() for v in evidence.verdicts(paper, runs) if v.claim.id == id)


def record(label, mean, **fields):
    fields = {"label": label, "dataset": "digits", "ipc": 1, "cell": {}} | fields
    return Record(accuracies=(mean - 1, mean, mean + 1), **fields)


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
    checks = [type("Check", (), {"outcome": outcome})() for outcome in outcomes]
    assert Verdict(claim, tuple((None, check) for check in checks)).outcome == word


def test_every_claim_but_one_is_tested_by_a_notebook_that_says_so():
    named = {id for name in notebooks.names() for id in evidence.claims_of(name)}
    known = {claim.id for paper in results.papers() for claim in results.claims(paper)}
    assert named < known and known - named == {"dim_above_dsa_on_svhn"}  # no notebook has DSA on SVHN


def test_rows_that_cannot_be_told_apart_are_listed():
    rows = (record("DM, few", 50.0, method="dm"), record("DM, fewer", 50.0, method="dm"), RANDOM)
    run = Run("compare/none", "quick", rows)
    found = verdict("dm_above_random", [run])
    ((where, word, why),) = found.gaps
    assert found.evidence == () and found.outcome == "not run"
    assert (where, word) == (run, AMBIGUOUS) and "'DM, few', 'DM, fewer'" in why


def test_one_measurement_in_two_notebooks_is_one_piece_of_evidence():
    a, b, c = (Run(f"compare/{name}", "quick", (DM, RANDOM)) for name in "abc")
    other = Run("compare/d", "quick", (record("DM", 51.0, method="dm"), RANDOM))
    assert [run for run, _ in verdict("dm_above_random", [a, b, other, c]).evidence] == [a, other]
    more = tuple(dataclasses.replace(r, ipc=10) for r in (DM, RANDOM))
    both = Run("compare/f", "quick", (DM, RANDOM, *more))
    ((run, check),) = verdict("dm_above_random", [a, both]).evidence
    assert run is both and len(check.tests) == 2
    at_hour = dataclasses.replace(a, profile="hour")
    assert len(verdict("dm_above_random", [a, at_hour]).evidence) == 2


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
    ((_, check),) = verdict("ld3m_above_glad_by_dm", [Run("compare/none", "quick", tuple(rows))]).evidence
    where = [(t.where, t.comparison.difference) for t in check.tests]
    assert where == [("digits, unseen, IPC 10", 10.0)]
    seen_alone = Run("compare/none", "quick", tuple(r for r in rows if r.network != "vit"))
    found = verdict("ld3m_above_glad_by_dm", [seen_alone])
    assert found.evidence == () and found.gaps == ()


def test_a_mean_that_cannot_be_formed_is_no_silence():
    rows = across({"LD3M, DM": 50.0, "GLaD, DM": 50.0}, {"vit": "vit", "vgg11": "vgg11"})
    rows[0] = dataclasses.replace(rows[0], accuracies=(1.0, 2.0))
    ((_, _, why),) = verdict("ld3m_above_glad_by_dm", [Run("compare/none", "quick", tuple(rows))]).gaps
    assert "has accuracies of 2 on vit, 3 on vgg11; allowed: as many on each" in why


def test_a_claim_that_a_notebook_measures_is_tested_by_its_table_or_not():
    row = {"method": "ATOM", "kind": "spearman", "among": "all", "networks": 24}
    row |= {"gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    tables = {"nas": {"correlations": [row]}, "cost": {"steps": [{"method": "ATOM", "seconds": 1.0}]}}
    runs = [Run(f"atom/{name}", "quick", measured=results.Measurements(t, (), {})) for name, t in tables.items()]
    ranked, cost = (verdict(id, runs) for id in ("distilled_sets_rank_architectures", "atom_costs_as_datadam"))
    ((_, check),) = ranked.evidence
    assert ranked.outcome == "holds" and [test.where for test in check.tests] == ["digits, 24 networks"]
    assert (cost.outcome, cost.evidence) == ("not tested", ())
    assert [(run, word) for run, word, _ in cost.gaps] == [(runs[1], ONLY_MEASURED)]
    assert verdict("distilled_sets_rank_architectures", []).outcome == "not run"
