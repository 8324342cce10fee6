"""Labels of an evaluation: the classes alone, a teacher's answers once an image, or about every augmented batch."""

from dataclasses import asdict, replace

import pytest
import test_rows
import torch
from draws import equal
from few_digits import cut_and_resumed, digits, product
from test_evaluate import EXACT, SHAPE, SPACE, STRATEGY, distance, make_synthetic, make_test, normal, plain
from test_stream import make

from ddlib import models, study
from ddlib.evaluation import Protocol, Teacher, bytes_stored, evaluate, training
from ddlib.evaluation.images import training_images
from ddlib.study import work

CLASSES = 3
SMALL = Protocol(options={"width": 4, "depth": 2}, num_networks=2, epochs=4, batch_size=6, lr=0.1)
PLAIN = replace(SMALL, augmentation=False)


@pytest.fixture(scope="module")
def test_images():
    return make_test()


def make_stream(**changes):
    return make(**{"space": SPACE, "strategy": STRATEGY, "frozen_strategy": STRATEGY, "ipc": 2, "redraw": 1} | changes)


class Linear:
    """A teacher whose logits are linear in the pixels, and that counts what it is asked about."""

    def __init__(self, scale=1.0):
        self.weights, self.asked = scale * normal(64, CLASSES, seed=9), 0

    def __call__(self, images):
        self.asked += len(images)
        return images.flatten(1) @ self.weights.to(images.dtype)


def judged(protocol, test, synthetic=None, **told):
    return evaluate(make_synthetic() if synthetic is None else synthetic, test, protocol, seed=0, **told)


def test_hard_labels_are_the_most_probable_classes_and_the_learnt_rate_stays(test_images):
    soft = make_synthetic(soft=True, learning_rate=0.05)
    hard = replace(soft, labels=soft.labels.argmax(1))
    ours = judged(replace(SMALL, labels="hard"), test_images, soft)
    assert replace(ours, seconds=0) == replace(judged(SMALL, test_images, hard), seconds=0)
    assert ours.train_losses != judged(SMALL, test_images, soft).train_losses
    assert ours.train_losses != judged(SMALL, test_images, replace(hard, learning_rate=None)).train_losses


@pytest.mark.parametrize("made", [make_synthetic, make_stream, lambda: make_stream(redraw=None)])
def test_without_augmentation_once_an_image_is_once_a_batch(made, test_images):
    fixed, batch = (
        judged(replace(PLAIN, labels=labels), test_images, made(), teacher=Linear()) for labels in ("fixed", "batch")
    )
    assert (fixed.accuracies, fixed.train_losses) == (batch.accuracies, batch.train_losses)
    on = judged(replace(SMALL, labels="batch"), test_images, made(), teacher=Linear())
    once = judged(replace(SMALL, labels="fixed"), test_images, made(), teacher=Linear())
    assert on.train_losses != pytest.approx(once.train_losses, rel=1e-3)


@pytest.mark.parametrize("labels", ["fixed", "batch"])
@pytest.mark.parametrize("networks", [(1,), (0, 1)], ids=["alone", "together"])
def test_networks_are_those_of_the_plain_loop(labels, networks):
    protocol, teacher = replace(SMALL, labels=labels), Linear(0.3)
    found = training_images(make_synthetic(), protocol, 0, teacher=teacher)
    asked_once = found.targets if labels == "batch" else teacher(found.images.double()).softmax(1)
    found = replace(found, images=found.images.double(), targets=asked_once)
    learner = training.learner(protocol, SHAPE, CLASSES)
    (trained,) = training.train(learner, found, protocol, networks=networks, seed=0)
    for index, ours in zip(networks, trained, strict=True):
        asked = {"teacher": teacher} if labels == "batch" else {}
        model, _ = plain(found.images, teacher(found.images).softmax(1), protocol, index, **asked)
        assert distance(ours, model) < EXACT


def test_how_often_a_teacher_is_asked(test_images):
    fixed, batch, off = Linear(), Linear(), Linear()
    judged(replace(SMALL, labels="fixed"), test_images, teacher=fixed)
    judged(replace(SMALL, labels="batch"), test_images, teacher=batch)
    judged(replace(PLAIN, labels="batch"), test_images, teacher=off)
    assert (fixed.asked, off.asked, batch.asked) == (14, 14, 14 * SMALL.rounds * SMALL.num_networks)


