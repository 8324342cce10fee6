"""What a study computes: the cells of a paper's table, each a method, a data set and an evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ddlib import datasets, methods, models, results, store
from ddlib.evaluate import Protocol
from ddlib.methods import Method
from ddlib.settings import PARAMETERS, Parameter, checked, fill
from ddlib.zca import PIXELS

SPEED = ("precision", "expert_precision", "compiled", "at_once", "num_networks", "shard", "kept_epochs")
"""Settings that change how fast, how often or in what parts, not what: a cell that differs in them alone is the
paper's cell."""

ROW = ("method", "whitened", "seeds", "evaluation", "reported")
"""What a row may say besides its method's hyper-parameters."""

PLACE = ("profile", "device", "budget_hours")
"""Parameters that say where and how far a notebook computes, not what."""

NETWORK = ("width", "depth")
"""What a notebook's `network` may say; a method's norm is its own."""


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
    def amount(self) -> str:
        """Images per class, for people."""
        return "all images" if self.ipc is None else f"IPC {self.ipc}"

    @property
    def set_name(self) -> str:
        """What is distilled, for people: row, data and images per class."""
        return f"{self.label}, {self.dataset}, {self.amount}"

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain JSON; `tested_on` only where it is given."""
        tested_on = {"tested_on": self.tested_on} if self.tested_on else {}
        return tested_on | {
            "method": self.method.name,
            "version": self.method.version,
            "hyperparameters": asdict(self.method),
            "dataset": self.dataset,
            "whitened": self.whitened,
            "seeds": list(self.seeds),
            "protocol": asdict(self.protocol),
        }


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters, as far as they decide its numbers."""
    return store.key({name: value for name, value in vars(chosen).items() if name not in PLACE})


def cells(chosen: SimpleNamespace, *, paper: str, table: str) -> list[Cell]:
    """The cells that a notebook's parameters describe, IPC by IPC.

    Each entry of `chosen.methods` is a row: its label -> {"method": name, hyper-parameters ...}, and, where wanted,
    "whitened" (true: as the method's paper does it, or "normalised" or "pixels"; default: where that does), "seeds"
    (default: those of all rows) and "evaluation" (settings that replace those of `chosen.evaluation` for this row,
    which replace those of the method's paper), and "reported": false where it is no row of the paper's, such as a
    control.  A row whose method has no `ipc` has one cell, after all others.
    A row may have "ipcs", where it stands at these alone, and "by_ipc": what differs at some of its numbers of images,
    {10: {"lr_images": 1000.0, "whitened": False}, ...}, laid over the row there.
    `chosen.network` holds width and depth of the network for matching and evaluation alike.
    `chosen.evaluation` holds settings of `Protocol`, or in place of its `network` and `options` a mapping `networks`:
    name -> {"network": of `ddlib.models`, options ...}.  A row then has a cell for each of them, `tested_on` its name.

    Raises:
        ValueError: an unknown method, data set or setting, or a value out of its range.
    """
    datasets.describe(chosen.dataset)
    datasets.describe(chosen.reference_dataset)
    told = _spelt_out(chosen.methods)
    for name, value in chosen.network.items():
        if name not in NETWORK:
            raise ValueError(f"unknown setting {name!r} of network; known: {', '.join(NETWORK)}")
        checked(f"{name} of network", value, Parameter(int, low=1))
    where = {"paper": paper, "table": table, "parameters": fingerprint(chosen)}
    rows = {label: _by_ipc(chosen, label, row) for label, row in told.items()}
    return [
        cell
        for ipc in (*chosen.ipcs, None)
        for label, at in rows.items()
        if ipc in at
        for cell in _cells(chosen, label, at[ipc], ipc, where)
    ]


