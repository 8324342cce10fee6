"""A network as a pure function of one vector, which trajectories are made of."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


class Flat:
    """A network whose parameters come as one vector: logits = flat(theta, images).

    The order is that of `network.named_parameters()`.  Differentiable in theta and in the images, any number of times,
    and open to `torch.vmap`, `torch.func` and `torch.compile`.

    Args:
        network: gives the shapes alone; its own values are not used, so it may lie on the meta device.

    Raises:
        ValueError: the network keeps running statistics, which a vector of parameters does not carry.
    """

    def __init__(self, network: nn.Module):
        if any(True for _ in network.buffers()):
            raise ValueError(
                "the network has running statistics, which a trajectory of parameters does not carry; "
                "take norm 'instance', 'layer', 'group' or 'none'"
            )
        self.network = network.to("meta")
        self.shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """Logits (B, K) of `images` (B, C, H, W) under the parameters `theta` (P,)."""
        return functional_call(self.network, self.named(theta), (images,))

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """The vector (P,) as views with the shapes of the parameters, by name."""
        parts = theta.split(self.sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def vector(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The named parameters, such as those of a network of the same kind, as one new vector (P,)."""
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.shapes])
