"""Differentiable siamese augmentation (DSA, Zhao & Bilen 2021): drawing its transforms and applying them.

`draw` draws parameters on the host from an explicit generator; `augment` applies them to images on any
device.  Every group of draws has one family, and every row of it its own parameters.  A strategy joined by "_"
("color_crop") is one of its families a group; joined by "+" ("color+crop") it is all of them, one after another:

    Siamese, one transform a class:
        draws = draw(num_classes, 1, size=(H, W), generator=stream)
        augment(images_real, draws.rows(labels_real)), augment(images_syn, draws.rows(labels_syn))
    Training of a network, one family a mini-batch, one transform an image:
        augment(images, draw(1, len(images), size=(H, W), generator=stream))
    All of color, crop and cutout, the same for every image of a batch (DiM, Wang et al. 2023):
        draws = draw(1, 1, size=(H, W), strategy="color+crop+cutout", generator=stream)
        augment(images, draws.rows(torch.zeros(len(images), dtype=torch.long)))

What each family does is said in `ddlib.data.transforms`.  Deviation from the published code: parameters come from
one table instead of one call after another, so the laws are the same but not the random numbers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ddlib.data.imageset import parsed_name
from ddlib.data.transforms import TRANSFORMS, cutout_side

__all__ = ["FAMILIES", "PARAMETERS", "STRATEGY", "Draws", "augment", "draw", "strategy_for"]

FAMILIES = tuple(TRANSFORMS)
"""The families of transforms; `draw` picks among those that its strategy names, or joins them in this order."""

STRATEGY = "color_crop_cutout_flip_scale_rotate"
"""The strategy of every dataset whose classes survive a mirror."""

MAX_BRIGHTNESS = 0.5  # b ~ U(-0.5, 0.5)
MAX_SATURATION = 2.0  # s ~ U(0, 2)
MAX_CONTRAST_CHANGE = 0.5  # c ~ U(0.5, 1.5)
CROP_RATIO = 0.125  # shift by at most int(0.125 H + 0.5) pixels
FLIP_PROBABILITY = 0.5
MAX_ZOOM = 1.2  # s ~ U(1 / 1.2, 1.2)
MAX_ANGLE = 15.0  # a ~ U(-15, 15) degrees

PARAMETERS = {
    "brightness": 0,
    "saturation": 1,
    "contrast": 2,
    "shift": slice(3, 5),
    "centre": slice(5, 7),
    "mirrored": 7,
    "zoom": slice(8, 10),
    "angle": 10,
}
"""Columns of `Draws.values`; `shift` and `centre` are (y, x) in pixels, `zoom` is (x, y), `angle` degrees."""

_NUM_COLUMNS = 11
_WITHOUT_FLIP = ("digits", "mnist", "svhn")
_MAX_BLOCKS = 16  # rows in more blocks than this are first gathered family by family


@dataclass(frozen=True, eq=False)
class Draws:
    """Drawn transforms, one a row, on the host: the family that acts, and parameters of all families.

    Args:
        family: (R,) int64, index into `FAMILIES`; of families that are joined, the complement ~ of the sum of their
            2**index; so -1, the complement of no family, leaves the image as it is (strategy "none").
        values: (R, 11) float32, columns as in `PARAMETERS`; only those of the row's families are used.
        size: (H, W) of the images in pixels, for which shifts and centres were drawn.
    """

    family: Tensor
    values: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.family)

    def parameter(self, name: str) -> Tensor:
        """One parameter of all rows: (R,), or (R, 2) for `shift`, `centre` and `zoom`.

        Raises:
            ValueError: the name is not in `PARAMETERS`.
        """
        if name not in PARAMETERS:
            raise ValueError(f"unknown parameter {name!r}; known: {', '.join(PARAMETERS)}")
        return self.values[:, PARAMETERS[name]]

    def rows(self, index: Tensor) -> "Draws":
        """The draws in the order of `index`, which may repeat, permute and leave out rows.

        Args:
            index: (B,) integers in [0, R), such as labels.  From an accelerator it is copied to the host,
                which waits for the copy: a loop does better to keep its labels on the host too.

        Returns:
            B draws.

        Raises:
            ValueError: index is not of shape (B,), not of integers, or out of range.
        """
        index = torch.as_tensor(index).cpu()
        if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"index must be integers of shape (B,), got {index.dtype} {tuple(index.shape)}")
        low, high = (int(index.min()), int(index.max())) if len(index) else (0, 0)
        if low < 0 or high >= len(self):
            raise ValueError(f"index must lie in [0, {len(self)}), got {low} to {high}")
        index = index.long()
        return Draws(self.family[index], self.values[index], self.size)


def strategy_for(dataset_name: str) -> str:
    """DSA strategy of a dataset, or a part of it: all families, less flip for the digits of mnist, svhn and digits."""
    whole, _ = parsed_name(dataset_name)
    return STRATEGY.replace("_flip", "") if whole in _WITHOUT_FLIP else STRATEGY


def draw(
    groups: int,
    per_group: int,
    *,
    size: tuple[int, int],
    strategy: str = STRATEGY,
    generator: torch.Generator,
) -> Draws:
    """Draw transforms by the laws of DSA: one family, or all, of the strategy a group, own parameters for each row.

    One family is uniform among the strategy's; `ddlib.data.transforms` states the laws of the parameters, which do
    not depend on the strategy.  The two counts alone decide how far the generator is advanced.

    Args:
        groups: number of groups, at least 1: classes (Siamese) or mini-batches (training).
        per_group: rows a group, at least 1: 1 (Siamese) or the images of a mini-batch (training).
        size: (H, W) of the images in pixels, at least 1 each.
        strategy: names of `FAMILIES`, in any order, joined by "_" (one of them a group) or by "+" (all of them, in
            the order of `FAMILIES`); or "none".
        generator: generator on the CPU; all randomness is its.

    Returns:
        groups * per_group draws, group by group.

    Raises:
        ValueError: a count or side below 1, an unknown or repeated family, "_" and "+" in one strategy, a generator
            of another device.
    """
    _check_draw(groups, per_group, size, generator)
    families = torch.tensor(_families(strategy))
    choice = torch.rand(groups, dtype=torch.float64, generator=generator)
    uniform = torch.rand(groups * per_group, _NUM_COLUMNS, dtype=torch.float64, generator=generator)
    family = families[(choice * len(families)).long()].repeat_interleave(per_group)
    return Draws(family, _values(uniform, size), tuple(size))


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Apply to each image the transform of its row (DSA, Zhao & Bilen 2021); differentiable in the images.

    Rows are grouped on the host, so an accelerator is never waited for, and each block is one batched call.
    Rows that already lie together, in one family or in few classes, are neither gathered nor scattered.
    On CUDA the gradients of scale and rotate repeat bit by bit under `torch.use_deterministic_algorithms`.

    Args:
        images: (B, C, H, W) floating point, encoded (normalised or whitened), on any device.
        draws: B draws for images of H x W pixels.

    Returns:
        (B, C, H, W) of the images' dtype, device and memory format; the very images for strategy "none".

    Raises:
        ValueError: images of another shape or dtype, or draws that do not fit them.
    """
    _check_fit(images, draws)
    if bool((draws.family == -1).all()):
        return images
    lengths = _block_lengths(draws)
    if len(lengths) <= _MAX_BLOCKS:
        result = _apply(images, draws, lengths)
    else:
        order = draws.family.argsort(stable=True)
        lengths = draws.family.unique(return_counts=True)[1].tolist()
        there, back = (index.to(images.device, non_blocking=True) for index in (order, order.argsort()))
        result = _apply(images[there], draws.rows(order), lengths)[back]
    return result.contiguous(memory_format=_memory_format(images))


