"""Records of what cells reached, the files that hold them, and the tidy table of all trained networks.

Beside records stand `Measurements`: tables of a notebook that are no accuracies of cells.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev, stdev
from typing import TYPE_CHECKING, Any

from ddlib.results.papers import Reference, find
from ddlib.results.statistics import seed_means, verdict
from ddlib.store.files import write_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one cell reached, with everything needed to judge it.

    label: name of the row it stands in.
    method, dataset, ipc: the cell; ipc is None for the whole training set.
    cell: all its settings.
    accuracies: distillation seeds x evaluation networks, in percent, seed by seed; empty if the cell was not run.
    reference: what the paper reports for it.
    deviations: in what the setting differs from the paper's, one phrase each.
    cost: wall and device time, memory, ...; `estimated_hours` for a cell that was not run.
    provenance: commit, versions, device, ...

    cell, cost and provenance are brought to plain JSON (tuples become lists).  ValueError for an accuracy outside
    [0, 100], an ipc below 1, or something that is no plain JSON.
    """

    label: str
    method: str
    dataset: str
    ipc: int | None
    cell: dict[str, Any]
    accuracies: tuple[float, ...]
    reference: Reference | None = None
    deviations: tuple[str, ...] = ()
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.ipc is None or (type(self.ipc) is int and self.ipc > 0)):
            raise ValueError(f"ipc={self.ipc!r}; allowed: an integer from 1, or None for the whole training set")
        accuracies = tuple(float(a) for a in self.accuracies)
        if wrong := [a for a in accuracies if not 0 <= a <= 100]:
            raise ValueError(f"accuracies contain {wrong[0]!r}; allowed: percent, from 0 to 100")
        object.__setattr__(self, "accuracies", accuracies)
        object.__setattr__(self, "deviations", tuple(self.deviations))
        for name in ("cell", "cost", "provenance"):
            object.__setattr__(self, name, _plain(name, getattr(self, name)))

    @property
    def n(self) -> int:
        """How many accuracies there are."""
        return len(self.accuracies)

    @property
    def accuracy_mean(self) -> float | None:
        """Mean accuracy in percent, or None if not run."""
        return fmean(self.accuracies) if self.n else None

    @property
    def accuracy_std(self) -> float | None:
        """Sample deviation (ddof 1) of the accuracies in points, or None with fewer than two."""
        return stdev(self.accuracies) if self.n > 1 else None

    @property
    def accuracy_std_between_seeds(self) -> float | None:
        """Sample deviation (ddof 1) of the means of the distillation seeds, or None with fewer than two seeds."""
        seeds = len(self.cell.get("seeds", ()))
        return None if seeds < 2 or not self.n or self.n % seeds else stdev(seed_means(self))

    @property
    def verdict(self) -> str:
        """Ours against the reference: one of `VERDICTS`."""
        return verdict(self.accuracies, self.reference, deviations=self.deviations)

    @property
    def network(self) -> str:
        """The network tested on: the cell's "tested_on", else its protocol's network, a ConvNet where it names none."""
        return self.cell.get("tested_on") or (self.cell.get("protocol") or {}).get("network", "convnet")

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON, with what follows from its fields."""
        given = {name: getattr(self, name) for name in ("label", "method", "dataset", "ipc", "cell")}
        given |= {"accuracies": list(self.accuracies)} | {name: getattr(self, name) for name in FOLLOWS[:-1]}
        given |= {"reference": self.reference and dataclasses.asdict(self.reference), "verdict": self.verdict}
        return given | {"deviations": list(self.deviations), "cost": self.cost, "provenance": self.provenance}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Record":
        """The record that `to_json` wrote.

        A ValueError says where a key is unknown or missing, a value is not allowed, or mean, deviation, number or
        verdict do not follow from the rest.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(content, dict) or content.keys() != fields | {*FOLLOWS}:
            differing = sorted({*content} ^ {*fields, *FOLLOWS}) if isinstance(content, dict) else content
            raise ValueError(f"no record: unknown or missing {differing!r:.80}")
        given = {name: content[name] for name in fields}
        try:
            if given["reference"] is not None:
                given["reference"] = Reference(**given["reference"])
            record = cls(**given)
            following = {name: getattr(record, name) for name in FOLLOWS}
        except TypeError as error:
            raise ValueError(f"a value is of the wrong type ({error})") from error
        for name, value in following.items():
            stored, number = content[name], isinstance(value, float) and isinstance(content[name], float)
            if not (math.isclose(stored, value, rel_tol=1e-9, abs_tol=1e-9) if number else stored == value):
                raise ValueError(f"{name} is {stored!r}; from the rest follows {value!r}")
        return record


FOLLOWS = ("accuracy_mean", "accuracy_std", "accuracy_std_between_seeds", "n", "verdict")
"""What follows from the fields of a record, and stands in its file beside them."""


