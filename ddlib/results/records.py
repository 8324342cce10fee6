"""Records of what cells reached, the files that hold them, and the tidy table of all trained networks.

`read` and `write` a file of records, `frame` lays them out as a pandas DataFrame with one row per trained network.
Beside records stand `Measurements`: tables of a notebook that are no accuracies of cells.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from ddlib.results.papers import Reference, find
from ddlib.results.statistics import Comparison, Sample, seed_means, verdict, welch
from ddlib.store.files import write_whole

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one cell reached, with everything needed to judge it.

    Mean, deviation and verdict follow from the fields, so that they can never disagree with them.

    label: name of the row it stands in.
    method, dataset, ipc: the cell; ipc is None for the whole training set.
    cell: all its settings.
    accuracies: distillation seeds x evaluation networks, in percent; empty if the cell was not run.
    reference: what the paper reports for it.
    deviations: in what the setting differs from the paper's, one phrase each.
    cost: wall and device time, memory, ...; `estimated_hours` for a cell that was not run.
    provenance: commit, versions, device, ...

    cell, cost and provenance are brought to plain JSON (tuples become lists).
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
        for name in ("label", "method", "dataset"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ValueError(f"{name}={getattr(self, name)!r}; allowed: a text that is not empty")
        if not (self.ipc is None or (type(self.ipc) is int and self.ipc > 0)):
            raise ValueError(f"ipc={self.ipc!r}; allowed: an integer from 1, or None for the whole training set")
        if isinstance(self.deviations, str) or not all(isinstance(d, str) for d in self.deviations):
            raise ValueError(f"deviations={self.deviations!r}; allowed: a sequence of texts")
        values = tuple(float(a) for a in self.accuracies)
        wrong = [a for a in values if not (math.isfinite(a) and 0 <= a <= 100)]
        if wrong:
            raise ValueError(f"accuracies contain {wrong[0]!r}; allowed: percent, from 0 to 100")
        plain = {name: _plain(name, getattr(self, name)) for name in ("cell", "cost", "provenance")}
        for name, value in {"accuracies": values, "deviations": tuple(self.deviations), **plain}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, accuracies: Iterable[float], **fields: Any) -> "Record":
        """The record of a cell that reached `accuracies` (none: not run); `fields` are the other fields."""
        return cls(accuracies=tuple(accuracies), **fields)

    @property
    def n(self) -> int:
        """How many accuracies there are."""
        return len(self.accuracies)

    @property
    def accuracy_mean(self) -> float | None:
        """Mean accuracy in percent, or None if not run."""
        return Sample.of(self.accuracies).mean if self.n else None

    @property
    def accuracy_std(self) -> float | None:
        """Sample deviation (ddof 1) of the accuracies in points, or None with fewer than two."""
        return Sample.of(self.accuracies).std if self.n > 1 else None

    @property
    def accuracy_std_between_seeds(self) -> float | None:
        """Sample deviation (ddof 1) of the means of the distillation seeds, or None with fewer than two seeds.

        The accuracies are ordered seed by seed, with as many networks for each.
        """
        seeds = len(self.cell.get("seeds", ()))
        if seeds < 2 or not self.n or self.n % seeds:
            return None
        return Sample.of(seed_means(self)).std

    @property
    def verdict(self) -> str:
        """Ours against the reference: one of `VERDICTS`."""
        return verdict(self.accuracies, self.reference, deviations=self.deviations)

    @property
    def network(self) -> str:
        """The network tested on: the cell's "tested_on", else its protocol's network, a ConvNet where it names none."""
        if self.cell.get("tested_on"):
            return self.cell["tested_on"]
        protocol = self.cell.get("protocol")
        return protocol.get("network", "convnet") if isinstance(protocol, dict) else "convnet"

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON, the figures that follow from its fields included."""
        names = ("label", "method", "dataset", "ipc", "cell", "accuracies", *FOLLOWS[:-1])
        rest = ("reference", "verdict", "deviations", "cost", "provenance")
        content = {name: getattr(self, name) for name in (*names, *rest)}
        content["accuracies"], content["deviations"] = list(self.accuracies), list(self.deviations)
        content["reference"] = self.reference and dataclasses.asdict(self.reference)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Record":
        """The record that `to_json` wrote.

        Raises:
            ValueError: a key is unknown or missing, a value is not allowed, or mean, deviation, number or verdict do
                not follow from the rest.
        """
        if not isinstance(content, dict):
            raise ValueError(f"{content!r:.40} is not a mapping")
        fields = [field.name for field in dataclasses.fields(cls)]
        _same_keys(content, {*fields, *FOLLOWS})
        given = {name: content[name] for name in fields}
        reference = given["reference"]
        if reference is not None:
            _same_keys(reference, {field.name for field in dataclasses.fields(Reference)})
            given["reference"] = Reference(**reference)
        try:
            record = cls(**given)
            following = {name: getattr(record, name) for name in FOLLOWS}
        except TypeError as error:
            raise ValueError(f"a value is of the wrong type ({error})") from error
        for name, value in following.items():
            if not _agree(content[name], value):
                raise ValueError(f"{name} is {content[name]!r}; from the rest follows {value!r}")
        return record


