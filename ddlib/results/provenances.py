"""Where several numbers come from, told as one: the provenance of a table, of a figure, or of the seeds of a cell."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddlib.results.records import Record

ALWAYS_LISTED = ("seeds",)
"""What stays a list where there is but one."""


def provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Where the numbers of `records` come from: `joined` over those that were run, or over all where none was."""
    return joined(record.provenance for record in [r for r in records if r.n] or records)


def joined(provenances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One provenance that is true of all: joined again with any of them, it stays as it is.

    An entry on which all agree keeps its value; else it is the sorted list of the values, None where one does not have
    it.  Dates become the first and the last.  `dirty` is True where any is, else None where any does not know.  Entries
    that are mappings, such as versions, are joined entry by entry.
    """
    everything = list(provenances)
    names = dict.fromkeys(name for one in everything for name in one)
    return {name: _joined(name, [one.get(name) for one in everything]) for name in names}


def _joined(name: str, values: Sequence[Any]) -> Any:
    mappings = [value for value in values if isinstance(value, Mapping)]
    if mappings:
        return joined(mappings)
    if name == "dirty":
        return True if True in values else None if None in values else False
    flat = {entry for value in values for entry in (value if isinstance(value, list | tuple) else [value])}
    ordered = sorted(flat, key=lambda entry: (entry is not None, type(entry).__name__, entry))
    if len(ordered) == 1 and name not in ALWAYS_LISTED:
        return ordered[0]
    return [ordered[0], ordered[-1]] if name == "date" else ordered
