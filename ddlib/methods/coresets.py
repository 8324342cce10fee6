"""Real images as they are: drawn at random, chosen by herding or k-center, or all of them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddlib import models, seeding
from ddlib.data import augmentation
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import SyntheticSet
from ddlib.methods.contract import Method
from ddlib.models.passes import known_options
from ddlib.models.state import State
from ddlib.pretraining.classifier import Embedding


def herd(vectors: Tensor, count: int) -> Tensor:
    """Positions (count,) of vectors (N, F) chosen by herding, in the order of choice.

    With mu the mean of all, the t-th choice is the unused i that minimises || t mu - sum of the chosen - u_i ||.

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


def k_center(vectors: Tensor, count: int) -> Tensor:
    """Positions (count,) of vectors (N, F) chosen by greedy k-center, in the order of choice.

    The first is the one nearest to the mean; then, again and again, the one whose distance to its nearest chosen
    vector is largest.
    """
    chosen = [(vectors - vectors.mean(0)).square().sum(1).argmin()]
    nearest = torch.full_like(vectors[:, 0], torch.inf)
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (vectors - vectors[chosen[-1]]).square().sum(1))
        nearest[chosen[-1]] = -1.0
        chosen.append(nearest.argmax())
    return torch.stack(chosen)


@dataclass
class Selection(State):
    """State of a method that chooses real images in its one step."""

    fixed: ClassVar[tuple[str, ...]] = ("vectors",)
    train: ImageSet
    seed: int
    vectors: Tensor | None  # (N, F), where the choice is made from such
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))  # (n,) into `train`
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Coreset(Method):
    """A method that chooses real images in one step; a subclass says which."""

    iterations: ClassVar[int] = 1

    def check_train(self, train: ImageSet) -> None:
        """Refuse more images per class than there are."""
        if self.ipc is not None:
            check_ipc(self.ipc, train)

    @abstractmethod
    def rows(self, state: Selection) -> Tensor:
        """Rows of the chosen images, class by class: (n,) int64."""

    def start(self, train: ImageSet, prerequisites: Mapping[str, Any], seed: int) -> Selection:
        """Check `ipc` against the class sizes, and embed the images where the choice is made from that."""
        self.check_train(train)
        embedding = self.needs.get("embedding")
        return Selection(train, seed, embedding and embedding.embed(train, prerequisites["embedding"]))

    def step(self, state: Selection) -> dict[str, float]:
        """Choose."""
        state.rows = self.rows(state)
        state.step += 1
        return {}

    def finish(self, state: Selection) -> SyntheticSet:
        """The chosen images with their labels, and which they are."""
        train, rows = state.train, state.rows.to(state.train.device)
        facts = {} if self.ipc is None else {"rows": rows.tolist()}
        strategy = augmentation.strategy_for(train.name)
        return self.distilled(state, train.take(rows), train.labels[rows], strategy=strategy, **facts)


@dataclass(frozen=True, kw_only=True)
class Random(Coreset):
    """`ipc` images of each class, drawn without replacement: the baseline of every table."""

    name: ClassVar[str] = "random"
    version: ClassVar[int] = 1
    ipc: int

    def rows(self, state: Selection) -> Tensor:
        """`random_rows`."""
        return random_rows(state.train, self.ipc, state.seed)


@dataclass(frozen=True, kw_only=True)
class Whole(Coreset):
    """Every real training image with its label, whatever the number of images per class: what bounds distillation.

    All seeds take the same set; they differ in the networks that are trained on it.
    """

    name: ClassVar[str] = "whole"
    version: ClassVar[int] = 1
    ipc: ClassVar[None] = None

    def rows(self, state: Selection) -> Tensor:
        """All, in the order of the training set."""
        return torch.arange(len(state.train))


@dataclass(frozen=True, kw_only=True)
class EmbeddedCoreset(Coreset):
    """The coreset of each class that `choose` takes from the embeddings of a network trained on the real set.

    ipc: images per class, >= 1.
    width, depth, epochs: of that ConvNet and of its training.

    Deviation: the papers' extractor is not stated; see `ddlib.pretraining.classifier.Embedding`.
    """

    retired: ClassVar[Mapping[str, Any]] = {"space": "embedding"}
    sweeps: ClassVar[bool] = True
    choose: ClassVar[Callable[[Tensor, int], Tensor]]
    ipc: int
    width: int | None = None
    depth: int | None = None
    epochs: int = 20

    def __post_init__(self) -> None:
        self.check(">= 0", "epochs")

    def check_images(self, shape: tuple[int, int, int], num_classes: int) -> None:
        """Refuse images too small for the embedding network."""
        super().check_images(shape, num_classes)
        options = known_options("convnet", width=self.width, depth=self.depth)
        models.check("convnet", shape=shape, num_classes=num_classes, **options)

    @property
    def needs(self) -> Mapping[str, Any]:
        """The trained embedding network."""
        return {"embedding": Embedding(width=self.width, depth=self.depth, epochs=self.epochs)}

    def rows(self, state: Selection) -> Tensor:
        """`choose`, class by class."""
        return rows_by_class(state.train, state.vectors, lambda vectors: self.choose(vectors, self.ipc))


@dataclass(frozen=True, kw_only=True)
class Herding(EmbeddedCoreset):
    """Herding (Welling 2009): real images whose mean embedding follows the class mean."""

    name: ClassVar[str] = "herding"
    version: ClassVar[int] = 1
    choose = staticmethod(herd)


@dataclass(frozen=True, kw_only=True)
class KCenter(EmbeddedCoreset):
    """K-Center (Sener & Savarese 2018, greedy): real images that leave no other image far from its nearest one."""

    name: ClassVar[str] = "k_center"
    version: ClassVar[int] = 1
    choose = staticmethod(k_center)


def check_ipc(ipc: int, train: ImageSet) -> None:
    """Refuse a number of images per class that some class of `train` cannot give, with a ValueError."""
    size, name = min(zip(map(len, train.class_indices), train.class_names, strict=True), key=lambda pair: pair[0])
    if not 1 <= ipc <= size:
        raise ValueError(
            f"ipc={ipc} is not in 1..{size}, the size of the smallest class ({name!r}) of {train.name!r}; "
            "`at_least` of a data set of your own repeats the images of small classes"
        )


def random_rows(train: ImageSet, ipc: int, seed: int) -> Tensor:
    """Rows of `ipc` random images of each class, without replacement, class by class: (K*ipc,) int64.

    Methods that start from real images start, at one seed, from these.
    """
    check_ipc(ipc, train)
    stream = seeding.generator(seed, "init")
    chosen = [rows[torch.randperm(len(rows), generator=stream)[:ipc].to(rows.device)] for rows in train.class_indices]
    return torch.cat(chosen)


def rows_by_class(train: ImageSet, vectors: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows of the images whose vectors (N, F) `choose`, (N_k, F) -> (ipc,) positions, takes in each class."""
    return torch.cat([rows[choose(vectors[rows])] for rows in train.class_indices])


def class_major_labels(train: ImageSet, ipc: int) -> Tensor:
    """Labels of a class-major set: 0 (ipc times), 1 (ipc times), ...: (K*ipc,) int64 on the device of `train`."""
    return torch.arange(train.num_classes, device=train.device).repeat_interleave(ipc)
