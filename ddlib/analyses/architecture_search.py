"""Architecture search with distilled sets in the place of all data (DC, DM, DataDAM; ATOM's abstract names it).

`space` gives the networks, `search` trains them, `correlations` says how well a cheap ranking of them agrees with that
on all data, and how sure that is.

Kendall's tau-b is the cosine of the signs S_ij = sign(a_i - a_j) and those of the full data, Spearman's rho that of
their row sums (Daniels 1944): all draws of a bootstrap are a few products of matrices, where scipy.stats would be
called for each.  Ties are zeros, and a network drawn twice is tied with itself.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from ddlib import models, results
from ddlib.data import datasets
from ddlib.results.statistics import ZERO, Sample, welch
from ddlib.seeding import generator
from ddlib.store import artefacts
from ddlib.store.artefacts import Workplace, holder
from ddlib.study import work
from ddlib.study.rows import Cell

FACTORS: Mapping[str, tuple] = MappingProxyType(
    {
        "depth": (1, 2, 3, 4),
        "width": (32, 64, 128, 256),
        "activation": ("sigmoid", "relu", "leaky_relu"),
        "norm": ("none", "batch", "layer", "instance", "group"),
        "pooling": ("none", "max", "avg"),
    }
)
"""Factor -> its values: 4 * 4 * 3 * 5 * 3 = 720 networks.

