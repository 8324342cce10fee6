"""How much gradient reaches what LD3M learns: norms of dL/dZ and dL/dc for forms and lengths of its sampler."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddlib.data.datasets import ImageSet
from ddlib.methods.ld3m import LD3M

NORMS = {"norm": "gradient_Z", "norm_c": "gradient_c"}
"""Name in a row -> that of the method's metric."""


def gradient_norms(
    method: LD3M,
    train: ImageSet,
    prerequisites: Mapping[str, Any],
    *,
    steps: Sequence[int],
    residuals: Sequence[str],
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """One step of `method` for each form of the residual, number of steps and draw, always from its beginning.

    Args:
        method: whose `steps` and `residual` are replaced.
        train, prerequisites, seed: as `method.start` takes them.
        steps: T, divisors of the schedule's length.
        residuals: of `ddlib.methods.sampler.RESIDUALS`.
        draws: of noise, network and real images, the same for all T and residuals.

    Returns:
        Rows of residual, T, draw, noising (a_T), loss, norm (|dL/dZ|) and norm_c (|dL/dc|, where c is learnt).

    Raises:
        ValueError: a T or a residual that the sampler does not have.
    """
    forms = [replace(method, steps=T, residual=residual) for residual in residuals for T in steps]
    state = method.start(train, prerequisites, seed)
    first = {name: tensor.clone() for name, tensor in state.state_dict().items()}
    rows = []
    for form in forms:
        a = float(state.prior.alphas_cumprod[form.sampler.times(len(state.prior.alphas_cumprod))[-1]]) ** 0.5
        for draw in range(draws):
            state.load_state_dict(first)
            state.step = draw
            metrics = form.step(state)
            place = {"residual": form.residual, "T": form.steps, "draw": draw, "noising": a}
            norms = {name: float(metrics[key]) for name, key in NORMS.items() if key in metrics}
            rows.append(place | {"loss": float(metrics["loss"])} | norms)
    return rows
