"""From the files of a data set to pixels and labels, one reader for each layout of files, and downloading."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ddlib.data.catalogue import CATALOGUE, OWN, SPLITS, SYNSETS, TINY_IMAGENET_MD5, TINY_IMAGENET_URL, DatasetInfo
from ddlib.store.files import read_tensors

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Of image files."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Channels -> Pillow's mode."""


class Pixels(NamedTuple):
    """A split as read: images (B, C, H, W) uint8, labels (B,) int64, and the K class names."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def read(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """Read the "train" or "test" images of a set, all of `info.shape`, from under the data folder `root`.

    Raises:
        FileNotFoundError: a file is not there; the message has its path and the command that gets it.
        ValueError: a file is truncated or corrupt, or there are more or fewer images than there should be.
    """
    try:
        pixels = _READERS[info.layout](info, split, root)
    except FileNotFoundError as error:
        verb = "gets it" if info.downloadable else "says how to get it"
        raise FileNotFoundError(
            f"{info.name} is not available: {error}; `ddlib data get {info.name}` {verb}, "
            "or set DDLIB_DATA to the folder that holds it"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise corrupt(info, root, f"is truncated or corrupt ({reason})") from error
    images, labels, _ = pixels
    expected = info.sizes[SPLITS.index(split)]
    if tuple(images.shape[1:]) != info.shape:
        raise corrupt(info, root, f"holds images of {tuple(images.shape[1:])}, expected {info.shape}")
    if len(images) != len(labels) or len(images) != (expected or len(images)):
        counts = f"{len(images)} images and {len(labels)} labels for {split}, expected {expected} of each"
        raise corrupt(info, root, f"holds {counts}")
    return pixels


def download(info: DatasetInfo, root: Path) -> None:
    """Fetch a set that is not there to the data folder `root`; its files are checked by md5 where they arrive."""
    from torchvision.datasets.utils import download_and_extract_archive

    info = CATALOGUE[info.part_of] if info.part_of else info
    try:
        if info.layout == "tiny":
            download_and_extract_archive(TINY_IMAGENET_URL, str(root), md5=TINY_IMAGENET_MD5, remove_finished=True)
            return
        for split in SPLITS:
            _torchvision(info, split, root, download=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{info.name} could not be downloaded to {root} ({error}); "
            f"where there is no network, copy its files to {location(info, root)} by hand"
        ) from error


def state(info: DatasetInfo, root: Path) -> str | None:
    """A digest of the files of a set and of what reads them; None for a set that lies in no file under `root`."""
    if not info.location or not (root / info.location).exists():
        return None
    return state_of(root.glob("*_32x32.mat") if info.name == "svhn" else [root / info.location], repr(info))


def state_of(places: Iterable[Path], how: str) -> str:
    """A digest of files, or of all in folders, links too, by sizes and times, of `how` and of what reads them."""
    digest = hashlib.sha256(how.encode())
    for package in ("pillow", "torch", "torchvision"):
        digest.update(f"{package} {version(package)}".encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    places = list(places)
    inside = (Path(at, name) for place in places for at, _, names in os.walk(place, followlinks=True) for name in names)
    for path in sorted(file for file in (*places, *inside) if file.is_file()):
        about = path.stat()
        digest.update(f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode())
    return digest.hexdigest()


def location(info: DatasetInfo, root: Path) -> Path | str:
    """Where the files of a set are, for a message."""
    return root / info.location if info.location else "the installed scikit-learn"


def corrupt(info: DatasetInfo, root: Path, fault: str) -> ValueError:
    """The error for data that are there but damaged."""
    remedy = f"replace it, `ddlib data get {info.name}` says where from"
    if info.downloadable:
        remedy = f"delete it and run `ddlib data get {info.name}`"
    return ValueError(f"{info.name}: {location(info, root)} {fault}; {remedy}")


def extra(module: str, what: str) -> Any:
    """An optional package's module; a ValueError says what needs it, and how to get it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what} needs {module}, which is not installed: pip install 'ddlib[export]'") from error


