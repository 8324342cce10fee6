"""What the papers report: numbers, claims and settings, from `papers/<paper>.yaml`, checked as they are read."""

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent / "papers"

METRICS = {
    "accuracy": ("%", 0.0, 100.0),
    "correlation": ("", -1.0, 1.0),
    "seconds": ("s", 0.0, math.inf),
    "minutes": ("min", 0.0, math.inf),
    "megabytes": ("MB", 0.0, math.inf),
    "images": ("", 0.0, math.inf),
    "points": ("points", -100.0, 100.0),
    "gain": ("%", -100.0, math.inf),
    "lpips": ("", 0.0, math.inf),
    "gradient_norm": ("1e-4", 0.0, math.inf),
    "start_gradient_norm": ("1e-4", 0.0, math.inf),
}
"""Metric -> its unit and the least and greatest value it can take.

points, gain: of one accuracy over another, as a difference and relative to it.  gradient_norm, start_gradient_norm: of
a loss by the latent that is learnt, and by the noised one at which a sampler starts.
"""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry of a published table.

    ipc: images per class; None for the whole training set.
    value, std: in the unit of `metric` (`METRICS`); value is None where nobody read one, and `state` then says why.
    n: how many networks lie behind value and std; None where the source does not say.
    source: for readers; `source_key` names it within the paper's file.
    unverified: not read in a publication of those who measured it, but quoted by others or read off a figure.
    comparable: whether the recipe behind the value is the one protocol here; if not, `note` says how it differs.
    primary: of several references of one cell, the one that verdicts are given against.
    delta: half the width of the band of equivalence, in points; None for the default.
    network: tested on.
    condition: what else distinguishes the entry, such as "whole space" of an architecture search, or which of the rows
        that a paper reports under one name it is.
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
        """What several references may speak of: table, method, data set, ipc, network, condition and metric."""
        return self.table, self.method, self.dataset, self.ipc, self.network, self.condition, self.metric


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Rows of a table that a notebook measured, in which a claim can be tested.

    table: its name.
    column: that says what a row is called.
    rows: columns and the value that those rows have which the claim is about.
    higher, lower: what the rows of the two sides are called, in either case.
    field: of both rows, their accuracies in percent; of the higher one where there is no lower, its difference to what
        is claimed to be lower, with the 95 % interval in the columns that are called so and end in "_low" and "_high".
    unit: of what is compared; a difference that stands in the table is shown in hundredths.
    """

    table: str
    column: str
    rows: Mapping[str, Any]
    higher: str
    lower: str | None = None
    field: str
    unit: str = "points"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of a paper that a direction in the records can test, or in what a notebook measures beside them.

    Either `higher` is to be more accurate than `lower`, or `rises` is to gain with every step of images per class, or,
    `along` "networks", from each network to the next in the order in which they are named.  Or no record can test it,
    and it is `shown_in` a notebook, `paper/experiment`, that measures something else than accuracies of cells, perhaps
    with an interval: then `measured` says where.  A side that notebooks call differently has several names, with " | "
    between them.
    datasets, ipc, networks: where the paper claims it.
    own_data: whether it is about these data sets alone, so that another one says nothing of it.
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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """With what settings the reported numbers of one cell were got.

    ipc: images per class; None for the whole training set.
    values: as a row of a notebook's `methods` says them: hyper-parameters, and `whitened` and `evaluation` where they
        are not the method's and the protocol's own.
    condition: as of a `Reference`.
    """

    method: str
    dataset: str
    ipc: int | None
    source: str
    values: Mapping[str, Any]
    condition: str = ""


@dataclass(frozen=True)
class Paper:
    """The file of one paper: its name, its title, what it reports and claims, and the settings that it states."""

    name: str
    title: str
    references: tuple[Reference, ...]
    claims: tuple[Claim, ...]
    settings: tuple[Setting, ...] = ()


def papers() -> tuple[str, ...]:
    """The papers that have a file, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def references(paper: str) -> list[Reference]:
    """Every reference in `paper`'s file, in its order.

    Raises:
        ValueError: no such paper (the known ones are listed), or its file is faulty.
    """
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
    """The primary reference of one cell, or None where the file has no entry for it.

    An entry whose value was not found is returned with `value` None.

    Raises:
        ValueError: no such paper or table (the known ones are listed).
    """
    known = references(paper)
    tables = dict.fromkeys(r.table for r in known)
    if table not in tables:
        raise ValueError(f"unknown table {table!r} of {paper}; known: {', '.join(tables)}")
    cell = (table, method, dataset, ipc, network, condition, metric)
    return next((r for r in known if r.primary and r.cell == cell), None)


def published(paper: str, *, method: str, dataset: str, ipc: int | None, condition: str = "") -> dict[str, Any]:
    """The settings behind the reported numbers of one cell, where the file states them; else none.

    Returns:
        `Setting.values`, as a row of a notebook's `methods` says them.

    Raises:
        ValueError: no such paper (the known ones are listed).
    """
    cell = (method, dataset, ipc, condition)
    stated = _named(paper).settings
    return next((dict(s.values) for s in stated if (s.method, s.dataset, s.ipc, s.condition) == cell), {})


