"""Whether a claim holds in what a notebook measured: tables of numbers that are no accuracies of cells."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddlib.results.claims import ClaimCheck, ClaimTest
from ddlib.results.measurements import Measurements
from ddlib.results.references import Claim, Measured
from ddlib.results.verdicts import Comparison, Sample, welch

SAID = ("dataset", "networks", "steps", "classes", "ipc")
"""Columns that say where a row was measured, in order; two rows are compared where they agree in all of them."""


def check_measured(claim: Claim, found: Measurements, dataset: str) -> ClaimCheck:
    """Test a claim's direction in the table of its `Measured`; no tests where the claim, or `found`, has none.

    Rows that name another number of images per class than the claim's are left out.

    Args:
        dataset: that the notebook worked on.

    Raises:
        ValueError: the rows lack the columns that the claim names, or two stand for one side at one place.
    """
    told = claim.measured
    if told is None:
        return ClaimCheck(claim, ())
    rows = [row for row in found.tables.get(told.table, ()) if _is_meant(row, told, claim)]
    higher, lower = (_side(name, rows, told) for name in (told.higher, told.lower))
    tests = [
        ClaimTest(f"{dataset}{_where(place)}", comparison)
        for place, row in higher.items()
        for comparison in _compared(row, lower.get(place), told)
    ]
    return ClaimCheck(claim, tuple(tests), dict(found.provenance) if tests else {})


def _where(place: Sequence[tuple[str, Any]]) -> str:
    return "".join(f", IPC {value}" if column == "ipc" else f", {value} {column}" for column, value in place)


def _is_meant(row: Mapping[str, Any], told: Measured, claim: Claim) -> bool:
    ends = ("",) if told.lower else ("", "_low", "_high")
    wanted = [told.column, *told.rows, *(told.field + end for end in ends)]
    if not set(wanted) <= row.keys():
        raise ValueError(f"a row of {told.table!r} has {', '.join(row)}; claim {claim.id!r} needs {', '.join(wanted)}")
    return all(row[name] == value for name, value in told.rows.items()) and row.get("ipc", claim.ipc[0]) in claim.ipc


def _side(name: str | None, rows: Sequence[Mapping[str, Any]], told: Measured) -> dict[tuple, Mapping[str, Any]]:
    """Where a row so called was measured -> the row; nothing without a name."""
    side: dict[tuple, Mapping[str, Any]] = {}
    for row in (row for row in rows if name and row[told.column].casefold() == name.casefold()):
        place = tuple((column, row[column]) for column in SAID if column in row)
        if place in side:
            raise ValueError(f"two rows of {told.table!r} are called {name!r} at {place}; allowed: one")
        side[place] = row
    return side


def _compared(row: Mapping[str, Any], other: Mapping[str, Any] | None, told: Measured) -> Iterator[Comparison]:
    """Of two samples of accuracies by Welch; or the row's own difference, whose interval stands beside it."""
    if told.lower and other and row[told.field] and other[told.field]:
        yield welch(Sample.of(row[told.field]), Sample.of(other[told.field]), 0.95)
    elif not told.lower and row[told.field] is not None:
        value, low, high = (100 * row[told.field + end] for end in ("", "_low", "_high"))
        yield Comparison(value, low, high, p=math.nan, confidence=0.95, error=math.nan, df=math.nan)
