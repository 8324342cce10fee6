"""DenseNet-BC for small images (Huang et al. 2017), one of the networks that DiM is evaluated with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models import layers
from ddlib.models.layers import Network, Size

BLOCKS = (6, 12, 24, 16)
"""Layers of each dense block, those of DenseNet-121."""

BOTTLENECK = 4
"""Channels between the two convolutions of a layer, as a multiple of the growth."""


class DenseLayer(nn.Module):
    """Bottleneck layer, x joined by conv2(relu(norm2(conv1(relu(norm1 x))))): 1x1, then 3x3, without bias.

    Args:
        inputs: channels of x.
        growth: channels that are joined to them.
        size: height and width of the maps.
        norm_kind: see `ddlib.models.layers.norm`.
    """

    def __init__(self, inputs: int, growth: int, size: Size, *, norm_kind: str):
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1 = layers.norm(norm_kind, inputs, size)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = layers.norm(norm_kind, inner, size)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, inputs + growth, H, W)."""
        y = self.conv1(F.relu(self.norm1(x)))  # not in place: without a norm, x is joined below
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], dim=1)


class DenseNet(Network):
    """DenseNet-BC: a 3x3 stem, four dense blocks with transitions between them, a mean over the last map, a classifier.

    1,000,618 parameters for 3x32x32 images, 10 classes and the defaults.  The stem gives 2 `growth` channels; a
    transition, held by the block that it leads to, is a 1x1 convolution to half the channels and 2x2 average pooling.
    Maps: the outputs of the four dense blocks, each after the norm and ReLU that follow it.  Embedding: the mean of
    the last of them over its pixels (384 for the defaults), so its size does not follow the image.

    Args:
        shape: (C, H, W) of the images, 8x8 at least.
        num_classes: K.
        growth: channels that each layer adds.
        norm: "batch" as published; also "instance" (from 16 pixels along the longer side), "layer", "group", "none".

    Raises:
        ValueError: the images are too small, or the growth or the norm is not as above.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, growth: int = 12, norm: str = "batch"):
        super().__init__(shape, num_classes)
        if growth < 1:
            raise ValueError(f"growth {growth}: at least 1 expected")
        if min(shape[1:]) < 2 ** (len(BLOCKS) - 1):
            raise ValueError(f"shape {self.shape} is too small for DenseNet: 8x8 pixels at least expected")
        channels, size = 2 * growth, tuple(shape[1:])
        before: list[nn.Module] = [nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)]  # the stem
        self.blocks = nn.ModuleList()
        for depth in BLOCKS:
            if self.blocks:
                before = [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]  # the transition
                channels, size = channels // 2, tuple(side // 2 for side in size)
            dense = [DenseLayer(channels + k * growth, growth, size, norm_kind=norm) for k in range(depth)]
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
