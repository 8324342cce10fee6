"""The state of a method that renders its images from what it learns, and the matching of these images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.methods import _matching as matching
from ddlib.methods._matching import MatchingState
from ddlib.methods._pixels import PixelState
from ddlib.methods.dm import DM
from ddlib.methods.dsa import DSA
from ddlib.methods.mtt import MTT
from ddlib.models.diffusion import LatentDiffusion


@dataclass
class LatentState:
    """What changes while latents are learnt.

    inner: the state of the matching, whose images are those rendered last.
    tensors: name -> what images are rendered from, (K * ipc, ...), class-major; not all need be learnt.
    course: "name.step": what was learnt by then, zero before.
    moments: "name.first" and "name.second" of what is learnt.
    step: steps taken.
    """

    train: ImageSet
    seed: int
    prior: LatentDiffusion
    inner: PixelState | MatchingState
    tensors: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    course: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that a step changes."""
        found = {f"tensor.{name}": tensor for name, tensor in self.tensors.items()}
        found |= {f"moment.{name}": tensor for name, tensor in self.moments.items()}
        found |= {f"course.{name}": tensor for name, tensor in self.course.items()}
        found |= {f"inner.{name}": tensor for name, tensor in self.inner.state_dict().items()}
        return found | {"step": torch.tensor(self.step)}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        for prefix, mine in (("tensor.", self.tensors), ("moment.", self.moments), ("course.", self.course)):
            for name, tensor in mine.items():
                tensor.copy_(saved[prefix + name])
        inner = {name.removeprefix("inner."): t for name, t in saved.items() if name.startswith("inner.")}
        self.inner.load_state_dict(inner)
        self.step = int(saved["step"])


def image_slope(
    objective: DM | DSA | MTT, state: LatentState, images: Tensor
) -> tuple[dict[str, float | Tensor], Tensor | None]:
    """The loss of this step at `images`, and its gradient in them; None where the step may change nothing.

    The step size that MTT learns takes its own step here.
    """
    inner = state.inner
    place(inner, images)
    inner.step = state.step
    if not isinstance(objective, MTT):
        loss, slope = objective.slope(inner)
        return {"loss": loss}, slope
    found, epoch = matching.slope(objective, inner, matching.soft_targets(inner))
    metrics = {"loss": float(found.loss)} if math.isfinite(found.loss) else {}
    if not matching.counted(objective, inner, found, epoch):
        return metrics, None
    matching.descend_lr(objective, inner, found)
    return metrics | {"start_epoch": epoch, "lr": inner.lr.clone()}, found.images


@torch.no_grad()
def place(inner: PixelState | MatchingState, images: Tensor) -> None:
    """Let `images` be those that are matched."""
    inner.images.copy_(images)
