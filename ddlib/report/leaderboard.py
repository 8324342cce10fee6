"""Every method under one protocol: the table of its ranking."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ddlib import scores
from ddlib.report.tables import Table
from ddlib.results import Pair, Record, interval, mean_record, neighbours, provenance, ranked

COLUMNS = (
    *("method", "accuracy", "n", "p", "p of sets", "HLR", "IOR", "LRS", "ARS", "others"),
    *("kB", "kbit/class", "images", "before", "making", "using", "and the next"),
)
BLANK = "–"

NOTES = (
    "accuracy: mean test accuracy in %, with half its 95 % interval over n networks (t; all distillation seeds).",
    "p: that a row and the next one have one mean (Welch over all networks); of sets: Welch over the means of the "
    "distillation seeds.  Both by Holm's correction for all pairs of the group.  'above': p < 0.05; 'tied': not.",
    "HLR: the whole set minus the row, hard labels. IOR: the row minus as many real images drawn at random. LRS, ARS: "
    "label and augmentation robust scores (DD-Ranking). All on fractions, with half their 95 % intervals.",
    "others: mean accuracy on networks of other kinds, in %, with half its 95 % interval over the repeats.",
    "kB, kbit/class: stored, labels and generators included. images: distinct ones that a network is shown.",
    "before, making, using: seconds of what is trained beforehand, of all its users together; of one distillation; of "
    f"training and testing one network.  {BLANK}: not known.",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the ranking, with what else is known of it.

    record: judged by the protocol.
    others: the mean over networks of other kinds, or None.
    lrs, ars: where all that they need was run, or None.
    pair: with the next row, or None in the last one.
    """

    record: Record
    others: Record | None = None
    lrs: scores.Score | None = None
    ars: scores.Score | None = None
    pair: Pair | None = None


def standings(
    records: Sequence[Record],
    *,
    network: str = "convnet",
    plain: str | None = None,
    hard: Mapping[str, str] | None = None,
    random: str = "Random",
) -> dict[int | None, list[Entry]]:
    """The ranking at each number of images per class, the highest accuracy first.

    A record of the whole training set stands in each ranking.  What was not run is left out.

    Args:
        records: of one data set, every row on `network`, and on any others.
        network: tested on, by the protocol.
        plain: what the same network trained without augmentation is called; None: there is none, and no ARS.
        hard: label of a row with soft labels -> label of the row that has the same set with hard ones.  The labels of
            rows that are not in it are hard.
        random: label of real images drawn at random, without which there is neither IOR, LRS nor ARS.

    Raises:
        ValueError: records are of several data sets, a row stands twice at one place, `network` or a label of `hard`
            is not there, or the accuracies are not as many for each seed.
    """
    found = _by_place(records)
    _check(records, network, hard or {})
    judged = [record for record in records if record.network == network]
    ipcs = sorted({r.ipc for r in judged if r.ipc is not None}) or [None]
    names = {"network": network, "plain": plain, "hard": hard or {}, "random": random}
    return {ipc: _ranking([r for r in judged if r.ipc in (ipc, None)], found, names) for ipc in ipcs}


def leaderboard(records: Sequence[Record], **told) -> Table:
    """The rankings as one table, a group for each number of images per class.

    Args:
        records: as `standings`, and so is `told`.

    Raises:
        ValueError: as `standings`.
    """
    groups = standings(records, **told)
    rows = {ipc: tuple(map(_row, entries)) for ipc, entries in groups.items()}
    done = [record for record in records if record.n]
    pairs = [entry.pair for entries in groups.values() for entry in entries if entry.pair]
    apart = sum(pair.significant() for pair in pairs)
    head = f"{sum(map(len, rows.values()))} rows; {apart} of {len(pairs)} pairs of neighbours are apart."
    return Table(
        head=head,
        columns=COLUMNS,
        groups=tuple((_heading(records, ipc), group) for ipc, group in rows.items()),
        notes=NOTES,
        provenance=provenance(done),
    )


def _by_place(records: Sequence[Record]) -> dict[tuple, Record]:
    """(label, images per class, network) -> its record."""
    found: dict[tuple, Record] = {}
    for record in records:
        place = record.label, record.ipc, record.network
        if place in found:
            raise ValueError(f"{place} has two records; allowed: one for each row, number of images and network")
        found[place] = record
    return found


def _check(records: Sequence[Record], network: str, hard: Mapping[str, str]) -> None:
    if len(sets := dict.fromkeys(record.dataset for record in records)) > 1:
        raise ValueError(f"records are of {', '.join(sets)}; allowed: one data set")
    if records and network not in (known := dict.fromkeys(record.network for record in records)):
        raise ValueError(f"network={network!r}; known: {', '.join(known)}")
    labels = dict.fromkeys(record.label for record in records)
    for label in (label for pair in hard.items() for label in pair):
        if label not in labels:
            raise ValueError(f"hard names {label!r}; known: {', '.join(labels) or 'none'}")


