"""Classes that come in steps: parts of a data set, the union of what is distilled, and accuracies after each step."""

import dataclasses

import pytest
import test_rows
import torch
from few_digits import distilled
from refusals import refuses

from ddlib import evaluation, results, study
from ddlib.analyses import continual
from ddlib.data import augmentation, datasets
from ddlib.data.datasets import ValueSpace
from ddlib.data.synthetic import SyntheticSet, joined
from ddlib.store import inventory
from ddlib.study import work
from ddlib.study.parameters import settings

CHOSEN = test_rows.CHOSEN | {"reference_dataset": "cifar100", "ipcs": [2], "steps": [5]}
CHOSEN |= {"methods": {"Random": {"method": "random"}}, "network": {"width": 4, "depth": 2}}
SPACE = ValueSpace((0.5,), (0.25,))


def rows(**changed):
    """The rows of the parameters above, changed."""
    return continual.rows(settings(CHOSEN | changed))


# Parts of a data set


def test_a_part_of_a_data_set_is_loaded_by_name_with_its_classes_in_the_order_asked_for(test):
    part, about = datasets.load("digits:7,3", "test"), datasets.describe("digits:7,3")
    rows = ((test.labels == 7) | (test.labels == 3)).nonzero()[:, 0]
    assert torch.equal(part.images, test.images[rows])
    assert torch.equal(part.labels, (test.labels[rows] == 3).long())
    assert (part.class_names, part.name, part.space) == (("7", "3"), "digits:7,3", test.space)
    assert part.fingerprint != test.fingerprint
    assert (about.num_classes, about.class_names, about.shape) == (2, ("7", "3"), (1, 16, 16))
    ours, whole, other = (augmentation.strategy_for(name) for name in ("digits:7,3", "digits", "cifar10:7,3"))
    assert ours == whole != other


test_a_part_that_there_is_not_is_refused = refuses(
    lambda name, zca: datasets.load(name, "train", zca=zca),
    [
        ("digits:3,x", False, "'3,x' is no list of classes, such as 3,7"),
        ("digits:3,3", False, r"classes \(3, 3\) of digits; allowed: different ones in 0..9"),
        ("digits:10", False, "allowed: different ones in 0..9"),
        ("digit:1,2", False, "unknown dataset 'digit'"),
        ("digits:3,7", True, "digits is whitened by all of its classes"),
    ],
)


# The union of sets


def some(names, numbers, **changed):
    """A set of images whose values are the number of its classes."""
    images = torch.full((len(numbers), 1, 8, 8), float(len(names)))
    fields = {"images": images, "labels": torch.tensor(numbers), "class_names": tuple(names), "space": SPACE}
    return SyntheticSet(**(fields | {"strategy": "color"} | changed))


def test_the_union_counts_classes_on():
    union = joined([some("ab", [0, 1, 1]), some("c", [0, 0]), some("de", [1, 0])])
    assert union.labels.tolist() == [0, 1, 1, 2, 2, 4, 3] and union.class_names == tuple("abcde")
    assert union.images[:, 0, 0, 0].tolist() == [2, 2, 2, 1, 1, 2, 2]
    assert (union.space, union.strategy, union.learning_rate) == (SPACE, "color", None)


def test_in_the_union_a_soft_label_is_certain_that_it_is_no_class_of_other_sets():
    logits = torch.tensor([[1.0, 3.0]])
    first, second = (some(names, [0], labels=logits, learning_rate=rate) for names, rate in (("ab", 0.1), ("cd", 0.3)))
    union = joined([first, second])
    p = logits.softmax(1)[0].tolist()
    assert union.labels.softmax(1).tolist() == [[*p, 0, 0], [0, 0, *p]]
    assert union.learning_rate == pytest.approx(0.2)


# Steps and orders


def test_every_class_comes_once_in_an_order_of_its_own():
    first, second = (continual.arrivals(10, 5, order) for order in (0, 1))
    for steps in (first, second):
        assert [len(classes) for classes in steps] == [2] * 5 and sorted(sum(steps, ())) == list(range(10))
    assert first != second and first == continual.arrivals(10, 5, 0)
    assert sum(continual.arrivals(10, 2, 0), ()) == sum(first, ())  # the same order, cut elsewhere


DIM = {"method": "dim", "generator_width": 4, "evaluation": {"batch_size": 20}}


