"""The forms in which a distilled set travels: arrays, pictures, Parquet, and what two benchmarks read."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddlib.data import datasets
from ddlib.data.synthetic import SyntheticSet
from ddlib.data.whitening import ValueSpace


def space_tensors(space: ValueSpace) -> dict[str, Tensor]:
    """What takes real pixels to the space: mean and std (C,), and the tensors of its ZCA where there is one."""
    found = {"mean": torch.tensor(space.mean), "std": torch.tensor(space.std)}
    if space.zca is not None:
        found |= {f"zca_{name}": getattr(space.zca, name).cpu() for name in ("mean", "whitening", "unwhitening")}
    return found


def write_npz(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `set.npz`; no array of it needs `allow_pickle`."""
    tensors = {"images": synthetic.images, "labels": synthetic.labels} | space_tensors(synthetic.space)
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    arrays |= {"class_names": np.array(synthetic.class_names), "card": np.array(json.dumps(about))}
    if synthetic.learning_rate is not None:
        arrays["learning_rate"] = np.array(synthetic.learning_rate)
    np.savez(folder / "set.npz", **arrays)


def write_pt(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `set.pt`: a dict of tensors, texts and numbers; `learning_rate` is None where none was learnt."""
    tensors = {"images": synthetic.images, "labels": synthetic.labels} | space_tensors(synthetic.space)
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    more = {"class_names": list(synthetic.class_names), "card": json.dumps(about)}
    torch.save(content | more | {"learning_rate": synthetic.learning_rate}, folder / "set.pt")


def write_space(folder: Path, space: ValueSpace) -> None:
    """Write `space.npz`, with which whoever has pixels alone makes of them what the networks were trained on."""
    np.savez(folder / "space.npz", **{name: tensor.numpy() for name, tensor in space_tensors(space).items()})


SHEET_ROWS, SHEET_COLUMNS = 100, 10
"""The contact sheet shows the first classes, and the first images of each."""

SIDE, GAP, NAMES_WIDTH = 64, 4, 110
"""Pixels of the sheet: the least side of an image, between two, and for the names of the classes."""


def classes(synthetic: SyntheticSet) -> Tensor:
    """The class of each image, (N,) int64: its label, or the greatest of its logits."""
    return synthetic.labels.argmax(1) if synthetic.is_soft else synthetic.labels


def class_folders(class_names: tuple[str, ...]) -> list[str]:
    """A folder's name for each class, such as `03_cat`: sorted by name they are in the order of the labels."""
    digits = len(str(len(class_names) - 1))
    plain = ["".join(c if c.isalnum() or c in "-_." else "-" for c in name) for name in class_names]
    return [f"{number:0{digits}}_{name}" for number, name in enumerate(plain)]


def eight_bits(synthetic: SyntheticSet) -> list[Image.Image]:
    """The images as pictures of 8 bits: pixels clipped to [0, 1], times 255, rounded.

    Raises:
        ValueError: images of neither one nor three channels.
    """
    if synthetic.shape[0] not in (1, 3):
        raise ValueError(f"images have {synthetic.shape[0]} channels; a PNG is written of 1 or 3")
    values = (synthetic.pixels().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in values]


def png_bytes(picture: Image.Image, about: Mapping[str, str] | None = None) -> bytes:
    """The picture as a PNG file, with texts about it inside."""
    told, target = PngInfo(), io.BytesIO()
    for name, text in (about or {}).items():
        told.add_itxt(name, text)
    picture.save(target, "PNG", pnginfo=told)
    return target.getvalue()


def picture_losses(synthetic: SyntheticSet) -> list[str]:
    """What pictures lose of the images, one sentence each."""
    pixels = synthetic.space.decode(synthetic.images)
    outside = int(((pixels < 0) | (pixels > 1)).sum())
    found = ["a value has 8 bits: it is off by up to 1/510"]
    if outside:
        share = 100 * outside / pixels.numel()
        clipped = f"{outside} of {pixels.numel()} values ({share:.1f} %) lay outside [0, 1] and were clipped"
        found.append(f"{clipped}: networks trained on the pictures may fall short of the stated accuracy")
    if synthetic.space.zca is not None:
        found.append("the whitening (ZCA) is undone: space.npz holds what whitens the pixels again")
    return found


def write_png(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `images/<class>/<row>.png`, `contact.png`, `space.npz` and, of soft labels, `labels.json`.

    Each file's name is the image's row in the set, so that the order of the set can be had back.
    """
    names, digits = class_folders(synthetic.class_names), len(str(len(synthetic) - 1))
    pictures, rows = eight_bits(synthetic), classes(synthetic).tolist()
    told = {"Title": about["name"], "Comment": "; ".join(about["lost"]), "Source": about["data"]["licence"]}
    paths = [f"images/{names[number]}/{row:0{digits}}.png" for row, number in enumerate(rows)]
    for name in names:
        (folder / "images" / name).mkdir(parents=True)
    for path, picture in zip(paths, pictures, strict=True):
        (folder / path).write_bytes(png_bytes(picture, told))
    (folder / "contact.png").write_bytes(png_bytes(contact_sheet(pictures, rows, synthetic.class_names), told))
    write_space(folder, synthetic.space)
    if synthetic.is_soft:
        logits = dict(zip(paths, synthetic.labels.cpu().tolist(), strict=True))
        (folder / "labels.json").write_text(json.dumps({"class_names": synthetic.class_names, "logits": logits}))


def contact_sheet(pictures: list[Image.Image], rows: list[int], class_names: tuple[str, ...]) -> Image.Image:
    """The first `SHEET_COLUMNS` images of each of the first `SHEET_ROWS` classes, a class a line with its name."""
    factor = max(1, -(-SIDE // min(pictures[0].size)))
    width, height = (factor * side for side in pictures[0].size)
    shown = [[row for row, number in enumerate(rows) if number == c][:SHEET_COLUMNS] for c in range(len(class_names))][
        :SHEET_ROWS
    ]
    size = NAMES_WIDTH + max(map(len, shown)) * (width + GAP), GAP + len(shown) * (height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for line, members in enumerate(shown):
        top = GAP + line * (height + GAP)
        pen.text((GAP, top + height // 2), class_names[line][:17], fill="black", anchor="lm")
        for column, row in enumerate(members):
            larger = pictures[row].resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(larger, (NAMES_WIDTH + column * (width + GAP), top))
    return sheet


FILE = "data/train-00000-of-00001.parquet"

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Images below so many -> the hub's word for the size."""


def write_parquet(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write the Parquet file and `space.npz`.

    Raises:
        ValueError: pyarrow is not installed, or images of neither one nor three channels.
    """
    arrow = _pyarrow()
    import pyarrow.parquet

    schema = _schema(arrow, synthetic, about)
    pictures = [{"bytes": png_bytes(picture), "path": f"{i:05}.png"} for i, picture in enumerate(eight_bits(synthetic))]
    columns = {"image": pictures, "label": classes(synthetic).tolist(), "tensor": synthetic.images.cpu().tolist()}
    columns |= {"logits": synthetic.labels.cpu().tolist()} if synthetic.is_soft else {}
    (folder / FILE).parent.mkdir()
    pyarrow.parquet.write_table(arrow.table(columns, schema=schema), folder / FILE)
    write_space(folder, synthetic.space)


def head(about: Mapping[str, Any]) -> str:
    """The YAML that the card of a data set begins with."""
    size = next((word for limit, word in SIZES if about["images"] < limit), "n>1M")
    content = {
        "pretty_name": about["name"],
        "license": "other",
        "license_name": "that-of-the-real-data",
        "task_categories": ["image-classification"],
        "size_categories": [size],
        "tags": ["dataset-distillation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": FILE}]}],
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n\n"


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ValueError("to='hf' needs pyarrow, which is not installed: pip install 'ddlib[export]'") from error
    return pyarrow


def _schema(arrow: ModuleType, synthetic: SyntheticSet, about: Mapping[str, Any]) -> Any:
    """The types of the columns; as metadata the features that `datasets` takes them for, and the card."""
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    row, told = arrow.list_(arrow.float32()), {"dtype": "float32"}
    types = {"image": image, "label": arrow.int64(), "tensor": arrow.list_(arrow.list_(row))}
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(synthetic.class_names), "_type": "ClassLabel"},
        "tensor": {"shape": list(synthetic.shape), "_type": "Array3D"} | told,
    }
    if synthetic.is_soft:
        types["logits"] = row
        features["logits"] = {"feature": {"_type": "Value"} | told, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "ddlib": json.dumps(about)}
    return arrow.schema(list(types.items()), metadata=metadata)


EPS = 0.1
"""What DD-Ranking adds to eigenvalues when it whitens."""

THEIRS = {"cifar100": "cifar10"}
"""Data set -> that by whose constants DD-Ranking normalises it; others are normalised by their own."""

NAMES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "tiny_imagenet": "tinyimagenet"}
"""Data set -> what DC-BENCH calls it; it knows no others."""


def ddranking_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DD-Ranking's form loses, one sentence each; what to set there comes with it."""
    found = ["DD-Ranking chooses learning rate and epoch on the test set: its accuracies are not the stated ones"]
    if _whitens_alike(synthetic.space):
        return [*found, "images are whitened pixels: set use_zca to true"]
    if synthetic.space.zca is not None:
        found.append("the whitening (ZCA) is undone, since DD-Ranking does not whiten so: set use_zca to false")
    if data in THEIRS:
        found.append(f"images are normalised by the constants of {THEIRS[data]}, as DD-Ranking does with {data}")
    return found


def write_ddranking(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write `images.pt`, `labels.pt` and, where a learning rate was learnt, `lr.pt`.

    Raises:
        ValueError: hard labels that are not as many of each class.
    """
    order = _class_by_class(synthetic)
    images = synthetic.images.cpu()
    if not _whitens_alike(synthetic.space):
        images = _normalised(synthetic, THEIRS.get(about["data"]["name"], about["data"]["name"]))
    torch.save(images[order].contiguous(), folder / "images.pt")
    torch.save(synthetic.labels.cpu()[order].contiguous(), folder / "labels.pt")
    if synthetic.learning_rate is not None:
        torch.save(torch.tensor(synthetic.learning_rate), folder / "lr.pt")


def dcbench_losses(synthetic: SyntheticSet, data: str) -> list[str]:
    """What DC-BENCH's form loses, one sentence each."""
    found = [] if data in NAMES else [f"DC-BENCH knows {', '.join(NAMES.values())}; {data} must be added to it"]
    if synthetic.space.zca is not None:
        found.append("the whitening (ZCA) is undone, since DC-BENCH does not whiten")
    if synthetic.learning_rate is not None:
        found.append(f"DC-BENCH trains with its own learning rate, not with the learnt {synthetic.learning_rate:g}")
    if synthetic.is_soft:
        found.append("labels are probabilities; its loaders of DC, DSA and DM keep them, that of TM rounds them")
    return found


def write_dcbench(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
    """Write the file that DC-BENCH's loaders of DC, DSA and DM read, in its place."""
    data, method = about["data"]["name"], about["method"].upper()
    name, ipc = NAMES.get(data, data), len(synthetic) // synthetic.num_classes
    network = "ConvNetD4" if data == "tiny_imagenet" else "ConvNet"
    path = folder / method / name / f"IPC{ipc}" / f"res_{method}_{name}_{network}_{ipc}ipc.pt"
    path.parent.mkdir(parents=True)
    labels = synthetic.labels.cpu()
    pair = [_normalised(synthetic, data), labels.softmax(1) if synthetic.is_soft else labels]
    torch.save({"data": [pair]}, path)


def _whitens_alike(space: ValueSpace) -> bool:
    return space.zca is not None and space.name == "zca of pixels" and space.zca.eps == EPS


def _normalised(synthetic: SyntheticSet, data: str) -> Tensor:
    """The images normalised by the constants of `data`; bit by bit what they are where they are so already."""
    space = synthetic.space
    if data in datasets.names():
        info = datasets.describe(data)
        wanted = ValueSpace(info.mean, info.std)
    else:
        wanted = ValueSpace(space.mean, space.std)
    if space.zca is None and (space.mean, space.std) == (wanted.mean, wanted.std):
        return synthetic.images.cpu()
    return wanted.encode(space.decode(synthetic.images)).cpu()


def _class_by_class(synthetic: SyntheticSet) -> Tensor:
    """The order that DD-Ranking takes images to have; soft labels stay as they are."""
    if synthetic.is_soft:
        return torch.arange(len(synthetic))
    counts = torch.bincount(classes(synthetic).cpu(), minlength=synthetic.num_classes)
    if len(counts.unique()) > 1:
        raise ValueError(f"DD-Ranking takes as many images of each class; got {counts.tolist()}")
    return synthetic.labels.cpu().argsort(stable=True)
