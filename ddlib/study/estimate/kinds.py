"""Pieces of work by kind: what differs in its number of steps alone has one pace, probed once a process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ddlib.data.datasets import ImageSet
from ddlib.study.estimate.pace import Pace

LENGTHS = ("iterations", "restarts", "epochs", "num_networks", "first", "autoencoder_steps", "diffusion_steps")
"""Settings that say how often a step is taken, or which of many equals are made, and nothing about the step."""

RECORD = 4096
"""Bytes for the JSON beside a product: the course of a loss, about 100 points, is most of it."""


@dataclass(frozen=True)
class Estimate:
    """What one piece of work takes.

    kind: what it shares with all pieces of equal steps.
    seconds: of the whole piece.
    first: seconds more for the first of its kind in a process: compiling, warming up.
    memory: most bytes in use while the steps were taken, data included; of the process on a CPU, else of the device.
    disk: bytes that it leaves in the store.
    checkpoint: bytes of its state while it is in progress.
    trainings: networks trained to judge by.
    """

    kind: str
    seconds: float
    first: float = 0.0
    memory: int = 0
    disk: int = 0
    checkpoint: int = 0
    trainings: int = 0


PACES: dict[str, Pace] = {}
"""Kind -> its pace, as far as this process has seen."""


def kind_of(name: str, settings: Mapping[str, Any], images: ImageSet) -> str:
    """What a piece of work shares with all of equal steps, from its name, its settings and its data."""
    steps = {key: value for key, value in settings.items() if key not in LENGTHS}
    return f"{name} {steps} on {images.name} {images.fingerprint} {images.space.name} {images.device}"


def paced(kind: str, probe: Callable[[], Pace]) -> Pace:
    """The pace of a kind, probed the first time."""
    if kind not in PACES:
        PACES[kind] = probe()
    return PACES[kind]


def estimated(kind: str, pace: Pace, seconds: float, *, trainings: int = 0) -> Estimate:
    """The estimate of a piece of a kind that takes so many seconds, and leaves a record beside its product."""
    return Estimate(kind, seconds, pace.first, pace.memory, pace.disk + RECORD, pace.checkpoint, trainings)
