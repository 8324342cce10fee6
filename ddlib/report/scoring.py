"""The table of scores: LRS and ARS, with what they are made of beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ddlib.report.tables import Table
from ddlib.results.scores import Estimate, Score

PARTS = {"LRS": ("HLR", "IOR"), "ARS": ("d_aug", "d_noaug")}
"""Score -> its components, in the order of the columns."""

GAINS = ("IOR", "d_aug", "d_noaug")
"""Components that are gains over real images drawn at random."""

ABOVE, BELOW, OPEN = "above random", "below random", "not decided"

NOTES = {
    "LRS": (
        "LRS: label robust score, from HLR (the whole training set minus the row, both with hard labels; less is "
        "better) and IOR (the row by its own recipe minus real images drawn at random)."
    ),
    "ARS": (
        "ARS: augmentation robust score, from the row minus real images drawn at random, with (d_aug) and without "
        "(d_noaug) augmentation."
    ),
}

SCALE = (
    "All on fractions, ± half the 95 % interval over the n means of the distillation seeds, taken in pairs where they "
    "are the same (over the networks where there is one seed); ? where one alone says nothing. "
    "Nothing lost and nothing gained is a score of 0.269."
)


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
    named = {label: {score.name: score for score in found} for label, found in rows.items()}
    for label, found in rows.items():
        if len(named[label]) < len(found):
            raise ValueError(f"rows[{label!r}] has a score twice; allowed: {', '.join(PARTS)}, each once")
    shown = [name for name in PARTS if any(name in found for found in named.values())]
    if not shown:
        raise ValueError(f"rows={dict(rows)!r} has no score; allowed: {' or '.join(PARTS)} of at least one row")
    columns = [column for name in shown for column in (name, *PARTS[name])]
    texts = tuple((label, *_texts(found, shown), _rounds(found), _outcome(found)) for label, found in named.items())
    beaten = sum(row[-1] == ABOVE for row in texts)
    head = f"{len(texts)} {'row' if len(texts) == 1 else 'rows'}, {beaten} of them above real images drawn at random."
    notes = (*(NOTES[name] for name in shown), SCALE)
    return Table(head, ("method", *columns, "n", "outcome"), (("scores", texts),), notes, provenance or {})


def _texts(found: Mapping[str, Score], shown: Sequence[str]) -> list[str]:
    """The score and its components, for each score of the table."""
    texts = []
    for name in shown:
        score = found.get(name)
        parts = [score.estimate, *(score.components[part] for part in PARTS[name])] if score else [None] * 3
        texts += [number(part, signed=place > 0) for place, part in enumerate(parts)]
    return texts


def number(estimate: Estimate | None, *, signed: bool = False, digits: int = 3) -> str:
    """An estimate with half its interval as text; "?" where one round says nothing, a dash for None.

    Args:
        signed: whether with a plus, as differences have it.
        digits: after the point.
    """
    if estimate is None:
        return "–"
    value = f"{estimate.value:{'+' if signed else ''}.{digits}f}"
    half = max(estimate.high - estimate.value, estimate.value - estimate.low)  # one end may be cut
    return f"{value} ± ?" if estimate.n < 2 else f"{value} ± {half:.{digits}f}"


def _rounds(found: Mapping[str, Score]) -> str:
    return str(min((score.estimate.n for score in found.values()), default=0))


def _outcome(found: Mapping[str, Score]) -> str:
    gains = [score.components[part] for score in found.values() for part in GAINS if part in score.components]
    if gains and all(gain.low > 0 for gain in gains):
        return ABOVE
    return BELOW if gains and all(gain.high < 0 for gain in gains) else OPEN
