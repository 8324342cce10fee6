"""Synthetic sets as PNG files: a folder a class, as torchvision's `ImageFolder` reads it, and a contact sheet."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ddlib.data.synthetic import SyntheticSet
from ddlib.export.arrays import write_space

ROWS, COLUMNS = 100, 10
"""The contact sheet shows the first classes, and the first images of each."""

SIDE, GAP, NAMES = 64, 4, 110
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


def losses(synthetic: SyntheticSet) -> list[str]:
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


def write(folder: Path, synthetic: SyntheticSet, about: Mapping[str, Any]) -> None:
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
    """The first `COLUMNS` images of each of the first `ROWS` classes, a class a line with its name."""
    factor = max(1, -(-SIDE // min(pictures[0].size)))
    width, height = (factor * side for side in pictures[0].size)
    shown = [[row for row, number in enumerate(rows) if number == c][:COLUMNS] for c in range(len(class_names))][:ROWS]
    size = NAMES + max(map(len, shown)) * (width + GAP), GAP + len(shown) * (height + GAP)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for line, members in enumerate(shown):
        top = GAP + line * (height + GAP)
        pen.text((GAP, top + height // 2), class_names[line][:17], fill="black", anchor="lm")
        for column, row in enumerate(members):
            larger = pictures[row].resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(larger, (NAMES + column * (width + GAP), top))
    return sheet
