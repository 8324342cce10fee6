"""From a notebook's parameters to the cells of its table.

`cells` states the language of rows.  A row is first written out (`_written_out`): grids, rows of other notebooks and
`like` become plain settings.  A `_Row` then says at which numbers of images it stands, and makes its cells there.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

from ddlib import ROOT, methods, models
from ddlib.data import datasets
from ddlib.data.whitening import PIXELS
from ddlib.evaluation import Protocol, check_batches
from ddlib.methods import Method
from ddlib.methods.contract import fill
from ddlib.store import files
from ddlib.study.parameters import PARAMETERS, Parameter, checked, of_notebook, read_params


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
        return self.method.ipc

    @property
    def condition(self) -> str:
        """Which of the rows that the paper reports under the method's name it is; "" where there is but one."""
        return self.method.condition

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

WHICH = ("network", "options", "networks")
"""Settings of an evaluation that say which networks are tested."""

NETWORK = ("width", "depth")
"""What a notebook's `network` may say; a method's norm is its own."""

BETWEEN = ", "
"""What stands between the levels in the label of a row of a grid."""


def fingerprint(chosen: SimpleNamespace) -> str:
    """A stable name for a notebook's parameters, as far as they decide its numbers.

    Where rows are like those of another notebook, these are what it names.
    """
    settings = {name: value for name, value in vars(chosen).items() if name not in PLACE}
    rows = settings.get("methods", {})
    if any(_other_notebook(row, [*rows][:place]) for place, row in enumerate(rows.values())):
        settings["methods"] = _written_out(rows, chosen)
    return files.key(settings)


def cells(chosen: SimpleNamespace, *, paper: str, table: str) -> list[Cell]:
    """The cells that a notebook's parameters describe, IPC by IPC.

    Each entry of `chosen.methods` is a row: its label -> {"method": name, hyper-parameters ...}.  It may also say

    - "whitened": true (as the method's paper does it), false, "normalised" or "pixels"; default: where the paper does;
    - "seeds", in place of those of all rows;
    - "evaluation": settings laid over those of `chosen.evaluation`, which lie over those of the method's paper;
    - "reported": false where it is no row of the paper's, such as a control;
    - "compat": "official", for its evaluation and, where this has it, its method;
    - "ipcs", the numbers of images per class at which it stands, in place of those of all rows; and "by_ipc", what
      differs at some of them: {10: {"lr_images": 1000.0, "whitened": False}, ...};
    - in place of these two "equal_bytes": the label of a row above whose method stores a generator.  The row then
      stands at one number of images per class: the highest whose images (float32) and labels (int64) take no more
      bytes than that generator;
    - "like": a row above, whose settings it has but for its own; or another notebook, such as "datm/accuracy", whose
      row of the same label it is at the same profile, but for `HERE`.  "*": {"like": "compare/tour"} are all rows of
      that notebook.

    A row whose method has no `ipc` has one cell, after all others.  After these rows come those of `chosen.factors`,
    where there are any: every combination of their levels, by `crossed`.
    `chosen.network` holds width and depth of the network for matching and evaluation alike.
    `chosen.evaluation` holds settings of `Protocol`, or in place of its `network` and `options` a mapping `networks`:
    name -> {"network": of `ddlib.models`, options ...}.  A row then has a cell for each of them, `tested_on` its name.
    An evaluation too may have "by_ipc": {1: {"batch_size": 10}, ...}, and beside `networks` "by_network":
    {name: {"lr": 0.0001}, ...}, what differs for one of them.

    Raises:
        ValueError: an unknown method, data set or setting, a value out of its range, or mini-batches that do not
            divide the epochs of a stream.
    """
    datasets.describe(chosen.dataset)
    datasets.describe(chosen.reference_dataset)
    grid = crossed(getattr(chosen, "factors", {}))
    if twice := [label for label in grid if label in chosen.methods]:
        raise ValueError(f"methods[{twice[0]!r}] stands in the grid of factors too; say it once")
    written_out = _written_out(chosen.methods | grid, chosen)
    for name, value in chosen.network.items():
        if name not in NETWORK:
            raise ValueError(f"unknown setting {name!r} of network; known: {', '.join(NETWORK)}")
        checked(f"{name} of network", value, Parameter(int, low=1))
    rows: dict[str, _Row] = {}
    amounts: list[int | None] = [*chosen.ipcs]
    for label, settings in written_out.items():
        rows[label] = row = _Row(label, settings, chosen, above=dict(rows))
        if "equal_bytes" in settings:
            amounts += row.ipcs
    ipcs = [*chosen.ipcs, *sorted({*amounts} - {*chosen.ipcs, None}), None]
    source = {"paper": paper, "table": table, "parameters": fingerprint(chosen)}
    return [cell for ipc in ipcs for row in rows.values() if ipc in row.ipcs for cell in row.cells(ipc, source)]


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
    rows: dict[str, dict[str, Any]] = {}
    for levels in itertools.product(*(levels.items() for levels in factors.values())) if factors else ():
        row = rows.setdefault(BETWEEN.join(level for level, _ in levels), {})
        for _, settings in levels:
            row |= settings
    return rows


