"""Models: the networks that distil and that evaluate, DiM's generator and critic, and latent diffusion models.

Networks are built by name: `build` makes one, `names` lists them, `reset` redraws the weights of one in place, and
`Features` is what `model.features(images)` returns: the maps of every block and the embedding.  `model(images)` gives
logits.  `gan` has the generator and the critic, `diffusion` the latent diffusion model, `priors` its folders, `cin256`
the conversion of the published one; `passes` says how images pass a network, and makes it a pure function of a vector.

The definitions are those of the dataset-condensation lineage (DC, DSA, DM, MTT, DC-Bench), which differ from the
torchvision networks of the same names: norms with one group a channel, no dropout in AlexNet, one linear layer as the
classifier, whose width follows the image.  Every network works under `torch.func.functional_call` and `torch.vmap`
over stacked parameters and buffers, and for images in channels_last memory format.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ddlib.models.convnets import MLP, VGG11, AlexNet, ConvNet, LeNet
from ddlib.models.densenet import DenseNet
from ddlib.models.layers import Features, Network, reset
from ddlib.models.resnet import resnet10, resnet10_ap, resnet18, resnet18_ap
from ddlib.models.vit import ViT

__all__ = ["Features", "Network", "build", "names", "reset"]

_BUILDERS: dict[str, Callable[..., Network]] = {
    "convnet": ConvNet,
    "alexnet": AlexNet,
    "vgg11": VGG11,
    "resnet10": resnet10,
    "resnet10_ap": resnet10_ap,
    "resnet18": resnet18,
    "resnet18_ap": resnet18_ap,
    "densenet": DenseNet,
    "vit": ViT,
    "mlp": MLP,
    "lenet": LeNet,
}


def names() -> tuple[str, ...]:
    """Names that `build` knows."""
    return tuple(_BUILDERS)


def options_of(name: str) -> tuple[str, ...]:
    """The options that `build` takes for the network `name`.

    Raises:
        ValueError: unknown; the known ones are listed.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(_BUILDERS)}")
    return tuple(key for key in inspect.signature(_BUILDERS[name]).parameters if key not in ("shape", "num_classes"))


def build(
    name: str,
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Network:
    """A network by name, in training mode, with fresh weights from PyTorch's default laws.

    Args:
        name: one of `names()`.
        shape: (C, H, W) of the images.
        num_classes: K.
        generator: the only source of the weights; the global random state is neither read nor changed.  None: the
            layers' own constructors draw from the global random state.
        options: those of the network, such as `width`, `depth` and `norm` of ConvNet; see its class.

    Returns:
        The network, on the default device: `model(images)` are logits (B, K), `model.features(images)` a `Features`,
        `model.classifier` the last linear layer.

    Raises:
        ValueError: unknown name, option or option value, or images too small for the network.
    """
    known, builder = options_of(name), _BUILDERS[name]
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of network {name!r}; known: {', '.join(known)}")
    if generator is None:
        return builder(shape=shape, num_classes=num_classes, **options)
    with torch.device("meta"):  # the constructors draw nothing here
        model = builder(shape=shape, num_classes=num_classes, **options)
    model.to_empty(device=torch.get_default_device())
    reset(model, generator)
    return model
