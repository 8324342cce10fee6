"""Data sets: value spaces, image sets, the split of the digits, and every layout of files read from a small copy."""

import hashlib
import operator
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import sklearn.datasets
import torch
import torchvision
from PIL import Image
from refusals import refuses

import ddlib
from ddlib.data import datasets, readers
from ddlib.data.catalogue import CATALOGUE, SUBSETS, SYNSETS
from ddlib.data.datasets import ImageSet, ValueSpace, check, describe, fingerprint, fit_zca, get, load
from ddlib.data.whitening import ZCA

SPACE = ValueSpace((0.5,), (0.25,))
IMAGENETTE = [
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
]  # fmt: skip


def small_set(**changes):
    pixels = torch.arange(6 * 4, dtype=torch.uint8).view(6, 1, 2, 2) * 10
    fields = dict(
        name="small", split="train", images=pixels, labels=torch.tensor([1, 0, 2, 1, 0, 1]),
        class_names=("a", "b", "c"), space=SPACE,
    )  # fmt: skip
    return ImageSet(**(fields | changes))


def shrink(monkeypatch, name, **changes):
    """Let the catalogue expect a small copy of a data set, without reference unless one is given."""
    info = replace(describe(name), **({"fingerprints": None} | changes))
    monkeypatch.setitem(CATALOGUE, name, info)
    return info


# --- ZCA ---------------------------------------------------------------------------------------------------------


def test_zca_of_a_diagonal_covariance_by_hand():
    a, b, eps = 3.0, 0.5, 0.1
    points = torch.tensor([[a, 0], [-a, 0], [0, b], [0, -b]]) + torch.tensor([7.0, -2.0])
    images = points.view(4, 1, 1, 2).requires_grad_()
    fitted = fit_zca(images.detach(), eps=eps)
    variances = torch.tensor([2 * a * a / 3, 2 * b * b / 3])  # unbiased: divided by 4 - 1
    torch.testing.assert_close(fitted.mean, torch.tensor([7.0, -2.0]))
    torch.testing.assert_close(fitted.whitening, torch.diag((variances + eps) ** -0.5))
    torch.testing.assert_close(fitted.unwhitening, torch.diag((variances + eps) ** 0.5))
    back = fitted.invert(fitted.apply(images))
    torch.testing.assert_close(back, images)
    back.sum().backward()
    torch.testing.assert_close(images.grad, torch.ones_like(images))


# --- value spaces ------------------------------------------------------------------------------------------------


