"""The multi-layer perceptron of the dataset-distillation lineage (DC, Zhao et al. 2021)."""

from ddlib.models.chain import Chain


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
