"""Norms of gradients: of each term of ATOM, against the formula of the paper, and those that reach what LD3M learns."""

import dataclasses

import pytest
import torch
from test_matching import plain_step

from ddlib import methods, seeding
from ddlib.analyses import gradients
from ddlib.models import diffusion

ATOM = methods.build("atom", ipc=2, batch_real=8, width=8, depth=2, strategy="none", mmd=0.02, scale=10.0)


@pytest.fixture(scope="module")
def rows(train):
    told = {"norms": ("instance", "batch"), "powers": (1, 4), "draws": 3, "seed": 0}
    return gradients.term_norms(ATOM, train, **told)


def plain(train, term, norm, p, draw):
    """The norm of a term's gradient, by the formula of the paper, under the draw's network and real images."""
    state = methods.build("dm", ipc=2, batch_real=8, width=8, depth=2, norm=norm, strategy="none").start(train, {}, 0)
    state.step, state.images = draw, state.images.detach().double().requires_grad_()
    parts = {"spatial": "s", "channel": "c", "features": "m"}[term]
    _, gradient = plain_step(state, train, norm, depth=2, powers=(p, p), parts=parts, mmd=0.02, scale=10.0)
    return float(gradient.norm())


def test_every_term_is_measured_at_every_norm_and_power(rows):
    places = [(row["norm"], row["term"], row["p"]) for row in rows if row["draw"] == 0]
    per_norm = [("spatial", 1), ("spatial", 4), ("channel", 1), ("channel", 4), ("features", None)]
    assert places == [(norm, *place) for norm in ("instance", "batch") for place in per_norm]
    assert len(rows) == 30


def test_the_norm_is_that_of_the_term_written_out(rows, train):
    for row in rows:
        expected = plain(train, row["term"], row["norm"], row["p"], row["draw"])
        assert row["gradient"] == pytest.approx(expected, rel=2e-3), row


def test_instance_norm_starves_the_channel_term_at_small_powers(rows):
    mean = {}
    for row in rows:
        mean.setdefault((row["norm"], row["term"], row["p"]), []).append(row["gradient"])
    kept = {n: sum(mean[n, "channel", 1]) / sum(mean[n, "channel", 4]) for n in ("instance", "batch")}
    assert kept["instance"] < kept["batch"]


@pytest.mark.parametrize(
    ("method", "told", "match"),
    [
        (ATOM, {"draws": 0}, "draws=0; it must be >= 1"),
        (ATOM, {"powers": (0,)}, "p_spatial=0; it must be > 0"),
        (methods.build("atom", ipc=1, w_channel=0.0), {}, "w_channel=0.0; it must be > 0, or there is no channel term"),
    ],
)
def test_what_cannot_be_measured_is_refused(train, method, told, match):
    usual = {"norms": ("instance",), "powers": (1,), "draws": 1, "seed": 0}
    with pytest.raises(ValueError, match=match):
        gradients.term_norms(method, train, **(usual | told))


def test_norms_are_those_of_the_first_step_from_one_beginning(train):
    needs = {"prior": diffusion.small(train.shape, 10, width=16, generator=seeding.generator(3))}
    method = methods.build("ld3m", ipc=1, iterations=4, steps=5, width=8, depth=2, batch_real=8)
    told = {"steps": (2, 5), "residuals": ("none", "x0"), "draws": 2, "seed": 7}
    rows = gradients.latent_norms(method, train, needs, **told)
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
        gradients.latent_norms(method, train, needs, **told | {"residuals": ("eq8",)})
