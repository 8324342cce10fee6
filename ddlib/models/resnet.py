"""Networks with shortcuts, for small images: ResNet-10 and -18 (He et al. 2016) and DenseNet-BC (Huang et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models import layers
from ddlib.models.layers import Network, Size, positive


class Projection(nn.Conv2d):
    """1x1 convolution without bias on every `stride`-th row and column, as `Conv2d(inputs, outputs, 1, stride)`.

    Below 8 input channels those rows and columns are taken out first: oneDNN's strided kernel for AVX2 writes past its
    buffers in the backward pass of narrow channels_last maps, where one thread crashes and two get gradients that
    differ from run to run.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.in_channels < 8:
            return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)
        return super().forward(x)


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions without bias, relu(norm2(conv2(relu(norm1(conv1 x)))) + shortcut x).

    Args:
        inputs, outputs: channels.
        size: height and width of the input.
        stride: 1 or 2.
        norm: see `ddlib.models.layers.norm`.
        average: downsample by 2x2 average pooling, after the first ReLU and in the shortcut, instead of by stride.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, *, stride: int, norm: str, average: bool):
        super().__init__()
        step, pooled = (1, stride == 2) if average else (stride, False)
        after = downsampled(size, stride, average)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, step, padding=1, bias=False)
        self.norm1 = layers.norm(norm, outputs, size if average else after)
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = layers.norm(norm, outputs, after)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Projection(inputs, outputs, step),
                nn.AvgPool2d(2) if pooled else nn.Identity(),
                layers.norm(norm, outputs, after),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
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

    Args:
        shape, num_classes: (C, H, W) of the images, and K; with instance norm, 9 pixels along the longer side at least
            (16 for "AP", of which 8x8 is the smallest with any norm).
        blocks: basic blocks a stage: 1 in ResNet-10, 2 in ResNet-18.
        average: downsample by 2x2 average pooling instead of by stride, as DC's "AP" networks.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "instance" as DC evaluates with it; "batch" is DM's ResNet18BN, and with width 32 DiM's networks.
        pooling: what the last map is averaged over: "4x4" windows (all of a smaller map); all of it, "global", as GLaD
            and LD3M evaluate; "none" in DC's "AP" networks.

    Raises:
        ValueError: the images are too small, or the norm or the pooling is unknown.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        blocks: int,
        average: bool,
        width: int = 64,
        norm: str = "instance",
        pooling: str = "4x4",
    ):
        super().__init__(shape, num_classes)
        size, channels = tuple(shape[1:]), positive("width", width)
        stem = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
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
        windows = {"4x4": 4, "global": max(size), "none": 1}
        if pooling not in windows:
            raise ValueError(f"unknown pooling {pooling!r}; known: {', '.join(windows)}")
        window = tuple(min(windows[pooling], side) for side in size)
        self.pool = nn.AvgPool2d(window)
        self.classifier = nn.Linear(channels * (size[0] // window[0]) * (size[1] // window[1]), num_classes)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each stage is appended to `maps` if given."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
            if maps is not None:
                maps.append(x)
        return self.pool(x).flatten(1)


class DenseLayer(nn.Module):
    """Bottleneck layer of DenseNet, x joined by conv2(relu(norm2(conv1(relu(norm1 x))))): 1x1, then 3x3, without bias.

    Args:
        inputs: channels of x.
        growth: channels that are joined to them; there are four times as many between the convolutions.
        size: height and width of the maps.
        norm: see `ddlib.models.layers.norm`.
    """

    def __init__(self, inputs: int, growth: int, size: Size, *, norm: str):
        super().__init__()
        self.norm1 = layers.norm(norm, inputs, size)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = layers.norm(norm, 4 * growth, size)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, inputs + growth, H, W)."""
        y = self.conv1(F.relu(self.norm1(x)))  # not in place: without a norm, x is joined below
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class DenseNet(Network):
    """DenseNet-BC: a 3x3 stem, four dense blocks with transitions between them, a mean over the last map, a classifier.

    1,000,618 parameters for 3x32x32 images, 10 classes and the defaults.  The blocks have 6, 12, 24 and 16 layers, as
    in DenseNet-121.  The stem gives 2 `growth` channels; a transition, held by the block that it leads to, is a 1x1
    convolution to half the channels and 2x2 average pooling.  Maps: the outputs of the four dense blocks, each after
    the norm and ReLU that follow it.  Embedding: the mean of the last of them over its pixels (384 for the defaults).

    Args:
        shape, num_classes: (C, H, W) of the images, 8x8 at least (with instance norm, 16 along the longer side), and K.
        growth: channels that each layer adds.
        norm: "batch" as published.

    Raises:
        ValueError: the images are too small, or the growth or the norm is not as above.
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
