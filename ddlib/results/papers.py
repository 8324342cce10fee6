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
    """Read one paper's file.  The head of `ddlib/results/papers/atom.yaml` explains its keys.

    Raises:
        ValueError: not YAML, a key twice, unknown or missing, a value outside what its metric allows, a source that is
            not defined, or a cell of several references without exactly one primary; the message names the file and
            the entry.
    """
    path = Path(path)
    with _naming(path):
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        _keys(content, "paper title sources references", "notes claims settings")
        if content["paper"] != path.stem:
            raise ValueError(f"paper is {content['paper']!r}; the file's name says {path.stem!r}")
        read = [r for block in content["references"] for row in block["rows"] for r in _row(row, block, content)]
        stated = [_claim(entry, content) for entry in content.get("claims", [])]
        settings = [s for entry in content.get("settings", []) for s in _settings(entry, content)]
        _once("claim", [c.id for c in stated])
        _once("setting", [(s.method, s.dataset, s.ipc, s.condition) for s in settings])
        return Paper(path.stem, content["title"], tuple(_settled(read)), tuple(stated), tuple(settings))


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        _once(f"line {node.start_mark.line + 1}: key", [self.construct_object(key, deep=True) for key, _ in node.value])
        return super().construct_mapping(node, deep)


@contextmanager
def _naming(where: Any) -> Iterator[None]:
    """Put where it was found before what is wrong with a file or an entry."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{where}: {error}") from error


def _once(what: str, values: Sequence[Any]) -> None:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ValueError(f"{what} {value!r} stands twice; allowed: once")


def _keys(entry: Any, required: str, optional: str = "") -> None:
    """Refuse an entry that is no mapping, has a key of another name than these, or lacks a required one."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is not a mapping")
    known = f"{required} {optional}".split()
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"unknown key {unknown[0]!r}; known: {', '.join(known)}")
    if missing := [key for key in required.split() if key not in entry]:
        raise ValueError(f"without {', '.join(missing)}")


def _known(name: str, value: Any, known: Collection[str]) -> Any:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
    return value


def _row(row: Any, block: Mapping[str, Any], content: Mapping[str, Any]) -> Iterator[Reference]:
    """The references of one row, one for each of its cells; what the rows of a table share is merged into it."""
    row = block.get("shared", {}) | row if isinstance(row, dict) else row
    with _naming(f"{block['table']}, {row.get('method')}, {row.get('dataset')}" if isinstance(row, dict) else "row"):
        optional = "by network condition metric note state unverified comparable primary ipc n delta"
        _keys(row, "method dataset source cells", optional)
        by = _known("by", row.get("by", "ipc"), ("ipc", "network", "condition"))
        if by in row or (by != "ipc" and "ipc" not in row):
            raise ValueError(f"ipc stands in the row or in its cells, and nothing in both (by is {by!r})")
        if row.get("n", 2) < 2 or row.get("delta", 1) <= 0:
            raise ValueError("n is from 2 and delta positive, where given")
        key = _known("source", row["source"], content["sources"])
        common = {name: value for name, value in row.items() if name not in ("by", "cells")}
        common |= {"paper": content["paper"], "table": block["table"], "primary": row.get("primary", False)}
        common |= {"source": content["sources"][key], "source_key": key}
        for at, cell in row["cells"].items():
            place = common | {by: at}
            value, std = cell if isinstance(cell, list) and len(cell) == 2 else (cell, None)
            _check_value(value, std, row)
            value, std = (number if number is None else float(number) for number in (value, std))
            yield Reference(**place | {"ipc": _ipc(place["ipc"])}, value=value, std=std)


def _check_value(value: Any, std: Any, row: Mapping[str, Any]) -> None:
    _, low, high = METRICS[_known("metric", row.get("metric", "accuracy"), METRICS)]
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


def _settled(references: Sequence[Reference]) -> list[Reference]:
    """The references with `primary` settled: a cell's only one is its primary, else the one marked so."""
    each = Counter(r.cell for r in references)
    marked = Counter(r.cell for r in references if r.primary)
    for cell, count in each.items():
        if count > 1 and marked[cell] != 1:
            raise ValueError(f"{cell} has {count} references, of which {marked[cell]} are primary; mark one")
    return [replace(r, primary=r.primary or each[r.cell] == 1) for r in references]


def _settings(entry: Any, content: Mapping[str, Any]) -> Iterator[Setting]:
    """The settings of one method on one data set, or on several, one for each number of images per class."""
    with _naming(f"settings of {entry.get('method')!r}" if isinstance(entry, dict) else "settings"):
        _keys(entry, "method dataset source by_ipc", "condition values")
        source = content["sources"][_known("source", entry["source"], content["sources"])]
        datasets = entry["dataset"] if isinstance(entry["dataset"], list) else [entry["dataset"]]
        for ipc, own in entry["by_ipc"].items():
            place = {"method": entry["method"], "ipc": _ipc(ipc), "condition": entry.get("condition", "")}
            values = entry.get("values", {}) | own
            yield from (Setting(**place, dataset=dataset, source=source, values=values) for dataset in datasets)


def _claim(entry: Any, content: Mapping[str, Any]) -> Claim:
    with _naming(f"claim {entry.get('id')!r}" if isinstance(entry, dict) else "claims"):
        _keys(entry, "id statement where source test", "unverified")
        source = content["sources"][_known("source", entry["source"], content["sources"])]
        test = dict(entry["test"])
        _keys(test, "datasets ipc", "networks higher lower rises along shown_in own_data measured")
        if test.keys() & {"higher", "lower", "rises", "shown_in"} not in ({"higher", "lower"}, {"rises"}, {"shown_in"}):
            raise ValueError("a test names higher and lower, or rises alone, or shown_in alone")
        if "along" in test and ("rises" not in test or test["along"] not in ("ipc", "networks")):
            raise ValueError(f"along is {test['along']!r}; allowed: ipc or networks, beside rises")
        for name in {"datasets", "ipc", "networks"} & test.keys():
            if not isinstance(test[name], list):
                raise ValueError(f"{name} is {test[name]!r}; allowed: a list")
            test[name] = tuple(test[name])
        if "measured" in test:
            _keys(test["measured"], "table column rows higher field", "lower unit")
            test["measured"] = Measured(**test["measured"])
        stated = {name: value for name, value in entry.items() if name != "test"}
        return Claim(**stated | test | {"paper": content["paper"], "source": source})
