"""The networks that distil and that evaluate, for small images, in the form that the dataset-distillation lineage uses.

Chains of convolutions: ConvNet (Gidaris & Komodakis 2018, as DC, Zhao et al. 2021, took it), AlexNet, VGG-11, LeNet and
MLP.  With shortcuts: ResNet (He et al. 2016) and DenseNet-BC (Huang et al. 2017).  ViT: Dosovitskiy et al. (2021), with
the sizes of DC-Bench (Cui et al. 2022).
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models import layers
from ddlib.models.layers import Network, Size, positive


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

    stages: the convolution blocks; the first of them pads `extra_padding` more.
    hidden: widths of the linear layers, each with a ReLU, between the trunk and the classifier.
    grid: side of the square to which the last map, pooled, is brought by adaptive max pooling; None: it stays.
    """

    grouped = True

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        norm: str = "none",
        activation: str = "relu",
        hidden: Sequence[int] = (),
        grid: int | None = None,
    ):
        super().__init__(shape, num_classes)
        self.blocks, self.poolings = nn.ModuleList(), nn.ModuleList()
        channels, *size = shape
        for index, stage in enumerate(stages):
            inputs, channels = channels, positive("width", stage.width)
            padding = stage.padding + (extra_padding(shape) if index == 0 else 0)
            size = tuple(side + 2 * padding - stage.kernel + 1 for side in size)
            pooled = size if stage.pooling == "none" else tuple(side // 2 for side in size)
            if min(pooled) < 1:
                kind = type(self).__name__
                raise ValueError(
                    f"shape {self.shape} is too small for {kind}: nothing is left of its maps after block {index + 1}"
                )
            block = OrderedDict(
                conv=layers.Conv2d(inputs, channels, stage.kernel, padding=padding),
                norm=layers.norm(norm, channels, size),
                activation=layers.activation(activation),
            )
            self.blocks.append(nn.Sequential(block))
            self.poolings.append(layers.pooling(stage.pooling))
            size = pooled
        self.grid = nn.Identity()
        if grid is not None:
            self.grid, size = layers.AdaptiveMaxPool(positive("grid", grid)), (grid, grid)
        self.hidden, units = nn.Sequential(), channels * size[0] * size[1]
        for width in hidden:
            self.hidden.append(nn.Sequential(layers.Linear(units, positive("width", width)), nn.ReLU(inplace=True)))
            units = width
        self.classifier = layers.Linear(units, num_classes)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""
        x = images
        for block, pool in zip(self.blocks, self.poolings, strict=True):
            x = block(x)
            if maps is not None:
                maps.append(x)
            x = pool(x)
        return self.hidden(self.grid(x).flatten(1))


def extra_padding(shape: tuple[int, int, int]) -> int:
    """What the first convolution of a chain pads beyond its usual: 2 for one-channel 28x28 images, which become 32x32.

    Source: `networks.py` of VICO-UoE/DatasetCondensation (DC, DSA, DM), whose one-channel sets are all 28x28.
    """
    return 2 if tuple(shape) == (1, 28, 28) else 0


class ConvNet(Chain):
    """ConvNet-D: D blocks of 3x3 convolution, norm, activation and 2x2 pooling, then a linear classifier.

    320,010 parameters for 3x32x32 images, 10 classes and the defaults.  Maps: D, after the activation and before
    the pooling.  Embedding: the last map, pooled and flattened (2048 for the defaults).

    depth: D; None for the one whose last pooling leaves 4x4: 2 for 16 pixels, 3 for 28 and 32, 4 for 64, 5 for 128, 6
        for 256 (7x7 at most for sizes in between, by the shorter side; at least 1).
    norm, activation, pooling: kinds of `ddlib.models.layers`.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        width: int = 128,
        depth: int | None = None,
        norm: str = "instance",
        activation: str = "relu",
        pooling: str = "avg",
    ):
        if depth is None:
            side = max(1, min(shape[1:]) + 2 * extra_padding(shape))  # of the first map
            depth = max(1, math.floor(math.log2(side)) - 2)  # halvings that leave 4 to 7 pixels
        stages = [Stage(width, pooling=pooling)] * positive("depth", depth)
        super().__init__(stages, shape=shape, num_classes=num_classes, norm=norm, activation=activation)


class AlexNet(Chain):
    """AlexNet for small images: convolutions 128, 192, 256, 192, 192 with max pooling, and a linear classifier.

    1,872,202 parameters for 3x32x32 images and 10 classes.  No dropout.  Maps: the five ReLU outputs.  Embedding:
    192 x H/8 x W/8, flattened, from 8x8 images on.  The published class is fixed to 4x4 there; this one follows the
    image.  `norm`: "none" as published; "batch" is DM's AlexNetBN.  `width`: channels of the first convolution; the
    others are 1.5, 2, 1.5 and 1.5 times as wide.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int = 128, norm: str = "none"):
        wider = 3 * width // 2
        stages = [Stage(width, 5, 2, "max"), Stage(wider, 5, 2, "max"), Stage(2 * width)]
        stages += [Stage(wider), Stage(wider, pooling="max")]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm=norm)


