"""Reading and downloading: from the files of a data set to pixels and labels, one reader for each layout of files."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ddlib.data.catalogue import SPLITS, SYNSETS, TINY_IMAGENET_MD5, TINY_IMAGENET_URL, DatasetInfo

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}

TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
"""The torchvision class of each set that has one.  torchvision takes seconds to import: it is, where it is used."""


class Pixels(NamedTuple):
    """A split as read: images (B, C, H, W) uint8, labels (B,) int64, and the K class names."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def read(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """Read one split from under `root`.

    Args:
        info: which set.
        split: "train" or "test".
        root: the data folder.

    Returns:
        Images of `info.shape`, as many as `info.sizes` says.

    Raises:
        FileNotFoundError: a file is not there; the message has its path and the command that gets it.
        ValueError: a file is truncated or corrupt, or there are more or fewer images than there should be.
    """
    pixels = _READERS[info.layout](info, split, root)
    expected = info.sizes[SPLITS.index(split)]
    where = location(info, root)
    if tuple(pixels.images.shape[1:]) != info.shape:
        raise corrupt(info, f"{where} holds images of {tuple(pixels.images.shape[1:])}, expected {info.shape}")
    if len(pixels.images) != len(pixels.labels) or len(pixels.images) != (expected or len(pixels.images)):
        raise corrupt(
            info,
            f"{where} holds {len(pixels.images)} images and {len(pixels.labels)} labels for {split}, "
            f"expected {expected} of each",
        )
    return pixels


def download(info: DatasetInfo, root: Path) -> None:
    """Fetch a set that is not there; its files are checked by md5 where they arrive.

    Args:
        info: which set; `info.downloadable`.
        root: the data folder, made if need be.

    Raises:
        OSError: the download failed; the message says from what and how else to get the files.
    """
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        if info.layout == "tiny":
            download_and_extract_archive(TINY_IMAGENET_URL, str(root), md5=TINY_IMAGENET_MD5, remove_finished=True)
            return
        for split in SPLITS:
            which = {"split": split} if info.layout == "svhn" else {"train": split == "train"}
            _torchvision(info)(root, download=True, **which)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"{info.name} could not be downloaded to {root} ({error}); "
            f"where there is no network, copy its files to {location(info, root)} by hand"
        ) from error


def state(info: DatasetInfo, root: Path) -> str | None:
    """What changes when the files of a set do, or what reads them: a digest of paths, sizes, times and versions.

    None for a set that lies in no file of its own under `root`.
    """
    if not info.location or not (root / info.location).exists():
        return None
    places = root.glob("*_32x32.mat") if info.layout == "svhn" else [root / info.location]
    digest = hashlib.sha256(repr(info).encode())
    for package in ("pillow", "torch", "torchvision"):
        digest.update(f"{package} {version(package)}".encode())
    for module in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())
    for path in sorted(file for place in places for file in (place, *place.rglob("*")) if file.is_file()):
        about = path.stat()
        digest.update(f"{path} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}".encode())
    return digest.hexdigest()


def location(info: DatasetInfo, root: Path) -> Path | str:
    """Where the files of a set are, for a message."""
    return root / info.location if info.location else "the installed scikit-learn"


def missing(info: DatasetInfo, what: object) -> FileNotFoundError:
    """The error for data that are not there: what was looked for, and the command that gets them."""
    verb = "gets it" if info.downloadable else "says how to get it"
    return FileNotFoundError(
        f"{info.name} is not available: {what}; `ddlib data get {info.name}` {verb}, "
        "or set DDLIB_DATA to the folder that holds it"
    )


def corrupt(info: DatasetInfo, what: object) -> ValueError:
    """The error for data that are there but damaged: what is wrong, and what to do about it."""
    remedy = f"replace it, `ddlib data get {info.name}` says where from"
    if info.downloadable:
        remedy = f"delete it and run `ddlib data get {info.name}`"
    return ValueError(f"{info.name}: {what}; {remedy}")


def _require(info: DatasetInfo, path: Path) -> Path:
    if not path.exists():
        raise missing(info, f"{path} does not exist")
    return path


@contextlib.contextmanager
def _blaming(info: DatasetInfo, path: Path) -> Iterator[None]:
    """Turn what a reader throws at damaged bytes into one ValueError that names the file."""
    try:
        yield
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise corrupt(info, f"{path} is truncated or corrupt ({reason})") from error


def _read_digits(info: DatasetInfo, split: str, root: Path) -> Pixels:
    """8x8 images of 17 levels, enlarged to 16x16; of every class each fourth image is for the test."""
    from sklearn.datasets import load_digits  # takes seconds to import, and no other set needs it

    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    levels = torch.from_numpy(data.images).float()[:, None]
    large = functional.interpolate(levels, scale_factor=2, mode="bilinear", align_corners=False)
    images = (large * 255 / 16).round().to(torch.uint8)
    occurrence = functional.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]
    chosen = (occurrence % 4 == 0) == (split == "test")
    return Pixels(images[chosen], labels[chosen], info.class_names)


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


def _torchvision(info: DatasetInfo) -> type:
    from torchvision import datasets

    return getattr(datasets, TORCHVISION[info.name])


def _read_idx(info: DatasetInfo, split: str, root: Path) -> Pixels:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    folder, stem = root / info.location, "train" if split == "train" else "t10k"
    image_file = _require(info, folder / f"{stem}-images-idx3-ubyte")
    label_file = _require(info, folder / f"{stem}-labels-idx1-ubyte")
    with _blaming(info, image_file):
        images = read_image_file(str(image_file))[:, None]
    with _blaming(info, label_file):
        return Pixels(images, read_label_file(str(label_file)), info.class_names)


def _read_cifar(info: DatasetInfo, split: str, root: Path) -> Pixels:
    from torchvision.datasets.utils import check_integrity

    reader, folder = _torchvision(info), root / info.location
    files = [*reader.train_list, *reader.test_list, (reader.meta["filename"], reader.meta["md5"])]
    paths = {_require(info, folder / filename): md5 for filename, md5 in files}
    try:
        data = reader(root, train=split == "train", download=False)
    except RuntimeError as error:
        bad = next((path for path, md5 in paths.items() if not check_integrity(path, md5)), folder)
        raise corrupt(info, f"{bad} is truncated or corrupt (its md5 is not the published one)") from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2)
    return Pixels(images, torch.tensor(data.targets), info.class_names)


def _read_svhn(info: DatasetInfo, split: str, root: Path) -> Pixels:
    reader = _torchvision(info)
    path = _require(info, root / reader.split_list[split][1])
    with _blaming(info, path):
        data = reader(root, split=split, download=False)
    return Pixels(torch.from_numpy(data.data), torch.from_numpy(data.labels), info.class_names)


def _read_folders(info: DatasetInfo, split: str, root: Path) -> Pixels:
    folder = _require(info, root / info.location / ("train" if split == "train" else "val"))
    try:
        folders = class_folders(folder, info.positions)
    except FileNotFoundError as error:
        raise missing(info, error) from error
    with _blaming(info, folder):
        groups = [images_in(path) for path in folders]
    return _decode_groups(info, groups, info.class_names)


def _read_tiny(info: DatasetInfo, split: str, root: Path) -> Pixels:
    train, val = (_require(info, root / info.location / name) for name in ("train", "val"))
    wnids = sorted(path.name for path in train.iterdir() if path.is_dir())
    if len(wnids) != info.num_classes:
        raise corrupt(info, f"{train} holds {len(wnids)} class folders, expected {info.num_classes}")
    folder = train if split == "train" else val
    with _blaming(info, folder):
        annotated = split == "test" and (val / "images").is_dir()
        groups = _annotated(val, wnids) if annotated else [images_in(folder / wnid) for wnid in wnids]
    return _decode_groups(info, groups, _first_words(root / info.location / "words.txt", wnids))


def _annotated(val: Path, wnids: list[str]) -> list[list[Path]]:
    """The validation images of each class, as Tiny ImageNet's own archive lists them."""
    groups = {wnid: [] for wnid in wnids}
    for line in (val / "val_annotations.txt").read_text().splitlines():
        filename, wnid = line.split("\t")[:2]
        groups[wnid].append(val / "images" / filename)
    return [sorted(paths) for paths in groups.values()]


