"""Norms of the gradients that reach what LD3M learns."""

import dataclasses

import pytest
import torch

from ddlib import methods, seeding
from ddlib.analyses import norms
from ddlib.data import datasets
from ddlib.models import diffusion


def test_norms_are_those_of_the_first_step_from_one_beginning():
    train = datasets.load("digits", "train")
    needs = {"prior": diffusion.small(train.shape, 10, width=16, generator=seeding.generator(3))}
    method = methods.build("ld3m", ipc=1, iterations=4, steps=5, width=8, depth=2, batch_real=8)
    told = {"steps": (2, 5), "residuals": ("none", "x0"), "draws": 2, "seed": 7}
    rows = norms.gradient_norms(method, train, needs, **told)
    assert [(r["residual"], r["T"], r["draw"]) for r in rows] == [
        (form, T, draw) for form in ("none", "x0") for T in (2, 5) for draw in (0, 1)
    ]
    fresh = dataclasses.replace(method, steps=5, residual="x0")
    state = fresh.start(train, needs, 7)
    state.step = 1
    assert rows[-1]["norm"] == float(fresh.step(state)["gradient_Z"])
    a = needs["prior"].alphas_cumprod[801].sqrt()
    assert rows[-1]["noising"] == pytest.approx(float(a))
    assert len({row["norm"] for row in rows}) == len(rows) and all(torch.tensor(row["norm_c"]) > 0 for row in rows)
    with pytest.raises(ValueError, match="residual='eq8'"):
        norms.gradient_norms(method, train, needs, **told | {"residuals": ("eq8",)})
