"""Anybody's distilled set: every published layout is read as what it is, or refused, and judged as the set itself."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_exports import digits

from ddlib import evaluation, export, report, results
from ddlib.analyses import judge
from ddlib.batch import cli
from ddlib.data import datasets, released
from ddlib.data.released import read_set
from ddlib.results import scores

PROTOCOL = evaluation.Protocol(options={"width": 8, "depth": 2}, num_networks=3, epochs=6, batch_size=20)
CLASSES = datasets.describe("digits").class_names


def pictures(folder, found, name="new{:03}"):
    """Class folders of PNGs."""
    for row, (image, label) in enumerate(zip(found.pixels(), found.labels, strict=True)):
        path = folder / "pictures" / name.format(int(label)) / f"class{int(label):03}_id{row:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(path)
    return folder / "pictures"


def saved(folder, **contents):
    """Files of `torch.save` by their stems; the first one's path."""
    for stem, content in contents.items():
        torch.save(content, folder / f"{stem}.pt")
    return folder / f"{next(iter(contents))}.pt"


def res(found):
    """What DC, DSA and DM save, numbers of numpy among it."""
    first, second = [found.images + 1, found.labels], [found.images, found.labels]
    return {"data": [first, second], "accs_all_exps": {"ConvNet": [np.float64(0.5), np.mean([0.1])]}}


def npz(folder, **arrays):
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def stretched(low, high):
    """Pixels of digits, from `low` to `high`."""
    return digits().pixels().clamp(0, 1) * (high - low) + low


def eight_bits(found):
    return (found.pixels() * 255).round().byte()


HARD = {
    "MTT, images alone": lambda to, s: (saved(to, images_best=s.images), {}),
    "MTT": lambda to, s: (saved(to, images_best=s.images, labels_best=s.labels, lr_best=torch.tensor(0.02)), {}),
    "folder of MTT": lambda to, s: (saved(to, images_best=s.images, labels_best=s.labels).parent, {}),
    "DC, DSA, DM": lambda to, s: (saved(to, res_DM_digits_ConvNet_2ipc=res(s)), {"experiment": 1}),
    "IDC": lambda to, s: (saved(to, data=[s.pixels(), s.labels]), {}),
    "one-hot": lambda to, s: (saved(to, images=s.images, labels=torch.eye(10)[s.labels]), {}),
    "npz, NHWC bytes": lambda to, s: (npz(to, x=eight_bits(s).permute(0, 2, 3, 1).numpy(), y=s.labels.numpy()), {}),
    "npz, no channel": lambda to, s: (npz(to, images=eight_bits(s)[:, 0].float().numpy(), labels=s.labels), {}),
    "SRe2L": lambda to, s: (pictures(to, s), {}),
    "pictures by class names": lambda to, s: (pictures(to, s, "{}"), {}),
}


@pytest.mark.parametrize("layout", HARD)
def test_a_set_of_classes_is_read_from_every_published_layout(layout, tmp_path):
    ours = digits()
    path, how = HARD[layout](tmp_path, ours)
    found = read_set(path, dataset="digits", **how)
    assert torch.equal(found.labels, ours.labels) and found.class_names == CLASSES
    assert torch.allclose(found.images, ours.images, atol=1e-6 if path.suffix == ".pt" else 0.51 / 255 / 0.3)
    assert found.learning_rate == (pytest.approx(0.02) if layout == "MTT" else None)
    assert found.space.name == "normalised" and "labels: " in found.provenance["read_as"]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_soft_labels_are_told_apart_by_their_sums(kind, tmp_path):
    ours = digits(soft=True)
    labels = ours.labels if kind == "logits" else ours.labels.softmax(1)
    found = read_set(saved(tmp_path, images_best=ours.images, labels_best=labels), dataset="digits")
    assert f"labels: {kind}, recognised" in found.provenance["read_as"]
    assert torch.allclose(found.labels.softmax(1), ours.labels.softmax(1), atol=1e-6)


@pytest.mark.parametrize("given", ["beside a tensor", "beside pictures"])
def test_labels_may_be_given_by_name(given, tmp_path):
    ours = digits(soft=True)
    saved(tmp_path, labels_best=ours.labels)
    main = pictures(tmp_path, digits()) if "pictures" in given else saved(tmp_path, syn=ours.images)
    found = read_set(main, tmp_path / "labels_best.pt", dataset="digits")
    assert torch.equal(found.labels, ours.labels)


