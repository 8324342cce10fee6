"""A frozen evaluation network: one that was trained on a synthetic set by the recipe of its card, weights and all.

The file is safetensors: the tensors of the network's `state_dict` by their names, and in the header, under "ddlib",
its architecture, the recipe, and the value space of its images.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddlib import models
from ddlib.data.datasets import ImageSet
from ddlib.data.synthetic import Card, SyntheticSet, SyntheticStream
from ddlib.data.whitening import ValueSpace
from ddlib.evaluation import Protocol, training
from ddlib.evaluation.images import training_images
from ddlib.store.files import read_tensors, write_tensors

FORMAT, VERSION = "ddlib.network", 1


@dataclass(frozen=True, eq=False, kw_only=True)
class FrozenNetwork:
    """A trained network, with what it was trained by.

    protocol: that trained it, its architecture included.
    shape: (C, H, W) of its images, in the value `space`, "name", "mean" and "std" as plain JSON.
    index, seed: of the network among those of its evaluation, and of the evaluation.
    tensors: as in the network's `state_dict`.
    """

    protocol: Protocol
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    space: Mapping[str, Any]
    index: int
    seed: int
    tensors: Mapping[str, Tensor]

    def module(self) -> nn.Module:
        """The network itself, in evaluation mode: images (B, C, H, W) in the space of its set -> logits (B, K)."""
        sizes = {"shape": self.shape, "num_classes": len(self.class_names)}
        network = models.build(self.protocol.network, generator=torch.Generator(), **sizes, **self.protocol.options)
        network.load_state_dict(dict(self.tensors))
        return network.eval()

    def accuracy(self, test: ImageSet) -> float:
        """Percent of the test images that it classes rightly; ValueError for another shape, value space or classes."""
        if (test.shape, tuple(test.class_names)) != (self.shape, self.class_names):
            allowed = f"{self.shape} and {self.class_names}"
            raise ValueError(f"test has images of {test.shape} and the classes {test.class_names}; allowed: {allowed}")
        if (space := described(test.space)) != self.space:
            raise ValueError(f"test has images in the space {space}; allowed: {self.space}: load the test set likewise")
        learner = training.learner(self.protocol, self.shape, len(self.class_names))
        tensors = {name: tensor.to(test.device) for name, tensor in self.tensors.items()}
        parameters = {name: tensors.pop(name) for name, _ in self.module().named_parameters()}
        trained = training.Trained(parameters, tensors, torch.zeros((), device=test.device))
        predictions = training.predictions(learner, trained, len(test), test.take)
        return 100 * int((predictions == test.labels).sum()) / len(test)


def refusal(card: Card | None) -> str:
    """Why no network can be trained by the recipe of a card; empty where one can."""
    if card is None:
        return "synthetic has no card that says how networks are trained on it"
    protocol = Protocol(**card.protocol)
    if protocol.taught_by is not None:
        return f"labels={protocol.labels!r} ask a teacher, which a set does not bring; allowed: None, 'hard'"
    if protocol.compat:
        return f"compat={protocol.compat!r} states the best of five looks, which no one network has: None"
    return ""


def train(synthetic: SyntheticSet | SyntheticStream, *, index: int | None = None, device: str = "cpu") -> FrozenNetwork:
    """Train network `index` of the card (None: its first) as its evaluation did; a ValueError gives its `refusal`."""
    card = synthetic.card
    if reason := refusal(card):
        raise ValueError(reason)
    index = card.networks[0] if index is None else index
    protocol = Protocol(**card.protocol)
    protocol = replace(protocol, lr=synthetic.learning_rate or protocol.lr)
    learner = training.learner(protocol, synthetic.shape, synthetic.num_classes)
    images = training_images(synthetic.to(device), protocol, card.seed)
    *_, (trained,) = training.train(learner, images, protocol, networks=(index,), seed=card.seed)
    return FrozenNetwork(
        protocol=protocol,
        shape=synthetic.shape,
        class_names=synthetic.class_names,
        space=described(synthetic.space),
        index=index,
        seed=card.seed,
        tensors={name: tensor.cpu().clone() for name, tensor in (trained.parameters | trained.buffers).items()},
    )


def described(space: ValueSpace) -> dict[str, Any]:
    """Name, mean and std of a value space, as plain JSON."""
    return {"name": space.name, "mean": list(space.mean), "std": list(space.std)}


def save(network: FrozenNetwork, path: Path, about: Mapping[str, Any] | None = None) -> str:
    """Write the network, with more `about` it, and its SHA-256, which is returned, beside it for `sha256sum -c`."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "network": network.protocol.network,
        "options": dict(network.protocol.options),
        "protocol": network.protocol.settings(),
        "shape": list(network.shape),
        "class_names": list(network.class_names),
        "value_space": dict(network.space),
        "index": network.index,
        "seed": network.seed,
    }
    write_tensors(path, network.tensors, dict(about or {}) | header)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    return digest


def load(path: str | Path) -> FrozenNetwork:
    """Read what `save` wrote, onto the CPU; ValueError where it is not what was written, or no such network."""
    tensors, header = read_tensors(Path(path))
    if header.get("format") != FORMAT or header["version"] > VERSION or "value_space" not in header:
        wanted = f"{FORMAT!r}, version up to {VERSION}, and a value space"
        raise ValueError(f"{path} holds no network: its header does not say {wanted}")
    return FrozenNetwork(
        protocol=Protocol(**header["protocol"]),
        shape=tuple(header["shape"]),
        class_names=tuple(header["class_names"]),
        space=header["value_space"],
        index=header["index"],
        seed=header["seed"],
        tensors=tensors,
    )
