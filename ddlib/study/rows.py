"""From a notebook's parameters to the cells of its table; `cells` states the language of rows."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ddlib import methods, models
from ddlib.data import datasets
from ddlib.data.whitening import PIXELS, require_dimensions
from ddlib.evaluation import Protocol, check_batches
from ddlib.methods import Method
from ddlib.methods.contract import fill
from ddlib.store import files
from ddlib.study.parameters import PARAMETERS, Parameter, checked


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One entry of a table: a method with all its settings on a data set, and how it is judged.

    label: the row of the table.
    whitened: whether images are ZCA-whitened: True for normalised ones, "pixels" for pixels as they are.
    seeds: one distillation each.
    reference_dataset, paper, table: where the reported numbers stand that are set beside ours.
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
        return self.method.ipc

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
        return {name: getattr(self.method, name) for name in self.method.deployment}

    def settings(self, *, deployed: bool = True) -> dict[str, Any]:
        """Everything that decides the numbers, as plain JSON, with or without the `deployed` hyper-parameters."""
        tested_on = {"tested_on": self.tested_on} if self.tested_on else {}
        left_out = {name for name, value in self.method.later.items() if getattr(self.method, name) == value}
        left_out |= set() if deployed else set(self.deployed)
        hyperparameters = asdict(self.method) | self.method.retired
        return tested_on | {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": {k: v for k, v in hyperparameters.items() if k not in left_out},
            "dataset": self.dataset,
            "whitened": self.whitened,
            "seeds": list(self.seeds),
            "protocol": self.protocol.settings(),
        }


ROW = ("method", "whitened", "seeds", "evaluation", "reported", "compat")
"""What a row may say besides its method's hyper-parameters; and "ipcs" and "by_ipc", where its method has an `ipc`."""

PLACE = ("profile", "device", "budget_hours")
"""Parameters that say where and how far a notebook computes, not what."""

WHICH = ("network", "options", "networks")
"""Settings of an evaluation that say which networks are tested."""

NETWORK = ("width", "depth")
"""What a notebook's `network` may say; a method's norm is its own."""