def _written_out(rows: Mapping[str, Any], chosen: SimpleNamespace) -> dict[str, Mapping[str, Any]]:
    """Every row with the settings of the row that it is `like`."""
    written: dict[str, Mapping[str, Any]] = {}
    for label, row in rows.items():
        if not isinstance(row, Mapping):
            raise ValueError(f"methods[{label!r}]={row!r}; it must be a mapping, such as {{'method': 'dm'}}")
        like, notebook = {}, _other_notebook(row, written)
        if notebook:
            theirs = _rows_of(notebook, chosen)
            if label == ALL and len(row) == 1:
                written |= theirs
                continue
            if label not in theirs:
                known = ", ".join(theirs)
                raise ValueError(f"methods[{label!r}] is like {notebook!r}, which has no such row; it has {known}")
            like = theirs[label]
        elif "like" in row:
            if row["like"] not in [*written]:  # a list, since what is not hashable is no row either
                above = ", ".join(map(repr, written)) or "none"
                raise ValueError(f"methods[{label!r}] is like {row['like']!r}; allowed: a row above it: {above}")
            like = written[row["like"]]
        replaced = AMOUNTS if "equal_bytes" in row else ("equal_bytes",) if "ipcs" in row else ()
        written[label] = {key: value for key, value in like.items() if key not in replaced} | row
        written[label].pop("like", None)
    return written


def _other_notebook(row: Any, above: Collection[str]) -> str:
    """The notebook that a row is like, or "" where it is like a row above it, or like none."""
    like = row.get("like") if isinstance(row, Mapping) else None
    return like if isinstance(like, str) and "/" in like and like not in above else ""


def _rows_of(notebook: str, chosen: SimpleNamespace) -> dict[str, Mapping[str, Any]]:
    """The rows of another notebook at the same profile: what is distilled, at the numbers of images that are here."""
    rows = {}
    for label, row in _written_out(rows_at(notebook, chosen.profile), chosen).items():
        here = [ipc for ipc in row.get("ipcs", chosen.ipcs) if ipc in chosen.ipcs]
        if not here:
            continue
        rows[label] = {key: value for key, value in row.items() if key not in (*HERE, "by_ipc")}
        if "ipcs" in row:
            rows[label]["ipcs"] = here
        differing = {ipc: own for ipc, own in row.get("by_ipc", {}).items() if str(ipc) in map(str, here)}
        if differing:
            rows[label]["by_ipc"] = differing
    return rows


def rows_at(notebook: str, profile: str) -> Mapping[str, Any]:
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
    rows = (of_notebook if quick else read_params)(path).get("methods")
    if not isinstance(rows, Mapping):
        raise ValueError(f"no rows of {notebook!r} at profile {profile!r}: {path.relative_to(ROOT)} has no methods")
    return rows


