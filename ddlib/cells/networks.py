"""The protocols of a row: one for each network that it is tested on."""

from collections.abc import Mapping
from typing import Any

from ddlib import models
from ddlib.evaluate import Protocol
from ddlib.settings import Parameter, checked


def protocols(told: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
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
