"""Sets of a user's own: three doors to the same pixels, a name for them, and all that is done with a name."""

import io
import re
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from refusals import refuses
from test_methods import small
from test_rows import cells

from ddlib import ROOT, data, evaluation, export, models, report, seeding, study
from ddlib.analyses import judge
from ddlib.batch import cli
from ddlib.data import datasets, own, synthetic
from ddlib.methods import coresets, gradient_matching, pixels

COUNTS = {"ant": 5, "bee": 9, "cat": 3}


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    """A data folder with nothing in it."""
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def pictures(counts=COUNTS, shape=(12, 12, 3), seed=0):
    """Pictures of so many classes, each a pattern of its own under noise, and their class numbers."""
    stream, labels = np.random.default_rng(seed), np.repeat(np.arange(len(counts)), [*counts])
    patterns = np.random.default_rng(0).integers(0, 200, (len(counts), *shape))
    return (patterns[labels] + stream.integers(0, 56, (len(labels), *shape))).astype(np.uint8), labels


def write(folder, counts=COUNTS, shape=(12, 12, 3), ending="png", seed=0):
    """Such pictures as files in folders that bear the names of their classes."""
    for number, (image, label) in enumerate(zip(*pictures(counts.values(), shape, seed), strict=True)):
        path = folder / [*counts][label] / f"{number:04}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def contents(sets):
    """What decides a name: images and labels, and the classes' names."""
    return sets.train.fingerprint, sets.test.fingerprint, sets.train.class_names


# --- folders ----------------------------------------------------------------------------------------------------------


RUBBISH = (".DS_Store", "ant/._0000.png", ".ipynb_checkpoints/x.png", "__MACOSX/ant/x.png", "ant/notes.txt")
"""What systems and archives leave beside pictures, and what is none."""


@pytest.mark.parametrize("names", [("",), ("train",), ("train", "test"), ("Train", "validation"), ("train", "val")])
def test_a_folder_is_read_with_its_split_or_a_part_of_each_class_is_held_out(names, tmp_path):
    for seed, root in enumerate(tmp_path / "set" / name for name in names):
        write(root, seed=seed, ending="PNG" if seed else "png")
        for rubbish in RUBBISH:
            (root / rubbish).parent.mkdir(exist_ok=True, parents=True)
            (root / rubbish).write_bytes(b"no image")
    sets = data.from_folder(tmp_path / "set")
    assert sets.train.class_names == sets.test.class_names == ("ant", "bee", "cat")
    counts = [torch.bincount(images.labels).tolist() for images in sets[:2]]
    if len(names) == 2:
        assert counts == [[5, 9, 3], [5, 9, 3]] and sets.note == sets.train.name == sets.test.name
        return
    assert counts == [[4, 7, 2], [1, 2, 1]] and sets.note.endswith("; 20% of each class held out as the test set")
    assert contents(data.from_folder(tmp_path / "set")) == contents(sets)
    together = torch.cat([sets.train.images, sets.test.images]).permute(0, 2, 3, 1).numpy()
    assert sorted(map(bytes, together)) == sorted(map(bytes, pictures(COUNTS.values())[0]))  # every image is in one