def _block_lengths(draws):
    """Lengths of the blocks of equal rows (siamese) or, where these are many or join families, of one family."""
    table = torch.column_stack((draws.family, draws.values))
    starts = (table[1:] != table[:-1]).any(dim=1).nonzero().flatten() + 1
    joined = bool((draws.family < -1).any())  # one call then costs more than what rows of their own add to it
    if len(starts) < _MAX_BLOCKS and not joined:
        return torch.diff(starts, prepend=torch.tensor([0]), append=torch.tensor([len(draws)])).tolist()
    return draws.family.unique_consecutive(return_counts=True)[1].tolist()


def _apply(images, draws, lengths):
    """Transform blocks of rows, each of one family."""
    values = draws.values.to(images.device, non_blocking=True)
    parts, start = [], 0
    for block, length in zip(images.split(lengths), lengths, strict=True):
        stop = start + length
        shared = bool((draws.values[start:stop] == draws.values[start]).all())
        rows = slice(start, start + 1 if shared else stop)
        parts.append(_transform(block, int(draws.family[start]), values[rows]))
        start = stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _transform(images, family, values):
    acting = [family] if family >= 0 else [index for index in range(len(FAMILIES)) if ~family >> index & 1]
    for index in acting:
        function, names = TRANSFORMS[FAMILIES[index]]
        images = function(images, *(values[:, PARAMETERS[name]] for name in names))
    return images


