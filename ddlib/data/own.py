"""Your own images as a data set like any other: from a folder, from arrays, or from a data set of another library.

    sets = from_folder("photos", size=32)  # sets.train and sets.test, as `datasets.load` gives them
    name = add(sets)                       # from now on `datasets.load(name, "train")`, and `dataset` of a notebook

All three doors end in 8-bit pixels, normalised by mean and deviation of the training images (four decimals), and in a
name that follows from the content, so that other images never pass for these in the store.  They share two settings:

holdout: share of each class that is the test set where the data have none, in (0, 1); drawn once, always alike.
at_least: training images of a class, >= 1; those of a class that has fewer are repeated, so that as many can be asked.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ddlib import seeding
from ddlib.data import readers
from ddlib.data.catalogue import CATALOGUE, OWN, SPLITS, own_info, own_path
from ddlib.data.datasets import NOTES, ImageSet, data_root, fingerprint
from ddlib.data.whitening import ValueSpace
from ddlib.store import files

TESTS = ("test", "val", "valid", "validation")
"""What the test images may be called, the first that is there: as folders of class folders, and as splits."""

SAVED = ("dataset_dict.json", "state.json")
"""Files by which a folder is known that Hugging Face's `datasets` saved."""

UNNAMED = re.compile(r"[^\w.-]+")
"""What may not stand in a name."""


class Sets(NamedTuple):
    """Training and test images in one value space, and what was done to make them, for people."""

    train: ImageSet
    test: ImageSet
    note: str


def from_folder(
    path: str | Path,
    *,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    holdout: float = 0.2,
    at_least: int = 1,
) -> Sets:
    """The images in a folder of class folders, which may lie under `train/` and the first of `TESTS` that holds some.

    Images of 8 or 16 bits in any mode, turned as their EXIF says; hidden files do not count.  A folder that Hugging
    Face's `datasets` saved is taken by `from_datasets`.

    Args:
        size: side, or (H, W), to which images are cropped about the centre and resized; None: all must be of one size.
        channels: 1, 3 or 4 (with transparency, else dropped); None: 3, or 1 where all images are grey.
        holdout, at_least: see above.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: classes that are empty or only in the test, an image that cannot be read or has another size.
    """
    _check(holdout, at_least)
    folder, pixels = Path(path).expanduser().absolute(), _reader(size, channels)
    if any((folder / file).is_file() for file in SAVED):
        return from_datasets(folder, size=size, channels=channels, holdout=holdout, at_least=at_least)
    folders = _folders(folder)
    nested = [each for each in folders if any(p.is_dir() and not readers.hidden(p) for p in each.iterdir())]
    if not nested and {each.name.lower() for each in folders} <= {"train", *TESTS}:
        raise ValueError(f"{folders[0]} holds no folders; it must hold one for each class, with its images")
    splits = {each.name.lower(): each for each in nested}  # a folder without folders is a class, whatever its name
    train = splits.get("train", folder)
    tests = [splits[name] for name in TESTS if name in splits and train != folder]
    classes, images, labels = {each.name for each in _folders(train)}, [], []
    for split in (train, *tests[:1]):
        pictures = [(path, each.name) for each in _folders(split) for path in readers.images_in(each)]
        paths, names = zip(*pictures, strict=True)
        if strangers := sorted({*names} - classes):
            raise ValueError(f"{split} has classes that {train} has not: {', '.join(strangers)}")
        with ThreadPoolExecutor() as pool:
            images.append(_stacked(pool.map(pixels, paths), paths))
        labels.append(np.array(names))
    return _sets(folder.name, _grey(images, channels), labels, None, holdout, at_least)


def from_arrays(
    images: Any,
    labels: Any,
    test_images: Any = None,
    test_labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    channels_last: bool | None = None,
    value_range: tuple[float, float] | None = None,
    holdout: float = 0.2,
    at_least: int = 1,
) -> Sets:
    """Images (B, C, H, W), (B, H, W, C) or (B, H, W) and labels (B,) or (B, 1) of numpy or torch.

    Args:
        test_images, test_labels: the test set; None: held out.
        class_names: of the labels 0..K-1; None: the labels themselves, numbers or texts, sorted.
        channels_last: whether the last axis is C; None: the one of the two that is 1, 3 or 4.
        value_range: what is black and white, since pixels have 8 bits here; None: 0 and 255 of integers, 0 and 1 of
            real numbers.
        holdout, at_least: see above.

    Raises:
        ValueError: shapes that do not fit or leave open where C is, values outside the range, labels without a name.
    """
    _check(holdout, at_least)
    if (test_images is None) != (test_labels is None):
        raise ValueError("test_images and test_labels go together: give both, or neither to hold some out")
    splits = [(images, labels)] + ([] if test_images is None else [(test_images, test_labels)])
    splits = [[each.detach().cpu() if isinstance(each, Tensor) else each for each in split] for split in splits]
    pixels = [_eight_bits(np.asarray(images), channels_last, value_range) for images, _ in splits]
    classes = [np.asarray(labels) for _, labels in splits]
    classes = [each[:, 0] if each.shape[1:] == (1,) else each for each in classes]
    return _sets("arrays", pixels, classes, class_names, holdout, at_least)


