"""How the passes of networks are compiled, for matching and evaluation alike."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

MOST_GRAPHS = 64
"""Graphs of one function, one for each size of a pass, before torch refuses to compile another."""

_SETTINGS: dict[str, Any] = {"fullgraph": True, "dynamic": False}
_NEWER = {"recompile_limit": MOST_GRAPHS, "isolate_recompiles": True}


def compiled(function: Callable[..., Any], *, draws: bool = False) -> Callable[..., Any]:
    """`function` through `torch.compile`: the first call of each size takes up to a minute.

    A CPU needs a C++ compiler; where there is none, and wherever a graph cannot be compiled whole, torch's error is
    raised: nothing falls back to the uncompiled function.  The limit on graphs is an argument of newer versions of
    torch; in older ones it is a setting of the process, raised here.

    Args:
        draws: whether `function` draws from the global random state, as dropout does.  It then draws the numbers that
            it draws uncompiled; compiled kernels would draw others.
    """
    if draws:
        return torch._inductor.config.patch(fallback_random=True)(compiled(function))
    if _NEWER.keys() <= inspect.signature(torch.compile).parameters.keys():
        return torch.compile(function, **_SETTINGS, **_NEWER)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_GRAPHS)
    return torch.compile(function, **_SETTINGS)
