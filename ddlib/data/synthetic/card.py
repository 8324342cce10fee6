"""What a synthetic set that travels says of itself: the data, the evaluation, and the accuracies that it reached."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Card:
    """How a set or stream was judged, and what it reached: enough to judge it again.

    name: what was distilled, for people.
    method: that made it.
    dataset: that it stands for, as `ddlib.data.datasets.load` takes it.
    licence: of that data set, in words.
    whitened: the `zca` that `load` is told.
    train_fingerprint, test_fingerprint: of the real data.
    protocol: the settings of the evaluation; see `ddlib.evaluation.Protocol`.
    seed: of the evaluation.
    networks: indices of the networks that were trained.
    accuracies: of these, in percent.
    provenance: of the evaluation, as plain JSON.
    evaluation_version: `ddlib.evaluation.VERSION` of the ddlib that judged; 1 where a card does not say.

    Raises:
        ValueError: there is no accuracy, one is no percentage, or there are not as many as networks.
    """

    name: str
    method: str
    dataset: str
    licence: str
    whitened: bool | str
    train_fingerprint: str
    test_fingerprint: str
    protocol: Mapping[str, Any]
    seed: int
    networks: tuple[int, ...]
    accuracies: tuple[float, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluation_version: int = 1

    def __post_init__(self):
        for name in ("networks", "accuracies"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.accuracies or len(self.accuracies) != len(self.networks):
            raise ValueError(f"accuracies must be one for each of the networks {self.networks}, got {self.accuracies}")
        if not all(math.isfinite(value) and 0 <= value <= 100 for value in self.accuracies):
            raise ValueError(f"accuracies must be percent, from 0 to 100, got {self.accuracies}")

    @property
    def mean(self) -> float:
        """Mean accuracy, percent."""
        return fmean(self.accuracies)

    @property
    def std(self) -> float | None:
        """Sample deviation (ddof 1) of the accuracies, points; None of one alone."""
        return stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def n(self) -> int:
        """How many accuracies there are."""
        return len(self.accuracies)

    def to_json(self) -> dict[str, Any]:
        """The card as plain JSON, with the numbers that follow from its fields."""
        content = {name.name: getattr(self, name.name) for name in fields(self)}
        content |= {"networks": list(self.networks), "accuracies": list(self.accuracies)}
        content |= {"protocol": dict(self.protocol), "provenance": dict(self.provenance)}
        return content | {"accuracy_mean": self.mean, "accuracy_std": self.std, "n": self.n}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Card":
        """The card that `to_json` wrote; what it does not know, such as the numbers that follow, is left out."""
        known = [name.name for name in fields(cls) if name.name != "evaluation_version" or name.name in content]
        return cls(**{name: content[name] for name in known})
