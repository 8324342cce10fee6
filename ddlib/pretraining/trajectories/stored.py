"""What is kept of expert trajectories: its form in files, and the joined view of several shards."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddlib.data.datasets import ImageSet
from ddlib.store.files import read_tensors

STORAGES = ("float32", "float16")

OWN = ("first", "count", "at_once", "compiled")
"""What shards of one set of trajectories may differ in."""

LARGEST = 2.0**15
"""A float16 difference is scaled by a power of two to lie within this; float16 ends at 65504."""


def encode(vectors: Tensor, storage: str) -> dict[str, Tensor]:
    """The vectors in their stored form.

    "float32": as they are.  "float16": the first vector w_0 whole, then differences to what is read back,

        s_e h_e ~ w_e - r_{e-1},   r_e = r_{e-1} + s_e h_e,   r_0 = w_0,

    with h_e in float16 and s_e a power of two that keeps it within 2^15.  Rounding does not add up over epochs:
    |r_e - w_e| <= 2^-11 |w_e - r_{e-1}| elementwise, besides float32 rounding and what is 2^-40 of the largest.

    Args:
        vectors: (K, S, P) float32.
        storage: one of `STORAGES`.

    Returns:
        {"vectors": (K, S, P)}, or {"start": (K, P), "steps": (K, S - 1, P) float16, "scales": (K, S - 1)}.
    """
    if storage == "float32":
        return {"vectors": vectors}
    count, epochs, size = vectors.shape
    start, device = vectors[:, 0].clone(), vectors.device
    steps = torch.empty(count, epochs - 1, size, dtype=torch.float16, device=device)
    scales, current = torch.empty(count, epochs - 1, device=device), start.clone()
    for at in range(epochs - 1):
        change = vectors[:, at + 1] - current
        exponent = torch.frexp(change.abs().amax(1)).exponent.clamp_min(-100)
        scales[:, at] = torch.exp2(exponent.float()) / LARGEST
        steps[:, at] = change / scales[:, at, None]
        current += scales[:, at, None] * steps[:, at].float()
    return {"start": start, "steps": steps, "scales": scales}


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The trajectories of several shards as one, in the order of their experts; made by `of`.

    shards: the named tensors of each shard, mapped from their files or on a device; nothing is copied.
    about: what they are of: data, space, network and training.
    epochs: the stored epochs, ascending.
    """

    shards: tuple[Mapping[str, Tensor], ...]
    about: Mapping[str, Any]
    epochs: tuple[int, ...]

    @classmethod
    def of(cls, shards: Sequence[Mapping[str, Tensor]]) -> "Trajectories":
        """The joined view of products of `Experts`.

        Raises:
            ValueError: there is none, they differ in more than in their experts, or an expert is there twice.
        """
        if not shards:
            raise ValueError("shards=[]; at least one is needed")
        told = [json.loads(bytes(shard["about"].tolist())) for shard in shards]
        facts = [{k: v for k, v in about.items() if k not in OWN} for about in told]
        facts = [fact | {"stored epochs": shard["epochs"].tolist()} for fact, shard in zip(facts, shards, strict=True)]
        for fact in facts[1:]:
            _same(facts[0], fact, "shards of expert trajectories differ")
        indices = [i for about in told for i in range(about["first"], about["first"] + about["count"])]
        twice = sorted({i for i in indices if indices.count(i) > 1})
        if twice:
            raise ValueError(f"shards hold experts {twice} more than once; each may be there once")
        order = sorted(range(len(shards)), key=lambda i: told[i]["first"])
        return cls(tuple(shards[i] for i in order), facts[0], tuple(facts[0]["stored epochs"]))

    @property
    def count(self) -> int:
        """Number of experts."""
        return sum(map(_experts, self.shards))

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        return self.about["parameters"]

    def vector(self, expert: int, epoch: int) -> Tensor:
        """Parameters of an expert after an epoch, (P,) float32, where the shards lie; it is not to be written to.

        Args:
            expert: in [0, count).
            epoch: one of `epochs`; 0 are the initial weights.

        Raises:
            ValueError: there is no such expert, or the epoch is not stored.
        """
        if epoch not in self.epochs:
            raise ValueError(f"epoch={epoch} is not stored; stored are {_ranges(self.epochs)}")
        if not 0 <= expert < self.count:
            raise ValueError(f"expert={expert}; it must be in [0, {self.count})")
        position, at = 0, self.epochs.index(epoch)
        while expert >= _experts(self.shards[position]):
            expert -= _experts(self.shards[position])
            position += 1
        return _decoded(self.shards[position], expert, at)

    def last(self, expert: int) -> Tensor:
        """Parameters of an expert after its last epoch, (P,) float32."""
        return self.vector(expert, self.epochs[-1])

    def check(self, train: ImageSet, *, network: str, norm: str, parameters: int) -> None:
        """Refuse trajectories that are not of these data and this network.

        Args:
            train: the real training set, in the space in which it is matched.
            network, norm: names as `models.build` takes them.
            parameters: P of the network.

        Raises:
            ValueError: something differs; the message names it, with both values.
        """
        wanted = {"dataset": train.name, "fingerprint": train.fingerprint, "space": train.space.name}
        wanted |= {"shape": list(train.shape), "num_classes": train.num_classes}
        wanted |= {"network": network, "norm": norm, "parameters": parameters}
        _same({name: self.about[name] for name in wanted}, wanted, "expert trajectories are of another kind than asked")


