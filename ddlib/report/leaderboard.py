"""Every method under one protocol: the table of its ranking, and that of the robust scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ddlib.report.tables import BLANK, Table, amount, count
from ddlib.results import Pair, Record, interval, mean_record, neighbours, provenance, ranked, scores
from ddlib.results.scores import Estimate, Score

COLUMNS = (
    *("method", "accuracy", "n", "p", "p of networks", "HLR", "IOR", "IOR, bytes", "LRS", "ARS", "others"),
    *("kB", "kbit/class", "images", "before", "making", "using", "and the next"),
)

NOTES = (
    "accuracy: mean test accuracy in %, with half its 95 % interval over n networks (t), taken as independent.",
    "p: that a row and the next one have one mean, over the means of the distillation seeds (t, seed by seed where "
    "both rows have the same; else Welch); of networks: Welch over all networks, taken as independent.  "
    "Both by Holm's correction for all pairs of the group.  'above': p < 0.05; 'not told apart': not.",
    "HLR: the whole set minus the row, hard labels. IOR: the row minus as many real images drawn at random as an epoch "
    "of it has. LRS, ARS: label and augmentation robust scores (DD-Ranking). All on fractions, with half their 95 % "
    "intervals over the means of the seeds.",
    "IOR, bytes: the row minus as many real images as take the bytes of its generator. HLR apart, the scores of a row "
    "that stores a generator are by the images shown, not by bytes.",
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
    by_bytes: IOR over the real images of the bytes of its generator, where it stores one and these were run, or None.
    pair: with the next row, or None in the last one.
    """

    record: Record
    others: Record | None = None
    lrs: scores.Score | None = None
    ars: scores.Score | None = None
    by_bytes: scores.Estimate | None = None
    pair: Pair | None = None


def standings(
    records: Sequence[Record],
    *,
    network: str = "convnet",
    plain: str | None = None,
    hard: Mapping[str, str] | None = None,
    random: str = "Random",
    equal_bytes: Mapping[str, str] | None = None,
) -> dict[int | None, list[Entry]]:
    """The ranking at each number of images per class, the highest accuracy first.

    A record of the whole training set stands in each ranking, and one of the bytes of a generator in that of each row
    which stores this.  What was not run is left out.

    Args:
        records: of one data set, every row on `network`, and on any others.
        network: tested on, by the protocol.
        plain: what the same network trained without augmentation is called; None: there is none, and no ARS.
        hard: label of a row with soft labels -> label of the row that has the same set with hard ones.  The labels of
            rows that are not in it are hard.
        random: label of real images drawn at random, without which there is neither IOR, LRS nor ARS.
        equal_bytes: label of a row that stores a generator -> label of the real images drawn at random that take its
            bytes, which have no ranking of their own.

    Raises:
        ValueError: records are of several data sets, a row stands twice at one place, `network` or a label of `hard`
            or `equal_bytes` is not there, or the accuracies are not as many for each seed.
    """
    found = _by_place(records)
    names = {"network": network, "plain": plain, "hard": hard or {}, "random": random, "bytes": equal_bytes or {}}
    _check(records, names)
    judged = [record for record in records if record.network == network]
    filling = {*names["bytes"].values()}
    ipcs = sorted({r.ipc for r in judged if r.ipc is not None and r.label not in filling}) or [None]
    return {ipc: _ranking(_together(judged, ipc, names["bytes"]), found, names) for ipc in ipcs}


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


def _together(judged: Sequence[Record], ipc: int | None, equal_bytes: Mapping[str, str]) -> list[Record]:
    """The rows of one ranking."""
    here = [record for record in judged if record.ipc in (ipc, None) and record.label not in equal_bytes.values()]
    filling = {equal_bytes.get(record.label) for record in here if record.n}
    return here + [record for record in judged if record.label in filling]


def _check(records: Sequence[Record], names: Mapping) -> None:
    if len(sets := dict.fromkeys(record.dataset for record in records)) > 1:
        raise ValueError(f"records are of {', '.join(sets)}; allowed: one data set")
    if records and names["network"] not in (known := dict.fromkeys(record.network for record in records)):
        raise ValueError(f"network={names['network']!r}; known: {', '.join(known)}")
    labels = dict.fromkeys(record.label for record in records)
    told = {"hard": names["hard"], "equal_bytes": names["bytes"]}
    for what, label in ((what, label) for what, pairs in told.items() for pair in pairs.items() for label in pair):
        if label not in labels:
            raise ValueError(f"{what} names {label!r}; known: {', '.join(labels) or 'none'}")


