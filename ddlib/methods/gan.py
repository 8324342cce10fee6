"""GAN: the generator of plain adversarial training, which DiM begins with and is measured against."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticStream
from ddlib.methods._generative import Generative, stream
from ddlib.pretraining.gan import Pair


@dataclass
class Taken:
    """State: the trained GAN, and whether it was taken.

    step: 0 or 1.
    """

    pair: Pair
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """The step."""
        return {"step": torch.tensor(self.step)}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = int(saved["step"])


@dataclass(frozen=True, kw_only=True)
class PlainGan(Generative):
    """The GAN of DiM's stage A as it is: no network of a pool is matched."""

    name: ClassVar[str] = "gan"
    version: ClassVar[int] = 1
    iterations: ClassVar[int] = 1

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Taken:
        """The trained networks.

        Raises:
            ValueError: the GAN is of other data, or of networks of another kind.
        """
        return Taken(self.gan.restored(train, prerequisites["gan"], seed))

    def step(self, state: Taken) -> dict[str, float]:
        """Take the generator."""
        state.step += 1
        return {}

    def finish(self, state: Taken) -> SyntheticStream:
        """The generator."""
        return stream(self, state.pair)
