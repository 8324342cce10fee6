"""The families of DSA: each against its definition, written plainly for one image."""

import math

import pytest
import torch
import torch.nn.functional as F

from ddlib import seeding
from ddlib.data import augmentation as dsa

SIZES = [(32, 32), (16, 16), (28, 28), (12, 20), (7, 9)]


def make_images(size=(16, 16), *, batch=5, channels=3, dtype=torch.float32, seed=0):
    return torch.randn(batch, channels, *size, dtype=dtype, generator=seeding.generator(seed, "images"))


def make_draws(groups, per_group, *, size=(16, 16), strategy=dsa.STRATEGY, seed=0):
    generator = seeding.generator(seed, "draws")
    return dsa.draw(groups, per_group, size=size, strategy=strategy, generator=generator)


# One image (C, H, W) at a time, as plainly as the definitions allow.


def plain_color(image, row):
    b, s, c = (float(row.parameter(name)) for name in ("brightness", "saturation", "contrast"))
    image = image + b
    grey = sum(image[i] for i in range(len(image))) / len(image)
    image = torch.stack([(plane - grey) * s + grey for plane in image])
    mean = image.sum() / image.numel()
    return (image - mean) * c + mean


def plain_crop(image, row):
    (down, right), (height, width) = row.parameter("shift")[0].int().tolist(), image.shape[1:]
    out = torch.zeros_like(image)
    top, bottom = max(down, 0), min(height + down, height)
    left, end = max(right, 0), min(width + right, width)
    out[:, top:bottom, left:end] = image[:, top - down : bottom - down, left - right : end - right]
    return out


def plain_cutout(image, row):
    (cy, cx), (height, width) = row.parameter("centre")[0].int().tolist(), image.shape[1:]
    out = image.clone()
    for y in range(int(0.5 * height + 0.5)):
        for x in range(int(0.5 * width + 0.5)):
            at_y, at_x = cy - int(0.5 * height + 0.5) // 2 + y, cx - int(0.5 * width + 0.5) // 2 + x
            if 0 <= at_y < height and 0 <= at_x < width:
                out[:, at_y, at_x] = 0
    return out


def plain_flip(image, row):
    return torch.stack(image.unbind(2)[::-1], dim=2) if row.parameter("mirrored") == 1 else image


def plain_affine(image, matrix, align_corners=False):
    theta = torch.tensor([matrix], dtype=image.dtype)
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=align_corners)
    return F.grid_sample(image[None], grid, align_corners=align_corners)[0]


def plain_scale(image, row, align_corners=False):
    x, y = row.parameter("zoom")[0].tolist()
    return plain_affine(image, [[x, 0, 0], [0, y, 0]], align_corners)


def plain_rotate(image, row, align_corners=False):
    a, (height, width) = math.radians(float(row.parameter("angle"))), image.shape[1:]
    cos, sin, aspect = math.cos(a), math.sin(a), height / width
    return plain_affine(image, [[cos, -sin * aspect, 0], [sin / aspect, cos, 0]], align_corners)


PLAIN = {
    "color": plain_color,
    "crop": plain_crop,
    "cutout": plain_cutout,
    "flip": plain_flip,
    "scale": plain_scale,
    "rotate": plain_rotate,
}


