"""Herding (Welling 2009): real images whose mean embedding follows the class mean."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddlib.methods import _selection as selection


def herd(vectors: Tensor, count: int) -> Tensor:
    """Positions of `count` vectors chosen by herding.

    With mu the mean of all, the t-th choice is the unused i that minimises || t mu - sum of the chosen - u_i ||.

    Args:
        vectors: (N, F), the embeddings of one class.
        count: 1..N.

    Returns:
        (count,) int64, in the order of choice.

    Deviation: a widely used coreset library takes the maximum of that distance, which picks outliers instead.
    """
    missing, chosen = torch.zeros_like(vectors[0]), []
    free = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    mean = vectors.mean(0)
    for _ in range(count):
        missing = missing + mean
        distance = (missing - vectors).square().sum(1).masked_fill(~free, torch.inf)
        chosen.append(distance.argmin())
        free[chosen[-1]] = False
        missing = missing - vectors[chosen[-1]]
    return torch.stack(chosen)


@dataclass(frozen=True, kw_only=True)
class Herding(selection.Coreset):
    """The herding coreset of each class, in an embedding trained on the real set or in pixels.

    ipc: images per class, >= 1.
    space: "embedding" (features of `ddlib.pretraining.classifier.Embedding`) or "pixels".
    width, depth, epochs: of the embedding network and its training.

    Deviation: the papers' extractor is not stated; see `Embedding`.
    """

    name: ClassVar[str] = "herding"
    version: ClassVar[int] = 1

    def choose(self, vectors: Tensor) -> Tensor:
        """`herd` within one class."""
        return herd(vectors, self.ipc)
