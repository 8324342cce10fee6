"""Independent random streams from one integer seed and a name."""

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """Seed of the stream `names` under `seed`: the first 63 bits of a SHA-256.

    Streams of different names are independent, so a new consumer of randomness shifts no other, and a step's
    stream needs no stored state: `derive(seed, "network", step)` is the same before and after a resume.

    Args:
        seed: any integer.
        names: what the stream is for, e.g. ("augmentation", 17).  ("a", "b") and ("ab",) are different streams.

    Returns:
        An integer in [0, 2**63).
    """
    text = repr((int(seed), *names)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh `torch.Generator` on `device`, seeded with `derive(seed, *names)`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextlib.contextmanager
def scoped(seed: int, *names: str | int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch inside the block, and restore them afterwards.

    For code that takes no generator, such as dropout.  CUDA generators are seeded and restored where CUDA is in use.
    """
    value = derive(seed, *names)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.manual_seed(value)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
