"""AlexNet in the form that the dataset-distillation lineage evaluates with (DC, Zhao et al. 2021)."""

from ddlib.models.chain import Chain, Stage, first_padding


class AlexNet(Chain):
    """AlexNet for small images: convolutions 128, 192, 256, 192, 192 with max pooling, and a linear classifier.

    1,872,202 parameters for 3x32x32 images and 10 classes.  No dropout.  Maps: the five ReLU outputs.  Embedding:
    192 x H/8 x W/8, flattened.  The published class is fixed to 4x4 there; this one follows the image.

    Args:
        shape: (C, H, W) of the images, 8x8 at least.
        num_classes: K.
        norm: "none" as published; "batch" is DM's AlexNetBN; also "instance", "layer" and "group".
        padding: of the first convolution; None for 2, or 4 for one-channel 28x28 images
            (`ddlib.models.chain.first_padding` states the source).

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
