"""Distilled sets as they are found: the files that others released, and every form that `ddlib.export` writes.

    theirs = read_set("images_best.pt", dataset="cifar10", space="zca_pixels")

docs/distilled-sets.md has the table of layouts.  Nothing but tensors, numbers and texts is unpickled.
"""

import json
import pickle
import re
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ddlib.data import datasets, readers, synthetic
from ddlib.data.augmentation import strategy_for
from ddlib.data.catalogue import SYNSETS, DatasetInfo
from ddlib.data.synthetic import SyntheticSet, SyntheticStream, is_probabilities
from ddlib.data.whitening import PIXELS, ZCA, ValueSpace

SPACES = {"pixels": False, "normalised": False, "zca": True, "zca_pixels": PIXELS}
"""What `space` may be: pixels in [0, 1] or [0, 255], normalised, or whitened after -> `zca` of `datasets.load`."""

LABELS = ("classes", "probabilities", "logits")
"""What `labels` may be."""

SMOOTH, CONTRAST = 0.75, 0.7
"""Correlation of neighbouring pixels and standard deviation from which images are taken for normalised pictures.

Real ones of CIFAR-10, MNIST, FashionMNIST and digits have 0.83 to 0.93 and 1.0 to 1.3, whitened ones 0.2 to 0.8 and
0.26 to 0.63.
"""

PATTERNS = (
    *("synthetic.safetensors", "set.npz", "set.pt", "data/*.parquet"),
    *("images_best.pt", "images.pt", "data.pt", "data_best.pt", "**/res_*.pt"),
)
"""Files that hold the set of a folder; a folder that has none of them holds pictures."""

NAMES = {"images": ("images", "image", "x", "data"), "labels": ("labels", "label", "y", "targets", "target")}
"""What the entries of a file may be called, the first that is there."""

COMPANIONS = {"labels": "labels", "lr": "learning_rate"}
"""How files begin that go with images -> what they hold."""


def read_set(
    *paths: str | Path,
    dataset: str,
    space: str | None = None,
    labels: str | None = None,
    by: str | None = None,
    factor: int = 1,
    experiment: int = 0,
) -> SyntheticSet:
    """Read a distilled set from its files, and say in one line what it was taken for: `provenance["read_as"]`.

    Args:
        paths: one file or folder of a layout of that table, and perhaps `labels*` and `lr*` (.pt, .npy), which are
            otherwise looked for beside `images*.pt`.
        dataset: whose classes and test images it is for, a name of `datasets.load`.
        space: one of `SPACES`; None: what the file states, or what the values say.
        labels: one of `LABELS`; None: classes where they are integers, probabilities where they are not negative and
            sum to 1, else logits.
        by: the data set by whose mean and std images are normalised; None: `dataset`.
        factor: images along each side of a stored one (IDC), which are cut out and enlarged bilinearly.
        experiment: which of the sets of a `res_*.pt`.

    Returns:
        The set, in the space of `dataset` normalised or whitened.  Its `provenance` says under "stored" how many images
        the files hold.

    Raises:
        FileNotFoundError: a file, or the real data that whitening is fitted on, is not there.
        ValueError: the files are of no layout of that table, do not fit the data set, or may be understood in several
            ways; the message names the argument to give.
    """
    file, companions = _files([Path(path) for path in paths])
    info = datasets.describe(dataset)
    for name, value, known in (("space", space, SPACES), ("labels", labels, LABELS)):
        if value is not None and value not in known:
            raise ValueError(f"{name}={value!r}; it must be one of {', '.join(known)}")
    if file.suffix == ".safetensors":
        return _ours(synthetic.load(file), file, info)
    entries = _entries(file, info, experiment, labelled="labels" in companions)
    entries |= {name: _as_tensor(load_plain(path)) for name, path in companions.items()}
    card = json.loads(str(entries.get("card", "{}")))
    images = _laid_out(entries["images"], info, file)
    targets, kind = _labels(entries.get("labels"), labels, len(images), info)
    stored, rate = len(images), entries.get("learning_rate", card.get("learning_rate"))
    rate = None if rate is None else float(rate)
    if factor > 1:
        images, targets = unpacked(images, factor), targets.repeat_interleave(factor**2, 0)
    kind += entries.get("order", "")
    target, how = _stated_space(entries, card), "as the file states"
    if target is not None and (space is not None or by is not None):
        raise ValueError(f"space={space!r}, by={by!r}: {file} states its own value space; leave them out")
    if target is None or file.is_dir():  # pictures hold pixels, and state what networks are to see
        images, target, how = _in_space(images, space, info, by, target)
    line = f"{file}: {stored} images of {info.name}; {target.name}, {how}; {kind}"
    line += f"; learning rate {rate:g}" if rate else ""
    return SyntheticSet(
        images=images,
        labels=targets,
        class_names=info.class_names or datasets.load(dataset, "test").class_names,
        space=target,
        strategy=card.get("augmentation") or strategy_for(dataset),
        learning_rate=rate,
        provenance={"files": [str(path) for path in paths], "read_as": line, "stored": stored},
    )