The values are the switches of the published code of DC, DSA and DM, the number is FTD's.
"""

KINDS = ("spearman", "kendall")
LEAST = 3
"""Networks that a correlation needs."""

TOP_SHARE, TOP = 0.2, 10
RESAMPLES = 1000

Task = tuple[Cell, int]
"""A cell whose protocol has the network in question, and a seed."""


@dataclass(frozen=True)
class Architecture:
    """One ConvNet of the space; the factors are options of `ddlib.models.networks.ConvNet`."""

    depth: int
    width: int
    activation: str
    norm: str
    pooling: str

    @property
    def name(self) -> str:
        """As tables and figures call it, such as "d3-w64-relu-batch-max"."""
        return f"d{self.depth}-w{self.width}-{self.activation}-{self.norm}-{self.pooling}"


def space(values: Mapping[str, Sequence] = MappingProxyType({})) -> tuple[Architecture, ...]:
    """The networks with the given values of the factors, the first factor slowest; all 720 where nothing is given.

    Args:
        values: factor -> its values, in any order; factors left out have all those of `FACTORS`.
    """
    for factor, chosen in values.items():
        if factor not in FACTORS:
            raise ValueError(f"unknown factor {factor!r} of the space; known: {', '.join(FACTORS)}")
        if not isinstance(chosen, list | tuple) or not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(f"space[{factor!r}]={chosen!r}; it must be a list of values, each of them once")
        for value in chosen:
            _check_value(factor, value)
    return tuple(Architecture(*levels) for levels in itertools.product(*(FACTORS | dict(values)).values()))


def _check_value(factor: str, value: Any) -> None:
    """Refuse what no ConvNet takes, in the words of the network."""
    kind = type(FACTORS[factor][0])
    if type(value) is not kind:
        raise ValueError(f"space[{factor!r}] has {value!r}; it must be {kind.__name__}, such as {FACTORS[factor][1]!r}")
    try:
        models.build("convnet", shape=(1, 64, 64), num_classes=2, **{"depth": 1, "width": 4, factor: value})
    except ValueError as error:
        raise ValueError(f"space[{factor!r}] has {value!r}: {error}") from error


class Interval(NamedTuple):
    """A value with its interval of 95 %; nan where it is undefined, as where all accuracies are equal."""

    value: float
    low: float
    high: float


def levels(full: Sequence[float]) -> dict[str, np.ndarray]:
    """Name -> positions of the networks among which correlations are reported, those with too few left out.

    "all"; "top 20 %" (rounded up) and "top 10" by the accuracy on all data, with networks that tie with the last one.
    """
    full = np.asarray(full, dtype=float)
    positions = {"all": np.arange(len(full))}
    for name, count in (("top 20 %", math.ceil(TOP_SHARE * len(full))), (f"top {TOP}", TOP)):
        if LEAST <= count < len(full):
            positions[name] = np.flatnonzero(full >= np.sort(full)[-count])
    return positions


def targets(repeats: Sequence[Sequence[float]]) -> np.ndarray:
    """(S, n): what is ranked against, for each repeat on all data the mean of the others; a single one as it is.

    A repeat may not be in what it is ranked by, and a set is judged on the same targets, which hold the same noise.
    """
    table = np.asarray(repeats, dtype=float)
    if len(table) < 2:
        return table
    return np.stack([np.delete(table, i, axis=0).mean(0) for i in range(len(table))])


def correlations(
    accuracies: Mapping[str, np.ndarray], reference: str, *, baseline: str | None = None
) -> list[dict[str, Any]]:
    """Agreement with the full ranking for each proxy, among all networks and the best: rows of plain values.

    Args:
        accuracies: label -> (S, n).
        reference: the label of the whole data, whose repeats rank: `targets`.
        baseline: the label to which the others are compared; None: to none.

    Returns:
        Rows of "method", "among", "networks" (the fewest, where targets have different ties), "kind", "value", "low",
        "high", "searches", "gain", "gain_low" and "gain_high" (over the baseline; None where undefined), one for each
        label, level and kind.  The reference's, left out where it was not repeated, say how well its repeats agree.
    """
    goals = targets(accuracies[reference])
    each = {
        (label, among, kind): coefficients(table, goals, kind, among=among, own=label == reference)
        for label, table in accuracies.items()
        for among, kind in itertools.product(levels(goals[0]), KINDS)
    }
    rows = []
    for (label, among, kind), own in each.items():
        if label == reference and len(own) < 2:
            continue
        fewest = min(len(levels(goal)[among]) for goal in goals)
        row = {"method": label, "among": among, "networks": fewest, "kind": kind, "searches": len(own)}
        gain = None if baseline in (None, label) else interval(own, each[baseline, among, kind])
        rows.append(row | _columns(("value", "low", "high"), interval(own)))
        rows[-1] |= _columns(("gain", "gain_low", "gain_high"), gain)
    return rows


def _columns(names: Sequence[str], bounds: Interval | None) -> dict[str, float | None]:
    """The interval as columns, rounded; None where it is undefined."""
    columns = zip(names, bounds or (math.nan,) * 3, strict=True)
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in columns}


def coefficients(
    searches: Sequence[Sequence[float]],
    full: Sequence[float] | Sequence[Sequence[float]],
    kind: str = "spearman",
    *,
    among: str = "all",
    seed: int = 0,
    own: bool = False,
) -> np.ndarray:
    """The rank correlation of each search with the full ranking, and in every bootstrap draw of networks.

    Networks are drawn from all with replacement, the same for all calls with equal n and seed; those `among` count as
    often as they were drawn.

    Args:
        searches: (S, n) accuracies, one row a search.
        full: (n,) accuracies on all data, or (T, n) of `targets`, over which correlations are averaged.
        kind: "spearman" (rho) or "kendall" (tau-b).
        among: one of `levels`, for each target by its own accuracies.
        own: search i has target i alone.

    Returns:
        (S, 1 + RESAMPLES) in [-1, 1]; nan where all accuracies that count are equal.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of correlation; known: {', '.join(KINDS)}")
    tables, goals = np.asarray(searches, dtype=float), np.atleast_2d(np.asarray(full, dtype=float))
    n = goals.shape[1]
    if n < LEAST:
        raise ValueError(f"{n} networks to correlate; at least {LEAST} are needed")
    if tables.ndim != 2 or tables.shape[1] != n or not len(tables):
        raise ValueError(f"accuracies of shape {tables.shape} beside {n} of the full data; allowed: as many")
    if not (np.isfinite(tables).all() and np.isfinite(goals).all()):
        raise ValueError("accuracies hold values that are not finite")
    drawn = torch.randint(n, (RESAMPLES, n), generator=generator(seed, "bootstrap", "networks", n)).numpy()
    counts = np.stack([np.ones(n), *(np.bincount(draw, minlength=n) for draw in drawn)])
    chosen = [levels(goal)[among] for goal in goals]
    rows = []
    for i, table in enumerate(tables):
        each = []
        for goal, positions in [(goals[i], chosen[i])] if own else zip(goals, chosen, strict=True):
            each.append(_weighted(table[positions], goal[positions], counts[:, positions], kind))
        rows.append(np.mean(each, axis=0))
    return np.stack(rows)


