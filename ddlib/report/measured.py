"""Tables of what was measured: the cost of a gradient, and how far TESLA's is from the exact one."""

from collections.abc import Mapping, Sequence
from typing import Any

from ddlib.report.tables import Table

COST_COLUMNS = ("N", "B", "method", "ms", "time", "MB", "memory", "outcome")
AGREEMENT_COLUMNS = (
    "start", "a", "N", "loss", "cos X", "norm X", "cos Y", "norm Y", "dL/da", "TESLA's", "outcome"
)  # fmt: skip


def cost_table(rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> Table:
    """Time and peak memory of one gradient of the outer loss, and their ratios to those of the first method.

    Args:
        rows: as `costs.measure` gives them.
        provenance: where they come from.
    """
    first = {(row["N"], row["B"]): row for row in rows if row["method"] == rows[0]["method"]}
    texts = tuple(_cost(row, first[row["N"], row["B"]]) for row in rows)
    done = sum(row["seconds"] is not None for row in rows)
    head = f"One gradient of the outer loss: {done} of {len(rows)} measured."
    notes = (
        "ms: the median of runs that take turns. MB: most that tensors held at once, beyond what was there before.",
        "time, memory: divided by those of the first method, at the same N and B.",
        "not run: it was expected to need more memory than allowed; how much, from small runs.",
    )
    return Table(head, COST_COLUMNS, (("N inner steps on mini-batches of B images", texts),), notes, provenance)


def _cost(row: Mapping[str, Any], first: Mapping[str, Any]) -> tuple[str, ...]:
    place = (str(row["N"]), str(row["B"]), row["method"])
    if row["seconds"] is None:
        return (*place, "-", "-", "-", "-", f"not run: about {row['expected'] / 1e9:.2g} GB")
    numbers = f"{1e3 * row['seconds']:.0f}", f"{row['bytes'] / 1e6:.1f}"
    ratios = [f"x {row[key] / first[key]:.2f}" if first[key] else "-" for key in ("seconds", "bytes")]
    return (*place, numbers[0], ratios[0], numbers[1], ratios[1], "measured")


def agreement_table(rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> Table:
    """TESLA's gradient against the exact one: cosine, ratio of norms, and the derivative in the step size.

    Args:
        rows: as `costs.disagreement` gives them.
        provenance: where they come from.
    """
    texts = tuple(_agreement(row) for row in rows)
    worst = min((row["images"] for row in rows if row["loss"] <= 1), default=float("nan"))
    head = f"TESLA's gradient in the images: least cosine with the exact one {worst:.2f}, where the loss is at most 1."
    notes = (
        "norm: TESLA's divided by the exact one. X: images, Y: label logits, a: step size of the student.",
        "healthy: the loss is at most 1, so that DATM would make the step; else it would skip it.",
    )
    return Table(head, AGREEMENT_COLUMNS, (("the same start, goal and mini-batches", texts),), notes, provenance)


def _agreement(row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = [f"{row[key]:.3f}" for key in ("images", "images_norm", "labels", "labels_norm")]
    slopes = [f"{row[key]:.3g}" for key in ("lr", "lr_tesla")]
    place = (str(row["start"]), f"{row['a']:g}", str(row["N"]), f"{row['loss']:.2f}")
    return (*place, *numbers, *slopes, "healthy" if row["loss"] <= 1 else "skipped")
