"""Means over the networks that nothing was distilled with: the cross-architecture numbers of GLaD and LD3M."""

from collections.abc import Sequence
from statistics import fmean, pstdev
from typing import Any

from ddlib.results.provenances import joined
from ddlib.results.records import Record
from ddlib.results.references import Reference
from ddlib.results.reported import find

UNSEEN = "unseen"
"""The network that a mean over the unseen ones is called to be tested on."""


def convnets(records: Sequence[Record]) -> tuple[str, ...]:
    """The networks tested on that are ConvNets, whatever they are called: with another norm, or without augmentation.

    A record's protocol says of which kind its network is; where it says nothing, it is what it is called.
    """
    return tuple(dict.fromkeys(record.network for record in records if _kind(record) == "convnet"))


def _kind(record: Record) -> str:
    protocol = record.cell.get("protocol")
    return protocol.get("network", "convnet") if isinstance(protocol, dict) else record.network


def unseen(records: Sequence[Record], seen: Sequence[str] = ("convnet",)) -> list[Record]:
    """A record of the mean over the unseen networks, for each row, data set and number of images per class.

    Its accuracies are means over the networks, repeat by repeat (the i-th network of each kind on the set of one seed),
    so that their deviation is that of the mean itself.  It is tested on "unseen", deviates from the paper in whatever
    one of its records does, and stands beside what the paper reports for "unseen" where that reports the row at all.
    Where a network was not run, neither was the mean.

    Args:
        records: of one row on several networks.
        seen: the networks that were distilled with, as the records call them.

    Raises:
        ValueError: `seen` names a network that there is not, none is left, a row is not tested on all others once, or
            not as often on each.
    """
    return [mean_record(group) for group in unseen_groups(records, seen)]


def unseen_groups(records: Sequence[Record], seen: Sequence[str] = ("convnet",)) -> list[list[Record]]:
    """The records behind each record of `unseen`, in its order; arguments and errors as there."""
    networks = list(dict.fromkeys(record.network for record in records))
    for name in seen:
        if records and name not in networks:
            raise ValueError(f"seen names {name!r}; known: {', '.join(networks)}")
    left = [name for name in networks if name not in seen]
    if records and not left:
        raise ValueError(f"seen={tuple(seen)!r} leaves no network of {', '.join(networks)}")
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault((record.label, record.dataset, record.ipc), []).append(record)
    return [_whole(place, [r for r in group if r.network in left], left) for place, group in groups.items()]


def _whole(place: tuple, group: list[Record], networks: list[str]) -> list[Record]:
    """The group, if it has one record of each network, and those that were run as many accuracies."""
    found = [record.network for record in group]
    if sorted(found) != sorted(networks):
        raise ValueError(
            f"{place} is tested on {', '.join(found) or 'none'}; allowed: {', '.join(networks)}, each once"
        )
    if len({record.n for record in group if record.n}) > 1:
        counts = ", ".join(f"{record.n} on {record.network}" for record in group)
        raise ValueError(f"{place} has accuracies of {counts}; allowed: as many on each")
    return group


def mean_record(group: Sequence[Record]) -> Record:
    """The mean of one row's records on several networks; see `unseen`."""
    first, missing = group[0], [record for record in group if not record.n]
    tested = {"tested_on": UNSEEN, "networks": {record.network: record.cell.get("protocol") for record in group}}
    summed, over = (("estimated_hours",), missing) if missing else (("evaluate_seconds", "generation_seconds"), group)
    known = {key: [record.cost[key] for record in over if key in record.cost] for key in summed}
    costs = {key: sum(values) for key, values in known.items() if values}
    return Record.of(
        [] if missing else map(fmean, zip(*(record.accuracies for record in group), strict=True)),
        label=first.label,
        method=first.method,
        dataset=first.dataset,
        ipc=first.ipc,
        cell={name: value for name, value in first.cell.items() if name != "protocol"} | tested,
        reference=_reference([record.reference for record in group if record.reference]),
        deviations=dict.fromkeys(phrase for record in group for phrase in record.deviations),
        cost=costs if missing else _shared(group) | costs,
        provenance=joined(record.provenance for record in group),
    )


OF_THE_SET = (
    *("distil_seconds", "prerequisite_seconds", "teacher_seconds"),
    *("bytes_stored", "bits_per_class", "images_shown"),
)
"""Costs of a set that are the same whatever it is tested on."""


def _shared(group: Sequence[Record]) -> dict[str, Any]:
    """The costs `OF_THE_SET` in which all records agree."""
    first = group[0].cost
    return {k: first[k] for k in OF_THE_SET if all(k in r.cost and r.cost[k] == first[k] for r in group)}


def mean_of_deviations(group: Sequence[Record]) -> float | None:
    """The deviation that GLaD and LD3M print beside such a mean: the mean of the networks' population deviations.

    It says how far networks of one kind scatter, and not how uncertain the mean is, which is less.

    Returns:
        Points; None where a network was not run.
    """
    return fmean(pstdev(record.accuracies) for record in group) if all(record.n for record in group) else None


def _reference(known: Sequence[Reference]) -> Reference | None:
    """What the paper of these references reports for the mean."""
    if not known:
        return None
    names = ("table", "method", "dataset", "ipc", "condition")
    return find(known[0].paper, **{name: getattr(known[0], name) for name in names}, network=UNSEEN)
