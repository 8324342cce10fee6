"""PyTorch's default initialisation laws, drawn from an explicit generator."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

Law = Callable[[Tensor, torch.Generator], object]
"""Fills a tensor in place, with the generator where the law is random."""


def ones(tensor: Tensor, generator: torch.Generator) -> None:
    """Fill `tensor` with 1; the generator is not used."""
    tensor.fill_(1)


def zeros(tensor: Tensor, generator: torch.Generator) -> None:
    """Fill `tensor` with 0; the generator is not used."""
    tensor.zero_()


def _kaiming(tensor: Tensor, generator: torch.Generator) -> None:
    nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)  # U(-1/sqrt(fan_in), 1/sqrt(fan_in))


def _linear_map(module: nn.Module) -> dict[str, Law]:
    bound = 1 / math.sqrt(module.weight[0].numel())
    return {"weight": _kaiming, "bias": lambda tensor, generator: tensor.uniform_(-bound, bound, generator=generator)}


def _embedding(module: nn.Embedding) -> dict[str, Law]:
    def rows(tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(generator=generator)
        if module.padding_idx is not None:
            tensor[module.padding_idx].zero_()

    return {"weight": rows}


def affine_norm(module: nn.Module) -> dict[str, Law]:
    """Laws of a norm layer: gain 1, bias 0, running mean 0, running variance 1, no batch counted yet."""
    return {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones, "num_batches_tracked": zeros}


LAWS: dict[type[nn.Module], Callable[[nn.Module], Mapping[str, Law]]] = {
    nn.Conv2d: _linear_map,
    nn.ConvTranspose2d: _linear_map,
    nn.Linear: _linear_map,
    nn.Embedding: _embedding,
    nn.BatchNorm2d: affine_norm,
    nn.GroupNorm: affine_norm,
    nn.LayerNorm: affine_norm,
}
"""Layer type -> the law of each of its tensors, in the order in which its constructor draws them.

The type is matched exactly, since a subclass may have another law.  A module with layers of its own adds them here.
"""


@torch.no_grad()
def reset(model: nn.Module, generator: torch.Generator) -> None:
    """Redraw every parameter of `model` in place from PyTorch's default law, and reset its buffers.

    Weights and biases of convolutions and linear layers ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in)); embeddings, which
    hold the class token and the positions of the ViT, ~ N(0, 1); norms 1 and 0, running means 0 and variances 1.
    The draws are those of the layers' constructors, in their order: a CPU generator with seed s gives the very
    tensors that `torch.manual_seed(s)` followed by building the network gives.  The global random state is neither
    read nor changed.

    Numbers are drawn on the generator's device, in row-major order, and copied where the parameter lies elsewhere
    or in another memory format: the model's device and format change nothing, while generators of one seed on CPU
    and on CUDA are different streams.  A generator on the model's device saves the copy.

    Args:
        model: any module whose layers are all in `LAWS`; parameters keep their identity, device, dtype and format.
        generator: source of all randomness; it is advanced.

    Raises:
        TypeError: a layer, or a tensor of a layer, has no known law.  Nothing is changed then.
    """
    jobs = [job for name, module in model.named_modules() for job in _jobs(name, module)]
    for tensor, law in jobs:
        direct = tensor.device == generator.device and tensor.is_contiguous()
        fresh = tensor if direct else torch.empty(tensor.shape, dtype=tensor.dtype, device=generator.device)
        law(fresh, generator)
        if not direct:
            tensor.copy_(fresh)


def _jobs(name: str, module: nn.Module) -> list[tuple[Tensor, Law]]:
    """Own tensors of `module`, without its submodules', each with its law."""
    tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
    if not tensors:
        return []
    where = f"{type(module).__name__} ({name or 'the model itself'})"
    if type(module) not in LAWS:
        raise TypeError(f"no initialisation law for {where}; known: {', '.join(sorted(t.__name__ for t in LAWS))}")
    laws = LAWS[type(module)](module)
    if unknown := tensors.keys() - laws.keys():
        raise TypeError(f"no initialisation law for {', '.join(sorted(unknown))} of {where}; known: {', '.join(laws)}")
    return [(tensors[key], law) for key, law in laws.items() if key in tensors]