def from_datasets(
    train: Any,
    test: Any = None,
    *,
    size: int | Sequence[int] | None = None,
    channels: int | None = None,
    holdout: float = 0.2,
    at_least: int = 1,
) -> Sets:
    """Data sets of Hugging Face's `datasets`, or of torchvision: what has a length and gives (image, label) by index.

    Args:
        train: such a set, several by the names of their splits, or the folder in which `datasets` saved either; a set
            of `datasets` has one column `Image` and one `ClassLabel`.
        test: the test set; None: that of the splits, else held out.
        size, channels: see `from_folder`.
        holdout, at_least: see above.
    """
    _check(holdout, at_least)
    name, pixels = "images", _reader(size, channels)
    if isinstance(train, str | Path):
        load = readers.extra("datasets", str(train)).load_from_disk
        name, train = Path(train).name, load(str(Path(train).expanduser()))
    if isinstance(train, Mapping):
        if "train" not in train:
            raise ValueError(f"splits are {', '.join(train)}; one must be called train")
        test = next((train[split] for split in TESTS if split in train), None) if test is None else test
        train = train["train"]
    images, labels, names = [], [], []
    for source in (train,) if test is None else (train, test):
        of_hub = hasattr(source, "features")
        image, label = _columns(source) if of_hub else (0, 1)
        names.append(source.features[label].names if of_hub else _class_names(source))
        if names[-1] != names[0]:
            raise ValueError(f"the test set's classes are {names[-1]}, those of the training set {names[0]}")
        items = (source[i] for i in range(len(source)))
        try:
            pairs = [(pixels(item[image]), item[label]) for item in items]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"{type(source).__name__} does not give an image and a label by index: {error}") from error
        images.append(_stacked((picture for picture, _ in pairs), [f"image {i}" for i in range(len(pairs))]))
        labels.append(np.array([number for _, number in pairs]))
    return _sets(name, _grey(images, channels), labels, names[0], holdout, at_least)


def add(sets: Sets, name: str | None = None) -> str:
    """Write the pixels to the data folder, so that the set has a name wherever one is asked; returns it.

    Args:
        name: one that is not taken by other images; None: that of `sets`, which follows from the content.
    """
    train, name = sets.train, check_name(name or sets.train.name)
    about = {
        "title": sets.note,
        "shape": list(train.shape),
        "class_names": list(train.class_names),
        "mean": list(train.space.mean),
        "std": list(train.space.std),
        "sizes": [len(images) for images in (train, sets.test)],
        "fingerprints": [images.fingerprint for images in (train, sets.test)],
        "licence": "not stated: the images are the user's",
        "how_to_get": f"`ddlib data add {name} FOLDER`",
    }
    path, known = own_path(name, data_root()), own_info(name, data_root())
    if known and (known.fingerprints, known.class_names) != (tuple(about["fingerprints"]), train.class_names):
        raise ValueError(f"name={name!r} is taken by other images; choose another, or delete {path} first")
    if not known:
        tensors = {f"{s.split}.{part}": getattr(s, part) for s in (train, sets.test) for part in ("images", "labels")}
        files.write_tensors(path, tensors, about)
    return name


def check_name(name: str) -> str:
    """`name`, if a set can be added under it; else a ValueError."""
    if not name or UNNAMED.search(name) or name.startswith(".") or name in CATALOGUE:
        raise ValueError(f"name={name!r}; allowed: letters, digits, _, - and ., and no name that ddlib has itself")
    return name


def named(folder: str | Path, **settings: Any) -> str:
    """The name of the set in a folder, by `from_folder` and its settings; read and added only where files changed."""
    folder, root = Path(folder).expanduser().absolute(), data_root()
    path = root / NOTES / f"{files.key({OWN: str(folder), **settings})}.json"
    state = readers.state_of([folder], repr(sorted(settings.items())))
    try:
        note = files.read_json(path) or {}
    except files.Damaged:
        note = {}
    if note.get("state") != state or own_info(note["name"], root) is None:
        note = {"state": state, "name": add(from_folder(folder, **settings))}
        files.write_json(path, note)
    return note["name"]