@functools.cache
def _named(paper: str) -> Paper:
    if paper not in papers():
        raise ValueError(f"unknown paper {paper!r}; known: {', '.join(papers())}")
    return load(FOLDER / f"{paper}.yaml")


def load(path: str | Path) -> Paper:
    """Read one paper's file.  The head of `papers/atom.yaml` explains its keys.

    Raises:
        ValueError: not YAML, a key twice, unknown or missing, a wrong type, a value outside what its metric allows,
            a source that is not defined, or a cell of several references without exactly one primary; the message
            names the file and the entry.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    keys = {"paper": str, "title": str, "sources": dict, "notes": dict, "references": list, "claims": list}
    keys |= {"settings": list}
    _check(content, keys, {"paper", "title", "sources", "references"}, str(path))
    if content["paper"] != path.stem:
        raise ValueError(f"{path}: paper is {content['paper']!r}; the file's name says {path.stem!r}")
    for key, text in content["sources"].items():
        _check({key: text}, {key: str}, set(), f"{path}: sources")
    found = [r for block in content["references"] for r in _block(block, content, str(path))]
    stated = [_claim(entry, content, str(path)) for entry in content.get("claims", [])]
    if len({c.id for c in stated}) < len(stated):
        raise ValueError(f"{path}: two claims have one id: {', '.join(c.id for c in stated)}")
    settings = [s for entry in content.get("settings", []) for s in _settings(entry, content, str(path))]
    cells = [(s.method, s.dataset, s.ipc) + (s.condition,) * bool(s.condition) for s in settings]
    twice = [cell for i, cell in enumerate(cells) if cell in cells[:i]]
    if twice:
        raise ValueError(f"{path}: the settings of {twice[0]} stand twice")
    return Paper(path.stem, content["title"], tuple(_settled(found, str(path))), tuple(stated), tuple(settings))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise ValueError(f"the key {twice[0]!r} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


NUMBER = (int, float)
TEXT = dict.fromkeys(("method", "dataset", "source", "by", "network", "condition", "metric", "note", "state"), str)
FLAGS = dict.fromkeys(("unverified", "comparable", "primary"), bool)
ROW = TEXT | FLAGS | {"ipc": (int, str), "n": int, "delta": NUMBER, "cells": dict}
KEYS = {"ipc": (int, str), "network": str, "condition": str}


def _check(entry: Any, keys: Mapping[str, Any], required: set[str], where: str) -> None:
    """Refuse an entry that is no mapping, has other keys than `keys`, lacks a required one, or has a wrong type."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: {entry!r} is not a mapping")
    for key, value in entry.items():
        if key not in keys:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(keys)}")
        if not _is(value, keys[key]):
            raise ValueError(f"{where}: {key} is {value!r}, of the wrong type")
    if required - entry.keys():
        raise ValueError(f"{where}: without {', '.join(sorted(required - entry.keys()))}")


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _block(block: Any, content: Mapping[str, Any], file: str) -> Iterator[Reference]:
    """The references of one table; what its rows share is merged into each."""
    _check(block, {"table": str, "title": str, "shared": dict, "rows": list}, {"table", "rows"}, f"{file}: references")
    for row in block["rows"]:
        merged = block.get("shared", {}) | row if isinstance(row, dict) else row
        name = f"{merged.get('method')}, {merged.get('dataset')}" if isinstance(merged, dict) else ""
        where = f"{file}: {block['table']}, {name}"
        _check(merged, ROW, {"method", "dataset", "source", "cells"}, where)
        yield from _row(merged, block["table"], content, where)


def _row(row: Mapping[str, Any], table: str, content: Mapping[str, Any], where: str) -> Iterator[Reference]:
    """The references of one row, one for each of its cells."""
    by, metric = row.get("by", "ipc"), row.get("metric", "accuracy")
    _known("by", by, KEYS, where)
    _known("metric", metric, METRICS, where)
    _known("source", row["source"], content["sources"], where)
    if by in row or (by != "ipc" and "ipc" not in row):
        raise ValueError(f"{where}: ipc stands in the row or in its cells, and nothing in both (by is {by!r})")
    common = {k: v for k, v in row.items() if k not in ("by", "cells")} | {
        "paper": content["paper"],
        "table": table,
        "source": content["sources"][row["source"]],
        "source_key": row["source"],
        "primary": row.get("primary", False),
    }
    for key, cell in row["cells"].items():
        at = f"{where}, {by} {key!r}"
        if not _is(key, KEYS[by]):
            raise ValueError(f"{at}: {key!r} is of the wrong type")
        place = common | {by: key}
        place["ipc"] = _ipc(place["ipc"], at)
        yield Reference(**place, **_value(cell, row, METRICS[metric], at))


def _known(name: str, value: str, known: Iterable[str], where: str) -> None:
    if value not in known:
        raise ValueError(f"{where}: unknown {name} {value!r}; known: {', '.join(known)}")


def _ipc(value: int | str, where: str) -> int | None:
    if value == "all":
        return None
    if not _is(value, int) or value < 1:
        raise ValueError(f"{where}: ipc is {value!r}; allowed: an integer from 1, or all")
    return value