def test_a_stream_is_labelled_as_it_is_drawn(test_images):
    stream, teacher = make_stream(redraw=2), Linear()
    protocol = replace(SMALL, labels="fixed")
    found = training_images(stream, protocol, 0, teacher=teacher)
    for epoch in range(3):
        for images, targets in found.epoch(epoch, (0, 1), 0, 6):
            assert torch.allclose(targets, teacher(images.flatten(0, 1)).softmax(1).view(2, 6, CLASSES), atol=1e-6)
    hard = judged(replace(SMALL, labels="hard"), test_images, stream)
    assert hard.train_losses == judged(SMALL, test_images, stream).train_losses
    for labels in ("fixed", "batch"):
        asked = Linear()
        judged(replace(SMALL, labels=labels), test_images, stream, teacher=asked)
        times = {"fixed": 3, "batch": 5}[labels]  # 3 draws of 2 epochs each serve the 5 epochs
        assert asked.asked == times * len(stream) * SMALL.num_networks


def test_bytes_are_those_of_what_is_trained_on():
    hard, soft, stream = make_synthetic(), make_synthetic(soft=True), make_stream()
    images = 14 * 64 * 4
    assert [bytes_stored(hard, labels) - images for labels in (None, "hard", "fixed")] == [14 * 8, 14 * 8, 14 * 12]
    assert bytes_stored(soft, None) == images + 14 * 12 and bytes_stored(soft, "hard") == images + 14 * 8
    assert bytes_stored(soft, "batch", teacher_bytes=1000) == images + 1000
    assert bytes_stored(stream, "hard") == bytes_stored(stream, None) == stream.bytes_stored
    assert bytes_stored(stream, "fixed", teacher_bytes=1000) == stream.bytes_stored + 1000


def test_bytes_of_a_frozen_stream_are_those_of_its_images_where_these_are_less():
    stream = make_stream(redraw=None)
    drawn = stream.frozen(0)
    assert len(drawn) == 6 and drawn.bytes_stored < stream.bytes_stored
    for labels in (None, "hard", "fixed", "batch"):
        assert bytes_stored(stream, labels, teacher_bytes=1000) == bytes_stored(drawn, labels, teacher_bytes=1000)
    many = make_stream(redraw=None, ipc=1000)
    assert bytes_stored(many, None) == bytes_stored(many, "hard") == many.bytes_stored
    assert bytes_stored(many, "batch", teacher_bytes=1000) == many.bytes_stored + 1000


def test_labels_and_their_teacher_come_together(test_images):
    with pytest.raises(ValueError, match="labels='fixed' asks a teacher, and teacher is None; allowed: images -> log"):
        judged(replace(SMALL, labels="fixed"), test_images)
    with pytest.raises(ValueError, match="teacher is given and labels=None asks none; allowed: fixed or batch"):
        judged(SMALL, test_images, teacher=Linear())
    assert not {"labels", "teacher"} & SMALL.settings().keys(), "the defaults are no part of a protocol's name"
    told = replace(SMALL, labels="fixed", teacher={"epochs": 3}).settings()
    assert told["labels"] == "fixed" and told["teacher"] == {"epochs": 3}


def test_the_teacher_is_of_the_students_kind_unless_told():
    protocol = Protocol(labels="batch", network="vgg11", options={"norm": "instance"}, teacher={"epochs": 3})
    assert protocol.taught_by == Teacher(network="vgg11", options={"norm": "instance"}, epochs=3)
    other = replace(protocol, teacher={"network": "convnet"}).taught_by
    assert other == Teacher(network="convnet", options={}) and SMALL.taught_by is None


def test_a_teacher_learns_and_is_frozen(train, test):
    builder = Teacher(options={"width": 16, "depth": 2}, epochs=8)
    network = builder.frozen(train, product(builder, train))
    right = network(test.take(torch.arange(len(test)))).argmax(1) == test.labels
    assert right.float().mean() > 0.85
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_teacher_that_was_interrupted_goes_on_to_the_same_bits(tmp_path):
    some, before = digits(10), torch.random.get_rng_state()
    builder = Teacher(options={"width": 4, "depth": 1, "norm": "batch"}, epochs=3)
    whole = product(builder, some)
    assert equal(cut_and_resumed(builder, some, {}, tmp_path), whole)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not equal(product(replace(builder, augmentation=False), some), whole)


