"""The methods of distillation, one module each, and what a method is.

A method is a frozen dataclass of its hyper-parameters under the paper's names, keyword-only, with the paper's main
setting as defaults.  It has three verbs:

- `start(train, prerequisites, seed) -> state`: everything that changes is in the state, which has `step`,
  `state_dict()` (named tensors, from which a killed run goes on to the same bits) and `load_state_dict()`.
- `step(state) -> metrics`: one outer update, in place; metrics are tensors or floats, read seldom.
- `finish(state) -> SyntheticSet | SyntheticStream`: the last iterate, never the one that scored best on test data.

Besides its hyper-parameters it states `name`, `version` (raised when its numbers change), `iterations` (how many steps
it takes), `needs` (name -> builder of an artefact made beforehand, itself with start, step and finish) and `whitened`
(the data sets that its paper ZCA-whitens).  It may state `whitening` ("pixels" where these are not normalised before),
`evaluation` (settings of the evaluation that are its paper's, where they are not the protocol's), `rehearsal`
(itself in a form whose steps, of equal cost, can be taken with untrained artefacts), `deployment` (those of its
hyper-parameters that decide nothing of what is distilled, only how it is used: fields of its `SyntheticStream` of the
same names, set when it is read; cells that differ in them alone share one distillation), `bytes_stored(shape,
num_classes)` (of the generator that it stores) `condition` (which of the rows that its paper reports under its name
it is, such as the loss that it matches by) and `found` (what decides its numbers besides the settings: a fingerprint of
files that it reads).  One without the hyper-parameter `ipc` takes the whole training set.  It
does no I/O, sees no test data, and draws from named streams of the seed alone.
A new module in this package is found by its dataclass; no list has to be edited.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.methods.settings import fill


class Method(Protocol):
    """The contract stated above."""

    name: str
    version: int
    iterations: int
    whitened: tuple[str, ...]

    @property
    def needs(self) -> Mapping[str, Any]: ...

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Any: ...

    def step(self, state: Any) -> Mapping[str, Any]: ...

    def finish(self, state: Any) -> SyntheticSet | SyntheticStream: ...


@cache
def discover() -> dict[str, type]:
    """Method name -> dataclass, from every module of this package whose name has no leading underscore."""
    found = {}
    for info in pkgutil.iter_modules(__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "finish"):
                found[value.name] = value
    return dict(sorted(found.items()))


def find(name: str) -> type:
    """The dataclass of the method `name`.

    Raises:
        ValueError: unknown; the known ones are listed.
    """
    known = discover()
    if name not in known:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(known)}")
    return known[name]


def hyperparameters(kind: type) -> tuple[str, ...]:
    """Names of the hyper-parameters of a method's dataclass, `ipc` among them where it has it."""
    return tuple(field.name for field in dataclasses.fields(kind))


def build(name: str, **settings: Any) -> Method:
    """The method `name` with the given hyper-parameters; the rest keep the paper's values.

    Raises:
        ValueError: unknown method or hyper-parameter (the known ones are listed), or a value out of its range.
    """
    return fill(find(name), f"method {name!r}", settings)
