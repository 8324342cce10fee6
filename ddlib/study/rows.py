"""From a notebook's parameters to the cells that they describe."""

import math
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

from ddlib import methods
from ddlib.data import datasets
from ddlib.evaluation import Protocol, check_batches
from ddlib.methods import Method
from ddlib.methods.settings import fill
from ddlib.store import files
from ddlib.study import elsewhere
from ddlib.study.cell import Cell
from ddlib.study.crossing import crossed
from ddlib.study.departures import NETWORK, whitening
from ddlib.study.networks import protocols
from ddlib.study.parameters import PARAMETERS, Parameter, checked

ROW = ("method", "whitened", "seeds", "evaluation", "reported", "compat", "equal_bytes")
"""What a row may say besides its method's hyper-parameters."""

AMOUNTS = ("ipcs", "by_ipc")
"""What a row may say of the numbers of images at which it stands, where it has no `equal_bytes`."""

ALL = "*"
"""In place of a row's label: all rows of the notebook that it is like."""

HERE = ("seeds", "evaluation", "reported")
"""What a row does not take over from another notebook, whose evaluation and paper are others."""

PLACE = ("profile", "device", "budget_hours")
"""Parameters that say where and how far a notebook computes, not what."""


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters, as far as they decide its numbers.

    Where rows are like those of another notebook, these are what it names.
    """
    told = {name: value for name, value in vars(chosen).items() if name not in PLACE}
    rows = told.get("methods", {})
    if any(_elsewhere(row, [*rows][:place]) for place, row in enumerate(rows.values())):
        told["methods"] = _spelt_out(rows, chosen)
    return files.key(told)


def cells(chosen: SimpleNamespace, *, paper: str, table: str) -> list[Cell]:
    """The cells that a notebook's parameters describe, IPC by IPC.

    Each entry of `chosen.methods` is a row: its label -> {"method": name, hyper-parameters ...}, and, where wanted,
    "whitened" (true: as the method's paper does it, or "normalised" or "pixels"; default: where that does), "seeds"
    (default: those of all rows) and "evaluation" (settings that replace those of `chosen.evaluation` for this row,
    which replace those of the method's paper), and "reported": false where it is no row of the paper's, such as a
    control.  A row whose method has no `ipc` has one cell, after all others.
    A row may have "ipcs", where it stands at these alone, and "by_ipc": what differs at some of its numbers of images,
    {10: {"lr_images": 1000.0, "whitened": False}, ...}, laid over the row there.
    A row may be "like" a row above it, whose settings it then has but for its own, or "like" another notebook, such as
    "datm/accuracy", whose row of the same label it is at the same profile, but for `HERE`;
    "*": {"like": "compare/tour"} are all rows of that notebook.
    In place of these it may have "equal_bytes": the label of a row above whose method stores a generator.  It then
    stands at one number of images per class: the highest whose images (float32) and labels (int64) take no more bytes
    than that generator.
    "compat": "official" in a row goes to its evaluation and, where this has it, to its method.
    After these come the rows of `chosen.factors`, where there are any: every combination of their levels, by `crossed`.
    `chosen.network` holds width and depth of the network for matching and evaluation alike.
    `chosen.evaluation` holds settings of `Protocol`, or in place of its `network` and `options` a mapping `networks`:
    name -> {"network": of `ddlib.models`, options ...}.  A row then has a cell for each of them, `tested_on` its name.
    An evaluation too may have "by_ipc": {1: {"batch_size": 10}, ...}, and beside `networks` it may have "by_network":
    {name: {"lr": 0.0001}, ...}, settings that differ for one of them.

    Raises:
        ValueError: an unknown method, data set or setting, a value out of its range, or mini-batches that do not
            divide the epochs of a stream.
    """
    datasets.describe(chosen.dataset)
    datasets.describe(chosen.reference_dataset)
    grid = crossed(getattr(chosen, "factors", {}))
    if twice := [label for label in grid if label in chosen.methods]:
        raise ValueError(f"methods[{twice[0]!r}] stands in the grid of factors too; say it once")
    told = _spelt_out(chosen.methods | grid, chosen)
    for name, value in chosen.network.items():
        if name not in NETWORK:
            raise ValueError(f"unknown setting {name!r} of network; known: {', '.join(NETWORK)}")
        checked(f"{name} of network", value, Parameter(int, low=1))
    where = {"paper": paper, "table": table, "parameters": fingerprint(chosen)}
    rows = {label: _by_ipc(chosen, label, row, told) for label, row in told.items()}
    matched = {ipc for label, row in told.items() if "equal_bytes" in row for ipc in rows[label]}
    return [
        cell
        for ipc in (*chosen.ipcs, *sorted(matched - {*chosen.ipcs}), None)
        for label, at in rows.items()
        if ipc in at
        for cell in _cells(chosen, label, at[ipc], ipc, where)
    ]


def _spelt_out(rows: Mapping[str, Any], chosen: SimpleNamespace) -> dict[str, Mapping[str, Any]]:
    """Every row with the settings of the row that it is `like`."""
    told: dict[str, Mapping[str, Any]] = {}
    for label, row in rows.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"methods[{label!r}]={row!r}; it must be a mapping, such as {{'method': 'dm'}}")
        other = _elsewhere(row, told)
        if label == ALL and other and len(row) == 1:
            told |= _all_there(other, chosen)
            continue
        if not other and "like" in row and row["like"] not in [*told]:
            above = ", ".join(map(repr, told)) or "none"
            raise ValueError(f"methods[{label!r}] is like {row['like']!r}; allowed: a row above it: {above}")
        own = {key: value for key, value in row.items() if key != "like"}
        replaced = AMOUNTS if "equal_bytes" in own else ("equal_bytes",) if "ipcs" in own else ()
        like = _there(label, other, chosen) if other else told[row["like"]] if "like" in row else {}
        told[label] = {key: value for key, value in like.items() if key not in replaced} | own
    return told


def _elsewhere(row: Any, above: Collection[str]) -> str:
    """The notebook that a row is like, or "" where it is like a row above it, or like none."""
    like = row.get("like") if isinstance(row, Mapping) else None
    return like if isinstance(like, str) and "/" in like and like not in above else ""


def _there(label: str, notebook: str, chosen: SimpleNamespace) -> Mapping[str, Any]:
    """The row of this label in another notebook."""
    rows = _all_there(notebook, chosen)
    if label not in rows:
        raise ValueError(f"methods[{label!r}] is like {notebook!r}, which has no such row; it has {', '.join(rows)}")
    return rows[label]


def _all_there(notebook: str, chosen: SimpleNamespace) -> dict[str, Mapping[str, Any]]:
    """The rows of another notebook: what is distilled, at the numbers of images that there are here."""
    found = {}
    for label, row in _spelt_out(elsewhere.rows(notebook, chosen.profile), chosen).items():
        kept = {key: value for key, value in row.items() if key not in (*HERE, "ipcs", "by_ipc")}
        here = [ipc for ipc in row.get("ipcs", chosen.ipcs) if ipc in chosen.ipcs]
        differing = {ipc: own for ipc, own in row.get("by_ipc", {}).items() if str(ipc) in map(str, here)}
        at = {"ipcs": here} if "ipcs" in row else {}
        if here:
            found[label] = kept | at | ({"by_ipc": differing} if differing else {})
    return found


def _by_ipc(
    chosen: SimpleNamespace, label: str, row: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> dict[int | None, Mapping[str, Any]]:
    """The row as it is at each number of images per class at which it stands; None where its method has no `ipc`.

    papermill hands the keys of a mapping on as text, so that 10 and "10" are one.
    """
    if "ipc" not in methods.hyperparameters(_kind(label, row)):
        return {None: row}
    if "equal_bytes" in row:
        return {_equal_bytes(chosen, label, rows): row}
    ipcs = checked(f"ipcs of {label!r}", row.get("ipcs", chosen.ipcs), PARAMETERS["ipcs"])
    common = {key: value for key, value in row.items() if key not in AMOUNTS}
    differing = checked(f"by_ipc of {label!r}", row.get("by_ipc", {}), Parameter(dict))
    for ipc, settings in differing.items():
        if str(ipc) not in map(str, ipcs):
            raise ValueError(f"by_ipc of {label!r} speaks of {ipc!r}; allowed: {', '.join(map(str, ipcs))}, its ipcs")
        checked(f"by_ipc of {label!r} at {ipc}", settings, Parameter(dict))
    told = {str(ipc): settings for ipc, settings in differing.items()}
    return {ipc: common | told.get(str(ipc), {}) for ipc in ipcs}


def _equal_bytes(chosen: SimpleNamespace, label: str, rows: Mapping[str, Mapping[str, Any]]) -> int:
    """Images per class that take the bytes of the generator of another row, or just less."""
    row, above = rows[label], [*rows][: [*rows].index(label)]
    other, name = row["equal_bytes"], f"equal_bytes of {label!r} is {row['equal_bytes']!r}"
    if said := [key for key in AMOUNTS if key in row]:
        raise ValueError(f"methods[{label!r}] says equal_bytes and {said[0]}; say one")
    if other not in above:
        raise ValueError(f"{name}; allowed: a row above it: {', '.join(map(repr, above)) or 'none'}")
    ipc, theirs = next(iter(_by_ipc(chosen, other, rows[other], rows).items()))
    method = _method(chosen, other, theirs, ipc)
    if not hasattr(method, "bytes_stored"):
        raise ValueError(f"{name}, whose method {method.name!r} stores no generator; allowed: a row whose method does")
    data = datasets.describe(chosen.dataset)
    stored, each = _sized(chosen, other, method), 4 * math.prod(data.shape) + 8
    count = stored // (data.num_classes * each)
    most = data.sizes[0] // data.num_classes if data.sizes else count
    if not 1 <= count <= most:
        raise ValueError(
            f"{name}, whose generator takes the {stored} bytes of {count} images per class; {data.name} allows 1 to "
            f"{most} of them, the images for training over the classes"
        )
    return count


def _sized(chosen: SimpleNamespace, label: str, method: Any) -> int:
    """Bytes of the generator that a row's method stores."""
    data = datasets.describe(chosen.dataset)
    try:
        return method.bytes_stored(data.shape, data.num_classes)
    except ValueError as error:
        raise ValueError(f"methods[{label!r}] on {data.name}: {error}") from error


def _kind(label: str, row: Mapping[str, Any]) -> type:
    return methods.find(row.get("method", label))


def _method(chosen: SimpleNamespace, label: str, row: Mapping[str, Any], ipc: int | None) -> Method:
    """The method of a row at one IPC, with all its hyper-parameters."""
    kind = _kind(label, row)
    known = methods.hyperparameters(kind)
    both = ("compat",) if "compat" in known else ()  # said of a row, and the method's as well
    own = {k: v for k, v in row.items() if k not in ROW or k in both} | ({} if ipc is None else {"ipc": ipc})
    common = {k: v for k, v in (chosen.network | _speed(chosen)).items() if k in known}
    return methods.build(kind.name, **(common | own))


def _speed(chosen: SimpleNamespace) -> dict[str, Any]:
    return {"precision": chosen.precision, "compiled": chosen.compiled}


def _cells(
    chosen: SimpleNamespace, label: str, row: Mapping[str, Any], ipc: int | None, where: Mapping[str, str]
) -> list[Cell]:
    """The cells of a row at one IPC, one for each network that it is tested on."""
    kind, method = _kind(label, row), _method(chosen, label, row, ipc)
    if hasattr(method, "bytes_stored"):  # refuses what no generator can be, before anything is trained
        _sized(chosen, label, method)
    whitened = row.get("whitened", chosen.dataset in kind.whitened)
    shared = {
        **where,
        "label": label,
        "method": method,
        "dataset": chosen.dataset,
        "whitened": whitening(f"whitened of {label!r}", whitened, kind),
        "seeds": checked(f"seeds of {label!r}", row.get("seeds", chosen.seeds), PARAMETERS["seeds"]),
        "reference_dataset": chosen.reference_dataset,
        "reported": checked(f"reported of {label!r}", row.get("reported", True), Parameter(bool)),
    }
    said = {"the evaluation": chosen.evaluation, f"evaluation of {label!r}": row.get("evaluation", {})}
    told = {name: _evaluation(name, settings, ipc) for name, settings in said.items()}
    told["the row"] = {key: row[key] for key in ("compat",) if key in row}
    usual = {"norm": getattr(method, "norm", "instance"), **chosen.network}
    return [
        _checked_batches(
            Cell(**shared, tested_on=name, protocol=fill(Protocol, "the evaluation", _speed(chosen) | protocol))
        )
        for name, protocol in protocols(getattr(kind, "evaluation", {}), told, usual).items()
    ]


def _evaluation(name: str, told: Any, ipc: int | None) -> dict[str, Any]:
    """Settings of an evaluation, with what differs at this number of images laid over the rest."""
    told = checked(name, told, Parameter(dict))
    differing = checked(f"by_ipc of {name}", told.get("by_ipc", {}), Parameter(dict))
    for at, settings in differing.items():
        checked(f"by_ipc of {name} at {at}", settings, Parameter(dict))
    here = {str(at): settings for at, settings in differing.items()}.get(str(ipc), {})
    return {key: value for key, value in told.items() if key != "by_ipc"} | here


def _checked_batches(cell: Cell) -> Cell:
    """The cell, if its mini-batches divide the epochs of its stream, where it has one."""
    if cell.deployed.get("redraw") is not None:
        try:
            check_batches(cell.protocol.batch_size, datasets.describe(cell.dataset).num_classes * cell.ipc)
        except ValueError as error:
            raise ValueError(f"{cell.label!r} at {cell.amount}: {error}") from error
    return cell