class VGG11(Chain):
    """VGG-11 with norm layers: 64-M-128-M-256-256-M-512-512-M-512-512-M and a linear classifier.

    9,231,114 parameters for 3x32x32 images, the smallest, and 10 classes.  Maps: the eight ReLU outputs.  Embedding:
    512 x H/32 x W/32, flattened: 512 at 32x32, 2048 at 64x64 (the published class is fixed to 512).  GLaD and LD3M
    evaluate with `grid=7`: a last map of 7x7 at any size, 9,476,874 parameters for 3 channels and 10 classes.

    `norm`: "instance" as published; "batch" is DM's VGG11BN.  `width`: channels of the first block.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        width: int = 64,
        norm: str = "instance",
        grid: int | None = None,
    ):
        multiples = ((1, "max"), (2, "max"), (4, "none"), (4, "max"), (8, "none"), (8, "max"), (8, "none"), (8, "max"))
        stages = [Stage(width * multiple, pooling=pooling) for multiple, pooling in multiples]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm=norm, grid=grid)


class LeNet(Chain):
    """LeNet: 5x5 convolutions 6 and 16 with ReLU and max pooling, linear layers 120 and 84, linear classifier.

    62,006 parameters for 3x32x32 images, 16x16 at least, and 10 classes.  Maps: two.  Embedding: the 84 units.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int):
        stages = [Stage(6, 5, 0, "max"), Stage(16, 5, 0, "max")]
        super().__init__(stages, shape=shape, num_classes=num_classes, hidden=(120, 84))


class MLP(Chain):
    """Perceptron with two hidden layers of `width` units and ReLU: C*H*W - 128 - 128 - K.

    411,146 parameters for 3x32x32 images and 10 classes.  No maps.  Embedding: the second hidden layer.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int = 128):
        super().__init__([], shape=shape, num_classes=num_classes, hidden=(width, width))


class Projection(layers.Conv2d):
    """1x1 convolution without bias on every `stride`-th row and column, as `Conv2d(inputs, outputs, 1, stride)`.

    Below 8 input channels those rows and columns are taken out first: oneDNN's strided kernel for AVX2 writes past its
    buffers in the backward pass of narrow channels_last maps, where one thread crashes and two get gradients that
    differ from run to run.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.in_channels >= 8:
            return super().forward(x)
        groups = len(self.weight) if self.weight.ndim == 5 else 1  # of A networks, see `layers.Conv2d`
        return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight.flatten(0, -4), groups=groups)


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions without bias, relu(norm2(conv2(relu(norm1(conv1 x)))) + shortcut x).

    size: height and width of the input.
    average: downsample by 2x2 average pooling, after the first ReLU and in the shortcut, instead of by stride.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, *, stride: int, norm: str, average: bool):
        super().__init__()
        step, pooled = (1, stride == 2) if average else (stride, False)
        after = downsampled(size, stride, average)
        self.conv1 = layers.Conv2d(inputs, outputs, 3, step, padding=1, bias=False)
        self.norm1 = layers.norm(norm, outputs, size if average else after)
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.conv2 = layers.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = layers.norm(norm, outputs, after)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Projection(inputs, outputs, step),
                nn.AvgPool2d(2) if pooled else nn.Identity(),
                layers.norm(norm, outputs, after),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.pool(F.relu(self.norm1(self.conv1(x)), inplace=True))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


