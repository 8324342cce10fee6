"""Data sets as one tensor of images: loading, value spaces, fingerprints.

    train = load("cifar10", "train", zca=True, device="cuda")
    images = train.take(train.class_indices[3][:10])        # (10, 3, 32, 32) float32 in train.space
    some = load("cifar10:3,7", "train")                     # cats and horses alone, as classes 0 and 1

`readers` reads the files, `catalogue` says what is known of them before.
"""

import contextlib
import functools
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ddlib import ROOT
from ddlib.data import readers
from ddlib.data.catalogue import CATALOGUE, SPLITS, DatasetInfo, own_info, own_names
from ddlib.data.whitening import PIXELS, ValueSpace, fit_zca, require_dimensions
from ddlib.store import files

Folder = str | Path | None
"""The data folder; None: `data_root()`."""

STATES = ("ok", "no reference", "differs", "missing")
"""States of a data set in a `Check`, from best to worst."""

NOTES = ".fingerprints"
"""Folder of notes on fingerprints that were computed, in that of the data."""

_CHUNK = 4096


def part_name(name: str, classes: Sequence[int]) -> str:
    """The name of the part of a data set that has these classes, in this order: "digits:3,7"."""
    return f"{name}:{','.join(map(str, classes))}"


def parsed_name(name: str) -> tuple[str, tuple[int, ...] | None]:
    """The data set's own name, and the classes of the part that `name` means; None: the whole set."""
    whole, part, listed = name.partition(":")
    if not part:
        return name, None
    try:
        return whole, tuple(int(text) for text in listed.split(","))
    except ValueError as error:
        raise ValueError(f"dataset {name!r}: {listed!r} is no list of classes, such as 3,7") from error


