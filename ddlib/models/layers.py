"""What the networks share: their base class, norms, activations and poolings, and how fresh weights are drawn."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


class Features(NamedTuple):
    """What a network computes before its classifier.

    `maps`: the activations of its blocks, first to last, each (B, C_l, H_l, W_l), after the non-linearity and before
    the pooling; () where a network has none.  `embedding`: (B, F), the input of the classifier.
    """

    maps: tuple[Tensor, ...]
    embedding: Tensor


class Network(nn.Module, ABC):
    """A network for images of one `shape` (C, H, W): an embedding, and a linear `classifier` on top.

    grouped: whether A networks whose tensors are stacked can be called as one, on images (A, B, C, H, W): all layers
        are those of this module, and the channels of all networks lie side by side in their maps, (B, A C, H, W).
    """

    classifier: nn.Module
    grouped: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape {tuple(shape)}: three positive integers (C, H, W) expected")
        positive("num_classes", num_classes)
        self.shape = tuple(shape)

    @abstractmethod
    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""

    def features(self, images: Tensor) -> Features:
        """Maps and embedding of `images` (B, C, H, W), differentiable; a ValueError for images of another shape."""
        self._check(images)
        maps: list[Tensor] = []
        embedding = self.embed(images, maps)
        return Features(tuple(maps), embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K): `classifier(features(images).embedding)`, but under no_grad no map outlives its use.

        Of A networks, where all tensors are stacked: (A, B, C, H, W) -> (A, B, K).
        """
        if self.grouped and images.ndim == 5 and tuple(images.shape[2:]) == self.shape:
            maps = images.transpose(0, 1).flatten(1, 2)
            return self.classifier(self.embed(maps)).unflatten(1, (len(images), -1)).transpose(0, 1)
        self._check(images)
        return self.classifier(self.embed(images))

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            expected = ", ".join(map(str, self.shape))
            raise ValueError(f"images of shape {tuple(images.shape)}: this network was built for (B, {expected})")


def positive(name: str, value: int) -> int:
    """`value`, or a ValueError where it is below 1."""
    if value < 1:
        raise ValueError(f"{name} {value}: at least 1 expected")
    return value


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d` without groups; with the tensors of A networks stacked, one grouped convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, H, W) -> (B, O, H', W'); of A networks (B, A I, H, W) -> (B, A O, H', W')."""
        if self.weight.ndim == 4:
            return super().forward(x)
        bias = None if self.bias is None else self.bias.flatten()
        return F.conv2d(x, self.weight.flatten(0, 1), bias, self.stride, self.padding, groups=len(self.weight))


class Linear(nn.Linear):
    """`torch.nn.Linear` with a bias; with the tensors of A networks stacked, one product of batches."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, I) -> (B, O); of A networks (B, A I) -> (B, A O)."""
        if self.weight.ndim == 2:
            return super().forward(x)
        inputs = x.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        return torch.baddbmm(self.bias[:, None], inputs, self.weight.mT).transpose(0, 1).flatten(1)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`; with the tensors of A networks stacked, over A times the groups."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W), or (B, A C, H, W) of A networks."""
        groups = self.num_groups * self.weight.numel() // self.num_channels
        return F.group_norm(x, groups, self.weight.flatten(), self.bias.flatten(), self.eps)


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over (C, H, W); with the tensors of A networks stacked, over those of each."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W), or (B, A C, H, W) of A networks."""
        if self.weight.ndim == 3:
            return super().forward(x)
        maps = F.layer_norm(x.unflatten(1, (len(self.weight), -1)), self.normalized_shape, eps=self.eps)
        return torch.addcmul(self.bias, maps, self.weight).flatten(1, 2)


class InstanceNorm2d(nn.Module):
    """Instance norm with gain and bias: GroupNorm with as many groups as channels (the norm of DC's ConvNet).

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and (biased) variance over H and W of each image and
    channel.  Of the two kernels, `group_norm` is the faster in float32 and float64, and `instance_norm` in half
    precision, where `group_norm` would return float32 under autocast on CUDA.  channels_last maps stay channels_last.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W), with H * W > 1."""
        if x.dtype.itemsize >= 4:
            y = F.group_norm(x, x.shape[1], self.weight.flatten(), self.bias.flatten())
        else:
            y = F.instance_norm(x, weight=self.weight.flatten(), bias=self.bias.flatten())
        if x.stride(1) == 1 and y.stride(1) != 1:  # by strides: vmap answers no question about memory formats
            y = y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return y


class BatchNorm2d(nn.Module):
    """`torch.nn.BatchNorm2d` without `num_batches_tracked`, an integer in the way when buffers are vmapped."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W): by its own statistics, recording them, in training mode; else by the record."""
        mean, var, weight, bias = (t.flatten() for t in (self.running_mean, self.running_var, self.weight, self.bias))
        return F.batch_norm(x, mean, var, weight, bias, self.training)