def _values(uniform, size):
    """The table of `Draws` from uniforms in [0, 1), (R, 11)."""
    u = {name: uniform[:, column] for name, column in PARAMETERS.items()}
    reach = torch.tensor([int(CROP_RATIO * n + 0.5) for n in size])
    num_centres = torch.tensor([n + 1 - cutout_side(n) % 2 for n in size])
    columns = (
        (2 * u["brightness"] - 1) * MAX_BRIGHTNESS,
        u["saturation"] * MAX_SATURATION,
        1 + (2 * u["contrast"] - 1) * MAX_CONTRAST_CHANGE,
        (u["shift"] * (2 * reach + 1)).floor() - reach,
        (u["centre"] * num_centres).floor(),
        (u["mirrored"] < FLIP_PROBABILITY).double(),
        1 / MAX_ZOOM + u["zoom"] * (MAX_ZOOM - 1 / MAX_ZOOM),
        (2 * u["angle"] - 1) * MAX_ANGLE,
    )
    return torch.column_stack(columns).float()


def _families(strategy):
    """Values of `Draws.family` that a strategy chooses among: of "_" in the order of FAMILIES, of "+" one alone."""
    if "_" in strategy and "+" in strategy:
        raise ValueError(f"strategy {strategy!r} mixes '_' (one of them) and '+' (all of them); allowed: either")
    joint = "+" in strategy
    names = [] if strategy == "none" else strategy.split("+" if joint else "_")
    if not set(names) <= set(FAMILIES) or len(set(names)) < len(names):
        allowed = f"'none' or different families joined by '_' or '+'; known: {', '.join(FAMILIES)}"
        raise ValueError(f"unknown strategy {strategy!r}; allowed: {allowed}")
    chosen = [index for index, name in enumerate(FAMILIES) if name in names]
    return [~sum(2**index for index in chosen)] if joint else chosen or [-1]


def _check_draw(groups, per_group, size, generator):
    counts = {"groups": groups, "per_group": per_group, "size[0]": size[0], "size[1]": size[1]}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if generator.device.type != "cpu":
        raise ValueError(f"generator must be on the cpu, got one on {generator.device}")


def _check_fit(images, draws):
    shape = tuple(images.shape)
    if len(shape) != 4 or not images.is_floating_point():
        raise ValueError(f"images must be floating point (B, C, H, W), got {images.dtype} {shape}")
    if len(draws) != shape[0]:
        raise ValueError(f"draws must have one row an image, got {len(draws)} for {shape[0]} images")
    if draws.size != shape[2:]:
        raise ValueError(f"draws are for images of size {draws.size}, got {shape[2:]}")


def _memory_format(images):
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
