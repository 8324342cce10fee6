"""Tables as objects: text in a terminal, HTML in a notebook, a DataFrame to go on with, from the same rows."""

import html
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ddlib.report.style import footer
from ddlib.results import (
    VERDICTS,
    ClaimCheck,
    ClaimTest,
    Record,
    Reference,
    joined,
    mean_of_deviations,
    mean_record,
    provenance,
    title,
    unseen_groups,
)

if TYPE_CHECKING:
    import pandas

Texts = tuple[str, ...]

DAGGER, DOUBLE_DAGGER, BLANK = "†", "‡", "–"
TEXT_WIDTH = 88

GOOD, FAIR, BAD, PLAIN = "#009e73", "#56b4e9", "#d55e00", "#999999"
DOTS = {"REPRODUCED": GOOD, "CLOSE": FAIR, "ABOVE": FAIR, "BELOW": BAD, "holds": GOOD, "fails": BAD}
"""Outcome -> the colour of the dot before it, which repeats what the word says."""


@dataclass(frozen=True)
class Table:
    """Rows under headings, with a line above and notes below.

    head: the line above, e.g. how many cells came to which verdict.
    columns: their names; the last one is the outcome.
    groups: (heading, rows); each row has a text for every column.
    notes: the lines below.
    provenance: where the numbers come from; its short form is the last line.
    """

    head: str
    columns: Texts
    groups: tuple[tuple[str, tuple[Texts, ...]], ...]
    notes: Texts = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def frame(self) -> "pandas.DataFrame":
        """The rows as texts, with the heading that they stand under as the index."""
        import pandas

        rows = [row for _, group in self.groups for row in group]
        headings = [heading for heading, group in self.groups for _ in group]
        return pandas.DataFrame(rows, columns=[*self.columns], index=headings).map(str.strip)

    def _lines_below(self) -> Texts:
        return (*self.notes, footer(self.provenance)) if self.provenance else self.notes

    def __str__(self) -> str:
        rows = [row for _, group in self.groups for row in group]
        widths = [max(map(len, column)) for column in zip(self.columns, *rows, strict=True)]
        lines = textwrap.wrap(self.head, TEXT_WIDTH)
        for heading, group in self.groups:
            lines += ["", *textwrap.wrap(heading, TEXT_WIDTH), _line(self.columns, widths)]
            lines += ["  ".join("-" * width for width in widths), *(_line(row, widths) for row in group)]
        below = self._lines_below()
        notes = [line for note in below for line in textwrap.wrap(note, TEXT_WIDTH, subsequent_indent="  ")]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [_html_row("th", self.columns)]
        for heading, group in self.groups:
            cell = f'<th colspan="{len(self.columns)}" style="text-align:left;padding-top:0.8em">'
            rows.append(f"<tr>{cell}{html.escape(heading)}</th></tr>")
            rows += [_html_row("td", row) for row in group]
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._lines_below())
        return (
            f'<div style="max-width:46em"><p>{html.escape(self.head)}</p><div style="overflow-x:auto">'
            f'<table style="font-variant-numeric:tabular-nums;margin:0">{"".join(rows)}</table></div>'
            f'<div style="font-size:85%;margin-top:0.5em">{notes}</div></div>'
        )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _html_row(tag: str, row: Sequence[str]) -> str:
    *texts, outcome = (html.escape(" ".join(text.split())) for text in row)
    dot = f'<span style="color:{DOTS.get(outcome, PLAIN)}">&#9679;</span> ' if tag == "td" else ""
    style = ' style="text-align:left;white-space:nowrap"'
    return "<tr>" + "".join(f"<{tag}{style}>{text}</{tag}>" for text in (*texts, dot + outcome)) + "</tr>"


def table(records: Sequence[Record], *, paper: str | None = None) -> Table:
    """What the paper reports, what we reached, and the verdict, a row for every record.

    Rows are grouped by data set and evaluation network; within a group, methods stand in the order of their first
    record, each with rising images per class.  Ours is mean ± sample deviation in percent, with the number of
    networks in brackets; a cell that was not run shows what it would cost.

    Args:
        paper: one of `results.papers()`, whose title to put above.
    """
    columns = ("method", "IPC", "paper", "ours", "verdict")
    return Table(_head(records, paper), columns, grouped(records, _row), tuple(_notes(records)), provenance(records))


def _head(records: Sequence[Record], paper: str | None) -> str:
    counts = Counter(record.verdict for record in records)
    verdicts = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
    head = count(len(records), "cell") + (f": {verdicts}" if verdicts else "")
    return f"{title(paper)}. {head}" if paper else head


