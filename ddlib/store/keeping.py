"""How artefacts are kept: as named tensors in one file, unless their builder says otherwise.

A builder says so by four attributes: `product`, the name of the file or folder; `save(made, path)`;
`load(path, device)`; and `size(made)` in bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddlib.store.tensors import read_tensors, write_tensors


@dataclass(frozen=True)
class Keeping:
    """How one artefact is kept; the fields are those of `ddlib.store.pieces.Piece`.

    product: name of its file or folder.
    save: writes it to a path, whole or not at all.
    load: reads it from there; raises FileNotFoundError or `Damaged`.
    size: its bytes.
    """

    product: str
    save: Callable[[Any, Path], None]
    load: Callable[[Path], Any]
    size: Callable[[Any], int]


def keeping(builder: Any, device: str = "cpu") -> Keeping:
    """How what `builder` makes is kept, and read for `device`."""
    if hasattr(builder, "product"):
        return Keeping(builder.product, builder.save, lambda path: builder.load(path, device), builder.size)
    where = "cpu" if getattr(builder, "mapped", False) else device
    return Keeping(
        product=f"{builder.name}.safetensors",
        save=lambda made, path: write_tensors(path, made),
        load=lambda path: read_tensors(path, where)[0],
        size=lambda made: sum(tensor.nbytes for tensor in made.values()),
    )