@pytest.mark.parametrize(("space", "zca"), [("zca", True), ("zca_pixels", "pixels")])
def test_whitened_images_are_read_by_the_data_sets_own_zca_where_that_is_told(space, zca, tmp_path):
    ours = digits(zca=zca)
    path = saved(tmp_path, images_best=ours.images)
    found = read_set(path, dataset="digits", space=space)
    assert torch.equal(found.images, ours.images) and found.space is datasets.load("digits", "test", zca=zca).space
    assert f"{found.space.name}, by the ZCA of digits, told" in found.provenance["read_as"]
    with pytest.raises(ValueError, match="they may be normalised or whitened; give space="):
        read_set(path, dataset="digits")


def test_images_normalised_by_other_constants_are_brought_to_those_of_the_data(tmp_path):
    ours, theirs = digits(), datasets.describe("mnist")
    path = saved(tmp_path, images=(ours.space.decode(ours.images) - theirs.mean[0]) / theirs.std[0])
    found = read_set(path, dataset="digits", by="mnist", space="normalised")
    assert torch.allclose(found.images, ours.images, atol=1e-5) and "of mnist, told" in found.provenance["read_as"]


@pytest.mark.parametrize("factor", [2, 3])
def test_the_images_in_an_image_of_idc_are_cut_out_and_enlarged(factor, tmp_path):
    images = digits().pixels()
    side = -(-16 // factor)
    padded = torch.full((20, 1, factor * side, factor * side), 0.5)
    padded[..., :16, :16] = images
    parts = [
        torch.nn.Upsample(size=16, mode="bilinear")(padded[:, :, i : i + side, j : j + side])
        for i in range(0, factor * side, side)
        for j in range(0, factor * side, side)
    ]
    found = read_set(saved(tmp_path, data=[images, digits().labels]), dataset="digits", factor=factor)
    expected = torch.stack(parts, 1).flatten(0, 1)
    assert torch.allclose(found.pixels(), expected, atol=1e-6) and found.provenance["stored"] == 20
    assert torch.equal(found.labels, digits().labels.repeat_interleave(factor**2))


EXPORTED = {
    "safetensors": "synthetic.safetensors",
    "npz": "set.npz",
    "pt": "set.pt",
    "hf": "data/train-00000-of-00001.parquet",
    "ddranking": "images.pt",
    "dcbench": "",
    "png": "",
}
"""Form of ours -> the file in it; "" for the folder alone."""
EXACT = ("safetensors", "npz", "pt", "hf", "ddranking")


@pytest.mark.parametrize("kind", ["hard", "soft", "zca"])
@pytest.mark.parametrize("form", EXPORTED)
def test_what_we_export_is_read_back_and_judged_as_the_set_itself(form, kind, tmp_path, workplace):
    changes = {"learning_rate": 0.02, "strategy": "crop"} if form in ("safetensors", "npz", "pt", "hf") else {}
    ours = digits(zca="pixels" if kind == "zca" else False, soft=kind != "hard", **changes)
    folder = export.export(ours, form, tmp_path / "set")
    told = {"space": "zca_pixels"} if (form, kind) == ("ddranking", "zca") else {}
    found = read_set(folder, dataset="digits", **told)
    same = read_set(folder / EXPORTED[form], dataset="digits", **told)
    assert torch.equal(found.images, same.images) and torch.equal(found.labels, same.labels)
    undone = (form, kind) == ("dcbench", "zca")  # DC-BENCH does not whiten
    assert found.space.name == ("normalised" if undone else ours.space.name)
    if form in EXACT and not undone:
        assert torch.equal(found.images, ours.images) and torch.equal(found.labels, ours.labels)
        for name in ("learning_rate", "strategy", "class_names"):
            assert getattr(found, name) == getattr(ours, name)
    elif not undone:
        assert (found.pixels() - ours.pixels()).abs().max() <= 0.51 / 255
        targets = [set_.labels.softmax(1) if set_.is_soft else set_.labels for set_ in (found, ours)]
        assert torch.allclose(*targets, atol=1e-6)
    if form == "npz":  # the others hold the same
        test = datasets.load("digits", "test", zca="pixels" if kind == "zca" else False)
        theirs = judge.judge(found, "theirs", "digits", workplace, protocol=PROTOCOL, whole=False)[0]
        assert theirs.accuracies == evaluation.evaluate(ours, test, PROTOCOL, seed=0).accuracies


TWELVE = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "Eleven", "T-shirt/top")


