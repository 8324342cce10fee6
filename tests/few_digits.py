"""A few digits to distil, and what methods need beforehand, made once a process."""

import dataclasses

import torch

from ddlib.data import datasets
from ddlib.store import loop

PRODUCTS = {}


def digits(each):
    """The first `each` images of each digit."""
    whole = datasets.load("digits", "train")
    rows = torch.cat([rows[:each] for rows in whole.class_indices])
    return dataclasses.replace(whole, images=whole.images[rows], labels=whole.labels[rows])


def prerequisites(method, train):
    """Name -> artefact that the method needs."""
    for builder in method.needs.values():
        if (builder, train.fingerprint) not in PRODUCTS:
            outcome = loop.run(builder, builder.start(train, {}, builder.seed))
            PRODUCTS[builder, train.fingerprint] = outcome.product
    return {name: PRODUCTS[builder, train.fingerprint] for name, builder in method.needs.items()}


def distilled(method, train, seed=0):
    """What the method makes of the images."""
    return loop.run(method, method.start(train, prerequisites(method, train), seed)).product
