"""The sampler: against diffusers' own steps, frozen noise, and exact gradients however they are computed."""

import copy
import dataclasses
from functools import partial

import draws
import pytest
import torch
from draws import seeded
from refusals import refuses

from ddlib.methods.sampler import RESIDUALS, Sampler
from ddlib.models import diffusion
from ddlib.models.diffusion import LatentDiffusion

DIVISORS = (2, 4, 5, 8, 10, 20, 25, 40, 50)
normal = partial(draws.normal, dtype=torch.float64)


def doubled(prior):
    for part in (prior.vae, prior.unet, prior.embedder):
        if part is not None:
            part.double()
    return prior


@pytest.fixture(scope="module")
def coded():
    """With codes, and conditional."""
    return doubled(diffusion.small((1, 8, 8), 3, width=16, generator=seeded(), codes=16))


@pytest.fixture(scope="module")
def unconditional():
    return doubled(diffusion.small((3, 8, 8), None, width=16, generator=seeded(), codes=16))


class Smooth(LatentDiffusion):
    """Without codes, so that images are differentiable in the latents."""

    def quantise(self, z):
        return z


class Constant(LatentDiffusion):
    """A noise predictor that answers the same to all."""

    def predict(self, z, t, c):
        return torch.full_like(z, 0.3)


class Curved(LatentDiffusion):
    """A noise predictor that is cheap, and depends on all that it is given."""

    def predict(self, z, t, c):
        return torch.tanh(z * (0.2 + t / 2000) + c.mean((1, 2))[:, None, None, None])


def like(prior, kind):
    return kind(prior.vae, prior.unet, prior.scheduler, prior.embedder)


@pytest.fixture(scope="module")
def smooth(coded):
    return like(coded, Smooth)


def given(prior, count=3, **settings):
    """A sampler, Z, c and noise."""
    sampler = Sampler(**settings)
    Z = normal(count, 3, 4, 4)
    labels = torch.arange(count) % (prior.num_classes or 1)
    c = None if prior.num_classes is None else prior.embed(labels).detach().clone()
    return sampler, Z, c, sampler.noise(Z.shape, seeded(2)).double()


def gradients(prior, sampler, Z, c, noise):
    """Images, and the gradients of a projection of them."""
    leaves = [tensor.clone().requires_grad_() for tensor in (Z, c) if tensor is not None]
    images = sampler.render(prior, leaves[0], leaves[1] if c is not None else None, noise)
    return images.detach(), *torch.autograd.grad((images * normal(*images.shape)).sum(), leaves, allow_unused=True)


# The steps, against diffusers'.


def plain(prior, sampler, Z, c, noise):
    """The sampling as published, on diffusers' own steps."""
    scheduler = copy.deepcopy(prior.scheduler)
    scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = prior.alphas_cumprod, prior.alphas_cumprod[0]
    scheduler.set_timesteps(sampler.steps)
    times, K = [int(t) for t in scheduler.timesteps], sampler.steps
    z = start = scheduler.add_noise(Z, noise[0], torch.tensor(times[:1]))
    for k, t in zip(range(K, 0, -1), times, strict=True):
        null, e = prior.predict(z, t, prior.null(len(z))), prior.predict(z, t, c)
        e = null + sampler.guidance * (e - null)
        if sampler.residual == "eq7":
            mean = scheduler.step(e, t, z, eta=1, variance_noise=torch.zeros_like(z)).prev_sample
            sigma = scheduler._get_variance(t, t - 1000 // K) ** 0.5
            z = (1 - k / K) * mean + k / K * start + sigma * noise[k]
            continue
        step = scheduler.step(e, t, z)
        weight = (k - 1) / (K - 1) if sampler.residual == "x0" and K > 1 else 0
        kept = scheduler.alphas_cumprod[times[K - k + 1] if k > 1 else 0]
        z = step.prev_sample + kept**0.5 * weight * (prior.quantise(Z) - step.pred_original_sample)
    return z


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("steps", (1, *DIVISORS, 100, 500))
def test_steps_are_those_of_diffusers(coded, residual, steps):
    prior = like(coded, Curved)
    sampler, *tensors = given(prior, steps=steps, residual=residual)
    torch.testing.assert_close(sampler.latents(prior, *tensors), plain(prior, sampler, *tensors), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("guidance", "batch"), [(2.0, 6), (1.0, 3)])
def test_guidance_takes_one_call_of_a_double_batch(coded, guidance, batch):
    calls = []

    class Counted(Curved):
        def predict(self, z, t, c):
            calls.append((len(z), t))
            return super().predict(z, t, c)

    sampler, *tensors = given(coded, steps=5, guidance=guidance)
    found = sampler.latents(like(coded, Counted), *tensors)
    assert calls == [(batch, t) for t in (801, 601, 401, 201, 1)], "published times"
    torch.testing.assert_close(found, plain(like(coded, Curved), sampler, *tensors), rtol=1e-9, atol=1e-9)


# With the noise frozen.


def derivative(prior, **settings):
    """dz_0 / dZ along a direction, and the direction."""
    sampler, Z, c, noise = given(prior, **settings)
    Z.requires_grad_()
    direction = normal(*Z.shape, seed=9)
    return torch.autograd.grad(sampler.latents(prior, Z, c, noise), Z, direction)[0], direction


@pytest.mark.parametrize("residual", ["x0", "none"])
@pytest.mark.parametrize("steps", DIVISORS)
def test_what_does_not_pass_through_the_network_is_the_identity(coded, residual, steps):
    found, direction = derivative(like(coded, Constant), steps=steps, residual=residual)
    torch.testing.assert_close(found, coded.alphas_cumprod[0] ** 0.5 * direction, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("steps", "expected"), [(10, 0.042), (20, 0.025), (50, 0.017)])
def test_the_printed_equation_passes_on_little(coded, steps, expected):
    found, direction = derivative(like(coded, Constant), steps=steps, residual="eq7")
    ratio = found / direction
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))
    assert ratio.mean() == pytest.approx(expected, abs=6e-4)


