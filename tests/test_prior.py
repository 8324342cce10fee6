"""A small latent diffusion model: its steps against the same written plainly, what is refused, and how it is kept."""

import copy
import dataclasses
import functools
import math
import shutil

import pytest
import torch
from draws import equal, held, pictures
from test_faults import cell, damage, stopped_after
from torch.nn import functional as F

from ddlib import models, seeding
from ddlib.batch import cli
from ddlib.data import datasets
from ddlib.methods.sampler import Sampler
from ddlib.models import diffusion, priors
from ddlib.pretraining import prior as building
from ddlib.pretraining.prior import Prior, class_ids
from ddlib.store import files, inventory, loop
from ddlib.study import planning, work

SHAPE, CLASSES = (1, 16, 16), 4
SIZES = {"width": 16, "codes": 8, "generator": torch.Generator()}
painted = functools.partial(pictures, 11, SHAPE)
SMALL = {"width": 16, "batch_size": 3, "codes": 8, "autoencoder_steps": 4, "diffusion_steps": 4}


def after(builder, steps, train=None, state=None):
    """The state after so many steps."""
    state = state or builder.start(train or painted(), {}, 7)
    while state.step < steps:
        builder.step(state)
    return state


# --- the steps ---------------------------------------------------------------------------------------------------


def rate(peak, step, steps):
    """Linear in 20 steps, times half a cosine."""
    return peak * min(1, (step + 1) / 20) * (1 + math.cos(math.pi * step / steps)) / 2