FOLLOWS = ("accuracy_mean", "accuracy_std", "accuracy_std_between_seeds", "n", "verdict")


def _same_keys(content: Any, keys: set[str]) -> None:
    if not isinstance(content, dict) or content.keys() != keys:
        names = set(content) if isinstance(content, dict) else set()
        raise ValueError(f"unknown keys {sorted(names - keys)}, missing keys {sorted(keys - names)}")


def _agree(stored: Any, value: Any) -> bool:
    if isinstance(stored, float) and isinstance(value, float):
        return math.isclose(stored, value, rel_tol=1e-9, abs_tol=1e-9)
    return stored == value


def _plain(name: str, value: Any) -> dict[str, Any]:
    """`value` as it comes back from JSON; NaN, infinities and objects are refused."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}={value!r}; allowed: a mapping")
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not plain JSON: {error}") from error


def pick(records: Sequence[Record], label: str, ipc: int | None, *, network: str | None = None) -> Record:
    """The one record of the row `label` at `ipc` images per class (None: the whole training set).

    Args:
        network: tested on; None: whichever.

    Raises:
        ValueError: there is none, or more than one.
    """
    rows = [r for r in records if (r.label, r.ipc) == (label, ipc) and network in (None, r.network)]
    if len(rows) != 1:
        on = "" if network is None else f", network={network!r}"
        raise ValueError(f"label={label!r}, ipc={ipc!r}{on}: {len(rows)} records; exactly one was expected")
    return rows[0]


def compare(a: Record, b: Record, confidence: float = 0.95) -> Comparison:
    """Mean accuracy of `a` minus that of `b`, with Welch's interval.

    Raises:
        ValueError: one of the two was not run.
    """
    for name, record in (("a", a), ("b", b)):
        if not record.n:
            raise ValueError(f"{name}={record.label!r} was not run; allowed: records with accuracies")
    return welch(Sample.of(a.accuracies), Sample.of(b.accuracies), confidence)


def write(records: Sequence[Record], path: str | Path) -> Path:
    """Write records as a JSON list, whole or not at all: a temporary file beside `path`, synced, then renamed.

    Every field of a record stands on a line of its own.  Missing folders are made.

    Raises:
        OSError: the folder cannot be written (PermissionError where it is read-only); the message names the path.
    """
    text = "[\n" + ",\n".join(_text(record) for record in records) + "\n]\n"
    return write_whole(path, text.encode())


def _text(record: Record) -> str:
    dumps = {k: json.dumps(v, ensure_ascii=False, allow_nan=False, sort_keys=True) for k, v in record.to_json().items()}
    return " {\n" + ",\n".join(f'  "{key}": {text}' for key, text in dumps.items()) + "\n }"


def read(path: str | Path) -> list[Record]:
    """The records that `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole, or a record in it is faulty; the message names the path and the record.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: {error}") from error
    if not isinstance(content, list):
        raise ValueError(f"{path} holds no list of records")
    records = []
    for i, entry in enumerate(content):
        try:
            records.append(Record.from_json(entry))
        except ValueError as error:
            raise ValueError(f"{path}, record {i}: {error}") from error
    return records


def frame(records: "Sequence[Record] | str | Path") -> "pd.DataFrame":
    """The tidy table of `records`: one row per trained network, to slice, sort, draw, `to_csv` and `to_latex`.

    A record that was not run has one row, without seeds and accuracy, so that its verdict is not lost.

    Args:
        records: records; or a file that `write` wrote, or a folder of such files, at any depth.  Files of measurements
            in a folder are left out, for their numbers are no accuracies.

    Returns:
        label, method, dataset, ipc (missing for the whole training set), network; distillation_seed (missing where the
        record does not say), evaluation_seed (which network on that set, from 0) and accuracy in percent; what the
        paper reports, in reference, reference_std, reference_n, paper, table, condition and metric; verdict and
        deviations ("; " between them) of the record; every entry of the records' costs, by its name; and of files
        experiment ("atom/accuracy") and profile ("quick").

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a file is faulty; the message names it.
    """
    import pandas as pd

    files = {None: records}
    if isinstance(records, str | Path):
        path = Path(records)
        if not path.is_dir():
            files = {path: read(path)}
        else:
            files = {file: read(file) for file in sorted(path.rglob("*.json")) if read_measurements(file) is None}
    rows = []
    for file, content in files.items():
        source = {}
        if file is not None:
            experiment, _, profile = file.stem.rpartition(".")
            source = {"experiment": f"{file.parent.name}/{experiment or profile}", "profile": profile}
        for record in content:
            rows += [row | source for row in _rows(record)]
    table = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    return table.astype({name: "Int64" for name in ("ipc", "distillation_seed", "evaluation_seed", "reference_n")})


COLUMNS = (
    *("label", "method", "dataset", "ipc", "network", "distillation_seed", "evaluation_seed", "accuracy"),
    *("reference", "reference_std", "reference_n", "paper", "table", "condition", "metric", "verdict", "deviations"),
)
"""Of every `frame`, in order; costs follow."""

REFERENCE = {"": "value", "_std": "std", "_n": "n"}
"""End of a column's name -> the field of the reference."""


def _rows(record: Record) -> list[dict[str, Any]]:
    """The rows of `frame` for one record."""
    seeds = record.cell.get("seeds", ())
    each = record.n // len(seeds) if seeds and record.n % len(seeds) == 0 else 0
    shared = {f"reference{end}": getattr(record.reference, name, None) for end, name in REFERENCE.items()}
    shared |= {name: getattr(record.reference, name, None) for name in ("paper", "table", "condition", "metric")}
    shared |= {"verdict": record.verdict, "deviations": "; ".join(record.deviations)}
    shared |= record.cost
    place = {name: getattr(record, name) for name in ("label", "method", "dataset", "ipc", "network")}
    networks = [
        {
            "distillation_seed": seeds[i // each] if each else None,
            "evaluation_seed": i % each if each else i,
            "accuracy": accuracy,
        }
        for i, accuracy in enumerate(record.accuracies)
    ]
    missing = {"distillation_seed": None, "evaluation_seed": None, "accuracy": math.nan}
    return [place | network | shared for network in networks or [missing]]


KEYS = {"tables", "modules", "provenance"}


@dataclass(frozen=True)
class Measurements:
    """Named tables of one run of a notebook.

    tables: name -> rows, each a mapping from columns to plain values.
    modules: of ddlib, dotted, whose code the numbers depend on.
    provenance: where the numbers come from; "code" is the fingerprint of `modules`, "parameters" of the notebook's.

    Raises:
        ValueError: something is no plain JSON.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    modules: tuple[str, ...]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        for name in ("tables", "provenance"):
            try:
                object.__setattr__(self, name, json.loads(json.dumps(getattr(self, name), allow_nan=False)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name} of measurements is not plain JSON: {error}") from error
        object.__setattr__(self, "modules", tuple(self.modules))


def write_measurements(measured: Measurements, path: str | Path) -> Path:
    """Write them as JSON, whole or not at all, a row a line; missing folders are made.

    Raises:
        OSError: the folder cannot be written; the message names the path.
    """
    tables = [f"  {json.dumps(name)}: [\n{_lines(rows)}\n  ]" for name, rows in measured.tables.items()]
    text = '{\n "tables": {\n' + ",\n".join(tables) + "\n },\n"
    text += f' "modules": {json.dumps(measured.modules)},\n'
    text += f' "provenance": {json.dumps(measured.provenance, sort_keys=True, allow_nan=False)}\n}}\n'
    return write_whole(path, text.encode())


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return ",\n".join("   " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)


def read_measurements(path: str | Path) -> Measurements | None:
    """What `write_measurements` wrote; None where the file holds records instead.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not whole, or neither; the message names the path.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not whole: {error}") from error
    if isinstance(content, list):
        return None
    if not isinstance(content, dict) or content.keys() != KEYS:
        raise ValueError(f"{path} holds neither records nor measurements, which have {', '.join(sorted(KEYS))}")
    return Measurements(**content)


ALWAYS_LISTED = ("seeds",)
"""What stays a list where there is but one."""


def provenance(records: Sequence[Record]) -> dict[str, Any]:
    """Where the numbers of `records` come from: `joined` over those that were run, or over all where none was."""
    return joined(record.provenance for record in [r for r in records if r.n] or records)


def joined(provenances: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One provenance that is true of all: joined again with any of them, it stays as it is.

    An entry on which all agree keeps its value; else it is the sorted list of the values, None where one does not have
    it.  Dates become the first and the last.  `dirty` is True where any is, else None where any does not know.  Entries
    that are mappings, such as versions, are joined entry by entry.
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
    if len(ordered) == 1 and name not in ALWAYS_LISTED:
        return ordered[0]
    return [ordered[0], ordered[-1]] if name == "date" else ordered


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
        group = groups.setdefault((record.label, record.dataset, record.ipc), [])
        if record.network in left:
            group.append(record)
    for place, group in groups.items():
        tested = [record.network for record in group]
        if sorted(tested) != sorted(left):
            known = ", ".join(left)
            raise ValueError(f"{place} is tested on {', '.join(tested) or 'none'}; allowed: {known}, each once")
        if len({record.n for record in group if record.n}) > 1:
            counts = ", ".join(f"{record.n} on {record.network}" for record in group)
            raise ValueError(f"{place} has accuracies of {counts}; allowed: as many on each")
    return list(groups.values())


def mean_record(group: Sequence[Record]) -> Record:
    """The mean of one row's records on several networks; see `unseen`."""
    first, missing = group[0], [record for record in group if not record.n]
    accuracies: list[float] = []
    if missing:  # what is left to do
        cost = _summed(missing, ("estimated_hours",))
    else:
        accuracies = [fmean(repeat) for repeat in zip(*(record.accuracies for record in group), strict=True)]
        cost = {
            name: first.cost[name]
            for name in OF_THE_SET
            if name in first.cost and all(record.cost.get(name) == first.cost[name] for record in group)
        } | _summed(group, ("evaluate_seconds", "generation_seconds"))
    cell = {name: value for name, value in first.cell.items() if name != "protocol"}
    cell |= {"tested_on": UNSEEN, "networks": {record.network: record.cell.get("protocol") for record in group}}
    reference = next((record.reference for record in group if record.reference), None)
    if reference:
        reference = find(
            reference.paper,
            table=reference.table,
            method=reference.method,
            dataset=reference.dataset,
            ipc=reference.ipc,
            condition=reference.condition,
            network=UNSEEN,
        )
    return replace(
        first,
        cell=cell,
        accuracies=tuple(accuracies),
        reference=reference,
        deviations=tuple(dict.fromkeys(phrase for record in group for phrase in record.deviations)),
        cost=cost,
        provenance=joined(record.provenance for record in group),
    )


OF_THE_SET = (
    *("distil_seconds", "prerequisite_seconds", "teacher_seconds"),
    *("bytes_stored", "bits_per_class", "images_shown"),
)
"""Costs of a set that are the same whatever it is tested on."""


def _summed(group: Sequence[Record], names: Sequence[str]) -> dict[str, float]:
    """The sums of those costs that any of the records states."""
    sums = {name: [record.cost[name] for record in group if name in record.cost] for name in names}
    return {name: sum(values) for name, values in sums.items() if values}


def mean_of_deviations(group: Sequence[Record]) -> float | None:
    """The deviation that GLaD and LD3M print beside such a mean: the mean of the networks' population deviations.

    It says how far networks of one kind scatter, and not how uncertain the mean is, which is less.

    Returns:
        Points; None where a network was not run.
    """
    return fmean(pstdev(record.accuracies) for record in group) if all(record.n for record in group) else None
