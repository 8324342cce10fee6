"""GLaD through a StyleGAN-XL: a checkout of three small files stands for the user's own."""

import dataclasses
import pickle
import sys

import pytest
import torch

from ddlib import methods, seeding
from ddlib.data import datasets, synthetic
from ddlib.models.latent.stylegan import Checkout, StyleGAN

LEGACY = """
import pickle
import torch
import dnnlib
import {needed}


class Input(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.affine = torch.nn.Linear(5, 4 * 6 * 6)

    def forward(self, w):
        return self.affine(w).view(-1, 4, 6, 6)


class Layer(torch.nn.Module):
    def __init__(self, channels, grows):
        super().__init__()
        self.affine, self.grows = torch.nn.Linear(5, 4), grows
        self.conv = torch.nn.Conv2d(4, channels, 3)

    def forward(self, x, w, noise_mode="random"):
        x = self.conv(x * self.affine(w)[:, :, None, None])
        return torch.nn.functional.interpolate(x, scale_factor=2.0) if self.grows else x


class Synthesis(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.input, self.output_scale = Input(), 0.25
        self.L0_8_4, self.L1_6_4, self.L2_8_1 = Layer(4, True), Layer(4, True), Layer(channels, False)
        self.L1_6_4.conv.padding, self.L2_8_1.conv.padding = (0, 0), (0, 0)
        self.layer_names, self.num_ws = ["L0_8_4", "L1_6_4", "L2_8_1"], 4

    def forward(self, ws):
        w = ws.unbind(1)
        x = self.input(w[0])
        for name, style in zip(self.layer_names, w[1:]):
            x = getattr(self, name)(x, style)
        return x * self.output_scale


class Mapping(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.linear = torch.nn.Linear(3 + classes, 5)

    def forward(self, z, c, truncation_psi=1):
        return self.linear(torch.cat([z, c], 1)).tanh()[:, None].expand(-1, 4, -1)


class Generator(torch.nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.z_dim, self.c_dim, self.img_channels, self.img_resolution = 3, classes, channels, 10
        self.mapping, self.synthesis = Mapping(classes), Synthesis(channels)


def load_network_pkl(file):
    told = dnnlib.EasyDict(pickle.load(file))
    torch.manual_seed(told["seed"])
    return {{"G_ema": Generator(told["classes"], told["channels"]).train()}}
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Makes a checkout with its pickle; its modules are forgotten after the test."""
    before = set(sys.modules)

    def make(needed="math", name="stylegan-xl", **told):
        folder = tmp_path / name
        (folder / "dnnlib").mkdir(parents=True)
        (folder / "dnnlib" / "__init__.py").write_text("class EasyDict(dict):\n    pass\n")
        (folder / "legacy.py").write_text(LEGACY.format(needed=needed))
        (folder / "network.pkl").write_bytes(pickle.dumps({"seed": 1, "classes": 10, "channels": 1} | told))
        return {"stylegan": str(folder), "pickle": str(folder / "network.pkl"), "trusted": True}

    yield make
    for module in set(sys.modules) - before:
        if module in ("dnnlib", "legacy"):
            del sys.modules[module]


def digits() -> datasets.ImageSet:
    whole = datasets.load("digits", "train")
    rows = torch.cat([rows[:8] for rows in whole.class_indices])
    return dataclasses.replace(whole, images=whole.images[rows][..., 3:13, 3:13], labels=whole.labels[rows])


def glad(prior, **settings) -> methods.Method:
    small = {"ipc": 2, "iterations": 3, "width": 8, "depth": 2, "batch_real": 4, "strategy": "none", "layer": 1}
    return methods.build("glad", prior=prior, **small | settings)


def test_both_halves_together_are_the_network(checkout):
    found = Checkout(**checkout()).load()
    w = 0.3 * torch.randn(5, 4, 5, generator=seeding.generator(1))
    for layer in range(found.layers):
        f = found.split_decode(w, layer)
        assert f.abs().max() < 10  # nothing was clipped
        assert torch.equal(found.decode_from(f, layer, w), found.network.synthesis(w))
    assert found.latent_shape((1, 10, 10)) == (3,) and (found.channels, found.num_classes) == (1, 10)
    assert not found.network.training and not any(p.requires_grad for p in found.network.parameters())


def test_what_is_learnt_begins_finite_and_within_ten(checkout):
    found = Checkout(**checkout()).load()
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 40.0, -40.0, 7.0])
    found.network.synthesis.input.forward = lambda w: odd.expand(len(w), -1)
    assert found.split_decode(torch.zeros(1, 4, 5), 0).tolist() == [[0.0, 5.0, -5.0, 10.0, -10.0, 7.0]]


def test_styles_are_of_the_class_and_averages_of_many(checkout):
    found = Checkout(**checkout()).load()
    labels = torch.tensor([3, 3, 8])
    z = torch.randn(3, 3, generator=seeding.generator(5))
    wanted = found.network.mapping(z, torch.eye(10)[labels])
    torch.testing.assert_close(found.styles(labels, 3, seeding.generator(5), average=False), wanted)
    mean = found.styles(labels, 3, seeding.generator(5), average=True)
    assert (mean[0] - mean[1]).abs().max() < 0.1 < (mean[0] - mean[2]).abs().max()
    many = torch.randn(20_000, 3, generator=seeding.generator(6))
    expected = found.network.mapping(many, torch.eye(10)[3].expand(20_000, -1)).mean(0)
    torch.testing.assert_close(mean[0], expected, rtol=0, atol=0.06)


