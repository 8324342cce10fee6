"""What a training changes: found in a dataclass field by field, saved to a checkpoint and brought back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


@dataclass
class State:
    """Base of a dataclass whose tensors, networks and optimisers are changed step by step.

    Saved are, by the name of the field: tensors, dictionaries of tensors, networks, the moments of optimisers, other
    states, and the `counters`; nothing else.

    counters: fields with an integer that steps change.
    fixed: fields that no step changes, which need not be saved.
    """

    counters: ClassVar[tuple[str, ...]] = ("step",)
    fixed: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a step changes, as named tensors: "images", "network.classifier.weight", "adam.0.exp_avg"."""
        tensors = {}
        for name, value in self._saved():
            if isinstance(value, int):
                tensors[name] = torch.tensor(value)
            elif isinstance(value, Tensor):
                tensors[name] = value.detach()
            else:
                optimizer = isinstance(value, torch.optim.Optimizer)
                inside = _moments(value) if optimizer else value if isinstance(value, dict) else value.state_dict()
                tensors |= {f"{name}.{key}": tensor.detach() for key, tensor in inside.items()}
        return tensors

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave, to the same bits; KeyError or RuntimeError where it does not fit."""
        for name, value in self._saved():
            own = {key.removeprefix(f"{name}."): t for key, t in saved.items() if key.startswith(f"{name}.")}
            if isinstance(value, int):
                setattr(self, name, int(saved[name]))
            elif isinstance(value, Tensor):
                setattr(self, name, _restored(value, saved[name]))
            elif isinstance(value, dict):
                value.update({key: _restored(tensor, own[key]) for key, tensor in value.items()})
            elif isinstance(value, torch.optim.Optimizer):
                _load_moments(value, own)
            else:
                value.load_state_dict(own)

    def _saved(self) -> Iterator[tuple[str, Any]]:
        kinds = (Tensor, dict, nn.Module, torch.optim.Optimizer, State)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in self.counters or (isinstance(value, kinds) and field.name not in self.fixed):
                yield field.name, value


def _restored(tensor: Tensor, saved: Tensor) -> Tensor:
    """`tensor` with the saved values, in place; an empty one is replaced, whatever the shape."""
    return tensor.copy_(saved) if tensor.numel() else saved.to(tensor.device)


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts, "number of the parameter.name"; none before the first step."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    return {f"{i}.{key}": t for i, state in enumerate(states) for key, t in state.items() if isinstance(t, Tensor)}


def _load_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Give an optimiser what `_moments` gave: in the memory format of each parameter; steps are counted on the CPU."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        optimizer.state.pop(parameter, None)
    for name, tensor in saved.items():
        number, _, key = name.partition(".")
        parameter = parameters[int(number)]
        like = tensor.clone().cpu() if key == "step" else torch.empty_like(parameter).copy_(tensor)
        optimizer.state[parameter][key] = like
