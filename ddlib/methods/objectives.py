"""The distances that distillation makes small, as pure functions of tensors.

Unless a docstring says otherwise, batches are class-major: a batch of K classes with n images each is ordered class by
class, so the mean over the images of each class is a reshape.  Attention, DM's and DC's distances are sums over
entries, layers, rows and classes, of means over images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddlib.models.passes import at_least_float32


def power(x: Tensor, exponent: float) -> Tensor:
    """|x|^p elementwise; p = 1, 2, 4 and 8 without a call of the general power function."""
    if exponent == 1:
        return x.abs()
    if exponent not in (2, 4, 8):
        return x.abs().pow(exponent)
    while exponent > 1:
        x, exponent = x.square(), exponent / 2
    return x


def spatial_attention(maps: Tensor, p: float = 4) -> Tensor:
    """Spatial attention of DataDAM (Sajedi et al. 2023): where a layer responds, whatever the channel.

    z = unit(vec a), a[h, w] = sum_c |f[c, h, w]|^p, of maps f (B, C, H, W) after the ReLU, before the pooling.

    Returns:
        (B, H*W) float32 unit vectors, one an image.
    """
    return F.normalize(power(at_least_float32(maps), p).sum(1).flatten(1), dim=1)


def channel_attention(maps: Tensor, p: float = 4) -> Tensor:
    """Channel attention of ATOM (Khaki et al. 2024): how strongly each channel responds, wherever.

    z = unit(a), a[c] = sum_{h,w} |f[c, h, w]|^p, of maps f (B, C, H, W) after the ReLU, before the pooling.

    Returns:
        (B, C) float32 unit vectors, one an image.
    """
    return F.normalize(power(at_least_float32(maps), p).sum((2, 3)), dim=1)


def both_attentions(maps: Tensor, p_spatial: float, p_channel: float) -> tuple[Tensor, Tensor]:
    """`spatial_attention` and `channel_attention` of a layer; the power is taken once where p_s = p_c."""
    spatial = power(at_least_float32(maps), p_spatial)
    channel = spatial if p_channel == p_spatial else power(at_least_float32(maps), p_channel)
    return F.normalize(spatial.sum(1).flatten(1), dim=1), F.normalize(channel.sum((2, 3)), dim=1)


def class_means(x: Tensor, classes: int | Sequence[int]) -> Tensor:
    """Mean over the images of each class of a class-major batch: (K*n, ...) -> (K, ...).

    classes: K, or how many images each class has, where these differ.
    """
    if isinstance(classes, int):
        return x.unflatten(0, (classes, -1)).mean(1)
    return torch.stack([own.mean(0) for own in x.split([*classes])])


def weighted_distance(weights: Sequence[float], real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """sum_j w_j sum_k ||real_j[k] - syn_j[k]||^2: with one embedding this is the loss of DM (Zhao & Bilen 2023).

    `real` and `syn` are class means, tensors of shape (K, length_j).
    """
    return sum(w * (r - s).square().sum() for w, r, s in zip(weights, real, syn, strict=True))


def gradient_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """Gradient distance of DC (Zhao et al. 2021): one minus the cosine, row by row of each weight, summed.

    D = sum over weights, over output rows i, of 1 - <s_i, r_i> / (|s_i| |r_i| + 1e-6).  A convolution's weight is
    read as out x (in*kh*kw), a linear one by rows; biases and gains of norms (one dimension a class) count nothing.

    Args:
        real, syn: gradients, one tensor a parameter, with a leading class axis: (K, *parameter.shape).

    Returns:
        (K,) the distance of each class.
    """
    total = real[0].new_zeros(real[0].shape[0])
    for r, s in zip(real, syn, strict=True):
        if r.dim() < 3:
            continue
        r, s = r.flatten(2), s.flatten(2)
        cosine = (r * s).sum(2) / (r.norm(dim=2) * s.norm(dim=2) + 1e-6)
        total = total + (1 - cosine).sum(1)
    return total


def log_probability_distance(real: Tensor, syn: Tensor) -> Tensor:
    """mean over images and classes of (log p_real - log p_syn)^2, with p the softmax: DiM's match (Wang et al. 2023).

    Of logits (B, K), the i-th real image paired with the i-th synthetic one.
    """
    return (real.log_softmax(1) - syn.log_softmax(1)).square().mean()


def logit_distance(real: Tensor, syn: Tensor) -> Tensor:
    """mean over images and classes of (real - syn)^2 of paired logits (B, K), as they are."""
    return (real - syn).square().mean()


def class_mean_distance(real: Tensor, syn: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """mean over the classes present and over entries of (mean_k real - mean_k syn)^2.

    Of (B, F), images of any order, and the labels (B,) of both.
    """
    member = F.one_hot(labels, num_classes).to(real)
    count = member.sum(0)
    means = (member.T @ (real - syn)) / count.clamp_min(1)[:, None]
    return means.square().sum() / ((count > 0).sum() * real.shape[1])


def absolute_distance(real: Sequence[Tensor], syn: Sequence[Tensor]) -> Tensor:
    """sum over tensors and entries of |real - syn|: how DiM's published code compares gradients."""
    return sum((r - s).abs().sum() for r, s in zip(real, syn, strict=True))
