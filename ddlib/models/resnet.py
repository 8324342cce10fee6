"""ResNet-18 for small images (He et al. 2016), with strided or with average-pooled downsampling (DC's "AP")."""

import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models.layers import Network, Size, norm


class BasicBlock(nn.Module):
    """Residual block of two 3x3 convolutions without bias, relu(norm2(conv2(relu(norm1(conv1 x)))) + shortcut x).

    Args:
        inputs, outputs: channels.
        size: height and width of the input.
        stride: 1 or 2.
        norm_kind: see `ddlib.models.layers.norm`.
        average: downsample by 2x2 average pooling, after the first ReLU and in the shortcut, instead of by stride.
    """

    def __init__(self, inputs: int, outputs: int, size: Size, *, stride: int, norm_kind: str, average: bool):
        super().__init__()
        step, pooled = (1, stride == 2) if average else (stride, False)
        self.size = downsampled(size, stride, average)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, step, padding=1, bias=False)
        self.norm1 = norm(norm_kind, outputs, size if average else self.size)
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = norm(norm_kind, outputs, self.size)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, step, bias=False),
                nn.AvgPool2d(2) if pooled else nn.Identity(),
                norm(norm_kind, outputs, self.size),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.pool(F.relu(self.norm1(self.conv1(x)), inplace=True))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet(Network):
    """ResNet-18: a 3x3 stem with stride 1, four stages of two residual blocks, pooling, a linear classifier.

    Maps: the outputs of the four stages.  Embedding: the last of them, pooled and flattened.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: see `ddlib.models.layers.norm`.
        average: downsample by 2x2 average pooling instead of by stride, and pool nothing at the end.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int, norm: str, average: bool):
        super().__init__(shape, num_classes)
        if width < 1:
            raise ValueError(f"width {width}: at least 1 expected")
        size = shape[1:]
        self.stem = _stem(shape, width, norm)
        self.stages, channels = nn.ModuleList(), width
        for index, stride in enumerate((1, 2, 2, 2)):
            inputs, channels = channels, width * 2**index
            if min(downsampled(size, stride, average)) < 1:
                raise ValueError(f"shape {self.shape} is too small: nothing is left of the maps in stage {index + 1}")
            first = BasicBlock(inputs, channels, size, stride=stride, norm_kind=norm, average=average)
            size = first.size
            second = BasicBlock(channels, channels, size, stride=1, norm_kind=norm, average=average)
            self.stages.append(nn.Sequential(first, second))
        window = (1, 1) if average else (min(4, size[0]), min(4, size[1]))
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


def resnet18(*, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance") -> ResNet:
    """ResNet-18 as DC evaluates with it: strided convolutions, 4x4 average pooling of the last map.

    11,173,962 parameters for 3x32x32 images and 10 classes.  Embedding: 512 up to 32x32, 2048 at 64x64, where the
    pooling leaves 2x2.  Maps smaller than 4x4 (images below 25x25) are pooled whole.

    Args:
        shape: (C, H, W) of the images; with instance norm, 9 along the longer side at least.
        num_classes: K.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "instance" as published; "batch" is DM's ResNet18BN; also "layer", "group" and "none".

    Raises:
        ValueError: the images are too small, or the norm is unknown.
    """
    return ResNet(shape=shape, num_classes=num_classes, width=width, norm=norm, average=False)


def resnet18_ap(*, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance") -> ResNet:
    """ResNet-18-AP of DC: strided convolutions become stride 1 and 2x2 average pooling, and no final pooling.

    11,250,762 parameters for 3x32x32 images and 10 classes.  Embedding: 512 x H/8 x W/8, flattened (8192 at 32x32).

    Args:
        shape: (C, H, W) of the images; 8x8 at least, with instance norm 16 along the longer side.
        num_classes: K.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "instance" as published; also "batch", "layer", "group" and "none".

    Raises:
        ValueError: the images are too small, or the norm is unknown.
    """
    return ResNet(shape=shape, num_classes=num_classes, width=width, norm=norm, average=True)


def downsampled(size: Size, stride: int, average: bool) -> Size:
    """Height and width after a padded 3x3 convolution of this stride (rounded up), or a pooling (rounded down)."""
    return tuple(side // stride if average else -(-side // stride) for side in size)


def _stem(shape: tuple[int, int, int], width: int, norm_kind: str) -> nn.Sequential:
    """First convolution, norm and ReLU, at full resolution."""
    conv = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
    return nn.Sequential(conv, norm(norm_kind, width, shape[1:]), nn.ReLU(inplace=True))
