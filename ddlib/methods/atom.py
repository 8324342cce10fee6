"""ATOM, the attention mixer (Khaki, Sajedi et al., CVPR-W 2024)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ddlib.methods import _features as features
from ddlib.methods import objectives
from ddlib.methods._pixels import require
from ddlib.models import Features
from ddlib.models.passes import at_least_float32

MIXES = ("sum", "concat_then_norm")


@dataclass(frozen=True, kw_only=True)
class ATOM(features.FeatureMatching):
    """Match where layers respond (spatial attention), which channels respond (channel attention), and embeddings.

        L = scale * ( w_s L_s + w_c L_c + lambda L_MMD )
        L_s = sum_k sum_{l<L} || mean z^s_l(B_k) - mean z^s_l(S_k) ||^2, and L_c the same with z^c,

    over every ReLU output but the last; L_MMD is the loss of DM.  z^s and z^c: `ddlib.methods.objectives`.

    p_spatial, p_channel: the powers p_s, p_c > 0.
    w_spatial, w_channel: the weights w_s, w_c >= 0; w_channel=0 is DataDAM, w_spatial=0 the cheap channel-only variant.
    mmd: the weight lambda >= 0 of the embedding term; 0.02 for pictures of 128 px and more.
    scale: a factor on the whole loss, > 0; it belongs to lr_images = 1.
    mix: "sum" adds the two distances; "concat_then_norm" normalises both attentions of a layer together.

    Source: no code of ATOM was published and its tables could not be read; the method is rebuilt from its abstract,
    its pipeline figure and DataDAM's released form.  Set by judgement: unit weights, p = 4, n = 128, 8,000 steps.
    Deviation: BatchNorm, with which DataDAM's authors obtained their numbers, where the paper's table names
    InstanceNorm; under InstanceNorm channels are standardised, and channel attention carries signal only for p >= 4.
    """

    name: ClassVar[str] = "atom"
    version: ClassVar[int] = 1
    whitened: ClassVar[tuple[str, ...]] = ("cifar10", "cifar100")
    iterations: int = 8_000
    batch_real: int = 128
    norm: str = "batch"
    p_spatial: float = 4
    p_channel: float = 4
    w_spatial: float = 1.0
    w_channel: float = 1.0
    mmd: float = 0.01
    scale: float = 100.0
    mix: str = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("p_spatial", "p_channel", "scale"):
            require(name, getattr(self, name), getattr(self, name) > 0, "> 0")
        for name in ("w_spatial", "w_channel", "mmd"):
            require(name, getattr(self, name), getattr(self, name) >= 0, ">= 0")
        require("mix", self.mix, self.mix in MIXES, f"one of {', '.join(MIXES)}")
        if self.mix == "concat_then_norm":
            require("w_channel", self.w_channel, self.w_channel == self.w_spatial, "w_spatial under concat_then_norm")
        require("mmd", self.mmd, self.w_spatial + self.w_channel + self.mmd > 0, "> 0 when both attentions are off")

    def vectors(self, features: Features) -> list[Tensor]:
        """Attention of each layer but the last, then the embedding; what has weight 0 is left out."""
        maps = features.maps[:-1] if self.w_spatial + self.w_channel > 0 else ()
        found = [vector for f in maps for vector in self.attention(f)]
        return found + ([at_least_float32(features.embedding)] if self.mmd > 0 else [])

    def weights(self, count: int) -> list[float]:
        """scale * (w_s, w_c) for each layer, then scale * lambda."""
        layer = [w for w in (self.w_spatial, self.w_channel) if w > 0]
        layer = layer[:1] if self.mix == "concat_then_norm" else layer
        embedding = [self.mmd] if self.mmd > 0 else []
        layers = (count - len(embedding)) // len(layer) if layer else 0
        return [self.scale * w for w in layer * layers + embedding]

    def attention(self, maps: Tensor) -> list[Tensor]:
        """The attention vectors of one layer's maps (B, C, H, W): spatial, channel, or both mixed."""
        if self.mix == "concat_then_norm":
            return [objectives.mixed_attention(maps, p_spatial=self.p_spatial, p_channel=self.p_channel)]
        if self.w_spatial > 0 and self.w_channel > 0:
            return [*objectives.both_attentions(maps, p_spatial=self.p_spatial, p_channel=self.p_channel)]
        if self.w_spatial > 0:
            return [objectives.spatial_attention(maps, self.p_spatial)]
        return [objectives.channel_attention(maps, self.p_channel)]