def _ours(ours: SyntheticSet | SyntheticStream, file: Path, info: DatasetInfo) -> SyntheticSet:
    """What `synthetic.save` wrote; a stream is drawn once, by seed 0."""
    if isinstance(ours, SyntheticStream):
        ours = ours.frozen(0)
    if (ours.shape, ours.num_classes) != (info.shape, info.num_classes):
        raise ValueError(f"{file} holds images of {ours.shape} and {ours.num_classes} classes, not of {info.name}")
    line = f"{file}: {len(ours)} images of {info.name}; all else as the file states"
    return replace(ours, provenance={**ours.provenance, "read_as": line, "stored": len(ours)})


# --- files ----------------------------------------------------------------------------------------------------------


def _files(paths: list[Path]) -> tuple[Path, dict[str, Path]]:
    """The file of the images, or the folder of pictures; and `COMPANIONS` by name, given or lying beside `images*`."""
    given = {name: path for path in paths for start, name in COMPANIONS.items() if path.stem.startswith(start)}
    main = [path for path in paths if path not in given.values()]
    if len(main) != 1 or len(given) + 1 < len(paths):
        names = ", ".join(map(str, paths)) or "none"
        raise ValueError(f"paths are {names}; allowed: one file or folder of images, and one labels* and lr* at most")
    if missing := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(f"{missing[0]} does not exist")
    (file,) = main
    if file.is_dir() and (found := next(filter(None, (sorted(file.glob(each)) for each in PATTERNS)), None)):
        if len(found) > 1:
            raise ValueError(f"{file} holds {len(found)} sets; name one of {', '.join(map(str, found[:4]))}")
        (file,) = found
    if file.name.startswith("images") and not file.is_dir():
        beside = {name: file.with_name(file.name.replace("images", start, 1)) for start, name in COMPANIONS.items()}
        given = {name: path for name, path in beside.items() if path.exists()} | given
    return file, given


def _entries(file: Path, info: DatasetInfo, experiment: int, *, labelled: bool) -> dict[str, Any]:
    """What a file or a folder of pictures holds, by name: "images", and of "labels" and what we write what it has."""
    if file.is_dir():
        return _read_pictures(file, info, labelled=labelled)
    if file.suffix == ".parquet":
        return _read_parquet(file)
    if file.suffix == ".npz":
        return _named(load_plain(file), file)
    if file.suffix in (".pt", ".pth"):
        return _from_torch(load_plain(file), file, experiment)
    raise ValueError(f"{file}; allowed: a folder, .pt, .pth, .npz, .parquet or .safetensors")


def load_plain(path: Path) -> Any:
    """Tensors, arrays, numbers and texts of a file of torch or numpy; others, and damaged ones, are a ValueError."""
    scalar = np._core.multiarray.scalar
    rebuild = np._core.multiarray._reconstruct
    known = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "u1", "bool"))]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # before numpy 2, and from it on
        known += [(scalar, f"{module}.scalar"), (rebuild, f"{module}._reconstruct")]
    try:
        if path.suffix in (".npy", ".npz"):
            arrays = np.load(path)
            if isinstance(arrays, np.ndarray):
                return arrays if path.suffix == ".npy" else {"images": arrays}
            with arrays:
                return dict(arrays)
        with torch.serialization.safe_globals(known):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = refused[1] if refused else type(error).__name__
        raise ValueError(f"{path} holds more than tensors, numbers and texts, or is not whole: {reason}") from error