def test_what_is_wrong_with_a_folder_is_named_in_a_line(tmp_path):
    folder = write(tmp_path / "set")
    (folder / "bee" / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"^[^\n]*bee/broken.jpg: cannot identify image file[^\n]*$"):
        data.from_folder(folder)
    (folder / "bee" / "broken.jpg").unlink()
    Image.new("RGB", (7, 9)).save(folder / "cat" / "other.png")
    with pytest.raises(ValueError, match=r"cat/other.png is 9x7, .*ant/0000.png 12x12; give a size to bring them to"):
        data.from_folder(folder)
    for bad, message in {
        ("size", 0): "size=0; allowed", ("size", 32.5): "size=32.5; allowed",
        ("size", (3, 4, 5)): r"size=\(3, 4, 5\)", ("channels", 2): "channels=2; all",
        ("holdout", "0.2"): "holdout='0.2'",
        ("holdout", 1.0): "holdout=1.0", ("at_least", 0): "at_least=0",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=message):
            data.from_folder(folder, **{"size": 8} | dict([bad]))
    write(tmp_path / "split" / "train", {"ant": 2, "bee": 2})
    write(tmp_path / "split" / "test")
    with pytest.raises(ValueError, match="split/test has classes that .*split/train has not: cat"):
        data.from_folder(tmp_path / "split")
    (tmp_path / "split" / "train" / "cow").mkdir()
    with pytest.raises(ValueError, match="train/cow holds no images"):
        data.from_folder(tmp_path / "split")
    with pytest.raises(
        FileNotFoundError, match="nowhere' does not exist; it must hold a folder of images for each class"
    ):
        data.from_folder(tmp_path / "nowhere")
    (tmp_path / "set.zip").write_bytes(b"packed")
    with pytest.raises(ValueError, match="set.zip' is a file; it must be a folder.*: unpack"):
        data.from_folder(tmp_path / "set.zip")
    with pytest.raises(ValueError, match="classes are ant; allowed: two or more"):
        data.from_folder(write(tmp_path / "single", {"ant": 4}))
    with pytest.raises(ValueError, match="notes holds no folders"):
        (tmp_path / "notes").mkdir()
        data.from_folder(tmp_path / "notes")


def test_a_split_without_class_folders_is_no_test_set(tmp_path):
    """As competitions give it: images without labels under `test/`."""
    write(tmp_path / "set" / "train")
    write(tmp_path / "set" / "val", {"ant": 1, "bee": 2, "cat": 3}, seed=1)
    (tmp_path / "set" / "test").mkdir()
    Image.new("RGB", (12, 12)).save(tmp_path / "set" / "test" / "0.png")
    assert torch.bincount(data.from_folder(tmp_path / "set").test.labels).tolist() == [1, 2, 3]


def test_splits_without_class_folders_are_no_classes(tmp_path):
    folder = write(tmp_path / "set", {"train": 3, "val": 2})
    with pytest.raises(ValueError, match="set/train holds no folders; it must hold one for each class"):
        data.from_folder(folder)


def test_a_class_may_be_called_train(tmp_path):
    folder = write(tmp_path / "vehicles", {"bus": 2, "train": 3, "val": 2})
    (folder / "train" / ".thumbnails").mkdir()
    sets = data.from_folder(folder)
    assert sets.train.class_names == ("bus", "train", "val")


@pytest.mark.parametrize(
    ("mode", "color", "channels", "expected"),
    [
        ("RGB", (200, 100, 50), None, (200, 100, 50)),
        ("RGB", (90, 90, 90), None, (90,)),
        ("RGB", (90, 90, 90), 3, (90, 90, 90)),
        ("L", 90, None, (90,)),
        ("L", 90, 3, (90, 90, 90)),
        ("1", 1, None, (255,)),
        ("I;16", 257 * 40, None, (40,)),
        ("P", None, None, (200, 100, 50)),
        ("CMYK", (55, 155, 205, 0), None, (200, 100, 50)),
        ("RGBA", (200, 100, 50, 128), None, (200, 100, 50)),
        ("RGBA", (200, 100, 50, 128), 4, (200, 100, 50, 128)),
        ("RGB", (200, 100, 50), 4, (200, 100, 50, 255)),
        ("RGB", (100, 100, 50), 1, (94,)),  # 0.299 R + 0.587 G + 0.114 B
    ],
)
def test_every_kind_of_pixel_comes_out_as_its_colour(mode, color, channels, expected, tmp_path):
    picture = Image.new("RGB", (6, 6), (200, 100, 50)).quantize(2) if mode == "P" else Image.new(mode, (6, 6), color)
    for cls in "ab":
        (tmp_path / "set" / cls).mkdir(parents=True)
        for number in range(2):
            picture.save(tmp_path / "set" / cls / f"{number}.{'tif' if mode == 'CMYK' else 'png'}")
    train = data.from_folder(tmp_path / "set", channels=channels).train
    assert train.shape == (len(expected), 6, 6)
    assert (train.images == torch.tensor(expected, dtype=torch.uint8)[:, None, None]).all()
    assert train.space.std == (1.0,) * len(expected)  # of a channel that never changes
    assert train.space.mean == tuple(round(value / 255, 4) for value in expected)


