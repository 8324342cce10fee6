"""Record: what one cell of a table reached; and the files that hold lists of them."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ddlib.results.references import Reference
from ddlib.results.verdicts import Comparison, Sample, verdict, welch
from ddlib.store.files import write_whole


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
        each = self.n // seeds
        return Sample.of([fmean(self.accuracies[i : i + each]) for i in range(0, self.n, each)]).std

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
        found = set(content) if isinstance(content, dict) else set()
        raise ValueError(f"unknown keys {sorted(found - keys)}, missing keys {sorted(keys - found)}")


def _agree(stored: Any, found: Any) -> bool:
    if isinstance(stored, float) and isinstance(found, float):
        return math.isclose(stored, found, rel_tol=1e-9, abs_tol=1e-9)
    return stored == found


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
    found = [r for r in records if (r.label, r.ipc) == (label, ipc) and network in (None, r.network)]
    if len(found) != 1:
        on = "" if network is None else f", network={network!r}"
        raise ValueError(f"label={label!r}, ipc={ipc!r}{on}: {len(found)} records; exactly one was expected")
    return found[0]


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
