"""Every method keeps the contract; methods are found by discovery, so a new one is tested without a new line here."""

import dataclasses
import itertools
import json
import re

import pytest
import torch
from draws import equal, held
from few_digits import cut_and_resumed, digits, distilled, prerequisites, product, small
from refusals import refuses

from ddlib import ROOT, methods
from ddlib.data.synthetic import SyntheticStream

NAMES = list(methods.discover())
SIZED = [name for name in NAMES if "ipc" in methods.hyperparameters(methods.find(name))]
DEPLOYED = [name for name in SIZED if "ipc" in methods.find(name).deployment]
"""Those whose product is a generator: what is distilled does not depend on how many images it will be asked for."""


@pytest.fixture(scope="module")
def train():
    """Thirty images of each digit."""
    return digits(30)


BUILDERS = {builder: f"{name}: {key}" for name in NAMES for key, builder in small(name).needs.items()}
"""Each job that a method needs -> what it is called; several methods need the same."""


@pytest.mark.parametrize("builder", BUILDERS, ids=BUILDERS.values())
def test_what_methods_need_goes_on_bit_by_bit_from_its_checkpoint(builder, train, tmp_path):
    if "epochs" in methods.hyperparameters(type(builder)):
        builder = dataclasses.replace(builder, epochs=3)
    assert builder.iterations > 1, "too short to be cut"
    assert equal(cut_and_resumed(builder, train, {}, tmp_path), product(builder, train, 0))


