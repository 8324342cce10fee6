"""Norms of gradients: how hard each term of ATOM's loss pulls at the pixels, and how much reaches what LD3M learns."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddlib.data.datasets import ImageSet
from ddlib.methods.feature_matching import ATOM
from ddlib.methods.latent import LD3M

TERMS = {"spatial": "w_spatial", "channel": "w_channel", "features": "mmd"}
"""Term of ATOM's loss -> its weight; the last one has no power."""


def term_norms(
    method: ATOM, train: ImageSet, *, norms: Sequence[str], powers: Sequence[float], draws: int, seed: int
) -> list[dict[str, Any]]:
    """The norm of the gradient in the initial images of each term alone, with its weight and the loss's scale.

    Every term sees the same images under the same random networks.

    Args:
        method: whose `norm`, powers and weights are replaced; a term keeps the weight that it has there, > 0.
        norms: norm layers of the network.
        powers: p_s and p_c of the two attentions, > 0.
        draws: of network, real images and augmentation, >= 1.

    Returns:
        Rows of term, norm, p (None for "features"), draw and gradient, the norm over all images together.
    """
    if draws < 1:
        raise ValueError(f"draws={draws!r}; it must be >= 1")
    for term, weight in TERMS.items():
        if not getattr(method, weight) > 0:
            raise ValueError(f"{weight}={getattr(method, weight)!r}; it must be > 0, or there is no {term} term")
    rows = []
    for norm, term in itertools.product(norms, TERMS):
        others = {weight: 0.0 for name, weight in TERMS.items() if name != term}
        for p in (None,) if term == "features" else powers:
            power = {} if p is None else {f"p_{term}": p}
            alone = replace(method, norm=norm, **others, **power)
            state = alone.start(train, {}, seed)
            for draw in range(draws):
                state.step = draw
                gradient = float(alone.loss_and_gradient(state)[1].norm())
                rows.append({"term": term, "norm": norm, "p": p, "draw": draw, "gradient": gradient})
    return rows


def latent_norms(
    method: LD3M,
    train: ImageSet,
    prerequisites: Mapping[str, Any],
    *,
    steps: Sequence[int],
    residuals: Sequence[str],
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """|dL/dZ| and |dL/dc| of one step of `method`, always from its beginning, by form of the residual, T and draw.

    Args:
        method: whose `steps` and `residual` are replaced.
        steps: T, divisors of the schedule's length.
        residuals: of `ddlib.methods.sampler.RESIDUALS`.
        draws: of noise, network and real images, the same for all T and residuals.

    Returns:
        Rows of residual, T, draw, noising (a_T), loss, norm (|dL/dZ|) and norm_c (|dL/dc|, where c is learnt).
    """
    forms = [replace(method, steps=T, residual=residual) for residual in residuals for T in steps]
    state = method.start(train, prerequisites, seed)
    start = {name: tensor.clone() for name, tensor in state.state_dict().items()}
    alphas = state.prior.alphas_cumprod
    rows = []
    for form in forms:
        noising = float(alphas[form.sampler.times(len(alphas))[-1]]) ** 0.5
        for draw in range(draws):
            state.load_state_dict(start)
            state.step = draw
            metrics = form.step(state)
            row = {"residual": form.residual, "T": form.steps, "draw": draw, "noising": noising}
            row |= {"loss": float(metrics["loss"]), "norm": float(metrics["gradient_Z"])}
            if "gradient_c" in metrics:
                row["norm_c"] = float(metrics["gradient_c"])
            rows.append(row)
    return rows
