"""Random: real images drawn at random, the baseline of every table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods import _selection as selection


@dataclass(frozen=True, kw_only=True)
class Random:
    """`ipc` images of each class, drawn without replacement.

    ipc: images per class, >= 1.
    """

    name: ClassVar[str] = "random"
    version: ClassVar[int] = 1
    whitened: ClassVar[tuple[str, ...]] = ()
    iterations: ClassVar[int] = 1
    ipc: int

    @property
    def needs(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> selection.Selection:
        """Check `ipc` against the class sizes."""
        selection.check_ipc(self.ipc, train)
        return selection.Selection(train, seed, self.ipc)

    def step(self, state: selection.Selection) -> dict[str, float]:
        """Draw the images."""
        state.rows = selection.random_rows(state.train, self.ipc, state.seed)
        state.step += 1
        return {}

    def finish(self, state: selection.Selection) -> SyntheticSet:
        """The images drawn."""
        return selection.as_synthetic(state, method=self.name)