ROWS = {
    "Random": {"method": "random"},
    "hard": {"method": "random", "evaluation": {"labels": "hard", "augmentation": False, "teacher": {}}},
    "once": {"method": "random", "evaluation": {"labels": "fixed"}},
    "Herding": {"method": "herding", "epochs": 1},
    "GAN": {"method": "gan", "gan_iterations": 1, "generator_width": 8, "evaluation": {"batch_size": 10}},
}


@pytest.fixture(scope="module")
def study_of_labels(tmp_path_factory):
    """Cells and records, with what the plan said before."""
    workplace = study.Workplace("cpu", folder=tmp_path_factory.mktemp("runs"), progress="none")
    evaluation = {"num_networks": 2, "epochs": 2, "labels": "batch", "teacher": {"epochs": 1}}
    cells = test_rows.cells(methods=ROWS, evaluation=evaluation)
    plan = study.plan(cells, workplace)
    return workplace, cells, plan, {record.label: record for record in study.run(cells, workplace)}


def test_one_teacher_serves_all_rows(study_of_labels):
    workplace, cells, plan, records = study_of_labels
    (folder,) = (workplace.folder / "teacher").iterdir()
    needed = {path for row in plan.rows for path in row.missing.needs if "/teacher/" in path}
    assert needed == {str(folder / "teacher.safetensors")}  # planned, and only once
    assert all(not row.missing.evaluate for row in study.plan(cells, workplace).rows)
    asking = [cell for cell in cells if cell.protocol.taught_by]
    assert {cell.label for cell in asking} == {"Random", "once", "Herding", "GAN"}
    assert {label for label, record in records.items() if "teacher_seconds" in record.cost} == {c.label for c in asking}
    assert len({records[cell.label].cost["teacher_seconds"] for cell in asking}) == 1


def test_other_labels_and_other_teachers_are_other_evaluations(study_of_labels, monkeypatch):
    workplace, cells, _, records = study_of_labels
    assert len({work.Accuracies(cell, 0, workplace).path for cell in cells[:3]}) == 3
    cell = cells[0]
    other = replace(cell, protocol=replace(cell.protocol, teacher={"epochs": 2}))
    assert work.Accuracies(other, 0, workplace).path != work.Accuracies(cell, 0, workplace).path
    before = [work.Accuracies(cells[row], 0, workplace).path for row in (0, 1)]
    monkeypatch.setattr(Teacher, "version", 2)
    after = [work.Accuracies(cells[row], 0, workplace).path for row in (0, 1)]
    assert after[0] != before[0] and after[1] == before[1]
    assert len({records[label].accuracies for label in ("Random", "hard", "once")}) == 3
    assert any("evaluation labels batch (default: those stored)" in line for line in records["Random"].deviations)


def test_records_hold_what_a_set_and_a_stream_cost(study_of_labels):
    *_, records = study_of_labels
    network = models.build("convnet", shape=(1, 16, 16), num_classes=10, width=8, depth=2)
    teacher, images = sum(t.nbytes for t in network.state_dict().values()), 10 * 16 * 16 * 4
    bytes_stored = {label: record.cost["bytes_stored"] for label, record in records.items()}
    assert [bytes_stored[row] - images for row in ("hard", "once", "Random")] == [10 * 8, 10 * 10 * 4, teacher]
    assert records["GAN"].cost["images_shown"] == 30 and records["Random"].cost["images_shown"] == 10


def test_an_evaluation_is_what_it_is_by_hand(study_of_labels):
    workplace, cells, _, records = study_of_labels
    cell = next(cell for cell in cells if cell.label == "once")
    builder = cell.protocol.taught_by
    assert asdict(builder)["epochs"] == 1
    train, test = (work.real_set(cell, split, workplace) for split in ("train", "test"))
    teacher = builder.frozen(train, product(builder, train))
    soft = replace(found := study.synthetic_set(cell, 1, workplace), labels=teacher(found.images))
    by_hand = evaluate(soft, test, replace(cell.protocol, labels=None, teacher={}), seed=1)
    assert by_hand.accuracies == records["once"].accuracies[2:]
