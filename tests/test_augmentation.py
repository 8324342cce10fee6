"""DSA: each family against its definition, written plainly for one image; the laws of the draws; both modes of use."""

import math
import re
import runpy

import pytest
import torch
import torch.nn.functional as F
from refusals import refuses
from scipy import stats

from ddlib import ROOT, seeding
from ddlib.data import augmentation as dsa


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


def plain_affine(image, matrix):
    theta = torch.tensor([matrix], dtype=image.dtype)
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, align_corners=False)[0]


def plain_scale(image, row):
    x, y = row.parameter("zoom")[0].tolist()
    return plain_affine(image, [[x, 0, 0], [0, y, 0]])


def plain_rotate(image, row):
    a, (height, width) = math.radians(float(row.parameter("angle"))), image.shape[1:]
    cos, sin, aspect = math.cos(a), math.sin(a), height / width
    return plain_affine(image, [[cos, -sin * aspect, 0], [sin / aspect, cos, 0]])


PLAIN = {
    "color": plain_color,
    "crop": plain_crop,
    "cutout": plain_cutout,
    "flip": plain_flip,
    "scale": plain_scale,
    "rotate": plain_rotate,
}


def plain_augment(images, draws, names=None):
    """Image by image the family of its row, or all the named families one after another."""
    results = []
    for index, image in enumerate(images):
        row = draws.rows(torch.tensor([index]))
        for name in [dsa.FAMILIES[int(row.family)]] if names is None else names:
            image = PLAIN[name](image, row)
        results.append(image)
    return torch.stack(results)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (12, 20), (7, 9)])
@pytest.mark.parametrize("strategy", [*dsa.FAMILIES, "cutout+crop+color", "rotate+scale+flip+cutout+crop+color"])
def test_families_are_their_definitions_one_after_another(strategy, size):
    images, draws = make_images(size, batch=40, dtype=torch.float64), make_draws(1, 40, size=size, strategy=strategy)
    names = [name for name in dsa.FAMILIES if name in strategy.split("+")]  # in the order of FAMILIES
    result = dsa.augment(images, draws)
    torch.testing.assert_close(result, plain_augment(images, draws, names), rtol=0, atol=1e-10)
    assert (result != images).any(dim=(1, 2, 3)).float().mean() > 0.3  # the transform does act


@pytest.mark.parametrize("groups, per_group", [(1, 40), (7, 9), (40, 1)])
@pytest.mark.parametrize("strategy", [dsa.STRATEGY, "color+crop"])
def test_one_family_a_group_and_own_parameters_a_row(strategy, groups, per_group):
    draws = make_draws(groups, per_group, seed=2, strategy=strategy)
    family = draws.family.view(groups, per_group)
    assert len(draws) == groups * per_group and (family == family[:, :1]).all()
    assert all(len(column.unique()) == len(draws) for column in draws.values[:, [0, 1, 2, 8, 9, 10]].T)


def test_color_by_hand():
    image = torch.tensor([[[[0.0, 4.0]], [[2.0, 6.0]]]])  # two channels of 1 x 2 pixels
    one = torch.ones(1)
    assert dsa.color(image, 0.5 * one, one, one).tolist() == [[[[0.5, 4.5]], [[2.5, 6.5]]]]
    assert dsa.color(image, 0 * one, 2 * one, one).tolist() == [[[[-1.0, 3.0]], [[3.0, 7.0]]]]  # greys 1 and 5
    assert dsa.color(image, 0 * one, one, 0.5 * one).tolist() == [[[[1.5, 3.5]], [[2.5, 4.5]]]]  # mean 3
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


@pytest.mark.parametrize("strategy", [*dsa.FAMILIES, "+".join(dsa.FAMILIES)])
@pytest.mark.parametrize("per_group", [1, 3])
def test_gradient(strategy, per_group):
    images = make_images((6, 5), batch=3, channels=2, dtype=torch.float64).requires_grad_()
    draws = make_draws(1, per_group, size=(6, 5), strategy=strategy, seed=1)
    draws = draws.rows(torch.arange(3) % per_group)
    assert torch.autograd.gradcheck(lambda x: dsa.augment(x, draws), images)


# Laws.


def check_uniform(values, low, high):
    assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def check_integers(values, low, high):
    found, counts = values.unique(return_counts=True)
    assert found.tolist() == list(range(low, high + 1))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_laws_of_the_parameters():
    many = make_draws(200_000, 1, size=(32, 64))
    zooms = many.parameter("zoom").T
    ranges = {"brightness": (-0.5, 0.5), "saturation": (0, 2), "contrast": (0.5, 1.5), "angle": (-15, 15)}
    for values, low, high in (
        *((many.parameter(name), *between) for name, between in ranges.items()),
        *((values, 1 / 1.2, 1.2) for values in zooms),
    ):
        check_uniform(values, low, high)
    assert abs(torch.corrcoef(zooms)[0, 1]) < 0.012  # independent
    shift, centre = many.parameter("shift"), many.parameter("centre")
    odd, odd_shift = (make_draws(50_000, 1, size=size) for size in ((10, 13), (28, 28)))  # int(3.5 + 0.5) of 28
    for values, low, high in (
        *((shift[:, 0], -4, 4), (shift[:, 1], -8, 8), (odd_shift.parameter("shift")[:, 0], -4, 4)),
        *((centre[:, 0], 0, 32), (centre[:, 1], 0, 64)),
        *((odd.parameter("centre")[:, 0], 0, 9), (odd.parameter("centre")[:, 1], 0, 12)),  # sides 5 and 7
        *((many.parameter("mirrored"), 0, 1), (many.family, 0, 5)),
    ):
        check_integers(values, low, high)