def _plain(name: str, value: Any) -> Any:
    """`value` as it comes back from JSON; NaN, infinities and objects are refused."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not plain JSON: {error}") from error


def write(records: Sequence[Record], path: str | Path) -> Path:
    """Write records as a JSON list, a field a line, whole or not at all; raises OSError as `files.write_whole`."""
    texts = []
    for record in records:
        lines = [
            f'  "{key}": {json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True)}'
            for key, value in record.to_json().items()
        ]
        texts.append(" {\n" + ",\n".join(lines) + "\n }")
    return write_whole(path, ("[\n" + ",\n".join(texts) + "\n]\n").encode())


def read(path: str | Path) -> list[Record]:
    """The records that `write` wrote; ValueError where the file or one of them is faulty, with the path."""
    content = _content(path)
    if not isinstance(content, list):
        raise ValueError(f"{path} holds no list of records")
    records = []
    for i, entry in enumerate(content):
        try:
            records.append(Record.from_json(entry))
        except ValueError as error:
            raise ValueError(f"{path}, record {i}: {error}") from error
    return records


def _content(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: {error}") from error


def frame(records: "Sequence[Record] | str | Path") -> "pd.DataFrame":
    """The tidy table of `records`: one row per trained network, to slice, sort, draw, `to_csv` and `to_latex`.

    A record that was not run has one row, without seeds and accuracy, so that its verdict is not lost.

    Args:
        records: records; or a file that `write` wrote, or a folder of such files, at any depth, less measurements.

    Returns:
        `COLUMNS`: ipc is missing for the whole training set, distillation_seed where the record does not say,
        evaluation_seed counts the networks of a set from 0, accuracy is in percent, and deviations have "; " between
        them.  Then every entry of the costs, and of files experiment ("atom/accuracy") and profile ("quick").

    Raises:
        FileNotFoundError, ValueError: there is no such file or folder, or one is faulty.
    """
    import pandas as pd

    if isinstance(records, str | Path):
        path, rows = Path(records), []
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            if file == path or read_measurements(file) is None:
                experiment, _, profile = file.stem.rpartition(".")
                source = {"experiment": f"{file.parent.name}/{experiment or profile}", "profile": profile}
                rows += [row | source for record in read(file) for row in _rows(record)]
    else:
        rows = [row for record in records for row in _rows(record)]
    table = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    return table.astype({name: "Int64" for name in ("ipc", "distillation_seed", "evaluation_seed", "reference_n")})


COLUMNS = (
    *("label", "method", "dataset", "ipc", "network", "distillation_seed", "evaluation_seed", "accuracy"),
    *("reference", "reference_std", "reference_n", "paper", "table", "condition", "metric", "verdict", "deviations"),
)
"""Of every `frame`, in order; costs follow."""


def _rows(record: Record) -> list[dict[str, Any]]:
    """The rows of `frame` for one record."""
    shared = {name: getattr(record, name) for name in ("label", "method", "dataset", "ipc", "network")}
    shared |= {"distillation_seed": None, "evaluation_seed": None, "accuracy": math.nan}
    for column in ("reference", "reference_std", "reference_n", "paper", "table", "condition", "metric"):
        name = "value" if column == "reference" else column.removeprefix("reference_")
        shared[column] = getattr(record.reference, name, None)
    shared |= {"verdict": record.verdict, "deviations": "; ".join(record.deviations)} | record.cost
    seeds = record.cell.get("seeds", ())
    each = record.n // len(seeds) if seeds and record.n % len(seeds) == 0 else 0
    rows = []
    for i, accuracy in enumerate(record.accuracies):
        seed, network = (seeds[i // each], i % each) if each else (None, i)
        rows.append(shared | {"distillation_seed": seed, "evaluation_seed": network, "accuracy": accuracy})
    return rows or [shared]


@dataclass(frozen=True)
class Measurements:
    """Named tables of one run of a notebook, as plain JSON (ValueError where not).

    tables: name -> rows, each a mapping from columns to plain values.
    modules: of ddlib, dotted, whose code the numbers depend on.
    provenance: "code" is the fingerprint of `modules`, "parameters" that of the notebook's.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    modules: tuple[str, ...]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("tables", "provenance"):
            object.__setattr__(self, name, _plain(f"{name} of measurements", getattr(self, name)))
        object.__setattr__(self, "modules", tuple(self.modules))


def write_measurements(measured: Measurements, path: str | Path) -> Path:
    """Write them as JSON, a row a line, whole or not at all; raises OSError as `files.write_whole`."""
    tables = []
    for name, rows in measured.tables.items():
        lines = ",\n".join("   " + json.dumps(row, ensure_ascii=False) for row in rows)
        tables.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    text = '{\n "tables": {\n' + ",\n".join(tables) + "\n },\n"
    text += f' "modules": {json.dumps(measured.modules)},\n'
    text += f' "provenance": {json.dumps(measured.provenance, sort_keys=True)}\n}}\n'
    return write_whole(path, text.encode())


