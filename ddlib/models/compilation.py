"""How the passes of networks are compiled, for matching and evaluation alike."""

from collections.abc import Callable
from typing import Any

import torch

_SETTINGS = {"fullgraph": True, "dynamic": False, "recompile_limit": 64, "isolate_recompiles": True}
"""Whole graphs, and an error rather than uncompiled code; one graph for each size of a pass."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` through `torch.compile`: the first call of each size takes up to a minute.

    A CPU needs a C++ compiler; where there is none, and wherever a graph cannot be compiled whole, torch's error is
    raised: nothing falls back to the uncompiled function.
    """
    return torch.compile(function, **_SETTINGS)
