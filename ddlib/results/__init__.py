"""Records of what a cell reached, what the papers report for it, and the verdict of the one against the other.

A number stands here with everything needed to judge it: all single accuracies, the reference with its source, and in
what the setting differs from the paper's.  Nothing here computes an accuracy, and nothing draws.
"""

from ddlib.results.across import UNSEEN, convnets, mean_of_deviations, mean_record, unseen, unseen_groups
from ddlib.results.claims import ClaimCheck, ClaimTest, check_claim, side_names
from ddlib.results.effects import Effect, main_effects
from ddlib.results.measurements import Measurements, read_measurements, write_measurements
from ddlib.results.pairing import group_means, paired
from ddlib.results.provenances import joined, provenance
from ddlib.results.ranking import Pair, holm, neighbours, ranked, seed_means
from ddlib.results.records import Record, compare, pick, read, write
from ddlib.results.references import METRICS, Claim, Measured, Paper, Reference, Setting
from ddlib.results.reported import claims, find, load, papers, published, references, title
from ddlib.results.sides import beyond
from ddlib.results.tabled import check_measured
from ddlib.results.verdicts import ASSUMED_N, DELTA, VERDICTS, Comparison, interval, verdict

__all__ = [
    "ASSUMED_N",
    "DELTA",
    "METRICS",
    "UNSEEN",
    "VERDICTS",
    "Claim",
    "ClaimCheck",
    "ClaimTest",
    "Comparison",
    "Effect",
    "Measured",
    "Measurements",
    "Pair",
    "Paper",
    "Record",
    "Reference",
    "Setting",
    "beyond",
    "check_claim",
    "check_measured",
    "claims",
    "compare",
    "convnets",
    "find",
    "group_means",
    "holm",
    "interval",
    "joined",
    "load",
    "main_effects",
    "mean_record",
    "mean_of_deviations",
    "neighbours",
    "paired",
    "papers",
    "pick",
    "provenance",
    "published",
    "ranked",
    "read",
    "read_measurements",
    "references",
    "seed_means",
    "side_names",
    "title",
    "unseen",
    "unseen_groups",
    "verdict",
    "write",
    "write_measurements",
]
