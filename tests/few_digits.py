"""A few digits, every method at a size that runs in a moment, what it needs, and work that is cut and goes on."""

import dataclasses

import pytest
import torch

from ddlib import methods
from ddlib.data import datasets
from ddlib.store import loop
from ddlib.store.loop import Checkpoint

SMALL = {
    "width": 8, "depth": 2, "batch_real": 6, "iterations": 3, "restarts": 3, "matching_steps": 2, "network_epochs": 1,
    "epochs": 1, "syn_steps": 2, "expert_epochs": 1, "initial_max_start_epoch": None, "max_start_epoch": 1,
    "expansion_end": None, "experts": 2, "expert_training": 2, "shard": 1, "init": "real", "generator_width": 4,
    "latent": 20, "gan_iterations": 3, "gan_batch": 6, "batch_size": 6, "pool": ["convnet", "resnet10"],
    "pool_width": 4, "refresh": 2, "inner_steps": 2, "steps": 2,
    "prior": {"autoencoder_steps": 2, "diffusion_steps": 2, "width": 16, "codes": 16, "batch_size": 6},
}  # fmt: skip
PRODUCTS = {}


def digits(each):
    """The first `each` images of each digit."""
    whole = datasets.load("digits", "train")
    rows = torch.cat([rows[:each] for rows in whole.class_indices])
    return dataclasses.replace(whole, images=whole.images[rows], labels=whole.labels[rows])


def small(name, ipc=2, **more):
    """The method with whichever of the small settings, and of those given, it has."""
    fields = [*methods.hyperparameters(methods.find(name))]
    if "matching" in fields:  # starts from encoded images, which are real ones
        fields.remove("init")
    return methods.build(name, **{k: v for k, v in (SMALL | {"ipc": ipc} | more).items() if k in fields})


def product(builder, train, seed=None):
    """What a job without needs makes of the images; the seed is its own unless given."""
    return loop.run(builder, builder.start(train, {}, builder.seed if seed is None else seed)).product


def prerequisites(method, train):
    """Name -> artefact that the method needs, made once a process."""
    found = {}
    for name, builder in method.needs.items():
        key = builder, train.fingerprint, train.device
        if key not in PRODUCTS:
            PRODUCTS[key] = product(builder, train)
        found[name] = PRODUCTS[key]
    return found


def distilled(method, train, seed=0):
    """What the method makes of the images."""
    return loop.run(method, method.start(train, prerequisites(method, train), seed)).product


class Cut:
    """A report that ends the work after a step, before that step is saved."""

    def __init__(self, after):
        self.after = after

    def __call__(self, step, loss):
        if step > self.after:
            raise RuntimeError("cut")

    def note(self, text):
        """Nothing is kept."""


def cut_and_resumed(job, train, needs, folder):
    """The product of a job that is cut after each of its steps, and continued from a new state and its checkpoint."""
    path = folder / "checkpoint.safetensors"
    for after in range(1, job.iterations):
        with pytest.raises(RuntimeError, match="cut"):
            loop.run(job, job.start(train, needs, 0), checkpoint=Checkpoint(path, 0), report=Cut(after))
        assert Checkpoint(path, 0).read()[1]["step"] == after
    outcome = loop.run(job, job.start(train, needs, 0), checkpoint=Checkpoint(path, 0))
    assert len(outcome.sittings) == max(1, job.iterations)
    return outcome.product
