"""How images pass a network: how many together, under which parameters, and compiled."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

PASS_ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
"""Largest map (images x channels x height x width) of one pass: 32 images of 128 x 32 x 32 on a CPU.

There, passes whose activations stay in the cache are faster than a whole mini-batch (1.1 to 1.3 times).  On a GPU it
only bounds the memory: the largest map takes 1 GiB.
"""


def most(elements: int, device: torch.device) -> int:
    """Images that fit into one pass, at least 1, where the largest map of one image has `elements`."""
    return max(1, PASS_ELEMENTS.get(device.type, PASS_ELEMENTS["cpu"]) // elements)


def size(batch: int, elements: int, device: torch.device) -> int:
    """Images in a pass of a batch whose images do not depend on one another.

    The whole batch where it fits; else its largest divisor that fits, so that all passes have one size, unless that is
    less than half of what fits.
    """
    fit = most(elements, device)
    if batch <= fit:
        return batch
    divisor = max(part for part in range(1, fit + 1) if batch % part == 0)
    return divisor if 2 * divisor >= fit else fit


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it came in less: powers, norms and means need the digits."""
    return x if x.dtype == torch.float64 else x.float()


class Flat:
    """A network whose parameters come as one vector: logits = flat(theta, images).

    The order is that of `network.named_parameters()`.  Differentiable in theta and in the images, any number of times,
    and open to `torch.vmap`, `torch.func` and `torch.compile`.

    Args:
        network: gives the shapes alone; its own values are not used, so it may lie on the meta device.

    Raises:
        ValueError: the network keeps running statistics, which a vector of parameters does not carry.
    """

    def __init__(self, network: nn.Module):
        if any(True for _ in network.buffers()):
            raise ValueError(
                "the network has running statistics, which a trajectory of parameters does not carry; "
                "take norm 'instance', 'layer', 'group' or 'none'"
            )
        self.network = network.to("meta")
        self.shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, K) of `images` (B, C, H, W) under the parameters `theta` (P,)."""
        return functional_call(self.network, self.named(theta), (images,))

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The vector (P,) as views with the shapes of the parameters, by name."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def vector(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The named parameters, such as those of a network of the same kind, as one new vector (P,)."""
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.shapes])


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