@pytest.mark.parametrize(("size", "shape", "bright"), [(8, (8, 8), 64), ((4, 12), (4, 12), 48), ((6, 3), (6, 3), 18)])
def test_pictures_of_any_size_are_cropped_about_the_centre(size, shape, bright, tmp_path):
    """A wide picture is bright in its middle square, a tall one likewise; what lies outside the crop is black."""
    for cls, (height, width) in {"wide": (60, 240), "tall": (240, 80)}.items():
        canvas, (h, w) = np.zeros((height, width), np.uint8), shape
        scale = min(height / h, width / w)
        top, left = ((side - round(scale * own)) // 2 for side, own in ((height, h), (width, w)))
        canvas[top : height - top, left : width - left] = 255
        (tmp_path / cls).mkdir()
        for number in range(2):
            Image.fromarray(canvas).save(tmp_path / cls / f"{number}.bmp")
    train = data.from_folder(tmp_path, size=size).train
    assert train.shape == (1, *shape) and (train.images > 200).all() and train.images[0].numel() == bright


# --- three doors ------------------------------------------------------------------------------------------------------


def hub_set(folder):
    """The same folder as a data set of Hugging Face's `datasets`."""
    hub = pytest.importorskip("datasets")
    files = sorted(folder.glob("*/*.png"))
    columns = {"image": [str(file) for file in files], "label": [[*COUNTS].index(file.parent.name) for file in files]}
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=[*COUNTS])})
    return hub.Dataset.from_dict(columns, features=features)


def saved(folder):
    """It as saved to disk."""
    hub_set(folder).save_to_disk(folder.parent / "saved")
    return folder.parent / "saved"