def downsampled(size: Size, stride: int, average: bool) -> Size:
    """Height and width after a padded 3x3 convolution of this stride (rounded up), or a pooling (rounded down)."""
    return tuple(side // stride if average else -(-side // stride) for side in size)


class ResNet(Network):
    """A 3x3 stem with stride 1 and no pooling, four stages of basic blocks, pooling, a linear classifier.

    Maps: the outputs of the four stages.  Embedding: the last of them, pooled and flattened: 8 `width` values up to
    32x32, four times that at 64x64, where the pooling leaves 2x2; for the "AP" networks 8 `width` x H/8 x W/8.
    Parameters for 3x32x32 images and 10 classes, by width: 64, the lineage's networks, and 32, those of DiM:

        resnet10     4,903,242   1,228,970        resnet18     11,173,962   2,797,610
        resnet10_ap  4,980,042   1,267,370        resnet18_ap  11,250,762   2,836,010

    and, pooled over the whole map, the "AP" networks as many as the others: 1,228,970 and 2,797,610 in DiM.

    Images have, with instance norm, 9 pixels along the longer side at least (16 for "AP", of which 8x8 is the smallest
    with any norm).

    blocks: basic blocks a stage: 1 in ResNet-10, 2 in ResNet-18.
    average: downsample by 2x2 average pooling instead of by stride, as DC's "AP" networks.
    width: channels of the first stage; the others have 2, 4 and 8 times as many.
    norm: "instance" as DC evaluates with it; "batch" is DM's ResNet18BN, and with width 32 DiM's networks.
    pooling: what the last map is averaged over: "4x4" windows (all of a smaller map); all of it, "global", as GLaD and
        LD3M evaluate, and as DiM's "AP" networks; "none", as DC's "AP" networks.  None: "none" where downsampling
        averages, else "4x4".
    weights: "default", PyTorch's law; "fan_out": convolutions ~ N(0, 2 / (k^2 outputs)), as DiM's networks draw them.
    """

    grouped = True

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        blocks: int,
        average: bool,
        width: int = 64,
        norm: str = "instance",
        pooling: str | None = None,
        weights: str = "default",
    ):
        super().__init__(shape, num_classes)
        size, channels = tuple(shape[1:]), positive("width", width)
        stem = layers.Conv2d(shape[0], width, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, layers.norm(norm, width, size), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        for index, stride in enumerate((1, 2, 2, 2)):
            inputs, channels, before = channels, width * 2**index, size
            size = downsampled(size, stride, average)
            if min(size) < 1:
                raise ValueError(f"shape {self.shape} is too small: nothing is left of the maps in stage {index + 1}")
            first = BasicBlock(inputs, channels, before, stride=stride, norm=norm, average=average)
            more = (
                BasicBlock(channels, channels, size, stride=1, norm=norm, average=average) for _ in range(blocks - 1)
            )
            self.stages.append(nn.Sequential(first, *more))
        windows, pooling = {"4x4": 4, "global": max(size), "none": 1}, pooling or ("none" if average else "4x4")
        for name, value, known in (("pooling", pooling, windows), ("weights", weights, ("default", "fan_out"))):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; known: {', '.join(known)}")
        window = tuple(min(windows[pooling], side) for side in size)
        self.pool = nn.AvgPool2d(window)
        self.classifier = layers.Linear(channels * (size[0] // window[0]) * (size[1] // window[1]), num_classes)
        if weights == "fan_out":
            layers.draw_by_fan_out(self)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each stage is appended to `maps` if given."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
            if maps is not None:
                maps.append(x)
        return self.pool(x).flatten(1)


class DenseLayer(nn.Module):
    """Bottleneck layer of DenseNet: `growth` channels conv2(relu(norm2(conv1(relu(norm1 x))))) are joined to x.

    conv1 is 1x1 and gives four times as many, conv2 3x3, both without bias.
    """

    def __init__(self, inputs: int, growth: int, size: Size, *, norm: str):
        super().__init__()
        self.norm1 = layers.norm(norm, inputs, size)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = layers.norm(norm, 4 * growth, size)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inputs + growth, H, W)."""
        y = self.conv1(F.relu(self.norm1(x)))  # not in place: without a norm, x is joined below
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class DenseNet(Network):
    """DenseNet-BC: a 3x3 stem, four dense blocks with transitions between them, a mean over the last map, a classifier.

    1,000,618 parameters for 3x32x32 images, 10 classes and the defaults.  The blocks have 6, 12, 24 and 16 layers, as
    in DenseNet-121.  The stem gives 2 `growth` channels; a transition, held by the block that it leads to, is a 1x1
    convolution to half the channels and 2x2 average pooling.  Maps: the outputs of the four dense blocks, each after
    the norm and ReLU that follow it.  Embedding: the mean of the last of them over its pixels (384 for the defaults).
    Images are 8x8 at least (with instance norm, 16 along the longer side).  `growth`: channels that each layer adds.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, growth: int = 12, norm: str = "batch"):
        super().__init__(shape, num_classes)
        channels, size = 2 * positive("growth", growth), tuple(shape[1:])
        if min(size) < 8:
            raise ValueError(f"shape {self.shape} is too small for DenseNet: 8x8 pixels at least expected")
        before: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)]  # the stem
        self.blocks = nn.ModuleList()
        for depth in (6, 12, 24, 16):
            if self.blocks:
                before = [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]  # the transition
                channels, size = channels // 2, tuple(side // 2 for side in size)
            dense = [DenseLayer(channels + k * growth, growth, size, norm=norm) for k in range(depth)]
            channels += depth * growth
            self.blocks.append(nn.Sequential(*before, *dense, layers.norm(norm, channels, size), nn.ReLU()))
        self.classifier = nn.Linear(channels, num_classes)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""
        x = images
        for block in self.blocks:
            x = block(x)
            if maps is not None:
                maps.append(x)
        return x.mean((2, 3))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v in each head; no bias in the q, k, v projection.

    Written out, since the fused kernels cannot be differentiated twice.
    """

    def __init__(self, dim: int, *, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, heads, T, T)
        y = weights @ v
        return self.dropout(self.to_out(y.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Pre-norm transformer layer: x + attention(norm x), then x + mlp(norm x) with GELU; the norms may be left out."""

    def __init__(self, dim: int, attention: Attention, *, mlp_dim: int, dropout: float, layer_norm: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Network):
    """Vision transformer: patches to tokens, a class token first, positions added, pre-norm layers, a classifier.

    9,523,722 parameters for 3x32x32 images and 10 classes.  The ViT of GLaD and LD3M, for images of 128 pixels and
    more, has `patch=16, depth=10, layer_norm=False`: 16,176,650 parameters at 3x128x128; smaller images take a smaller
    patch.  No maps.  Embedding: the class token after the last norm, F = `dim`.  Dropout on the tokens and inside the
    layers draws from torch's global random state in training mode, since torch's dropout takes no generator: wrap
    training in `ddlib.seeding.scoped` (and say `randomness="different"` to `torch.vmap`).

    patch: side of the square patches, pixels; it divides H and W.
    dim: D, width of the tokens.
    layer_norm: whether there are layer norms, in the layers and after them.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        patch: int = 4,
        dim: int = 512,
        depth: int = 6,
        heads: int = 8,
        head_dim: int = 64,
        mlp_dim: int = 512,
        dropout: float = 0.1,
        layer_norm: bool = True,
    ):
        super().__init__(shape, num_classes)
        channels, height, width = shape
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"shape {self.shape}: height and width must be multiples of patch {patch}, at least 1")
        self.patch = patch
        self.to_token = nn.Linear(channels * patch * patch, dim)
        self.positions = nn.Embedding((height // patch) * (width // patch) + 1, dim)
        self.class_token = nn.Embedding(1, dim)
        self.dropout, self.layers = nn.Dropout(dropout), nn.Sequential()
        for _ in range(depth):
            attention = Attention(dim, heads=heads, head_dim=head_dim, dropout=dropout)
            self.layers.append(Layer(dim, attention, mlp_dim=mlp_dim, dropout=dropout, layer_norm=layer_norm))
        self.norm = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.classifier = nn.Linear(dim, num_classes)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Class token (B, D) of `images` (B, C, H, W) after the last norm; `maps` gets nothing."""
        patches = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)  # (B, T, C * patch * patch)
        first = self.class_token.weight.expand(len(images), 1, -1)
        tokens = torch.cat([first, self.to_token(patches)], dim=1) + self.positions.weight
        return self.norm(self.layers(self.dropout(tokens))[:, 0])