def read_measurements(path: str | Path) -> Measurements | None:
    """What `write_measurements` wrote; None where the file holds records; ValueError where it holds neither."""
    content = _content(path)
    if isinstance(content, list):
        return None
    keys = {"tables", "modules", "provenance"}
    if not isinstance(content, dict) or content.keys() != keys:
        raise ValueError(f"{path} holds neither records nor measurements, which have {', '.join(sorted(keys))}")
    return Measurements(**content)


def provenance(records: Sequence[Record]) -> dict[str, Any]:
    """The provenances `joined` of the records that were run, or of all where none was."""
    return joined(record.provenance for record in [r for r in records if r.n] or records)


def joined(provenances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One provenance that is true of all: joined again with any of them, it stays as it is.

    An entry on which all agree keeps its value; else it is the sorted list of the values, None where one does not have
    it; seeds are always a list.  Dates become the first and the last.  `dirty` is True where any is, else None where
    any does not know.  Entries that are mappings, such as versions, are joined entry by entry.
    """
    provenances = list(provenances)
    names = dict.fromkeys(name for provenance in provenances for name in provenance)
    return {name: _joined(name, [provenance.get(name) for provenance in provenances]) for name in names}


def _joined(name: str, values: Sequence[Any]) -> Any:
    mappings = [value for value in values if isinstance(value, Mapping)]
    if mappings:
        return joined(mappings)
    if name == "dirty":
        return True if True in values else None if None in values else False
    flat = {entry for value in values for entry in (value if isinstance(value, list | tuple) else [value])}
    ordered = sorted(flat, key=lambda entry: (entry is not None, type(entry).__name__, entry))
    if len(ordered) == 1 and name != "seeds":
        return ordered[0]
    return [ordered[0], ordered[-1]] if name == "date" else ordered


UNSEEN = "unseen"
"""The network that a mean over the unseen ones is called to be tested on."""


def convnets(records: Sequence[Record]) -> tuple[str, ...]:
    """The networks tested on that are ConvNets by their protocol, or by their name where it says nothing."""
    kinds = {r.network: (r.cell.get("protocol") or {"network": r.network}).get("network", "convnet") for r in records}
    return tuple(network for network, kind in kinds.items() if kind == "convnet")


def unseen(records: Sequence[Record], seen: Sequence[str] = ("convnet",)) -> list[Record]:
    """A record of the mean over the unseen networks, for each row, data set and number of images per class.

    Its accuracies are means over the networks, repeat by repeat (the i-th network of each kind on the set of one seed),
    so that their deviation is that of the mean itself.  Its reference is what the paper reports for "unseen".  Where a
    network was not run, neither was the mean.  `seen` are the networks that were distilled with.

    Raises:
        ValueError: `seen` names a network that there is not, none is left, a row is not tested on all others once, or
            not as often on each.
    """
    networks = list(dict.fromkeys(record.network for record in records))
    left = [name for name in networks if name not in seen]
    for name in seen:
        if records and name not in networks:
            raise ValueError(f"seen names {name!r}; known: {', '.join(networks)}")
    if records and not left:
        raise ValueError(f"seen={tuple(seen)!r} leaves no network of {', '.join(networks)}")
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        group = groups.setdefault((record.label, record.dataset, record.ipc), [])
        if record.network in left:
            group.append(record)
    for place, group in groups.items():
        if sorted(record.network for record in group) != sorted(left):
            tested = ", ".join(record.network for record in group) or "none"
            raise ValueError(f"{place} is tested on {tested}; allowed: {', '.join(left)}, each once")
        if len({record.n for record in group if record.n}) > 1:
            counts = ", ".join(f"{record.n} on {record.network}" for record in group)
            raise ValueError(f"{place} has accuracies of {counts}; allowed: as many on each")
    return [mean_record(group) for group in groups.values()]


def mean_record(group: Sequence[Record]) -> Record:
    """The mean of one row's records on several networks, as in `unseen`.

    Its cell has the networks, and in "their_deviation" what GLaD and LD3M print beside such a mean: the mean of the
    networks' population deviations, in points.  Of costs it has what is left to do.
    """
    first, accuracies, spread = group[0], (), None
    if all(record.n for record in group):
        accuracies = tuple(map(fmean, zip(*(record.accuracies for record in group), strict=True)))
        spread = fmean(pstdev(record.accuracies) for record in group)
    hours = [r.cost["estimated_hours"] for r in group if not r.n and "estimated_hours" in r.cost]
    cell = {name: value for name, value in first.cell.items() if name != "protocol"}
    cell |= {"networks": {record.network: record.cell.get("protocol") for record in group}}
    cell |= {"tested_on": UNSEEN, "their_deviation": spread}
    reference = next((record.reference for record in group if record.reference), None)
    if reference:
        names = ("paper", "table", "method", "dataset", "ipc", "condition")
        reference = find(**{name: getattr(reference, name) for name in names}, network=UNSEEN)
    return replace(
        first,
        cell=cell,
        accuracies=accuracies,
        reference=reference,
        deviations=tuple(dict.fromkeys(phrase for record in group for phrase in record.deviations)),
        cost={"estimated_hours": sum(hours)} if hours else {},
        provenance=joined(record.provenance for record in group),
    )
