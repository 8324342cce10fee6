"""What the report shows of generators: budgets, walks, neighbours, redrawing and the size of networks."""

import numpy as np
import pytest
import torch

from ddlib import report
from ddlib.results import Record, Reference


def record(mean, label="DiM", ipc=10, *, network="", reference=None, cost=None, **chosen):
    cell = {"hyperparameters": chosen} | ({"tested_on": network} if network else {})
    fields = {"method": "m", "dataset": "cifar10", "ipc": ipc, "cell": cell, "reference": reference}
    return Record.of((mean - 0.6, mean + 0.6), label=label, cost=cost or {}, **fields)


BUDGET = """\
3 of 4 cells run: what each takes.

cifar10, budget
method       IPC  kB       kbit/class  images   updates  generating  before   distilling  regime
-----------  ---  -------  ----------  -------  -------  ----------  -------  ----------  ---------
DiM           10   14,274      11,419  100,000    4,000         3.5      678      12,346  streaming
DiM           50        –           –        –        –           –        –           –  not run
DiM, frozen   10      9.9           –      100        –       0.012        –           0  fixed set
Random        10        –           –        –        –           –        –           –  fixed set
"""


def test_the_budget_of_every_cell():
    cost = {"bytes_stored": 14_273_516, "bits_per_class": 11_418_813, "images_shown": 100_000, "updates": 4000}
    cost |= {"generation_seconds": 3.456, "prerequisite_seconds": 678.1, "distil_seconds": 12345.6}
    frozen = {"bytes_stored": 9_872, "images_shown": 100, "generation_seconds": 0.0123, "distil_seconds": 0.0}
    not_run = Record.of((), label="DiM", method="m", dataset="cifar10", ipc=50, cell={}, cost={"estimated_hours": 3})
    records = [not_run, record(60, cost=cost, redraw=1), record(50, "DiM, frozen", cost=frozen, redraw=None)]
    table = report.budget_table([*records, record(40, "Random")])
    assert str(table).startswith(BUDGET)
    assert "not recorded" in str(table) and "14,274" in table._repr_html_()
    assert "anew every 10 epochs" in str(report.budget_table([record(1, redraw=10)]))
    assert str(report.budget_table([])).startswith("0 of 0 cells run")


def test_budgets_of_several_networks_stand_apart():
    text = str(report.budget_table([record(1, network="convnet"), record(1, network="resnet18")]))
    assert "cifar10, tested on convnet, budget" in text and "cifar10, tested on resnet18, budget" in text


def canvases(figure):
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]


def test_a_walk_is_a_row():
    images = torch.linspace(0, 1, 6).view(2, 3, 1, 1, 1).expand(2, 3, 1, 4, 4)
    figure = report.interpolation({"boot": images[0], "coat_b": images[1]})
    (canvas,) = canvases(figure)
    assert canvas.shape == (10, 15, 3)  # 2 x 3 images of 4 x 4 pixels, one pixel apart
    assert canvas[1::5, 1::5, 0].tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (canvas[4] == 255).all() and (canvas[:, 4] == 255).all()
    assert [text.get_text() for text in figure.texts] == ["boot", "coat b"]
    assert report.interpolation({}).texts[0].get_text() == "no walk was made"


def test_walks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="walks are of the sizes .*; allowed: one for all"):
        report.interpolation({"a": torch.zeros(2, 1, 4, 4), "b": torch.zeros(3, 1, 4, 4)})
    with pytest.raises(ValueError, match=r"walks are \(3, 2, 4, 4\); allowed: .N, C, H, W. with 1 or 3 channels"):
        report.interpolation({"a": torch.zeros(3, 2, 4, 4)})


