"""Data sets as one tensor of images: loading, value spaces, fingerprints.

    train = load("cifar10", "train", zca=True, device="cuda")
    images = train.take(train.class_indices[3][:10])        # (10, 3, 32, 32) float32 in train.space

`ddlib.sources` says what each set is, `ddlib.readers` how its files are read, `ddlib.zca` what a space is.
"""

import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ddlib import ROOT, readers
from ddlib.readers import fingerprint
from ddlib.sources import ALIASES, CATALOGUE, SPLITS, DatasetInfo
from ddlib.zca import PIXELS, ZCA, ValueSpace, fit_zca, require_dimensions

Folder = str | Path | None
"""The data folder; None: `data_root()`."""

STATES = ("ok", "no reference", "differs", "missing")
"""What `check` can find, from best to worst."""

_CHUNK = 4096
_WHITENINGS: dict[tuple, ZCA] = {}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A split of a data set, whole in the memory of one device.

    Args:
        name: of the data set.
        split: "train" or "test".
        images: (B, C, H, W), uint8 pixels or float32 already in `space`; B >= 1.
        labels: (B,) int64 in [0, K), on the same device.
        class_names: K names.
        space: what `take` returns images in.

    Raises:
        ValueError: an argument is not as above.
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
        zca, values = self.space.zca, images[0].numel()
        if len(self.space.mean) != images.shape[1] or (zca is not None and len(zca.mean) != values):
            raise ValueError(f"space must be for images of shape {self.shape}")

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
        """The chosen images in `space`.

        Args:
            indices: (N,) integers in [0, B), on any device; repeats are allowed.

        Returns:
            (N, C, H, W) float32 on `device`, a copy.

        Raises:
            ValueError: `indices` is not one-dimensional, or not of integers.
        """
        rows = torch.as_tensor(indices, device=self.device)
        if rows.ndim != 1 or rows.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"indices must be (N,) integers, got {tuple(rows.shape)} {rows.dtype}")
        chosen = self.images.index_select(0, rows)
        return chosen if chosen.is_floating_point() else self.space.encode(chosen.float().div_(255))

    def to(self, device: str | torch.device) -> "ImageSet":
        """The same set on `device`."""
        images, labels = self.images.to(device), self.labels.to(device)
        moved = replace(self, images=images, labels=labels, space=self.space.to(device))
        return _keep_fingerprint(moved, self.__dict__.get("fingerprint"))


@dataclass(frozen=True)
class Check:
    """What `check` found.

    Args:
        name: of the data set.
        state: the worst of its splits, one of `STATES`.
        messages: for each split, one line.
    """

    name: str
    state: str
    messages: Mapping[str, str]


def names() -> tuple[str, ...]:
    """The names that `load` takes; `ddlib.sources.ALIASES` has some more."""
    return tuple(CATALOGUE)


def describe(name: str) -> DatasetInfo:
    """What is known of a data set without reading it.

    Raises:
        ValueError: there is none of this name.
    """
    canonical = ALIASES.get(name, name)
    if canonical not in CATALOGUE:
        raise ValueError(f"unknown dataset {name!r}; known: {', '.join(names())}")
    return CATALOGUE[canonical]


def data_root() -> Path:
    """The folder of all data: $DDLIB_DATA, or `data` in the repository."""
    return _folder(os.environ.get("DDLIB_DATA") or ROOT / "data")


def load(
    name: str, split: str, *, zca: bool | str = False, root: Folder = None, device: str | torch.device = "cpu"
) -> ImageSet:
    """Load a split as one tensor: uint8 pixels, or float32 already whitened.

    ZCA is fitted on the real training set, whichever split is asked for, with eps 0.1.
    The last four sets stay in memory and are returned again: treat their tensors as read-only.

    Args:
        name: one of `names()`.
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
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if zca not in (False, True, PIXELS):
        raise ValueError(f"zca must be False, True or {PIXELS!r}, got {zca!r}")
    if zca:
        require_dimensions(info.shape)
    return _load(info, split, zca, _folder(root), torch.device(device))


def check(name: str, root: Folder = None) -> Check:
    """Read the data set `name` under `root`, as `load` takes them, and compare it with its reference.

    Returns:
        The finding; data that are missing or damaged are findings, not errors.

    Raises:
        ValueError: there is no data set of this name.
    """
    info, folder = describe(name), _folder(root)
    found = {split: _check_split(info, split, folder) for split in SPLITS}
    state = max((state for state, _ in found.values()), key=STATES.index)
    return Check(info.name, state, {split: message for split, (_, message) in found.items()})


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
    info, folder = describe(name), _folder(root)
    found = check(name, folder)
    if found.state != "missing":
        return found
    if not info.downloadable:
        raise FileNotFoundError(f"{info.name} is not under {folder} and is not for download: {info.how_to_get}")
    readers.download(info, folder)
    return check(name, folder)


def _folder(root: Folder) -> Path:
    return data_root() if root is None else Path(root).expanduser().absolute()


@functools.lru_cache(maxsize=4)
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
    space, shown = replace(before, zca=_WHITENINGS[key]), replace(images, space=before)
    whitened = torch.empty(images.images.shape, device=images.device)
    for rows in torch.arange(len(images)).split(_CHUNK):
        whitened[rows[0] : rows[-1] + 1] = space.zca.apply(shown.take(rows))
    return _keep_fingerprint(replace(images, images=whitened, space=space), images.fingerprint)


def _keep_fingerprint(images: ImageSet, value: str | None) -> ImageSet:
    """Give a set derived by `load` or `to` the fingerprint it stands for; `dataclasses.replace` drops it again."""
    images.__dict__.update({"fingerprint": value} if value else {})
    return images
