"""The methods of distillation, one file a family, and what they share.

`Method` says what a method is: hyper-parameters and three verbs, `start`, `step` and `finish`.  The families:
`feature_matching` (DM, DataDAM, ATOM), `gradient_matching` (DC, DSA), `trajectory_matching` (MTT, TESLA, FTD, DATM),
`generative` (GAN, DiM), `latent` (LD3M, GLaD) and `coresets` (Random, Herding, K-Center, Whole).  A method in a new
file of this package is found by its class; no list has to be edited.
"""

import dataclasses
import importlib
import pkgutil
from functools import cache
from typing import Any

from ddlib.methods.contract import Method, fill
from ddlib.methods.coresets import Herding, KCenter, Random, Whole
from ddlib.methods.feature_matching import ATOM, DM, DataDAM
from ddlib.methods.generative import DiM, PlainGan
from ddlib.methods.gradient_matching import DC, DSA
from ddlib.methods.latent import LD3M, GLaD
from ddlib.methods.trajectory_matching import DATM, FTD, MTT, TESLA


@cache
def discover() -> dict[str, type[Method]]:
    """Method name -> class: every `Method` with a name of its own, in all modules of this package."""
    kinds = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{info.name}")
            own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
            methods = [value for value in own if isinstance(value, type) and issubclass(value, Method)]
            kinds |= {kind.name: kind for kind in methods if "name" in vars(kind)}
    return dict(sorted(kinds.items()))


def find(name: str) -> type[Method]:
    """The class of the method `name`; a ValueError where there is none."""
    known = discover()
    if name not in known:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(known)}")
    return known[name]


def hyperparameters(kind: type) -> tuple[str, ...]:
    """Names of the hyper-parameters of a method's class, `ipc` among them where it has it."""
    return tuple(field.name for field in dataclasses.fields(kind))


def build(name: str, **settings: Any) -> Method:
    """The method `name` with the given hyper-parameters; the rest keep the paper's values.

    Raises:
        ValueError: unknown method or hyper-parameter (the known ones are listed), or a value out of its range.
    """
    return fill(find(name), f"method {name!r}", settings)
