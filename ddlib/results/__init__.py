"""What cells reached, what the papers report for them, and the verdict of the one against the other.

`Record` is what one cell of a table reached: all its accuracies, the paper's number with its source, and in what the
setting differs from the paper's.  `read` and `write` keep records in files; `frame` gives any of them as a tidy pandas
DataFrame with one row per trained network.  `references`, `claims` and `published` are what a paper reports, claims
and states as its settings; `verdict`, `check_claim` and `check_measured` judge ours by it, and `ddlib.results.scores`
has the robust scores LRS and ARS.  Nothing here computes an accuracy, and nothing draws.
"""

from ddlib.results.claims import ClaimCheck, ClaimTest, beyond, check_claim, check_measured, side_names
from ddlib.results.papers import Claim, Measured, Reference, claims, find, load, papers, published, references, title
from ddlib.results.records import (
    UNSEEN,
    Measurements,
    Record,
    convnets,
    frame,
    joined,
    mean_record,
    provenance,
    read,
    read_measurements,
    unseen,
    write,
    write_measurements,
)
from ddlib.results.statistics import compare, group_means, interval, main_effects, neighbours, paired, verdict
