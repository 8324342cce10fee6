"""Every method under one protocol: the ranking of rows, with the robust scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ddlib.report.tables import BLANK, Table, amount, per_class
from ddlib.results import Record, interval, mean_record, neighbours, scores
from ddlib.results.statistics import Pair, ranked

NETWORK, RANDOM = "convnet", "Random"
"""Tested on, by the protocol, and the label of real images drawn at random."""

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
    """A row of the ranking, with what else is known of it; None for what was not run.

    others: the mean over networks of other kinds.
    by_bytes: IOR over the real images of the bytes of its generator.
    pair: with the next row.
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
    network: str = NETWORK,
    plain: str | None = None,
    hard: Mapping[str, str] | None = None,
    equal_bytes: Mapping[str, str] | None = None,
) -> dict[int | None, list[Entry]]:
    """The ranking on a network at each number of images per class, the highest accuracy first.

    A record of the whole training set stands in each ranking, and one of the bytes of a generator in that of each row
    which stores this.  What was not run is left out.  IOR, LRS and ARS are against the row called `RANDOM`.

    Args:
        records: of one data set, every row on `network`, and on any others.
        network: tested on, by the protocol.
        plain: what the same network trained without augmentation is called; None: there is none, and no ARS.
        hard: label of a row with soft labels -> label of the row that has the same set with hard ones.
        equal_bytes: label of a row that stores a generator -> label of the real images of its bytes.

    Raises:
        ValueError: a row stands twice at one place, a label of `hard` or `equal_bytes` is not there, or the accuracies
            are not as many for each seed.
    """
    hard, equal_bytes = hard or {}, equal_bytes or {}
    for place, number in Counter((record.label, record.ipc, record.network) for record in records).items():
        if number > 1:
            raise ValueError(f"{place} has two records; allowed: one for each row, number of images and network")
    labels = {record.label for record in records}
    if unknown := {*hard, *hard.values(), *equal_bytes, *equal_bytes.values()} - labels:
        raise ValueError(f"unknown rows {sorted(unknown)}; known: {', '.join(sorted(labels))}")
    here = [record for record in records if record.network == network]
    own_ranking = [record for record in here if record.label not in equal_bytes.values()]
    rankings = {}
    for ipc in sorted({record.ipc for record in own_ranking if record.ipc is not None}) or [None]:
        rows = [record for record in own_ranking if record.ipc in (ipc, None) and record.n]
        same_bytes = {equal_bytes.get(record.label) for record in rows}
        rows += [record for record in here if record.label in same_bytes and record.n]
        rankings[ipc] = []
        for record, pair in zip_longest(ranked(rows), neighbours(rows)):
            images = next((row for row in rows if row.label == equal_bytes.get(record.label)), None)
            rankings[ipc].append(_entry(record, pair, records, plain, hard.get(record.label, record.label), images))
    return rankings


def _entry(
    record: Record, pair: Pair | None, records: Sequence[Record], plain: str | None, hard: str, images: Record | None
) -> Entry:
    """A row with its scores, as far as the records that they need were run; `images` are real ones of its bytes."""
    run = {(r.label, r.network): r for r in records if r.ipc == record.ipc and r.n}
    own, random = record.label, run.get((RANDOM, record.network))
    full = next((r for r in records if r.method == "whole" and r.network == record.network and r.n), None)
    others = [r for r in records if (r.label, r.ipc) == (own, record.ipc) and r.network not in (record.network, plain)]
    comparable = others and others[0].n and len({r.n for r in others}) == 1
    lrs = ars = None
    if full and random and (hard, record.network) in run:
        lrs = scores.lrs(full=full, hard=run[hard, record.network], own=record, random=random)
    if random and {(own, plain), (RANDOM, plain)} <= run.keys():
        noaug, random_noaug = run[own, plain], run[RANDOM, plain]
        ars = scores.ars(aug=record, noaug=noaug, random_aug=random, random_noaug=random_noaug)
    return Entry(
        record=record,
        others=mean_record(others) if comparable else None,
        lrs=lrs,
        ars=ars,
        by_bytes=scores.gain(own=record, other=images) if images else None,
        pair=pair,
    )


def leaderboard(
    rankings: Mapping[int | None, Sequence[Entry]], *, provenance: Mapping[str, Any] | None = None
) -> Table:
    """The rankings of `standings` as one table, a group for each number of images per class."""
    groups = []
    for ipc, entries in rankings.items():
        heading = f"{entries[0].record.dataset}, {per_class(ipc)}" if entries else per_class(ipc)
        groups.append((heading, tuple(_row(entry) for entry in entries)))
    pairs = [entry.pair for entries in rankings.values() for entry in entries if entry.pair]
    apart = sum(pair.significant() for pair in pairs)
    head = f"{sum(map(len, rankings.values()))} rows; {apart} of {len(pairs)} pairs of neighbours are apart."
    return Table(head, COLUMNS, tuple(groups), NOTES, provenance or {})


def _row(entry: Entry) -> tuple[str, ...]:
    record, pair, cost = entry.record, entry.pair, entry.record.cost.get
    components = entry.lrs.components if entry.lrs else {}
    p_values = (pair.p_sets, pair.p_networks) if pair else (None, None)
    numbers = (
        _accuracy(record),
        str(record.n),
        *(BLANK if p is None else f"{p:.3f}" for p in p_values),
        *(_estimate(value, "+.2f") for value in (components.get("HLR"), components.get("IOR"), entry.by_bytes)),
        *(_estimate(score and score.estimate, ".2f") for score in (entry.lrs, entry.ars)),
        BLANK if entry.others is None else _accuracy(entry.others),
        *(amount(cost(name), 1e3) for name in ("bytes_stored", "bits_per_class")),
        *(amount(cost(name)) for name in ("images_shown", "prerequisite_seconds")),
        amount(cost("distil_seconds"), len(record.cell.get("seeds", ()))),
        amount(cost("evaluate_seconds"), record.n),
    )
    widths = map(len, COLUMNS[1:-1])
    outcome = "" if pair is None else "above" if pair.significant() else "not told apart"
    return record.label, *(text.rjust(max(width, 5)) for text, width in zip(numbers, widths, strict=True)), outcome


def _accuracy(record: Record) -> str:
    half = f" ± {interval(record.accuracies)[1] - record.accuracy_mean:3.1f}" if record.n > 1 else ""
    return f"{record.accuracy_mean:4.1f}{half}"


def _estimate(value: scores.Estimate | None, form: str) -> str:
    """An estimate with half its interval; "?" where one round says nothing."""
    if value is None:
        return BLANK
    half = max(value.high - value.value, value.value - value.low)  # one end may be cut
    return f"{value.value:{form}} ± {half:.2f}" if value.n > 1 else f"{value.value:{form}} ± ?"