# Gradients.


@pytest.mark.parametrize("residual", RESIDUALS)
def test_gradients_are_those_of_finite_differences(smooth, residual):
    sampler, Z, c, noise = given(smooth, steps=4, residual=residual)
    images, to_Z, to_c = gradients(smooth, sampler, Z, c, noise)
    weights, h = normal(*images.shape), 1e-5
    along_Z, along_c = normal(*Z.shape, seed=11), normal(*c.shape, seed=12)
    for step_Z, step_c in ((along_Z, 0 * along_c), (0 * along_Z, along_c)):
        more, less = (sampler.render(smooth, Z + s * step_Z, c + s * step_c, noise) for s in (h, -h))
        expected = ((more - less) * weights).sum() / (2 * h)
        torch.testing.assert_close((to_Z * step_Z).sum() + (to_c * step_c).sum(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["coded", "smooth", "unconditional"])
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("backprop_steps", [None, 2])
def test_checkpointing_changes_nothing(name, residual, backprop_steps, request):
    prior = request.getfixturevalue(name)
    sampler, *tensors = given(prior, steps=4, residual=residual, backprop_steps=backprop_steps)
    expected = gradients(prior, sampler, *tensors)
    found = gradients(prior, dataclasses.replace(sampler, checkpointed=True), *tensors)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backprop_steps", [0, 2])
def test_fewer_steps_change_the_gradient_and_not_the_images(coded, backprop_steps):
    sampler, *tensors = given(coded, steps=4)
    images, to_Z, to_c = gradients(coded, sampler, *tensors)
    found = gradients(coded, dataclasses.replace(sampler, backprop_steps=backprop_steps), *tensors)
    assert torch.equal(found[0], images) and not torch.allclose(found[1], to_Z)
    assert (found[2] is None) == (backprop_steps == 0) and to_c.any()


def kept_for_the_gradient(prior, sampler, *tensors):
    """Bytes that the graph of one rendering holds."""
    Z, c, noise = tensors
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {x.untyped_storage().data_ptr() for part in (prior.vae, prior.unet) for x in part.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        images = sampler.render(prior, Z.clone().requires_grad_(), c.clone().requires_grad_(), noise)
    assert images.requires_grad
    return sum(size for place, size in sizes.items() if place not in weights)


def test_checkpointing_and_fewer_steps_keep_less(coded):
    sampler, *tensors = given(coded, steps=10)

    def bytes_kept(**changes):
        return kept_for_the_gradient(coded, dataclasses.replace(sampler, **changes), *tensors)

    full = bytes_kept()
    assert bytes_kept(backprop_steps=2) < full / 2
    assert bytes_kept(checkpointed=True) < full / 20
    decoder = bytes_kept(backprop_steps=0)
    assert bytes_kept(backprop_steps=0, checkpointed=True) < decoder / 10


# One rule each.


def test_the_noise_is_all_that_one_sampling_takes():
    shape = (2, 3, 4, 4)
    assert torch.equal(Sampler().noise(shape, seeded(1)), Sampler().noise(shape, seeded(1)))
    assert not torch.equal(Sampler().noise(shape, seeded(1)), Sampler().noise(shape, seeded(2)))
    assert Sampler(steps=4, residual="eq7").noise(shape, seeded()).shape == (5, *shape)
    assert Sampler(steps=4).noise(shape, seeded()).shape == (1, *shape)


test_refuses_settings = refuses(
    Sampler,
    [
        ({"steps": 0}, "steps=0; it must be >= 1"),
        ({"residual": "mean"}, "residual='mean'; it must be one of x0, eq7, none"),
        ({"guidance": float("nan")}, "guidance=nan; it must be finite"),
        ({"backprop_steps": 11}, "backprop_steps=11; it must be 0 to steps=10, or None"),
        ({"backprop_steps": -1}, "backprop_steps=-1"),
    ],
)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda Z, c, noise: (Z, c, noise[:, :2]), r"noise of shape \(1, 2, 3, 4, 4\); .* must be \(1, 3, 3, 4, 4\)"),
        (lambda Z, c, noise: (Z, c[:2], noise), r"c of shape \(2, 1, 16\); .* must be \(3, 1, 16\)"),
        (lambda Z, c, noise: (Z, c[..., :8], noise), r"c of shape \(3, 1, 8\)"),
        (lambda Z, c, noise: (Z, None, noise), "c=None, and the prior is of 3 classes"),
    ],
)
def test_refuses_tensors_that_do_not_fit(coded, change, match):
    sampler, Z, c, noise = given(coded)
    with pytest.raises(ValueError, match=match):
        sampler.latents(coded, *change(Z, c, noise))


def test_refuses_classes_where_there_are_none(coded, unconditional):
    sampler, Z, c, noise = given(coded)
    with pytest.raises(ValueError, match="c=a tensor, and the prior is unconditional"):
        sampler.latents(unconditional, Z, c, noise)


@pytest.mark.parametrize("steps", [3, 1000, 2000])
def test_refuses_steps_that_do_not_divide(coded, steps):
    with pytest.raises(ValueError, match=f"steps={steps}; with a schedule of 1000 steps .* one of 1, 2, 4, 5, 8, 10, "):
        Sampler(steps=steps).latents(coded, *given(coded)[1:])
