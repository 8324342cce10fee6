"""Generator and critic of DiM (Wang et al. 2023): a conditional GAN whose class code stands inside the noise."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddlib.models.layers import BatchNorm2d


class Generator(nn.Module):
    """Noise and labels -> images in [-1, 1]; 3,559,363 parameters for 3x32x32 images, 3,286,921 for 1x28x28.

    Linear to width x 4 x 4, then transposed convolutions that double the side (the first one of 28-pixel images goes
    from 4 to 7), the first followed by three 3x3 convolutions, each later one by one, the last of which gives the
    image.  Batch norm and ReLU after each, tanh at the end.

    Args:
        shape: (C, H, W) of the images, H = W = 4 or 7 doubled.
        width: channels of every map.
        latent: values of noise, the first K of which a code of ones and zeros for the class replaces; >= 2 K.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int = 196, latent: int = 100):
        super().__init__()
        if num_classes > latent // 2:  # half of the noise is left to chance
            raise ValueError(
                f"num_classes={num_classes!r}; a one-hot code in noise of {latent} values allows at most "
                f"{latent // 2}; take latent >= {2 * num_classes}"
            )
        kernels = _kernels(shape)
        self.shape, self.num_classes, self.width, self.latent = tuple(shape), num_classes, width, latent
        self.project = nn.Linear(latent, width * 16)
        self.project_norm = BatchNorm2d(width * 16)
        layers: list[nn.Module] = []
        for index, kernel in enumerate(kernels):
            convolutions = [nn.ConvTranspose2d(width, width, kernel, 2, padding=1)]
            more = 3 if index == 0 else int(index < len(kernels) - 1)
            convolutions += [nn.Conv2d(width, width, 3, padding=1) for _ in range(more)]
            for convolution in convolutions:
                layers += [convolution, BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*layers)
        self.image = nn.Conv2d(width, shape[0], 3, padding=1)

    def code(self, noise: Tensor, labels: Tensor) -> Tensor:
        """`noise` (B, latent) with a one-hot code of the class in its first K places."""
        return torch.cat([F.one_hot(labels, self.num_classes).to(noise), noise[:, self.num_classes :]], dim=1)

    def forward(self, noise: Tensor, labels: Tensor) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] of standard normal noise (B, latent) and labels (B,) int64 in [0, K)."""
        x = F.relu(self.project_norm(self.project(self.code(noise, labels))))
        return torch.tanh(self.image(self.blocks(x.view(-1, self.width, 4, 4))))


class Critic(nn.Module):
    """Images in [-1, 1] -> a score of how real they are, and logits of their class.

    Eight 3x3 convolutions with strides 1, 2, 1, 2, 1, 1, 1, 2, each with a layer norm over the whole map and a leaky
    ReLU (slope 0.01), the maximum over the last map, and two linear heads; 3,137,971 parameters for 3x32x32 images and
    10 classes.  `elements`: values of the largest map of one image.
    """

    def __init__(self, *, shape: tuple[int, int, int], num_classes: int, width: int = 196):
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        channels, *size = shape
        for stride in (1, 2, 1, 2, 1, 1, 1, 2):
            size = [-(-side // stride) for side in size]
            layers += [nn.Conv2d(channels, width, 3, stride, padding=1), MapNorm((width, *size)), nn.LeakyReLU(0.01)]
            channels = width
        self.elements = width * shape[1] * shape[2]
        self.blocks = nn.Sequential(*layers)
        self.score = nn.Linear(width, 1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B,) and logits (B, K) of `images` (B, C, H, W) in [-1, 1]."""
        x = self.blocks(images).amax((2, 3))
        return self.score(x)[:, 0], self.classifier(x)


class MapNorm(nn.LayerNorm):
    """Layer norm over C, H and W with a gain and a bias for each value; channels_last maps stay channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each map of `x` (B, C, H, W)."""
        if x.stride(1) != 1:
            return super().forward(x)
        weight, bias = (parameter.permute(1, 2, 0) for parameter in (self.weight, self.bias))
        y = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, self.eps)
        return y.permute(0, 3, 1, 2)


def _kernels(shape: tuple[int, int, int]) -> list[int]:
    """Kernels of the transposed convolutions that lead from a side of 4 to that of the images."""
    square = len(shape) == 3 and min(shape) >= 1 and shape[1] == shape[2]
    side, kernels = shape[1] if square else 0, []
    while side > 7 and side % 2 == 0:
        side, kernels = side // 2, [*kernels, 4]
    if side == 7:
        return [3, *kernels]
    if side == 4 and kernels:
        return kernels
    raise ValueError(f"shape={tuple(shape)}; it must be (C, H, H) with H = 4 or 7 doubled: 7, 8, 14, 16, 28, 32...")