def unseen_table(records: Sequence[Record], *, seen: Sequence[str] = ("convnet",), paper: str | None = None) -> Table:
    """The mean over the networks that nothing was distilled with, as `table`, with the deviation both ways.

    Ours is the mean ± the sample deviation of the mean itself, over the repeats of `results.unseen`; "their ±" is what
    GLaD and LD3M print in its place, the mean of the networks' population deviations.

    Args:
        records: as `study.run` gives them, of every network.
        seen: the networks that were distilled with.
        paper: one of `results.papers()`, whose title to put above.

    Raises:
        ValueError: as `results.unseen`.
    """
    groups = unseen_groups(records, seen)
    means = [mean_record(group) for group in groups]
    spreads = dict(zip(map(id, means), map(mean_of_deviations, groups), strict=True))

    def row(record: Record) -> Texts:
        *texts, outcome = _row(record)
        spread = spreads[id(record)]
        return (*texts, "-" if spread is None else f"± {spread:3.1f}", outcome)

    over = ", ".join(dict.fromkeys(record.network for group in groups for record in group))
    return Table(
        head=_head(means, paper),
        columns=("method", "IPC", "paper", "ours", "their ±", "verdict"),
        groups=grouped(means, row, what=f"mean test accuracy in % over {over}"),
        notes=(*MEANS, *[*_notes(means)][1:]),
        provenance=provenance(means),
    )


MEANS = (
    "paper: as published. ours: mean over the networks ± sample deviation of that mean (number of repeats).",
    "their ±: as published, the mean of the networks' own deviations (population), beside the same mean.",
)


def grouped(
    records: Sequence[Record], row: Callable[[Record], Texts], *, what: str = "test accuracy in %"
) -> tuple[tuple[str, tuple[Texts, ...]], ...]:
    """The groups of a table of records: by data set and network, then by label in order of appearance, then by IPC.

    Args:
        row: the texts of a record.
        what: stands at the end of a group's heading.
    """
    labels = list(dict.fromkeys(record.label for record in records))
    places = list(dict.fromkeys(map(_place, records)))

    def position(record: Record) -> tuple:
        ipc = float("inf") if record.ipc is None else record.ipc
        return places.index(_place(record)), labels.index(record.label), ipc

    several = len({record.network for record in records}) > 1
    groups = []
    for (dataset, network), group in groupby(sorted(records, key=position), key=_place):
        group = list(group)
        heading = _group_heading(group, dataset, network if several else "")
        groups.append((f"{heading}, {what}", tuple(map(row, group))))
    return tuple(groups)


def _place(record: Record) -> tuple[str, str]:
    return record.dataset, record.network


def _group_heading(records: Sequence[Record], dataset: str, network: str) -> str:
    """The data set, the paper's own where it is another, and the network."""
    others = dict.fromkeys(r.reference.dataset for r in records if r.reference and r.reference.dataset != dataset)
    paper = f" (paper: {', '.join(others)})" if others else ""
    return f"{dataset}{paper}{f', tested on {network}' if network else ''}"


def _row(record: Record) -> Texts:
    ipc = "all" if record.ipc is None else str(record.ipc)
    return record.label, ipc.rjust(3), reported(record.reference, _mean_and_deviation), _ours(record), record.verdict


def reported(reference: Reference | None, number: Callable[[float, float | None], str], without: str = "-") -> str:
    """A reported value in print, with its marks: its mean and deviation by `number`, or why it is not there."""
    if reference is None:
        return without
    if reference.value is None:
        return reference.state
    marks = DAGGER * reference.unverified + DOUBLE_DAGGER * (not reference.comparable)
    return f"{number(reference.value, reference.std)} {marks}".rstrip()


def _ours(record: Record) -> str:
    if record.n:
        return f"{_mean_and_deviation(record.accuracy_mean, record.accuracy_std)} ({record.n})"
    hours = record.cost.get("estimated_hours")
    return "not run" if hours is None else f"not run: about {duration(hours)}"


def _mean_and_deviation(mean: float, std: float | None) -> str:
    return f"{mean:4.1f}" + (" " * 6 if std is None else f" ± {std:3.1f}")


def duration(hours: float) -> str:
    """Hours to two figures, as minutes below one and as days above two."""
    if hours < 1:
        return f"{max(1, round(60 * hours))} min"
    return f"{hours:.2g} h" if hours <= 48 else f"{hours / 24:.0f} days"


