"""The networks that are one chain of convolutions, in the form that the dataset-distillation lineage uses.

ConvNet is Gidaris & Komodakis' (2018), as DC (Zhao et al. 2021) took it; the others are those that DC evaluates with.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ddlib.models import layers
from ddlib.models.layers import Network, positive


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
        stages: the convolution blocks; the first of them pads `extra_padding` more.
        shape, num_classes: (C, H, W) of the images, and K.
        norm, activation: of every block; see `ddlib.models.layers`.
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
                conv=nn.Conv2d(inputs, channels, stage.kernel, padding=padding),
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
            self.hidden.append(nn.Sequential(nn.Linear(units, positive("width", width)), nn.ReLU(inplace=True)))
            units = width
        self.classifier = nn.Linear(units, num_classes)

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

    Source: `networks.py` of the published code of DC, DSA and DM (VICO-UoE/DatasetCondensation), which does so for
    every one-channel image: its one-channel sets, MNIST and FashionMNIST, are both 28x28.  Here other one-channel
    sizes keep the usual padding, and so do the ResNets, as in that code.
    """
    return 2 if tuple(shape) == (1, 28, 28) else 0


class ConvNet(Chain):
    """ConvNet-D: D blocks of 3x3 convolution, norm, activation and 2x2 pooling, then a linear classifier.

    320,010 parameters for 3x32x32 images, 10 classes and the defaults.  Maps: D, after the activation and before
    the pooling.  Embedding: the last map, pooled and flattened (2048 for the defaults).

    Args:
        shape, num_classes: (C, H, W) of the images, and K.
        width: channels of every block.
        depth: D; None for the one whose last pooling leaves 4x4: 2 for 16 pixels, 3 for 28 and 32, 4 for 64, 5 for
            128, 6 for 256 (7x7 at most for sizes in between, by the shorter side; at least 1).
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
    image.  `norm`: "none" as published; "batch" is DM's AlexNetBN.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, norm: str = "none"):
        stages = [Stage(128, 5, 2, "max"), Stage(192, 5, 2, "max"), Stage(256), Stage(192), Stage(192, pooling="max")]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm=norm)


class VGG11(Chain):
    """VGG-11 with norm layers: 64-M-128-M-256-256-M-512-512-M-512-512-M and a linear classifier.

    9,231,114 parameters for 3x32x32 images, the smallest, and 10 classes.  Maps: the eight ReLU outputs.  Embedding:
    512 x H/32 x W/32, flattened: 512 at 32x32, 2048 at 64x64 (the published class is fixed to 512).  GLaD and LD3M
    evaluate with `grid=7`: a last map of 7x7 at any size, 9,476,874 parameters for 3 channels and 10 classes.

    Args:
        shape, num_classes: (C, H, W) of the images, and K.
        width: channels of the first block.
        norm: "instance" as published; "batch" is DM's VGG11BN.
        grid: side of the square to which the last map is brought by adaptive max pooling; None: it stays as it is.
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

    62,006 parameters for 3x32x32 images and 10 classes; 16x16 images at least.  Maps: the two ReLU outputs of the
    convolutions.  Embedding: the 84 units.
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