DOORS = {
    "torchvision": lambda folder: data.from_datasets(torchvision.datasets.ImageFolder(folder)),
    "datasets": lambda folder: data.from_datasets(hub_set(folder)),
    "datasets by split": lambda folder: data.from_datasets({"train": hub_set(folder)}),
    "a saved set": lambda folder: data.from_folder(saved(folder)),
    "its path": lambda folder: data.from_datasets(saved(folder)),
    "NHWC": lambda _: data.from_arrays(*pictures(COUNTS.values()), class_names=[*COUNTS]),
    "torch, NCHW, in [0, 1]": lambda _: data.from_arrays(
        torch.from_numpy(pictures(COUNTS.values())[0]).permute(0, 3, 1, 2).float() / 255,
        torch.from_numpy(pictures(COUNTS.values())[1])[:, None], class_names=[*COUNTS],
    ),
    "in [-1, 1], labels texts": lambda _: data.from_arrays(
        pictures(COUNTS.values())[0] / 127.5 - 1, np.repeat([*COUNTS], [*COUNTS.values()]), value_range=(-1, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_every_door_leads_to_the_same_set(door, tmp_path):
    folder = write(tmp_path / "set")
    sets, through = data.from_folder(folder), DOORS[door](folder)
    assert contents(through) == contents(sets)
    assert through.train.name.split("-")[1] == sets.train.name.split("-")[1]  # it follows from the content
    values = sets.train.take(range(len(sets.train)))
    assert values.mean((0, 2, 3)).abs().max() < 1e-3 and (values.std((0, 2, 3)) - 1).abs().max() < 2e-3


def test_arrays_may_bring_a_test_set_and_come_grey_and_not_square():
    images, labels = pictures([4, 4], (6, 9))
    sets = data.from_arrays(images, labels, images[::2], labels[::2])
    assert sets.train.shape == (1, 6, 9) and sets.train.class_names == ("0", "1")
    assert torch.equal(sets.test.images[:, 0], torch.from_numpy(images[::2])) and len(sets.test) == 4


test_arrays_that_leave_something_open_are_refused = refuses(
    lambda arguments: data.from_arrays(*arguments),
    [
        ((np.zeros((4, 3, 5, 3)), np.zeros(4, int)), "say channels_last"),
        ((np.zeros((4, 2, 5, 5)), np.zeros(4, int)), "say channels_last"),
        ((np.zeros((0, 5, 5)), np.zeros(0, int)), r"images are \(0, 1, 5, 5\) float64; allowed: .*, none of them 0"),
        ((np.zeros((4, 5, 5)), np.zeros(4, int)), "classes are 0; allowed: two or more"),
        ((np.zeros((4, 25)), np.zeros(4, int)), r"images are \(4, 25\) float64; allowed"),
        ((np.full((4, 5, 5), 7.0), np.zeros(4, int)), r"from 7.0 to 7.0; value_range=\(0, 1\) does not hold them"),
        ((np.full((4, 5, 5), 300), np.zeros(4, int)), r"value_range=\(0, 255\) does not hold them"),
        ((np.full((4, 5, 5), np.nan), np.zeros(4, int)), "does not hold them"),
        ((np.zeros((4, 5, 5)), np.zeros((4, 3))), r"\(4, 3\) labels; one label an image"),
        ((np.zeros((4, 5, 5)), np.zeros(3)), r"\(3,\) labels; one label an image"),
        ((np.zeros((4, 5, 5)), np.zeros(4), np.zeros((4, 5, 5))), "go together"),
        ((np.zeros((4, 5, 5)), np.zeros(4, int), np.zeros((2, 6, 5)), np.zeros(2, int)), "all alike"),
        ((np.zeros((4, 5, 5)), np.zeros(4, int), np.zeros((2, 5, 5)), np.ones(2, int)), "without a training image: 1"),
        ((np.zeros((4, 5, 5)), np.arange(4)), "no class has a second image to hold out"),
    ],
)


def test_a_part_of_a_set_of_torchvision_keeps_the_names_of_its_classes(tmp_path):
    whole = torchvision.datasets.ImageFolder(write(tmp_path / "set"))
    sets = data.from_datasets(*torch.utils.data.random_split(whole, [12, 5]))
    assert sets.train.class_names == ("ant", "bee", "cat")
    assert len(data.from_datasets(torch.utils.data.Subset(whole, range(17)), whole).test) == 17


def tensors(low, high):
    """Two classes of tensors from `low` to `high`, as transforms give them."""
    image = torch.tensor([low, high]).repeat(3, 6, 3)
    return [(image, 0), (image, 1)] * 2


test_items_that_are_no_pictures_with_labels_are_refused = refuses(
    data.from_datasets,
    [
        (tensors(-1.0, 1.0), "values are from -1 to 1; allowed: 0 to 1, as before normalising"),
        ([{"image": Image.new("RGB", (4, 4)), "label": 0}] * 4, "list does not give an image and a label by index"),
        ([("ant.png", 0)] * 4, "list does not give an image and a label by index: pic should be"),
    ],
)


@pytest.mark.parametrize("convert", [torch.tensor, np.array])
def test_real_numbers_are_rounded_to_eight_bits_and_must_lie_between_0_and_1(convert):
    pairs = [(convert([[[value] * 3] * 3] * 3), label) for value in (0.999, 0.5) for label in (0, 1)]
    assert data.from_datasets(pairs).train.images.unique().tolist() == [128, 255]
    for value in (2.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="allowed: 0 to 1"):
            data.from_datasets([*pairs, (convert([[[value] * 3] * 3] * 3), 0)])


def test_tensors_may_be_of_a_graph():
    pairs = [(image.requires_grad_(), label) for image, label in tensors(0.2, 0.6)]
    assert data.from_datasets(pairs).train.images.unique().tolist() == [51, 153]
    images, labels = (torch.stack(each) for each in ([i for i, _ in pairs], [torch.tensor(n) for _, n in pairs]))
    assert data.from_arrays(images, labels).train.images.unique().tolist() == [51, 153]
    with pytest.raises(ValueError, match=r"value_range=\(1, 1\); allowed: what is black, and a greater number"):
        data.from_arrays(images, labels, value_range=(1, 1))


def test_labels_without_a_name_and_columns_without_a_picture_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labels are int64 from 0 to 2; allowed: 0 to 1"):
        data.from_arrays(*pictures(COUNTS.values()), class_names=["a", "b"])
    with pytest.raises(ValueError, match="splits are test; one must be called train"):
        data.from_datasets({"test": None})
    write(tmp_path / "two", {"ant": 2, "bee": 2})
    both = [
        torchvision.datasets.ImageFolder(write(tmp_path / "set")),
        torchvision.datasets.ImageFolder(tmp_path / "two"),
    ]
    with pytest.raises(ValueError, match=r"the test set's classes are \['ant', 'bee'\], those of the training set"):
        data.from_datasets(*both)
    with pytest.raises(ValueError, match="one must be Image and one ClassLabel"):
        data.from_datasets(hub_set(write(tmp_path / "set")).select_columns(["label"]))


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_set_with_a_name_is_one_like_any_other(tmp_path):
    sets = data.from_folder(write(tmp_path / "set"), size=(8, 10))
    assert data.add(sets, "mine") == data.add(sets, "mine") == "mine" and data.add(sets) == sets.train.name
    info = datasets.describe("mine")
    assert (info.shape, info.num_classes, info.sizes) == ((3, 8, 10), 3, (13, 4))
    for split, images in (("train", sets.train), ("test", sets.test)):
        loaded = datasets.load("mine", split)
        assert loaded.fingerprint == images.fingerprint == datasets.fingerprint_of("mine", split)
        assert torch.equal(loaded.take([0, 1]), images.take([0, 1])) and loaded.class_names == ("ant", "bee", "cat")
    assert datasets.load("mine:2,0", "test").class_names == ("cat", "ant")
    assert datasets.load("mine", "test", zca=True).images.isfinite().all()
    assert datasets.check("mine").state == "ok" and datasets.names() == tuple(datasets.CATALOGUE)
    with pytest.raises(ValueError, match="unknown dataset 'yours'; known: digits, .*mine"):
        datasets.describe("yours")
    other = data.from_folder(tmp_path / "set")
    for name, message in {
        "mine": "taken by other images",
        "cifar10": "no name that ddlib has",
        "a/b": "allowed",
    }.items():
        with pytest.raises(ValueError, match=f"name='{name}'.*{message}"):
            data.add(other, name)


def test_a_folder_in_the_parameters_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    mapping = {"folder": str(write(tmp_path / "set")), "size": 8}
    (cell,) = cells(dataset=mapping, methods={"Random": {"method": "random"}})
    assert cell.dataset == data.from_folder(tmp_path / "set", size=8).train.name
    with monkeypatch.context() as patched:
        patched.setattr(own, "from_folder", lambda *_, **__: pytest.fail("read again"))
        assert study.settings({"dataset": mapping}).dataset == cell.dataset
    assert study.settings({"dataset": mapping | {"size": np.int64(8)}}).dataset == cell.dataset
    Image.new("RGB", (12, 12)).save(tmp_path / "set" / "ant" / "more.png")
    assert study.settings({"dataset": mapping}).dataset != cell.dataset


def test_a_folder_of_links_is_read_again_when_what_they_stand_for_changes(tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for folder in write(tmp_path / "set").iterdir():
        (linked / folder.name).symlink_to(folder)
    before = own.named(linked)
    Image.new("RGB", (12, 12)).save(tmp_path / "set" / "ant" / "0000.png")
    assert own.named(linked) != before


test_a_mapping_that_names_no_folder_is_refused = refuses(
    lambda **mapping: study.settings({"dataset": mapping}),
    [
        ({"size": 8}, "must be a name, or a mapping with a folder: folder, size, channels"),
        ({"folder": "nowhere"}, "nowhere' does not exist"),
        ({"folder": "nowhere", "sice": 8}, r"unknown parameter 'sice' \(did you mean 'size'\?\)"),
    ],
)


def test_the_command_gives_a_folder_a_name(tmp_path, capsys):
    words = ["--size", "6", "8", "--holdout", "0.5", "--at-least", "4"]
    words = ["data", "add", "mine", str(write(tmp_path / "set")), *words]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine: 13 + 8 images of 3x6x8, 3 classes; set-") and out.endswith("ant (3), cat (1)\n")
    assert cli.main(["data", "list"]) == 0 and re.search(r"\nmine +13 \+ 8 +3x6x8 +3 +there", capsys.readouterr().out)
    assert cli.main(["data", "check", "mine"]) == 0
    assert cli.main(["data", "add", "digits", str(tmp_path / "set")]) == 2
    assert "ddlib: name='digits'; allowed" in capsys.readouterr().err


# --- classes of unequal size ------------------------------------------------------------------------------------------


def test_images_of_a_small_class_are_repeated_where_as_many_are_asked(tmp_path):
    folder = write(tmp_path / "set")
    few = data.from_folder(folder).train
    with pytest.raises(
        ValueError, match=r"ipc=5 is not in 1..2, .*'cat'.*`at_least` of a data set of your own repeats"
    ):
        coresets.check_ipc(5, few)
    more = data.from_folder(folder, at_least=5)
    assert torch.bincount(more.train.labels).tolist() == [5, 7, 5] and torch.bincount(more.test.labels).tolist() == [
        1,
        2,
        1,
    ]
    assert more.note.endswith("training images repeated, since at_least=5: ant (4), cat (2)")
    cats, repeated = few.images[few.labels == 2], more.train.images[more.train.labels == 2]
    assert torch.equal(repeated, cats[[0, 1, 0, 1, 0]]) and torch.equal(more.train.images[: len(few)], few.images)
    coresets.check_ipc(5, more.train)


def started(name, norm):
    """A method on classes of 4, 7 and 2 images, which asks for 5 a step."""
    train = data.from_arrays(*pictures(COUNTS.values())).train
    method = small(name, batch_real=5, norm=norm, strategy="none")
    return method, method.start(train, {}, 0)


@pytest.mark.parametrize(("name", "norm", "sizes"), [("dm", "instance", [4, 5, 2]), ("datadam", "batch", [2, 2, 2])])
def test_a_class_gives_a_step_as_many_real_images_as_it_has(name, norm, sizes):
    """With batch norm all give as many as the smallest can; either way the matched means are those of each class."""
    method, state = started(name, norm)
    models.reset(state.network, seeding.generator(0, "network", 0))
    real = pixels.real_batch(state)
    assert len(real) == sum(sizes) and pixels.real_sizes(state) == (sizes if len(set(sizes)) > 1 else None)
    found = method.statistics(state, real, pixels.real_sizes(state))
    vectors = method.vectors(state.network.features(real))
    for mean, vector in zip(found, vectors, strict=True):
        alone = [part.mean(0) for part in vector.split(sizes)]
        torch.testing.assert_close(mean, torch.stack(alone), rtol=1e-5, atol=1e-6)
    losses = [float(method.step(state)["loss"]) for _ in range(2)]
    assert np.isfinite(losses).all() and method.finish(state).provenance["batch_real"] == max(sizes)


def test_gradients_of_classes_of_unequal_size_are_those_of_each_alone():
    method, state = started("dsa", "instance")
    gradient_matching.freeze_statistics(state)
    real, sizes = pixels.real_batch(state), pixels.real_sizes(state)
    found = method.class_gradients(state, real, sizes)
    for k, own_images in enumerate(real.split(sizes)):
        loss = torch.nn.functional.cross_entropy(state.network(own_images), torch.full((sizes[k],), k))
        alone = torch.autograd.grad(loss, [*state.network.parameters()])
        for ours, theirs in zip(found, alone, strict=True):
            torch.testing.assert_close(ours[k], theirs, rtol=1e-4, atol=1e-6)
    method.step(state)


def test_siamese_draws_stay_with_their_classes_where_sizes_differ():
    _, state = started("dm", "instance")
    state.strategy = "color"
    flat = torch.ones(11, 3, 12, 12), torch.ones(6, 3, 12, 12)
    real, syn = pixels.siamese(state, *flat, sizes=[4, 5, 2])
    by_class = syn.reshape(3, 2, -1)[:, 0]
    assert torch.equal(by_class.repeat_interleave(torch.tensor([4, 5, 2]), 0), real.flatten(1))


# --- from a folder to what travels ------------------------------------------------------------------------------------

ROWS = {
    "Random": {"method": "random"},
    "DM": {"method": "dm", "iterations": 2, "batch_real": 4},
    "MTT": {
        "method": "mtt", "iterations": 1, "syn_steps": 2, "expert_epochs": 1, "max_start_epoch": 1, "experts": 1,
        "expert_training": 1, "shard": 1,
    },
}  # fmt: skip
MADE = {
    "grey, 9 unequal classes": ({f"tissue {k}": 3 + 2 * k for k in range(9)}, (14, 14), (1, 14, 14)),
    "colour, 120 classes, not square": ({f"breed {k:03}": 2 + k % 3 for k in range(120)}, (8, 12, 3), (3, 8, 12)),
    "transparent": ({"ant": 3, "bee": 4}, (8, 8, 4), (4, 8, 8)),
}


@pytest.mark.parametrize("name", MADE)
def test_a_set_of_ones_own_goes_all_the_way(name, workplace, tmp_path):
    counts, shape, expected = MADE[name]
    mapping = {"folder": str(write(tmp_path / "own", counts, shape))} | ({"channels": 4} if expected[0] == 4 else {})
    rows = cells(
        dataset=mapping,
        methods=ROWS,
        seeds=[0],
        evaluation={"num_networks": 1, "epochs": 20, "batch_size": 9, "augmentation": "none"},
    )
    info = datasets.describe(rows[0].dataset)
    assert (info.shape, info.num_classes) == (expected, len(counts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trajectory matching says which images its few steps leave out
        records = study.run(rows, workplace)
    assert [record.n for record in records] == [1, 1, 1] and all(study.finished(cell, workplace) for cell in rows)
    assert {record.provenance["data"] for record in records} == {datasets.fingerprint_of(info.name, "train")}
    assert info.name in str(report.table(records))
    sets = {cell.label: study.synthetic_set(cell, 0, workplace) for cell in rows}
    picture = io.BytesIO()
    report.image_grid(sets).savefig(picture)
    assert picture.tell() > 1000
    source = export.chosen(str(study.work.distillation(rows[1], 0, workplace).folder), workplace.folder)
    for form in ("png", "safetensors"):
        export.export(source, form, tmp_path / form)
    assert len([*(tmp_path / "png" / "images").glob("*/*.png")]) == len(counts)
    travelled = synthetic.load(tmp_path / "safetensors" / "synthetic.safetensors")
    assert tuple(evaluation.again(travelled).accuracies) == tuple(records[1].accuracies)
    assert max(record.accuracies[0] for record in records) > 1.5 * 100 / len(counts)
    read, seen = (data.read_set(tmp_path / form, dataset=info.name) for form in ("safetensors", "png"))
    judged = judge.judge(read, "theirs", info.name, workplace, protocol=rows[1].protocol, whole=False)
    assert judged[0].accuracies == records[1].accuracies
    assert (seen.pixels() - read.pixels()).abs().max() < 0.51 / 255 and seen.labels.sort().values.equal(read.labels)


def test_the_examples_of_the_page_run_as_they_stand(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos", shape=(40, 50, 3))
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        exec(compile(block, "docs/your-data.md", "exec"), {})