def test_encode_and_decode_by_hand():
    space = ValueSpace((0.5, 0.2), (0.25, 0.1))
    pixels = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(space.encode(pixels).flatten(), torch.tensor([2.0, -2.0]))
    decoded = space.decode(torch.tensor([4.0, 0.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(decoded.flatten(), torch.tensor([1.5, 0.2]))
    assert space.name == "normalised"


def test_a_space_first_used_in_inference_mode_still_passes_gradients():
    space = ValueSpace((0.123,), (0.321,))
    with torch.inference_mode():
        space.encode(torch.zeros(1, 1, 2, 2))
    pixels = torch.zeros(1, 1, 2, 2, requires_grad=True)
    space.encode(pixels).sum().backward()
    torch.testing.assert_close(pixels.grad, torch.full((1, 1, 2, 2), 1 / 0.321))


# --- image sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.tensor, list, lambda rows: torch.tensor(rows, dtype=torch.int32)])
def test_take_normalises_pixels_in_the_order_asked_for(kind):
    images = small_set()
    expected = (images.images[[5, 0, 5]].double() / 255 - 0.5) / 0.25
    taken = images.take(kind([5, 0, 5]))
    assert taken.dtype == torch.float32
    torch.testing.assert_close(taken.double(), expected, atol=1e-6, rtol=0)
    assert [index.tolist() for index in images.class_indices] == [[1, 4], [0, 3, 5], [2]]


ZCA_OF_TWO = {"mean": torch.zeros(2), "whitening": torch.eye(2), "unwhitening": torch.eye(2), "eps": 0.1}
NO_ZCA, NOT_OF_TWO = r"a ZCA has a mean .D,., two matrices .* got .* eps=", r"must be .* with C\*H\*W = 2, got"
OTHER_CHANNELS = r"images must be \(B, 1, H, W\), got shape \(2, 3, 4, 4\)"


test_what_is_no_space_or_set_is_refused = refuses(
    operator.call,
    [
        (lambda: fit_zca(torch.zeros(4, 3)), r"images must be \(B, C, H, W\) float32 with B >= 2, got \(4, 3\)"),
        (lambda: fit_zca(torch.zeros(2, 1, 2, 2), eps=0.0), "eps must be > 0, got 0.0"),
        (lambda: fit_zca(torch.zeros(2, 3, 65, 64)), r"at most C\*H\*W = 12288 values, got \(3, 65, 64\)"),
        (lambda: ZCA(**ZCA_OF_TWO | {"mean": torch.zeros(2, 2)}), NO_ZCA),
        (lambda: ZCA(**ZCA_OF_TWO | {"eps": -1.0}), NO_ZCA),
        (lambda: ZCA(**ZCA_OF_TWO).apply(torch.zeros(4, 1, 2, 2)), NOT_OF_TWO),
        (lambda: ValueSpace((0.5,), (0.2, 0.2)), "one value a channel"),
        (lambda: ValueSpace((0.5,), (0.0,)), "std must be positive"),
        (lambda: SPACE.encode(torch.zeros(2, 3, 4, 4)), OTHER_CHANNELS),
        (lambda: SPACE.decode(torch.zeros(2, 3, 4, 4)), OTHER_CHANNELS),
        (lambda: small_set().take(torch.zeros(2, 2).long()), r"indices must be \(N,\) integers, got"),
        (lambda: load("cifar11", "train"), "unknown dataset 'cifar11'; known: digits, mnist, .*cifar10"),
        (lambda: load("digits", "val"), "split must be one of train, test, got 'val'"),
        (lambda: load("digits", "train", zca="colour"), "zca must be False, True or 'pixels', got 'colour'"),
        (lambda: load("imagenette128", "train", zca=True), r"got \(3, 128, 128\): use zca=False"),
        (lambda: small_set(split="val"), "split must be one of train, test, got 'val'"),
        (lambda: small_set(images=torch.zeros(6, 2, 2)), r"must be \(B, C, H, W\).*got \(6, 2, 2\) torch.float32"),
        (lambda: small_set(images=torch.zeros(0, 1, 2, 2), labels=torch.zeros(0).long()), "B >= 1"),
        (lambda: small_set(labels=torch.zeros(5).long()), r"labels must be \(6,\) int64 on cpu, got \(5,\)"),
        (lambda: small_set(labels=torch.zeros(6).int()), "int64 on cpu, got .* torch.int32"),
        (lambda: small_set(labels=torch.tensor([0, 1, 2, -1, 0, 0])), r"labels must lie in \[0, 3\), got -1 to 2"),
        (lambda: small_set(labels=torch.tensor([0, 1, 2, 3, 0, 0])), r"labels must lie in \[0, 3\), got 0 to 3"),
        (lambda: small_set(space=ValueSpace((0.5,) * 3, (0.2,) * 3)), "space is for 3 channels, images have 1"),
        (lambda: small_set(space=replace(SPACE, zca=ZCA(**ZCA_OF_TWO))), "of 2 values, .* have 4"),
    ],
)


def test_a_fingerprint_is_of_values_shapes_and_types():
    images, labels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2), torch.tensor([0, 1, 0])
    digest = hashlib.sha256(b"torch.uint8 (3, 1, 2, 2)\n" + bytes(range(12)))
    digest.update(b"torch.int64 (3,)\n" + struct.pack("<3q", 0, 1, 0))
    assert fingerprint(images, labels) == digest.hexdigest()
    strided = images.transpose(2, 3).contiguous().transpose(2, 3)
    assert fingerprint(strided, labels) == digest.hexdigest()
    whole = small_set()
    part = replace(whole, images=whole.images[:3], labels=whole.labels[:3])
    assert part.fingerprint == fingerprint(part.images, part.labels) != whole.fingerprint


# --- the catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.names())
def test_the_catalogue_is_consistent(name):
    info = describe(name)
    assert info.name == name and info.title and info.licence and info.how_to_get
    assert info.layout in readers._READERS and info.downloadable == (info.layout in ("torchvision", "tiny", "first"))
    assert (info.part_of is None) == (info.per_class is None) == (info.layout != "first")
    assert len(info.mean) == len(info.std) == info.shape[0]
    assert len(info.class_names) == len(set(info.class_names)) == (0 if name == "tiny_imagenet" else info.num_classes)
    assert info.fingerprints is None or [len(found) for found in info.fingerprints] == [64, 64]
    assert len(info.positions) == (info.num_classes if info.layout == "folders" else 0)


def test_class_lists():
    positions = list(SYNSETS)
    wnids = [wnid for wnid, _ in SYNSETS.values()]
    assert positions == sorted(positions) and wnids == sorted(set(wnids))  # ImageNet's order is that of the ids
    assert all(len(set(subset)) == 10 for subset in SUBSETS.values())
    assert [SYNSETS[position][0] for position in SUBSETS["imagenette"]] == IMAGENETTE
    assert describe("imagewoof_256").class_names[:2] == ("Australian terrier", "Border terrier")
    assert list(describe("cifar100").class_names) == sorted(describe("cifar100").class_names)


# --- photographs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "left"), [("train", 0), ("test", 320)])
def test_photographs_are_patches_of_one_half_of_each_picture(split, left):
    images = load("photographs", split)
    assert images.shape == (1, 16, 16) and images.images.dtype == torch.uint8 and images.num_classes == 2
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        gray = Image.fromarray(sklearn.datasets.load_sample_image(name)).convert("L")  # within a level of ours
        places = [(left + 8 * column, 8 * row) for row in range(52) for column in range(39)]
        expected = np.stack([np.asarray(gray.crop((x, y, x + 16, y + 16))) for x, y in places]).astype(int)
        found = images.images[images.labels == label][:, 0].numpy().astype(int)
        assert abs(found - expected).max() <= 1
        assert max(x for x, _ in places) + 16 == left + 320  # no patch crosses into the other half


# --- digits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "photographs"])
def test_constants_are_those_of_the_training_set(name):
    pixels, space = load(name, "train").images.double() / 255, load(name, "train").space
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((space.mean[0], space.std[0]), abs=5e-5)
    assert check(name).state == get(name).state == "ok"


def digit_rows():
    """Indices into scikit-learn's array: of every class each fourth image, by its order there, is for the test."""
    seen, rows = [0] * 10, {"train": [], "test": []}
    for row, label in enumerate(sklearn.datasets.load_digits().target):
        seen[label] += 1
        rows["test" if seen[label] % 4 == 0 else "train"].append(row)
    return rows


def test_digits_are_split_by_class_without_overlap():
    rows, target = digit_rows(), sklearn.datasets.load_digits().target
    totals = np.bincount(target)
    assert not set(rows["train"]) & set(rows["test"]) and len(rows["train"]) + len(rows["test"]) == 1797
    for split, counts in (("train", totals - totals // 4), ("test", totals // 4)):
        images = load("digits", split)
        assert images.labels.tolist() == target[rows[split]].tolist()
        assert torch.bincount(images.labels).tolist() == counts.tolist()
        assert (len(images), images.shape) == (counts.sum(), (1, 16, 16))


def test_digits_are_enlarged_bilinearly():
    small = sklearn.datasets.load_digits().images[digit_rows()["test"]] / 16
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="edge")
    near, before, after = padded[:, 1:-1], padded[:, :-2], padded[:, 2:]
    tall = np.stack([0.75 * near + 0.25 * before, 0.75 * near + 0.25 * after], axis=2).reshape(len(small), 16, 10)
    near, before, after = tall[:, :, 1:-1], tall[:, :, :-2], tall[:, :, 2:]
    large = np.stack([0.75 * near + 0.25 * before, 0.75 * near + 0.25 * after], axis=3).reshape(len(small), 16, 16)
    found = load("digits", "test").images[:, 0].numpy() / 255
    assert np.abs(found - large).max() < 0.5 / 255 + 1e-9


@pytest.mark.parametrize("zca", [True, "pixels"])
def test_digits_are_whitened_as_written_out(zca):
    """W = U (s + 0.1)^-1/2 U^T of x in float64; MTT to DATM take x in [0, 1], others normalise it before."""
    plain, test_pixels = load("digits", "train"), load("digits", "test").images / 255
    x = plain.images.flatten(1).double() / 255
    x = x if zca == "pixels" else (x - plain.space.mean[0]) / plain.space.std[0]
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    expected = (x - x.mean(0)) @ (vectors * (values + 0.1).rsqrt()) @ vectors.T
    train, test = (load("digits", split, zca=zca) for split in ("train", "test"))
    torch.testing.assert_close(train.images.flatten(1), expected.float(), atol=1e-4, rtol=1e-3)
    assert train.space.name == test.space.name == ("zca of pixels" if zca == "pixels" else "zca")
    assert train.space.zca is test.space.zca and train.fingerprint == plain.fingerprint
    torch.testing.assert_close(test.take(range(len(test))), test.space.encode(test_pixels), atol=1e-4, rtol=0)
    torch.testing.assert_close(test.space.decode(test.images), test_pixels, atol=1e-4, rtol=0)


# --- files -------------------------------------------------------------------------------------------------------


def write_idx(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(head + values.astype(np.uint8).tobytes())


def write_mnist(root, name="MNIST"):
    rng = np.random.default_rng(0)
    for stem, count in (("train", 8), ("t10k", 4)):
        write_idx(root / name / "raw" / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(root / name / "raw" / f"{stem}-labels-idx1-ubyte", np.arange(count))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    shrink(monkeypatch, "mnist", sizes=(8, 4))
    return tmp_path


def test_files_that_are_missing_or_other_are_refused(mnist, monkeypatch):
    monkeypatch.setenv("DDLIB_DATA", str(mnist / "empty"))  # the data folder, where none is named
    with pytest.raises(FileNotFoundError, match=f"{mnist}/empty/MNIST/raw does .*`ddlib data get mnist` gets it"):
        load("mnist", "test")
    assert check("mnist").state == "missing" and str(mnist / "empty") in check("mnist").messages["train"]
    monkeypatch.delenv("DDLIB_DATA")
    assert datasets.data_root() == ddlib.ROOT / "data"
    write_idx(mnist / "MNIST/raw/t10k-labels-idx1-ubyte", np.arange(3))
    with pytest.raises(ValueError, match="MNIST/raw holds 4 images and 3 labels for test, expected 4"):
        load("mnist", "test", root=mnist)
    write_idx(mnist / "MNIST/raw/train-images-idx3-ubyte", np.zeros((8, 14, 14)))
    with pytest.raises(ValueError, match=r"holds images of \(1, 14, 14\), expected \(1, 28, 28\)"):
        load("mnist", "train", root=mnist)
    shrink(monkeypatch, "mnist", sizes=(9, 5))
    write_mnist(mnist)
    with pytest.raises(ValueError, match="MNIST/raw holds 8 images and 8 labels for train, expected 9"):
        load("mnist", "train", root=mnist)


def test_the_first_images_of_each_class(mnist, monkeypatch):
    write_idx(mnist / "MNIST/raw/train-labels-idx1-ubyte", np.array([0, 1, 0, 2, 1, 0, 2, 2]))
    facts = {"name": "first", "layout": "first", "part_of": "mnist", "per_class": 2, "sizes": (6, 4)}
    monkeypatch.setitem(CATALOGUE, "first", replace(describe("mnist"), **facts))
    first, whole, rows = load("first", "train", root=mnist), load("mnist", "train", root=mnist), [0, 1, 2, 3, 4, 6]
    assert torch.equal(first.images, whole.images[rows]) and torch.equal(first.labels, whole.labels[rows])
    assert torch.equal(load("first", "test", root=mnist).images, load("mnist", "test", root=mnist).images)


def test_idx_files(mnist):
    train, test = (load("mnist", split, root=mnist) for split in ("train", "test"))
    expected = np.random.default_rng(0).integers(0, 256, (8, 28, 28))
    assert np.array_equal(train.images[:, 0].numpy(), expected) and train.labels.tolist() == list(range(8))
    assert (test.shape, len(test), test.split) == ((1, 28, 28), 4, "test")
    assert (train.space.mean, train.space.std) == ((0.1307,), (0.3081,))


@pytest.mark.parametrize(("kind", "kept"), [("images-idx3", 0), ("labels-idx1", 6)])
def test_a_truncated_idx_file_is_named(mnist, kind, kept):
    path = mnist / "MNIST" / "raw" / f"train-{kind}-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"mnist: {path.parent} is truncated or corrupt .*and run `ddlib data get mn"):
        load("mnist", "train", root=mnist)
    assert check("mnist", mnist).state == "differs" and "truncated" in check("mnist", mnist).messages["train"]
    assert get("mnist", mnist).state == "differs"  # nothing is written over


def test_a_set_is_compared_with_its_reference(mnist, monkeypatch):
    assert check("mnist", mnist).state == "no reference"
    right = tuple(load("mnist", split, root=mnist).fingerprint for split in ("train", "test"))
    shrink(monkeypatch, "mnist", sizes=(8, 4), fingerprints=right)
    assert check("mnist", mnist).state == "ok" and load("mnist", "train", root=mnist).fingerprint == right[0]
    shrink(monkeypatch, "mnist", sizes=(8, 4), fingerprints=(right[0], "f" * 64))
    found = check("mnist", mnist)
    assert found.state == "differs" and "expected fff" in found.messages["test"] and right[0] in found.messages["train"]
    with pytest.raises(ValueError, match="MNIST/raw holds other data: the fingerprint of test is .* expected fff"):
        load("mnist", "test", root=mnist)


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def write_cifar(root, monkeypatch, *, reader, key, meta):
    """Two training batches of 3 and a test batch of 2, whose md5 torchvision is told to expect."""
    rng, folder = np.random.default_rng(0), root / reader.base_folder
    rows = rng.integers(0, 256, (8, 3072), dtype=np.uint8)
    first, second, test = (
        write_pickle(folder / f"batch_{part.start}", {"data": rows[part], key: list(range(part.start, part.stop))})
        for part in (slice(0, 3), slice(3, 6), slice(6, 8))
    )
    monkeypatch.setattr(reader, "train_list", [first, second])
    monkeypatch.setattr(reader, "test_list", [test])
    filename, md5 = write_pickle(folder / "meta", {meta: [str(k) for k in range(100)]})
    monkeypatch.setattr(reader, "meta", {"filename": filename, "key": meta, "md5": md5})
    return rows


@pytest.mark.parametrize(
    ("name", "reader", "key", "meta"),
    [
        ("cifar10", torchvision.datasets.CIFAR10, "labels", "label_names"),
        ("cifar100", torchvision.datasets.CIFAR100, "fine_labels", "fine_label_names"),
    ],
)
def test_cifar_batches(tmp_path, monkeypatch, name, reader, key, meta):
    rows = write_cifar(tmp_path, monkeypatch, reader=reader, key=key, meta=meta)
    shrink(monkeypatch, name, sizes=(6, 2))
    train, test = (load(name, split, root=tmp_path) for split in ("train", "test"))
    assert np.array_equal(train.images.numpy(), rows[:6].reshape(6, 3, 32, 32))
    assert np.array_equal(test.images.numpy(), rows[6:].reshape(2, 3, 32, 32))
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5] and test.labels.tolist() == [6, 7]
    assert train.images.is_contiguous() and train.num_classes == describe(name).num_classes


def test_svhn_matrices(tmp_path, monkeypatch):
    rng, listed = np.random.default_rng(0), {}
    for split, count in (("train", 11), ("test", 2)):
        path = tmp_path / f"{split}_32x32.mat"
        pixels = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        scipy.io.savemat(path, {"X": pixels, "y": np.arange(count, dtype=np.uint8)[:, None] % 10 + 1})
        listed[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    shrink(monkeypatch, "svhn", sizes=(11, 2))
    test = load("svhn", "test", root=tmp_path)
    assert np.array_equal(test.images.numpy(), pixels.transpose(3, 2, 0, 1)) and test.images.is_contiguous()
    assert load("svhn", "train", root=tmp_path).labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    path.write_bytes(path.read_bytes()[:-10])
    datasets._load.cache_clear()
    with pytest.raises(ValueError, match="svhn: .* is truncated or corrupt"):
        load("svhn", "test", root=tmp_path)


# --- folders of images -------------------------------------------------------------------------------------------


def write_image(path, size, seed=0):
    """A random picture, lossless; `size` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.transpose(2, 0, 1)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two training images and a test image a class; returns the root and the training pixels in order."""
    shrink(monkeypatch, "imagenette128", shape=(3, 64, 64), sizes=(20, 10))
    pixels, folder = [], tmp_path / "imagenette128"
    for label, wnid in enumerate(IMAGENETTE):
        pixels += [write_image(folder / f"train/{wnid}/{n}.png", (64, 64), seed=2 * label + n) for n in (0, 1)]
        write_image(folder / f"val/{wnid}/0.png", (64, 64), seed=99)
    return tmp_path, np.stack(pixels)


def test_class_folders(folders):
    root, pixels = folders
    (root / "imagenette128/train/n01440764/notes.txt").write_text("not an image")
    train = load("imagenette128", "train", root=root)
    assert np.array_equal(train.images.numpy(), pixels)
    assert train.labels.tolist() == [label for label in range(10) for _ in (0, 1)]
    assert train.class_names[:2] == ("tench", "English springer")
    assert len(load("imagenette128", "test", root=root)) == 10


@pytest.fixture
def anew():
    """() -> forget what this process has loaded, as a new one would."""

    def forget():
        datasets._load.cache_clear()
        datasets._load_part.cache_clear()
        datasets._fingerprint_read.cache_clear()

    forget()
    yield forget
    forget()


@pytest.mark.parametrize("name", ["imagenette128", "imagenette128:3,1"])
def test_a_fingerprint_that_was_computed_is_noted_and_never_outlives_its_data(name, folders, anew, monkeypatch):
    root, _ = folders
    path = root / "imagenette128/train" / IMAGENETTE[3] / "1.png"
    first = datasets.fingerprint_of(name, "train", root)
    assert first == load(name, "train", root=root).fingerprint != datasets.fingerprint_of(name, "test", root)
    anew()
    with monkeypatch.context() as patched:
        patched.setattr(readers, "read", lambda *_: pytest.fail("read again"))
        assert datasets.fingerprint_of(name, "train", root) == first
    for change in ("other pixels", "another note", "no note"):
        if change == "other pixels":
            stamp = path.stat()
            write_image(path, (64, 64), seed=77)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        for note in (root / datasets.NOTES).iterdir() if change != "other pixels" else ():
            note.write_text("{}") if change == "another note" else note.unlink()
        anew()
        assert datasets.fingerprint_of(name, "train", root) == load(name, "train", root=root).fingerprint != first


@pytest.mark.parametrize("name", ["digits", "digits:3,7", "photographs"])
def test_the_fingerprint_of_data_is_that_of_the_loaded_set(name, tmp_path):
    for split in ("train", "test"):
        assert datasets.fingerprint_of(name, split) == load(name, split).fingerprint
    assert datasets.fingerprint_of("mnist", "test", tmp_path) == CATALOGUE["mnist"].fingerprints[1]  # without reading
    with pytest.raises(FileNotFoundError, match="ddlib data get cifar100"):
        datasets.fingerprint_of("cifar100", "test", tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "size", "empty", "class"])
def test_damaged_folders_are_named(folders, damage):
    root, _ = folders
    path = root / "imagenette128/train/n03888257/1.png"
    error, match = ValueError, f"is truncated or corrupt .{path}: .*replace it, `ddlib data get imagenette128`"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "size":
        write_image(path, (64, 60))
        match = f"{path} is 64x60, expected 64x64"
    else:
        path.unlink()
        path.with_name("0.png").unlink()
        match = f"{path.parent} holds no images"
    if damage == "class":
        path.parent.rmdir()
        error, match = FileNotFoundError, f"{path.parent.parent} lacks 1 of 10 classes: n03888257"
    with pytest.raises(error, match=match):
        load("imagenette128", "train", root=root)


def test_decoded_pixels_that_differ_are_a_warning(folders, monkeypatch):
    root, pixels = folders
    shrink(monkeypatch, "imagenette128", shape=(3, 64, 64), sizes=(20, 10), fingerprints=("0" * 64, "1" * 64))
    with pytest.warns(UserWarning, match="imagenette128: the fingerprint of train is .* expected 000"):
        assert np.array_equal(load("imagenette128", "train", root=root).images.numpy(), pixels)
    assert check("imagenette128", root).state == "differs"


@pytest.fixture
def imagewoof(tmp_path):
    """One wide training image a class, in folders of only the ten classes, in no order."""
    for seed, position in enumerate(SUBSETS["imagewoof"]):
        write_image(tmp_path / f"imagenet/train/{SYNSETS[position][0]}/a.png", (128, 200), seed=seed)
    return tmp_path


def test_imagenet_crops_the_centre(imagewoof):
    train = load("imagewoof_128", "train", root=imagewoof)
    assert (train.shape, train.labels.tolist()) == ((3, 128, 128), list(range(10)))
    for label, position in enumerate(SUBSETS["imagewoof"]):
        path = imagewoof / f"imagenet/train/{SYNSETS[position][0]}/a.png"
        whole = np.asarray(Image.open(path)).transpose(2, 0, 1)
        assert np.array_equal(train.images[label].numpy(), whole[:, :, 36:164])


@pytest.mark.parametrize("size", [32, 64])
def test_the_reduced_imagenette_is_shrunk_as_it_is_read(size, tmp_path, monkeypatch):
    shrink(monkeypatch, f"imagenette{size}", sizes=(10, 10))
    pixels = []
    for seed, wnid in enumerate(IMAGENETTE):
        for split in ("train", "val"):
            written = write_image(tmp_path / f"imagenette128/{split}/{wnid}/a.png", (128, 128), seed=seed)
        pixels.append(torch.from_numpy(written.copy()).float())
    images = load(f"imagenette{size}", "train", root=tmp_path)
    assert images.shape == (3, size, size) and images.labels.tolist() == list(range(10))
    assert images.class_names == describe("imagenette128").class_names
    expected = torch.nn.functional.interpolate(
        torch.stack(pixels), (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    assert (images.images.float() - expected).abs().max() < 1.1
    plain = torch.nn.functional.interpolate(torch.stack(pixels), (size, size), mode="bilinear", align_corners=False)
    assert (plain - expected).abs().max() > 10  # what is not antialiased would be seen


def test_imagenet_that_is_not_there_comes_with_instructions(imagewoof):
    with pytest.raises(FileNotFoundError, match="imagenet/val.*; `ddlib data get imagewoof_128` says how"):
        load("imagewoof_128", "test", root=imagewoof)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Tiny ImageNet in its own layout, with three classes; returns the root and the validation pixels by class."""
    shrink(monkeypatch, "tiny_imagenet", num_classes=3, sizes=(6, 3))
    folder, wnids = tmp_path / "tiny-imagenet-200", ["n03", "n01", "n02"]
    for wnid in wnids:
        for n in (0, 1):
            write_image(folder / f"train/{wnid}/images/{wnid}_{n}.png", (64, 64), seed=int(wnid[1:]) * 10 + n)
    pixels = [write_image(folder / f"val/images/val_{n}.png", (64, 64), seed=n) for n in range(3)]
    lines = [f"val_{n}.png\t{wnid}\t0\t0\t63\t63" for n, wnid in enumerate(wnids)]
    (folder / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    (folder / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tlion, king of beasts\nn99\tentity\n")
    return tmp_path, np.stack([pixels[1], pixels[2], pixels[0]])


def test_tiny_imagenet_as_it_is_packed(tiny):
    root, pixels = tiny
    train, test = (load("tiny_imagenet", split, root=root) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and train.class_names == ("tench", "lion", "n03")
    assert test.labels.tolist() == [0, 1, 2] and np.array_equal(test.images.numpy(), pixels)


def test_tiny_imagenet_damaged(tiny):
    root, _ = tiny
    folder = root / "tiny-imagenet-200"
    (folder / "val/val_annotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match="tiny_imagenet is not available: .*val_annotations.txt"):
        load("tiny_imagenet", "test", root=root)
    (folder / "train/n04").mkdir()
    with pytest.raises(ValueError, match="train holds 4 class folders, expected 3"):
        load("tiny_imagenet", "train", root=root)


# --- downloads ---------------------------------------------------------------------------------------------------


def test_get_downloads_once_through_torchvision(tmp_path, monkeypatch):
    calls = []

    def fetch(dataset):
        calls.append(dataset.train)
        write_mnist(Path(dataset.root))

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fetch)
    shrink(monkeypatch, "mnist", sizes=(8, 4))
    found = get("mnist", tmp_path)
    assert (found.name, found.state, calls) == ("mnist", "no reference", [True, False])
    assert get("mnist", tmp_path).state == "no reference" and len(calls) == 2
    assert len(load("mnist", "train", root=tmp_path)) == 8


def test_get_unpacks_tiny_imagenet_with_its_checksum(tmp_path, monkeypatch):
    calls = []
    utils = torchvision.datasets.utils
    monkeypatch.setattr(utils, "download_and_extract_archive", lambda *a, **options: calls.append((a, options)))
    assert get("tiny_imagenet", tmp_path).state == "missing"
    (((url, folder), options),) = calls
    assert (url, folder) == ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", str(tmp_path))
    assert options["md5"] == "90528d7ca1a48142e341f4ef8d21d0de"


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", fail)
    with pytest.raises(OSError, match=f"cifar10 could not be downloaded to {tmp_path} .*no route.*copy its files to"):
        get("cifar10", tmp_path)


RAMP = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


@pytest.mark.parametrize("ending", ["JPG", "bmp", "webp"])
def test_files_of_every_kind_are_read_as_they_look(ending, tmp_path):
    grey, exif, options = Image.fromarray(RAMP), Image.Exif(), {"lossless": True}
    if ending == "JPG":
        exif[0x0112] = 3  # turned by half a turn
        grey, options = grey.rotate(180), {"exif": exif, "quality": 100}
    grey.save(tmp_path / f"ramp.{ending}", **options)
    for leftover in (".DS_Store", "._ramp.png", "notes.txt"):
        (tmp_path / leftover).write_bytes(b"left by a system or an archive")
    pixels = readers.decode(readers.images_in(tmp_path), (3, 8, 8))
    assert (pixels[0].int() - torch.from_numpy(RAMP).int()).abs().max() <= 2  # JPEG rounds


def test_pixels_of_no_known_range_are_refused(tmp_path):
    Image.fromarray(RAMP.astype("int32")).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=r"wide\.tif: pixels are int32 from 0.* to 255.*; allowed: 8 or 16 bits"):
        readers.decode(readers.images_in(tmp_path), (3, 8, 8))


def test_a_png_of_16_bits_is_scaled_whichever_mode_pillow_opens_it_in():
    """Earlier versions open it in "I", as files of 32 bits."""
    wide = Image.fromarray(RAMP.astype(np.int32) * 257)
    wide.format = "PNG"
    assert wide.mode == "I" and np.array_equal(readers.upright(wide, "L"), RAMP)


@pytest.mark.parametrize("inner", ["more", "images"])
def test_images_in_folders_beside_images_are_not_passed_over(inner, tmp_path):
    for place in (tmp_path, tmp_path / inner):
        place.mkdir(exist_ok=True)
        Image.fromarray(RAMP).save(place / "ramp.png")
    with pytest.raises(ValueError, match=f"holds the folders {inner}; allowed: images, or all in a folder images"):
        readers.images_in(tmp_path)
