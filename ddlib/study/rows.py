"""From a notebook's parameters to the cells of its table."""

import ast
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

import yaml

from ddlib import ROOT, methods, models
from ddlib.data import datasets
from ddlib.data.whitening import PIXELS
from ddlib.evaluation import Protocol, check_batches
from ddlib.methods import Method
from ddlib.methods.settings import fill
from ddlib.store import files
from ddlib.study.parameters import PARAMETERS, Parameter, checked


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of a table: a method with all its settings on a data set, and how it is judged.

    label: the row of the table.
    method: with its hyper-parameters, images per class included.
    dataset: name of the data set.
    whitened: whether images are ZCA-whitened: True for normalised ones, "pixels" for pixels as they are.
    seeds: one distillation each.
    protocol: the evaluation.
    reference_dataset: the data set whose reported numbers stand beside ours.
    paper, table: where those numbers are reported.
    parameters: `fingerprint` of the notebook's parameters that it comes from.
    tested_on: name of the network tested on, where a row is tested on several.
    reported: whether the paper has such a row, so that its number may stand beside ours.
    """

    label: str
    method: Method
    dataset: str
    whitened: bool | str
    seeds: tuple[int, ...]
    protocol: Protocol
    reference_dataset: str
    paper: str
    table: str
    parameters: str = ""
    tested_on: str = ""
    reported: bool = True

    def __str__(self) -> str:
        return f"{self.set_name}, tested on {self.tested_on}" if self.tested_on else self.set_name

    @property
    def ipc(self) -> int | None:
        """Images per class; None where the method takes the whole training set."""
        return getattr(self.method, "ipc", None)

    @property
    def condition(self) -> str:
        """Which of the rows that the paper reports under the method's name it is; "" where there is but one."""
        return getattr(self.method, "condition", "")

    @property
    def amount(self) -> str:
        """Images per class, for people."""
        return "all images" if self.ipc is None else f"IPC {self.ipc}"

    @property
    def set_name(self) -> str:
        """What is distilled, for people: row, data and images per class."""
        return f"{self.label}, {self.dataset}, {self.amount}"

    @property
    def deployed(self) -> dict[str, Any]:
        """The method's hyper-parameters that decide nothing of what is distilled, only how it is deployed."""
        return {name: getattr(self.method, name) for name in getattr(self.method, "deployment", ())}

    @property
    def distilled_name(self) -> str:
        """What is distilled, for people: `set_name`, less the images per class where cells of several share it."""
        return f"{self.label}, {self.dataset}" if "ipc" in self.deployed else self.set_name

    def settings(self, *, deployed: bool = True) -> dict[str, Any]:
        """Everything that decides the numbers, as plain JSON; `tested_on` only where it is given.

        Args:
            deployed: whether with the hyper-parameters that are `deployed`.
        """
        tested_on = {"tested_on": self.tested_on} if self.tested_on else {}
        left_out = () if deployed else self.deployed
        return tested_on | {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": {name: v for name, v in asdict(self.method).items() if name not in left_out},
            "dataset": self.dataset,
            "whitened": self.whitened,
            "seeds": list(self.seeds),
            "protocol": self.protocol.settings(),
        }


BETWEEN = ", "
"""What stands between the levels in a row's label."""