def apart(one, other):
    """How far the parameters of two networks are from one another; Adam makes much of what should be 0."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return sum((a - b).detach().square().sum() for a, b in pairs).sqrt()


def test_the_autoencoder_is_trained_on_the_plain_loss(double):
    train, builder = painted(), Prior(**SMALL | {"autoencoder_steps": 8})
    state = after(builder, 5, train)  # codes are moved before the steps 0 to 4
    vae, theirs, optimiser = copy.deepcopy(state.vae), state.vae, state.vae_adam
    start, adam = copy.deepcopy(vae), torch.optim.Adam(vae.parameters(), lr=rate(4e-3, 5, 8))
    for ours, other in zip(vae.parameters(), theirs.parameters(), strict=True):
        adam.state[ours] = copy.deepcopy(optimiser.state[other])
    metrics = builder.step(state)
    rows = torch.randint(11, (3,), generator=seeding.generator(7, "prior", "autoencoder", 5))
    x = train.images[rows].double() / 255 * 2 - 1
    z = vae.encode(x).latents
    codes = vae.quantize.embedding.weight
    places = z.permute(0, 2, 3, 1)
    nearest = codes[(places[..., None, :] - codes).square().sum(-1).argmin(-1)]
    inner = (places + (nearest - places).detach()).permute(0, 3, 1, 2)
    found = vae.decoder(vae.post_quant_conv(inner))
    loss = (found - x).abs().mean() + (found - x).pow(2).mean()
    loss = loss + (nearest.detach() - places).pow(2).mean() + 0.25 * (nearest - places.detach()).pow(2).mean()
    loss.backward()
    adam.step()
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-9)
    assert apart(vae, state.prior.vae) < 1e-4 * apart(start, vae)


def test_the_noise_predictor_is_trained_on_the_plain_loss(double):
    train, builder = painted(), Prior(**SMALL | {"batch_size": 8, "diffusion_steps": 30, "dropout": 0.5})
    state = after(builder, 4 + 25, train)
    before, start = copy.deepcopy(state), copy.deepcopy(state.predictor)
    metrics = builder.step(state)
    stream, prior = seeding.generator(7, "prior", "diffusion", 29), before.prior
    rows, times = torch.randint(11, (8,), generator=stream), torch.randint(1000, (8,), generator=stream)
    e, dropped = torch.randn(8, 3, 8, 8, generator=stream), torch.rand(8, generator=stream) < 0.5
    assert dropped.any() and not dropped.all()
    z = prior.encode(train.images[rows].double() / 255 * 2 - 1).detach()
    loss = 0
    for i, t in enumerate(times.tolist()):
        abar = float(prior.alphas_cumprod[t])
        told = prior.null(1) if dropped[i] else prior.embed(train.labels[rows[i], None])
        noisy = abar**0.5 * z[i, None] + (1 - abar) ** 0.5 * e[i, None]
        loss = loss + (prior.predict(noisy, t, told) - e[i, None]).pow(2).mean() / 8
    loss.backward()
    for group in before.predictor_adam.param_groups:
        group["lr"] = rate(2e-3, 25, 30)
    before.predictor_adam.step()
    assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)
    assert apart(before.predictor, state.predictor) < 0.01 * apart(start, state.predictor)


def test_what_is_kept_is_the_running_average():
    builder = Prior(**SMALL | {"diffusion_steps": 3, "ema": 0.3})
    state = after(builder, 4)
    expected = {name: parameter.detach().clone() for name, parameter in state.predictor.named_parameters()}
    for decay in (1 / 10, 2 / 11, 3 / 12):
        builder.step(state)
        for name, parameter in state.predictor.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    found = held(builder.finish(state))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert not torch.equal(found["unet.conv_out.weight"], state.prior.unet.conv_out.weight)


def test_latents_come_to_unit_variance():
    train, builder = painted(), Prior(**SMALL)
    state = after(builder, 5, train)
    prior = builder.finish(state)
    z = prior.encode(train.images / 127.5 - 1)
    assert z.std().item() == pytest.approx(1, abs=1e-5)
    assert state.latents.std().item() == pytest.approx(1, abs=1e-5)
    assert prior.vae.config.scaling_factor == pytest.approx(
        1 / prior.vae.encode(train.images / 127.5 - 1).latents.std()
    )
    assert not any(parameter.requires_grad for part in (prior.vae, prior.unet) for parameter in part.parameters())


def test_codes_that_nothing_chose_are_moved_to_latents():
    prior = diffusion.small(SHAPE, None, width=16, codes=8, generator=torch.Generator().manual_seed(0))
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 5
    codes = prior.vae.quantize.embedding.weight
    codes.copy_(torch.full((8, 3), 100.0))
    codes[2] = 5.0
    before = codes.clone()
    building.revive(prior.vae.quantize, z, torch.Generator().manual_seed(2), all_codes=False)
    assert torch.equal(codes[2], before[2])
    places = z.permute(0, 2, 3, 1).reshape(-1, 3)
    moved = codes[[0, 1, 3, 4, 5, 6, 7]]
    assert (moved[:, None] == places).all(-1).any(-1).all() and len(moved.unique(dim=0)) > 3
    building.revive(prior.vae.quantize, z, torch.Generator().manual_seed(3), all_codes=True)
    assert not torch.equal(codes[2], before[2])
    assert [step for step in range(16) if building.revives(step, 16)] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("cut", [1, 3, 4, 6])
def test_bits_that_a_cut_leaves_are_those_of_an_uninterrupted_run(cut):
    builder = Prior(**SMALL)
    whole = after(builder, 8)
    saved = {name: tensor.clone() for name, tensor in after(builder, cut).state_dict().items()}
    second = after(Prior(**SMALL | {"lr_autoencoder": 1e-3}), 5)  # with latents, of another autoencoder
    second.load_state_dict(saved)
    after(builder, 8, state=second)
    assert equal(second.state_dict(), whole.state_dict())
    ours, theirs = builder.finish(second), builder.finish(whole)
    assert equal(ours, theirs)
    assert ours.vae.config.scaling_factor == theirs.vae.config.scaling_factor


@pytest.mark.parametrize(
    ("trained", "steps", "moved"),
    [("all", 8, {"vae", "unet", "embedder"}), ("autoencoder", 4, {"vae"}), ("none", 0, set())],
)
def test_what_is_not_trained_stays_as_it_was_drawn(trained, steps, moved):
    """And torch's global random state as it was."""
    before, builder, train = torch.get_rng_state(), Prior(**SMALL, trained=trained), painted()
    assert builder.iterations == steps
    drawn = held(builder.start(train, {}, 7).prior)
    found = held(loop.run(builder, builder.start(train, {}, 7)).product)
    assert {name.split(".")[0] for name in drawn if not torch.equal(drawn[name], found[name])} == moved
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("shape", "given", "latent_shape"),
    [((1, 16, 16), None, (3, 8, 8)), ((3, 32, 32), None, (3, 16, 16)), ((3, 32, 32), 4, (3, 8, 8)),
     ((3, 64, 64), None, (3, 16, 16)), ((1, 28, 28), None, (3, 14, 14))],
)  # fmt: skip
def test_every_shape_has_its_latents(shape, given, latent_shape):
    builder = Prior(**SMALL, factor=given, trained="none")
    prior = builder.finish(builder.start(pictures(4, shape), {}, 0))
    assert prior.latent_shape(shape) == latent_shape
    assert prior.decode(torch.zeros(1, *latent_shape)).shape == (1, *shape)


