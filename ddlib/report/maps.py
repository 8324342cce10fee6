"""Where a network's layers respond, and which of its channels: the attention of a few images."""

from collections.abc import Sequence

from torch import Tensor

from ddlib.report.style import PALETTE, Picture, picture, styled

TILE = 0.95  # inches


def attention_maps(
    names: Sequence[str], pixels: Tensor, spatial: Sequence[Tensor], channel: Sequence[Tensor]
) -> Picture:
    """A row an image: the image, then for every layer its spatial attention as a map and its channel attention.

    Args:
        names: what the rows show.
        pixels: (B, C, H, W) in [0, 1].
        spatial: for each layer, (B, H_l * W_l) unit vectors of a square map.
        channel: for each layer, (B, C_l) unit vectors; drawn sorted, since channels have no order.

    Raises:
        ValueError: the rows of the arguments differ in number.
    """
    counts = {len(names), len(pixels), *map(len, spatial), *map(len, channel)}
    if len(counts) > 1 or len(spatial) != len(channel):
        raise ValueError(f"names, pixels, spatial and channel must agree in rows and layers; got rows {sorted(counts)}")
    layers = len(spatial)
    figure = picture(TILE * (1 + 2.2 * layers) + 0.9, TILE * len(names) + 0.5, layout="constrained")
    with styled():
        axes = figure.subplots(len(names), 1 + 2 * layers, squeeze=False, width_ratios=[1] + [1, 1.2] * layers)
        for row, name in zip(range(len(names)), names, strict=True):
            _image(axes[row, 0], name, pixels[row])
            for layer in range(layers):
                _layer(axes[row, 1 + 2 * layer : 3 + 2 * layer], spatial[layer][row], channel[layer][row])
        for layer in range(layers):
            axes[0, 1 + 2 * layer].set_title(f"layer {layer + 1}: where")
            axes[0, 2 + 2 * layer].set_title("which channels")
            axes[-1, 2 + 2 * layer].set_xlabel("channel, sorted")
    return figure


def _image(ax, name: str, pixels: Tensor) -> None:
    shown = pixels.cpu().permute(1, 2, 0)
    ax.imshow(shown.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(name)
    ax.grid(False)


def _layer(axes, spatial: Tensor, channel: Tensor) -> None:
    side = round(len(spatial) ** 0.5)
    axes[0].imshow(spatial.cpu().reshape(side, side).numpy(), cmap="viridis", vmin=0, interpolation="nearest")
    axes[0].set(xticks=[], yticks=[])
    axes[0].grid(False)
    heights = channel.cpu().sort(descending=True).values.numpy()
    axes[1].bar(range(len(heights)), heights, width=1.0, color=PALETTE[0])
    axes[1].set(xlim=(-0.5, len(heights) - 0.5), ylim=(0, 1))
    axes[1].tick_params(labelsize=6)