def _ranking(judged: Sequence[Record], found: Mapping[tuple, Record], names: Mapping) -> list[Entry]:
    order, pairs = ranked(judged), neighbours(judged)
    full = next((record for record in order if record.method == "whole"), None)
    return [
        Entry(
            record=record,
            others=_others(record, found, names),
            lrs=_lrs(record, full, found, names),
            ars=_ars(record, found, names),
            pair=pair,
        )
        for record, pair in zip(order, [*pairs, None], strict=False)
    ]


def _others(record: Record, found: Mapping[tuple, Record], names: Mapping) -> Record | None:
    """The mean over the networks of other kinds, where they were run as often each."""
    own = {names["network"], names["plain"]}
    group = [r for (label, ipc, on), r in found.items() if (label, ipc) == (record.label, record.ipc) and on not in own]
    return mean_record(group) if group and len({r.n for r in group}) == 1 and group[0].n else None


def _run(found: Mapping[tuple, Record], label: str, record: Record, network: str | None) -> Record | None:
    """Another row where `record` stands, or None; it is called as tested on the same network, which it is."""
    other = found.get((label, record.ipc, network))
    if other is None or not other.n:
        return None
    return dataclasses.replace(other, cell=other.cell | {"tested_on": record.network})


def _lrs(record: Record, full: Record | None, found: Mapping[tuple, Record], names: Mapping) -> scores.Score | None:
    hard = _run(found, names["hard"].get(record.label, record.label), record, names["network"])
    random = _run(found, names["random"], record, names["network"])
    if None in (full, hard, random):
        return None
    return scores.lrs(full=full, hard=hard, own=record, random=random)


def _ars(record: Record, found: Mapping[tuple, Record], names: Mapping) -> scores.Score | None:
    sides = {
        "noaug": _run(found, record.label, record, names["plain"]),
        "random_aug": _run(found, names["random"], record, names["network"]),
        "random_noaug": _run(found, names["random"], record, names["plain"]),
    }
    return None if None in sides.values() else scores.ars(aug=record, **sides)


def _heading(records: Sequence[Record], ipc: int | None) -> str:
    amount = {None: "all images", 1: "1 image per class"}.get(ipc, f"{ipc} images per class")
    return f"{records[0].dataset}, {amount}"


def _row(entry: Entry) -> tuple[str, ...]:
    record, pair = entry.record, entry.pair
    parts = (entry.lrs.components if entry.lrs else {}) | ({} if entry.lrs is None else {"LRS": entry.lrs.estimate})
    estimates = [parts.get(name) for name in ("HLR", "IOR", "LRS")] + [entry.ars and entry.ars.estimate]
    numbers = (
        accuracy(record),
        str(record.n),
        *(BLANK if p is None else f"{p:.3f}" for p in (pair and pair.p_networks, pair and pair.p_sets)),
        *(BLANK if e is None else f"{e.value:5.2f} ± {(e.high - e.low) / 2:.2f}" for e in estimates),
        BLANK if entry.others is None else accuracy(entry.others),
        *(_amount(record.cost.get(key), unit) for key, unit in (("bytes_stored", 1e3), ("bits_per_class", 1e3))),
        *map(_amount, (record.cost.get("images_shown"), record.cost.get("prerequisite_seconds"))),
        *map(_amount, (seconds_of_a_set(record), seconds_of_a_network(record))),
    )
    widths = map(len, COLUMNS[1:-1])
    outcome = "" if pair is None else "above" if pair.significant() else "tied"
    return record.label, *(text.rjust(max(width, 5)) for text, width in zip(numbers, widths, strict=True)), outcome


def accuracy(record: Record) -> str:
    """Mean accuracy and half its 95 % interval, as text."""
    half = f" ± {(interval(record.accuracies)[1] - record.accuracy_mean):3.1f}" if record.n > 1 else ""
    return f"{fmean(record.accuracies):4.1f}{half}"


def seconds_of_a_set(record: Record) -> float | None:
    """Seconds of one of the record's distillations, or None where they are not recorded."""
    seconds, seeds = record.cost.get("distil_seconds"), len(record.cell.get("seeds", ()))
    return None if seconds is None or not seeds else seconds / seeds


def seconds_of_a_network(record: Record) -> float | None:
    """Seconds of training and testing one network on the record's set, or None where they are not recorded."""
    seconds = record.cost.get("evaluate_seconds")
    return None if seconds is None or not record.n else seconds / record.n


def _amount(value: float | None, unit: float = 1) -> str:
    """Whole from 10 on, else with two figures."""
    if value is None:
        return BLANK
    return f"{value / unit:,.0f}" if value / unit >= 10 else f"{value / unit:.2g}"