def _weighted(ours: np.ndarray, full: np.ndarray, counts: np.ndarray, kind: str) -> np.ndarray:
    """The coefficient with each network counted as often as each row of `counts` (B, n) says: (B,)."""
    s, t = (np.sign(values[:, None] - values[None, :]) for values in (ours, full))
    if kind == "spearman":
        a, b = counts @ s.T, counts @ t.T
        products = [(counts * x).sum(1) for x in (a * b, a * a, b * b)]
    else:
        products = [((counts @ x) * counts).sum(1) for x in (s * t, s * s, t * t)]
    scale = np.sqrt(products[1] * products[2])
    return np.divide(products[0], scale, out=np.full(len(counts), math.nan), where=scale > 0)


def interval(each: np.ndarray, baseline: np.ndarray | None = None) -> Interval:
    """Mean of the `coefficients` of several searches, or its difference to that of others, with its interval.

    The interval has two parts, whose half-widths add in quadrature.  Of the networks: the percentile interval of their
    bootstrap; draws in which a correlation is undefined are left out.  Of the searches (draws, seeds): Student's t,
    since so few of them cannot be drawn from; nothing where there is one.  The full ranking is taken as it is.

    Args:
        each, baseline: as `coefficients` gives them.  They are compared search by search where there are as many, for
            these begin from the same seeds.
    """
    limit = 1 if baseline is None else 2
    if baseline is not None and len(each) == len(baseline):
        each, baseline = each - baseline, None
    means = each.mean(0) - (0 if baseline is None else baseline.mean(0))
    value, drawn = float(means[0]), means[1:][np.isfinite(means[1:])]
    if not len(drawn) or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    by_search = welch(_sample(each[:, 0]), ZERO if baseline is None else _sample(baseline[:, 0]))
    half = (by_search.high - by_search.low) / 2
    below, above = math.hypot(max(value - low, 0), half), math.hypot(max(high - value, 0), half)
    return Interval(value, max(-limit, value - below), min(limit, value + above))


def _sample(values: np.ndarray) -> Sample:
    """Of one search nothing is known of the spread: it is taken as it is."""
    return Sample.of([*map(float, values)]) if len(values) > 1 else Sample(float(values[0]), None, 1)


def winners(accuracies: Sequence[float]) -> np.ndarray:
    """Positions of the most accurate networks; several where they tie."""
    return np.flatnonzero(np.asarray(accuracies) == np.max(accuracies))


def winner_accuracies(searches: np.ndarray, goals: np.ndarray) -> list[float]:
    """Of the network that each search (n,) finds, the accuracy by its goal (n,); the mean of winners that tie."""
    return [float(goal[winners(search)].mean()) for search, goal in zip(searches, goals, strict=True)]


@dataclass(frozen=True)
class Search:
    """What a search came to.

    architectures: the networks, in order.
    accuracies: label -> (S, n) percent, a row for each seed; means over the networks' initial weights.
    reference: the label of the whole data.
    spent: label -> "seconds" (training and testing all networks, per seed), "distil_seconds" (per seed), "images" and
        "bytes" stored, and "updates" of one network.
    provenance: where the accuracies come from.
    """

    architectures: tuple[Architecture, ...]
    accuracies: Mapping[str, np.ndarray]
    reference: str
    spent: Mapping[str, Mapping[str, float]]
    provenance: Mapping[str, Any]

    @property
    def full(self) -> np.ndarray:
        """(n,) accuracies on all data, by which networks are ranked: means over its repeats."""
        return self.accuracies[self.reference].mean(0)

    def networks(self) -> list[dict[str, Any]]:
        """A row for each network: "network", and its mean accuracy by each label."""
        means = {label: table.mean(0) for label, table in self.accuracies.items()}
        return [
            {"network": architecture.name} | {label: round(float(mean[i]), 3) for label, mean in means.items()}
            for i, architecture in enumerate(self.architectures)
        ]

    def winners(self) -> list[dict[str, Any]]:
        """A row for each label: "method", the network that each seed finds ("found"), its "accuracy" on all data as a
        mean over the seeds, "least" and "most" of them, and the cost.

        A search selects on test data: networks are ranked by, and then judged by, the same test images.  The winner of
        a repeat on all data is judged by the other repeats: by a mean that holds it, it would be the maximum of its own
        noise.
        """
        rows = []
        for label, table in self.accuracies.items():
            goals = targets(table) if label == self.reference else [self.full] * len(table)
            reached = winner_accuracies(table, goals)
            accuracy = {"accuracy": float(np.mean(reached)), "least": min(reached), "most": max(reached)}
            names = [self.architectures[winners(search)[0]].name for search in table]
            rows.append({"method": label, "found": names} | {k: round(v, 3) for k, v in accuracy.items()})
            rows[-1] |= self.spent[label]
        return rows