def _first_words(path: Path, wnids: list[str]) -> tuple[str, ...]:
    """The first name of each synset after words.txt; the id itself where there is no such file or line."""
    lines = path.read_text().splitlines() if path.exists() else []
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(words.get(wnid, wnid).split(",")[0] for wnid in wnids)


def _decode_groups(info: DatasetInfo, groups: list[list[Path]], class_names: tuple[str, ...]) -> Pixels:
    labels = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
    files = [path for group in groups for path in group]
    try:
        return Pixels(decode(files, info.shape, crop=info.cropped), labels, class_names)
    except ValueError as error:
        raise corrupt(info, error) from error


def class_folders(folder: Path, positions: Sequence[int]) -> list[Path]:
    """The folders of the named classes under `folder`, one a label.

    Args:
        folder: holds a folder for each class, named by its WordNet id; other classes may be missing.
        positions: keys of `SYNSETS`.

    Returns:
        One path for each of `positions`, in their order.

    Raises:
        FileNotFoundError: a class has no folder.
        ValueError: there are 1,000 folders, and sorted they are not ILSVRC-2012's.
    """
    wnids = [SYNSETS[position][0] for position in positions]
    missing = [wnid for wnid in wnids if not (folder / wnid).is_dir()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {len(missing)} of {len(wnids)} classes: {', '.join(missing)}")
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(folders) == 1000 and [folders[position] for position in positions] != wnids:
        raise ValueError(f"{folder} holds 1000 classes, but not those of ILSVRC-2012: {wnids} are out of place")
    return [folder / wnid for wnid in wnids]


def images_in(folder: Path) -> list[Path]:
    """The image files (JPEG, PNG, WebP) of one class, sorted by name: in `folder/images` if there is one.

    Raises:
        ValueError: there are none.
    """
    inner = folder / "images"
    where = inner if inner.is_dir() else folder
    files = sorted(path for path in where.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"{where} holds no images ({', '.join(sorted(_SUFFIXES))})")
    return files


def decode(files: Sequence[Path], shape: tuple[int, int, int], *, crop: bool = False) -> Tensor:
    """Read images into one tensor, several threads at a time.

    The whole tensor lies in memory: 49 kB an image at 128x128, 197 kB at 256x256 (ten ImageNet classes of 1,300
    images: 0.64 GB and 2.6 GB).

    Args:
        files: one path an image.
        shape: (3, H, W) of the result, H = W with `crop`.
        crop: resize the short side to H (bilinear with antialiasing, on 8-bit pixels) and crop the centre.
            Otherwise an image of another size is refused.

    Returns:
        (B, 3, H, W) uint8.

    Raises:
        ValueError: a file cannot be decoded, or has another size; the message names it.
    """
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)
    with ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(lambda path: _decode_one(path, shape[1:], crop), files)):
            pixels[index] = image
    return pixels


def _decode_one(path: Path, size: tuple[int, int], crop: bool) -> Tensor:
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path} is truncated or corrupt ({error})") from error
    if crop:
        from torchvision.transforms.functional import center_crop, resize  # takes seconds to import

        image = center_crop(resize(image, size[0]), size[0])
    if (image.height, image.width) != size:
        raise ValueError(f"{path} is {image.height}x{image.width}, expected {size[0]}x{size[1]}")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


_PACKAGED = {"digits": _read_digits, "photographs": _read_photographs}
_READERS = {
    "packaged": lambda info, split, root: _PACKAGED[info.name](info, split, root),
    "idx": _read_idx,
    "cifar": _read_cifar,
    "svhn": _read_svhn,
    "tiny": _read_tiny,
    "folders": _read_folders,
}
