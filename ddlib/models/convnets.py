"""The networks that are one chain of convolutions, in the form that the dataset-distillation lineage uses.

ConvNet is Gidaris & Komodakis' (2018), as DC (Zhao et al. 2021) took it; the others are those that DC evaluates with.
"""

import math

from ddlib.models.layers import Chain, Stage, first_padding


class ConvNet(Chain):
    """ConvNet-D: D blocks of 3x3 convolution, norm, activation and 2x2 pooling, then a linear classifier.

    320,010 parameters for 3x32x32 images, 10 classes and the defaults.  Maps: D, after the activation and before
    the pooling.  Embedding: the last map, pooled and flattened (2048 for the defaults).

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels of every block.
        depth: D; None for the one whose last pooling leaves 4x4: 2 for 16 pixels, 3 for 28 and 32, 4 for 64, 5 for
            128, 6 for 256 (7x7 at most for sizes in between, by the shorter side; at least 1).
        norm: "instance", "batch", "layer", "group" (4 groups) or "none".
        activation: "relu", "sigmoid", "leaky_relu" or "swish".
        pooling: "avg", "max" or "none".
        padding: of the first convolution; None for 1, or 3 for one-channel 28x28 images (see `first_padding`).

    Raises:
        ValueError: the images are too small for the depth, or an option is unknown.
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
        padding: int | None = None,
    ):
        padding = first_padding(shape, 1) if padding is None else padding
        if depth is None:
            side = max(1, min(shape[1:]) + 2 * padding - 2)  # of the first map
            depth = max(1, math.floor(math.log2(side)) - 2)  # halvings that leave 4 to 7 pixels
        if depth < 1:
            raise ValueError(f"depth {depth}: at least 1 expected")
        stages = [Stage(width, 3, padding if index == 0 else 1, pooling) for index in range(depth)]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm_kind=norm, activation_kind=activation)


class AlexNet(Chain):
    """AlexNet for small images: convolutions 128, 192, 256, 192, 192 with max pooling, and a linear classifier.

    1,872,202 parameters for 3x32x32 images and 10 classes.  No dropout.  Maps: the five ReLU outputs.  Embedding:
    192 x H/8 x W/8, flattened.  The published class is fixed to 4x4 there; this one follows the image.

    Args:
        shape: (C, H, W) of the images, 8x8 at least.
        num_classes: K.
        norm: "none" as published; "batch" is DM's AlexNetBN; also "instance", "layer" and "group".
        padding: of the first convolution; None for 2, or 4 for one-channel 28x28 images (see `first_padding`).

    Raises:
        ValueError: the images are too small, or the norm is unknown.
    """

    def __init__(
        self, *, shape: tuple[int, int, int], num_classes: int, norm: str = "none", padding: int | None = None
    ):
        padding = first_padding(shape, 2) if padding is None else padding
        stages = [
            Stage(128, 5, padding, "max"),
            Stage(192, 5, 2, "max"),
            Stage(256),
            Stage(192),
            Stage(192, pooling="max"),
        ]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm_kind=norm)


_MULTIPLES = ((1, "max"), (2, "max"), (4, "none"), (4, "max"), (8, "none"), (8, "max"), (8, "none"), (8, "max"))
"""Of each block: width as a multiple of the first one's, and pooling."""


class VGG11(Chain):
    """VGG-11 with norm layers: 64-M-128-M-256-256-M-512-512-M-512-512-M and a linear classifier.

    9,231,114 parameters for 3x32x32 images and 10 classes.  Maps: the eight ReLU outputs.  Embedding:
    512 x H/32 x W/32, flattened: 512 at 32x32, 2048 at 64x64 (the published class is fixed to 512).  GLaD and LD3M
    evaluate with `grid=7`: a last map of 7x7 at any size, 9,476,874 parameters for 3 channels and 10 classes.

    Args:
        shape: (C, H, W) of the images, 32x32 at least.
        num_classes: K.
        width: channels of the first block.
        norm: "instance" as published; "batch" is DM's VGG11BN; also "layer", "group" and "none".
        padding: of the first convolution; None for 1, or 3 for one-channel 28x28 images (see `first_padding`).
        grid: side of the square to which the last map is brought by adaptive max pooling; None: it stays as it is.

    Raises:
        ValueError: the images are too small, the norm is unknown, or `grid` is below 1.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        width: int = 64,
        norm: str = "instance",
        padding: int | None = None,
        grid: int | None = None,
    ):
        padding = first_padding(shape, 1) if padding is None else padding
        stages = [
            Stage(width * multiple, 3, padding if index == 0 else 1, pooling)
            for index, (multiple, pooling) in enumerate(_MULTIPLES)
        ]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm_kind=norm, grid=grid)


class LeNet(Chain):
    """LeNet: 5x5 convolutions 6 and 16 with ReLU and max pooling, linear layers 120 and 84, linear classifier.

    62,006 parameters for 3x32x32 images and 10 classes.  Maps: the two ReLU outputs of the convolutions.
    Embedding: the 84 units.

    Args:
        shape: (C, H, W) of the images, 16x16 at least.
        num_classes: K.
        padding: of the first convolution; None for 0, or 2 for one-channel 28x28 images (see `first_padding`).

    Raises:
        ValueError: the images are too small.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, padding: int | None = None):
        padding = first_padding(shape, 0) if padding is None else padding
        stages = [Stage(6, 5, padding, "max"), Stage(16, 5, 0, "max")]
        super().__init__(stages, shape=shape, num_classes=num_classes, hidden=(120, 84))


class MLP(Chain):
    """Perceptron with two hidden layers and ReLU: C*H*W - 128 - 128 - K.

    411,146 parameters for 3x32x32 images and 10 classes.  No maps.  Embedding: the second hidden layer.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: units of each hidden layer.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int = 128):
        super().__init__([], shape=shape, num_classes=num_classes, hidden=(width, width))
