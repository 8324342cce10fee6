"""Architecture search with distilled sets in the place of all data (DC, DM, DataDAM; ATOM's abstract names it).

    found = nas.search(cells, nas.space({"depth": [1, 2]}), workplace)     # each network on each set, from the store
    rows = nas.correlations(found.accuracies, found.reference)             # rank correlations with bootstrap intervals

`space` gives the networks, `search` trains them, `ranking` says what a ranking is worth.
"""

from ddlib.analyses.architecture_search import (
    FACTORS,
    SLICE,
    Architecture,
    Interval,
    agreement,
    among_repeats,
    correlation,
    correlations,
    gain,
    levels,
    space,
    targets,
    winner_accuracy,
    winner_among_repeats,
    winners,
)
from ddlib.analyses.nas.cost import outlook
from ddlib.analyses.nas.trials import Search, reference_of, search

__all__ = [
    "FACTORS",
    "SLICE",
    "Architecture",
    "Interval",
    "Search",
    "agreement",
    "among_repeats",
    "correlation",
    "correlations",
    "gain",
    "levels",
    "outlook",
    "reference_of",
    "search",
    "space",
    "targets",
    "winner_accuracy",
    "winner_among_repeats",
    "winners",
]
