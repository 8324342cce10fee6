"""VGG-11 in the form that the dataset-distillation lineage evaluates with (DC, Zhao et al. 2021)."""

from ddlib.models.chain import Chain, Stage, first_padding

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
        padding: of the first convolution; None for 1, or 3 for one-channel 28x28 images
            (`ddlib.models.chain.first_padding` states the source).
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
