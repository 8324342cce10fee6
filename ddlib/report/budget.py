"""What each cell of a table takes: bytes, images, updates and seconds."""

from collections.abc import Sequence

from ddlib.report.tables import Table, grouped
from ddlib.results import Record, provenance

COLUMNS = ("method", "IPC", "kB", "kbit/class", "images", "updates", "generating", "before", "distilling", "regime")
UNKNOWN = "–"

NOTES = (
    "kB, kbit/class: stored, labels and generators included, and as bits per class.",
    "images: distinct ones that a network is shown. updates: SGD steps of one network.",
    "generating, before, distilling: seconds, over all seeds and networks, of making images, of what is trained before "
    "the distillations (a GAN, experts) and of these themselves; rows that share one show the same.",
    "regime: whether images are drawn anew as a network trains (streaming: all the time), or are one fixed set.",
    f"{UNKNOWN}: not recorded.",
)


def budget_table(records: Sequence[Record]) -> Table:
    """What each record stores and spends: bytes, bits per class, images shown, updates, seconds.

    Rows stand as in `table`.  The numbers are those of `Record.cost` called `bytes_stored`, `bits_per_class`,
    `images_shown`, `updates`, `generation_seconds`, `prerequisite_seconds` and `distil_seconds`; one that is not$
    there is a dash.
    """
    done = [record for record in records if record.n]
    head = f"{len(done)} of {len(records)} {'cell' if len(records) == 1 else 'cells'} run: what each takes."
    return Table(head, COLUMNS, grouped(records, _row, what="budget"), NOTES, provenance(done))


def _row(record: Record) -> tuple[str, ...]:
    ipc = "all" if record.ipc is None else str(record.ipc)
    numbers = (
        _number(record, "bytes_stored", 1e3),
        _number(record, "bits_per_class", 1e3),
        _number(record, "images_shown"),
        _number(record, "updates"),
        _number(record, "generation_seconds"),
        _number(record, "prerequisite_seconds"),
        _number(record, "distil_seconds"),
    )
    widths = map(len, COLUMNS[2:9])
    aligned = (text.rjust(max(width, 7)) for text, width in zip(numbers, widths, strict=True))
    return record.label, ipc.rjust(3), *aligned, _regime(record)


def _number(record: Record, key: str, unit: float = 1) -> str:
    """Whole from 10 on, else with two figures."""
    value = record.cost.get(key)
    if value is None:
        return UNKNOWN
    return f"{value / unit:,.0f}" if value / unit >= 10 else f"{value / unit:.2g}"


def _regime(record: Record) -> str:
    if not record.n:
        return "not run"
    redraw = record.cell.get("hyperparameters", {}).get("redraw")
    return {None: "fixed set", 1: "streaming"}.get(redraw, f"anew every {redraw} epochs")