def test_strategy_without_flip_never_flips():
    strategy = "color_crop_cutout_scale_rotate"
    assert {dsa.strategy_for(name) for name in ("mnist", "svhn", "digits")} == {strategy}
    assert {dsa.strategy_for(name) for name in ("cifar10", "fashion_mnist")} == {dsa.STRATEGY}
    family, counts = make_draws(50_000, 1, strategy=strategy).family.unique(return_counts=True)
    assert [dsa.FAMILIES[i] for i in family] == strategy.split("_")
    assert stats.chisquare(counts).pvalue > 1e-3


def test_none_is_the_identity():
    images, draws = make_images(), make_draws(1, 5, strategy="none")
    assert dsa.augment(images, draws) is images
    assert (draws.family == -1).all()
    assert dsa.augment(images[:0], draws.rows(torch.arange(0))).shape == (0, 3, 16, 16)


def test_images_of_joined_single_and_no_families_in_one_batch():
    parts = [make_draws(1, 6, strategy=strategy, seed=2) for strategy in ("color+crop", "none", "flip", "crop+cutout")]
    family, values = (torch.cat([getattr(part, name) for part in parts]) for name in ("family", "values"))
    order = torch.randperm(24, generator=seeding.generator(0, "order"))
    draws = dsa.Draws(family, values, (16, 16)).rows(order)
    names = [("color", "crop"), (), ("flip",), ("crop", "cutout")]
    images = make_images(batch=24, dtype=torch.float64)
    for index, (image, result) in enumerate(zip(images, dsa.augment(images, draws), strict=True)):
        expected = plain_augment(image[None], draws.rows(torch.tensor([index])), names[int(order[index]) // 6])
        torch.testing.assert_close(result, expected[0], rtol=0, atol=1e-10)


# Randomness, types, layout.


@pytest.mark.parametrize("strategy", [dsa.STRATEGY, "scale_color_flip", "crop"])
def test_the_first_number_of_a_group_picks_among_its_families_in_their_order(strategy):
    names = [name for name in ("color", "crop", "cutout", "flip", "scale", "rotate") if name in strategy.split("_")]
    first = torch.rand(200, dtype=torch.float64, generator=seeding.generator(0, "draws")).tolist()
    expected = [names[int(number * len(names))] for number in first]
    assert [dsa.FAMILIES[index] for index in make_draws(200, 1, strategy=strategy).family] == expected


def test_strategy_and_size_do_not_change_how_much_is_drawn():
    states = set()
    for strategy, size in (("flip", (8, 8)), (dsa.STRATEGY, (64, 32)), ("none", (8, 8)), ("color+crop", (8, 8))):
        generator = seeding.generator(0, "draws")
        dsa.draw(10, 4, size=size, strategy=strategy, generator=generator)
        states.add(bytes(generator.get_state().tolist()))
    assert len(states) == 1


@pytest.mark.parametrize("family", dsa.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_and_memory_format_are_kept(family, dtype):
    images = make_images(dtype=torch.float64)
    draws = make_draws(1, 5, strategy=family)
    given = images.to(dtype, memory_format=torch.channels_last)
    result = dsa.augment(given, draws)
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
    assert dsa.augment(images.to(dtype), draws).is_contiguous()
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(result.double(), plain_augment(images, draws), rtol=0, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_is_as_the_host():
    images, draws = make_images(batch=40, dtype=torch.float64), make_draws(40, 1)
    given = images.cuda().requires_grad_()
    result = dsa.augment(given, draws)
    result.square().sum().backward()
    assert given.grad.isfinite().all()
    torch.testing.assert_close(result.detach().cpu(), plain_augment(images, draws), rtol=0, atol=1e-10)


# Refusals.


test_a_strategy_that_cannot_be_is_refused = refuses(
    lambda strategy: make_draws(1, 1, strategy=strategy),
    [
        *(
            (name, rf"unknown strategy '{re.escape(name)}'.*known: color, crop, cutout, flip, scale, rotate")
            for name in ("color_blur", "", "crop_crop", "color+blur", "crop+", "crop+crop")
        ),
        ("color+crop_cutout", r"'color\+crop_cutout' mixes '_' \(one of them\) and '\+' \(all of them\)"),
    ],
)


@pytest.mark.parametrize("shape", [(4, 3, 16, 16), (5, 3, 16, 8)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"5 draws for images of size \(16, 16\), got images \("):
        dsa.augment(torch.zeros(shape), make_draws(1, 5))


def test_the_script_on_random_images_shares_all_of_a_mini_batchs_transform(monkeypatch):
    def rotated(images):
        return dsa.augment_stacked([images[None]], "rotate", [[seeding.generator(0, "draws")]])[0][0]

    image, plain = make_images(batch=1), rotated(make_images())
    monkeypatch.setattr(dsa, "_drawn", runpy.run_path(str(ROOT / "docs" / "one_transform.py"))["shared"])
    turned = rotated(image)
    torch.testing.assert_close(rotated(image.expand(5, -1, -1, -1)), turned.expand(5, -1, -1, -1))
    torch.testing.assert_close(plain[:1], rotated(make_images())[:1])
    assert not torch.allclose(plain[1:], rotated(make_images())[1:])
