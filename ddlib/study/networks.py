"""The protocols of a row: one for each network that it is tested on."""

from collections.abc import Iterable, Mapping
from typing import Any

from ddlib import models
from ddlib.evaluation import Protocol
from ddlib.study.parameters import Parameter, checked

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
