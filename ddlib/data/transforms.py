"""The families of differentiable siamese augmentation (DSA, Zhao & Bilen 2021) as pure, batched functions.

Each takes images (B, C, H, W), floating point, and parameters of B rows, or of one row for all images, on
any device; it returns (B, C, H, W), differentiable in the images, and raises ValueError for parameters of
another shape.  Each docstring gives the transform and, as "law", how `ddlib.data.augmentation.draw` draws its parameters.
Images are encoded (normalised or whitened), so the zeros filled in are the dataset's mean, not black.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

CUTOUT_RATIO = 0.5
"""Side of the cutout, as a part of the image's."""


def brightness(images: Tensor, b: Tensor) -> Tensor:
    """Brightness (first in family color): x + b, one b for all pixels and channels.

    Law: b ~ U(-0.5, 0.5).

    Args:
        images: (B, C, H, W), encoded.
        b: (B,) or (1,).
    """
    return images + _each(b, images)


def saturation(images: Tensor, s: Tensor) -> Tensor:
    """Saturation (second in family color): (x - g) s + g, g the mean over the pixel's channels.

    Law: s ~ U(0, 2).  0 is grey, 1 changes nothing.

    Args:
        images: (B, C, H, W), encoded.
        s: (B,) or (1,).
    """
    return torch.lerp(images.mean(dim=1, keepdim=True), images, _each(s, images))


def contrast(images: Tensor, c: Tensor) -> Tensor:
    """Contrast (third in family color): (x - g) c + g, g the mean over the image's pixels and channels.

    Law: c ~ U(0.5, 1.5).  0 is flat, 1 changes nothing.

    Args:
        images: (B, C, H, W), encoded.
        c: (B,) or (1,).
    """
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, _each(c, images))


def color(images: Tensor, b: Tensor, s: Tensor, c: Tensor) -> Tensor:
    """Family color: brightness b, then saturation s, then contrast c.

    Args:
        images: (B, C, H, W), encoded.
        b, s, c: (B,) or (1,) each.
    """
    return contrast(saturation(brightness(images, b), s), c)


def crop(images: Tensor, shift: Tensor) -> Tensor:
    """Family crop: out[y, x] = in[y - d_y, x - d_x], zeros moving in.

    Law: d_y uniform on the integers {-r..r}, r = int(0.125 H + 0.5); d_x likewise with W.

    Args:
        images: (B, C, H, W), encoded.
        shift: (B, 2) or (1, 2), whole numbers (d_y, d_x): down, right.
    """
    height, width = images.shape[-2:]
    shift = _rows(shift, images, 2).long()
    rows, columns = (torch.arange(n, device=images.device) - shift[:, i, None] for i, n in _sides(images))
    inside = _outer(torch.logical_and, _within(rows, height), _within(columns, width))
    # Indices modulo the side are distinct: the gradient adds nothing up, so it is the same on every run.
    moved = _pick(images, _outer(torch.add, rows % height * width, columns % width))
    return moved.masked_fill(~inside[:, None], 0)


