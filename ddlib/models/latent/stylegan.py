"""StyleGAN-XL (Sauer et al. 2022), the published generator of GLaD, through the user's own checkout of its code.

    git clone https://github.com/autonomousvision/stylegan-xl      # its packages: requirements of its own
    prior: {stylegan: stylegan-xl, pickle: imagenet128.pkl, trusted: true}      # of the method `glad`

Nothing of it is here: the checkout's `legacy` reads the pickle, which holds code beside weights, and the network that
comes of it is used by its published names.  A synthesis network is an input and layers, x_0 = input(w_0) and
x_{i+1} = L_i(x_i, w_{i+1}), whose last is the image.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

BOUND, INFINITE = 10.0, 5.0
"""What f is clipped to in size at the start, and what stands for infinity in it."""

AVERAGED = 1000
"""Draws of which the average style is taken."""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """Where a StyleGAN-XL is, and how its styles are learnt.

    stylegan: folder of the checkout.
    pickle: file of the network.
    trusted: run the code of both, which is whoever's made them; without it nothing is loaded.
    average_w: begin with the average style of the class (published for one image a class), not with one of a draw.
    lr_w: step size of the styles, > 0; None: a thousandth of that of f, as published.

    Raises:
        ValueError: `lr_w` is not above 0.
    """

    stylegan: str
    pickle: str
    trusted: bool = False
    average_w: bool = False
    lr_w: float | None = None

    def __post_init__(self) -> None:
        if self.lr_w is not None and not self.lr_w > 0:
            raise ValueError(f"lr_w={self.lr_w!r}; it must be > 0")

    def load(self) -> "StyleGAN":
        """The network of the running average, frozen.

        Raises:
            FileNotFoundError: there is no such checkout or pickle.
            ValueError: it is not trusted, another checkout is in use, or a package of the checkout is missing.
        """
        folder, file = Path(self.stylegan).expanduser().resolve(), Path(self.pickle).expanduser()
        for name in ("dnnlib", "legacy.py"):
            if not (folder / name).exists():
                raise FileNotFoundError(
                    f"stylegan={self.stylegan!r} has no {name}; it must be a checkout of StyleGAN-XL"
                )
        if not file.is_file():
            raise FileNotFoundError(f"pickle={self.pickle!r}; there is no such file")
        if not self.trusted:
            raise ValueError(
                f"trusted={self.trusted!r}; {file} is a pickle, and to load it runs code of whoever made it, and of "
                f"{folder}: it must be True to do so"
            )
        try:
            with _on_path(folder), torch.random.fork_rng(devices=()), file.open("rb") as opened:
                return StyleGAN(_legacy(folder).load_network_pkl(opened)["G_ema"]).to("cpu")
        except ModuleNotFoundError as error:
            raise ValueError(f"{folder} needs the package {error.name!r}; install it and try again") from error


@dataclass(frozen=True, eq=False)
class StyleGAN:
    """A generator that is learnt through, with the names that GLaD uses of a `LatentDiffusion`.

    network: with `z_dim`, `c_dim`, `img_channels`, `img_resolution`, `mapping(z, c)` to styles (B, num_ws, w_dim), and
        `synthesis` of `input`, `layer_names`, `output_scale` and the layers by their names.
    """

    network: nn.Module

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.network.img_channels

    @property
    def num_classes(self) -> int | None:
        """K; None: unconditional."""
        return self.network.c_dim or None

    @property
    def layers(self) -> int:
        """Layers of the synthesis network."""
        return len(self.network.synthesis.layer_names)

    def latent_shape(self, shape: tuple[int, int, int]) -> tuple[int]:
        """(z_dim,), of the noise from which images of `shape` (C, H, W) are made.

        Raises:
            ValueError: it makes images of another shape.
        """
        made = (self.channels, self.network.img_resolution, self.network.img_resolution)
        if tuple(shape) != made:
            raise ValueError(f"images of shape {tuple(shape)}; this StyleGAN makes images of shape {made}")
        return (self.network.z_dim,)

    @torch.no_grad()
    def styles(self, labels: Tensor | None, count: int, generator: torch.Generator, *, average: bool) -> Tensor:
        """Styles w of fresh noise, or averages of `AVERAGED` of them: (count, num_ws, w_dim).

        Args:
            labels: (count,) in [0, K); None where there are no classes.
        """
        table = torch.eye(self.network.c_dim)
        told = torch.zeros(count, 0) if labels is None else table[labels.cpu()]
        device, draws = next(self.network.parameters()).device, AVERAGED if average else 1
        found = []
        for code in told:
            z = torch.randn(draws, self.network.z_dim, generator=generator)
            found.append(self.network.mapping(z.to(device), code.expand(draws, -1).to(device)).mean(0))
        return torch.stack(found)

    def split_decode(self, w: Tensor, layer: int) -> Tensor:
        """f: what the input and the first `layer` layers make of styles `w`, within +-`BOUND` and finite.

        Raises:
            ValueError: no such layer.
        """
        x = self._through(self.network.synthesis.input(w[:, 0]), w, range(self._known(layer)))
        return x.float().nan_to_num(nan=0.0, posinf=INFINITE, neginf=-INFINITE).clamp(-BOUND, BOUND)

    def decode_from(self, f: Tensor, layer: int, w: Tensor) -> Tensor:
        """Images (B, C, H, W), about [-1, 1], that the layers after `layer` make of `f` with their styles of `w`.

        Raises:
            ValueError: no such layer.
        """
        return self._through(f, w, range(self._known(layer), self.layers)).float() * self.network.synthesis.output_scale

    def _known(self, layer: int) -> int:
        if not 0 <= layer < self.layers:
            raise ValueError(f"layer={layer!r}; this StyleGAN has the layers 0 to {self.layers - 1}")
        return layer

    def _through(self, x: Tensor, w: Tensor, layers: range) -> Tensor:
        synthesis = self.network.synthesis
        for index in layers:
            x = getattr(synthesis, synthesis.layer_names[index])(x, w[:, index + 1])
        return x

    def to(self, device: torch.device | str) -> "StyleGAN":
        """This generator itself, on `device` and frozen."""
        self.network.to(device).eval().requires_grad_(False)
        return self


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _legacy(folder: Path) -> ModuleType:
    """The module of the checkout that reads pickles."""
    found = importlib.import_module("legacy")
    if Path(found.__file__).parent != folder:
        raise ValueError(f"stylegan='{folder}'; the module 'legacy' of {Path(found.__file__).parent} is in use here")
    return found