def amount(value: float | None) -> str:
    """Whole from 10 on, else with two figures; a dash for None."""
    if value is None:
        return BLANK
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _notes(records: Sequence[Record]) -> Iterator[str]:
    """What the marks mean, the sources, and why verdicts are PROXY."""
    cited = [r.reference for r in records if r.reference and r.reference.value is not None]
    missing = [r.reference for r in records if r.reference and r.reference.value is None]
    yield "paper: as published, mean ± deviation. ours: mean ± sample deviation (number of networks)."
    if any(r.unverified for r in cited):
        sources = _joined(r.source for r in cited if r.unverified)
        yield f"{DAGGER} unverified, not read in a publication of those who measured it: {sources}."
    for note in dict.fromkeys(r.note for r in cited if not r.comparable):
        methods = ", ".join(dict.fromkeys(r.method for r in cited if r.note == note and not r.comparable))
        yield f"{DOUBLE_DAGGER} not comparable ({methods}): {note or 'another recipe'}."
    if any(not r.unverified for r in cited):
        yield f"Sources: {_joined(r.source for r in cited if not r.unverified)}."
    for state in dict.fromkeys(r.state for r in missing):
        yield f"{state}: {_joined(r.source for r in missing if r.state == state)}."
    deviations = _joined(d for r in records if r.verdict == "PROXY" for d in r.deviations)
    if deviations:
        yield f"PROXY, not the paper's setting: {deviations}."


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def claims_table(checks: Sequence[ClaimCheck]) -> Table:
    """Each claim as a sentence with its outcome, and the differences that decide it with their 95 % intervals."""
    counts = Counter(check.outcome for check in checks)
    outcomes = ", ".join(f"{counts[o]} {o}" for o in ("holds", "fails", "undecided") if counts[o])
    head = count(len(checks), "claim") + (f": {outcomes}" if outcomes else "")
    groups = tuple((_heading(check), tuple(map(_test, check.tests)) or (NOTHING,)) for check in checks)
    notes = ["difference: in points, what is claimed to be higher minus the other, with its 95 % interval (Welch)."]
    unverified = _joined(c.claim.source for c in checks if c.claim.unverified)
    if unverified:
        notes.append(f"{DAGGER} unverified, the numbers behind it were not read: {unverified}.")
    verified = _joined(c.claim.source for c in checks if not c.claim.unverified)
    notes += [f"Sources: {verified}."] if verified else []
    columns = ("where", "difference", "interval", "outcome")
    return Table(head, columns, groups, tuple(notes), joined(check.provenance for check in checks if check.tests))


NOTHING = ("no records of both sides", "", "", "undecided")


def _heading(check: ClaimCheck) -> str:
    mark = f" {DAGGER}" if check.claim.unverified else ""
    return f"{check.claim.statement}{mark} {check.outcome.capitalize()}."


def _test(test: ClaimTest) -> Texts:
    difference = test.comparison
    span = f"[{difference.low:+5.1f}, {difference.high:+5.1f}]" if difference.high < float("inf") else "unknown"
    return test.where, f"{difference.difference:+5.1f}", span, test.outcome


def budget_table(records: Sequence[Record]) -> Table:
    """What each record stores and spends: bytes, bits per class, images shown, updates, seconds.

    Rows stand as in `table`.  The numbers are those of `Record.cost` called `bytes_stored`, `bits_per_class`,
    `images_shown`, `updates`, `generation_seconds`, `prerequisite_seconds` and `distil_seconds`; one that is not
    there is a dash.
    """
    columns = ("method", "IPC", "kB", "kbit/class", "images", "updates", "generating", "before", "distilling", "regime")

    def row(record: Record) -> Texts:
        cost, ipc = record.cost, "all" if record.ipc is None else str(record.ipc)
        stored = [cost.get(key) for key in ("bytes_stored", "bits_per_class")]
        spent = ("images_shown", "updates", "generation_seconds", "prerequisite_seconds", "distil_seconds")
        numbers = [*(None if value is None else value / 1e3 for value in stored), *map(cost.get, spent)]
        texts = [amount(n).rjust(max(len(name), 7)) for n, name in zip(numbers, columns[2:9], strict=True)]
        redraw = record.cell.get("hyperparameters", {}).get("redraw")
        regime = {None: "fixed set", 1: "streaming"}.get(redraw, f"anew every {redraw} epochs")
        return record.label, ipc.rjust(3), *texts, regime if record.n else "not run"

    done = [record for record in records if record.n]
    notes = (
        "kB, kbit/class: stored, labels and generators included, and as bits per class.",
        "images: distinct ones that a network is shown. updates: SGD steps of one network.",
        "generating, before, distilling: seconds, over all seeds and networks, of making images, of what is trained "
        "before the distillations (a GAN, experts) and of these themselves; rows that share one show the same.",
        "regime: whether images are drawn anew as a network trains (streaming: all the time), or are one fixed set.",
        f"{BLANK}: not recorded.",
    )
    head = f"{len(done)} of {count(len(records), 'cell')} run: what each takes."
    return Table(head, columns, grouped(records, row, what="budget"), notes, provenance(done))


def count(number: int, what: str) -> str:
    """Such as "1 row" and "2 rows"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
