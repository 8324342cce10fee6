"""Vision transformer for small images (Dosovitskiy et al. 2021), with the sizes of DC-Bench (Cui et al. 2022)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.models.layers import Network


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v in each head; no bias in the q, k, v projection.

    Written out, since the fused kernels cannot be differentiated twice.
    """

    def __init__(self, dim: int, *, heads: int, head_dim: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Linear(heads * head_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each image; `x` and the result (B, T, D)."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # (B, heads, T, T)
        y = weights @ v
        return self.dropout(self.to_out(y.transpose(1, 2).flatten(2)))


class Layer(nn.Module):
    """Pre-norm transformer layer: x + attention(norm x), then x + mlp(norm x) with GELU; the norms may be left out."""

    def __init__(self, dim: int, attention: Attention, *, mlp_dim: int, dropout: float, layer_norm: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, D) to (B, T, D)."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(Network):
    """Vision transformer: patches to tokens, a class token first, positions added, pre-norm layers, a classifier.

    9,523,722 parameters for 3x32x32 images and 10 classes.  The ViT of GLaD and LD3M, for images of 128 pixels and
    more, has `patch=16, depth=10, layer_norm=False`: 16,176,650 parameters at 3x128x128; smaller images take a smaller
    patch.  No maps.  Embedding: the class token after the last norm, F = `dim`.  Dropout on the tokens and inside the
    layers draws from torch's global random state in training mode, since torch's dropout takes no generator: wrap
    training in `ddlib.seeding.scoped` (and say `randomness="different"` to `torch.vmap`).

    Args:
        shape, num_classes: (C, H, W) of the images, H and W multiples of `patch`, else a ValueError; and K.
        patch: side of the square patches, pixels.
        dim: D, width of the tokens.
        depth: number of layers.
        heads, head_dim: number of attention heads and the width of each.
        mlp_dim: hidden width of the layers' perceptron.
        dropout: probability, for tokens and layers.
        layer_norm: whether there are layer norms, in the layers and after them.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int],
        num_classes: int,
        patch: int = 4,
        dim: int = 512,
        depth: int = 6,
        heads: int = 8,
        head_dim: int = 64,
        mlp_dim: int = 512,
        dropout: float = 0.1,
        layer_norm: bool = True,
    ):
        super().__init__(shape, num_classes)
        channels, height, width = shape
        if patch < 1 or height % patch or width % patch:
            raise ValueError(f"shape {self.shape}: height and width must be multiples of patch {patch}, at least 1")
        self.patch = patch
        self.to_token = nn.Linear(channels * patch * patch, dim)
        self.positions = nn.Embedding((height // patch) * (width // patch) + 1, dim)
        self.class_token = nn.Embedding(1, dim)
        self.dropout, self.layers = nn.Dropout(dropout), nn.Sequential()
        for _ in range(depth):
            attention = Attention(dim, heads=heads, head_dim=head_dim, dropout=dropout)
            self.layers.append(Layer(dim, attention, mlp_dim=mlp_dim, dropout=dropout, layer_norm=layer_norm))
        self.norm = nn.LayerNorm(dim) if layer_norm else nn.Identity()
        self.classifier = nn.Linear(dim, num_classes)

    def embed(self, images: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Class token (B, D) of `images` (B, C, H, W) after the last norm; `maps` gets nothing."""
        patches = F.pixel_unshuffle(images, self.patch).flatten(2).transpose(1, 2)  # (B, T, C * patch * patch)
        first = self.class_token.weight.expand(len(images), 1, -1)
        tokens = torch.cat([first, self.to_token(patches)], dim=1) + self.positions.weight
        return self.norm(self.layers(self.dropout(tokens))[:, 0])