@pytest.mark.parametrize(
    ("folders", "how"),
    [
        ([name.upper().replace("/", "_") for name in TWELVE], "names"),
        ([str(number) for number in range(12)], "numbers"),
        ([f"{number}_{name[0]}" for number, name in enumerate(TWELVE)], "numbers"),
    ],
)
def test_folders_are_the_classes_that_their_names_or_numbers_say(folders, how, tmp_path):
    """Of twelve classes, whose order is not the alphabet's."""
    info = replace(datasets.describe("digits"), class_names=TWELVE, num_classes=12)
    paths = [tmp_path / name for name in folders]
    assert released._by_class(paths[::-1], tmp_path, info) == (paths, f", by the folders' {how}")


@pytest.mark.parametrize(("images", "labels"), [("images", "label"), ("data", "target"), ("image", "labels")])
def test_labels_are_never_passed_over(images, labels, tmp_path):
    ours = digits()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    entries = {images: ours.images[order], labels: ours.labels[order]}
    for path in (saved(tmp_path, set=entries), npz(tmp_path, **{name: each.numpy() for name, each in entries.items()})):
        assert torch.equal(read_set(path, dataset="digits").labels, ours.labels[order])


def test_bytes_of_two_values_are_black_and_white(tmp_path):
    binary = (digits().pixels() > 0.5).byte()
    found = read_set(saved(tmp_path, images=binary), dataset="digits", space="pixels")
    assert torch.allclose(found.pixels(), binary.float(), atol=1e-6)


def test_an_export_with_soft_labels_may_lack_a_class_among_the_largest(tmp_path):
    ours = digits(soft=True)
    few = replace(ours, labels=ours.labels.index_fill(1, torch.tensor(4), -9.0))
    found = read_set(export.export(few, "png", tmp_path / "set"), dataset="digits")
    assert torch.allclose(found.labels.softmax(1), few.labels.softmax(1), atol=1e-6)
    assert (found.pixels() - few.pixels()).abs().max() <= 0.51 / 255


GREYS = torch.linspace(0, 1, 2560).view(10, 1, 16, 16)
SQUARE = torch.linspace(0, 1, 100).view(10, 10)
"""Labels of ten images and ten classes that are none: neither sums of 1, nor integers."""

