"""Data sets as one tensor of images: loading, value spaces, fingerprints.

    train = load("cifar10", "train", zca=True, device="cuda")
    images = train.take(train.class_indices[3][:10])        # (10, 3, 32, 32) float32 in train.space
    some = load("cifar10:3,7", "train")                     # cats and horses alone, as classes 0 and 1

`ddlib.data.catalogue` says what each set is, `ddlib.data.readers` how its files are read, and `ddlib.data.whitening`
what a space is.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddlib import ROOT
from ddlib.data import readers
from ddlib.data.catalogue import ALIASES, CATALOGUE, SPLITS, DatasetInfo
from ddlib.data.imageset import ImageSet, check_classes, fingerprint, keep_fingerprint, parsed_name, part_name
from ddlib.data.whitening import PIXELS, ZCA, ValueSpace, fit_zca, require_dimensions
from ddlib.store import files

__all__ = [
    "STATES", "ZCA", "Check", "Folder", "ImageSet", "ValueSpace", "check", "data_root", "describe", "fingerprint",
    "fingerprint_of", "fit_zca", "get", "load", "names", "parsed_name", "part_name",
]  # fmt: skip

Folder = str | Path | None
"""The data folder; None: `data_root()`."""

STATES = ("ok", "no reference", "differs", "missing")
"""States of a data set in a `Check`, from best to worst."""

NOTES = ".fingerprints"
"""The folder, in that of the data, of notes on fingerprints that were computed."""

_CHUNK = 4096
_WHITENINGS: dict[tuple, ZCA] = {}


@dataclass(frozen=True)
class Check:
    """The outcome of `check`.

    Args:
        name: of the data set.
        state: the worst of its splits, one of `STATES`.
        messages: for each split, one line.
    """

    name: str
    state: str
    messages: Mapping[str, str]


def names() -> tuple[str, ...]:
    """The names that `load` takes; `ddlib.data.catalogue.ALIASES` has some more."""
    return tuple(CATALOGUE)


def describe(name: str) -> DatasetInfo:
    """What is known of a data set, or of a part of one, without reading it.

    Raises:
        ValueError: there is none of this name, or it has not the classes of the part.
    """
    whole, classes = parsed_name(name)
    info = _catalogued(whole)
    return info if classes is None else _part(info, name, classes)


def _catalogued(name: str) -> DatasetInfo:
    canonical = ALIASES.get(name, name)
    if canonical not in CATALOGUE:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(names())}")
    return CATALOGUE[canonical]


def _part(info: DatasetInfo, name: str, classes: tuple[int, ...]) -> DatasetInfo:
    """What is known of some classes of a data set: how many images they have is not."""
    check_classes(classes, info.num_classes, info.name)
    return replace(
        info,
        name=name,
        num_classes=len(classes),
        class_names=tuple(info.class_names[c] for c in classes) if info.class_names else (),
        sizes=(None, None),
        fingerprints=None,
        positions=(),
        downloadable=False,
    )


def data_root() -> Path:
    """The folder of all data: $DDLIB_DATA, or `data` in the repository."""
    return _folder(os.environ.get("DDLIB_DATA") or ROOT / "data")


def load(
    name: str, split: str, *, zca: bool | str = False, root: Folder = None, device: str | torch.device = "cpu"
) -> ImageSet:
    """Load a split as one tensor: uint8 pixels, or float32 already whitened.

    ZCA is fitted on the real training set, whichever split is asked for, with eps 0.1.
    The last six sets, and sixteen parts, stay in memory and are returned again: treat their tensors as read-only.

    Args:
        name: one of `names()`, or some of the classes of one, as "cifar10:3,7" (see `part_name`), not whitened.
        split: "train" or "test".
        zca: whiten, True the normalised images (DataDAM), "pixels" the pixels as they are (DATM); 3x64x64 at most.
        root: the data folder; None: `data_root()`.
        device: where the set is to lie, and where ZCA is fitted.

    Returns:
        The set, its values checked against `DatasetInfo.fingerprints` where these are known.

    Raises:
        ValueError: an unknown name or split, or files that are truncated, corrupt or not those of this set.
        FileNotFoundError: the files are not there.

    Warns:
        UserWarning: JPEG or WebP files were decoded to other pixels than those of reference.
    """
    info = describe(name)
    whole, classes = parsed_name(name)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if zca not in (False, True, PIXELS):
        raise ValueError(f"zca must be False, True or {PIXELS!r}, got {zca!r}")
    if zca:
        require_dimensions(info.shape)
    arguments = _catalogued(whole), split, zca, _folder(root), torch.device(device)
    return _load(*arguments) if classes is None else _load_part(classes, *arguments)


def fingerprint_of(name: str, split: str, root: Folder = None) -> str:
    """The fingerprint of a split as `load` gives it, and of the data that are there: they are read only where need be.

    Where the pixels stand in the files as they are, the catalogue knows it, and `load` refuses other data.  What had to
    be read is noted in the data folder, beside the sizes and times of the files that it was read from.

    Raises:
        ValueError, FileNotFoundError: as `load`, where the data are read.
    """
    info = describe(name)
    if split in SPLITS and info.exact and info.fingerprints:
        return info.fingerprints[SPLITS.index(split)]
    return _fingerprint_read(name, split, _folder(root))


@functools.cache
def _fingerprint_read(name: str, split: str, root: Path) -> str:
    """The fingerprint of data whose catalogue does not know it, from the note about them or from the data."""
    state = readers.state(_catalogued(parsed_name(name)[0]), root)
    if state is None:  # quick to read, or not there
        return load(name, split, root=root).fingerprint
    path = root / NOTES / f"{files.key({'name': name, 'split': split})}.json"
    with contextlib.suppress(files.Damaged, OSError):
        note = files.read_json(path) or {}
        if note.get("state") == state:
            return note["fingerprint"]
    value = load(name, split, root=root).fingerprint
    with contextlib.suppress(OSError):  # a data folder may be read-only
        files.write_json(path, {"name": name, "split": split, "state": state, "fingerprint": value})
    return value


def check(name: str, root: Folder = None) -> Check:
    """Read the data set `name` under `root`, as `load` takes them, and compare it with its reference.

    Returns:
        The finding; data that are missing or damaged are findings, not errors.

    Raises:
        ValueError: there is no data set of this name.
    """
    info, folder = _catalogued(name), _folder(root)
    results = {split: _check_split(info, split, folder) for split in SPLITS}
    state = max((state for state, _ in results.values()), key=STATES.index)
    return Check(info.name, state, {split: message for split, (_, message) in results.items()})


def get(name: str, root: Folder = None) -> Check:
    """Download a data set that is not there; nothing that is there is written over.

    Args:
        name: one of `names()`.
        root: the data folder; None: `data_root()`.

    Returns:
        What `check` finds afterwards.

    Raises:
        ValueError: there is no data set of this name.
        FileNotFoundError: it cannot be downloaded; the message says where it comes from and how it must lie.
        OSError: the download failed.
    """
    info, folder = _catalogued(name), _folder(root)
    present = check(name, folder)
    if present.state != "missing":
        return present
    if not info.downloadable:
        raise FileNotFoundError(f"{info.name} is not under {folder} and is not for download: {info.how_to_get}")
    readers.download(info, folder)
    return check(name, folder)


def _folder(root: Folder) -> Path:
    return data_root() if root is None else Path(root).expanduser().absolute()


@functools.lru_cache(maxsize=16)
def _load_part(classes: tuple[int, ...], *arguments: Any) -> ImageSet:
    return _load(*arguments).of_classes(classes)


@functools.lru_cache(maxsize=6)  # of a whitened set both splits, as they are, normalised and as pixels
def _load(info: DatasetInfo, split: str, zca: bool | str, root: Path, device: torch.device) -> ImageSet:
    if zca:
        train = _load(info, "train", False, root, device)
        return _whiten(_load(info, split, False, root, device), train, as_pixels=zca == PIXELS)
    images = _read(info, split, root)
    difference = _difference(info, images)
    if difference and info.exact:
        raise readers.corrupt(info, f"{readers.location(info, root)} holds other data: {difference}")
    if difference:
        warnings.warn(f"{readers.location(info, root)}: {difference}", stacklevel=3)
    return images.to(device)


def _read(info: DatasetInfo, split: str, root: Path) -> ImageSet:
    pixels = readers.read(info, split, root)
    space = ValueSpace(info.mean, info.std)
    return ImageSet(info.name, split, pixels.images.contiguous(), pixels.labels, pixels.class_names, space)


def _difference(info: DatasetInfo, images: ImageSet) -> str | None:
    expected = info.fingerprints and info.fingerprints[SPLITS.index(images.split)]
    if expected in (None, images.fingerprint):
        return None
    return f"the fingerprint of {images.split} is {images.fingerprint}, expected {expected}"


def _check_split(info: DatasetInfo, split: str, root: Path) -> tuple[str, str]:
    try:
        images = _read(info, split, root)
    except FileNotFoundError as error:
        return "missing", str(error)
    except ValueError as error:
        return "differs", str(error)
    difference = _difference(info, images)
    state = "differs" if difference else "ok" if info.fingerprints else "no reference"
    return state, difference or f"{len(images)} images, fingerprint {images.fingerprint}"


def _whiten(images: ImageSet, train: ImageSet, *, as_pixels: bool) -> ImageSet:
    """The set in the ZCA space of `train`; it keeps the fingerprint of its pixels."""
    before = ValueSpace((0.0,) * images.shape[0], (1.0,) * images.shape[0]) if as_pixels else images.space
    key = (train.fingerprint, before.mean, str(train.device))
    if key not in _WHITENINGS:
        _WHITENINGS[key] = fit_zca(replace(train, space=before).take(torch.arange(len(train))))
    space, plain = replace(before, zca=_WHITENINGS[key]), replace(images, space=before)
    whitened = torch.empty(images.images.shape, device=images.device)
    for rows in torch.arange(len(images)).split(_CHUNK):
        whitened[rows[0] : rows[-1] + 1] = space.zca.apply(plain.take(rows))
    return keep_fingerprint(replace(images, images=whitened, space=space), images.fingerprint)