def _from_torch(content: Any, file: Path, experiment: int) -> dict[str, Any]:
    """Of a `.pt`: images alone, a pair with labels, a list of such pairs under "data", or a dict with names."""
    if isinstance(content, Mapping) and isinstance(content.get("data"), list | tuple):
        sets = content["data"]
        if not 0 <= experiment < len(sets):
            raise ValueError(f"experiment={experiment}; {file} holds those from 0 to {len(sets) - 1}")
        content = sets[experiment]
    if isinstance(content, Mapping):
        return _named(content, file)
    pair = content if isinstance(content, list | tuple) else [content]
    if len(pair) not in (1, 2) or not all(isinstance(part, Tensor | np.ndarray) for part in pair):
        raise ValueError(f"{file} holds {type(content).__name__}; allowed: images, or images and labels")
    return dict(zip(("images", "labels"), map(_as_tensor, pair), strict=False))


def _named(entries: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Entries with those of `NAMES` as "images" and "labels"; others are refused where none of them is the labels."""
    named = {}
    for name, known in NAMES.items():
        if found := [each for each in known if each in entries]:
            named[name] = _as_tensor(entries[found[0]])
    others = {*entries} - {*NAMES["images"], "learning_rate"}
    if "images" not in named or ("labels" not in named and others):
        allowed = "; ".join(f"{name} ({', '.join(known[1:])})" for name, known in NAMES.items())
        raise ValueError(f"{file} holds {', '.join(map(str, entries)) or 'nothing'}; allowed: {allowed}")
    return dict(entries) | named


def _stated_space(entries: Mapping[str, Any], card: Mapping[str, Any]) -> ValueSpace | None:
    """The value space that the card of one of our exports states; None where there is no card."""
    if not (stated := card.get("value_space")):
        return None
    zca = None
    if "zca_mean" in entries:
        tensors = (_as_tensor(entries[f"zca_{name}"]) for name in ("mean", "whitening", "unwhitening"))
        zca = ZCA(*tensors, stated["zca_eps"])
    return ValueSpace(tuple(stated["mean"]), tuple(stated["std"]), zca)


def _read_parquet(file: Path) -> dict[str, Any]:
    """Our own Parquet file."""
    table = readers.extra("pyarrow.parquet", str(file)).read_table(file)
    if "tensor" not in table.column_names:
        raise ValueError(f"{file} has the columns {', '.join(table.column_names)}; allowed: tensor, as we export it")
    labels = table["logits" if "logits" in table.column_names else "label"].to_pylist()
    columns = {"images": torch.tensor(table["tensor"].to_pylist()), "labels": torch.tensor(labels)}
    return _beside(file.parent.parent) | columns


def _read_pictures(folder: Path, info: DatasetInfo, *, labelled: bool) -> dict[str, Any]:
    """Pictures in class folders, or with the soft labels of one of our exports, `labels.json`.

    labelled: whether their labels are given, in the order of paths; the folders are then no classes.
    """
    root, table = folder / "images" if (folder / "images").is_dir() else folder, folder / "labels.json"
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not readers.hidden(path))
    labels, order = None, ""
    if table.is_file():  # a class whose label is no image's largest has an empty folder
        logits = json.loads(table.read_text(encoding="utf-8"))["logits"]
        paths, labels = [folder / name for name in logits], torch.tensor([*logits.values()])
    elif labelled:
        paths = [path for each in folders for path in readers.images_in(each)]
    else:
        folders, order = _by_class(folders, root, info)
        groups = [readers.images_in(path) for path in folders]
        paths = [path for group in groups for path in group]
        labels = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
    entries = {"images": readers.decode(paths, info.shape), "labels": labels, "order": order}
    return _beside(folder) | entries


def _by_class(folders: list[Path], root: Path, info: DatasetInfo) -> tuple[list[Path], str]:
    """The folders in the order of the classes, and a phrase that says how it is known; else a ValueError."""
    if len(folders) != info.num_classes:
        raise ValueError(f"{root} holds {len(folders)} class folders, expected {info.num_classes} of {info.name}")
    wnids = [SYNSETS[position][0] for position in info.positions]
    if info.layout == "tiny":
        wnids = sorted(path.name for path in folders if re.fullmatch(r"n\d{8}", path.name))
    plain = {_plain(path.name): path for path in folders}
    for names, how in ((info.class_names, "names"), (wnids, "WordNet ids")):
        if sorted(map(_plain, names)) == sorted(plain):
            return [plain[_plain(name)] for name in names], f", by the folders' {how}"
    numbers = {int(first[0]): path for path in folders if (first := re.search(r"\d+", path.name))}
    if sorted(numbers) != [*range(len(folders))]:
        few = ", ".join(path.name for path in folders[:4])
        raise ValueError(f"{root} holds {few}, ...; allowed: names or WordNet ids of classes, or numbers from 0 on")
    return [numbers[number] for number in sorted(numbers)], ", by the folders' numbers"


def _plain(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]", "", name).casefold()


def _beside(folder: Path) -> dict[str, Any]:
    """What lies beside the images of one of our exports: the entries of `space.npz`, and `card.json` as "card"."""
    space, card = folder / "space.npz", folder / "card.json"
    entries = load_plain(space) if space.is_file() else {}
    return entries | ({"card": card.read_text(encoding="utf-8")} if card.is_file() else {})


def _as_tensor(values: Any) -> Tensor:
    try:
        return values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"images, labels or rates are {type(values).__name__}: {error}") from error


# --- what the values are --------------------------------------------------------------------------------------------


def _laid_out(images: Tensor, info: DatasetInfo, file: Path) -> Tensor:
    """The images (N, C, H, W), of (N, H, W, C) or, of one channel, (N, H, W) too."""
    channels, height, width = info.shape
    if images.shape[1:] == (height, width):
        images = images[:, None]
    elif images.shape[1:] == (height, width, channels) != info.shape:
        images = images.permute(0, 3, 1, 2)
    if images.shape[1:] != info.shape:
        raise ValueError(f"{file} holds images of {tuple(images.shape[1:])}; allowed: {info.shape}, as {info.name} has")
    if not images.isfinite().all():
        raise ValueError(f"{file} holds images with values that are not finite; allowed: finite ones")
    return images.contiguous()


def unpacked(images: Tensor, factor: int) -> Tensor:
    """The `factor`^2 parts of each image (N, C, H, W), row by row, enlarged to H x W: (N factor^2, C, H, W) float32.

    Where `factor` does not divide a side, 0.5 is added below and to the right, as IDC does (Kim et al. 2022): pixels.
    """
    height, width = images.shape[2:]
    padded = functional.pad(images.float(), (0, -width % factor, 0, -height % factor), value=0.5)
    rows = [part for row in padded.chunk(factor, 2) for part in row.chunk(factor, 3)]
    parts = torch.stack(rows, 1).flatten(0, 1)
    return functional.interpolate(parts, (height, width), mode="bilinear", align_corners=False)


def smoothness(images: Tensor) -> float:
    """Correlation of pixels with their right and lower neighbours, over all images (N, C, H, W) less channel means."""
    centred = images.double() - images.double().mean((0, 2, 3), keepdim=True)
    products = [centred[..., :-1] * centred[..., 1:], centred[..., :-1, :] * centred[..., 1:, :]]
    return float(torch.stack([product.mean() for product in products]).mean() / centred.square().mean())


def recognised(images: Tensor) -> str:
    """The space of images by their values: "pixels" or "normalised"; a ValueError where neither is certain.

    Pixels lie in [0, 1] or [0, 255].  Normalised pictures are smooth and of full contrast (`SMOOTH`, `CONTRAST`),
    partly negative, and not within [-1, 1]; whitened ones and noise cannot be told from one another.
    """
    low, high, inside = float(images.min()), float(images.max()), ((images > -0.01) & (images < 1.01)).double().mean()
    if white(images) == 255 or (white(images) == 1 and inside > 0.99):
        return "pixels"
    smooth, spread = smoothness(images), float(images.double().std())
    if smooth >= SMOOTH and spread >= CONTRAST and low < 0 and max(-low, high) > 1.01:
        return "normalised"
    raise ValueError(
        f"images lie in [{low:.2f}, {high:.2f}], their deviation is {spread:.2f}, and neighbouring pixels correlate by "
        f"{smooth:.2f}: they may be normalised or whitened; give space=normalised (DC, DSA, DM), zca_pixels (MTT, "
        "TESLA, FTD, DATM where they whiten), zca (DataDAM) or pixels; bring those of another range to [0, 1] first"
    )


def white(images: Tensor) -> int | None:
    """What is white where images are pixels: 1 (up to half of it beyond either end) or 255; None in other ranges."""
    low, high = float(images.min()), float(images.max())
    if low >= -0.5 and high <= 1.5:
        return 1
    return 255 if low >= 0 and 16 < high <= 255 else None


def _in_space(
    images: Tensor, space: str | None, info: DatasetInfo, by: str | None, target: ValueSpace | None
) -> tuple[Tensor, ValueSpace, str]:
    """The images in a space of the data set (of pictures in `target`, where it is given), and how theirs is known."""
    theirs, ours = datasets.describe(by) if by else info, ValueSpace(info.mean, info.std)
    how = "told" if space else "recognised by their values"
    space = space or recognised(images)
    if space != "pixels" and images.dtype == torch.uint8:
        raise ValueError(f"space={space!r}, and images are integers from 0 to 255; allowed: pixels")
    if by and space != "normalised":
        raise ValueError(f"by={by!r}, and images are {space}, {how}; allowed: with normalised ones")
    if space == "pixels":
        target, full = target or ours, white(images)
        if full is None:
            limits = f"[{images.min():g}, {images.max():g}]"
            raise ValueError(f"space='pixels', and images lie in {limits}; allowed: [0, 1] or [0, 255]")
        return target.encode(images.float() / full), target, f"from pixels in [0, {full}], {how}"
    images = images.float()
    if SPACES[space]:
        return images, datasets.load(info.name, "test", zca=SPACES[space]).space, f"by the ZCA of {info.name}, {how}"
    if (theirs.mean, theirs.std) != (info.mean, info.std):
        images = ours.encode(ValueSpace(theirs.mean, theirs.std).decode(images))
    return images, ours, f"by mean and std of {theirs.name}, {how}"


def _labels(labels: Tensor | None, kind: str | None, count: int, info: DatasetInfo) -> tuple[Tensor, str]:
    """Classes (N,) int64 or logits (N, K) float32, and a phrase that says what the labels were taken for."""
    if labels is None:
        each, rest = divmod(count, info.num_classes)
        if rest:
            raise ValueError(f"{count} images without labels are not as many of each of {info.num_classes} classes")
        return torch.arange(info.num_classes).repeat_interleave(each), "no labels: class by class"
    if not labels.ndim:
        raise ValueError(f"labels are one number, {labels.item()}; allowed: one an image, or a row each")
    labels, how = labels.squeeze(1) if labels.shape[1:] == (1,) else labels, "told" if kind else "recognised"
    kind = kind or _kind(labels)
    if kind == "classes":
        classes = labels.argmax(1) if labels.ndim == 2 else labels.long()
        if labels.ndim == 1 and not torch.equal(classes.to(labels.dtype), labels):
            raise ValueError(f"labels of shape {tuple(labels.shape)} are no classes; allowed: integers, or a row each")
        if len(classes) != count or classes.min() < 0 or classes.max() >= info.num_classes:
            theirs = f"{len(classes)} labels from {classes.min()} to {classes.max()} for {count} images"
            raise ValueError(f"{theirs}; allowed: one an image, from 0 to {info.num_classes - 1} as {info.name} has")
        return classes, f"labels: classes, {how}"
    if labels.shape != (count, info.num_classes):
        raise ValueError(f"labels={kind!r} of shape {tuple(labels.shape)}; allowed: ({count}, {info.num_classes})")
    labels = labels.float()
    if kind == "probabilities":
        if not is_probabilities(labels):
            raise ValueError("labels='probabilities', and theirs are negative or do not sum to 1; allowed: logits")
        labels = labels.clamp_min(torch.finfo(torch.float32).tiny).log()
    return labels, f"labels: {kind}, {how}"


def _kind(labels: Tensor) -> str:
    """One of `LABELS` by the values; a ValueError where that is not certain."""
    if labels.ndim == 1:
        return "classes"
    if is_probabilities(labels):
        return "classes" if bool((labels.amax(1) == 1).all()) else "probabilities"
    if labels.min() >= 0 and labels.max() <= 1:
        raise ValueError("labels lie in [0, 1] and do not sum to 1; give labels=classes or labels=logits")
    return "logits"
