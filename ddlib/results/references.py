"""The entries of a paper's file: a reported number, a claim."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
