"""Random tensors whose numbers a seed decides."""

import torch


def seeded(seed=0):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=7, dtype=torch.float32):
    """Standard normal values."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)