def reference_of(cells: Sequence[Cell]) -> Cell:
    """The one cell that trains on all data, whose ranking counts; the others must be of one data set and one IPC."""
    whole = [cell for cell in cells if cell.ipc is None and cell.protocol.epoch_images is None]
    if len(whole) != 1:
        labels = ", ".join(repr(cell.label) for cell in whole) or "none"
        raise ValueError(f"{labels} of the cells trains on all data; a search needs one: {{'method': 'whole'}}")
    proxies = [cell for cell in cells if cell.ipc is not None]
    for name, values in (
        ("data set", [cell.dataset for cell in proxies + whole]),
        ("number of images", [cell.amount for cell in proxies]),
    ):
        if len(different := dict.fromkeys(values)) > 1:
            raise ValueError(f"proxies differ in their {name}: {', '.join(map(str, different))}; allowed: one")
    return whole[0]


def search(cells: Sequence[Cell], architectures: Sequence[Architecture], workplace: Workplace) -> Search:
    """Train and test every network on every set: from the store where that is done, else now.

    Each result is the evaluation of the cell with that network: a search that was killed goes on with what is missing,
    and several processes share one; what another process trains comes last.

    Args:
        cells: one of them the whole data (`reference_of`), the others proxies; the network of their protocols is
            replaced by each of the space.
        architectures: at least three.
    """
    reference = reference_of(cells)
    if len(architectures) < LEAST:
        raise ValueError(f"{len(architectures)} networks in the space; a ranking needs at least {LEAST}")
    every = tasks(cells, architectures)
    with workplace.watch("architecture search", len(every), unit="training") as report:
        trainings = artefacts.in_turn(every, lambda task: holder(work.Accuracies(*task, workplace).lock))
        for done, task in enumerate(trainings, 1):
            work.evaluated(*task, workplace)
            report(done)
    return _from_store(cells, architectures, reference, workplace)


def tasks(cells: Sequence[Cell], architectures: Sequence[Architecture]) -> list[Task]:
    """Every network on every set: the cells with the network in place of their own, seed by seed."""
    return [
        (replace(cell, protocol=replace(cell.protocol, network="convnet", options=asdict(architecture))), seed)
        for architecture in architectures
        for cell in cells
        for seed in cell.seeds
    ]


def missing(tasks: Sequence[Task], workplace: Workplace) -> list[Task]:
    """The tasks whose result the store does not have."""
    return [task for task in tasks if not work.Accuracies(*task, workplace).finished()]


def _from_store(
    cells: Sequence[Cell], architectures: Sequence[Architecture], reference: Cell, workplace: Workplace
) -> Search:
    """The results of a search, all of which the store has."""
    accuracies, spent, sittings = {}, {}, []
    for cell in cells:
        table = [[work.evaluated(*task, workplace) for task in tasks([cell], [network])] for network in architectures]
        every = [record for row in table for record in row]
        accuracies[cell.label] = np.array([[np.mean(record["accuracies"]) for record in row] for row in table]).T
        sittings += [sitting["provenance"] for record in every for sitting in record["sittings"]]
        distilled = [work.distillation_record(cell, seed, workplace) for seed in cell.seeds]
        count = datasets.describe(cell.dataset).num_classes * cell.ipc if cell.ipc else None
        spent[cell.label] = {
            "seconds": round(sum(record["seconds"] for record in every) / len(cell.seeds), 2),
            "distil_seconds": round(sum(record["seconds"] for record in distilled) / len(distilled), 2),
            "images": count or len(work.real_set(cell, "train", workplace)),
            "bytes": distilled[0]["bytes_stored"],
            "updates": every[0]["updates"],
        }
    return Search(tuple(architectures), accuracies, reference.label, spent, results.joined(sittings))


def outlook(cells: Sequence[Cell], architectures: Sequence[Architecture], workplace: Workplace) -> str:
    """How much of a `search` is in the store and how much is to be made: one line; no step is taken to learn it."""
    reference_of(cells)
    every = tasks(cells, architectures)
    to_train = missing(every, workplace)
    distillations = {path for cell in cells for path in work.missing(cell, workplace).distil}
    return (
        f"{len(architectures)} networks on {sum(len(cell.seeds) for cell in cells)} sets: {len(every)} trainings by "
        f"{cells[0].protocol.num_networks}, {len(every) - len(to_train)} of them in the store; to do: "
        f"{len(distillations)} distillations and {len(to_train)} trainings"
    )