MADE = {}
"""What methods have made of the images in this process."""


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_it_is_a_frozen_keyword_only_dataclass_with_a_documented_source(self, name):
        kind = methods.find(name)
        with pytest.raises(TypeError):
            kind(1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            small(name).ipc = 3
        documented = kind.__doc__ + "".join(base.__doc__ or "" for base in kind.__mro__[1:-1])
        for field in dataclasses.fields(kind):
            assert field.name in documented, f"{field.name} of {name} is not documented"

    def test_it_makes_a_labelled_set_of_the_size_asked_for_and_leaves_the_global_state_alone(self, name, train):
        method, before = small(name), torch.random.get_rng_state()
        product = MADE[name] = distilled(method, train)
        assert torch.equal(before, torch.random.get_rng_state())
        assert all(not tensor.requires_grad for tensor in held(product).values())
        product = product.frozen(0) if isinstance(product, SyntheticStream) else product
        labels = torch.arange(10).repeat_interleave(2) if name in SIZED else train.labels
        assert product.images.shape == (len(labels), *train.shape) and torch.isfinite(product.images).all()
        assert torch.equal(product.labels, labels) if not product.is_soft else product.labels.shape == (len(labels), 10)
        assert product.class_names == train.class_names and product.space == train.space
        assert product.provenance["method"] == name and product.provenance["dataset"] == train.name


MTT = {"syn_steps": 2, "experts": 1, "expert_training": 2, "max_start_epoch": 1, "expert_epochs": 1}
VARIANTS = {name: (name, {}) for name in NAMES} | {
    "dim, features": ("dim", {"match": "features"}),
    "ld3m, mtt": ("ld3m", {"matching": "mtt", "options": MTT}),
    "ld3m, adam": ("ld3m", {"optimizer": "adam"}),
    "glad, mtt": ("glad", {"matching": "mtt", "options": MTT, "layer": 2}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_goes_on_bit_by_bit_from_its_checkpoint(variant, train, tmp_path):
    name, settings = VARIANTS[variant]
    method = small(name, **settings)
    resumed = cut_and_resumed(method, train, prerequisites(method, train), tmp_path)
    assert equal(resumed, MADE[variant] if variant in MADE else distilled(method, train))


@pytest.mark.parametrize("name", [name for name in SIZED if name not in DEPLOYED])
def test_a_set_that_the_classes_cannot_give_is_refused(name, train):
    needs = prerequisites(small(name), train)
    for ipc in (0, 31):
        with pytest.raises(ValueError, match=rf"ipc={ipc}"):
            small(name, ipc=ipc).start(train, needs, 0)


@pytest.mark.parametrize("name", DEPLOYED)
def test_the_number_of_images_changes_nothing_of_a_generator(name, train):
    products = []
    for ipc, redraw in ((1, 1), (31, None)):
        method = small(name, ipc, redraw=redraw)
        products.append(distilled(method, train))
        assert (products[-1].ipc, products[-1].redraw) == (ipc, redraw)
        assert products[-1].bytes_stored == method.bytes_stored(train.shape, train.num_classes)
    assert equal(*products)
    with pytest.raises(ValueError, match=r"ipc=0; it must be >= 1"):
        small(name, 0)


def test_the_whole_set_is_the_real_images_and_takes_no_number_of_them(train):
    whole = methods.build("whole")
    product = distilled(whole, train, 3)
    assert torch.equal(product.images, train.take(range(len(train)))) and torch.equal(product.labels, train.labels)
    assert product.provenance == {"method": "whole", "seed": 3, "dataset": "digits"}


def test_what_starts_from_real_images_starts_from_those_that_random_shows_at_that_seed(train):
    shown, others = (distilled(small("random"), train, seed).images for seed in (4, 5))
    assert not torch.equal(shown, others)
    for name in ("dm", "datadam", "atom", "dsa"):
        assert torch.equal(small(name).start(train, {}, 4).images.detach(), shown)


def test_results_are_found_by_the_settings_that_they_were_stored_with():
    stored = set()
    for path in (ROOT / "results").rglob("*.json"):
        for record in json.loads(path.read_text()):
            if isinstance(record, dict) and "hyperparameters" in record.get("cell", {}):
                stored.add((record["cell"]["method"], json.dumps(record["cell"]["hyperparameters"], sort_keys=True)))
    assert {name for name, _ in stored} == set(NAMES) and set(DEPLOYED) == {"dim", "gan"}
    for name, text in stored:
        kind, settings = methods.find(name), json.loads(text)
        method = methods.build(name, **{k: v for k, v in settings.items() if k not in kind.retired})
        today = json.loads(json.dumps(dataclasses.asdict(method) | kind.retired))
        assert {k: v for k, v in today.items() if k in settings or (k, v) not in kind.later.items()} == settings


test_what_no_method_can_be_is_refused = refuses(
    lambda name, **settings: methods.build(name, **{"ipc": 1} | settings),
    [
        ("atomm", {}, r"unknown method 'atomm'; known: atom, datadam, datm, dc"),
        ("dm", {"lr_image": 1.0}, r"unknown setting 'lr_image' of method 'dm' \(did you mean 'lr_images'\?\)"),
        ("dm", {"lr_images": "1e-3"}, r"lr_images of method 'dm'='1e-3' is text"),
        ("dc", {"ipc": 5}, r"matching_steps=None; it must be given at ipc=5; published for ipc 1, 10, 20"),
        ("whole", {}, "unknown setting 'ipc' of method 'whole'"),
    ],
)


RANGES = {
    "dm": {">= 1": "ipc batch_real", ">= 0": "iterations", "> 0": "lr_images", "in [0, 1)": "momentum"},
    "datadam": {"> 0": "p scale", ">= 0": "mmd"},
    "atom": {"> 0": "p_spatial p_channel scale", ">= 0": "w_spatial w_channel mmd"},
    "dc": {">= 1": "matching_steps network_epochs restarts batch_network", "> 0": "lr_network"},
    "datm": {
        ">= 1": "ipc syn_steps expert_epochs experts shard",
        ">= 1, or None": "batch_syn",
        ">= 0": "iterations min_start_epoch lr_images lr_labels lr_lr",
        "> 0": "lr_student",
        "> 0, or None": "threshold",
        "in [0, 1)": "momentum momentum_labels momentum_lr",
    },
    "ftd": {"in [0, 1), or None": "average"},
    "gan": {
        ">= 1": "ipc generator_width latent gan_batch",
        ">= 1, or None": "redraw",
        ">= 0": "gan_iterations gradient_penalty",
        "> 0": "gan_lr",
        "in [0, 1)": "beta1 beta2",
    },
    "dim": {
        ">= 1": "ipc batch_size refresh pool_width",
        ">= 1, or None": "redraw width depth",
        ">= 0": "iterations inner_steps weight decay_pool",
        "> 0": "lr lr_pool",
        "in [0, 1)": "momentum_pool",
    },
    "ld3m": {">= 1": "ipc batch_real steps", ">= 1, or None": "chunk", ">= 0": "iterations", "> 0": "lr lr_c"},
    "glad": {">= 0": "layer", "in [0, 1)": "momentum"},
}
BEYOND = {">= 1": (0,), ">= 0": (-1,), "> 0": (0, -1), "in [0, 1)": (1, -1)}
CHOICES = {
    "dm": "network init precision",
    "datm": "init labels label_source gradient optimizer precision",
    "dim": "match precision",
    "ld3m": "matching optimizer init learn residual",
}


@pytest.mark.parametrize("name", RANGES)
def test_values_out_of_range_are_refused(name):
    for allowed, settings in RANGES[name].items():
        for setting, value in itertools.product(settings.split(), BEYOND[allowed.removesuffix(", or None")]):
            with pytest.raises(ValueError, match=rf"{setting}={value}(\.0)?; it must be {re.escape(allowed)}$"):
                dataclasses.replace(small(name), **{setting: value})


@pytest.mark.parametrize("name", CHOICES)
def test_values_that_are_no_choice_are_refused(name):
    for setting in CHOICES[name].split():
        with pytest.raises(ValueError, match=rf"{setting}='nothing'; it must be one of "):
            dataclasses.replace(small(name), **{setting: "nothing"})


def test_gradient_matching_takes_the_published_loops():
    dsa = methods.build("dsa", ipc=10)
    assert (dsa.matching_steps, dsa.network_epochs, dsa.iterations) == (10, 50, 10_000)
    assert methods.build("dc", ipc=1).iterations == 1_000


@pytest.mark.parametrize("init", ["noise", "herding"])
def test_other_initial_images(init, train):
    method = small("dm", init=init, iterations=0)
    images = distilled(method, train).images
    if init == "noise":
        assert abs(images.mean()) < 0.05 and abs(images.std() - 1) < 0.05
    else:
        herding = small("herding", epochs=20)  # as the embedding that an initial herding takes
        assert torch.equal(images, distilled(herding, train).images)
