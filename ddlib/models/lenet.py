"""LeNet-5 in the form that the dataset-distillation lineage evaluates with (DC, Zhao et al. 2021)."""

from ddlib.models.chain import Chain, Stage, first_padding


class LeNet(Chain):
    """LeNet: 5x5 convolutions 6 and 16 with ReLU and max pooling, linear layers 120 and 84, linear classifier.

    62,006 parameters for 3x32x32 images and 10 classes.  Maps: the two ReLU outputs of the convolutions.
    Embedding: the 84 units.

    Args:
        shape: (C, H, W) of the images, 16x16 at least.
        num_classes: K.
        padding: of the first convolution; None for 0, or 2 for one-channel 28x28 images
            (`ddlib.models.chain.first_padding` states the source).

    Raises:
        ValueError: the images are too small.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, padding: int | None = None):
        padding = first_padding(shape, 0) if padding is None else padding
        stages = [Stage(6, 5, padding, "max"), Stage(16, 5, 0, "max")]
        super().__init__(stages, shape=shape, num_classes=num_classes, hidden=(120, 84))