BETWEEN = ", "
"""What stands between the levels in the label of a row of a grid."""


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters, as far as they decide its numbers."""
    return files.key({name: value for name, value in vars(chosen).items() if name not in PLACE})


def cells(chosen: SimpleNamespace, *, paper: str, table: str) -> list[Cell]:
    """The cells that a notebook's parameters describe, IPC by IPC.

    Each entry of `chosen.methods` is a row: its label -> {"method": name, hyper-parameters ...}.  It may also say

    - "whitened": true (as the method's paper does it), false, "normalised" or "pixels"; default: where the paper does;
    - "seeds", in place of those of all rows;
    - "evaluation": settings laid over those of `chosen.evaluation`, which lie over those of the method's paper;
    - "reported": false where it is no row of the paper's, such as a control;
    - "compat": "official", for its evaluation and, where this has it, its method;
    - "ipcs", the numbers of images per class at which it stands: those that are in `chosen.ipcs` too, or all its own
      where none is; and "by_ipc", what differs at some of them: {10: {"lr_images": 1000.0}, ...};
    - "like": a row above, whose settings it has but for its own.

    Numbers of images that only single rows have come after those of all rows, and a row whose method has no `ipc` has
    one cell, after all others.  After these rows come those of `chosen.factors`, where there are any: every combination
    of their levels, by `crossed`.
    `chosen.network` holds width and depth of the network for matching and evaluation alike.
    `chosen.evaluation` holds settings of `Protocol`, or in place of its `network` and `options` a mapping `networks`:
    name -> {"network": of `ddlib.models`, options ...}.  A row then has a cell for each of them, `tested_on` its name.
    An evaluation too may have "by_ipc": {1: {"batch_size": 10}, ...}, and beside `networks` "by_network":
    {name: {"lr": 0.0001}, ...}, what differs for one of them.
    """
    datasets.describe(chosen.dataset)
    datasets.describe(chosen.reference_dataset)
    for name, value in chosen.network.items():
        if name not in NETWORK:
            raise ValueError(f"unknown setting {name!r} of network; known: {', '.join(NETWORK)}")
        checked(f"{name} of network", value, Parameter(int, low=1))
    grid = crossed(getattr(chosen, "factors", {}))
    if twice := [label for label in grid if label in chosen.methods]:
        raise ValueError(f"methods[{twice[0]!r}] stands in the grid of factors too; say it once")
    rows = _written_out(chosen.methods | grid)
    amounts = {label: _amounts(label, row, chosen) for label, row in rows.items()}
    of_single_rows = {ipc for ipcs in amounts.values() for ipc in ipcs} - {*chosen.ipcs, None}
    source = {"paper": paper, "table": table, "parameters": fingerprint(chosen)}
    return [
        cell
        for ipc in (*chosen.ipcs, *sorted(of_single_rows), None)
        for label, row in rows.items()
        if ipc in amounts[label]
        for cell in _cells_of_row(label, row, ipc, chosen, source)
    ]


def crossed(factors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a full grid: "ATOM, BN, ZCA" -> the settings of its levels, those of later factors laid over.

    A factor is a name -> levels, each the settings of a row that it stands for:
    {"norm": {"IN": {"norm": "instance"}, "BN": {"norm": "batch"}}, ...}.  Without factors there are no rows.
    """
    for name, levels in factors.items():
        for level, settings in checked(f"factors[{name!r}]", levels, Parameter(dict, filled=True)).items():
            checked(f"level {level!r} of {name!r}", settings, Parameter(dict))
            if not isinstance(level, str) or not level or BETWEEN in level:
                raise ValueError(f"level {level!r} of {name!r}; it must be a text without {BETWEEN!r}")
    rows: dict[str, dict[str, Any]] = {}
    for levels in itertools.product(*(levels.items() for levels in factors.values())) if factors else ():
        row = rows.setdefault(BETWEEN.join(level for level, _ in levels), {})
        for _, settings in levels:
            row |= settings
    return rows


def _written_out(rows: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every row with the settings of the row above that it is `like`."""
    written: dict[str, Mapping[str, Any]] = {}
    for label, row in rows.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"methods[{label!r}]={row!r}; it must be a mapping, such as {{'method': 'dm'}}")
        settings = dict(checked(f"methods[{label!r}]", row, Parameter(dict)))
        checked(f"method of {label!r}", row.get("method", label), Parameter(str))
        if "like" in row:
            like = settings.pop("like")
            if not isinstance(like, str) or like not in written:
                above = ", ".join(map(repr, written)) or "none"
                raise ValueError(f"methods[{label!r}] is like {like!r}; allowed: a row above it: {above}")
            settings = written[like] | settings
        written[label] = settings
    return written


def _amounts(label: str, row: Mapping[str, Any], chosen: SimpleNamespace) -> tuple[int | None, ...]:
    """The numbers of images per class at which a row stands; None alone where its method has no `ipc`."""
    if "ipc" not in methods.hyperparameters(methods.find(row.get("method", label))):
        return (None,)
    ipcs = checked(f"ipcs of {label!r}", row.get("ipcs", chosen.ipcs), PARAMETERS["ipcs"])
    for ipc in _by_ipc(repr(label), row):
        if ipc not in map(str, ipcs):
            raise ValueError(f"by_ipc of {label!r} speaks of {ipc!r}; allowed: {', '.join(map(str, ipcs))}, its ipcs")
    return tuple(ipc for ipc in ipcs if ipc in chosen.ipcs) or ipcs


def _by_ipc(name: str, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """IPC as text -> what differs there; papermill makes text of the keys of a mapping, so that 10 and "10" are one."""
    differing = checked(f"by_ipc of {name}", settings.get("by_ipc", {}), Parameter(dict, numbered=True))
    return {str(ipc): checked(f"by_ipc of {name} at {ipc}", own, Parameter(dict)) for ipc, own in differing.items()}


def _cells_of_row(
    label: str, row: Mapping[str, Any], ipc: int | None, chosen: SimpleNamespace, source: Mapping[str, str]
) -> list[Cell]:
    """The cells of a row at one IPC, one for each network that it is tested on; `source` is where they are reported."""
    if ipc is not None:
        row = _at(repr(label), {name: value for name, value in row.items() if name != "ipcs"}, ipc)
    kind, data = methods.find(row.get("method", label)), datasets.describe(chosen.dataset)
    method = _method(kind, row, ipc, chosen)
    whitened = whitening(f"whitened of {label!r}", row.get("whitened", data.name in kind.whitened), kind)
    try:
        method.check_images(data.shape, data.num_classes)
        if whitened and datasets.parsed_name(data.name)[1] is not None:
            raise ValueError("whitening is fitted on all classes; allowed for some of them: whitened: false")
        if whitened:
            require_dimensions(data.shape)
    except ValueError as error:
        raise ValueError(f"methods[{label!r}] on {data.name}: {error}") from error
    evaluations = {
        "the evaluation": _at("the evaluation", chosen.evaluation, ipc),
        f"evaluation of {label!r}": _at(f"evaluation of {label!r}", row.get("evaluation", {}), ipc),
        "the row": {"compat": row["compat"]} if "compat" in row else {},
    }
    usual = {"norm": method.norm, **chosen.network}
    tested_cells = []
    for tested_on, settings in _protocols(kind.evaluation, evaluations, usual).items():
        speed = {"precision": chosen.precision, "compiled": chosen.compiled}
        cell = Cell(
            label=label,
            method=method,
            dataset=chosen.dataset,
            whitened=whitened,
            seeds=checked(f"seeds of {label!r}", row.get("seeds", chosen.seeds), PARAMETERS["seeds"]),
            protocol=fill(Protocol, "the evaluation", speed | settings),
            reference_dataset=chosen.reference_dataset,
            tested_on=tested_on,
            reported=checked(f"reported of {label!r}", row.get("reported", True), Parameter(bool)),
            **source,
        )
        try:
            for of in filter(None, (cell.protocol, cell.protocol.taught_by)):
                models.check(of.network, shape=data.shape, num_classes=data.num_classes, **of.options)
            if cell.deployed.get("redraw") is not None:
                check_batches(cell.protocol.batch_size, data.num_classes * cell.ipc)
        except ValueError as error:
            raise ValueError(f"evaluation of {cell.label!r} at {cell.amount}: {error}") from error
        tested_cells.append(cell)
    return tested_cells


def _method(kind: type[Method], row: Mapping[str, Any], ipc: int | None, chosen: SimpleNamespace) -> Method:
    """The method of a row at one IPC: what the notebook says for all methods, then what the row says of this one."""
    known = methods.hyperparameters(kind)
    common = {"precision": chosen.precision, "compiled": chosen.compiled, **chosen.network}
    values = {name: value for name, value in common.items() if name in known}
    own = [name for name in row if name not in ROW or (name == "compat" and name in known)]
    values |= {name: row[name] for name in own}
    return methods.build(kind.name, **values | ({} if ipc is None else {"ipc": ipc}))


def _at(name: str, settings: Any, ipc: int | None) -> dict[str, Any]:
    """Settings of a row or an evaluation, with what differs at this number of images laid over the rest."""
    here = _by_ipc(name, checked(name, settings, Parameter(dict))).get(str(ipc), {})
    return {key: value for key, value in settings.items() if key != "by_ipc"} | here


def whitening(name: str, value: Any, kind: type[Method]) -> bool | str:
    """What a row's `whitened` asks of `datasets.load`, for a method of a kind."""
    ways = {True: kind.whitening, False: False, "normalised": True, PIXELS: PIXELS}
    if not isinstance(value, bool | str) or value not in ways:
        raise ValueError(f"{name}={value!r}; it must be true, false, normalised or {PIXELS}")
    if value and not kind.whitening:
        raise ValueError(f"{name}={value!r}; it must be false: {kind.name} takes normalised images alone")
    return ways[value]


def _protocols(
    paper: Mapping[str, Any], levels: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Name of a network tested on -> settings of its protocol; the name is "" where there are no `networks`.

    Args:
        paper: the evaluation of the method's paper.
        levels: what it is called in errors -> settings of an evaluation, each laid over those before it.
        usual: options of a ConvNet that nothing is said of.
    """
    common = dict(paper)
    for settings in levels.values():
        common |= settings
    if "networks" not in common:
        checked("options of the evaluation", common.get("options", {}), Parameter(dict))
        networks = {"": {"network": common.get("network", Protocol.network), **common.get("options", {})}}
    elif common.keys() & {"network", "options"}:
        raise ValueError(f"the evaluation says networks and {min(common.keys() & {'network', 'options'})}; say one")
    else:
        networks = _checked_networks(common["networks"])
    for name, settings in levels.items():
        _check_by_network(name, settings, networks)
    protocols = {}
    for name, entry in networks.items():
        options = (usual if entry["network"] == "convnet" else {}) | entry
        network = {"network": options.pop("network"), "options": options}
        settings = for_network([paper, *levels.values()], name)
        checked("teacher of the evaluation", settings.get("teacher", {}), Parameter(dict))
        protocols[name] = {key: value for key, value in settings.items() if key not in WHICH} | network
    return protocols


def for_network(levels: Iterable[Mapping[str, Any]], network: str) -> dict[str, Any]:
    """Settings of an evaluation for one network: each level over those before it, and its "by_network" over itself."""
    settings: dict[str, Any] = {}
    for level in levels:
        settings |= level | level.get("by_network", {}).get(network, {})
    settings.pop("by_network", None)
    return settings


def _checked_networks(networks: Any) -> Mapping[str, Mapping[str, Any]]:
    checked("networks of the evaluation", networks, Parameter(dict, filled=True))
    for name, entry in networks.items():
        if not name or not isinstance(entry, Mapping) or "network" not in entry:
            raise ValueError(f"networks[{name!r}]={entry!r}; it must be a mapping, such as {{'network': 'vgg11'}}")
        for option in sorted(checked(f"networks[{name!r}]", entry, Parameter(dict)).keys() - {"network"}):
            models.check_option(entry["network"], option, f"networks[{name!r}]")
    return networks


def _check_by_network(name: str, settings: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Refuse a "by_network" of the settings called `name` that is no mapping from networks to what differs for them."""
    for network, own in checked(f"by_network of {name}", settings.get("by_network", {}), Parameter(dict)).items():
        if network not in networks:
            known = ", ".join(filter(None, networks)) or "none, for there are no networks"
            raise ValueError(f"by_network of {name} speaks of {network!r}; allowed: {known}")
        checked(f"by_network of {name} at {network}", own, Parameter(dict))
        if wrong := [key for key in WHICH if key in own]:
            raise ValueError(f"by_network of {name} at {network} says {wrong[0]}; say that in networks")
