"""Tables as objects: text in a terminal, HTML in a notebook, from the same rows."""

import html
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddlib.report.style import footer
from ddlib.results import ClaimCheck, Record, joined, provenance, title, unseen
from ddlib.results.statistics import VERDICTS

Texts = tuple[str, ...]
Groups = tuple[tuple[str, tuple[Texts, ...]], ...]

DAGGER, DOUBLE_DAGGER, BLANK = "†", "‡", "–"
TEXT_WIDTH = 88

GOOD, FAIR, BAD, PLAIN = "#009e73", "#56b4e9", "#d55e00", "#999999"
DOTS = {"REPRODUCED": GOOD, "CLOSE": FAIR, "ABOVE": FAIR, "BELOW": BAD, "holds": GOOD, "fails": BAD}
"""Outcome -> the colour of the dot before it, which repeats what the word says."""


@dataclass(frozen=True)
class Table:
    """Rows under headings, with a line above (`head`), and notes and the provenance below.

    columns: their names; the last one is the outcome.
    groups: (heading, rows); each row has a text for every column.
    """

    head: str
    columns: Texts
    groups: Groups
    notes: Texts = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def _lines_below(self) -> Texts:
        return (*self.notes, footer(self.provenance)) if self.provenance else self.notes

    def __str__(self) -> str:
        rows = [row for _, group in self.groups for row in group]
        widths = [max(map(len, column)) for column in zip(self.columns, *rows, strict=True)]
        rule = ["-" * width for width in widths]
        lines = textwrap.wrap(self.head, TEXT_WIDTH)
        for heading, group in self.groups:
            lines += ["", *textwrap.wrap(heading, TEXT_WIDTH)]
            for row in (self.columns, rule, *group):
                lines.append("  ".join(map(str.ljust, row, widths)).rstrip())
        notes = [textwrap.fill(note, TEXT_WIDTH, subsequent_indent="  ") for note in self._lines_below()]
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


def _html_row(tag: str, row: Sequence[str]) -> str:
    *texts, outcome = (html.escape(" ".join(text.split())) for text in row)
    dot = f'<span style="color:{DOTS.get(outcome, PLAIN)}">&#9679;</span> ' if tag == "td" else ""
    style = ' style="text-align:left;white-space:nowrap"'
    return "<tr>" + "".join(f"<{tag}{style}>{text}</{tag}>" for text in (*texts, dot + outcome)) + "</tr>"


def table(records: Sequence[Record], *, paper: str | None = None) -> Table:
    """What the paper reports, what we reached, and the verdict, a row for every record, by data set and network.

    Ours is mean ± sample deviation in percent (number of networks), or what a cell that was not run would cost.  The
    title of `paper`, one of `results.papers()`, stands above.
    """
    columns = ("method", "IPC", "paper", "ours", "verdict")
    numbers = "paper: as published, mean ± deviation. ours: mean ± sample deviation (number of networks)."
    notes = (numbers, *_notes(records))
    return Table(_head(records, paper), columns, grouped(records, _row), notes, provenance(records))


def _head(records: Sequence[Record], paper: str | None) -> str:
    counted = _counted("cell", [record.verdict for record in records], VERDICTS)
    return f"{title(paper)}. {counted}" if paper else counted


def _counted(what: str, outcomes: Sequence[str], known: Sequence[str]) -> str:
    """Such as "3 cells: 2 CLOSE, 1 BELOW"."""
    counts = Counter(outcomes)
    by_outcome = ", ".join(f"{counts[outcome]} {outcome}" for outcome in known if counts[outcome])
    return _count(len(outcomes), what) + (f": {by_outcome}" if by_outcome else "")


def unseen_table(records: Sequence[Record], *, paper: str | None = None) -> Table:
    """The mean over all networks but the ConvNet (`results.unseen`, which raises), as `table`.

    Beside the sample deviation of the mean itself stands, as "their ±", what GLaD and LD3M print in its place.
    """
    means = unseen(records)

    def row(record: Record) -> Texts:
        *texts, outcome = _row(record)
        spread = record.cell["their_deviation"]
        return (*texts, "-" if spread is None else f"± {spread:3.1f}", outcome)

    over = ", ".join(dict.fromkeys(network for mean in means for network in mean.cell["networks"]))
    return Table(
        head=_head(means, paper),
        columns=("method", "IPC", "paper", "ours", "their ±", "verdict"),
        groups=grouped(means, row, what=f"mean test accuracy in % over {over}"),
        notes=(
            "paper: as published. ours: mean over the networks ± sample deviation of that mean (number of repeats).",
            "their ±: as published, the mean of the networks' own deviations (population), beside the same mean.",
            *_notes(means),
        ),
        provenance=provenance(means),
    )


def grouped(records: Sequence[Record], row: Callable[[Record], Texts], *, what: str = "test accuracy in %") -> Groups:
    """Texts of records by data set and network, each group by label in order of appearance, then by IPC.

    Args:
        row: the texts of a record.
        what: stands at the end of a group's heading.
    """
    labels = list(dict.fromkeys(record.label for record in records))
    several = len({record.network for record in records}) > 1
    places: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        places.setdefault((record.dataset, record.network), []).append(record)
    groups = []
    for (dataset, network), group in places.items():
        group.sort(key=lambda r: (labels.index(r.label), float("inf") if r.ipc is None else r.ipc))
        papers_own = dict.fromkeys(r.reference.dataset for r in group if r.reference and r.reference.dataset != dataset)
        heading = dataset + (f" (paper: {', '.join(papers_own)})" if papers_own else "")
        heading += f", tested on {network}" if several else ""
        groups.append((f"{heading}, {what}", tuple(map(row, group))))
    return tuple(groups)