def _value(cell: Any, row: Mapping[str, Any], metric: tuple[str, float, float], where: str) -> dict[str, float | None]:
    """value and std of one cell: null, a number, or [number, std]."""
    value, std = cell if isinstance(cell, list) and len(cell) == 2 else (cell, None)
    if (value is None) != (row.get("state", "reported") != "reported"):
        raise ValueError(f"{where}: the value is {value!r}, but its state is {row.get('state', 'reported')!r}")
    _, low, high = metric
    if value is not None and not (_is(value, NUMBER) and low <= value <= high):
        raise ValueError(f"{where}: {value!r} is not a number in [{low}, {high}]")
    if std is not None and not (_is(std, NUMBER) and 0 <= std < math.inf):
        raise ValueError(f"{where}: the std {std!r} is not a number from 0")
    if row.get("n", 2) < 2 or row.get("delta", 1) <= 0:
        raise ValueError(f"{where}: n is from 2 and delta positive, where given")
    return {"value": None if value is None else float(value), "std": None if std is None else float(std)}


def _settled(found: list[Reference], file: str) -> list[Reference]:
    """The references with `primary` settled: a cell's only one is its primary, else the one marked so."""
    groups: dict[tuple, list[Reference]] = defaultdict(list)
    for reference in found:
        groups[reference.cell].append(reference)
    for cell, group in groups.items():
        marked = sum(r.primary for r in group)
        if len(group) > 1 and marked != 1:
            raise ValueError(f"{file}: {cell} has {len(group)} references, of which {marked} are primary; mark one")
    return [dataclasses.replace(r, primary=r.primary or len(groups[r.cell]) == 1) for r in found]


def _settings(entry: Any, content: Mapping[str, Any], file: str) -> Iterator[Setting]:
    """The settings of one method on one data set, or on several, one for each number of images per class."""
    keys = {"method": str, "dataset": (str, list), "source": str, "condition": str, "values": dict, "by_ipc": dict}
    where = f"{file}: settings of {entry.get('method')!r}" if isinstance(entry, dict) else f"{file}: settings"
    _check(entry, keys, {"method", "dataset", "source", "by_ipc"}, where)
    _known("source", entry["source"], content["sources"], where)
    named = entry["dataset"] if isinstance(entry["dataset"], list) else [entry["dataset"]]
    if not named or not all(isinstance(dataset, str) for dataset in named):
        raise ValueError(f"{where}: dataset is {named!r}; allowed: a name, or several")
    for ipc, own in entry["by_ipc"].items():
        if not isinstance(own, dict):
            raise ValueError(f"{where}, ipc {ipc!r}: {own!r} is not a mapping")
        for dataset in named:
            yield Setting(
                method=entry["method"],
                dataset=dataset,
                ipc=_ipc(ipc, where),
                source=content["sources"][entry["source"]],
                values=entry.get("values", {}) | own,
                condition=entry.get("condition", ""),
            )


TEST = dict.fromkeys(("higher", "lower", "rises", "along", "shown_in"), str) | {"own_data": bool}
TEST |= dict.fromkeys(("datasets", "ipc", "networks"), list) | {"measured": dict}
MEASURED = dict.fromkeys(("table", "column", "higher", "lower", "field", "unit"), str) | {"rows": dict}


def _claim(entry: Any, content: Mapping[str, Any], file: str) -> Claim:
    text = dict.fromkeys(("id", "statement", "where", "source"), str)
    where = f"{file}: claim {entry.get('id')!r}" if isinstance(entry, dict) else f"{file}: claims"
    _check(entry, text | {"unverified": bool, "test": dict}, {*text, "test"}, where)
    _known("source", entry["source"], content["sources"], where)
    test = entry["test"]
    _check(test, TEST, {"datasets", "ipc"}, f"{where}, test")
    if test.keys() & {"higher", "lower", "rises", "shown_in"} not in ({"higher", "lower"}, {"rises"}, {"shown_in"}):
        raise ValueError(f"{where}: a test names higher and lower, or rises alone, or shown_in alone")
    if "along" in test and ("rises" not in test or test["along"] not in ("ipc", "networks")):
        raise ValueError(f"{where}: along is {test['along']!r}; allowed: ipc or networks, beside rises")
    if "measured" in test:
        _check(test["measured"], MEASURED, {*MEASURED} - {"lower", "unit"}, f"{where}, measured")
        if "shown_in" not in test:
            raise ValueError(f"{where}: measured stands beside shown_in")
    if not all(_is(ipc, int) and ipc > 0 for ipc in test["ipc"]):
        raise ValueError(f"{where}: ipc is {test['ipc']!r}; allowed: integers from 1")
    lists = {key: tuple(value) for key, value in test.items() if isinstance(value, list)}
    stated = {key: value for key, value in entry.items() if key != "test"}
    stated["source"] = content["sources"][entry["source"]]
    measured = {"measured": Measured(**test["measured"])} if "measured" in test else {}
    return Claim(**(stated | test | lists | measured), paper=content["paper"])
