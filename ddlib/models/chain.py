"""Networks that are one chain of convolution blocks, then hidden linear layers, then a linear classifier."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ddlib.models.layers import AdaptiveMaxPool, Network, Size, activation, norm, pooling


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
        stages: the convolution blocks.
        shape: (C, H, W) of the images.
        num_classes: K.
        norm_kind, activation_kind: of every block; see `ddlib.models.layers`.
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
        norm_kind: str = "none",
        activation_kind: str = "relu",
        hidden: Sequence[int] = (),
        grid: int | None = None,
    ):
        super().__init__(shape, num_classes)
        self.blocks, self.poolings = nn.ModuleList(), nn.ModuleList()
        channels, *size = shape
        for index, stage in enumerate(stages):
            inputs, channels = channels, _positive("width", stage.width)
            grown, size = self._sizes(index, stage, size)
            self.blocks.append(
                nn.Sequential(
                    OrderedDict(
                        conv=nn.Conv2d(inputs, channels, stage.kernel, padding=stage.padding),
                        norm=norm(norm_kind, channels, grown),
                        activation=activation(activation_kind),
                    )
                )
            )
            self.poolings.append(pooling(stage.pooling))
        self.grid = nn.Identity() if grid is None else AdaptiveMaxPool(_positive("grid", grid))
        size = size if grid is None else (grid, grid)
        widths = [channels * size[0] * size[1], *(_positive("width", width) for width in hidden)]
        self.hidden = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(inplace=True))
                for inputs, outputs in zip(widths, widths[1:], strict=False)
            )
        )
        self.classifier = nn.Linear(widths[-1], num_classes)

    def _sizes(self, index: int, stage: Stage, size: Sequence[int]) -> tuple[Size, Size]:
        """Height and width of the map of a block and of what its pooling leaves."""
        grown = tuple(side + 2 * stage.padding - stage.kernel + 1 for side in size)
        left = grown if stage.pooling == "none" else tuple(side // 2 for side in grown)
        if min(left) < 1:
            raise ValueError(
                f"shape {self.shape} is too small for {type(self).__name__}: "
                f"nothing is left of its maps after block {index + 1}"
            )
        return grown, left

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Embedding (B, F) of `images` (B, C, H, W); the map of each block is appended to `maps` if given."""
        x = images
        for block, pool in zip(self.blocks, self.poolings, strict=True):
            x = block(x)
            if maps is not None:
                maps.append(x)
            x = pool(x)
        return self.hidden(self.grid(x).flatten(1))


def first_padding(shape: tuple[int, int, int], usual: int) -> int:
    """Padding of a first convolution: `usual`, and 2 more for one-channel 28x28 images, which turns 28 into 32.

    Source: `networks.py` of the published code of DC, DSA and DM (VICO-UoE/DatasetCondensation).  There the first
    convolution of ConvNet and VGG pads 3 instead of 1, of AlexNet 4 instead of 2, of LeNet 2 instead of 0, for
    every one-channel image: its one-channel sets, MNIST and FashionMNIST, are both 28x28.  Here other one-channel
    sizes keep the usual padding, and so do the ResNets, as in that code.
    """
    return usual + 2 if tuple(shape) == (1, 28, 28) else usual


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} {value}: at least 1 expected")
    return value