class _Row:
    """A row of a table: its settings, written out, at each number of images per class at which it stands.

    ipcs: these numbers; None alone where its method has no `ipc`.
    """

    def __init__(self, label: str, settings: Mapping[str, Any], chosen: SimpleNamespace, above: Mapping[str, "_Row"]):
        self.label, self.settings, self.chosen = label, settings, chosen
        self.data = datasets.describe(chosen.dataset)
        self.kind = methods.find(settings.get("method", label))
        self.known = methods.hyperparameters(self.kind)
        self.by_ipc: dict[str, Mapping[str, Any]] = {}
        if "ipc" not in self.known:
            self.ipcs: list[int | None] = [None]
        elif "equal_bytes" in settings:
            self.ipcs = [self._ipc_of_equal_bytes(above)]
        else:
            self.ipcs = checked(f"ipcs of {label!r}", settings.get("ipcs", chosen.ipcs), PARAMETERS["ipcs"])
            self.by_ipc = _by_ipc(repr(label), settings)
            for ipc in settings.get("by_ipc", {}):
                if str(ipc) not in map(str, self.ipcs):
                    allowed = ", ".join(map(str, self.ipcs))
                    raise ValueError(f"by_ipc of {label!r} speaks of {ipc!r}; allowed: {allowed}, its ipcs")
            self.settings = {key: value for key, value in settings.items() if key not in AMOUNTS}

    def _ipc_of_equal_bytes(self, above: Mapping[str, "_Row"]) -> int:
        """Images per class that take the bytes of the generator of another row, or just less."""
        other = self.settings["equal_bytes"]
        name = f"equal_bytes of {self.label!r} is {other!r}"
        if amounts := [key for key in AMOUNTS if key in self.settings]:
            raise ValueError(f"methods[{self.label!r}] says equal_bytes and {amounts[0]}; say one")
        if other not in [*above]:
            raise ValueError(f"{name}; allowed: a row above it: {', '.join(map(repr, above)) or 'none'}")
        method = above[other].method(above[other].ipcs[0])
        if (stored := above[other].bytes_stored(method)) is None:
            raise ValueError(f"{name}, whose method {method.name!r} stores no generator; allowed: a row whose does")
        bytes_per_image = 4 * math.prod(self.data.shape) + 8  # float32 pixels, and an int64 label
        count = stored // (self.data.num_classes * bytes_per_image)
        most = self.data.sizes[0] // self.data.num_classes if self.data.sizes else count
        if not 1 <= count <= most:
            raise ValueError(
                f"{name}, whose generator takes the {stored} bytes of {count} images per class; {self.data.name} "
                f"allows 1 to {most} of them, the images for training over the classes"
            )
        return count

    def at(self, ipc: int | None) -> Mapping[str, Any]:
        """The settings of the row at one IPC."""
        return self.settings | self.by_ipc.get(str(ipc), {})

    def method(self, ipc: int | None) -> Method:
        """The method of the row at one IPC, with all its hyper-parameters."""
        notebook = self.chosen.network | _speed(self.chosen)
        values = {name: value for name, value in notebook.items() if name in self.known}
        for name, value in self.at(ipc).items():
            if name not in ROW or (name == "compat" and name in self.known):
                values[name] = value
        if ipc is not None:
            values["ipc"] = ipc
        return methods.build(self.kind.name, **values)

    def bytes_stored(self, method: Method) -> int | None:
        """Bytes of the generator that the row's method stores; None where it stores images."""
        try:
            return method.bytes_stored(self.data.shape, self.data.num_classes)
        except ValueError as error:
            raise ValueError(f"methods[{self.label!r}] on {self.data.name}: {error}") from error

    def cells(self, ipc: int | None, source: Mapping[str, str]) -> list[Cell]:
        """The cells of the row at one IPC, one for each network that it is tested on.

        Args:
            source: paper, table and parameters of the cells.
        """
        row, label, chosen, method = self.at(ipc), repr(self.label), self.chosen, self.method(ipc)
        self.bytes_stored(method)  # refuses what no generator can be, before anything is trained
        whitened = whitening(
            f"whitened of {label}", row.get("whitened", self.data.name in self.kind.whitened), self.kind
        )
        seeds = checked(f"seeds of {label}", row.get("seeds", chosen.seeds), PARAMETERS["seeds"])
        reported = checked(f"reported of {label}", row.get("reported", True), Parameter(bool))
        levels = {
            "the evaluation": _evaluation("the evaluation", chosen.evaluation, ipc),
            f"evaluation of {label}": _evaluation(f"evaluation of {label}", row.get("evaluation", {}), ipc),
            "the row": {"compat": row["compat"]} if "compat" in row else {},
        }
        usual = {"norm": method.norm, **chosen.network}
        found = []
        for tested_on, settings in protocols(self.kind.evaluation, levels, usual).items():
            cell = Cell(
                label=self.label,
                method=method,
                dataset=chosen.dataset,
                whitened=whitened,
                seeds=seeds,
                protocol=fill(Protocol, "the evaluation", _speed(chosen) | settings),
                reference_dataset=chosen.reference_dataset,
                tested_on=tested_on,
                reported=reported,
                **source,
            )
            if cell.deployed.get("redraw") is not None:
                try:
                    check_batches(cell.protocol.batch_size, self.data.num_classes * cell.ipc)
                except ValueError as error:
                    raise ValueError(f"{cell.label!r} at {cell.amount}: {error}") from error
            found.append(cell)
        return found


