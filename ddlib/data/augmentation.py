"""Differentiable siamese augmentation (DSA, Zhao & Bilen 2021): the transforms, how they are drawn, how applied.

`draw` draws parameters on the host; `augment` applies them to images on any device.  A group of draws has one family,
and every row its own parameters.  A strategy joined by "_" ("color_crop") is one of its families a group; joined by "+"
("color+crop") it is all of them, one after another:

    Siamese, one transform a class:
        draws = draw(num_classes, 1, size=(H, W), generator=stream)
        augment(images_real, draws.rows(labels_real)), augment(images_syn, draws.rows(labels_syn))
    Training of a network, one family a mini-batch, one transform an image:
        augment(images, draw(1, len(images), size=(H, W), generator=stream))

Each transform takes images (B, C, H, W), encoded (normalised or whitened, so that the zeros it fills in are the data
set's mean, not black), and parameters of B rows, or of one row for all, and is differentiable in the images.

Deviation from the published code: parameters come from one table instead of one call after another, so the laws are the
same but not the random numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddlib.data.datasets import parsed_name

MAX_BRIGHTNESS = 0.5  # b ~ U(-0.5, 0.5)
MAX_SATURATION = 2.0  # s ~ U(0, 2)
MAX_CONTRAST_CHANGE = 0.5  # c ~ U(0.5, 1.5)
CROP_RATIO = 0.125  # shift by at most int(0.125 H + 0.5) pixels
CUTOUT_RATIO = 0.5  # side of the cutout, as a part of the image's
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


def color(images: Tensor, b: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """Family color: brightness x + b, then saturation (x - g) s + g, then contrast (x - m) c + m.

    g is the mean over a pixel's channels, m that over pixels and channels.
    Law: b ~ U(-0.5, 0.5), s ~ U(0, 2), c ~ U(0.5, 1.5), the same for all pixels and channels.
    """
    bright = images + _each(b, images)
    saturated = torch.lerp(bright.mean(dim=1, keepdim=True), bright, _each(s, images))
    return torch.lerp(saturated.mean(dim=(1, 2, 3), keepdim=True), saturated, _each(c, images))


def crop(images: Tensor, shift: Tensor) -> Tensor:
    """Family crop: out[y, x] = in[y - d_y, x - d_x], zeros moving in; `shift` has rows (d_y, d_x): down, right.

    Law: d_y uniform on the integers {-r..r}, r = int(0.125 H + 0.5); d_x likewise with W.
    """
    height, width = images.shape[-2:]
    shift = _rows(shift, images).long()
    rows, columns = (torch.arange(n, device=images.device) - shift[:, i, None] for i, n in enumerate(images.shape[-2:]))
    inside = _outer(torch.logical_and, _within(rows, height), _within(columns, width))
    # Indices modulo the side are distinct: the gradient adds nothing up, so it is the same on every run.
    index = _outer(torch.add, rows % height * width, columns % width).flatten(1)[:, None]
    moved = images.flatten(2).gather(2, index.expand(*images.shape[:2], -1)).view(images.shape)
    return moved.masked_fill(~inside[:, None], 0)


def cutout(images: Tensor, centre: Tensor) -> Tensor:
    """Family cutout: zero the square of side h = int(0.5 H + 0.5) around a centre, clipped at the border.

    It covers the rows c_y - h // 2 <= y < c_y - h // 2 + h, and the columns likewise; `centre` has rows (c_y, c_x).
    Law: c_y uniform on the integers {0..H} where h is even, {0..H-1} where it is odd; c_x likewise with W.
    """
    centre = _rows(centre, images).long()
    inside = []
    for i, length in enumerate(images.shape[-2:]):
        side = int(CUTOUT_RATIO * length + 0.5)
        corner = centre[:, i, None] - side // 2
        inside.append(_within(torch.arange(length, device=images.device) - corner, side))
    return images.masked_fill(_outer(torch.logical_and, *inside)[:, None], 0)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Family flip: out[y, x] = in[y, W - 1 - x] where mirrored, (B,) or (1,), is 1; law: with probability 0.5."""
    return torch.where(_each(mirrored, images) > 0, images.flip(3), images)