def test_neighbours_stand_below_their_samples_and_their_distances_spread_below():
    samples = torch.linspace(0, 1, 12).view(12, 1, 1, 1).expand(12, 3, 2, 2)
    spread = {"DiM": [0.3, 0.1], "held-out": [0.2, 0.2, 0.4, 0.4]}
    figure = report.neighbours(samples, 1 - samples, [i / 100 for i in range(12)], spread=spread)
    first, second = canvases(figure)
    assert first.shape == (6, 30, 3) and second.shape == (6, 6, 3)
    assert np.allclose(first[[0, 3], 3].astype(int).T, [[23, 232]] * 3, atol=1)  # 1 / 11 and its complement
    assert [text.get_text() for text in figure.texts] == [f"{i / 100:.3f}" for i in range(12)]
    dim, real = figure.axes[-1].lines
    assert dim.get_xydata().tolist() == [[-np.inf, 0], [0.1, 50], [0.3, 100]]
    assert real.get_xydata().tolist() == [[-np.inf, 0], [0.2, 25], [0.2, 50], [0.4, 75], [0.4, 100]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DiM", "held-out"]
    assert dim.get_drawstyle() == "steps-post"  # it rises at the distance, not before
    assert dim.get_color() != real.get_color() and dim.get_linestyle() != real.get_linestyle()
    assert len(report.neighbours(samples, samples, [0] * 12, spread={}).axes) == 2


@pytest.mark.parametrize(
    ("samples", "nearest", "distances", "spread", "match"),
    [
        (2, 3, [0, 0], {}, r"samples, nearest and distances are \(2, .* as many of each, at least one"),
        (2, 2, [0], {}, "and 1; allowed: as many of each"),
        (0, 0, [], {}, "at least one"),
        (1, 1, [0], {"DiM": []}, "spread.'DiM'. is empty; allowed: at least one distance"),
    ],
)
def test_neighbours_that_do_not_fit_are_refused(samples, nearest, distances, spread, match):
    images = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ValueError, match=match):
        report.neighbours(images[:samples], images[:nearest], distances, spread=spread)


def test_accuracy_against_redraw_ends_with_never():
    groups = {
        "DiM": [record(50, redraw=None), record(60, redraw=1), record(55, redraw=10)],
        "Random": [record(40, "Random")],
    }
    (ax,) = report.accuracy_against_redraw(groups).axes
    (line,) = [found for found in ax.lines if found.get_marker() == "o"]
    (level,) = [found for found in ax.lines if found.get_linestyle() == "--"]
    assert line.get_xydata().tolist() == [[1, 60], [10, 55], [300, 50]]
    assert set(level.get_ydata()) == {40}
    assert ax.get_xscale() == "log" and [text.get_text() for text in ax.get_xticklabels()] == ["1", "10", "never"]
    assert (ax.get_xlabel(), ax.get_title(loc="left")) == ("epochs until drawn anew", "IPC 10")


def test_accuracy_against_redraw_of_little():
    (ax,) = report.accuracy_against_redraw({"DiM": [record(50, redraw=None)]}).axes
    assert [text.get_text() for text in ax.get_xticklabels()] == ["never"]
    (ax,) = report.accuracy_against_redraw({"Random": [record(50, "Random")]}).axes
    assert not list(ax.get_xticks())
    not_run = Record.of((), label="DiM", method="m", dataset="d", ipc=1, cell={})
    assert report.accuracy_against_redraw({"DiM": [not_run]}).texts[0].get_text() == "no cell was run"


SIZES = {"resnet18": 2_800_000, "convnet": 320_010, "unused": 5}


def test_accuracy_against_the_size_of_networks():
    paper = {"paper": "p", "table": "main", "method": "m", "dataset": "cifar10", "ipc": 10, "source": "a"}
    records = [
        record(75, network="resnet18", reference=Reference(value=75.1, **paper)),
        record(72, network="convnet"),
        record(40, "Random", network="convnet"),
    ]
    figure = report.accuracy_against_size({"IPC 10": records, "IPC 50": [], "equal bytes": records[2:]}, SIZES)
    upper, lower = figure.axes
    assert (upper.get_title(loc="left"), lower.get_title(loc="left")) == ("IPC 10", "equal bytes")
    dim, random = [line for line in upper.lines if line.get_marker() in "os" and line.get_linestyle() == "-"]
    assert dim.get_xydata().tolist() == [[320_010, 72], [2_800_000, 75]]
    assert random.get_color() == "#999999" != dim.get_color()
    hollow = [line for line in upper.lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xydata().tolist() for line in hollow] == [[[2_800_000, 75.1]]]
    assert lower.get_xscale() == "log"
    assert {text.get_text() for text in lower.get_xticklabels()} == {"convnet, 0.32 M", "resnet18, 2.8 M"}


def test_accuracy_against_size_of_nothing_or_of_the_unknown():
    assert report.accuracy_against_size({"IPC 1": []}, {}).texts[0].get_text() == "no cell was run"
    with pytest.raises(ValueError, match="parameters lacks vgg11; it has resnet18, convnet, unused"):
        report.accuracy_against_size({"a": [record(1, network="vgg11")]}, SIZES)
