"""In what a cell is not its paper's, and what its paper whitens."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ddlib import results
from ddlib.evaluation import Protocol
from ddlib.study.rows import NETWORK, Cell, for_network, whitening

SPEED = (
    *("precision", "expert_precision", "compiled", "at_once", "num_networks"),
    *("shard", "kept_epochs", "chunk", "checkpointed"),
)
"""Settings that change how fast, how often or in what parts, not what: a cell that differs in them alone is the
paper's cell."""


def deviations(cell: Cell) -> list[str]:
    """In what a cell differs from its paper's setting, one short phrase each; empty if it is the paper's cell.

    The paper's setting is what its file states for the cell, and the method's and the protocol's defaults for the rest.
    """
    place = {"method": cell.method.name, "dataset": cell.reference_dataset, "ipc": cell.ipc}
    place |= {"condition": cell.condition} if cell.condition else {}
    stated = results.published(cell.paper, **place)
    kind = type(cell.method)
    whitened = whitening("whitened", stated.pop("whitened", cell.reference_dataset in kind.whitened), kind)
    protocol = Protocol(**for_network([kind.evaluation, stated.pop("evaluation", {})], cell.tested_on))
    phrases = []
    if cell.dataset != cell.reference_dataset:
        phrases.append(f"{cell.dataset} instead of {cell.reference_dataset}")
    if cell.whitened != whitened:
        ways = {False: "not whitened", True: "whitened" + " after normalisation" * bool(whitened)}
        phrases.append(ways.get(cell.whitened, "whitened without normalisation"))
    defaults = kind() if cell.ipc is None else kind(ipc=cell.ipc)
    phrases += _differences("", asdict(cell.method), asdict(defaults) | stated)
    ours, paper = asdict(cell.protocol), asdict(protocol) | {"norm": cell.method.norm}
    options = {key: value for key, value in ours.pop("options").items() if key not in asdict(cell.method)}
    if cell.tested_on:  # what the name stands for is no deviation; how wide the notebook makes its ConvNets may be
        options = {key: options[key] for key in NETWORK if key in options and ours["network"] == "convnet"}
        del ours["network"]
    return phrases + _differences("evaluation ", options | ours, paper)


def _differences(where: str, ours: Mapping[str, Any], paper: Mapping[str, Any]) -> list[str]:
    """A phrase for each setting of ours that is not the paper's; what changes speed alone does not count."""
    unset = {"compat": "none", "ema": "none", "labels": "those stored"}
    return [
        f"{where}{name} {value} (default: {unset.get(name, 'by data') if paper.get(name) is None else paper[name]})"
        for name, value in ours.items()
        if value != paper.get(name) and name not in SPEED
    ]
