"""What the papers report: numbers, claims and settings, from `papers/<paper>.yaml`, checked as they are read."""

import functools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "papers"

METRICS = {
    "accuracy": (0.0, 100.0),  # percent
    "correlation": (-1.0, 1.0),
    "seconds": (0.0, math.inf),
    "minutes": (0.0, math.inf),
    "megabytes": (0.0, math.inf),
    "images": (0.0, math.inf),
    "points": (-100.0, 100.0),  # of one accuracy over another
    "gain": (-100.0, math.inf),  # the same relative to the other, in percent
    "lpips": (0.0, math.inf),
    "gradient_norm": (0.0, math.inf),  # of a loss by the latent that is learnt, in 1e-4
    "start_gradient_norm": (0.0, math.inf),  # by the noised latent at which a sampler starts, in 1e-4
}
"""Metric -> the least and the greatest value that it can take."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry of a published table; the head of `papers/atom.yaml` says what its fields mean.

    ipc: None for the whole training set.
    value: None where nobody read one, and `state` then says why.
    n: networks behind value and std.
    source_key: of the source within the paper's file.
    condition: what else distinguishes the entry, such as "whole space" of an architecture search.
    """

    paper: str
    table: str
    method: str
    dataset: str
    ipc: int | None
    value: float | None
    std: float | None = None
    n: int | None = None
    source: str
    source_key: str = ""
    unverified: bool = False
    comparable: bool = True
    primary: bool = True
    note: str = ""
    delta: float | None = None
    network: str = "convnet"
    condition: str = ""
    metric: str = "accuracy"
    state: str = "reported"

    @property
    def cell(self) -> tuple:
        """What several references may speak of."""
        return self.table, self.method, self.dataset, self.ipc, self.network, self.condition, self.metric


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Rows of a table that a notebook measured, in which a claim can be tested.

    column: that says what a row is called: `higher`, `lower`, in either case.
    rows: columns and the value that those rows have which the claim is about.
    field: the accuracies in percent of both rows; without a lower side, the difference to what is claimed to be lower,
        with its 95 % interval in the columns called so that end in "_low" and "_high".
    """

    table: str
    column: str
    rows: Mapping[str, Any]
    higher: str
    lower: str | None = None
    field: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of a paper that a direction can test, in records or in what a notebook measures beside them.

    Either `higher` is to be more accurate than `lower`; or `rises` is to gain with every step of images per class, or
    (`along` "networks") from each network to the next; or it is `shown_in` a notebook, `paper/experiment`, perhaps in a
    table that `measured` names.  A side that notebooks call differently has several names, with " | " between them.
    own_data: whether it is about its data sets alone, so that another one says nothing of it.
    """

    paper: str
    id: str
    statement: str
    where: str
    source: str
    unverified: bool = False
    higher: str | None = None
    lower: str | None = None
    rises: str | None = None
    along: str = "ipc"
    shown_in: str | None = None
    measured: Measured | None = None
    datasets: tuple[str, ...]
    ipc: tuple[int, ...]
    networks: tuple[str, ...] = ("convnet",)
    own_data: bool = False


Cell = tuple[str, str, int | None, str]
"""Method, data set, images per class and condition."""


@dataclass(frozen=True)
class Paper:
    """The file of one paper.

    settings: behind the reported numbers of a cell, as a row of a notebook's `methods` says them.
    """

    title: str
    references: tuple[Reference, ...]
    claims: tuple[Claim, ...]
    settings: Mapping[Cell, Mapping[str, Any]]


def papers() -> tuple[str, ...]:
    """The papers that have a file, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def references(paper: str) -> list[Reference]:
    """Every reference in `paper`'s file, in its order; raises ValueError for an unknown paper or a faulty file."""
    return list(_named(paper).references)


def claims(paper: str) -> list[Claim]:
    """Every claim in `paper`'s file, in its order; raises as `references`."""
    return list(_named(paper).claims)


def title(paper: str) -> str:
    """The title of `paper`; raises as `references`."""
    return _named(paper).title


def find(
    paper: str,
    *,
    table: str,
    method: str,
    dataset: str,
    ipc: int | None,
    network: str = "convnet",
    condition: str = "",
    metric: str = "accuracy",
) -> Reference | None:
    """The primary reference of one cell, its `value` None where nobody read one; None where the file has no entry.

    A ValueError lists the known papers, or tables, where there is no such one.
    """
    known = references(paper)
    tables = dict.fromkeys(r.table for r in known)
    if table not in tables:
        raise ValueError(f"unknown table {table!r} of {paper}; known: {', '.join(tables)}")
    cell = (table, method, dataset, ipc, network, condition, metric)
    return next((r for r in known if r.primary and r.cell == cell), None)


def published(paper: str, *, method: str, dataset: str, ipc: int | None, condition: str = "") -> dict[str, Any]:
    """`Paper.settings` of one cell, where the paper's file states them, else none; raises as `references`."""
    return dict(_named(paper).settings.get((method, dataset, ipc, condition), {}))


@functools.cache
def _named(paper: str) -> Paper:
    if paper not in papers():
        raise ValueError(f"unknown paper {paper!r}; known: {', '.join(papers())}")
    return load(FOLDER / f"{paper}.yaml")


