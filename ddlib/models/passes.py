"""How images pass a network: as pure functions of its tensors, several networks at once, so many images at a time."""

import contextlib
import ctypes
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ddlib import models
from ddlib.models.foreign import Foreign

Tensors = Mapping[str, Tensor]
"""Name in the network -> parameter or buffer; with a first axis A where the tensors of A networks are stacked."""

PRECISIONS = ("float32", "bfloat16")
"""What convolutions and linear layers may compute in; all else is float32."""

TOGETHER_ELEMENTS = {"cpu": 2**20, "cuda": 2**24}
"""Largest map of one mini-batch of all networks trained together: 128 images at 128 x 32 x 32 keep a GPU busy.

On a CPU small networks share calls of kernels, which takes a third of the time (`python -m benchmarks.evaluation`).
"""

PASS_ELEMENTS = {"cpu": 2**21, "cuda": 2**28}
"""Largest map (images x channels x height x width) of one pass: on a CPU it stays in the cache, on a GPU in memory."""


def _keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the maps to come: to return it and get it anew takes a tenth of a step."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: 32 MiB, the highest that every version takes
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD


_keep_freed_memory()


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


def together(batch: int, network: "PureNetwork", device: torch.device) -> int:
    """How many networks to train at once, at least 1, on mini-batches of `batch` images each.

    One where the network draws random numbers itself.  On a CPU only those that are `grouped` go together: under
    `torch.vmap` others take up to 3.5 times as long.
    """
    if network.draws or (device.type == "cpu" and not network.grouped):
        return 1
    return max(1, TOGETHER_ELEMENTS.get(device.type, 0) // (batch * network.elements))


def has_batch_statistics(network: nn.Module) -> bool:
    """Whether images that pass `network` together influence one another in training mode, as in a batch norm."""
    norms = (isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    return any(norms) or any(True for _ in network.buffers())


class Flat:
    """A network whose parameters come as one vector: logits = flat(theta, images).

    The order is that of `network.named_parameters()`; of `network` the shapes alone are used.  Differentiable in theta
    and in the images, any number of times.  A network with batch statistics is refused with a ValueError.
    """

    def __init__(self, network: nn.Module):
        if has_batch_statistics(network):
            raise ValueError(
                "the network has batch statistics, which a trajectory of parameters does not carry; "
                "take norm 'instance', 'layer', 'group' or 'none'"
            )
        if isinstance(network, Foreign):
            network.check_repeats()
        self.network = network.to("meta")
        self.shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, K) of `images` (B, C, H, W) under the parameters `theta` (P,)."""
        return functional_call(self.network, self.named(theta), (images,), tie_weights=False)

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The vector (P,), or vectors (A, P), as views with the shapes of the parameters, by name."""
        parts = zip(self.shapes.items(), theta.split(self.sizes, dim=-1), strict=True)
        return {name: part.view(theta.shape[:-1] + shape) for (name, shape), part in parts}

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
        """The network with its parameters as one vector; refused where it has batch statistics."""
        return Flat(self.training)

    @property
    def draws(self) -> bool:
        """Whether the network draws random numbers itself (dropout), or, as one of others, may."""
        parts = self.training.modules()
        return isinstance(self.training, Foreign) or any(isinstance(m, nn.Dropout) and m.p > 0 for m in parts)

    @property
    def grouped(self) -> bool:
        """Whether tensors of A networks, stacked, can be called as one network on images (A, B, C, H, W)."""
        return self.training.grouped

    @property
    def whole_batches(self) -> bool:
        """Whether the images of a mini-batch depend on one another: by batch statistics, or by what is drawn."""
        return self.draws or has_batch_statistics(self.training)

    def logits(self, parameters: Tensors, buffers: Tensors, images: Tensor, *, training: bool = True) -> Tensor:
        """Logits (B, K) of images (B, C, H, W), in the dtype of the images; of A networks, where it is `grouped`."""
        lower = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if lower else contextlib.nullcontext():
            network = self.training if training else self.testing
            return functional_call(network, (parameters, buffers), (images,), tie_weights=False).to(images.dtype)

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
    source = models.fingerprint(name)  # a name may come to stand for another network
    return _pure(name, source, tuple(sorted(options.items())), tuple(shape), num_classes, precision)


@functools.lru_cache(maxsize=16)
def _pure(name, source, options, shape, num_classes, precision):
    build = functools.partial(models.build, name, shape=shape, num_classes=num_classes, **dict(options))
    with torch.device("meta"):
        training, testing = build(), build().eval()
    return PureNetwork(build, training, testing, precision, largest_map(testing))


@torch.no_grad()
def largest_map(network: nn.Module) -> int:
    """Elements of the largest map that a network of `models.build` has of one image, image and embedding included."""
    if isinstance(network, Foreign):
        return network.elements
    image = torch.empty(1, *network.shape, device=next(network.parameters()).device)
    features = network.features(image)
    return max(tensor.numel() for tensor in (image, *features.maps, features.embedding))


def summed_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over the images of each network: (A, B, K), and (A, B) or (A, B, K) -> (A,)."""
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return each.view(logits.shape[:2]).sum(1)


def stacked(
    logits: Callable[..., Tensor],
    grouped: bool,
    through: Callable[[Callable[..., Tensor]], Callable[..., Tensor]] = lambda f: f,
) -> Callable[..., Tensor]:
    """A function (*tensors, images (A, B, C, H, W), targets) -> (A,) of A networks: losses summed over the images.

    logits: (*tensors, images) -> logits of one network; where it is `grouped`, of several whose tensors are stacked.
        A network alone is called as it is, several as one or under `torch.vmap`; either goes `through`, such as
        `compiled`.
    """

    def first(stack):
        if isinstance(stack, Tensor):
            return stack.squeeze(0)
        return {name: tensor.squeeze(0) for name, tensor in stack.items()}

    def alone(*stacks):
        *others, targets = map(first, stacks)
        return F.cross_entropy(logits(*others), targets, reduction="sum")[None]

    each = logits if grouped else torch.vmap(logits)
    alone = through(alone)
    several = through(lambda *stacks: summed_losses(each(*stacks[:-1]), stacks[-1]))
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
