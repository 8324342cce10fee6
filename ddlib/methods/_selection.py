"""What the methods that choose real images share: the first images of distillation are chosen the same way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.pretraining.classifier import Embedding


def check_ipc(ipc: int, train: ImageSet) -> None:
    """Refuse a number of images per class that some class of `train` cannot give.

    Raises:
        ValueError: ipc < 1, or above the size of the smallest class.
    """
    sizes = [len(rows) for rows in train.class_indices]
    smallest = min(range(len(sizes)), key=sizes.__getitem__)
    if not 1 <= ipc <= sizes[smallest]:
        raise ValueError(
            f"ipc={ipc} is not in 1..{sizes[smallest]}, the size of the smallest class "
            f"({train.class_names[smallest]!r}) of {train.name!r}"
        )


def random_rows(train: ImageSet, ipc: int, seed: int) -> Tensor:
    """Rows of `ipc` random images of each class, without replacement, class by class: (K*ipc,) int64.

    The stream is named "init", so that every method which starts from real images starts, at one seed, from the
    images that `random` shows.
    """
    check_ipc(ipc, train)
    stream = seeding.generator(seed, "init")
    chosen = [rows[torch.randperm(len(rows), generator=stream)[:ipc].to(rows.device)] for rows in train.class_indices]
    return torch.cat(chosen)


def rows_by_class(train: ImageSet, vectors: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows that `choose` takes from the vectors of each class, class by class.

    Args:
        vectors: (N, F), one row an image of `train`.
        choose: (N_k, F) -> (ipc,) positions within the class.
    """
    return torch.cat([rows[choose(vectors[rows])] for rows in train.class_indices])


def class_major_labels(train: ImageSet, ipc: int) -> Tensor:
    """Labels of a class-major set: 0 (ipc times), 1 (ipc times), ...: (K*ipc,) int64 on the device of `train`."""
    return torch.arange(train.num_classes, device=train.device).repeat_interleave(ipc)


@dataclass
class Selection:
    """State of a method that takes one step: the rows of the chosen images, class by class.

    vectors: (N, F), what the choice is made from, where it needs any.
    step: 0 or 1.
    rows: (K*ipc,) int64 into `train`, once chosen.
    """

    train: ImageSet
    seed: int
    ipc: int
    vectors: Tensor | None = None
    step: int = 0
    rows: Tensor | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """The step and the rows chosen so far."""
        rows = torch.empty(0, dtype=torch.int64) if self.rows is None else self.rows
        return {"step": torch.tensor(self.step), "rows": rows}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        self.step = int(saved["step"])
        self.rows = saved["rows"].to(self.train.device) if len(saved["rows"]) else None


def as_synthetic(state: Selection, *, method: str) -> SyntheticSet:
    """The chosen real images with their labels, and where they came from."""
    return SyntheticSet(
        images=state.train.take(state.rows),
        labels=class_major_labels(state.train, state.ipc),
        class_names=state.train.class_names,
        space=state.train.space,
        strategy=augmentation.strategy_for(state.train.name),
        provenance={"method": method, "seed": state.seed, "dataset": state.train.name, "rows": state.rows.tolist()},
    )


@dataclass(frozen=True, kw_only=True)
class Coreset:
    """A method that chooses real images class by class, from vectors that stand for them; see the subclasses."""

    whitened: ClassVar[tuple[str, ...]] = ()
    iterations: ClassVar[int] = 1
    ipc: int
    space: str = "embedding"
    width: int | None = None
    depth: int | None = None
    epochs: int = 20

    def __post_init__(self) -> None:
        if self.space not in ("embedding", "pixels"):
            raise ValueError(f"space={self.space!r}; it must be one of embedding, pixels")

    @property
    def needs(self) -> Mapping[str, Any]:
        """The trained embedding network, unless the choice is made in pixels."""
        if self.space == "pixels":
            return {}
        return {"embedding": Embedding(width=self.width, depth=self.depth, epochs=self.epochs)}

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Selection:
        """Check `ipc` against the class sizes and compute the vectors."""
        check_ipc(self.ipc, train)
        if self.space == "pixels":
            vectors = train.take(torch.arange(len(train), device=train.device)).flatten(1)
        else:
            vectors = self.needs["embedding"].embed(train, prerequisites["embedding"])
        return Selection(train, seed, self.ipc, vectors)

    def step(self, state: Selection) -> dict[str, float]:
        """Choose."""
        state.rows = rows_by_class(state.train, state.vectors, self.choose)
        state.step += 1
        return {}

    def finish(self, state: Selection) -> SyntheticSet:
        """The images chosen."""
        return as_synthetic(state, method=self.name)
