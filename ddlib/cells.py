"""What a study computes: the cells of a paper's table, each a method, a data set and an evaluation."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ddlib import datasets, methods, results, store
from ddlib.evaluate import Protocol
from ddlib.methods import Method
from ddlib.settings import PARAMETERS, Parameter, checked, fill

SPEED = ("precision", "compiled", "at_once", "num_networks")
"""Settings that change how fast or how often, not what: a cell that differs in them alone is the paper's cell."""

ROW = ("method", "whitened", "seeds")
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
    whitened: whether images are ZCA-whitened.
    seeds: one distillation each.
    protocol: the evaluation.
    reference_dataset: the data set whose reported numbers stand beside ours.
    paper, table: where those numbers are reported.
    parameters: `fingerprint` of the notebook's parameters that it comes from.
    """

    label: str
    method: Method
    dataset: str
    whitened: bool
    seeds: tuple[int, ...]
    protocol: Protocol
    reference_dataset: str
    paper: str
    table: str
    parameters: str = ""

    @property
    def ipc(self) -> int:
        """Images per class."""
        return self.method.ipc

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain JSON."""
        return {
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
    "whitened" (default: as the method's paper does on that data set) and "seeds" (default: those of all rows).
    A row may have "ipcs", where it stands at these alone, and "by_ipc": what differs at some of its numbers of images,
    {10: {"lr_images": 1000.0, "whitened": False}, ...}, laid over the row there.
    `chosen.network` holds width and depth of the network for matching and evaluation alike.

    Raises:
        ValueError: an unknown method, data set or setting, or a value out of its range.
    """
    datasets.describe(chosen.dataset)
    datasets.describe(chosen.reference_dataset)
    for label, row in chosen.methods.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"methods[{label!r}]={row!r}; it must be a mapping, such as {{'method': 'dm'}}")
    for name, value in chosen.network.items():
        if name not in NETWORK:
            raise ValueError(f"unknown setting {name!r} of network; known: {', '.join(NETWORK)}")
        checked(f"{name} of network", value, Parameter(int, low=1))
    where = {"paper": paper, "table": table, "parameters": fingerprint(chosen)}
    rows = {label: _by_ipc(chosen, label, row) for label, row in chosen.methods.items()}
    return [_cell(chosen, label, at[ipc], ipc, where) for ipc in chosen.ipcs for label, at in rows.items() if ipc in at]


def _by_ipc(chosen: SimpleNamespace, label: str, row: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The row as it is at each number of images per class at which it stands.

    papermill hands the keys of a mapping on as text, so that 10 and "10" are one.
    """
    ipcs = checked(f"ipcs of {label!r}", row.get("ipcs", chosen.ipcs), PARAMETERS["ipcs"])
    common = {key: value for key, value in row.items() if key not in ("ipcs", "by_ipc")}
    differing = checked(f"by_ipc of {label!r}", row.get("by_ipc", {}), Parameter(dict))
    for ipc, settings in differing.items():
        if str(ipc) not in map(str, ipcs):
            raise ValueError(f"by_ipc of {label!r} speaks of {ipc!r}; allowed: {', '.join(map(str, ipcs))}, its ipcs")
        checked(f"by_ipc of {label!r} at {ipc}", settings, Parameter(dict))
    told = {str(ipc): settings for ipc, settings in differing.items()}
    return {ipc: common | told.get(str(ipc), {}) for ipc in ipcs}


def _cell(chosen: SimpleNamespace, label: str, row: Mapping[str, Any], ipc: int, where: Mapping[str, str]) -> Cell:
    own = {key: value for key, value in row.items() if key not in ROW}
    kind = methods.find(row.get("method", label))
    speed = {"precision": chosen.precision, "compiled": chosen.compiled}
    common = {k: v for k, v in (chosen.network | speed).items() if k in methods.hyperparameters(kind)}
    method = methods.build(kind.name, **(common | own | {"ipc": ipc}))
    told = dict(chosen.evaluation)
    network = told.get("network", Protocol.network)
    options = {"norm": getattr(method, "norm", "instance"), **chosen.network} if network == "convnet" else {}
    options |= told.pop("options", {})
    return Cell(
        **where,
        label=label,
        method=method,
        dataset=chosen.dataset,
        whitened=checked(
            f"whitened of {label!r}", row.get("whitened", chosen.dataset in kind.whitened), Parameter(bool)
        ),
        seeds=checked(f"seeds of {label!r}", row.get("seeds", chosen.seeds), PARAMETERS["seeds"]),
        protocol=fill(Protocol, "the evaluation", {**speed, **told, "options": options}),
        reference_dataset=chosen.reference_dataset,
    )


def deviations(cell: Cell) -> list[str]:
    """In what a cell differs from its paper's setting, one short phrase each; empty if it is the paper's cell.

    The paper's setting is what its file states for the cell, and the method's and the protocol's defaults for the rest.
    """
    place = {"method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    stated = results.published(cell.paper, **place)
    whitened = stated.pop("whitened", cell.reference_dataset in cell.method.whitened)
    protocol = Protocol(**stated.pop("evaluation", {}))
    found = []
    if cell.dataset != cell.reference_dataset:
        found.append(f"{cell.dataset} instead of {cell.reference_dataset}")
    if cell.whitened != whitened:
        found.append("whitened" if cell.whitened else "not whitened")
    found += _differences("", asdict(cell.method), asdict(type(cell.method)(ipc=cell.ipc, **stated)))
    options = {"norm": getattr(cell.method, "norm", "instance")}
    ours, paper = asdict(cell.protocol), asdict(protocol)
    own = {key: value for key, value in ours.pop("options").items() if key not in asdict(cell.method)}
    paper.pop("options")
    return found + _differences("evaluation ", own | ours, options | paper)


def _differences(where: str, ours: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting of ours that is not the paper's; what changes speed alone does not count."""
    return [
        f"{where}{name} {value} (default: {'by data' if paper.get(name) is None else paper[name]})"
        for name, value in ours.items()
        if value != paper.get(name) and name not in SPEED
    ]