def load(path: str | Path) -> Paper:
    """Read one paper's file.

    A ValueError names file and entry: no YAML, a key twice, unknown or missing, a value outside what its metric allows,
    a source that is not defined, or a cell of several references without exactly one primary.
    """
    path = Path(path)
    with _naming(path):
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        for key in content:
            _known("key", key, ("paper", "title", "sources", "notes", "references", "claims", "settings"))
        if content["paper"] != path.stem:
            raise ValueError(f"paper is {content['paper']!r}; the file's name says {path.stem!r}")
        references = [r for block in content["references"] for row in block["rows"] for r in _row(row, block, content)]
        claims = [_claim(entry, content) for entry in content.get("claims", [])]
        _check_once("claim", [claim.id for claim in claims])
        stated = [cell for entry in content.get("settings", []) for cell in _settings(entry, content)]
        _check_once("setting", [cell for cell, _ in stated])
        return Paper(content["title"], tuple(_with_primaries(references)), tuple(claims), dict(stated))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Safe YAML that refuses a key given twice; in C where PyYAML was built with it, ten times as fast."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        _check_once(f"line {node.start_mark.line + 1}: key", keys)
        return super().construct_mapping(node, deep)


@contextmanager
def _naming(where: Any) -> Iterator[None]:
    """Put the file or the entry before what is wrong with it."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{where}: {error}") from error


def _check_once(what: str, values: Sequence[Any]) -> None:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{what} {value!r} stands twice; allowed: once")


def _known(name: str, value: Any, known: Collection[str]) -> Any:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    return value


def _row(row: Mapping[str, Any], block: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[Reference]:
    """A reference for each cell of a row, into which is merged what the rows of its table share."""
    row = block.get("shared", {}) | row
    with _naming(f"{block['table']}, {row.get('method')}, {row.get('dataset')}"):
        by = _known("by", row.pop("by", "ipc"), ("ipc", "network", "condition"))
        if by in row or (by != "ipc" and "ipc" not in row):
            raise ValueError(f"ipc stands in the row or in its cells, and nothing in both (by is {by!r})")
        if row.get("n", 2) < 2 or row.get("delta", 1) <= 0:
            raise ValueError("n is from 2 and delta positive, where given")
        key = _known("source", row["source"], content["sources"])
        source = {"source": content["sources"][key], "source_key": key, "paper": content["paper"]}
        for at, cell in row.pop("cells").items():
            place = {"primary": False} | row | {by: at, "table": block["table"]} | source
            place["ipc"] = _ipc(place["ipc"])
            value, std = cell if isinstance(cell, list) and len(cell) == 2 else (cell, None)
            _check_value(value, std, row)
            value, std = (number if number is None else float(number) for number in (value, std))
            yield Reference(**place, value=value, std=std)


def _check_value(value: Any, std: Any, row: Mapping[str, Any]) -> None:
    low, high = METRICS[_known("metric", row.get("metric", "accuracy"), METRICS)]
    state = row.get("state", "reported")
    if (value is None) != (state != "reported"):
        raise ValueError(f"the value is {value!r}, but its state is {state!r}")
    if value is not None and not (isinstance(value, int | float) and low <= value <= high):
        raise ValueError(f"{value!r} is not a number in [{low}, {high}]")
    if std is not None and not (isinstance(std, int | float) and 0 <= std < math.inf):
        raise ValueError(f"the std {std!r} is not a number from 0")


def _ipc(value: Any) -> int | None:
    if value != "all" and (type(value) is not int or value < 1):
        raise ValueError(f"ipc is {value!r}; allowed: an integer from 1, or all")
    return None if value == "all" else value


def _with_primaries(references: Sequence[Reference]) -> list[Reference]:
    """A cell's only reference is its primary, else the one marked so."""
    each = Counter(r.cell for r in references)
    marked = Counter(r.cell for r in references if r.primary)
    for cell, count in each.items():
        if count > 1 and marked[cell] != 1:
            raise ValueError(f"{cell} has {count} references, of which {marked[cell]} are primary; mark one")
    return [replace(r, primary=r.primary or each[r.cell] == 1) for r in references]


def _settings(entry: Mapping[str, Any], content: Mapping[str, Any]) -> list[tuple[Cell, dict[str, Any]]]:
    """The settings of one method on one data set, or on several, one for each number of images per class."""
    with _naming(f"settings of {entry.get('method')!r}"):
        for key in entry:
            _known("key", key, ("method", "dataset", "source", "by_ipc", "condition", "values"))
        _known("source", entry["source"], content["sources"])
        datasets = entry["dataset"] if isinstance(entry["dataset"], list) else [entry["dataset"]]
        return [
            ((entry["method"], dataset, _ipc(ipc), entry.get("condition", "")), entry.get("values", {}) | own)
            for ipc, own in entry["by_ipc"].items()
            for dataset in datasets
        ]


def _claim(entry: Mapping[str, Any], content: Mapping[str, Any]) -> Claim:
    with _naming(f"claim {entry.get('id')!r}"):
        test = dict(entry["test"])
        if test.keys() & {"higher", "lower", "rises", "shown_in"} not in ({"higher", "lower"}, {"rises"}, {"shown_in"}):
            raise ValueError("a test names higher and lower, or rises alone, or shown_in alone")
        if "along" in test and ("rises" not in test or test["along"] not in ("ipc", "networks")):
            raise ValueError(f"along is {test['along']!r}; allowed: ipc or networks, beside rises")
        for name in {"datasets", "ipc", "networks"} & test.keys():
            if not isinstance(test[name], list):
                raise ValueError(f"{name} is {test[name]!r}; allowed: a list")
            test[name] = tuple(test[name])
        if "measured" in test:
            test["measured"] = Measured(**test["measured"])
        stated = {name: value for name, value in entry.items() if name != "test"} | {"paper": content["paper"]}
        stated["source"] = content["sources"][_known("source", entry["source"], content["sources"])]
        return Claim(**stated, **test)
