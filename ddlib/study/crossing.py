"""Rows that differ in several choices at once: every combination of the levels of some factors."""

import itertools
from collections.abc import Mapping
from typing import Any

from ddlib.study.parameters import Parameter, checked

BETWEEN = ", "
"""What stands between the levels in a row's label."""


def crossed(factors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a full grid: "ATOM, BN, ZCA" -> the settings of its levels, those of later factors laid over.

    Args:
        factors: name -> levels, each the settings of a row that it stands for: {"norm": {"IN": {"norm": "instance"},
            "BN": {"norm": "batch"}}, ...}.  None: no rows.

    Raises:
        ValueError: a factor has no levels, a level is no mapping, or its name is empty or holds ", ".
    """
    for name, levels in factors.items():
        for level, settings in checked(f"factors[{name!r}]", levels, Parameter(dict, filled=True)).items():
            checked(f"level {level!r} of {name!r}", settings, Parameter(dict))
            if not isinstance(level, str) or not level or BETWEEN in level:
                raise ValueError(f"level {level!r} of {name!r}; it must be a text without {BETWEEN!r}")
    combinations = itertools.product(*(levels.items() for levels in factors.values())) if factors else ()
    rows: dict[str, dict[str, Any]] = {}
    for levels in combinations:
        row = rows.setdefault(BETWEEN.join(level for level, _ in levels), {})
        for _, settings in levels:
            row |= settings
    return rows
