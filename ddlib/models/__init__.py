"""Models: the networks that distil and that evaluate, DiM's generator and critic, and latent diffusion models.

`build` makes a network by name, `names` lists them, and `reset` redraws the weights of one in place; `model(images)`
are logits, `model.features(images)` the `Features`.  `gan` has the generator and the critic, `diffusion` the latent
diffusion model, `priors` its folders; `passes` makes a network a pure function, `second_order` writes the
second derivatives of its layers out, `state.State` is what a step changes.

The definitions are those of the dataset-condensation lineage (DC, DSA, DM, MTT, DC-Bench), which differ from the
torchvision networks of the same names: norms with one group a channel, no dropout in AlexNet, one linear layer as the
classifier, whose width follows the image.  Every network works under `torch.func.functional_call`, `torch.vmap` over
stacked parameters and buffers, and in channels_last memory format.  `register`, or a dotted name such as
`torchvision.models:resnet18`, brings networks of others, see `foreign`.
"""

import functools
import inspect
from typing import Any

import torch

from ddlib.models import foreign
from ddlib.models.foreign import fingerprint
from ddlib.models.layers import Features, Network, reset
from ddlib.models.networks import MLP, VGG11, AlexNet, ConvNet, DenseNet, LeNet, ResNet, ViT

_NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "convnet": (ConvNet, {}),
    "alexnet": (AlexNet, {}),
    "vgg11": (VGG11, {}),
    "resnet10": (ResNet, {"blocks": 1, "average": False}),
    "resnet10_ap": (ResNet, {"blocks": 1, "average": True}),
    "resnet18": (ResNet, {"blocks": 2, "average": False}),
    "resnet18_ap": (ResNet, {"blocks": 2, "average": True}),
    "densenet": (DenseNet, {}),
    "vit": (ViT, {}),
    "mlp": (MLP, {}),
    "lenet": (LeNet, {}),
}
"""Name -> the class, and what its name settles."""


def names() -> tuple[str, ...]:
    """Names of our networks and of those registered."""
    return (*_NETWORKS, *foreign.REGISTERED)


def known(name: str) -> bool:
    """Whether `build` knows a name, one of `names` or dotted; a ValueError where a dotted one leads nowhere."""
    return name in _NETWORKS or foreign.find(name) is not None


def register(name: str, builder: foreign.Builder) -> None:
    """Make a network of others known as `name`, for this process; raises as `foreign.register`, and for our names."""
    if name in _NETWORKS:
        raise ValueError(f"name={name!r} is one of ours; allowed: any other text")
    foreign.register(name, builder)


def options_of(name: str) -> tuple[str, ...]:
    """The options of the network `name` by their names; a ValueError where there is none of this name."""
    if not known(name):
        raise ValueError(f"unknown network {name!r}; known: {', '.join(names())}, or package.module:builder")
    if name not in _NETWORKS:
        return foreign.options_of(foreign.find(name))
    kind, settled = _NETWORKS[name]
    return tuple(key for key in inspect.signature(kind).parameters if key not in ("shape", "num_classes", *settled))


def check_option(name: str, option: str, where: str) -> None:
    """Refuse an option that `build` does not take for the network `name`, which is called `where` in the error."""
    options = options_of(name)
    if option not in options and (name in _NETWORKS or not foreign.takes(foreign.find(name), option)):
        raise ValueError(f"unknown option {option!r} of {where}; known: {', '.join(options)}")


def build(
    name: str,
    *,
    shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Network:
    """A network by name, in training mode, with fresh weights from PyTorch's default laws, or a builder's own.

    Args:
        name: one of `names()`, or that of a builder, `package.module:function`.
        shape: (C, H, W) of the images; K = `num_classes`.
        generator: the only source of the weights; None: the global random state.
        options: those of the network, such as `width`, `depth` and `norm` of ConvNet; see its class.

    Returns:
        The network, on the default device.

    Raises:
        ValueError: unknown name, option or option value, or images too small for the network.
    """
    options_of(name)  # refuses an unknown name
    for option in options:
        check_option(name, option, f"network {name!r}")
    if name not in _NETWORKS:
        return foreign.build(name, foreign.find(name), shape, num_classes, generator, options)
    kind, settled = _NETWORKS[name]
    if generator is None:
        return kind(shape=shape, num_classes=num_classes, **settled, **options)
    with torch.device("meta"):  # the constructors draw nothing here
        model = kind(shape=shape, num_classes=num_classes, **settled, **options)
    reset(model.to_empty(device=torch.get_default_device()), generator)
    return model


def check(name: str, *, shape: tuple[int, int, int], num_classes: int, **options: Any) -> Network:
    """The network on the meta device, without weights: refuses with a ValueError what `build` would, in no time."""
    try:
        return _built(name, foreign.find(name), tuple(shape), num_classes, tuple(sorted(options.items())))
    except TypeError as error:  # text for a number
        raise ValueError(f"options {options} of network {name!r}: {error}") from error


@functools.cache
def _built(name: str, builder: Any, shape: tuple[int, ...], num_classes: int, options: tuple) -> Network:
    """Build once what `check` is asked; of a name that was registered anew, the `builder` is another."""
    with torch.device("meta"):
        return build(name, shape=shape, num_classes=num_classes, **dict(options))