def plain_augment(images, draws):
    rows = [draws.rows(torch.tensor([i])) for i in range(len(draws))]
    names = [dsa.FAMILIES[int(row.family)] for row in rows]
    return torch.stack([PLAIN[name](x, row) for x, name, row in zip(images, names, rows, strict=True)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", dsa.FAMILIES)
def test_family_is_its_definition(family, size):
    images = make_images(size, batch=40, dtype=torch.float64)
    draws = make_draws(1, 40, size=size, strategy=family)
    result = dsa.augment(images, draws)
    torch.testing.assert_close(result, plain_augment(images, draws), rtol=0, atol=1e-10)
    assert (result != images).any(dim=(1, 2, 3)).float().mean() > 0.3  # the transform does act


@pytest.mark.parametrize("family", dsa.FAMILIES)
def test_one_row_for_all_images_is_that_row_repeated(family):
    images, draws = make_images(dtype=torch.float64), make_draws(1, 1, strategy=family, seed=3)
    draws = draws.rows(torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(dsa.augment(images, draws), plain_augment(images, draws), rtol=0, atol=1e-10)


@pytest.mark.parametrize("family, plain", [("scale", plain_scale), ("rotate", plain_rotate)])
def test_alignment_of_corners_does_not_matter(family, plain):
    images, draws = make_images(dtype=torch.float64), make_draws(1, 5, strategy=family)
    aligned = [plain(x, draws.rows(torch.tensor([i])), align_corners=True) for i, x in enumerate(images)]
    torch.testing.assert_close(dsa.augment(images, draws), torch.stack(aligned), rtol=0, atol=1e-10)


def test_color_by_hand():
    image = torch.tensor([[[[0.0, 4.0]], [[2.0, 6.0]]]])  # two channels of 1 x 2 pixels
    one = torch.ones(1)
    assert dsa.brightness(image, 0.5 * one).tolist() == [[[[0.5, 4.5]], [[2.5, 6.5]]]]
    assert dsa.saturation(image, 2 * one).tolist() == [[[[-1.0, 3.0]], [[3.0, 7.0]]]]  # greys 1 and 5
    assert dsa.saturation(image, 0 * one).tolist() == [[[[1.0, 5.0]], [[1.0, 5.0]]]]
    assert dsa.contrast(image, 0.5 * one).tolist() == [[[[1.5, 3.5]], [[2.5, 4.5]]]]  # mean 3
    # brightness to mean 4, saturation to greys 2 and 6, then contrast about 4
    assert dsa.color(image, one, 0 * one, 0.5 * one).tolist() == [[[[3.0, 5.0]], [[3.0, 5.0]]]]


def test_directions_by_hand():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 3] = 1.0  # one pixel right of the centre
    assert dsa.crop(image, torch.tensor([[1.0, -2.0]]))[0, 0, 3, 1] == 1
    assert dsa.flip(image, torch.ones(1))[0, 0, 2, 1] == 1
    assert dsa.rotate(image, torch.tensor([90.0]))[0, 0, 1, 2].item() == pytest.approx(1, abs=1e-5)  # up
    assert dsa.scale(image, torch.tensor([[0.5, 1.0]]))[0, 0, 2, 4].item() == pytest.approx(1)  # twice as far
    holes = dsa.cutout(image + 1, torch.tensor([[0.0, 5.0]])).eq(0).nonzero()  # side 3: rows -1..1, columns 4..6
    assert holes[:, 2:].tolist() == [[0, 4], [1, 4]]


@pytest.mark.parametrize("size", SIZES)
def test_parameters_of_the_identity_change_nothing(size):
    images, zero, one = make_images(size), torch.zeros(5), torch.ones(5)
    exact = [
        dsa.color(images, zero, one, one),
        dsa.crop(images, torch.zeros(5, 2)),
        dsa.flip(images, zero),
    ]
    resampled = [dsa.scale(images, torch.ones(5, 2)), dsa.rotate(images, zero)]
    assert all(torch.equal(result, images) for result in exact)
    for result in resampled:
        torch.testing.assert_close(result, images, rtol=0, atol=5e-5)
        if size in [(32, 32), (16, 16)]:  # positions are exact in binary where the side is a power of two
            assert torch.equal(result, images)


def test_four_taps_are_the_sampling_of_the_framework():
    images = make_images((12, 20), dtype=torch.float64).requires_grad_()
    points = torch.rand(2, 5, 12, 20, dtype=torch.float64, generator=seeding.generator(0, "points"))
    x, y = (points - 0.5) * 30  # some of them outside
    grid = torch.stack((x / 10, y / 6), dim=-1)
    weights = make_images((12, 20), dtype=torch.float64, seed=1)
    results = dsa._four_taps(images, x, y), F.grid_sample(images, grid, align_corners=False)
    gradients = [torch.autograd.grad((weights * result).sum(), images)[0] for result in results]
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_cutout_at_a_corner_keeps_three_quarters_of_its_square_outside():
    result = dsa.cutout(torch.ones(2, 1, 32, 32), torch.tensor([[32.0, 32.0], [16.0, 16.0]]))
    assert (result == 0).sum(dim=(1, 2, 3)).tolist() == [8 * 8, 16 * 16]


@pytest.mark.parametrize("family", dsa.FAMILIES)
@pytest.mark.parametrize("per_group", [1, 3])
def test_gradient(family, per_group):
    images = make_images((6, 5), batch=3, channels=2, dtype=torch.float64).requires_grad_()
    draws = make_draws(1, per_group, size=(6, 5), strategy=family, seed=1)
    draws = draws.rows(torch.arange(3) % per_group)
    assert torch.autograd.gradcheck(lambda x: dsa.augment(x, draws), images)


@pytest.mark.parametrize("function, shape", [(dsa.brightness, (4,)), (dsa.crop, (5,)), (dsa.rotate, (5, 1))])
def test_parameters_of_another_shape_are_refused(function, shape):
    with pytest.raises(ValueError, match=r"parameter \(B or 1.*got \(5, 3, 16, 16\) and"):
        function(make_images(), torch.zeros(shape))
