"""What is known of each data set before it is read; the facts stand in catalogue.yaml."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ddlib.store import files

SPLITS = ("train", "test")

OWN = "own"
"""Layout of the sets that users add by `ddlib.data.own`, and the folder under that of the data where they lie."""

TINY_IMAGENET_URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
TINY_IMAGENET_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What is known of a data set before it is read."""

    name: str
    title: str
    shape: tuple[int, int, int]  # (C, H, W) of an image
    num_classes: int
    class_names: tuple[str, ...]  # in the order of the labels; empty where the data bring them (Tiny ImageNet)
    mean: tuple[float, ...]  # of pixels in [0, 1], subtracted channel by channel before they are divided by std
    std: tuple[float, ...]
    sizes: tuple[int | None, int | None]  # images in train and test; None: any number
    licence: str
    how_to_get: str  # where the files come from and how they must lie
    location: str  # the folder or file looked for under the data folder; empty for what scikit-learn brings
    layout: str  # how the files lie: a key of `ddlib.data.readers`
    downloadable: bool = False
    positions: tuple[int, ...] = ()  # for "folders", the classes as keys of `SYNSETS`, in the order of the labels
    part_of: str | None = None  # for "first", the set whose first `per_class` training images of each class these are
    per_class: int | None = None
    cropped: bool = False  # for "folders", images of any size are resized and cropped to `shape`
    fingerprints: tuple[str, str] | None = None  # of train and test as they should be, where known
    exact: bool = True  # pixels stand in the files as they are; else JPEG and WebP decoders differ in the last bit


_FILE = yaml.load(
    resources.files("ddlib.data").joinpath("catalogue.yaml").read_text(),
    Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)

SYNSETS: dict[int, tuple[str, str]] = {position: tuple(entry) for position, entry in _FILE["synsets"].items()}
"""Position among the 1,000 sorted synsets of ILSVRC-2012 -> (WordNet id, first name), for the classes used here."""

SUBSETS: dict[str, tuple[int, ...]] = {name: tuple(positions) for name, positions in _FILE["subsets"].items()}
"""ImageNet's subsets of ten classes: name -> positions in `SYNSETS`, in the order of the labels."""


def _info(name: str, facts: dict[str, Any]) -> DatasetInfo:
    """An entry of the catalogue; its classes are named by their positions where it does not name them itself."""
    facts = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    names = facts.pop("class_names", None)
    if names is None:
        names = tuple(SYNSETS[position][1] for position in facts["positions"])
    num_classes = facts.pop("num_classes", len(names))
    return DatasetInfo(name=name, class_names=names, num_classes=num_classes, **facts)


CATALOGUE: dict[str, DatasetInfo] = {name: _info(name, facts) for name, facts in _FILE["datasets"].items()}
"""Every data set by name."""

for _subset, _positions in SUBSETS.items():
    for _side in (128, 256):  # 50 validation images a class, and as many training images as there are
        CATALOGUE[f"{_subset}_{_side}"] = _info(
            f"{_subset}_{_side}",
            _FILE["of_subsets"]
            | {
                "title": f"{_subset}, ten ImageNet classes at {_side}x{_side}",
                "shape": (3, _side, _side),
                "positions": _positions,
                "sizes": (None, 50 * len(_positions)),
            },
        )


def own_path(name: str, root: Path) -> Path:
    """The file of a set that a user adds under this name."""
    return root / OWN / f"{name}.safetensors"


def own_names(root: Path) -> tuple[str, ...]:
    """The sets that a user has added under the data folder `root`, sorted."""
    return tuple(sorted(path.stem for path in own_path("*", root).parent.glob("[!.]*.safetensors")))


def own_info(name: str, root: Path) -> DatasetInfo | None:
    """What is known of a set that a user has added; None where there is none of this name."""
    path = own_path(name, root)
    about = files.read_about(path) if name in own_names(root) else None
    return about and _info(name, about | {"location": str(path), "layout": OWN})