def check_classes(classes: Sequence[int], num_classes: int, name: str) -> None:
    """Refuse classes that are no part of a data set with a ValueError."""
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(num_classes)):
        raise ValueError(
            f"classes {tuple(classes)} of {name}; allowed: different ones in 0..{num_classes - 1}, at least one"
        )


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """SHA-256, 64 hexadecimal digits, of a set's values, shapes and types: the same on every device and machine."""
    digest = hashlib.sha256()
    for tensor in (images, labels):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data.cast("B"))
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set, whole in the memory of one device; what does not fit is refused with a ValueError.

    split: "train" or "test".
    images: (B, C, H, W), uint8 pixels or float32 already in `space`; B >= 1.
    labels: (B,) int64 in [0, K), on the same device.
    class_names: K names.
    space: what `take` returns images in.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    space: ValueSpace

    def __post_init__(self):
        images, labels, classes = self.images, self.labels, len(self.class_names)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        if images.ndim != 4 or not len(images) or images.dtype not in (torch.uint8, torch.float32):
            got = f"{tuple(images.shape)} {images.dtype}"
            raise ValueError(f"images must be (B, C, H, W) uint8 or float32, B >= 1, got {got}")
        if labels.shape != (len(images),) or labels.dtype != torch.int64 or labels.device != images.device:
            got = f"{tuple(labels.shape)} {labels.dtype} on {labels.device}"
            raise ValueError(f"labels must be ({len(images)},) int64 on {images.device}, got {got}")
        low, high = labels.aminmax()
        if low < 0 or high >= classes:
            raise ValueError(f"labels must lie in [0, {classes}), got {int(low)} to {int(high)}")
        self.space.require(self.shape)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return tuple(self.images.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where images and labels lie."""
        return self.images.device

    @functools.cached_property
    def class_indices(self) -> tuple[Tensor, ...]:
        """For each of the K classes the indices of its images: int64, ascending, on `device`."""
        counts = torch.bincount(self.labels, minlength=self.num_classes).tolist()
        return torch.argsort(self.labels, stable=True).split(counts)

    @functools.cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of images and labels.  A set from `load` has that of its uint8 pixels, whitened or not."""
        return fingerprint(self.images, self.labels)

    def take(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The images at `indices` (N,), integers on any device, in `space`: (N, C, H, W) float32, a copy."""
        rows = torch.as_tensor(indices, device=self.device)
        if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"indices must be (N,) integers, got {tuple(rows.shape)} {rows.dtype}")
        chosen = self.images.index_select(0, rows)
        return chosen if chosen.is_floating_point() else self.space.encode(chosen.float().div_(255))

    def to(self, device: str | torch.device) -> "ImageSet":
        """The same set on `device`."""
        images, labels = self.images.to(device), self.labels.to(device)
        moved = replace(self, images=images, labels=labels, space=self.space.to(device))
        return keep_fingerprint(moved, self.__dict__.get("fingerprint"))

    def of_classes(self, classes: Sequence[int]) -> "ImageSet":
        """The images of some classes alone, in the order of this set; `classes[k]` becomes class k.

        A whitened set is refused with a ValueError: its ZCA was fitted on all classes.
        """
        if self.space.zca is not None:
            raise ValueError(f"{self.name} is whitened by all of its classes; allowed: a part of normalised images")
        check_classes(classes, self.num_classes, self.name)
        places = torch.full((self.num_classes,), -1, device=self.device)
        places[torch.tensor(classes, device=self.device)] = torch.arange(len(classes), device=self.device)
        labels = places[self.labels]
        rows = (labels >= 0).nonzero()[:, 0]
        names = tuple(self.class_names[c] for c in classes)
        name = part_name(self.name, classes)
        return replace(self, name=name, images=self.images[rows], labels=labels[rows], class_names=names)


def keep_fingerprint(images: ImageSet, value: str | None) -> ImageSet:
    """Give a derived set the fingerprint of what it stands for; `dataclasses.replace` drops it again."""
    images.__dict__.update({"fingerprint": value} if value else {})
    return images


@dataclass(frozen=True)
class Check:
    """What `check` finds of a data set: `state`, one of `STATES`, its worse split's; a message for each split."""

    name: str
    state: str
    messages: Mapping[str, str]


def names() -> tuple[str, ...]:
    """The names that `load` takes everywhere; it takes those of `own_names(data_root())` besides."""
    return tuple(CATALOGUE)


def describe(name: str) -> DatasetInfo:
    """What is known of a data set, or of a part of one, without reading it; a ValueError where there is none."""
    whole, classes = parsed_name(name)
    info = _catalogued(whole)
    if classes is None:
        return info
    check_classes(classes, info.num_classes, info.name)
    return replace(
        info,
        name=name,
        num_classes=len(classes),
        class_names=tuple(info.class_names[c] for c in classes) if info.class_names else (),
        sizes=(None, None),
        fingerprints=None,
        positions=tuple(info.positions[c] for c in classes) if info.positions else (),
        downloadable=False,
    )


def _catalogued(name: str) -> DatasetInfo:
    info = CATALOGUE.get(name) or own_info(name, data_root())
    if info is None:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join((*CATALOGUE, *own_names(data_root())))}")
    return info


def data_root() -> Path:
    """The folder of all data: $DDLIB_DATA, or `data` in the repository."""
    return ROOT / Path(os.environ.get("DDLIB_DATA") or "data").expanduser()


def _folder(root: Folder) -> Path:
    return data_root() if root is None else Path(root).expanduser().absolute()


def load(
    name: str, split: str, *, zca: bool | str = False, root: Folder = None, device: str | torch.device = "cpu"
) -> ImageSet:
    """Load a split as one tensor: uint8 pixels, or float32 already whitened.

    ZCA is fitted on the training set, whichever split is asked for, with eps 0.1.  Values are checked against
    `DatasetInfo.fingerprints`; of JPEG or WebP files, whose decoders differ, other pixels are warned of.
    The last six sets, and sixteen parts, stay in memory and are returned again: treat their tensors as read-only.

    Args:
        name: one of `names()`, or some of the classes of one, as "cifar10:3,7", not whitened.
        split: "train" or "test".
        zca: whiten, True the normalised images (DataDAM), "pixels" the pixels as they are (DATM); 3x64x64 at most.
        root: the data folder; None: `data_root()`.
        device: where the set is to lie, and where ZCA is fitted.

    Raises:
        ValueError: an unknown name or split, or files that are truncated, corrupt or not those of this set.
        FileNotFoundError: the files are not there.
    """
    info, (whole, classes) = describe(name), parsed_name(name)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if zca not in (False, True, PIXELS):
        raise ValueError(f"zca must be False, True or {PIXELS!r}, got {zca!r}")
    if zca:
        require_dimensions(info.shape)
    arguments = _catalogued(whole), split, zca, _folder(root), torch.device(device)
    return _load(*arguments) if classes is None else _load_part(classes, *arguments)


@functools.lru_cache(maxsize=16)
def _load_part(classes, info, split, zca, root, device) -> ImageSet:
    return _load(info, split, zca, root, device).of_classes(classes)


@functools.lru_cache(maxsize=6)  # of a whitened set both splits, as they are, normalised and as pixels
def _load(info: DatasetInfo, split: str, zca: bool | str, root: Path, device: torch.device) -> ImageSet:
    if zca:
        plain, space = _load(info, split, False, root, device), _whitening(info, zca, root, device)
        images = torch.empty(plain.images.shape, device=device)
        in_space = replace(plain, space=replace(space, zca=None))
        for rows in torch.arange(len(plain)).split(_CHUNK):
            images[rows[0] : rows[-1] + 1] = space.zca.apply(in_space.take(rows))
        return keep_fingerprint(replace(plain, images=images, space=space), plain.fingerprint)
    images, difference = _read(info, split, root)
    if difference and info.exact:
        raise readers.corrupt(info, root, f"holds other data: {difference}")
    if difference:
        warnings.warn(f"{readers.location(info, root)}: {difference}", stacklevel=3)
    return images.to(device)


@functools.lru_cache(maxsize=6)
def _whitening(info: DatasetInfo, zca: bool | str, root: Path, device: torch.device) -> ValueSpace:
    """The space of a data set whitened, fitted on its training images."""
    train = _load(info, "train", False, root, device)
    space = ValueSpace((0.0,) * info.shape[0], (1.0,) * info.shape[0]) if zca == PIXELS else train.space
    return replace(space, zca=fit_zca(replace(train, space=space).take(torch.arange(len(train)))))


def _read(info: DatasetInfo, split: str, root: Path) -> tuple[ImageSet, str]:
    """The set as its files hold it, and how it differs from the reference; "": not at all, or there is none."""
    pixels = readers.read(info, split, root)
    space = ValueSpace(info.mean, info.std)
    images = ImageSet(info.name, split, pixels.images.contiguous(), pixels.labels, pixels.class_names, space)
    expected = info.fingerprints and info.fingerprints[SPLITS.index(split)]
    if expected in (None, images.fingerprint):
        return images, ""
    return images, f"the fingerprint of {split} is {images.fingerprint}, expected {expected}"


def fingerprint_of(name: str, split: str, root: Folder = None) -> str:
    """The fingerprint of a split as `load` gives it, and raises as it; data are read only where need be.

    The catalogue knows it of sets whose pixels stand in the files as they are.  Of others it is noted in the data
    folder, beside the sizes and times of the files that were read.
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
    """Read a data set and compare it with its reference; missing or damaged data are findings, not errors."""
    info, folder = _catalogued(name), _folder(root)
    states, messages = [], {}
    for split in SPLITS:
        try:
            images, difference = _read(info, split, folder)
        except (FileNotFoundError, ValueError) as error:
            states.append("missing" if isinstance(error, FileNotFoundError) else "differs")
            messages[split] = str(error)
        else:
            states.append("differs" if difference else "ok" if info.fingerprints else "no reference")
            messages[split] = difference or f"{len(images)} images, fingerprint {images.fingerprint}"
    return Check(info.name, max(states, key=STATES.index), messages)


def get(name: str, root: Folder = None) -> Check:
    """Download a data set that is not there, and give what `check` then finds; nothing there is written over.

    Raises:
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