def cutout(images: Tensor, centre: Tensor) -> Tensor:
    """Family cutout: zero the square of side h = int(0.5 H + 0.5) around a centre, clipped at the border.

    It covers the rows c_y - h // 2 <= y < c_y - h // 2 + h, and the columns likewise with W.
    Law: c_y uniform on the integers {0..H} where h is even, {0..H-1} where it is odd; c_x likewise with W.

    Args:
        images: (B, C, H, W), encoded.
        centre: (B, 2) or (1, 2), whole numbers (c_y, c_x).
    """
    centre = _rows(centre, images, 2).long()
    corners = (centre[:, i, None] - cutout_side(n) // 2 for i, n in _sides(images))
    rows, columns = (
        _within(torch.arange(n, device=images.device) - corner, cutout_side(n))
        for corner, (_, n) in zip(corners, _sides(images), strict=True)
    )
    return images.masked_fill(_outer(torch.logical_and, rows, columns)[:, None], 0)


def cutout_side(length: int) -> int:
    """Side in pixels of the square that `cutout` zeroes in an image `length` pixels high or wide."""
    return int(CUTOUT_RATIO * length + 0.5)


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Family flip: out[y, x] = in[y, W - 1 - x] where mirrored.

    Law: mirrored is 1 with probability 0.5, otherwise 0.

    Args:
        images: (B, C, H, W), encoded.
        mirrored: (B,) or (1,), 1 or 0.
    """
    return torch.where(_each(mirrored, images) > 0, images.flip(3), images)


def scale(images: Tensor, zoom: Tensor) -> Tensor:
    """Family scale: out(x, y) = in(s_x x, s_y y) about the centre, bilinear, zeros outside.

    Law: s_x and s_y independent, each U(1 / 1.2, 1.2).  Above 1 shrinks the picture, below 1 enlarges it.

    Args:
        images: (B, C, H, W), encoded.
        zoom: (B, 2) or (1, 2), (s_x, s_y).
    """
    return _resample(images, torch.diag_embed(_rows(zoom, images, 2)))


def rotate(images: Tensor, angle: Tensor) -> Tensor:
    """Family rotate: out(x, y) = in(x cos a - y sin a, x sin a + y cos a) about the centre, bilinear.

    Zeros outside; y points down, so the picture turns anticlockwise where a > 0.
    Law: a ~ U(-15, 15) degrees.
    Deviation: rigid in pixels; the published code's, in units of the sides, is the same where H = W but
    shears where H != W.

    Args:
        images: (B, C, H, W), encoded.
        angle: (B,) or (1,), a in degrees.
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


def _resample(images, matrix):
    """Bilinear samples at matrix (B or 1, 2, 2) times each pixel's (x, y), both in pixels from the centre.

    In these units the published sampling grid is the same with corners aligned and not aligned, so the
    convention, which changed between versions of the framework, needs no setting.
    """
    dtype, device = matrix.dtype, matrix.device
    y, x = (torch.arange(n, device=device, dtype=dtype) - (n - 1) / 2 for _, n in _sides(images))
    (xx, xy), (yx, yy) = (row.unbind(1) for row in matrix[..., None, None].unbind(1))
    x, y = xx * x + xy * y[:, None], yx * x + yy * y[:, None]
    if images.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _four_taps(images, x, y)  # the gradient of grid_sample on CUDA varies with the order of sums
    height, width = images.shape[-2:]
    grid = torch.stack((x * (2 / width), y * (2 / height)), dim=-1).expand(len(images), -1, -1, -1)
    return F.grid_sample(images.to(dtype), grid, align_corners=False).to(images.dtype)


def _four_taps(images, x, y):
    """Bilinear samples at x and y, (B or 1, H, W) in pixels from the centre, each a sum over four pixels."""
    height, width = images.shape[-2:]
    x, y, total = x + (width - 1) / 2, y + (height - 1) / 2, 0
    for right, down in itertools.product((0, 1), (0, 1)):
        column, row = x.floor() + right, y.floor() + down
        inside = _within(column, width) & _within(row, height)
        weight = (1 - (x - column).abs()) * (1 - (y - row).abs()) * inside
        index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        total = total + _pick(images, index.long()) * weight[:, None]
    return total.to(images.dtype)


def _pick(images, index):
    """The pixels at `index` (B or 1, H, W) into an image's rows laid end to end."""
    index = index.flatten(1)[:, None].expand(*images.shape[:2], -1)
    return images.flatten(2).gather(2, index).view(images.shape)


def _outer(operation, rows, columns):
    """(B, H) and (B, W) -> (B, H, W)."""
    return operation(rows[:, :, None], columns[:, None, :])


def _within(positions, length):
    return (positions >= 0) & (positions < length)


def _sides(images):
    return enumerate(images.shape[-2:])


def _rows(parameter, images, *tail):
    """A parameter (B or 1, *tail) on the images' device, in single precision at least."""
    if images.ndim != 4 or tuple(parameter.shape) not in ((len(images), *tail), (1, *tail)):
        raise ValueError(
            f"images must be (B, C, H, W) and their parameter (B or 1, {', '.join(map(str, tail))}), "
            f"got {tuple(images.shape)} and {tuple(parameter.shape)}"
        )
    dtype = torch.promote_types(images.dtype, torch.float32)
    return parameter.to(images.device, dtype, non_blocking=True)


def _each(parameter, images):
    return _rows(parameter, images).to(images.dtype)[:, None, None, None]
