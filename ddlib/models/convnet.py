"""ConvNet, the network of dataset distillation (Gidaris & Komodakis 2018; DC, Zhao et al. 2021)."""

import math

from ddlib.models.chain import Chain, Stage, first_padding


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
        padding: of the first convolution; None for 1, or 3 for one-channel 28x28 images, as in the published
            networks (`ddlib.models.chain.first_padding` states the source).

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
        depth = _depth(min(shape[1:]) + 2 * padding - 2) if depth is None else depth
        if depth < 1:
            raise ValueError(f"depth {depth}: at least 1 expected")
        stages = [Stage(width, 3, padding if index == 0 else 1, pooling) for index in range(depth)]
        super().__init__(stages, shape=shape, num_classes=num_classes, norm_kind=norm, activation_kind=activation)


def _depth(side: int) -> int:
    """Halvings of `side` pixels that leave 4 (to 7), and at least 1."""
    return max(1, math.floor(math.log2(max(side, 1))) - 2)
