"""What the networks share: their base class, the chain of blocks, norms, activations, poolings, and fresh weights."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

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
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
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
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
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
        return torch.stack([x.narrow(dim, start, end - start).amax(dim) for start, end in windows], dim)

    def extra_repr(self) -> str:
        """Side of the grid, for `print(model)`."""
        return str(self.side)


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


class Stage(NamedTuple):
    """One block of a chain: convolution to `width` channels (stride 1), norm, activation, then `pooling`."""

    width: int
    kernel: int = 3
    padding: int = 1
    pooling: str = "none"


class Chain(Network):
    """Blocks of convolution, norm and activation, each with its pooling; hidden linear layers; a linear classifier.

    Maps: the output of every block's activation, before the pooling.  Embedding: the last pooled map, flattened in
    the order C, H, W, or the last hidden layer.

    Args:
        stages: the convolution blocks.
        shape: (C, H, W) of the images.
        num_classes: K.
        norm_kind, activation_kind: of every block; see `ddlib.models.layers`.
        hidden: widths of the linear layers, each with a ReLU, between the trunk and the classifier.
        grid: side of the square to which the last map, pooled, is brought by adaptive max pooling; None: it stays.

    Raises:
        ValueError: the images are too small for the stages, or an option is unknown or below 1.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        norm_kind: str = "none",
        activation_kind: str = "relu",
        hidden: Sequence[int] = (),
        grid: int | None = None,
    ):
        super().__init__(shape, num_classes)
        self.blocks, self.poolings = nn.ModuleList(), nn.ModuleList()
        channels, *size = shape
        for index, stage in enumerate(stages):
            inputs, channels = channels, _positive("width", stage.width)
            grown, size = self._sizes(index, stage, size)
            self.blocks.append(
                nn.Sequential(
                    OrderedDict(
                        conv=nn.Conv2d(inputs, channels, stage.kernel, padding=stage.padding),
                        norm=norm(norm_kind, channels, grown),
                        activation=activation(activation_kind),
                    )
                )
            )
            self.poolings.append(pooling(stage.pooling))
        self.grid = nn.Identity() if grid is None else AdaptiveMaxPool(_positive("grid", grid))
        size = size if grid is None else (grid, grid)
        widths = [channels * size[0] * size[1], *(_positive("width", width) for width in hidden)]
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))
                for inputs, outputs in zip(widths, widths[1:], strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def _sizes(self, index: int, stage: Stage, size: Sequence[int]) -> tuple[Size, Size]:
        """Height and width of the map of a block and of what its pooling leaves."""
        grown = tuple(side + 2 * stage.padding - stage.kernel + 1 for side in size)
        left = grown if stage.pooling == "none" else tuple(side // 2 for side in grown)
        if min(left) < 1:
            raise ValueError(
                f"shape {self.shape} is too small for {type(self).__name__}: "
                f"nothing is left of its maps after block {index + 1}"
            )
        return grown, left

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""
        x = images
        for block, pool in zip(self.blocks, self.poolings, strict=True):
            x = block(x)
            if maps is not None:
                maps.append(x)
            x = pool(x)
        return self.hidden(self.grid(x).flatten(1))


def first_padding(shape: tuple[int, int, int], usual: int) -> int:
    """Padding of a first convolution: `usual`, and 2 more for one-channel 28x28 images, which turns 28 into 32.

    Source: `networks.py` of the published code of DC, DSA and DM (VICO-UoE/DatasetCondensation).  There the first
    convolution of ConvNet and VGG pads 3 instead of 1, of AlexNet 4 instead of 2, of LeNet 2 instead of 0, for
    every one-channel image: its one-channel sets, MNIST and FashionMNIST, are both 28x28.  Here other one-channel
    sizes keep the usual padding, and so do the ResNets, as in that code.
    """
    return usual + 2 if tuple(shape) == (1, 28, 28) else usual


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} {value}: at least 1 expected")
    return value


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
    InstanceNorm2d: affine_norm,
    BatchNorm2d: affine_norm,
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