def _check(holdout: float, at_least: int) -> None:
    """Refuse settings that no set can be made with."""
    if not (isinstance(holdout, float) and 0 < holdout < 1 and type(at_least) is int and at_least >= 1):
        raise ValueError(f"holdout={holdout!r}, at_least={at_least!r}; allowed: a share in (0, 1), and from 1 on")


# --- from pictures to pixels ------------------------------------------------------------------------------------------


def _reader(size: int | Sequence[int] | None, channels: int | None) -> Callable[[Any], Tensor]:
    """`_pixels` of this size and so many channels; others than are allowed are refused with a ValueError."""
    sides = (size, size) if isinstance(size, int) else size
    valid = isinstance(sides, Sequence) and len(sides) == 2 and all(type(side) is int and side >= 1 for side in sides)
    if sides is not None and not valid:
        raise ValueError(f"size={size!r}; allowed: a side in pixels, or the two of (H, W)")
    if channels is not None and channels not in readers.MODES:
        raise ValueError(f"channels={channels!r}; allowed: 1, 3, 4, or None for as many as there are colours")
    return partial(_pixels, mode=readers.MODES[channels or 3], size=sides)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    if folder.is_file():
        raise ValueError(f"folder='{folder}' is a file; it must be a folder of class folders: unpack an archive first")
    if not folder.is_dir():
        raise FileNotFoundError(f"folder='{folder}' does not exist; it must hold a folder of images for each class")
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not readers.hidden(path))
    if not folders:
        raise ValueError(f"{folder} holds no folders; it must hold one for each class, with its images")
    return folders


def _pixels(picture: Any, *, mode: str, size: Sequence[int] | None) -> Tensor:
    """A file, a picture of Pillow, or what `to_pil_image` takes, as (C, H, W) uint8."""
    if not isinstance(picture, Path | Image.Image):
        from torchvision.transforms.functional import to_pil_image  # takes seconds to import

        values = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else picture
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            if values.size and not (values.min() >= 0 and values.max() <= 1):
                limits = f"from {values.min():g} to {values.max():g}"
                raise ValueError(f"an image's values are {limits}; allowed: 0 to 1, as before normalising")
            values = np.round(values * 255).astype(np.uint8)
        picture = to_pil_image(torch.from_numpy(values) if isinstance(picture, Tensor) else values)
    picture = readers.picture(picture, mode) if isinstance(picture, Path) else readers.upright(picture, mode)
    if size is not None:
        picture = ImageOps.fit(picture, tuple(size[::-1]), Image.Resampling.BILINEAR)
    return readers.as_tensor(picture)


def _stacked(pictures: Iterable[Tensor], names: Sequence[Any]) -> Tensor:
    """Pictures (C, H, W) in one tensor; one of another size is refused by its name."""
    images = []
    for name, picture in zip(names, pictures, strict=True):
        images.append(picture)
        if picture.shape != images[0].shape:
            sizes = ["x".join(map(str, each.shape[1:])) for each in (picture, images[0])]
            raise ValueError(f"{name} is {sizes[0]}, {names[0]} {sizes[1]}; give a size to bring them to")
    if not images:
        raise ValueError("there are no images")
    return torch.stack(images)


def _grey(images: list[Tensor], channels: int | None) -> list[Tensor]:
    """One channel of images that are grey all, unless the number of channels was asked for."""
    grey = channels is None and all(bool((each == each[:, :1]).all()) for each in images)
    return [each[:, :1] for each in images] if grey else images


def _eight_bits(values: np.ndarray, channels_last: bool | None, value_range: tuple[float, float] | None) -> Tensor:
    """Arrays of any layout and range as (B, C, H, W) uint8."""
    if values.ndim == 3:
        values, channels_last = values[:, None], False
    if values.ndim != 4 or values.dtype.kind not in "uif" or not values.size:
        allowed = "(B, C, H, W), (B, H, W, C) or (B, H, W), none of them 0"
        raise ValueError(f"images are {values.shape} {values.dtype}; allowed: {allowed}")
    if channels_last is None:
        first, last = (values.shape[axis] in (1, 3, 4) for axis in (1, 3))
        if first == last:
            raise ValueError(f"images are {values.shape}: say channels_last, whether the last axis is the channels'")
        channels_last = last
    values = np.moveaxis(values, 3, 1) if channels_last else values
    low, high = value_range or ((0, 1) if values.dtype.kind == "f" else (0, 255))
    if not low < high:
        raise ValueError(f"value_range={low, high}; allowed: what is black, and a greater number for white")
    if not (values.min() >= low and values.max() <= high):
        limits = f"{values.dtype} from {values.min()} to {values.max()}"
        raise ValueError(
            f"images are {limits}; value_range={low, high} does not hold them: say what black and white is"
        )
    if values.dtype != np.uint8 or (low, high) != (0, 255):
        values = np.round((values - float(low)) * (255 / (high - low))).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(values))


