"""Random tensors and pictures whose numbers a seed decides, and whether sets of tensors agree to the bit."""

import torch

from ddlib.data.datasets import ImageSet, ValueSpace
from ddlib.data.synthetic import SyntheticSet, SyntheticStream
from ddlib.models.diffusion import LatentDiffusion


def seeded(seed=0):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=7, dtype=torch.float32):
    """Standard normal values."""
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def pictures(count=23, shape=(2, 8, 8), classes=4, name="pictures", seed=0):
    """Random uint8 pictures whose classes take turns."""
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=seeded(seed))
    space = ValueSpace(mean=(0.4, 0.5, 0.6)[: shape[0]], std=(0.2, 0.3, 0.4)[: shape[0]])
    return ImageSet(name, "train", images, torch.arange(count) % classes, tuple(map(str, range(classes))), space)


def held(product):
    """The tensors of an artefact, of a set or of a stream, by name."""
    if isinstance(product, SyntheticStream):
        return product.generator
    if isinstance(product, SyntheticSet):
        return {"images": product.images, "labels": product.labels} | dict(product.latents or {})
    if isinstance(product, LatentDiffusion):
        parts = {part: getattr(product, part) for part in ("vae", "unet", "embedder")}
        return {f"{part}.{name}": t for part, net in parts.items() if net for name, t in net.state_dict().items()}
    return product


def equal(ours, theirs):
    """Whether two mappings of tensors, or what holds them, have the same names and bits."""
    ours, theirs = held(ours), held(theirs)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