test_rows_that_cannot_be_are_refused = refuses(
    rows,
    [
        *(({"steps": [5, n]}, f"steps={n} of 10 classes; allowed: 1, 2, 5, 10") for n in (3, 4, 20)),
        ({"ipcs": [1, 2]}, "allowed: one number of images per class"),
        ({"methods": {"X": {"method": "gdumb"}}}, "unknown method 'gdumb'"),
        ({"methods": {"DiM": DIM}}, "'DiM': 'dim' gives a stream of a generator's images; allowed: methods that give"),
        ({"methods": {"ATOM": {"method": "atom", "whitened": True}}}, "'ATOM' is whitened, by classes that have not"),
        ({"evaluation": {"networks": {"n": {"network": "mlp"}}}}, "tested on 'n' of several networks; allowed: one"),
        ({"evaluation": {"labels": "fixed"}}, "labels='fixed' asks a teacher; allowed: None or hard"),
    ],
)


def test_published_numbers_stand_beside_the_same_steps_alone():
    conditions = [f"{20 * (i + 1)} classes in 5 steps" for i in range(5)]
    place = {"table": continual.TABLE, "method": "dm", "dataset": "cifar100", "ipc": 20}
    known = [results.find(continual.PAPER, condition=condition, **place) for condition in conditions]
    assert [one.value for one in known] == [57.0, 45.7, 41.1, 37.6, 34.3] and all(one.unverified for one in known)


# The run


def test_the_last_memory_of_random_is_random_on_the_whole_data(workplace, train, test):
    (cell,) = rows(seeds=[0])
    found = continual.run([cell], workplace, steps=[5])
    chosen, order = [], sum(continual.arrivals(10, 5, 0), ())
    for part in continual.stages(cell, 5, 0)[-1].parts:
        own = torch.isin(train.labels, torch.tensor(datasets.parsed_name(part.dataset)[1])).nonzero()[:, 0]
        chosen += own[work.synthetic_set(part, 0, workplace).provenance["rows"]].tolist()
    place = torch.tensor(order).argsort()  # class -> its number in the order
    names, strategy = tuple(train.class_names[c] for c in order), augmentation.strategy_for("digits")
    by_hand = SyntheticSet(train.take(chosen), place[train.labels[chosen]], names, train.space, strategy)
    tested = dataclasses.replace(test, labels=place[test.labels], class_names=names)
    assert len(set(chosen)) == 20 and [row["classes"] for row in found] == [2, 4, 6, 8, 10]
    expected = evaluation.evaluate(by_hand, tested, cell.protocol, seed=0).accuracies
    assert found[-1]["accuracies"] == list(expected)


def test_a_row_has_every_order_and_network(workplace):
    (cell,) = rows()
    found = continual.run([cell], workplace, steps=[2, 5])
    assert [(row["steps"], row["classes"]) for row in found] == [(2, 5), (2, 10)] + [(5, 2 * i) for i in range(1, 6)]
    for row in found:
        assert (row["label"], row["method"], row["ipc"], row["orders"]) == ("Random", "random", 2, [0, 1])
        assert len(row["accuracies"]) == 4 and (row["reference"], row["verdict"]) == (None, "PROXY")
    stage = continual.stages(cell, 5, 1)[1]
    shown, test = continual.memory(stage, workplace), datasets.load(datasets.part_name("digits", stage.classes), "test")
    assert len(shown) == 8 and shown.class_names == tuple(map(str, stage.classes))
    alone = evaluation.evaluate(shown, test, cell.protocol, seed=1).accuracies
    assert found[3]["accuracies"][2:] == list(alone) != found[3]["accuracies"][:2]


def test_a_run_that_was_stopped_goes_on_where_it_was(workplace, tmp_path, monkeypatch):
    told, real, trained, most = rows(), evaluation.evaluate, [], [3]  # in the midst of an order's stages
    whole = continual.run(told, study.Workplace("cpu", tmp_path / "other", "none"), steps=[5])

    def counted(*sets, **how):
        if len(trained) == most[0]:
            raise RuntimeError("stopped")
        trained.append(how["networks"])
        return real(*sets, **how)

    monkeypatch.setattr(evaluation, "evaluate", counted)
    with pytest.raises(RuntimeError, match="stopped"):
        continual.run(told, workplace, steps=[5])
    most[0] = 10  # 2 orders, 5 steps, whose two networks go together, none of them twice
    assert continual.run(told, workplace, steps=[5]) == whole
    assert trained == [(0, 1)] * 10
    assert continual.run(told, workplace, steps=[5]) == whole


