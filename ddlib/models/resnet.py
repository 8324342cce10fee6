"""ResNet-10 and -18 for small images (He et al. 2016), with strided or with average-pooled downsampling (DC's "AP").

All have a 3x3 stem without pooling, so that they fit any image up to 32 pixels and beyond.  Their size is `width`'s:
64 gives the lineage's networks, near torchvision's in parameters (ResNet-18: 11.2 M), and 32 those of DiM (2.80 M).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models import layers
from ddlib.models.layers import LAWS, Network, Size


class Projection(nn.Conv2d):
    """1x1 convolution without bias on every `stride`-th row and column, as `Conv2d(inputs, outputs, 1, stride)`.

    Below 8 input channels those rows and columns are taken out first: oneDNN's strided kernel for AVX2 writes past its
    buffers in the backward pass of narrow channels_last maps, where one thread crashes and two get gradients that
    differ from run to run.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, outputs, ceil(H / stride), ceil(W / stride))."""
        if self.in_channels < 8:
            return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight)
        return super().forward(x)


LAWS[Projection] = LAWS[nn.Conv2d]


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
        self.norm1 = layers.norm(norm_kind, outputs, size if average else self.size)
        self.pool = nn.AvgPool2d(2) if pooled else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = layers.norm(norm_kind, outputs, self.size)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                Projection(inputs, outputs, step),
                nn.AvgPool2d(2) if pooled else nn.Identity(),
                layers.norm(norm_kind, outputs, self.size),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.pool(F.relu(self.norm1(self.conv1(x)), inplace=True))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet(Network):
    """A 3x3 stem with stride 1, four stages of basic blocks, pooling, a linear classifier.

    Maps: the outputs of the four stages.  Embedding: the last of them, pooled and flattened.

    Args:
        shape: (C, H, W) of the images.
        num_classes: K.
        blocks: basic blocks a stage: 1 in ResNet-10, 2 in ResNet-18.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: see `ddlib.models.layers.norm`.
        average: downsample by 2x2 average pooling instead of by stride, and pool nothing at the end.
        pooling: without `average`, what the last map is averaged over: "4x4" windows, or all of it, "global".
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        blocks: int,
        width: int,
        norm: str,
        average: bool,
        pooling: str = "4x4",
    ):
        super().__init__(shape, num_classes)
        if pooling not in ("4x4", "global"):
            raise ValueError(f"unknown pooling {pooling!r}; known: 4x4, global")
        if width < 1:
            raise ValueError(f"width {width}: at least 1 expected")
        size = shape[1:]
        self.stem = nn.Sequential(
            nn.Conv2d(shape[0], width, 3, padding=1, bias=False),
            layers.norm(norm, width, size),
            nn.ReLU(inplace=True),
        )
        self.stages, channels = nn.ModuleList(), width
        for index, stride in enumerate((1, 2, 2, 2)):
            inputs, channels = channels, width * 2**index
            if min(downsampled(size, stride, average)) < 1:
                raise ValueError(f"shape {self.shape} is too small: nothing is left of the maps in stage {index + 1}")
            stage = [BasicBlock(inputs, channels, size, stride=stride, norm_kind=norm, average=average)]
            size = stage[0].size
            for _ in range(blocks - 1):
                stage.append(BasicBlock(channels, channels, size, stride=1, norm_kind=norm, average=average))
            self.stages.append(nn.Sequential(*stage))
        most = max(size) if pooling == "global" else 4
        window = (1, 1) if average else (min(most, size[0]), min(most, size[1]))
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


def resnet10(*, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance") -> ResNet:
    """ResNet-10: `resnet18` with one basic block a stage, and otherwise the same.

    For 3x32x32 images and 10 classes 4,903,242 parameters; 1,228,970 with `width=32`, which with `norm="batch"` is
    DiM's CIFAR-style network.
    """
    return ResNet(shape=shape, num_classes=num_classes, blocks=1, width=width, norm=norm, average=False)


def resnet10_ap(*, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance") -> ResNet:
    """ResNet-10-AP: `resnet18_ap` with one basic block a stage, and otherwise the same.

    For 3x32x32 images and 10 classes 4,980,042 parameters; 1,267,370 with `width=32`, which with `norm="batch"` is in
    DiM's pool.
    """
    return ResNet(shape=shape, num_classes=num_classes, blocks=1, width=width, norm=norm, average=True)


def resnet18(
    *, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance", pooling: str = "4x4"
) -> ResNet:
    """ResNet-18 as DC evaluates with it: strided convolutions, 4x4 average pooling of the last map.

    For 3x32x32 images and 10 classes 11,173,962 parameters; 2,797,610 with `width=32`, which with `norm="batch"` is
    DiM's CIFAR-style network, not torchvision's ResNet-18 (11.2 M).  Embedding: 8 `width` up to 32x32, four times that
    at 64x64, where the pooling leaves 2x2.  Maps smaller than 4x4 (images below 25x25) are pooled whole, and so are all
    with `pooling="global"`, as GLaD and LD3M evaluate with it: 11,173,962 parameters at any size.

    Args:
        shape: (C, H, W) of the images; with instance norm, 9 along the longer side at least.
        num_classes: K.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "instance" as published; "batch" is DM's ResNet18BN; also "layer", "group" and "none".
        pooling: what the last map is averaged over: "4x4" windows, or all of it, "global".

    Raises:
        ValueError: the images are too small, or the norm or the pooling is unknown.
    """
    return ResNet(
        shape=shape, num_classes=num_classes, blocks=2, width=width, norm=norm, average=False, pooling=pooling
    )


def resnet18_ap(*, shape: tuple[int, int, int], num_classes: int, width: int = 64, norm: str = "instance") -> ResNet:
    """ResNet-18-AP of DC: strided convolutions become stride 1 and 2x2 average pooling, and no final pooling.

    For 3x32x32 images and 10 classes 11,250,762 parameters; 2,836,010 with `width=32`, which with `norm="batch"` is in
    DiM's pool.  Embedding: 8 `width` x H/8 x W/8, flattened (8192 for the defaults at 32x32).

    Args:
        shape: (C, H, W) of the images; 8x8 at least, with instance norm 16 along the longer side.
        num_classes: K.
        width: channels of the first stage; the others have 2, 4 and 8 times as many.
        norm: "instance" as published; also "batch", "layer", "group" and "none".

    Raises:
        ValueError: the images are too small, or the norm is unknown.
    """
    return ResNet(shape=shape, num_classes=num_classes, blocks=2, width=width, norm=norm, average=True)


def downsampled(size: Size, stride: int, average: bool) -> Size:
    """Height and width after a padded 3x3 convolution of this stride (rounded up), or a pooling (rounded down)."""
    return tuple(side // stride if average else -(-side // stride) for side in size)