# --- what it is trained on ---------------------------------------------------------------------------------------


def test_another_data_set_is_brought_to_the_shape_of_the_cells(monkeypatch):
    colours = pictures(5, (3, 32, 32), 2, "colours")
    monkeypatch.setattr(datasets, "load", lambda name, split, device: {"photographs": colours}[name])
    state = Prior(**SMALL, data="photographs", conditional=False).start(painted(), {}, 0)
    gray = (colours.images.float() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    expected = F.interpolate(gray, (16, 16), mode="bilinear", antialias=True)
    assert state.images.shape == (5, *SHAPE) and (state.images.float() - expected).abs().max() <= 0.5001
    assert torch.equal(state.labels, colours.labels) and state.prior.num_classes is None
    wide = building.shaped(painted(), (3, 16, 16))
    assert torch.equal(wide, painted().images.repeat(1, 3, 1, 1))


def test_whitened_images_are_brought_back():
    plain, whitened = (datasets.load("digits", "train", zca=zca) for zca in (False, True))
    assert (building.shaped(whitened, SHAPE).int() - plain.images.int()).abs().max() <= 1


def test_mirror_images_are_images_too():
    state = Prior(**SMALL, mirrored=True).start(painted(), {}, 0)
    assert torch.equal(state.images, torch.cat([painted().images, painted().images.flip(-1)]))
    assert state.labels.tolist() == 2 * painted().labels.tolist()


def test_data_that_do_not_fit_are_refused():
    digits = datasets.load("digits", "train")
    with pytest.raises(ValueError, match="data='photographs' has 2 classes and digits 10; .* conditional=False"):
        Prior(**SMALL, data="photographs").start(digits, {}, 0)
    with pytest.raises(ValueError, match="unknown dataset 'cifar11'"):
        Prior(**SMALL, data="cifar11")
    with pytest.raises(ValueError, match="pictures has 2 channels; allowed: 3, or 1 for 3 and 3 for 1"):
        building.shaped(pictures(4, (2, 16, 16)), (3, 16, 16))
    with pytest.raises(ValueError, match="sides must be multiples of 4"):
        Prior(**SMALL, factor=4).start(pictures(4, (1, 18, 18)), {}, 0)


def test_classes_are_those_of_the_prior_or_their_places_in_all_of_imagenet():
    prior, without = (diffusion.small(SHAPE, k, width=16, generator=torch.Generator()) for k in (CLASSES, None))
    assert class_ids(prior, painted()).tolist() == [0, 1, 2, 3] and class_ids(without, painted()) is None
    whole = diffusion.small((3, 16, 16), 1000, width=16, generator=torch.Generator())
    found = class_ids(whole, pictures(10, (3, 16, 16), 10, "imagenette32"))
    assert found.tolist() == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]
    with pytest.raises(ValueError, match="the prior is of 1000 classes, and cifar10 has 10; take a prior of as many"):
        class_ids(whole, pictures(10, (3, 16, 16), 10, "cifar10"))
    with pytest.raises(ValueError, match="images of 3 channels; this prior is of images of 1"):
        class_ids(prior, pictures(4, (3, 16, 16)))