class AveragePool2x2(nn.Module):
    """`torch.nn.AvgPool2d(2)`; on a CPU rows first, then columns, in a quarter to two thirds of the kernel's time."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        if x.device.type != "cpu":
            return F.avg_pool2d(x, 2)
        height, width = 2 * (x.shape[-2] // 2), 2 * (x.shape[-1] // 2)
        rows = x[..., 0:height:2, :width] + x[..., 1:height:2, :width]
        return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


class AdaptiveMaxPool(nn.Module):
    """`torch.nn.AdaptiveMaxPool2d(side)`, rows first and then columns: a GPU's kernel does not repeat bit by bit."""

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, side, side); window i of H rows: floor(i H / side) to ceil((i + 1) H / side)."""
        for dim in (-2, -1):
            length = x.shape[dim]
            windows = [(i * length // self.side, -(-(i + 1) * length // self.side)) for i in range(self.side)]
            x = torch.stack([x.narrow(dim, start, end - start).amax(dim) for start, end in windows], dim)
        return x


def norm(kind: str, channels: int, size: Size) -> nn.Module:
    """A norm layer for maps of `channels` x `size`.

    "instance", "batch", "layer" (over C, H and W, with C*H*W gains and biases, as in DC), "group" (4) and "none".
    """
    if kind == "instance" and size == (1, 1):
        raise ValueError(
            "norm 'instance' needs maps of more than one pixel; take larger images, less depth or another norm"
        )
    if kind == "group" and channels % 4:
        raise ValueError(f"norm 'group' has 4 groups: the number of channels must be a multiple of 4, not {channels}")
    kinds = {
        "instance": lambda: InstanceNorm2d(channels),
        "batch": lambda: BatchNorm2d(channels),
        "layer": lambda: LayerNorm((channels, *size)),
        "group": lambda: GroupNorm(4, channels),
        "none": nn.Identity,
    }
    return _layer("norm", kind, kinds)


def activation(kind: str) -> nn.Module:
    """A non-linearity: "relu", "sigmoid", "leaky_relu" (slope 0.01) or "swish"; the ReLUs work in place."""
    kinds = {
        "relu": lambda: nn.ReLU(inplace=True),
        "sigmoid": nn.Sigmoid,
        "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
        "swish": nn.SiLU,
    }
    return _layer("activation", kind, kinds)


def pooling(kind: str) -> nn.Module:
    """A 2x2 pooling with stride 2: "avg", "max" or "none"."""
    return _layer("pooling", kind, {"avg": AveragePool2x2, "max": lambda: nn.MaxPool2d(2), "none": nn.Identity})


def _layer(argument: str, kind: str, kinds: Mapping[str, Callable[[], nn.Module]]) -> nn.Module:
    if kind not in kinds:
        raise ValueError(f"unknown {argument} {kind!r}; known: {', '.join(kinds)}")
    return kinds[kind]()


@torch.no_grad()
def reset(model: nn.Module, generator: torch.Generator) -> None:
    """Redraw every parameter of `model` in place from PyTorch's default law, and reset its buffers.

    Weights and biases of convolutions and linear layers ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in)), but for convolutions of
    `draw_by_fan_out`; embeddings ~ N(0, 1);
    norms 1 and 0, running means 0 and variances 1.  A CPU generator with seed s gives the very tensors of
    `torch.manual_seed(s)` followed by building the network, whatever the model's device and memory format.

    Raises:
        TypeError: a layer, or a tensor of a layer, has no known law.  Nothing is changed then.
    """
    if hasattr(model, "redraw"):  # a network of others, which has a law of its own
        model.redraw(generator)
        return
    laws = []
    for name, module in model.named_modules():
        tensors = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
        known = _laws(module)
        if unknown := tensors.keys() - known.keys():
            where = f"{type(module).__name__} ({name or 'the model itself'})"
            raise TypeError(
                f"no initialisation law for {', '.join(sorted(unknown))} of {where}; "
                "known: convolutions, linear layers, embeddings and norms"
            )
        laws += [(tensors[key], law) for key, law in known.items() if key in tensors]
    for tensor, law in laws:
        fresh = torch.empty(tensor.shape, dtype=tensor.dtype, device=generator.device)
        law(fresh, generator)
        tensor.copy_(fresh)


def draw_by_fan_out(model: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the convolutions of `model` from N(0, 2 / (k^2 outputs)), now and whenever `reset` redraws them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.by_fan_out = True
            nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)


_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, InstanceNorm2d, BatchNorm2d)


def _laws(module: nn.Module) -> dict[str, Callable[[Tensor, torch.Generator], Any]]:
    """What fills each tensor of a layer, in the order of its constructor; nothing for an unknown layer."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        bound = 1 / math.sqrt(module.weight[0].numel())
        law = partial(nn.init.kaiming_uniform_, a=math.sqrt(5))
        if getattr(module, "by_fan_out", False):
            law = partial(nn.init.kaiming_normal_, mode="fan_out")
        return {
            "weight": lambda tensor, stream: law(tensor, generator=stream),
            "bias": lambda tensor, stream: tensor.uniform_(-bound, bound, generator=stream),
        }
    if isinstance(module, nn.Embedding) and module.padding_idx is None:
        return {"weight": lambda tensor, stream: tensor.normal_(generator=stream)}
    if isinstance(module, _NORMS):
        start = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
        return {name: lambda tensor, _, value=value: tensor.fill_(value) for name, value in start.items()}
    return {}