def _speed(chosen: SimpleNamespace) -> dict[str, Any]:
    return {"precision": chosen.precision, "compiled": chosen.compiled}


def _by_ipc(name: str, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """IPC as text -> what differs there; papermill makes text of the keys of a mapping, so that 10 and "10" are one."""
    differing = checked(f"by_ipc of {name}", settings.get("by_ipc", {}), Parameter(dict))
    return {str(ipc): checked(f"by_ipc of {name} at {ipc}", own, Parameter(dict)) for ipc, own in differing.items()}


def _evaluation(name: str, settings: Any, ipc: int | None) -> dict[str, Any]:
    """Settings of an evaluation, with what differs at this number of images laid over the rest."""
    settings = checked(name, settings, Parameter(dict))
    here = _by_ipc(name, settings).get(str(ipc), {})
    return {key: value for key, value in settings.items() if key != "by_ipc"} | here


def whitening(name: str, asked: Any, kind: type) -> bool | str:
    """What a row's `whitened` asks of `datasets.load`."""
    ways = {True: kind.whitening, False: False, "normalised": True, PIXELS: PIXELS}
    if not isinstance(asked, bool | str) or asked not in ways:
        raise ValueError(f"{name}={asked!r}; it must be true, false, normalised or {PIXELS}")
    return ways[asked]


def protocols(
    paper: Mapping[str, Any], levels: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Name of a network tested on -> settings of its protocol; the name is "" where there are no `networks`.

    Args:
        paper: the evaluation of the method's paper.
        levels: what it is called in errors -> settings of an evaluation, each laid over those before it; see `at`.
        usual: options of a ConvNet that nothing is said of.
    """
    for name, settings in levels.items():
        for network, own in checked(f"by_network of {name}", settings.get("by_network", {}), Parameter(dict)).items():
            checked(f"by_network of {name} at {network}", own, Parameter(dict))
            if wrong := [key for key in WHICH if key in own]:
                raise ValueError(f"by_network of {name} at {network} says {wrong[0]}; say that in networks")
    common = at([paper, *levels.values()], "")
    if "networks" not in common:
        networks = {"": {"network": common.get("network", Protocol.network), **common.get("options", {})}}
    elif common.keys() & {"network", "options"}:
        raise ValueError(f"the evaluation says networks and {min(common.keys() & {'network', 'options'})}; say one")
    else:
        networks = _checked_networks(common["networks"])
    for name, settings in levels.items():
        for unknown in settings.get("by_network", {}).keys() - networks.keys():
            known = ", ".join(filter(None, networks)) or "none, for there are no networks"
            raise ValueError(f"by_network of {name} speaks of {unknown!r}; allowed: {known}")
    found = {}
    for name, entry in networks.items():
        settings = at([paper, *levels.values()], name)
        options = (usual if entry["network"] == "convnet" else {}) | entry
        found[name] = {key: value for key, value in settings.items() if key not in WHICH}
        found[name] |= {"network": options.pop("network"), "options": options}
    return found


def at(levels: Iterable[Mapping[str, Any]], network: str) -> dict[str, Any]:
    """Settings of an evaluation as they are for one network.

    Args:
        levels: each laid over those before it; what a level's "by_network" says of the network, over that level.
        network: name of the network tested on.
    """
    settings: dict[str, Any] = {}
    for level in levels:
        settings |= level | level.get("by_network", {}).get(network, {})
    settings.pop("by_network", None)
    return settings


def _checked_networks(networks: Any) -> Mapping[str, Mapping[str, Any]]:
    checked("networks of the evaluation", networks, Parameter(dict, filled=True))
    for name, entry in networks.items():
        if not name or not isinstance(name, str) or not isinstance(entry, Mapping) or "network" not in entry:
            raise ValueError(f"networks[{name!r}]={entry!r}; it must be a mapping, such as {{'network': 'vgg11'}}")
        known = models.options_of(entry["network"])
        for option in entry.keys() - {"network", *known}:
            raise ValueError(f"unknown option {option!r} of networks[{name!r}]; known: {', '.join(known)}")
    return networks
