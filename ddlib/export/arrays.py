"""Synthetic sets as named arrays: one .npz for NumPy, one .pt that PyTorch reads with `weights_only=True`.

Both have `images` (N, C, H, W) float32 in the value space of the set, `labels` (N,) int64 or (N, K) float32 logits,
`mean` and `std` (C,), of a whitened set `zca_mean` (D,), `zca_whitening` and `zca_unwhitening` (D, D), `class_names`,
`learning_rate` (where one was learnt) and `card`, the JSON of card.json.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ValueSpace


def space_tensors(space: ValueSpace) -> dict[str, Tensor]:
    """What takes real pixels to the space: mean and std (C,), and the tensors of its ZCA where there is one."""
    found = {"mean": torch.tensor(space.mean), "std": torch.tensor(space.std)}
    if space.zca is not None:
        found |= {f"zca_{name}": getattr(space.zca, name).cpu() for name in ("mean", "whitening", "unwhitening")}
    return found


def write_npz(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `set.npz`; no array of it needs `allow_pickle`."""
    tensors = {"images": synthetic.images, "labels": synthetic.labels} | space_tensors(synthetic.space)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    arrays |= {"class_names": np.array(synthetic.class_names), "card": np.array(json.dumps(about))}
    if synthetic.learning_rate is not None:
        arrays["learning_rate"] = np.array(synthetic.learning_rate)
    np.savez(folder / "set.npz", **arrays)


def write_pt(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `set.pt`: a dict of tensors, texts and numbers; `learning_rate` is None where none was learnt."""
    tensors = {"images": synthetic.images, "labels": synthetic.labels} | space_tensors(synthetic.space)
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    more = {"class_names": list(synthetic.class_names), "card": json.dumps(about)}
    torch.save(content | more | {"learning_rate": synthetic.learning_rate}, folder / "set.pt")


def write_space(folder: Path, space: ValueSpace) -> None:
    """Write `space.npz`, with which whoever has pixels alone makes of them what the networks were trained on."""
    np.savez(folder / "space.npz", **{name: tensor.numpy() for name, tensor in space_tensors(space).items()})