def _read_digits(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """8x8 images of 17 levels, enlarged to 16x16; of every class each fourth image is for the test."""
    from sklearn.datasets import load_digits  # takes seconds to import, and no other set needs it

    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    levels = torch.from_numpy(data.images).float()[:, None]
    large = functional.interpolate(levels, scale_factor=2, mode="bilinear", align_corners=False)
    images = (large * 255 / 16).round().to(torch.uint8)
    chosen = (_occurrence(labels) % 4 == 0) == (split == "test")
    return Pixels(images[chosen], labels[chosen], info.class_names)


def _occurrence(labels: Tensor) -> Tensor:
    """How many images of its class there are up to each image, itself counted: (B,)."""
    return functional.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]


def _read_first(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """The first training images of each class of another set, and all of its test images."""
    whole = CATALOGUE[info.part_of]
    images, labels, names = _READERS[whole.layout](whole, split, root)
    chosen = _occurrence(labels) <= (info.per_class if split == "train" else len(labels))
    return Pixels(images[chosen], labels[chosen], names)


def _read_photographs(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """Patches at a distance of 8 pixels, the label that of the photograph: of its left half for train, right for test.

    Gray is 0.299 R + 0.587 G + 0.114 B, rounded.
    """
    from sklearn.datasets import load_sample_image

    weights, patches = torch.tensor([299, 587, 114]), []
    for name in ("china.jpg", "flower.jpg"):
        colours = torch.from_numpy(load_sample_image(name).copy()).long()
        gray = ((colours * weights).sum(-1) + 500) // 1000
        half = gray.chunk(2, dim=1)[SPLITS.index(split)]
        patches.append(half.unfold(0, 16, 8).unfold(1, 16, 8).reshape(-1, 1, 16, 16).to(torch.uint8))
    return Pixels(torch.cat(patches), torch.arange(2).repeat_interleave(len(patches[0])), info.class_names)


def _read_torchvision(info: DatasetInfo, split: str, root: Path) -> Pixels:
    place = root / (f"{split}_32x32.mat" if info.name == "svhn" else info.location)
    if not place.exists():
        raise FileNotFoundError(f"{place} does not exist")
    data = _torchvision(info, split, root)
    images = torch.as_tensor(data.data)
    if info.name.startswith("cifar"):
        images = images.permute(0, 3, 1, 2)
    elif info.name != "svhn":
        images = images[:, None]
    labels = data.labels if info.name == "svhn" else data.targets
    return Pixels(images, torch.as_tensor(labels), info.class_names)


def _torchvision(info: DatasetInfo, split: str, root: Path, *, download: bool = False) -> Any:
    """torchvision's data set, which reads a split whole and, but for the MNISTs, checks the md5 of its files."""
    from torchvision import datasets  # takes seconds to import

    reader = getattr(datasets, "FashionMNIST" if info.name == "fashion_mnist" else info.name.upper())
    if info.name == "svhn":
        return reader(root, split=split, download=download)
    return reader(root, train=split == "train", download=download)


def _read_folders(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """Class folders named by WordNet ids, beside which others may lie."""
    folder = root / info.location / ("train" if split == "train" else "val")
    wnids = [SYNSETS[position][0] for position in info.positions]
    if missing := [wnid for wnid in wnids if not (folder / wnid).is_dir()]:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(wnids)} classes: {', '.join(missing)}")
    return _decode_groups(info, [images_in(folder / wnid) for wnid in wnids], info.class_names)


def _read_tiny(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """Tiny ImageNet as it is packed; its validation images lie together, with a list of their classes."""
    train, val = (root / info.location / name for name in ("train", "val"))
    wnids = sorted(path.name for path in train.iterdir() if path.is_dir() and not hidden(path))
    if len(wnids) != info.num_classes:
        raise ValueError(f"{train} holds {len(wnids)} class folders, expected {info.num_classes}")
    if split == "test":
        lines = [line.split("\t") for line in (val / "val_annotations.txt").read_text().splitlines()]
        groups = [sorted(val / "images" / line[0] for line in lines if line[1] == wnid) for wnid in wnids]
    else:
        groups = [images_in(train / wnid) for wnid in wnids]
    words = root / info.location / "words.txt"
    named = dict(line.split("\t", 1) for line in words.read_text().splitlines()) if words.exists() else {}
    return _decode_groups(info, groups, tuple(named.get(wnid, wnid).split(",")[0] for wnid in wnids))


def _read_own(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """What `ddlib.data.own.add` wrote."""
    tensors, _ = read_tensors(root / info.location)
    return Pixels(tensors[f"{split}.images"], tensors[f"{split}.labels"], info.class_names)


def _decode_groups(info: DatasetInfo, groups: list[list[Path]], class_names: tuple[str, ...]) -> Pixels:
    labels = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
    files = [path for group in groups for path in group]
    return Pixels(decode(files, info.shape, crop=info.cropped), labels, class_names)


def images_in(folder: Path) -> list[Path]:
    """The image files of one class, sorted by name: in `folder`, or all in `folder/images`; else a ValueError."""
    inside = sorted(path for path in folder.iterdir() if not hidden(path))
    files = [path for path in inside if path.suffix.lower() in SUFFIXES]
    folders = [path.name for path in inside if path.suffix.lower() not in SUFFIXES and path.is_dir()]
    if folders == ["images"] and not files:
        return images_in(folder / "images")
    if folders:
        raise ValueError(f"{folder} holds the folders {', '.join(folders)}; allowed: images, or all in a folder images")
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(SUFFIXES)})")
    return files


def hidden(path: Path) -> bool:
    """Whether it is what systems and archives leave beside images: `.DS_Store`, `._image.png`, `__MACOSX`."""
    return path.name.startswith((".", "__MACOSX"))


def decode(files: Sequence[Path], shape: tuple[int, int, int], *, crop: bool = False) -> Tensor:
    """Read images into one tensor (B, *shape) uint8, several threads at a time.

    crop: resize the short side to H (bilinear with antialiasing, on 8-bit pixels) and crop the centre; otherwise an
        image of another size is refused with a ValueError that names the file.
    """
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(lambda path: _decode_one(path, shape, crop), files)):
            pixels[index] = image
    return pixels


def _decode_one(path: Path, shape: tuple[int, int, int], crop: bool) -> Tensor:
    image, size = picture(path, MODES[shape[0]]), shape[1:]
    if crop:
        from torchvision.transforms.functional import center_crop, resize  # takes seconds to import

        image = center_crop(resize(image, size[0]), size[0])
    if (image.height, image.width) != size:
        raise ValueError(f"{path} is {image.height}x{image.width}, expected {size[0]}x{size[1]}")
    return as_tensor(image)


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of an image of 8 bits, (C, H, W) uint8."""
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def picture(path: Path, mode: str) -> Image.Image:
    """An image file in Pillow's `mode` of 8 bits, turned as its EXIF says; what cannot be read is a ValueError."""
    try:
        with Image.open(path) as opened:
            return upright(opened, mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def upright(image: Image.Image, mode: str) -> Image.Image:
    """An image in Pillow's `mode` of 8 bits, turned as its EXIF says; of 16 bits, which Pillow would clip, scaled.

    A PNG's whole numbers have 16 bits, though some versions of Pillow open them as if they had 32.  Other pixels of 32
    bits, and real numbers, whose range nothing says, are a ValueError.
    """
    form, image = image.format, ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image)
        if not image.mode.startswith("I;16") and (image.mode, form) != ("I", "PNG"):
            raise ValueError(f"pixels are {pixels.dtype} from {pixels.min()} to {pixels.max()}; allowed: 8 or 16 bits")
        image = Image.fromarray(np.round(pixels / 257).astype(np.uint8))
    return image.convert(mode)


_READERS = {
    "digits": _read_digits,
    "photographs": _read_photographs,
    "torchvision": _read_torchvision,
    "tiny": _read_tiny,
    "folders": _read_folders,
    "first": _read_first,
    OWN: _read_own,
}
"""Layout of files -> its reader."""