def scale(images: Tensor, zoom: Tensor) -> Tensor:
    """Family scale: out(x, y) = in(s_x x, s_y y) about the centre, bilinear, zeros outside.

    Law: s_x and s_y independent, each U(1 / 1.2, 1.2).  Above 1 shrinks the picture, below 1 enlarges it.
    """
    return _resample(images, torch.diag_embed(_rows(zoom, images)))


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Family rotate: out(x, y) = in(x cos a - y sin a, x sin a + y cos a) about the centre, bilinear.

    Zeros outside; y points down, so the picture turns anticlockwise where a > 0.
    Law: a ~ U(-15, 15) degrees.
    Deviation: rigid in pixels; the published code's, in units of the sides, shears where H != W.
    """
    radians = torch.deg2rad(_rows(angle, images))
    cos, sin = radians.cos(), radians.sin()
    return _resample(images, torch.stack((cos, -sin, sin, cos), dim=1).unflatten(1, (2, 2)))


TRANSFORMS = {
    "color": (color, ("brightness", "saturation", "contrast")),
    "crop": (crop, ("shift",)),
    "cutout": (cutout, ("centre",)),
    "flip": (flip, ("mirrored",)),
    "scale": (scale, ("zoom",)),
    "rotate": (rotate, ("angle",)),
}
"""Family -> its function and the names of its parameters, in their order."""

FAMILIES = tuple(TRANSFORMS)

STRATEGY = "_".join(FAMILIES)
"""The strategy of every dataset whose classes survive a mirror."""


@dataclass(frozen=True, eq=False)
class Draws:
    """Drawn transforms, one a row, on the host: the family that acts, and parameters of all families.

    A family is an index into `FAMILIES`; of families that are joined, the complement ~ of the sum of their 2**index; so
    -1, the complement of no family, leaves the image as it is (strategy "none").
    """

    family: Tensor  # (R,) int64
    values: Tensor  # (R, 11) float32, columns as in `PARAMETERS`; only those of the row's families are used
    size: tuple[int, int]  # (H, W) of the images in pixels, for which shifts and centres were drawn

    def __len__(self) -> int:
        return len(self.family)

    def parameter(self, name: str) -> Tensor:
        """One parameter, a name in `PARAMETERS`, of all rows: (R,), or (R, 2) for `shift`, `centre` and `zoom`."""
        return self.values[:, PARAMETERS[name]]

    def rows(self, index: Tensor) -> "Draws":
        """The draws in the order of `index`, (B,) int64 in [0, R), such as labels."""
        index = torch.as_tensor(index).cpu()
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
    """groups * per_group transforms by the laws of DSA: one family, or all, of the strategy a group.

    One family is uniform among the strategy's.  The two counts alone decide how far the generator is advanced.

    Args:
        groups: classes (Siamese) or mini-batches (training).
        per_group: rows a group: 1 (Siamese) or the images of a mini-batch (training).
        size: (H, W) of the images in pixels.
        strategy: names of `FAMILIES`, in any order, joined by "_" (one of them a group) or by "+" (all of them, in
            the order of `FAMILIES`); or "none"; a ValueError for others.
        generator: on the CPU.
    """
    return _drawn([_uniform(groups, per_group, generator)], torch.tensor(per_group), size, strategy)


def augment(images: Tensor, draws: Draws) -> Tensor:
    """Apply to each image the transform of its row (DSA, Zhao & Bilen 2021); differentiable in the images.

    Args:
        images: (B, C, H, W) floating point, encoded (normalised or whitened), on any device.
        draws: B draws for images of H x W pixels.

    Returns:
        (B, C, H, W) of the images' dtype, device and memory format; the very images for strategy "none".
    """
    if (len(draws), *draws.size) != (len(images), *images.shape[2:]):
        raise ValueError(f"{len(draws)} draws for images of size {draws.size}, got images {tuple(images.shape)}")
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
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return result.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def augment_stacked(
    batches: Sequence[Tensor], strategy: str, streams: Sequence[Sequence[torch.Generator]]
) -> list[Tensor]:
    """DSA of mini-batches (A, B, C, H, W) of A networks, in one pass over all: `draw(1, B)` for each of a network.

    streams: for each mini-batch the generators of its networks, drawn from in this order.
    """
    size, of_each = tuple(batches[0].shape[-2:]), [batch.shape[:2] for batch in batches]
    uniform = [_uniform(1, of[1], stream) for of, each in zip(of_each, streams, strict=True) for stream in each]
    draws = _drawn(uniform, torch.tensor([of[1] for of in of_each for _ in range(of[0])]), size, strategy)
    images = augment(torch.cat([batch.flatten(0, 1) for batch in batches]), draws)
    return [
        part.unflatten(0, of) for part, of in zip(images.split([of.numel() for of in of_each]), of_each, strict=True)
    ]


def _uniform(groups, per_group, generator):
    """What groups are drawn from: numbers in [0, 1) for their families and for the parameters of their rows."""
    choice = torch.rand(groups, dtype=torch.float64, generator=generator)
    return choice, torch.rand(groups * per_group, _NUM_COLUMNS, dtype=torch.float64, generator=generator)


def _drawn(uniform, per_group, size, strategy):
    """`Draws` from the numbers of several generators; per_group: rows of all groups, or of each."""
    families = torch.tensor(_families(strategy))
    choice, values = (torch.cat(part) for part in zip(*uniform, strict=True))
    family = families[(choice * len(families)).long()].repeat_interleave(per_group)
    return Draws(family, _values(values, size), tuple(size))


def _block_lengths(draws):
    """Lengths of the blocks of equal rows (siamese) or, where these are many, short or join families, of one family."""
    table = torch.column_stack((draws.family, draws.values))
    starts = (table[1:] != table[:-1]).any(dim=1).nonzero().flatten() + 1
    joined = bool((draws.family < -1).any())  # one call then costs more than what rows of their own add to it
    if len(starts) < min(_MAX_BLOCKS, len(draws) // 2) and not joined:
        return torch.diff(starts, prepend=torch.tensor([0]), append=torch.tensor([len(draws)])).tolist()
    return draws.family.unique_consecutive(return_counts=True)[1].tolist()


def _apply(images, draws, lengths):
    """Transform blocks of rows, each of one family, or of several joined."""
    values = draws.values.to(images.device, non_blocking=True)
    parts, start = [], 0
    for block, length in zip(images.split(lengths), lengths, strict=True):
        stop, family = start + length, int(draws.family[start])
        shared = bool((draws.values[start:stop] == draws.values[start]).all())
        rows = values[start : start + 1 if shared else stop]
        for index, (function, names) in enumerate(TRANSFORMS.values()):
            if index == family or (family < 0 and ~family >> index & 1):
                block = function(block, *(rows[:, PARAMETERS[name]] for name in names))
        parts.append(block)
        start = stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _values(uniform, size):
    """The table of `Draws` from uniforms in [0, 1), (R, 11)."""
    u = {name: uniform[:, column] for name, column in PARAMETERS.items()}
    reach = torch.tensor([int(CROP_RATIO * n + 0.5) for n in size])
    num_centres = torch.tensor([n + 1 - int(CUTOUT_RATIO * n + 0.5) % 2 for n in size])
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


def _resample(images, matrix):
    """Bilinear samples at matrix (B or 1, 2, 2) times each pixel's (x, y), both in pixels from the centre."""
    dtype, device = matrix.dtype, matrix.device
    y, x = (torch.arange(n, device=device, dtype=dtype) - (n - 1) / 2 for n in images.shape[-2:])
    (xx, xy), (yx, yy) = (row.unbind(1) for row in matrix[..., None, None].unbind(1))
    x, y = xx * x + xy * y[:, None], yx * x + yy * y[:, None]
    height, width = images.shape[-2:]
    grid = torch.stack((x * (2 / width), y * (2 / height)), dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images.to(dtype), grid, align_corners=False).to(images.dtype)


def _outer(operation, rows, columns):
    """(B, H) and (B, W) -> (B, H, W)."""
    return operation(rows[:, :, None], columns[:, None, :])


def _within(positions, length):
    return (positions >= 0) & (positions < length)


def _rows(parameter, images):
    """A parameter (B or 1, ...) on the images' device, in single precision at least."""
    dtype = torch.promote_types(images.dtype, torch.float32)
    return parameter.to(images.device, dtype, non_blocking=True)


def _each(parameter, images):
    return _rows(parameter, images).to(images.dtype)[:, None, None, None]