def _ranking(judged: Sequence[Record], found: Mapping[tuple, Record], names: Mapping) -> list[Entry]:
    order, pairs = ranked(judged), neighbours(judged)
    full = next((record for record in order if record.method == "whole"), None)
    return [
        Entry(
            record=record,
            others=_others(record, found, names),
            lrs=_lrs(record, full, found, names),
            ars=_ars(record, found, names),
            by_bytes=_by_bytes(record, judged, names),
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
    """Another row where `record` stands, or None."""
    other = found.get((label, record.ipc, network))
    return other if other is not None and other.n else None


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


def _by_bytes(record: Record, judged: Sequence[Record], names: Mapping) -> scores.Estimate | None:
    other = next((r for r in judged if r.n and r.label == names["bytes"].get(record.label)), None)
    return None if other is None else scores.gain(own=record, other=other)


def _heading(records: Sequence[Record], ipc: int | None) -> str:
    amount = {None: "all images", 1: "1 image per class"}.get(ipc, f"{ipc} images per class")
    return f"{records[0].dataset}, {amount}"


def _row(entry: Entry) -> tuple[str, ...]:
    record, pair = entry.record, entry.pair
    parts = entry.lrs.components if entry.lrs else {}
    differences = (parts.get("HLR"), parts.get("IOR"), entry.by_bytes)
    stored = [record.cost.get(key) for key in ("bytes_stored", "bits_per_class")]
    taken = record.cost.get("evaluate_seconds")  # by all networks, to train and test them
    numbers = (
        accuracy(record),
        str(record.n),
        *(BLANK if p is None else f"{p:.3f}" for p in (pair and pair.p_sets, pair and pair.p_networks)),
        *(estimate(value, signed=True, digits=2) for value in differences),
        *(estimate(score and score.estimate, digits=2) for score in (entry.lrs, entry.ars)),
        BLANK if entry.others is None else accuracy(entry.others),
        *(amount(value and value / 1e3) for value in stored),
        *(amount(record.cost.get(key)) for key in ("images_shown", "prerequisite_seconds")),
        amount(_seconds_of_a_set(record)),
        amount(taken if taken is None else taken / record.n),
    )
    widths = map(len, COLUMNS[1:-1])
    outcome = "" if pair is None else "above" if pair.significant() else "not told apart"
    return record.label, *(text.rjust(max(width, 5)) for text, width in zip(numbers, widths, strict=True)), outcome


def accuracy(record: Record) -> str:
    """Mean accuracy and half its 95 % interval, as text."""
    half = f" ± {(interval(record.accuracies)[1] - record.accuracy_mean):3.1f}" if record.n > 1 else ""
    return f"{fmean(record.accuracies):4.1f}{half}"


PARTS = {"LRS": ("HLR", "IOR"), "ARS": ("d_aug", "d_noaug")}
"""Score -> its components, in the order of the columns; all but HLR are gains over real images drawn at random."""

ABOVE, BELOW, OPEN = "above random", "below random", "not decided"

SCORE_NOTES = {
    "LRS": (
        "LRS: label robust score, from HLR (the whole training set minus the row, both with hard labels; less is "
        "better) and IOR (the row by its own recipe minus real images drawn at random)."
    ),
    "ARS": (
        "ARS: augmentation robust score, from the row minus real images drawn at random, with (d_aug) and without "
        "(d_noaug) augmentation."
    ),
}


def score_table(rows: Mapping[str, Sequence[Score]], *, provenance: Mapping[str, Any] | None = None) -> Table:
    """LRS and ARS of some rows, with HLR, IOR, d_aug and d_noaug, and whether real images at random are beaten.

    The outcome is "above random" where the intervals of all gains that there are lie above zero, "below random" where
    all lie below.

    Args:
        rows: label -> its scores, LRS, ARS or both; the columns of a score that no row has are left out.
        provenance: where the numbers come from.

    Raises:
        ValueError: there is no score, or a row has one twice.
    """
    named = {label: {score.name: score for score in group} for label, group in rows.items()}
    for label, group in rows.items():
        if len(named[label]) < len(group):
            raise ValueError(f"rows[{label!r}] has a score twice; allowed: {', '.join(PARTS)}, each once")
    present = [name for name in PARTS if any(name in group for group in named.values())]
    if not present:
        raise ValueError(f"rows={dict(rows)!r} has no score; allowed: {' or '.join(PARTS)} of at least one row")
    texts = []
    for label, group in named.items():
        parts: list[Estimate | None] = []
        for name in present:
            score = group.get(name)
            parts += [score.estimate, *(score.components[part] for part in PARTS[name])] if score else [None] * 3
        numbers = [estimate(part, signed=i % 3 > 0) for i, part in enumerate(parts)]
        rounds = min((score.estimate.n for score in group.values()), default=0)
        gains = [gain for score in group.values() for part, gain in score.components.items() if part != "HLR"]
        outcome = OPEN
        if gains and all(gain.low > 0 for gain in gains):
            outcome = ABOVE
        elif gains and all(gain.high < 0 for gain in gains):
            outcome = BELOW
        texts.append((label, *numbers, str(rounds), outcome))
    beaten = sum(row[-1] == ABOVE for row in texts)
    head = f"{count(len(texts), 'row')}, {beaten} of them above real images drawn at random."
    scale = (
        "All on fractions, ± half the 95 % interval over the n means of the distillation seeds, taken in pairs where "
        "they are the same (over the networks where there is one seed); ? where one alone says nothing. "
        "Nothing lost and nothing gained is a score of 0.269."
    )
    columns = ("method", *(column for name in present for column in (name, *PARTS[name])), "n", "outcome")
    notes = (*(SCORE_NOTES[name] for name in present), scale)
    return Table(head, columns, (("scores", tuple(texts)),), notes, provenance or {})


def estimate(value: Estimate | None, *, signed: bool = False, digits: int = 3) -> str:
    """An estimate with half its interval as text; "?" where one round says nothing, a dash for None.

    Args:
        signed: whether with a plus, as differences have it.
        digits: after the point.
    """
    if value is None:
        return BLANK
    text = f"{value.value:{'+' if signed else ''}.{digits}f}"
    half = max(value.high - value.value, value.value - value.low)  # one end may be cut
    return f"{text} ± ?" if value.n < 2 else f"{text} ± {half:.{digits}f}"


def _seconds_of_a_set(record: Record) -> float | None:
    """Seconds of one of the record's distillations, or None where they are not recorded."""
    seconds, seeds = record.cost.get("distil_seconds"), len(record.cell.get("seeds", ()))
    return None if seconds is None or not seeds else seconds / seeds
