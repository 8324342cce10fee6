"""K-Center (Sener & Savarese 2018, greedy): real images that leave no other image far from its nearest one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddlib.methods import _selection as selection


def k_center(vectors: Tensor, count: int) -> Tensor:
    """Positions of `count` vectors chosen by greedy k-center.

    The first is the one nearest to the mean; then, again and again, the one whose distance to its nearest chosen
    vector is largest.

    Args:
        vectors: (N, F), the embeddings of one class.
        count: 1..N.

    Returns:
        (count,) int64, in the order of choice.
    """
    chosen = [(vectors - vectors.mean(0)).square().sum(1).argmin()]
    nearest = torch.full_like(vectors[:, 0], torch.inf)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (vectors - vectors[chosen[-1]]).square().sum(1))
        nearest[chosen[-1]] = -1.0
        chosen.append(nearest.argmax())
    return torch.stack(chosen)


@dataclass(frozen=True, kw_only=True)
class KCenter(selection.Coreset):
    """The greedy k-center coreset of each class, in an embedding trained on the real set or in pixels.

    ipc: images per class, >= 1.
    space: "embedding" (features of `ddlib.pretraining.classifier.Embedding`) or "pixels".
    width, depth, epochs: of the embedding network and its training.

    Deviation: the papers' extractor is not stated; see `Embedding`.
    """

    name: ClassVar[str] = "k_center"
    version: ClassVar[int] = 1

    def choose(self, vectors: Tensor) -> Tensor:
        """`k_center` within one class."""
        return k_center(vectors, self.ipc)