@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("autoencoder_steps", -1, "it must be >= 0"),
        ("batch_size", 0, "it must be >= 1"),
        ("dropout", 1.0, r"it must be in \[0, 1\)"),
        ("ema", -0.1, r"it must be in \[0, 1\)"),
        ("lr_diffusion", 0.0, "it must be > 0"),
        ("trained", "vae", "it must be one of all, autoencoder, none"),
        ("precision", "half", "it must be one of float32, bfloat16"),
        ("width", 24, "it must be a positive multiple of 16"),
        ("factor", 3, "it must be a power of two, or None"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, match):
    with pytest.raises(ValueError, match=f"{setting}={value!r} of the prior; {match}"):
        Prior(**SMALL | {setting: value})


# --- in the store ------------------------------------------------------------------------------------------------


@pytest.fixture
def needing(monkeypatch):
    """A cell on some digits whose method needs a prior."""
    digits = datasets.load("digits", "train")
    some = dataclasses.replace(digits, images=digits.images[:30], labels=digits.labels[:30])
    monkeypatch.setattr(work, "real_set", lambda *_: some)
    found = cell("Herding")
    needs = {"prior": Prior(**SMALL)}
    monkeypatch.setattr(type(found.method), "needs", property(lambda method: needs), raising=False)
    return found


def test_a_prior_is_made_once_and_kept_as_a_folder(needing, workplace):
    made = work.prerequisites(needing, workplace)["prior"]
    (folder,) = workplace.folder.glob("prior/*")
    known = files.read_json(folder / "run.json")
    assert known["product"] == "prior" and known["steps"] == 8 and known["bytes_stored"] == Prior().size(made)
    assert {path.name for path in (folder / "prior").iterdir()} >= {"vae", "unet", "scheduler", "class_embedder"}
    assert equal(priors.load_prior(folder / "prior"), made)
    stamp = (folder / "run.json").stat().st_mtime_ns
    again = work.prerequisites(needing, workplace)["prior"]
    assert equal(again, made) and (folder / "run.json").stat().st_mtime_ns == stamp
    builder, train = Prior(**SMALL), work.real_set(needing, "train", workplace)
    begun = loop.run(builder, builder.start(train, {}, 0)).product
    assert equal(begun, made) and begun.vae.config.scaling_factor == made.vae.config.scaling_factor


@pytest.mark.parametrize("steps", [2, 6])
def test_an_interrupted_prior_goes_on(steps, needing, workplace, monkeypatch, tmp_path):
    whole = work.prerequisites(needing, dataclasses.replace(workplace, folder=tmp_path / "whole"))["prior"]
    with stopped_after(monkeypatch, steps):
        work.prerequisites(needing, workplace)
    (entry,) = inventory.entries(workplace.folder)
    assert entry.state == f"interrupted: step {steps} of 8"
    assert equal(work.prerequisites(needing, workplace)["prior"], whole)
    assert [sitting["step"] for sitting in files.read_json(entry.folder / "run.json")["sittings"]] == [0, steps]


@pytest.mark.parametrize("how", ["flipped", "truncated", "deleted", "folder"])
def test_a_damaged_prior_is_seen_put_aside_and_made_again(how, needing, workplace, capsys):
    found = held(work.prerequisites(needing, workplace)["prior"])
    expected = {name: tensor.clone() for name, tensor in found.items()}  # what was found is mapped from the file
    (folder,) = workplace.folder.glob("prior/*")
    path = folder / "prior/unet/diffusion_pytorch_model.safetensors"
    if how == "folder":
        shutil.rmtree(folder / "prior")
    else:
        damage(path, how)
    assert cli.main(["runs", "show", folder.name, "--store", str(workplace.folder)]) == (0 if how == "folder" else 1)
    told = capsys.readouterr().out
    seen = "damaged: prior is missing" if how == "folder" else f"{folder / 'prior'} is damaged: unet/diffusion_pyt"
    assert seen in told
    assert equal(work.prerequisites(needing, workplace)["prior"], expected)
    assert (folder / "prior.damaged").is_dir() == (how != "folder")
    (entry,) = inventory.entries(workplace.folder)
    assert entry.state == "finished" and inventory.faults(entry) == []
    cli.main(["runs", "clean", "--store", str(workplace.folder)])
    assert not (folder / "prior.damaged").exists() and (folder / "prior").is_dir()
    inventory.remove(entry)
    assert entry.size > Prior().size(diffusion.small(SHAPE, 10, **SIZES)) and not folder.exists()