def _spelt_out(rows: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every row with the settings of the row that it is `like`."""
    told: dict[str, Mapping[str, Any]] = {}
    for label, row in rows.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"methods[{label!r}]={row!r}; it must be a mapping, such as {{'method': 'dm'}}")
        if "like" in row and row["like"] not in [*told]:
            above = ", ".join(map(repr, told)) or "none"
            raise ValueError(f"methods[{label!r}] is like {row['like']!r}; allowed: a row above it: {above}")
        own = {key: value for key, value in row.items() if key != "like"}
        told[label] = {**told[row["like"]], **own} if "like" in row else own
    return told


def _by_ipc(chosen: SimpleNamespace, label: str, row: Mapping[str, Any]) -> dict[int | None, Mapping[str, Any]]:
    """The row as it is at each number of images per class at which it stands; None where its method has no `ipc`.

    papermill hands the keys of a mapping on as text, so that 10 and "10" are one.
    """
    if "ipc" not in methods.hyperparameters(_kind(label, row)):
        return {None: row}
    ipcs = checked(f"ipcs of {label!r}", row.get("ipcs", chosen.ipcs), PARAMETERS["ipcs"])
    common = {key: value for key, value in row.items() if key not in ("ipcs", "by_ipc")}
    differing = checked(f"by_ipc of {label!r}", row.get("by_ipc", {}), Parameter(dict))
    for ipc, settings in differing.items():
        if str(ipc) not in map(str, ipcs):
            raise ValueError(f"by_ipc of {label!r} speaks of {ipc!r}; allowed: {', '.join(map(str, ipcs))}, its ipcs")
        checked(f"by_ipc of {label!r} at {ipc}", settings, Parameter(dict))
    told = {str(ipc): settings for ipc, settings in differing.items()}
    return {ipc: common | told.get(str(ipc), {}) for ipc in ipcs}


def _kind(label: str, row: Mapping[str, Any]) -> type:
    return methods.find(row.get("method", label))


def _cells(
    chosen: SimpleNamespace, label: str, row: Mapping[str, Any], ipc: int | None, where: Mapping[str, str]
) -> list[Cell]:
    """The cells of a row at one IPC, one for each network that it is tested on."""
    own = {key: value for key, value in row.items() if key not in ROW} | ({} if ipc is None else {"ipc": ipc})
    kind = _kind(label, row)
    speed = {"precision": chosen.precision, "compiled": chosen.compiled}
    common = {k: v for k, v in (chosen.network | speed).items() if k in methods.hyperparameters(kind)}
    method = methods.build(kind.name, **(common | own))
    whitened = row.get("whitened", chosen.dataset in kind.whitened)
    shared = {
        **where,
        "label": label,
        "method": method,
        "dataset": chosen.dataset,
        "whitened": _whitening(f"whitened of {label!r}", whitened, kind),
        "seeds": checked(f"seeds of {label!r}", row.get("seeds", chosen.seeds), PARAMETERS["seeds"]),
        "reference_dataset": chosen.reference_dataset,
        "reported": checked(f"reported of {label!r}", row.get("reported", True), Parameter(bool)),
    }
    told = (
        dict(getattr(kind, "evaluation", {}))
        | chosen.evaluation
        | checked(f"evaluation of {label!r}", row.get("evaluation", {}), Parameter(dict))
    )
    usual = {"norm": getattr(method, "norm", "instance"), **chosen.network}
    return [
        Cell(**shared, tested_on=name, protocol=fill(Protocol, "the evaluation", speed | protocol))
        for name, protocol in _protocols(told, usual).items()
    ]


def _whitening(name: str, told: Any, kind: type) -> bool | str:
    """What a row's `whitened` asks of `datasets.load`."""
    ways = {True: getattr(kind, "whitening", True), False: False, "normalised": True, PIXELS: PIXELS}
    if not isinstance(told, bool | str) or told not in ways:
        raise ValueError(f"{name}={told!r}; it must be true, false, normalised or {PIXELS}")
    return ways[told]


def _protocols(told: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name of a network tested on -> settings of its protocol; the name is "" where there are no `networks`.

    Args:
        told: the evaluation's settings.
        usual: options of a ConvNet that `told` says nothing of.
    """
    rest = {key: value for key, value in told.items() if key not in ("network", "options", "networks")}
    if "networks" not in told:
        networks = {"": {"network": told.get("network", Protocol.network), **told.get("options", {})}}
    elif told.keys() & {"network", "options"}:
        raise ValueError(f"the evaluation says networks and {min(told.keys() & {'network', 'options'})}; say one")
    else:
        networks = _checked_networks(told["networks"])
    found = {}
    for name, entry in networks.items():
        options = (usual if entry["network"] == "convnet" else {}) | entry
        found[name] = rest | {"network": options.pop("network"), "options": options}
    return found


def _checked_networks(networks: Any) -> Mapping[str, Mapping[str, Any]]:
    checked("networks of the evaluation", networks, Parameter(dict, filled=True))
    for name, entry in networks.items():
        if not name or not isinstance(name, str) or not isinstance(entry, Mapping) or "network" not in entry:
            raise ValueError(f"networks[{name!r}]={entry!r}; it must be a mapping, such as {{'network': 'vgg11'}}")
        known = models.options_of(entry["network"])
        for option in entry.keys() - {"network", *known}:
            raise ValueError(f"unknown option {option!r} of networks[{name!r}]; known: {', '.join(known)}")
    return networks


def deviations(cell: Cell) -> list[str]:
    """In what a cell differs from its paper's setting, one short phrase each; empty if it is the paper's cell.

    The paper's setting is what its file states for the cell, and the method's and the protocol's defaults for the rest.
    """
    place = {"method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    stated = results.published(cell.paper, **place)
    kind = type(cell.method)
    whitened = _whitening("whitened", stated.pop("whitened", cell.reference_dataset in kind.whitened), kind)
    protocol = Protocol(**(getattr(cell.method, "evaluation", {}) | stated.pop("evaluation", {})))
    found = []
    if cell.dataset != cell.reference_dataset:
        found.append(f"{cell.dataset} instead of {cell.reference_dataset}")
    if cell.whitened != whitened:
        ways = {False: "not whitened", True: "whitened" + " after normalisation" * bool(whitened)}
        found.append(ways.get(cell.whitened, "whitened without normalisation"))
    given = {} if cell.ipc is None else {"ipc": cell.ipc}
    found += _differences("", asdict(cell.method), asdict(type(cell.method)(**given)) | stated)
    options = {"norm": getattr(cell.method, "norm", "instance")}
    ours, paper = asdict(cell.protocol), asdict(protocol)
    own = {key: value for key, value in ours.pop("options").items() if key not in asdict(cell.method)}
    paper.pop("options")
    if cell.tested_on:  # what the name stands for is no deviation; how wide the notebook makes its ConvNets may be
        own = {key: own[key] for key in NETWORK if key in own and ours["network"] == "convnet"}
        ours.pop("network")
    return found + _differences("evaluation ", own | ours, options | paper)


def _differences(where: str, ours: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting of ours that is not the paper's; what changes speed alone does not count."""
    return [
        f"{where}{name} {value} (default: {'by data' if paper.get(name) is None else paper[name]})"
        for name, value in ours.items()
        if value != paper.get(name) and name not in SPEED
    ]
