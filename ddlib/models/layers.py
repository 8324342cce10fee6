"""What the networks share: their base class, norm layers, activations and poolings, made by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn, ones, stack, zeros

from ddlib.models.initialisation import LAWS, affine_norm

Size = tuple[int, int]


class Features(NamedTuple):
    """What a network computes before its classifier.

    `maps`: the activations of its blocks, first to last, each (B, C_l, H_l, W_l), after the non-linearity and before
    the pooling; () where a network has none.  `embedding`: (B, F), the input of the classifier.
    """

    maps: tuple[Tensor, ...]
    embedding: Tensor


class Network(nn.Module, ABC):
    """Base of the zoo: an embedding, a linear classifier on top, and the maps on the way on request.

    A subclass defines `classifier` and `embed`.  `shape` is the (C, H, W) of the images it was built for.
    """

    classifier: nn.Module

    def __init__(self, shape: tuple[int, int, int], num_classes: int):
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape {tuple(shape)}: three positive integers (C, H, W) expected")
        if num_classes < 1:
            raise ValueError(f"num_classes {num_classes}: at least 1 expected")
        self.shape = tuple(shape)

    @abstractmethod
    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""

    def features(self, images: Tensor) -> Features:
        """Maps and embedding of `images` (B, C, H, W), differentiable; see `Features`.

        Raises:
            ValueError: the images have not the shape that the network was built for.
        """
        self._check(images)
        maps: list[Tensor] = []
        embedding = self.embed(images, maps)
        return Features(tuple(maps), embedding)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K): `classifier(features(images).embedding)`, but under no_grad no map outlives its use."""
        self._check(images)
        return self.classifier(self.embed(images))

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            expected = ", ".join(map(str, self.shape))
            raise ValueError(f"images of shape {tuple(images.shape)}: this network was built for (B, {expected})")


class InstanceNorm2d(nn.Module):
    """Instance norm with gain and bias: GroupNorm with as many groups as channels (the norm of DC's ConvNet).

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and (biased) variance over H and W of each image and
    channel; no running statistics, so training and evaluation mode agree.  Two kernels compute this same function,
    chosen by time on a CPU: `group_norm` for float32 and float64, where twice differentiated networks take 1.3 to 2
    times as long with `instance_norm`, and `instance_norm` for half precision, where the backward pass of
    `group_norm` is slower, many times for channels_last maps, and autocast on CUDA would return float32 maps.
    channels_last maps stay channels_last.

    Args:
        channels: C.
        eps: added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(ones(channels)), nn.Parameter(zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W), with H * W > 1."""
        if x.dtype.itemsize >= 4:
            y = F.group_norm(x, x.shape[1], self.weight, self.bias, self.eps)
        else:
            y = F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return _in_format_of(x, y)

    def extra_repr(self) -> str:
        """Channels and eps, for `print(model)`."""
        return f"{len(self.weight)}, eps={self.eps}"


class BatchNorm2d(nn.Module):
    """Batch norm with gain, bias and running statistics, PyTorch's defaults (momentum 0.1, eps 1e-5).

    As `torch.nn.BatchNorm2d` without `num_batches_tracked`: with momentum fixed it is never read, and an integer
    counter among the buffers is in the way when the buffers of several networks are stacked and vmapped.

    Args:
        channels: C.
    """

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(ones(channels)), nn.Parameter(zeros(channels))
        self.register_buffer("running_mean", zeros(channels))
        self.register_buffer("running_var", ones(channels))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (B, C, H, W): by its own statistics, recording them, in training mode; else by the record."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def extra_repr(self) -> str:
        """Channels, momentum and eps, for `print(model)`."""
        return f"{len(self.weight)}, momentum={self.momentum}, eps={self.eps}"


class AveragePool2x2(nn.Module):
    """Mean over 2x2 blocks, as `torch.nn.AvgPool2d(2)`: an odd last row or column is left out.

    On a CPU the rows are added first and then the columns, which takes a quarter to two thirds of the kernel's time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H // 2, W // 2)."""
        if x.device.type != "cpu":
            return F.avg_pool2d(x, 2)
        height, width = 2 * (x.shape[-2] // 2), 2 * (x.shape[-1] // 2)
        rows = x[..., 0:height:2, :width] + x[..., 1:height:2, :width]
        return (rows[..., 0::2] + rows[..., 1::2]) * 0.25


class AdaptiveMaxPool(nn.Module):
    """Largest values over a grid of windows, as `torch.nn.AdaptiveMaxPool2d(side)`: equal parts, rounded outwards.

    Window i of a map with H rows goes from floor(i H / side) to ceil((i + 1) H / side), so that windows overlap where
    `side` does not divide H, and a map with fewer rows than `side` is enlarged.  Rows first and then columns: the
    kernel's gradient is added up in any order on a GPU, where results would not repeat bit by bit.

    Args:
        side: of the grid, at least 1.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, side, side)."""
        return self._along(self._along(x, -2), -1)

    def _along(self, x: Tensor, dim: int) -> Tensor:
        length = x.shape[dim]
        windows = [(i * length // self.side, -(-(i + 1) * length // self.side)) for i in range(self.side)]
        return stack([x.narrow(dim, start, end - start).amax(dim) for start, end in windows], dim)

    def extra_repr(self) -> str:
        """Side of the grid, for `print(model)`."""
        return str(self.side)


LAWS[InstanceNorm2d] = LAWS[BatchNorm2d] = affine_norm


def _in_format_of(x: Tensor, y: Tensor) -> Tensor:
    """`y` (B, C, H, W), channels_last where `x` is.  By strides: vmap answers no question about memory formats."""
    if x.stride(1) == 1 and y.stride(1) != 1:
        return y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return y


def _instance(channels: int, size: Size) -> nn.Module:
    if size == (1, 1):
        raise ValueError(
            "norm 'instance' needs maps of more than one pixel; take larger images, less depth or another norm"
        )
    return InstanceNorm2d(channels)


def _group(channels: int, size: Size) -> nn.Module:
    if channels % 4:
        raise ValueError(f"norm 'group' has 4 groups: the number of channels must be a multiple of 4, not {channels}")
    return nn.GroupNorm(4, channels)


_NORMS: dict[str, Callable[[int, Size], nn.Module]] = {
    "instance": _instance,
    "batch": lambda channels, size: BatchNorm2d(channels),
    "layer": lambda channels, size: nn.LayerNorm((channels, *size)),
    "group": _group,
    "none": lambda channels, size: nn.Identity(),
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "swish": nn.SiLU,
}
_POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "avg": AveragePool2x2,
    "max": lambda: nn.MaxPool2d(2),
    "none": nn.Identity,
}


def norm(kind: str, channels: int, size: Size) -> nn.Module:
    """A norm layer for maps of `channels` x `size`.

    "instance" (one group a channel), "batch", "layer" (over C, H and W of the map, with C*H*W gains and biases, as
    in DC), "group" (4 groups) and "none".
    """
    return _pick("norm", kind, _NORMS)(channels, size)


def activation(kind: str) -> nn.Module:
    """A non-linearity: "relu", "sigmoid", "leaky_relu" (slope 0.01) or "swish"; the ReLUs work in place."""
    return _pick("activation", kind, _ACTIVATIONS)()


def pooling(kind: str) -> nn.Module:
    """A 2x2 pooling with stride 2: "avg", "max" or "none"."""
    return _pick("pooling", kind, _POOLINGS)()


def _pick(argument: str, kind: str, table: Mapping[str, Callable]) -> Callable:
    if kind not in table:
        raise ValueError(f"unknown {argument} {kind!r}; known: {', '.join(table)}")
    return table[kind]
