"""How many images pass a network together."""

import torch
from torch import Tensor

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