def load(paths: Sequence[str | Path], device: str = "cpu") -> Trajectories:
    """The trajectories in files of the store, mapped into memory on a CPU.

    Raises:
        OSError: a file cannot be opened.
        ValueError: a file is damaged, or as `Trajectories.of`.
    """
    return Trajectories.of([read_tensors(Path(path), device)[0] for path in paths])


def storage_error(trajectories: Trajectories) -> Tensor:
    """What storing float32 trajectories as "float16" would change of them, relative to one stored epoch's way.

    Returns:
        (S,): for each stored epoch the largest ||r_e - w_e|| / ||w_e - w_{e-1}|| of all experts; 0 for the first.
    """
    found = torch.zeros(len(trajectories.epochs))
    for expert in range(trajectories.count):
        exact = torch.stack([trajectories.vector(expert, epoch) for epoch in trajectories.epochs])
        kept = encode(exact[None], "float16")
        error = torch.stack([_decoded(kept, 0, at) - exact[at] for at in range(1, len(exact))]).norm(dim=1)
        found[1:] = torch.maximum(found[1:], (error / exact.diff(dim=0).norm(dim=1)).cpu())
    return found


def _experts(shard: Mapping[str, Tensor]) -> int:
    return len(shard["vectors"] if "vectors" in shard else shard["start"])


def _decoded(shard: Mapping[str, Tensor], expert: int, at: int) -> Tensor:
    """The vector of the stored epoch number `at`."""
    if "vectors" in shard:
        return shard["vectors"][expert, at]
    current = shard["start"][expert].clone()
    for step, scale in zip(shard["steps"][expert, :at], shard["scales"][expert, :at], strict=True):
        current += scale * step.float()
    return current


def _same(one: Mapping[str, Any], other: Mapping[str, Any], what: str) -> None:
    differing = [f"{k}: {one.get(k)!r} and {other.get(k)!r}" for k in one | other if one.get(k) != other.get(k)]
    if differing:
        raise ValueError(f"{what}: {'; '.join(differing)}")


def _ranges(epochs: Sequence[int]) -> str:
    """Ascending numbers as text: 0-61, 100."""
    runs: list[list[int]] = []
    for epoch in epochs:
        if runs and epoch == runs[-1][-1] + 1:
            runs[-1].append(epoch)
        else:
            runs.append([epoch])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