def test_half_a_prior_can_be_thrown_away(needing, workplace, capsys):
    work.prerequisites(needing, workplace)
    (folder,) = workplace.folder.glob("prior/*")
    part = folder / ".prior.ab12.part"
    (part / "vae").mkdir(parents=True)
    (part / "vae/config.json").write_bytes(b"12345")
    assert inventory.leftovers(workplace.folder) == [part] and inventory.size(part) == 5
    assert inventory.faults(inventory.entries(workplace.folder)[0]) == []
    cli.main(["runs", "clean", "--store", str(workplace.folder)])
    assert "deleted 1 files, 0.0 kB" in capsys.readouterr().out and not part.exists()


def test_the_other_data_decide_the_artefact_too(needing, monkeypatch):
    plain, other = Prior(**SMALL), Prior(**SMALL, data="photographs", conditional=False)
    assert "of" not in work._identity(plain)
    assert work._identity(other)["of"] == datasets.load("photographs", "train").fingerprint


def test_a_prior_is_estimated_stage_by_stage(monkeypatch):
    monkeypatch.setattr(planning, "PACES", {})
    train, builder = pictures(40, SHAPE), Prior(**SMALL)
    found = planning.prerequisite(builder, train)
    first, second = (planning.prerequisite(dataclasses.replace(builder, **{name: 0}), train) for name in
                     ("diffusion_steps", "autoencoder_steps"))  # fmt: skip
    assert found.disk == builder.size(builder.finish(builder.start(train, {}, 0))) + planning.RECORD
    assert found.seconds > max(first.seconds, second.seconds) * 0.5 and found.checkpoint > 2 * found.disk
    paces = [*planning.PACES.values()]
    assert len(planning.PACES) == 2, "the lengths of the stages say nothing about a step"
    long = planning.prerequisite(dataclasses.replace(builder, diffusion_steps=1000), train)
    assert long.seconds - found.seconds == pytest.approx(996 * paces[1].step)
    assert builder.product == Prior(**SMALL, trained="none").product == "prior"


@pytest.mark.slow
def test_a_prior_of_digits_draws_digits():
    """At the default settings images come back at 20 dB, and samples are taken for what they were asked to be."""
    train, test = (datasets.load("digits", split) for split in ("train", "test"))
    builder = Prior()
    state = builder.start(train, {}, 0)
    prior = loop.run(builder, state).product
    images = test.images / 127.5 - 1
    with torch.no_grad():
        error = F.mse_loss(prior.decode(prior.encode(images)).clamp(-1, 1), images)
        codes = prior.vae.quantize(prior.vae.encode(images).latents)[2][2].unique()
    assert 10 * math.log10(4 / error.item()) > 20 and len(codes) > builder.codes // 2
    network = models.build("convnet", shape=train.shape, num_classes=10, generator=seeding.generator(0), width=32)
    adam = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(200):
        rows = torch.randint(len(train), (128,), generator=seeding.generator(1, "rows", step))
        loss = F.cross_entropy(network(train.images[rows] / 127.5 - 1), train.labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
    labels, stream = torch.arange(10).repeat_interleave(20), seeding.generator(2)
    sampler = Sampler(steps=10, residual="none", guidance=3.0)
    shape = (200, *prior.latent_shape(train.shape))
    with torch.no_grad():
        z = torch.randn(shape, generator=stream)
        drawn = sampler.render(prior, z, prior.embed(labels), sampler.noise(shape, stream)).clamp(-1, 1)
        assert (network(images).argmax(1) == test.labels).float().mean() > 0.97
        assert (network(drawn).argmax(1) == labels).float().mean() > 0.8
