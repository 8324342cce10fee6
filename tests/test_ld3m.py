"""LD3M and GLaD: what is learnt, and what the images made of it are matched by."""

import dataclasses

import few_digits
import pytest
import torch
from refusals import refuses

from ddlib import methods, seeding
from ddlib.data import datasets, synthetic
from ddlib.methods.sampler import Sampler
from ddlib.models import diffusion, priors

SMALL = {"ipc": 2, "iterations": 4, "width": 8, "depth": 2, "batch_real": 4, "strategy": "none"}
MTT = {"syn_steps": 2, "experts": 1, "expert_training": 2, "max_start_epoch": 1, "expert_epochs": 1, "lr_lr": 0.0}


def digits() -> datasets.ImageSet:
    """The middle of eight images of each digit."""
    train = few_digits.digits(8)
    return dataclasses.replace(train, images=train.images[..., 4:12, 4:12])


def prior(shape=(1, 8, 8), num_classes=10) -> diffusion.LatentDiffusion:
    return diffusion.small(shape, num_classes, width=16, generator=seeding.generator(3))


def built(name: str = "ld3m", **settings) -> methods.Method:
    return methods.build(name, **SMALL | ({"steps": 2} if name == "ld3m" else {}) | settings)


def begun(method, train=None, found=None, seed=7):
    train = train or digits()
    needs = few_digits.prerequisites(method.objective, train) | {"prior": found or prior()}
    return method.start(train, needs, seed)