def test_a_memory_is_judged_anew_where_a_set_was_remade_or_the_record_is_damaged(workplace):
    (cell,) = rows(seeds=[0])
    whole = continual.run([cell], workplace, steps=[5])
    memories = sorted(workplace.folder.glob("distilled/*/memory-*.json"))
    assert len(memories) == 5 and sum(entry.evaluations for entry in inventory.entries(workplace.folder)) == 5
    memories[0].write_text(memories[0].read_text()[:-9])
    assert continual.run([cell], workplace, steps=[5]) == whole
    first = work.distillation(continual.stages(cell, 5, 0)[0].parts[0], 0, workplace)
    remade = first.keeping.load(first.path, "cpu")
    first.keeping.save(dataclasses.replace(remade, images=-remade.images), first.path)
    anew = continual.run([cell], workplace, steps=[5])
    assert all(row["accuracies"] != old["accuracies"] for row, old in zip(anew, whole, strict=True))


def test_what_another_process_distils_comes_last(workplace, monkeypatch):
    (cell,) = rows(seeds=[0])
    first = continual.stages(cell, 5, 0)[0].parts[0].dataset
    real, made = work.synthetic_set, []
    monkeypatch.setattr(work, "under_way", lambda part, _: part.dataset == first)
    monkeypatch.setattr(work, "synthetic_set", lambda part, *rest: made.append(part.dataset) or real(part, *rest))
    continual.run([cell], workplace, steps=[5])
    assert made[4] == first and first not in made[:4]


def test_a_method_learns_from_the_classes_of_its_step_alone(workplace):
    (cell,) = rows(methods={"DM": {"method": "dm", "iterations": 2, "batch_real": 4}}, seeds=[0])
    stage = continual.stages(cell, 5, 0)[1]
    part = stage.parts[1]
    alone = distilled(part.method, datasets.load(part.dataset, "train"))
    assert torch.equal(alone.images, continual.memory(stage, workplace).images[4:])


# What is shown


def row(label, classes, accuracies, ipc, reference):
    named = {"label": label, "method": label.lower(), "ipc": ipc, "steps": 2, "classes": classes, "orders": [0, 1]}
    return named | {"accuracies": accuracies, "reference": reference, "verdict": "PROXY"}


def test_the_average_is_over_the_steps():
    dm, whole = continual.averages(
        [
            row("DM", 2, [90.0, 80.0], 2, 50.0),
            row("DM", 4, [60.0, 40.0], 2, 50.0),
            row("Whole", 2, [99.0, 97.0], None, None),
            row("Whole", 4, [95.0, 93.0], None, None),
        ]
    )
    assert (dm["accuracies"], dm["reference"], "classes" in dm) == ([75.0, 60.0], 50.0, False)
    assert (whole["accuracies"], whole["reference"]) == ([97.0, 95.0], None)
    found = continual.difference(whole, dm)
    assert found.difference == pytest.approx(28.5) and not found.significant


def test_rows_differ_order_by_order_and_networks_of_an_order_count_as_one():
    lower, higher = ({"orders": [0, 1, 2], "accuracies": values} for values in (
        [50.0, 52.0, 70.0, 72.0, 90.0, 92.0], [53.0, 55.0, 74.0, 76.0, 95.0, 97.0]))  # fmt: skip
    found = continual.difference(higher, lower)
    half = 4.302653 / 3**0.5  # by order 3, 4 and 5: deviation 1, and Student's t of two degrees of freedom
    assert (found.low, found.difference, found.high) == pytest.approx((4 - half, 4, 4 + half), abs=1e-5)
    single = {"orders": [0, 1, 2], "accuracies": [54.0, 75.0, 96.0]}  # one network an order, beside two
    assert continual.difference(single, lower).low == pytest.approx(found.low)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"orders": [0, 1, 3]}, r"the groups \[0, 1, 2\] cannot be paired with \[0, 1, 3\]; allowed: the same"),
        ({"accuracies": [1.0, 2.0, 3.0, 4.0]}, r"4 values of the groups \[0, 1, 2\]; allowed: as many for each"),
        ({"orders": [0, 1, 1]}, r"3 values of the groups \[0, 1, 1\]; allowed: as many for each"),
    ],
)
def test_orders_that_cannot_be_paired_are_refused(changed, match):
    row = {"orders": [0, 1, 2], "accuracies": [1.0, 2.0, 3.0]}
    with pytest.raises(ValueError, match=match):
        continual.difference(row, row | changed)