REFUSED = {
    "missing": (lambda to: to / "set.npz", {}, r"set\.npz does not exist"),
    "labels alone": (lambda to: to / "labels.pt", {}, "allowed: one file or folder of images"),
    "classes do not divide": ({"images": GREYS[:7]}, {}, "7 images without labels"),
    "another size": ({"images": torch.rand(10, 3, 32, 32)}, {}, r"images of \(3, 32, 32\); allowed:"),
    "unknown space": ({"images": GREYS}, {"space": "hsv"}, "space='hsv'; it must"),
    "unknown labels": ({"images": GREYS}, {"labels": "hot"}, "labels='hot'; it m"),
    "no sum of 1": ({"images": GREYS, "labels": SQUARE}, {}, "do not sum to 1; give labels="),
    "probabilities told": (
        {"images": GREYS, "labels": -SQUARE},
        {"labels": "probabilities"},
        "theirs are negative or do not sum to 1",
    ),
    "logits told": (
        {"images": GREYS, "labels": torch.full((10, 10), 0.1)},
        {"labels": "logits"},
        "labels are probabilities",
    ),
    "classes told": ({"images": GREYS, "labels": SQUARE[:, :1] / 2}, {"labels": "classes"}, "are no classes"),
    "a class missing": (lambda to: pictures(to, replace(digits(), labels=digits().labels // 2)), {}, "5 class folders"),
    "experiments": (lambda to: saved(to, res_DM=res(digits())), {"experiment": 2}, "holds those from 0 to 1"),
    "several": (lambda to: saved(to, res_DM=res(digits()), res_DC=res(digits())).parent, {}, "holds 2 sets; name one"),
    "code": (
        {"res_DM": {"data": torch.nn.Linear(2, 2)}},
        {},
        r"^[^\x1b\n]*more than tensors, numbers and texts[^\x1b\n]*: torch.nn.modules.linear.Linear$",
    ),
    "text": ({"res_DM": ["a", "b", "c"]}, {}, "holds list; allowed: images"),
    "labels of another name": (
        {"set": {"images": GREYS, "classes": torch.arange(10)}},
        {},
        r"holds images, classes; allowed: .*labels \(label, y, targets, target\)",
    ),
    "tanh": (lambda to: saved(to, images=stretched(-1, 1)), {}, r"lie in \[-1.00, 1.00\].*to \[0, 1\] first"),
    "pixels told": ({"images": 1.7 * GREYS}, {"space": "pixels"}, r"lie in \[0, 1.7\]; allowed"),
    "not finite": ({"images": GREYS / 0}, {}, "not finite; allowed"),
    "labels of another set": (
        {"images": GREYS, "labels": torch.arange(10) * 5},
        {},
        "10 labels from 0 to 45 for 10 images; allowed: one an image, from 0 to 9 as digits has",
    ),
    "logits of another set": (
        {"images": GREYS, "labels": SQUARE.repeat(1, 10) - 2},
        {},
        r"labels='logits' of shape \(10, 100\); allowed: \(10, 10\)",
    ),
    "folders of other names": (lambda to: pictures(to, digits(), "{:b}"), {}, "or numbers from 0 on"),
    "ending": (lambda to: (to / "set.txt").write_text("x") and to / "set.txt", {}, "allowed: a folder, .pt"),
    "bytes told": (lambda to: pictures(to, digits()), {"space": "normalised"}, "images are integers from 0 to 255"),
    "constants of pixels": (lambda to: pictures(to, digits()), {"by": "mnist"}, "by='mnist', and images are pixels"),
    "stated": (
        lambda to: export.export(digits(), "npz", to / "set") / "set.npz",
        {"space": "zca"},
        "states its own value space; leave them out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_understood_in_several_ways_or_in_none_is_refused(case, tmp_path):
    written, how, match = REFUSED[case]
    path = saved(tmp_path, **written) if isinstance(written, dict) else written(tmp_path)
    with pytest.raises(FileNotFoundError if case == "missing" else ValueError, match=match):
        read_set(path, dataset="digits", **how)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more"])
@pytest.mark.parametrize("name", ["set.npz", "images.pt"])
def test_files_that_are_not_whole_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} holds more than tensors, numbers and texts, or is not whole"):
        read_set(tmp_path / name, dataset="digits")


def test_an_archive_with_other_bytes_inside_is_refused_and_an_array_under_its_name_is_read(tmp_path):
    path, images = tmp_path / "set.npz", stretched(0, 1).numpy()
    np.savez_compressed(path, images=images)
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="set.npz holds more than tensors, numbers and texts, or is not whole: error"):
        read_set(path, dataset="digits")
    with path.open("wb") as file:
        np.save(file, images)
    assert len(read_set(path, dataset="digits")) == len(images)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (["0"] * 10, "labels or rates are list"),
        ([[0], [0, 1]], "labels or rates are list"),
        (torch.tensor(3), "labels are one number, 3; allowed"),
    ],
)
def test_labels_that_are_no_numbers_an_image_are_refused(labels, match, tmp_path):
    with pytest.raises(ValueError, match=match):
        read_set(saved(tmp_path, set={"images": GREYS, "labels": labels}), dataset="digits")


def test_real_images_are_smooth_and_noise_is_not():
    train = datasets.load("digits", "train")
    assert released.smoothness(train.take(range(99))) > 0.8
    assert abs(released.smoothness(torch.randn(50, 1, 16, 16))) < 0.05
    both = torch.tensor([[1.0, 2.0], [3.0, 6.0]]).view(1, 1, 2, 2)  # less 3: -2 -1 / 0 3, products 2 0 and 0 -3
    assert released.smoothness(both) == pytest.approx((2 + 0 + 0 - 3) / 4 / (14 / 4))


# ---- the judgement


def test_a_set_stands_beside_random_and_all_images_with_the_robust_scores(workplace):
    judged = judge.judge(digits(soft=True), "theirs", "digits", workplace, protocol=PROTOCOL)
    by = {(record.label, record.network): record for record in judged}
    random, whole, theirs = (by[label, "convnet"] for label in ("Random", "Whole", "theirs"))
    assert (theirs.ipc, random.ipc, whole.ipc) == (2, 2, None) and {r.n for r in judged} == {3}
    assert random.cell["seeds"] == [0, 1, 2] and random.cell["protocol"]["num_networks"] == 1
    entries = report.standings(judged, **judge.names(judged))[2]
    entry = next(e for e in entries if e.record.label == "theirs")
    hard = by["theirs, hard", "convnet"]
    assert entry.lrs == scores.lrs(full=whole, hard=hard, own=theirs, random=random)
    plain = [by[label, judge.PLAIN] for label in ("theirs", "Random")]
    assert entry.ars == scores.ars(aug=theirs, noaug=plain[0], random_aug=random, random_noaug=plain[1])
    again = judge.judge(digits(soft=True), "theirs", "digits", workplace, protocol=PROTOCOL)
    assert [r.cost for r in again] == [r.cost for r in judged]  # nothing was computed again
    other = replace(judged[0], label="ours")  # of another study, among these rows
    ranked = report.standings([*judged, other], **judge.names(judged))[2]
    assert {"ours", "theirs", "Random", "Whole"} <= {entry.record.label for entry in ranked}


def test_other_images_are_another_set_in_the_store():
    ours = digits()
    assert judge.given(ours) == judge.given(digits())
    for other in (replace(ours, images=ours.images + 0.1), replace(ours, learning_rate=0.1), digits(ipc=1)):
        assert judge.given(other) != judge.given(ours)


def test_a_recipe_is_a_methods_or_a_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 7\nlr: 0.1\n")
    (tmp_path / "none.yaml").write_text("epochs\n")
    (tmp_path / "wrong.yaml").write_text("epoch: 7\n")
    assert judge.recipe(None) == evaluation.Protocol() and judge.recipe("datm").batch_size == 128
    assert (judge.recipe(str(tmp_path / "mine.yaml")).epochs, judge.recipe(str(tmp_path / "mine.yaml")).lr) == (7, 0.1)
    for name, match in (("tm", "unknown method 'tm'"), ("none.yaml", "holds str; "), ("wrong.yaml", "setting 'epoch'")):
        with pytest.raises(ValueError, match=match):
            judge.recipe(str(tmp_path / name) if "." in name else name)


def test_a_label_of_another_row_is_refused(workplace):
    with pytest.raises(ValueError, match="label='Random' is that of another row"):
        judge.judge(digits(), "Random", "digits", workplace)


def test_the_command_says_what_it_read_and_writes_rows_for_a_leaderboard(tmp_path, capsys):
    path = saved(tmp_path, images_best=digits().images)
    settings = {"options": {"width": 8, "depth": 2}, "num_networks": 2, "epochs": 2, "batch_size": 20}
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    words = ["judge", str(path), "--dataset", "digits", "--recipe", str(tmp_path / "recipe.yaml"), "--label", "MTT"]
    assert cli.main([*words, "--store", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "normalised, by mean and std of digits, recognised by their values; no labels: class by class" in said
    assert "over n networks" in said and "LRS" in said and "MTT" in said
    assert cli.main(["runs", "list", "--store", str(tmp_path / "runs")]) == 0 and "MTT" in capsys.readouterr().out
    (file,) = (tmp_path / "runs" / "judged").glob("MTT-*.json")
    records = results.read(file)
    assert {record.label for record in records} == {"MTT", "Random", "Whole"}
    assert "recognised" in records[0].provenance["read_as"] and records[0].verdict == "NO REFERENCE"
    assert cli.main([*words[:4], "--space", "zca", "--by", "nothing"]) == 2
    assert "unknown dataset 'nothing'" in capsys.readouterr().err


def test_records_of_other_files_of_the_same_name_stay(tmp_path, monkeypatch):
    settings = {"options": {"width": 8, "depth": 2}, "num_networks": 2, "epochs": 1, "augmentation": "none"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings))
    words = ["--dataset", "digits", "--recipe", str(tmp_path / "recipe.yaml"), "--store", str(tmp_path), "--no-whole"]
    for name, sign in (("a", 1), ("b", -1), ("b", -1)):
        (tmp_path / name).mkdir(exist_ok=True)
        path = saved(tmp_path / name, images_best=sign * digits().images)
        assert cli.main(["judge", str(path), "--space", "normalised", *words]) == 0
    monkeypatch.chdir(tmp_path / "a")
    assert cli.main(["judge", ".", *words]) == 0
    stems = [path.stem.rpartition("-")[0] for path in (tmp_path / "judged").iterdir()]
    assert sorted(stems) == ["a", "images_best", "images_best"]


def test_the_commands_choices_are_those_of_the_reader(capsys):
    for option, known in (("--space", released.SPACES), ("--labels", released.LABELS)):
        with pytest.raises(SystemExit):
            cli.main(["judge", "set.npz", "--dataset", "digits", option, "?"])
        assert re.findall(r"\w+", capsys.readouterr().err.rpartition("(choose from")[2]) == [*known]