@pytest.mark.parametrize("name", ["ld3m", "glad"])
def test_with_images_for_latents_a_step_is_one_of_the_matching_itself(name):
    """Where rendering is the identity, what is learnt moves as the pixels of DM do."""
    train = digits()
    method = built(name, lr=0.5, **({"learn": "Z"} if name == "ld3m" else {}))
    state = begun(method, train)
    own = "Z" if name == "ld3m" else "f"
    pixel = methods.build("dm", **SMALL, lr_images=0.5)
    plain = pixel.start(train, {}, 7)

    class Identity(type(method)):
        def images(self, state, tensors, noise):
            return tensors[own]

    same = Identity(**{f.name: getattr(method, f.name) for f in dataclasses.fields(method)})
    state.tensors = {own: plain.images.detach().clone()}
    state.first, state.second = ({own: torch.zeros_like(plain.images)} for _ in range(2))
    if name == "ld3m":
        same.__class__.noise = lambda *_: None
    for _ in range(3):
        assert float(same.step(state)["loss"]) == float(pixel.step(plain)["loss"])
    torch.testing.assert_close(state.tensors[own], plain.images.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("matching", ["dm", "dc", "mtt"])
@pytest.mark.parametrize("name", ["ld3m", "glad"])
def test_images_rendered_in_chunks_have_the_gradients_of_all_at_once(name, matching):
    options = MTT if matching == "mtt" else {}
    found = {}
    for chunk in (None, 7):
        method = built(name, matching=matching, options=options, chunk=chunk, lr=0.1)
        state = begun(method)
        metrics = method.step(state)
        found[chunk] = {k: t.clone() for k, t in state.tensors.items()}, float(metrics["loss"])
    whole, loss = found[None]
    assert found[7][1] == pytest.approx(loss, rel=1e-4)
    for key, tensor in whole.items():
        torch.testing.assert_close(found[7][0][key], tensor, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_that_of_the_loss_through_the_sampler():
    """Against one plain graph from Z and c to the loss of DM."""
    train, method, found = digits(), built(lr=0.1), prior()
    with torch.no_grad():
        found.vae.decoder.conv_out.weight.mul_(4)  # so that some pixels do not exist
    state = begun(method, train, found)
    state.step = 1  # each has noise of its own
    noise = method.noise(state, "noise", 1)
    assert not torch.equal(noise, method.noise(state, "noise", 0))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in state.tensors.items()}
    rendered = Sampler(steps=2).render(state.prior, leaves["Z"], leaves["c"], noise)
    assert 0.05 < (rendered.abs() > 1).float().mean() < 0.95
    images = train.space.encode(((rendered + 1) / 2).clamp(0, 1))
    pixel = methods.build("dm", **SMALL)
    plain = pixel.start(train, {}, 7)
    plain.step, plain.images = 1, images
    metrics, slope = pixel.loss_and_gradient(plain)
    wanted = torch.autograd.grad(images, list(leaves.values()), slope)
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    assert float(method.step(state)["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-6)
    for (name, tensor), gradient in zip(before.items(), wanted, strict=True):
        torch.testing.assert_close((tensor - state.tensors[name]) / 0.1, gradient, rtol=1e-4, atol=1e-4)


def test_dc_draws_a_network_a_step_and_trains_none_whatever_the_images_per_class():
    method = built(matching="dc", strategy="color_crop")
    assert (method.objective.matching_steps, method.objective.lr_images) == (1, 0.1)
    first, second = begun(method), begun(method)
    assert first.inner.strategy == "color_crop", "LD3M's DC is matched under DSA"
    for state in (first, second):
        method.step(state)
    second.inner.step = 99  # where the matching stands follows from the step at hand
    assert float(method.step(first)["loss"]) == float(method.step(second)["loss"])


def test_what_is_kept_renders_the_images_again(tmp_path):
    method, found = built(), prior()
    state = begun(method, found=found)
    method.step(state)
    synthetic.save(method.finish(state), tmp_path / "set.safetensors")
    kept = synthetic.load(tmp_path / "set.safetensors")
    rendered = method.sampler.render(found, kept.latents["Z"], kept.latents["c"], kept.latents["noise"])
    assert torch.equal(kept.space.encode(rendered.add(1).div(2).clamp(0, 1)), kept.images)
    assert kept.bytes_stored == kept.images.nbytes + kept.labels.nbytes


@pytest.mark.parametrize(("name", "settings"), [("ld3m", {}), ("glad", {"layer": 2})])
def test_in_bfloat16_convolutions_are_rounded_and_the_gradients_are_nearly_those_of_float32(name, settings):
    """Pixels, what is learnt and its moments stay float32."""
    moments = {}
    for precision in ("float32", "bfloat16"):
        method = built(name, precision=precision, **settings)
        state = begun(method)
        assert torch.isfinite(method.step(state)["loss"])
        moments[precision] = state.first
        assert {tensor.dtype for tensor in (*state.tensors.values(), *state.first.values())} == {torch.float32}
    for key in method.rates:
        wanted, found = (moments[precision][key].flatten() for precision in ("float32", "bfloat16"))
        assert torch.cosine_similarity(wanted, found, dim=0) > 0.99
    images, noise = method.rendering(state)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rendered = method.render(state.prior, state.tensors, noise)
    assert rendered.dtype == torch.bfloat16 and images.dtype == torch.float32
    assert torch.equal(images, state.train.space.encode(((rendered.float() + 1) / 2).clamp(0, 1)))


def test_only_what_is_to_be_learnt_moves():
    for learn, moving in (("Z", {"Z"}), ("c", {"c"}), ("Z+c", {"Z", "c"})):
        method = built(learn=learn, lr=1.0)
        state = begun(method)
        before = {name: tensor.clone() for name, tensor in state.tensors.items()}
        method.step(state)
        assert {name for name, tensor in before.items() if not torch.equal(tensor, state.tensors[name])} == moving


def test_c_has_a_step_size_of_its_own():
    assert built(lr=2.0).rates == {"Z": 2.0, "c": 2.0}
    assert built(lr=2.0, lr_c=0.5).rates == {"Z": 2.0, "c": 0.5}
    assert [built(matching=m, options=MTT if m == "mtt" else {}).lr for m in ("dc", "dm", "mtt")] == [0.1, 1.0, 1000.0]
    published = [built("glad", matching=m, options=MTT if m == "mtt" else {}).lr for m in ("dc", "dm", "mtt")]
    assert published == [1.0, 10.0, 10_000.0]


def test_latents_begin_as_encodings_of_random_real_images_of_the_class():
    method, train, found = built(), digits(), prior()
    state = begun(method, train, found)
    real = methods.build("dm", **SMALL).start(train, {}, 7).images
    with torch.no_grad():
        signed = found.encode(train.space.decode(real) * 2 - 1)
    assert torch.equal(state.tensors["Z"], signed)
    gaussian = begun(built(init="gaussian"), train, found).tensors["Z"]
    assert abs(float(gaussian.mean())) < 0.05 and abs(float(gaussian.std()) - 1) < 0.05
    labels = torch.arange(10).repeat_interleave(2)
    assert torch.equal(state.tensors["c"], found.embed(labels))


def test_adam_takes_the_steps_of_torch():
    method = built(optimizer="adam", lr=0.05, learn="Z")
    state = begun(method)
    leaf = state.tensors["Z"].clone().requires_grad_()
    adam = torch.optim.Adam([leaf], lr=0.05)
    for state.step in range(3):
        leaf.grad = torch.randn_like(leaf)
        adam.step()
        method.descend(state, {"Z": leaf.grad})
    torch.testing.assert_close(state.tensors["Z"], leaf.detach(), rtol=1e-5, atol=1e-6)


def test_a_part_of_imagenet_keeps_the_places_of_its_classes():
    found = prior(num_classes=1000)
    part = dataclasses.replace(digits().of_classes((0, 3)), name="imagenette32:0,3")
    state = begun(built(), part, found)
    assert torch.equal(state.tensors["c"], found.embed(torch.tensor([0, 491]).repeat_interleave(2)))


test_what_cannot_be_is_refused = refuses(
    built,
    [
        ({"prior": {"widht": 8}}, "unknown setting 'widht' of the prior"),
        ({"options": {"width": 8}}, "options='width'; it must be without"),
        ({"options": {"syn_steps": 8}}, "unknown setting 'syn_steps' of options of matching='dm'"),
        ({"matching": "mtt", "options": {"labels": "fixed"}}, "labels='fixed'; it must be 'hard'"),
        ({"steps": 7}, "steps=7; with a schedule of 1000 steps it must be one of 1, 2, 4, 5, 8, 10,"),
    ],
)


def test_whitened_images_and_a_trained_prior_of_other_classes_are_refused_at_the_start():
    with pytest.raises(ValueError, match=r"the images='zca'; it must be normalised: load them with whitened: false"):
        built().start(datasets.load("digits", "train", zca=True), {"prior": prior()}, 0)
    with pytest.raises(ValueError, match="the prior is of 1000 classes, and digits has 10"):
        begun(built(), found=prior(num_classes=1000))
    begun(built(learn="Z"), found=prior(num_classes=None))


def test_what_was_learnt_on_the_way_is_kept():
    method, found = built(learn="Z"), prior()
    state = begun(method, found=found)
    seen = {}
    for n in range(1, method.iterations + 1):
        method.step(state)
        seen[n] = method.rendering(state)[0]
    made = method.finish(state)
    looks = method.course_images(found, made)
    assert [*looks] == [1, 2]
    for n, pixels in looks.items():
        torch.testing.assert_close(made.space.encode(pixels), seen[n])


@pytest.mark.parametrize(
    ("name", "options", "found", "match"),
    [
        ("ld3m", {}, {"num_classes": 1000}, "the prior is of 1000 classes, and digits has 10"),
        ("ld3m", {}, {"num_classes": None}, "learn='Z.c'; it must be 'Z' with an unconditional prior"),
        ("ld3m", {"steps": 7}, {}, "steps=7; with a schedule of 1000 steps it must be one of"),
        ("ld3m", {}, {"shape": (3, 8, 8)}, "images of 1 channels; this prior is of images of 3"),
        ("glad", {"layer": 6}, {}, "layer=6; the decoder of this prior has the layers 0 to 5"),
        ("glad", {"ipc": 1000}, {}, "ipc=1000 is not in 1.."),
    ],
)
def test_a_prior_that_does_not_fit_is_refused_without_its_weights(tmp_path, name, options, found, match):
    priors.save_prior(prior(**found), tmp_path / "one")
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ValueError, match=match):
        built(name, prior=str(tmp_path / "one"), **options).check_train(digits())
    assert priors.load_prior(tmp_path / "one", device="meta").vae.device.type == "meta"


def test_a_prior_is_the_same_by_every_name_and_from_everywhere(tmp_path, monkeypatch):
    """And known by its content."""
    small, parts, home = tmp_path / "priors/small", tmp_path / "priors/parts", tmp_path / "home"
    monkeypatch.setattr("ddlib.models.priors.ROOT", tmp_path)
    monkeypatch.setenv("HOME", str(home))
    priors.save_prior(prior(), small)
    for folder in (home, parts):
        folder.mkdir()
    monkeypatch.chdir(home)
    (home / "link").symlink_to(small)
    for part in small.iterdir():
        (parts / part.name).symlink_to(part)
    names = ["priors/small", str(small), "~/link", "priors/parts"]

    def prints():
        return {built(prior=name).fingerprint for name in names}

    (before,) = prints()
    assert built().fingerprint is None is not before and all(
        priors.load_prior(name).num_classes == 10 for name in names
    )
    (small / "unet" / "config.json").write_text("{}")
    (after,) = prints()
    assert after != before
