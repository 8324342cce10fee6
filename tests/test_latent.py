"""Latent diffusion models: their parts against diffusers' own, folders there and back, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from draws import equal, held, normal, seeded
from refusals import refuses

from ddlib.methods.sampler import Sampler
from ddlib.models.diffusion import SCHEDULE, LatentDiffusion, small
from ddlib.models.priors import load_prior, save_prior


def of_vq(num_classes=3, channels=1):
    return small((channels, 8, 8), num_classes, width=16, generator=seeded(), codes=16)


PRIORS = {"gray": of_vq, "colour": lambda: of_vq(channels=3), "unconditional": lambda: of_vq(None)}


@pytest.fixture(scope="module", params=PRIORS)
def prior(request):
    return PRIORS[request.param]()


def rendered(prior, count=4):
    """Images of fixed latents, class vectors and noise."""
    Z = normal(count, *prior.latent_shape((prior.channels, 8, 8)))
    c = prior.embed(torch.arange(count) % (prior.num_classes or 1))
    sampler = Sampler(steps=4)
    return sampler.render(prior, Z, c, sampler.noise(Z.shape, seeded(2)))


# What every prior does.


def test_latents_are_in_scaled_units():
    """The scale of the configuration is applied on the way in, taken back on the way out, and reaches the codes."""
    prior, images, raw = of_vq(), normal(2, 1, 8, 8), normal(2, 3, 4, 4) / 30
    expected = prior.vae.encode(images).latents, prior.vae.decode(raw).sample, prior.vae.quantize(raw)[0]
    prior.vae.register_to_config(scaling_factor=5.0)
    found = prior.encode(images) / 5, prior.decode(raw * 5), prior.quantise(raw * 5) / 5
    torch.testing.assert_close(found, expected)


def test_quantises_to_the_nearest_code_with_the_gradient_of_the_identity():
    prior = of_vq()
    z = (normal(2, 3, 4, 4) / 30).requires_grad_()
    codes, places = prior.vae.quantize.embedding.weight, z.detach().movedim(1, -1).reshape(-1, 3)
    nearest = codes[(places[:, None] - codes).square().sum(2).argmin(1)].view(2, 4, 4, 3).movedim(-1, 1)
    found = prior.quantise(z)
    torch.testing.assert_close(found, nearest)
    (slope,) = torch.autograd.grad(found, z, normal(*z.shape))
    torch.testing.assert_close(slope, normal(*z.shape))


def test_the_decoder_in_two_is_the_decoder(prior):
    z = normal(2, *prior.latent_shape((prior.channels, 8, 8))) / 30
    expected = prior.vae.decode(z / prior.vae.config.scaling_factor).sample
    assert prior.split_decode(z, 0) is z
    for layer in range(prior.stages + 1):
        assert torch.equal(prior.decode_from(prior.split_decode(z, layer), layer), expected)
    assert torch.equal(prior.split_decode(z, prior.stages), expected)
    for layer in (-1, prior.stages + 1):
        with pytest.raises(ValueError, match=f"layer={layer}; .* has the layers 0 to {prior.stages}"):
            prior.split_decode(z, layer)
        with pytest.raises(ValueError, match=f"layer={layer}"):
            prior.decode_from(z, layer)


def test_is_frozen(prior):
    for part in (prior.vae, prior.unet, prior.embedder):
        assert part is None or not part.training
        assert part is None or not any(weight.requires_grad for weight in part.parameters())


# Classes.


def test_classes_are_embedded_and_the_null_class_is_the_last_row():
    prior, z = of_vq(), normal(2, 3, 4, 4)
    assert prior.num_classes == 3 and prior.embed(torch.tensor([0, 3])).shape == (2, 1, 16)
    assert torch.equal(prior.null(2), prior.embed(torch.tensor([3, 3])))
    c = prior.embed(torch.tensor([2, 0]))
    assert torch.equal(prior.predict(z, 7, c), prior.unet(z, 7, encoder_hidden_states=c).sample)
    without = of_vq(None)
    assert without.num_classes is without.embed(torch.zeros(2, dtype=torch.int64)) is without.null(2) is None
    assert torch.equal(without.predict(z, 7, None), without.unet(z, 7).sample)


# The small one.


KINDS = ((1, None), (1, 10), (2, 1), (3, None), (3, 10))
SIZES = [(*size, *kind) for size in (((1, 16, 16), 2), ((3, 32, 16), 4), ((3, 8, 8), 1)) for kind in KINDS]
SIZES += [((3, 28, 12), 4, 3, 3)]  # latents of odd sides


@pytest.mark.parametrize(("shape", "factor", "levels", "num_classes"), SIZES)
def test_small_is_for_any_shape(shape, factor, levels, num_classes):
    prior = small(shape, num_classes, width=16, generator=seeded(), factor=factor, levels=levels, codes=4)
    assert (prior.channels, prior.factor, prior.num_classes) == (shape[0], factor, num_classes)
    size = prior.latent_shape(shape)
    assert size == (3, shape[1] // factor, shape[2] // factor)
    assert prior.encode(normal(2, *shape)).shape == (2, *size)
    assert prior.predict(normal(2, *size), 5, prior.embed(torch.tensor([0, 0]))).shape == (2, *size)
    assert prior.decode(normal(2, *size)).shape == (2, *shape)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_weights_come_from_the_generator_alone(num_classes):
    state = torch.random.get_rng_state()
    first, again, other = (held(small((1, 8, 8), num_classes, width=16, generator=seeded(seed))) for seed in (0, 0, 1))
    assert equal(first, again)
    drawn = [name for name, weight in first.items() if len(weight.unique()) > 1]  # norms start as ones and zeros
    assert len(drawn) > len(first) / 2 and not any(torch.equal(first[name], other[name]) for name in drawn)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_schedule_is_that_of_cin256():
    found = of_vq().alphas_cumprod
    assert found.shape == (1000,) and found.dtype == torch.float64
    roots = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64)
    torch.testing.assert_close(found, (1 - roots**2).cumprod(0), rtol=1e-15, atol=0)
    torch.testing.assert_close(found, of_vq().scheduler.alphas_cumprod.double(), rtol=2e-5, atol=0)
    assert found[0] ** 0.5 == pytest.approx(0.99925, abs=5e-6)


test_refuses_images_of_another_shape = refuses(
    lambda name, shape: PRIORS[name]().latent_shape(shape),
    [
        ("gray", (3, 8, 8), "images of 3 channels; this prior is of images of 1"),
        ("gray", (1, 9, 8), "images of 9x8 pixels; with this prior sides must be multiples of 2"),
        ("unconditional", (1, 6, 8), "images of 6x8 pixels; with this prior sides must be multiples of 4"),
    ],
)


def other_embedder(prior):
    from ddlib.models.diffusion import ClassEmbedder

    return prior.vae, prior.unet, prior.scheduler, ClassEmbedder(3, 8)


def scheduled(prior, **changed):
    from diffusers import DDIMScheduler

    return prior.vae, prior.unet, DDIMScheduler(**SCHEDULE | changed), prior.embedder


def asking(prior, embedder=None, **changed):
    """The parts, unconditional or not, with a noise predictor that says that it is otherwise."""
    unet = of_vq(None).unet if embedder is None else prior.unet
    unet.register_to_config(**changed)
    return prior.vae, unet, prior.scheduler, embedder


test_refuses_parts_that_do_not_fit = refuses(
    lambda parts: LatentDiffusion(*parts(of_vq())),
    [
        (lambda p: (SimpleNamespace(config=SimpleNamespace(vq_embed_dim=4)), p.unet, p.scheduler, p.embedder),
         "takes latents of 3 channels, not 4"),
        (lambda p: (p.vae, p.unet, p.scheduler, None), "UNet2DConditionModel without a class embedder"),
        (lambda p: (p.vae, of_vq(None).unet, p.scheduler, p.embedder), "UNet2DModel beside a class embedder"),
        (other_embedder, "takes class vectors of 16 values, not 8"),
        (lambda p: scheduled(p, prediction_type="sample"), "_type is 'sample'; known: epsilon, v_prediction"),
        (lambda p: asking(p, class_embed_type="timestep"), "class_embed_type='timestep'; only None is known"),
        (lambda p: asking(p, num_class_embeds=10), "UNet2DModel of num_class_embeds=10; only None is known"),
        (lambda p: asking(p, time_embedding_type="fourier"), "'fourier', as of a score SDE; known: positional"),
        (lambda p: asking(p, p.embedder, addition_embed_type="text"), "of addition_embed_type='text'; only"),
        (lambda p: asking(p, p.embedder, out_channels=6), "gives 6 channels, not the 3 of latents"),
    ],
)  # fmt: skip


@pytest.mark.parametrize("time", [0, 500, torch.tensor([0, 999])])
def test_a_velocity_is_the_same_noise(time):
    prior, z, c = of_vq(), normal(2, 3, 4, 4), normal(2, 1, 16)
    other = LatentDiffusion(*scheduled(prior, prediction_type="v_prediction"))
    abar = prior.alphas_cumprod[time].float().reshape(-1, 1, 1, 1)
    v = prior.predict(z, time, c)  # what this predictor gives, taken for v
    clean = abar.sqrt() * z - (1 - abar).sqrt() * v
    noise = other.predict(z, time, c)
    torch.testing.assert_close(abar.sqrt() * clean + (1 - abar).sqrt() * noise, z)
    torch.testing.assert_close(abar.sqrt() * noise - (1 - abar).sqrt() * clean, v)


# Folders.


def test_saved_and_loaded_is_the_same_to_the_bit(prior, tmp_path):
    save_prior(prior, tmp_path / "prior")
    state = torch.random.get_rng_state()
    loaded = load_prior(tmp_path / "prior")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(rendered(loaded), rendered(prior))
    images = normal(2, prior.channels, 8, 8)
    assert torch.equal(loaded.encode(images), prior.encode(images))
    assert torch.equal(loaded.alphas_cumprod, prior.alphas_cumprod)
    test_is_frozen(loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["prior"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]


def test_the_names_of_published_folders_are_known(folder):
    (folder / "vae").rename(folder / "vqvae")
    assert torch.equal(rendered(load_prior(folder)), rendered(of_vq()))


@pytest.fixture
def folder(tmp_path):
    save_prior(of_vq(), tmp_path / "prior")
    return tmp_path / "prior"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    prior = of_vq()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prior.scheduler, "save_pretrained", fail)
    with pytest.raises(OSError, match="No space left"):
        save_prior(prior, tmp_path / "prior")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(FileExistsError, match="prior exists already; name a new folder"):
        save_prior(of_vq(), folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def changing(part, file="config.json", **settings):
    def change(folder):
        path = folder / part / file
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def scheduler_of(name, **settings):
    return changing("scheduler", "scheduler_config.json", _class_name=f"{name}Scheduler", **settings)


def pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")


def emptied(folder):
    from safetensors.torch import load_file, save_file

    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "error", "match"),
    [
        (lambda f: shutil.rmtree(f / "vae"), OSError, "no sub-folder vae or vqvae, for the autoencoder"),
        (lambda f: shutil.rmtree(f / "class_embedder"), OSError, "no sub-folder class_embedder, for the class"),
        (lambda f: (f / "vae" / "config.json").unlink(), OSError, "vae/config.json"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), OSError, "file named scheduler_config"),
        (lambda f: (f / "vae" / "config.json").write_text("{"), ValueError, "config.json is damaged"),
        (changing("unet", _class_name="UNet3D"), ValueError, "a UNet3D; known: UNet2DCond"),
        (changing("unet", layers_per_block=2), ValueError, "unet cannot be read: .*size mis"),
        (changing("vae", shift_factor=0.1), ValueError, "vae: shift_factor=0.1 is not known; allowed: 0"),
        (changing("unet", attention_type="gated"), ValueError, "attention_type='gated' is not known; allowed: default"),
        (scheduler_of("FlowMatchEulerDiscrete"), ValueError, "holds a FlowMatchEulerDiscreteScheduler; known: DDIM"),
        (scheduler_of("DDIM", prediction_type="sample"), ValueError, "prior: the scheduler's prediction_type is 'samp"),
        (scheduler_of("UniPCMultistep", use_flow_sigmas=True), ValueError, "use_flow_sigmas=True is not known"),
        (scheduler_of("DDPM", beta_schedule="sigmoid"), ValueError, "beta_schedule='sigmoid' is not known"),
        (pickled, ValueError, "unet cannot be read: .*no file named diffusion_pytorch_model.safetensors"),
        (emptied, ValueError, "its weights are not those of its UNet2DConditionModel; 1 differ, first conv_in.bias"),
    ],
)
def test_refuses_a_folder(folder, harm, error, match):
    harm(folder)
    with pytest.raises(error, match=match):
        load_prior(folder)


@pytest.mark.parametrize("name", ["PNDM", "DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete"])
def test_any_scheduler_of_the_same_noise_is_read_for_its_schedule(folder, name):
    import diffusers

    kind = getattr(diffusers, f"{name}Scheduler")
    kind(beta_schedule="scaled_linear", beta_start=0.0015, beta_end=0.0195).save_pretrained(folder / "scheduler")
    assert torch.equal(load_prior(folder).alphas_cumprod, of_vq().alphas_cumprod)


# The hub.


def test_a_folder_of_the_repository_is_not_looked_for_on_the_hub(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    (folder.parent / "owner").mkdir()
    folder.rename(folder.parent / "owner" / "prior")
    monkeypatch.setattr("ddlib.models.priors.ROOT", folder.parent)
    assert load_prior("owner/prior").num_classes == 3


def test_of_the_hub_only_safetensors_are_got(folder, monkeypatch):
    asked = {}

    def got(name, revision, allow_patterns):
        asked[name, revision] = allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", got)
    assert torch.equal(rendered(load_prior("owner/name")), rendered(of_vq()))
    patterns = asked["owner/name", None]
    assert {Path(pattern).suffix for pattern in patterns} == {".json", ".safetensors"}
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept <= set(patterns)
    load_prior("owner/name@refs/pr/1")
    load_prior("owner/name@0f1e2d")
    assert list(asked) == [("owner/name", None), ("owner/name", "refs/pr/1"), ("owner/name", "0f1e2d")]


def test_a_hub_id_without_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="no prior 'owner/name': there is no such folder, and the hub does not give it"):
        load_prior("owner/name")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "a/b@", "a@b/c", "/no/where", "../no/where", "./nowhere"])
def test_what_is_neither_a_folder_nor_a_hub_id(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no prior '{source}'.*a hub id is 'owner/name'"):
        load_prior(source)


def test_a_file_is_no_prior(tmp_path):
    (tmp_path / "prior").touch()
    with pytest.raises(NotADirectoryError, match="is a file; it must be a folder or a hub id"):
        load_prior(tmp_path / "prior")
