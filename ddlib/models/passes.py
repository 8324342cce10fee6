"""How images pass a network: as pure functions of its tensors, several networks at once, so many images at a time."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddlib import models

Tensors = Mapping[str, Tensor]
"""Name in the network -> parameter or buffer; with a first axis A where the tensors of A networks are stacked."""

PRECISIONS = ("float32", "bfloat16")
"""What convolutions and linear layers may compute in; all else is float32."""

TOGETHER_ELEMENTS = {"cpu": 0, "cuda": 2**24}
"""Largest map of one mini-batch of all networks trained together: 128 images at 128 x 32 x 32 keep a GPU busy.

On a CPU a network alone is the faster at any size: a convolution under vmap is a grouped one.
"""

PASS_ELEMENTS = {"cpu": 2**22, "cuda": 2**28}
"""Largest map (images x channels x height x width) of one pass: on a CPU it stays in the cache, on a GPU in memory."""


def most(elements: int, device: torch.device) -> int:
    """Images that fit into one pass, at least 1, where the largest map of one image has `elements`."""
    return max(1, PASS_ELEMENTS.get(device.type, PASS_ELEMENTS["cpu"]) // elements)


def size(batch: int, elements: int, device: torch.device) -> int:
    """Images in a pass of a batch whose images do not depend on one another: the whole batch where it fits.

    Else its largest divisor that fits, so that all passes have one size, unless that is less than half of what fits.
    """
    fit = most(elements, device)
    if batch <= fit:
        return batch
    divisor = max(part for part in range(1, fit + 1) if batch % part == 0)
    return divisor if 2 * divisor >= fit else fit


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 where it came in less: powers, norms and means need the digits."""
    return x if x.dtype == torch.float64 else x.float()


def together(elements: int, device: torch.device) -> int:
    """How many networks to train at once, at least 1, where the largest map of one's mini-batch has `elements`."""
    return max(1, TOGETHER_ELEMENTS.get(device.type, 0) // elements)


class Flat:
    """A network whose parameters come as one vector: logits = flat(theta, images).

    The order is that of `network.named_parameters()`; of `network` the shapes alone are used.  Differentiable in theta
    and in the images, any number of times.  A network with running statistics is refused with a ValueError.
    """

    def __init__(self, network: nn.Module):
        if any(True for _ in network.buffers()):
            raise ValueError(
                "the network has running statistics, which a trajectory of parameters does not carry; "
                "take norm 'instance', 'layer', 'group' or 'none'"
            )
        self.network = network.to("meta")
        self.shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, K) of `images` (B, C, H, W) under the parameters `theta` (P,)."""
        return functional_call(self.network, self.named(theta), (images,))

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The vector (P,) as views with the shapes of the parameters, by name."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def vector(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The named parameters of a network of the same kind as one new vector (P,)."""
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.shapes])


@dataclass(frozen=True, eq=False)
class PureNetwork:
    """A network as a pure function of its parameters and buffers, where running statistics are changed; by `pure`."""

    build: Callable[..., nn.Module]  # a fresh network on the CPU, from a `generator`
    training: nn.Module  # the network in either mode, on the meta device: shapes without values
    testing: nn.Module
    precision: str
    elements: int  # of the largest map of one image, the image and its embedding included

    @functools.cached_property
    def flat(self) -> Flat:
        """The network with its parameters as one vector; refused where it has running statistics."""
        return Flat(self.training)

    @property
    def draws(self) -> bool:
        """Whether the network draws random numbers itself (dropout)."""
        return any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.training.modules())

    @property
    def whole_batches(self) -> bool:
        """Whether the images of a mini-batch depend on one another: by running statistics, or by what is drawn."""
        return self.draws or any(True for _ in self.training.buffers())

    def logits(self, parameters: Tensors, buffers: Tensors, images: Tensor, *, training: bool = True) -> Tensor:
        """Logits (B, K) of images (B, C, H, W), in the dtype of the images."""
        lower = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if lower else contextlib.nullcontext():
            network = self.training if training else self.testing
            return functional_call(network, (parameters, buffers), (images,)).to(images.dtype)

    def embedding(self, parameters: Tensors, buffers: Tensors, images: Tensor) -> Tensor:
        """What the classifier sees of images (B, C, H, W) in training mode: (B, F), in at least float32."""
        inner = [{f"network.{name}": tensor for name, tensor in tensors.items()} for tensors in (parameters, buffers)]
        return at_least_float32(functional_call(_Embedding(self.training), tuple(inner), (images,)))


class _Embedding(nn.Module):
    """A network that gives its embedding when called, as `functional_call` calls it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.embed(images)


def known_options(network: str, **options: Any) -> dict[str, Any]:
    """Of `options` those that are given, that is, not None, and that the network has."""
    known = models.options_of(network)
    return {name: value for name, value in options.items() if value is not None and name in known}


def pure(
    name: str,
    options: Mapping[str, Any],
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    precision: str = "float32",
) -> PureNetwork:
    """`models.build` as a pure network; the same arguments give the same object, so that it is compiled once."""
    return _pure(name, tuple(sorted(options.items())), tuple(shape), num_classes, precision)


@functools.lru_cache(maxsize=16)
def _pure(name, options, shape, num_classes, precision):
    build = functools.partial(models.build, name, shape=shape, num_classes=num_classes, **dict(options))
    with torch.device("meta"):
        training, testing, image = build(), build().eval(), torch.empty(1, *shape)
        features = testing.features(image)
    elements = max(tensor.numel() for tensor in (image, *features.maps, features.embedding))
    return PureNetwork(build, training, testing, precision, elements)


def stacked(
    function: Callable[..., Tensor], through: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda f: f
) -> Callable[..., Tensor]:
    """A function of one network's tensors and mini-batch, -> (), for A networks, -> (A,): its arguments get an axis A.

    A network alone is called as it is, several under `torch.vmap`; either goes `through`, such as `compiled`.
    """

    def first(stack):
        if isinstance(stack, Tensor):
            return stack.squeeze(0)
        return {name: tensor.squeeze(0) for name, tensor in stack.items()}

    alone, several = through(lambda *stacks: function(*map(first, stacks))[None]), through(torch.vmap(function))
    return lambda *stacks: (alone if len(stacks[-1]) == 1 else several)(*stacks)


_SETTINGS: dict[str, Any] = {"fullgraph": True, "dynamic": False}
_NEWER = {"recompile_limit": 64, "isolate_recompiles": True}  # graphs of one function, one for each size of a pass


def compiled(function: Callable[..., Any], *, draws: bool = False) -> Callable[..., Any]:
    """`function` through `torch.compile`; the first call of each size takes up to a minute, and nothing falls back.

    draws: whether it draws from the global random state, as dropout does: then the numbers that it draws uncompiled.
    """
    if draws:
        return torch._inductor.config.patch(fallback_random=True)(compiled(function))
    if _NEWER.keys() <= inspect.signature(torch.compile).parameters.keys():
        return torch.compile(function, **_SETTINGS, **_NEWER)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _NEWER["recompile_limit"])
    return torch.compile(function, **_SETTINGS)
