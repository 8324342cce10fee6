"""How hard each term of ATOM's loss pulls at the pixels: norms of its gradient, by norm layer and power."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ddlib.data.datasets import ImageSet
from ddlib.methods.atom import ATOM

TERMS = {"spatial": "w_spatial", "channel": "w_channel", "features": "mmd"}
"""Term of the loss -> its weight; the last one has no power."""


def gradient_norms(
    method: ATOM, train: ImageSet, *, norms: Sequence[str], powers: Sequence[float], draws: int, seed: int
) -> list[dict[str, Any]]:
    """The norm of the gradient in the initial images of each term alone, with its weight and the loss's scale.

    Every term sees the same images under the same random networks.

    Args:
        method: whose `norm`, powers and weights are replaced; a term keeps the weight that it has there, > 0.
        norms: norm layers of the network.
        powers: p_s and p_c of the two attentions, > 0.
        draws: of network, real images and augmentation.
        seed: as `method.start` takes it.

    Returns:
        Rows of term, norm, p (None for "features"), draw and gradient, the norm over all images together.

    Raises:
        ValueError: a norm, a power or a number of draws that is not allowed, or a term of `method` has no weight.
    """
    if draws < 1:
        raise ValueError(f"draws={draws!r}; it must be >= 1")
    for term, weight in TERMS.items():
        if not getattr(method, weight) > 0:
            raise ValueError(f"{weight}={getattr(method, weight)!r}; it must be > 0, or there is no {term} term")
    rows = []
    for norm in norms:
        for term in TERMS:
            for p in (None,) if term == "features" else powers:
                alone = _alone(method, term, norm, p)
                found = _drawn(alone, train, draws, seed)
                place = {"term": term, "norm": norm, "p": p}
                rows += [place | {"draw": draw, "gradient": size} for draw, size in enumerate(found)]
    return rows


def _alone(method: ATOM, term: str, norm: str, p: float | None) -> ATOM:
    """The method with one term of its loss left."""
    off = {weight: 0.0 for name, weight in TERMS.items() if name != term}
    return replace(method, norm=norm, **off, **({} if p is None else {f"p_{term}": p}))


def _drawn(method: ATOM, train: ImageSet, draws: int, seed: int) -> list[float]:
    state, found = method.start(train, {}, seed), []
    for draw in range(draws):
        state.step = draw
        found.append(float(method.slope(state)[1].norm()))
    return found
