"""What is trained before a distillation: a classifier for embeddings, experts, a GAN, a diffusion prior.

Each is built by a `Prerequisite`; a method names those that it needs, and the store makes each of them once.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ddlib.store.files import read_tensors, write_tensors


class Prerequisite:
    """Base of the builders of prerequisites: a frozen dataclass of settings with the verbs `start`, `step`, `finish`.

    name: names the artefact and its random streams.
    version: raised when its numbers change.
    iterations: how many steps it takes.
    seed: of all that it draws, the same for every cell.
    data: name of a data set of its own; None: it is trained on that of the cell.
    needs: name -> builder of what it needs itself.
    sweeps: whether its steps go over all training images, so that they take longer with more of them.
    mapped: the artefact stays mapped from its file in the memory of the host, whatever the device.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    data: ClassVar[str | None] = None
    needs: ClassVar[Mapping[str, "Prerequisite"]] = {}
    sweeps: ClassVar[bool] = False
    mapped: ClassVar[bool] = False

    @property
    def stages(self) -> tuple["Prerequisite", ...]:
        """Builders of the parts of its work, whose steps differ in cost; none where nothing is trained."""
        return (self,)

    @property
    def product(self) -> str:
        """Name of the file or folder of the artefact."""
        return f"{self.name}.safetensors"

    def save(self, artefact: Mapping[str, Any], path: Path) -> None:
        """Write the artefact, whole or not at all."""
        write_tensors(path, artefact)

    def load(self, path: Path, device: str) -> Any:
        """Read the artefact; FileNotFoundError where there is none, Damaged where it is not what was written."""
        return read_tensors(path, "cpu" if self.mapped else device)[0]

    def size(self, artefact: Mapping[str, Any]) -> int:
        """Bytes of the artefact."""
        return sum(tensor.nbytes for tensor in artefact.values())

    def require(self, names: str, holds: Callable[[Any], bool], allowed: str) -> None:
        """Refuse with a ValueError each setting, of these names separated by blanks, whose value does not hold."""
        for name in names.split():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"{name}={value!r} of the {self.name}; it must be {allowed}")