def crossed(factors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a full grid: "ATOM, BN, ZCA" -> the settings of its levels, those of later factors laid over.

    Args:
        factors: name -> levels, each the settings of a row that it stands for: {"norm": {"IN": {"norm": "instance"},
            "BN": {"norm": "batch"}}, ...}.  None: no rows.

    Raises:
        ValueError: a factor has no levels, a level is no mapping, or its name is empty or holds ", ".
    """
    for name, levels in factors.items():
        for level, settings in checked(f"factors[{name!r}]", levels, Parameter(dict, filled=True)).items():
            checked(f"level {level!r} of {name!r}", settings, Parameter(dict))
            if not isinstance(level, str) or not level or BETWEEN in level:
                raise ValueError(f"level {level!r} of {name!r}; it must be a text without {BETWEEN!r}")
    combinations = itertools.product(*(levels.items() for levels in factors.values())) if factors else ()
    rows: dict[str, dict[str, Any]] = {}
    for levels in combinations:
        row = rows.setdefault(BETWEEN.join(level for level, _ in levels), {})
        for _, settings in levels:
            row |= settings
    return rows


def rows(notebook: str, profile: str) -> Mapping[str, Any]:
    """The parameter `methods` of a notebook at a profile: its own literal, or that of the profile's file.

    Args:
        notebook: `paper/experiment`.
        profile: "quick", or one that the notebook has a parameter file for.

    Raises:
        ValueError: there is no such notebook or file, or it has no rows.
    """
    quick = profile.rpartition(".")[2] == "quick"
    path = ROOT / (f"notebooks/{notebook}.ipynb" if quick else f"params/{notebook}.{profile}.yaml")
    if ".." in notebook or not path.is_file():
        raise ValueError(f"no rows of {notebook!r} at profile {profile!r}: there is no {path.relative_to(ROOT)}")
    found = (_literal if quick else yaml.safe_load)(path.read_text(encoding="utf-8"))
    if not isinstance(found, Mapping) or not isinstance(found.get("methods"), Mapping):
        raise ValueError(f"no rows of {notebook!r} at profile {profile!r}: {path.relative_to(ROOT)} has no methods")
    return found["methods"]


def _literal(text: str) -> dict[str, Any]:
    """The literals of the cell tagged `parameters`."""
    (cell,) = [cell for cell in json.loads(text)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    body = ast.parse("".join(cell["source"])).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


WHICH = ("network", "options", "networks")
"""Settings of an evaluation that say which networks are tested."""


def protocols(
    paper: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Name of a network tested on -> settings of its protocol; the name is "" where there are no `networks`.

    Args:
        paper: the evaluation of the method's paper.
        told: what it is called in errors -> settings of an evaluation, each laid over those before it; see `at`.
        usual: options of a ConvNet that nothing is said of.
    """
    for name, settings in told.items():
        _check_by_network(name, settings)
    levels = [paper, *told.values()]
    common = at(levels, "")
    if "networks" not in common:
        networks = {"": {"network": common.get("network", Protocol.network), **common.get("options", {})}}
    elif common.keys() & {"network", "options"}:
        raise ValueError(f"the evaluation says networks and {min(common.keys() & {'network', 'options'})}; say one")
    else:
        networks = _checked_networks(common["networks"])
    for name, settings in told.items():
        for unknown in settings.get("by_network", {}).keys() - networks.keys():
            known = ", ".join(filter(None, networks)) or "none, for there are no networks"
            raise ValueError(f"by_network of {name} speaks of {unknown!r}; allowed: {known}")
    found = {}
    for name, entry in networks.items():
        rest = {key: value for key, value in at(levels, name).items() if key not in WHICH}
        options = (usual if entry["network"] == "convnet" else {}) | entry
        found[name] = rest | {"network": options.pop("network"), "options": options}
    return found


def at(levels: Iterable[Mapping[str, Any]], network: str) -> dict[str, Any]:
    """Settings of an evaluation as they are for one network.

    Args:
        levels: each laid over those before it; what a level's "by_network" says of the network, over that level.
        network: name of the network tested on.
    """
    found: dict[str, Any] = {}
    for level in levels:
        own = level.get("by_network", {}).get(network, {})
        found |= {key: value for key, value in level.items() if key != "by_network"} | own
    return found


def _check_by_network(name: str, told: Mapping[str, Any]) -> None:
    """Refuse a `by_network` that is no mapping to settings, or that says which networks are tested."""
    for network, settings in checked(f"by_network of {name}", told.get("by_network", {}), Parameter(dict)).items():
        checked(f"by_network of {name} at {network}", settings, Parameter(dict))
        if wrong := [key for key in WHICH if key in settings]:
            raise ValueError(f"by_network of {name} at {network} says {wrong[0]}; say that in networks")


def _checked_networks(networks: Any) -> Mapping[str, Mapping[str, Any]]:
    checked("networks of the evaluation", networks, Parameter(dict, filled=True))
    for name, entry in networks.items():
        if not name or not isinstance(name, str) or not isinstance(entry, Mapping) or "network" not in entry:
            raise ValueError(f"networks[{name!r}]={entry!r}; it must be a mapping, such as {{'network': 'vgg11'}}")
        known = models.options_of(entry["network"])
        for option in entry.keys() - {"network", *known}:
            raise ValueError(f"unknown option {option!r} of networks[{name!r}]; known: {', '.join(known)}")
    return networks


NETWORK = ("width", "depth")
"""What a notebook's `network` may say; a method's norm is its own."""


def whitening(name: str, told: Any, kind: type) -> bool | str:
    """What a row's `whitened` asks of `datasets.load`."""
    ways = {True: getattr(kind, "whitening", True), False: False, "normalised": True, PIXELS: PIXELS}
    if not isinstance(told, bool | str) or told not in ways:
        raise ValueError(f"{name}={told!r}; it must be true, false, normalised or {PIXELS}")
    return ways[told]


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
    for label, row in _spelt_out(rows(notebook, chosen.profile), chosen).items():
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
