"""The forms in which a distilled set travels: arrays, pictures, Parquet, and what two benchmarks read.

A writer takes the new folder, the set, and what is known of it (`ddlib.export.cards.about`).
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import to_pil_image

from ddlib.data import datasets, readers
from ddlib.data.synthetic import SyntheticSet, save
from ddlib.data.whitening import ValueSpace

About = Mapping[str, Any]


def classes(synthetic: SyntheticSet) -> Tensor:
    """The class of each image, (N,) int64: its label, or the greatest of its logits."""
    return synthetic.labels.argmax(1) if synthetic.is_soft else synthetic.labels


def _tensors(synthetic: SyntheticSet) -> dict[str, Tensor]:
    return {"images": synthetic.images.cpu(), "labels": synthetic.labels.cpu()} | _space(synthetic.space)


def _space(space: ValueSpace) -> dict[str, Tensor]:
    """What takes real pixels to the space: mean and std (C,), and the tensors of its ZCA where there is one."""
    tensors = {"mean": torch.tensor(space.mean), "std": torch.tensor(space.std)}
    if space.zca is not None:
        tensors |= {f"zca_{name}": getattr(space.zca, name).cpu() for name in ("mean", "whitening", "unwhitening")}
    return tensors


def write_safetensors(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write `synthetic.safetensors`, of a stream too."""
    save(synthetic, folder / "synthetic.safetensors")