def _row(record: Record) -> Texts:
    """A record as `table` shows it."""
    reference, reported = record.reference, "-"
    if reference and reference.value is None:
        reported = reference.state
    elif reference:
        marks = DAGGER * reference.unverified + DOUBLE_DAGGER * (not reference.comparable)
        reported = f"{_mean_and_deviation(reference.value, reference.std)} {marks}".rstrip()
    if record.n:
        ours = f"{_mean_and_deviation(record.accuracy_mean, record.accuracy_std)} ({record.n})"
    else:
        hours = record.cost.get("estimated_hours")
        ours = "not run" if hours is None else f"not run: about {_duration(hours)}"
    return record.label, _ipc(record), reported, ours, record.verdict


def _ipc(record: Record) -> str:
    return "all" if record.ipc is None else f"{record.ipc:3}"


def _mean_and_deviation(mean: float, std: float | None) -> str:
    return f"{mean:4.1f}" + (" " * 6 if std is None else f" ± {std:3.1f}")


def _duration(hours: float) -> str:
    """Hours to two figures, as minutes below one and as days above two."""
    if hours < 1:
        return f"{max(1, round(60 * hours))} min"
    return f"{hours:.2g} h" if hours <= 48 else f"{hours / 24:.0f} days"


def per_class(ipc: int | None) -> str:
    """Such as "1 image per class"."""
    return "all images" if ipc is None else f"{_count(ipc, 'image')} per class"


def amount(value: float | None, per: float = 1) -> str:
    """`value / per`, whole from 10 on, else with two figures; a dash where one of them is not known."""
    if value is None or not per:
        return BLANK
    return f"{value / per:,.0f}" if value / per >= 10 else f"{value / per:.2g}"


def _notes(records: Sequence[Record]) -> Iterator[str]:
    """What the marks mean, the sources, and why verdicts are PROXY."""
    cited = [r.reference for r in records if r.reference and r.reference.value is not None]
    missing = [r.reference for r in records if r.reference and r.reference.value is None]
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
    head = _counted("claim", [check.outcome for check in checks], ("holds", "fails", "undecided"))
    groups = []
    for check in checks:
        rows = []
        for test in check.tests:
            d = test.comparison
            span = f"[{d.low:+5.1f}, {d.high:+5.1f}]" if d.high < float("inf") else "unknown"
            rows.append((test.where, f"{d.difference:+5.1f}", span, test.outcome))
        heading = f"{check.claim.statement}{f' {DAGGER}' * check.claim.unverified} {check.outcome.capitalize()}."
        groups.append((heading, tuple(rows or [("no records of both sides", "", "", "undecided")])))
    notes = ["difference: in points, what is claimed to be higher minus the other, with its 95 % interval over sets."]
    unverified = _joined(c.claim.source for c in checks if c.claim.unverified)
    if unverified:
        notes.append(f"{DAGGER} unverified, the numbers behind it were not read: {unverified}.")
    verified = _joined(c.claim.source for c in checks if not c.claim.unverified)
    notes += [f"Sources: {verified}."] if verified else []
    columns = ("where", "difference", "interval", "outcome")
    origin = joined(check.provenance for check in checks if check.tests)
    return Table(head, columns, tuple(groups), tuple(notes), origin)


def budget_table(records: Sequence[Record]) -> Table:
    """What each record stores and spends by its `cost`, in rows as in `table`; a dash where it does not say."""
    columns = ("method", "IPC", "kB", "kbit/class", "images", "updates", "generating", "before", "distilling", "regime")

    def row(record: Record) -> Texts:
        stored = [amount(record.cost.get(name), 1e3) for name in ("bytes_stored", "bits_per_class")]
        spent = ("images_shown", "updates", "generation_seconds", "prerequisite_seconds", "distil_seconds")
        numbers = [*stored, *(amount(record.cost.get(name)) for name in spent)]
        texts = [text.rjust(max(len(name), 7)) for text, name in zip(numbers, columns[2:9], strict=True)]
        redraw = record.cell.get("hyperparameters", {}).get("redraw")
        regime = {None: "fixed set", 1: "streaming"}.get(redraw, f"anew every {redraw} epochs")
        return record.label, _ipc(record), *texts, regime if record.n else "not run"

    done = [record for record in records if record.n]
    notes = (
        "kB, kbit/class: stored, labels and generators included, and as bits per class.",
        "images: distinct ones that a network is shown. updates: SGD steps of one network.",
        "generating, before, distilling: seconds, over all seeds and networks, of making images, of what is trained "
        "before the distillations (a GAN, experts) and of these themselves; rows that share one show the same.",
        "regime: whether images are drawn anew as a network trains (streaming: all the time), or are one fixed set.",
        f"{BLANK}: not recorded.",
    )
    head = f"{len(done)} of {_count(len(records), 'cell')} run: what each takes."
    return Table(head, columns, grouped(records, row, what="budget"), notes, provenance(done))


def _count(number: int, what: str) -> str:
    """Such as "1 row" and "2 rows"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