# --- data sets of other libraries ------------------------------------------------------------------------------------


def _columns(source: Any) -> list[str]:
    """The columns of a set of `datasets` that hold pictures and classes."""
    kinds = {name: type(feature).__name__ for name, feature in source.features.items()}
    chosen = [name for kind in ("Image", "ClassLabel") for name in kinds if kinds[name] == kind]
    if sorted(kinds[name] for name in chosen) != ["ClassLabel", "Image"]:
        raise ValueError(
            f"columns are {kinds}; one must be Image and one ClassLabel: `class_encode_column` makes such of labels, "
            "`select_columns` chooses among several"
        )
    return chosen


def _class_names(source: Any) -> Sequence[str] | None:
    """The class names of a set of torchvision, or of that which it is a `Subset` of; None where it has none."""
    while not hasattr(source, "classes") and hasattr(source, "dataset"):
        source = source.dataset
    return getattr(source, "classes", None)


# --- from pixels to sets ----------------------------------------------------------------------------------------------


def _sets(
    name: str,
    images: list[Tensor],
    labels: list[np.ndarray],
    class_names: Sequence[str] | None,
    holdout: float,
    at_least: int,
) -> Sets:
    """The two sets of training images, and of test images where there are such, with their labels."""
    for pixels, classes in zip(images, labels, strict=True):
        if classes.shape != (len(pixels),) or pixels.shape[1:] != images[0].shape[1:]:
            raise ValueError(f"{tuple(pixels.shape)} images and {classes.shape} labels; one label an image, all alike")
    numbers, class_names = _numbered(labels, class_names)
    if len(class_names) < 2:
        raise ValueError(f"classes are {', '.join(class_names)}; allowed: two or more")
    notes = []
    if len(images) == 1:
        held = _held_out(numbers[0], holdout, len(class_names))
        images, numbers = ([each[0][~held], each[0][held]] for each in (images, numbers))
        notes.append(f"{holdout:.0%} of each class held out as the test set")
    if not len(images[-1]):
        raise ValueError("no class has a second image to hold out for the test; give a test set")
    counts = torch.bincount(numbers[0], minlength=len(class_names)).tolist()
    if empty := [name for name, count in zip(class_names, counts, strict=True) if not count]:
        raise ValueError(f"classes without a training image: {', '.join(empty)}")
    if few := [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < at_least]:
        rows = [torch.arange(len(numbers[0]))]
        for k, count in enumerate(counts):
            rows.append((numbers[0] == k).nonzero()[torch.arange(max(at_least - count, 0)) % count, 0])
        images[0], numbers[0] = images[0][torch.cat(rows)], numbers[0][torch.cat(rows)]
        notes.append(f"training images repeated, since at_least={at_least}: {', '.join(few)}")
    space = _space(images[0])
    prints = [fingerprint(*pair) for pair in zip(images, numbers, strict=True)]
    name = f"{UNNAMED.sub('-', name).strip('-.')}-{files.key({'of': prints, 'class_names': class_names})[:8]}"
    both = zip(SPLITS, images, numbers, strict=True)
    return Sets(*(ImageSet(name, *each, class_names, space) for each in both), "; ".join([name, *notes]))


def _numbered(labels: list[np.ndarray], names: Sequence[str] | None) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels as numbers 0..K-1, and the K names: those given, or the labels themselves, sorted."""
    values, places = np.unique(np.concatenate(labels), return_inverse=True)
    if names is None:
        ends = np.cumsum([len(each) for each in labels])[:-1]
        return [torch.from_numpy(each) for each in np.split(places, ends)], tuple(map(str, values))
    if values.dtype.kind not in "ui" or values[0] < 0 or values[-1] >= len(names):
        raise ValueError(f"labels are {values.dtype} from {values[0]} to {values[-1]}; allowed: 0 to {len(names) - 1}")
    return [torch.from_numpy(each.astype(np.int64)) for each in labels], tuple(map(str, names))


def _held_out(labels: Tensor, share: float, num_classes: int) -> Tensor:
    """Which images are for the test: of each class the share, at least one where there are two, drawn at random."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    for k in range(num_classes):
        rows = (labels == k).nonzero()[:, 0]
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held[rows[torch.randperm(len(rows), generator=seeding.generator(0, "holdout", k))[: max(count, 0)]]] = True
    return held


def _space(train: Tensor) -> ValueSpace:
    """Mean and deviation of pixels in [0, 1], channel by channel, to four decimals; of what never changes, 1."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in train.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(share @ levels)
        means.append(round(mean, 4))
        stds.append(round(float(share @ (levels - mean).square()) ** 0.5, 4) or 1.0)
    return ValueSpace(tuple(means), tuple(stds))
