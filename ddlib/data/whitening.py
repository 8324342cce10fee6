"""Value spaces: normalised pixels, and ZCA whitening, the map nearest to the identity that decorrelates them."""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

MAX_DIMENSIONS = 12288
"""Largest C*H*W that `fit_zca` takes: 3x64x64, whose covariance alone fills 1.2 GB in float64."""

PIXELS = "pixels"
"""Whitening of pixels in [0, 1] as they are (MTT to DATM), where True is that of normalised ones (DataDAM)."""

_CHUNK = 2048


@dataclass(frozen=True, eq=False)
class ZCA:
    """A fitted ZCA transform and its inverse (Krizhevsky 2009, appendix A): z = W (x - mean), x = W^-1 z + mean.

    x is an image as a vector of D = C*H*W values.  Both directions take and give (B, C, H, W) float32, differentiably.

    mean: (D,) float32, mean image of the training set.
    whitening: (D, D) float32, W, symmetric.
    unwhitening: (D, D) float32, the inverse of W.
    eps: what was added to every eigenvalue of the covariance, > 0.
    """

    mean: Tensor
    whitening: Tensor
    unwhitening: Tensor
    eps: float

    def __post_init__(self):
        shapes = tuple(tuple(values.shape) for values in (self.mean, self.whitening, self.unwhitening))
        D = self.mean.numel()
        if shapes != ((D,), (D, D), (D, D)) or not self.eps > 0:
            raise ValueError(f"a ZCA has a mean (D,), two matrices (D, D) and eps > 0, got {shapes} and eps={self.eps}")

    def apply(self, images: Tensor) -> Tensor:
        """Whiten normalised images: z = W (x - mean)."""
        return ((self._flat(images) - self.mean) @ self.whitening).view(images.shape)

    def invert(self, images: Tensor) -> Tensor:
        """Undo `apply`: x = W^-1 z + mean."""
        return (self._flat(images) @ self.unwhitening + self.mean).view(images.shape)

    def to(self, device: str | torch.device) -> "ZCA":
        """The same transform with its tensors on `device`."""
        return ZCA(self.mean.to(device), self.whitening.to(device), self.unwhitening.to(device), self.eps)

    def _flat(self, images: Tensor) -> Tensor:
        size = math.prod(images.shape[1:])
        if images.ndim != 4 or size != len(self.mean) or images.dtype != torch.float32:
            raise ValueError(
                f"images must be (B, C, H, W) float32 with C*H*W = {len(self.mean)}, "
                f"got {tuple(images.shape)} {images.dtype}"
            )
        return images.reshape(len(images), size)


@dataclass(frozen=True, eq=False)
class ValueSpace:
    """The space in which networks see images: pixels normalised channel by channel, then perhaps ZCA-whitened.

    mean, std: C values each, of pixels in [0, 1]; std > 0.
    zca: fitted on images normalised so, or None.  With mean 0 and std 1 these are the pixels themselves.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    zca: ZCA | None = None

    def __post_init__(self):
        if not self.mean or len(self.mean) != len(self.std):
            raise ValueError(f"mean and std must have one value a channel, got {self.mean} and {self.std}")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std must be positive, got {self.std}")

    @property
    def name(self) -> str:
        """ "normalised", "zca", or "zca of pixels", which are not normalised before."""
        if self.zca is None:
            return "normalised"
        return "zca" if any(self.mean) or set(self.std) != {1.0} else "zca of pixels"

    def require(self, shape: tuple[int, int, int]) -> None:
        """Refuse images of `shape` (C, H, W) with a ValueError where the space is for others."""
        if len(self.mean) != shape[0]:
            raise ValueError(f"space is for {len(self.mean)} channels, images have {shape[0]}")
        if self.zca is not None and len(self.zca.mean) != math.prod(shape):
            raise ValueError(f"space whitens images of {len(self.zca.mean)} values, images have {math.prod(shape)}")

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) float32 in [0, 1] to this space: (pixels - mean) / std, then whitened; differentiable."""
        mean, std = self._constants(pixels)
        images = (pixels - mean) / std
        return images if self.zca is None else self.zca.apply(images)

    def decode(self, images: Tensor) -> Tensor:
        """This space to pixels, the inverse of `encode`: in [0, 1] up to rounding for real images, and not clipped."""
        mean, std = self._constants(images)
        return (images if self.zca is None else self.zca.invert(images)) * std + mean

    def to(self, device: str | torch.device) -> "ValueSpace":
        """The same space with its tensors on `device`."""
        return self if self.zca is None else replace(self, zca=self.zca.to(device))

    def _constants(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(f"images must be (B, {len(self.mean)}, H, W), got shape {tuple(images.shape)}")
        return _per_channel(self.mean, images.device), _per_channel(self.std, images.device)


@functools.lru_cache(maxsize=64)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor made in inference mode could not serve autograd later
        return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


@torch.no_grad()
def fit_zca(images: Tensor, eps: float = 0.1) -> ZCA:
    """ZCA of a training set, with the matrix that undoes it (as DataDAM whitens), on the device of `images`.

    S = (X - mean)^T (X - mean) / (B - 1) = U diag(s) U^T,   W = U diag((s + eps)^-1/2) U^T.

    The covariance is summed over chunks in float64 (products in float32 on a CPU, which changes W by about 5e-6 of
    its largest entry); the eigenvectors are found in float64, for in float32 W is off by 1e-3.

    Args:
        images: (B, C, H, W) float32, normalised, B >= 2, C*H*W <= 12288.
        eps: added to every eigenvalue, > 0.  It bounds the gain of the directions that hardly vary.
    """
    if images.ndim != 4 or images.dtype != torch.float32 or len(images) < 2:
        raise ValueError(f"images must be (B, C, H, W) float32 with B >= 2, got {tuple(images.shape)} {images.dtype}")
    if not eps > 0:
        raise ValueError(f"eps must be > 0, got {eps}")
    require_dimensions(images.shape[1:])
    rows = images.flatten(1)
    mean = sum(chunk.sum(0, dtype=torch.float64) for chunk in rows.split(_CHUNK)) / len(rows)
    exact = torch.float64 if images.is_cuda else torch.float32
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=images.device)
    for chunk in rows.split(_CHUNK):
        centred = (chunk - mean).to(exact)
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh(covariance / (len(rows) - 1))
    gain = (values.clamp_min(0) + eps).sqrt()
    whitening, unwhitening = (vectors / gain) @ vectors.T, (vectors * gain) @ vectors.T
    return ZCA(mean.float(), whitening.float(), unwhitening.float(), eps)


def require_dimensions(shape: tuple[int, ...]) -> None:
    """Refuse images of a shape (C, H, W) too large for a dense covariance with a ValueError."""
    if math.prod(shape) > MAX_DIMENSIONS:
        raise ValueError(
            f"zca takes images of at most C*H*W = {MAX_DIMENSIONS} values, got {tuple(shape)}: use zca=False"
        )