def test_without_classes_styles_come_of_noise_alone(checkout):
    prior = checkout(classes=0)
    method, train = glad(prior), digits()
    state = method.start(train, {}, 7)
    assert state.prior.num_classes is None and state.tensors["w"].shape == (20, 4, 5)
    assert method.step(state)["gradient_w"] > 0


def test_a_step_is_that_of_the_loss_through_the_last_layers(checkout):
    """Against one plain graph; the styles of the layers that are left out stay."""
    method, train = glad(checkout(), momentum=0.0), digits()
    state = method.start(train, {}, 7)
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    leaves = [before["f"].clone().requires_grad_(), before["w"].clone().requires_grad_()]
    synthesis = state.prior.network.synthesis
    x = synthesis.L2_8_1(synthesis.L1_6_4(leaves[0], leaves[1][:, 2]), leaves[1][:, 3]) * 0.25
    images = train.space.encode(((x + 1) / 2).clamp(0, 1))
    plain = methods.build("dm", ipc=2, width=8, depth=2, batch_real=4, strategy="none")
    inner = plain.start(train, {}, 7)
    inner.images = images
    _, slope = plain.slope(inner)
    wanted = torch.autograd.grad(images, leaves, slope)
    method.step(state)
    for (name, rate), gradient in zip({"f": 10.0, "w": 0.01}.items(), wanted, strict=True):
        assert gradient.norm() > 0
        torch.testing.assert_close((before[name] - state.tensors[name]) / rate, gradient, rtol=1e-3, atol=1e-4)
    assert torch.equal(before["w"][:, :2], state.tensors["w"][:, :2])


@pytest.mark.parametrize("chunk", [None, 7])
def test_what_is_kept_renders_the_images_again(checkout, tmp_path, chunk):
    prior = checkout()
    method = glad(prior, chunk=chunk)
    state = method.start(digits(), {}, 7)
    assert method.needs == {} and method.step(state)["loss"] > 0
    synthetic.save(method.finish(state), tmp_path / "set.safetensors")
    kept = synthetic.load(tmp_path / "set.safetensors")
    found = Checkout(**prior).load()
    pieces = [slice(at, at + (chunk or 20)) for at in range(0, 20, chunk or 20)]
    images = torch.cat([found.decode_from(kept.latents["f"][r], 1, kept.latents["w"][r]) for r in pieces])
    assert torch.equal(kept.space.encode(images.add(1).div(2).clamp(0, 1)), kept.images)


def test_step_sizes_of_styles_are_the_published_ones_or_told(checkout):
    prior = checkout()
    published = {"dc": {"f": 1.0, "w": 0.001}, "dm": {"f": 10.0, "w": 0.01}, "mtt": {"f": 1e4, "w": 10.0}}
    options = {"mtt": {"experts": 1, "expert_training": 2, "max_start_epoch": 1, "expert_epochs": 1}}
    for matching, rates in published.items():
        assert glad(prior, matching=matching, options=options.get(matching, {})).rates == rates
    assert glad(prior | {"lr_w": 0.5}).rates == {"f": 10.0, "w": 0.5}


def test_the_random_state_and_the_path_stay_as_they_were(checkout):
    told, path, state = checkout(seed=2), list(sys.path), torch.get_rng_state()
    first, second = Checkout(**told).load(), Checkout(**told).load()
    assert sys.path == path and torch.equal(torch.get_rng_state(), state)
    same = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert isinstance(first, StyleGAN) and all(torch.equal(a, b) for a, b in same)


def test_nothing_is_run_that_is_not_trusted(checkout):
    told = checkout(needed="a_package_that_is_not_there")
    with pytest.raises(ValueError, match="trusted=False; .* runs code of whoever made it, .* must be True to do so"):
        Checkout(**told | {"trusted": False}).load()
    assert "legacy" not in sys.modules
    with pytest.raises(ValueError, match="needs the package 'a_package_that_is_not_there'; install it"):
        Checkout(**told).load()


def test_what_cannot_be_is_refused(checkout, tmp_path):
    told, train = checkout(), digits()
    with pytest.raises(FileNotFoundError, match="has no dnnlib; it must be a checkout of StyleGAN-XL"):
        Checkout(**told | {"stylegan": str(tmp_path)}).load()
    with pytest.raises(FileNotFoundError, match="pickle='none.pkl'; there is no such file"):
        Checkout(**told | {"pickle": "none.pkl"}).load()
    with pytest.raises(ValueError, match=r"layer=3; this StyleGAN has the layers 0 to 2"):
        glad(told, layer=3).start(train, {}, 0)
    wide = dataclasses.replace(train, images=train.images[..., :8])
    with pytest.raises(ValueError, match=r"images of shape \(1, 10, 8\); this StyleGAN makes .* \(1, 10, 10\)"):
        glad(told).start(wide, {}, 0)
    with pytest.raises(ValueError, match="the prior is of 7 classes, and digits has 10"):
        glad(told | {"pickle": checkout(name="other", classes=7)["pickle"]}).start(train, {}, 0)
    with pytest.raises(ValueError, match="the module 'legacy' of .*stylegan-xl is in use here"):
        Checkout(**told | {"stylegan": str(tmp_path / "other")}).load()
    with pytest.raises(ValueError, match="init='gaussian'; it must be 'encoded' with a StyleGAN"):
        glad(told, init="gaussian")
    with pytest.raises(ValueError, match=r"lr_w=0.0; it must be > 0"):
        glad(told | {"lr_w": 0.0})
    with pytest.raises(ValueError, match="unknown setting 'pickel' of a StyleGAN prior"):
        glad({"stylegan": told["stylegan"], "pickel": told["pickle"]})
    with pytest.raises(ValueError, match="unknown setting .* of the prior"):
        methods.build("ld3m", ipc=1, prior=told)