def write_npz(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write `set.npz`; no array of it needs `allow_pickle`."""
    learnt = {} if synthetic.learning_rate is None else {"learning_rate": synthetic.learning_rate}
    texts = {"class_names": synthetic.class_names, "card": json.dumps(about)}
    np.savez(folder / "set.npz", **_tensors(synthetic), **texts, **learnt)


def write_pt(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write `set.pt`: a dict of tensors, texts and numbers; `learning_rate` is None where none was learnt."""
    content = {name: tensor.detach().contiguous() for name, tensor in _tensors(synthetic).items()}
    content |= {"class_names": list(synthetic.class_names), "card": json.dumps(about)}
    torch.save(content | {"learning_rate": synthetic.learning_rate}, folder / "set.pt")


def _eight_bits(synthetic: SyntheticSet) -> Tensor:
    """(N, C, H, W) uint8: pixels clipped to [0, 1], times 255, rounded."""
    if synthetic.shape[0] not in (1, 3, 4):
        raise ValueError(f"images have {synthetic.shape[0]} channels; a PNG is written of 1 or 3, or 4 (transparency)")
    return (synthetic.pixels().cpu() * 255).round().to(torch.uint8)


def picture_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What pictures lose of the images, one sentence each."""
    pixels = synthetic.space.decode(synthetic.images)
    losses, outside = ["a value has 8 bits: it is off by up to 1/510"], int(((pixels < 0) | (pixels > 1)).sum())
    if outside:
        share = f"{outside} of {pixels.numel()} values ({100 * outside / pixels.numel():.1f} %)"
        clipped = f"{share} lay outside [0, 1] and were clipped"
        losses.append(f"{clipped}: networks trained on the pictures may fall short of the stated accuracy")
    if synthetic.space.zca is not None:
        losses.append("the whitening (ZCA) is undone: space.npz holds what whitens the pixels again")
    return losses


def write_png(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write `images/<class>/<row>.png`, `contact.png`, `space.npz` and, of soft labels, `labels.json`.

    A file's name is the image's row in the set; the folders, such as `03_cat`, sort in the order of the labels.
    ValueError for images of neither one, three nor four channels.
    """
    images, rows = _eight_bits(synthetic), classes(synthetic).tolist()
    width, row_width = len(str(synthetic.num_classes - 1)), len(str(len(synthetic) - 1))
    plain = [re.sub(r"[^\w.-]", "-", name) for name in synthetic.class_names]
    folders = [f"images/{number:0{width}}_{name}" for number, name in enumerate(plain)]
    paths = [f"{folders[number]}/{row:0{row_width}}.png" for row, number in enumerate(rows)]
    for name in folders:
        (folder / name).mkdir(parents=True)
    for path, image in zip(paths, images, strict=True):
        to_pil_image(image).save(folder / path)
    to_pil_image(_contact_sheet(images, classes(synthetic).cpu())).save(folder / "contact.png")
    np.savez(folder / "space.npz", **_space(synthetic.space))
    if synthetic.is_soft:
        logits = dict(zip(paths, synthetic.labels.cpu().tolist(), strict=True))
        (folder / "labels.json").write_text(json.dumps({"class_names": synthetic.class_names, "logits": logits}))


def _contact_sheet(images: Tensor, labels: Tensor, *, rows: int = 100, columns: int = 10, side: int = 64) -> Tensor:
    """The first images of each of the first classes, a class a line; each is enlarged to `side` pixels at least."""
    images = F.interpolate(images, scale_factor=float(max(1, -(-side // min(images.shape[2:])))))
    members = [(labels == number).nonzero().flatten()[:columns].tolist() for number in labels.unique()[:rows]]
    columns, blank = max(map(len, members)), torch.full_like(images[0], 255)
    cells = []
    for line in members:
        cells += [images[row] for row in line] + [blank] * (columns - len(line))
    return torchvision.utils.make_grid(cells, nrow=columns, padding=4, pad_value=255)


def write_parquet(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write the Parquet file that Hugging Face's `datasets` reads, and `space.npz`."""
    hub = readers.extra("datasets", "to='hf'")
    columns = {
        "image": (hub.Image(), [to_pil_image(image) for image in _eight_bits(synthetic)]),
        "label": (hub.ClassLabel(names=list(synthetic.class_names)), classes(synthetic).tolist()),
        "tensor": (hub.Array3D(tuple(synthetic.shape), "float32"), synthetic.images.cpu().tolist()),
    }
    if synthetic.is_soft:
        columns["logits"] = hub.List(hub.Value("float32")), synthetic.labels.cpu().tolist()
    features = hub.Features({name: feature for name, (feature, _) in columns.items()})
    data = hub.Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features)
    (folder / "data").mkdir()
    data.to_parquet(folder / "data" / "train-00000-of-00001.parquet")
    np.savez(folder / "space.npz", **_space(synthetic.space))


DDRANKING_EPS = 0.1
"""What DD-Ranking adds to eigenvalues when it whitens."""

DDRANKING_CONSTANTS = {"cifar100": "cifar10"}
"""Data set -> that by whose constants DD-Ranking normalises it; others are normalised by their own."""

DCBENCH_NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tiny_imagenet": "tinyimagenet"}
"""Data set -> what DC-BENCH calls it; it knows no others."""


def _is_whitened_as_ddranking(space: ValueSpace) -> bool:
    return space.zca is not None and space.name == "zca of pixels" and space.zca.eps == DDRANKING_EPS


def normalised(synthetic: SyntheticSet, data: str) -> Tensor:
    """The images normalised by the constants of `data`; bit by bit what they are where they are so already."""
    space = synthetic.space
    mean, std = space.mean, space.std
    if data in datasets.names():
        mean, std = datasets.describe(data).mean, datasets.describe(data).std
    if space.zca is None and (space.mean, space.std) == (mean, std):
        return synthetic.images.cpu()
    return ValueSpace(mean, std).encode(space.decode(synthetic.images)).cpu()


def ddranking_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DD-Ranking's form loses, one sentence each; what to set there comes with it."""
    losses = ["DD-Ranking chooses learning rate and epoch on the test set: its accuracies are not the stated ones"]
    if _is_whitened_as_ddranking(synthetic.space):
        return [*losses, "images are whitened pixels: set use_zca to true"]
    if synthetic.space.zca is not None:
        losses.append("the whitening (ZCA) is undone, since DD-Ranking does not whiten so: set use_zca to false")
    if data in DDRANKING_CONSTANTS:
        constants = DDRANKING_CONSTANTS[data]
        losses.append(f"images are normalised by the constants of {constants}, as DD-Ranking does with {data}")
    return losses


def write_ddranking(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write `images.pt`, `labels.pt` and a learnt `lr.pt`; hard labels class by class, as many of each (ValueError)."""
    order, data = torch.arange(len(synthetic)), about["data"]["name"]
    if not synthetic.is_soft:
        counts = torch.bincount(synthetic.labels.cpu(), minlength=synthetic.num_classes)
        if len(counts.unique()) > 1:
            raise ValueError(f"DD-Ranking takes as many images of each class; got {counts.tolist()}")
        order = synthetic.labels.cpu().argsort(stable=True)
    whitened = _is_whitened_as_ddranking(synthetic.space)
    images = synthetic.images.cpu() if whitened else normalised(synthetic, DDRANKING_CONSTANTS.get(data, data))
    torch.save(images[order].contiguous(), folder / "images.pt")
    torch.save(synthetic.labels.cpu()[order].contiguous(), folder / "labels.pt")
    if synthetic.learning_rate is not None:
        torch.save(torch.tensor(synthetic.learning_rate), folder / "lr.pt")


def dcbench_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DC-BENCH's form loses, one sentence each."""
    known = ", ".join(DCBENCH_NAMES.values())
    losses = [] if data in DCBENCH_NAMES else [f"DC-BENCH knows {known}; {data} must be added to it"]
    if synthetic.space.zca is not None:
        losses.append("the whitening (ZCA) is undone, since DC-BENCH does not whiten")
    if synthetic.learning_rate is not None:
        losses.append(f"DC-BENCH trains with its own learning rate, not with the learnt {synthetic.learning_rate:g}")
    if synthetic.is_soft:
        losses.append("labels are probabilities; its loaders of DC, DSA and DM keep them, that of TM rounds them")
    return losses


def write_dcbench(folder: Path, synthetic: SyntheticSet, about: About) -> None:
    """Write the file that DC-BENCH's loaders of DC, DSA and DM read, in its place."""
    data, method = about["data"]["name"], about["method"].upper()
    name, ipc = DCBENCH_NAMES.get(data, data), len(synthetic) // synthetic.num_classes
    network = "ConvNetD4" if data == "tiny_imagenet" else "ConvNet"
    path = folder / method / name / f"IPC{ipc}" / f"res_{method}_{name}_{network}_{ipc}ipc.pt"
    path.parent.mkdir(parents=True)
    labels = synthetic.labels.cpu()
    pair = [normalised(synthetic, data), labels.softmax(1) if synthetic.is_soft else labels]
    torch.save({"data": [pair]}, path)


FORMATS: dict[str, Callable[[Path, SyntheticSet, About], None]] = {
    "npz": write_npz,
    "pt": write_pt,
    "png": write_png,
    "hf": write_parquet,
    "safetensors": write_safetensors,
    "ddranking": write_ddranking,
    "dcbench": write_dcbench,
}
"""Name of a form -> what writes it."""

LOSSES: dict[str, Callable[[SyntheticSet, str], list[str]]] = {
    "png": picture_losses,
    "hf": lambda synthetic, data: [f"of the pictures: {loss}" for loss in picture_losses(synthetic, data)],
    "ddranking": ddranking_losses,
    "dcbench": dcbench_losses,
}
"""Name of a form that is not exact -> (set, name of the data) -> what it does not keep, a sentence each."""
