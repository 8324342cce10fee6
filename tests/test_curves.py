"""Accuracies as lines: where points, intervals and levels stand."""

import numpy as np
import pytest

from ddlib import report
from ddlib.results import Record, Reference

HALF = 12.706 * 0.6
"""Half the 95 % interval of two values 1.2 apart: t(1) times the standard error."""


def record(mean, label="DATM", ipc=1, *, value=None, unverified=False, **cell):
    fields = {"paper": "p", "table": "main", "method": "m", "dataset": "cifar10", "source": "a poster"}
    reference = None if value is None else Reference(ipc=ipc, value=value, unverified=unverified, **fields)
    two = (mean - 0.6, mean + 0.6)
    return Record.of(two, label=label, method="m", dataset="cifar10", ipc=ipc, cell=cell, reference=reference)


def steps(mean, label, iterations, ipc=1):
    return record(mean, label, ipc, hyperparameters={"iterations": iterations})


def named(axes, **look):
    """The lines of a panel that look so."""
    return [line for line in axes.lines if all(getattr(line, f"get_{key}")() == look[key] for key in look)]


def whiskers(axes):
    """The (x, low, high) of every interval drawn as a whisker."""
    segments = [segment for found in axes.collections for segment in found.get_segments()]
    return sorted((float(s[0, 0]), float(s[:, 1].min()), float(s[:, 1].max())) for s in segments)


def numbers(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def test_a_line_a_row_with_whiskers_on_a_logarithmic_axis_with_a_tick_at_every_ipc():
    records = [record(60, ipc=50), record(40), record(50, ipc=10), record(20, "Random")]
    (axes,) = report.accuracy_curves(records).axes
    (datm,), (random,) = named(axes, color="#0072b2", marker="o"), named(axes, color="#999999", marker="s")
    assert datm.get_xydata().tolist() == [[1, 40], [10, 50], [50, 60]]
    assert random.get_xydata().tolist() == [[1, 20]]
    found = [(1, 20), (1, 40), (10, 50), (50, 60)]
    expected = [(x, mean - HALF, mean + HALF) for x, mean in found]
    assert np.allclose(whiskers(axes), expected, rtol=1e-4)
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [1, 10, 50]
    assert numbers(axes) == ["1", "10", "50"] and not list(axes.get_xticks(minor=True))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images per class", "test accuracy (%)")


def test_the_whole_set_is_a_broken_line_with_its_interval_as_a_band():
    figure = report.accuracy_curves([record(40), record(80, "whole set", None)])
    (axes,) = figure.axes
    (level,) = named(axes, linestyle="--")
    assert set(level.get_ydata()) == {80} and level.get_color() == "black"
    (band,) = axes.patches
    assert (band.get_y(), band.get_height()) == pytest.approx((80 - HALF, 2 * HALF), rel=1e-4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["DATM", "whole set", "95 % interval"]
    assert axes.get_ylim()[0] < 40 - 4 and axes.get_ylim()[1] > 80  # intervals count for a tenth of the mean


def test_what_the_paper_reports_is_a_hollow_marker_where_it_is_comparable():
    proxy = Record.of(
        (1.0, 2.0), label="DATM", method="m", dataset="cifar10", ipc=50, cell={}, deviations=["narrow"],
        reference=record(1, value=9.0).reference,
    )  # fmt: skip
    records = [record(40, value=41.0), record(50, ipc=10, value=52.0, unverified=True), proxy]
    (axes,) = report.accuracy_curves([*records, record(80, "whole set", None, value=84.8)]).axes
    hollow = named(axes, linestyle="None", markerfacecolor="none")
    assert sorted((line.get_marker(), line.get_xdata()[0], line.get_ydata()[0]) for line in hollow) == [
        ("D", 0.02, 84.8), ("D", 1, 41.0), ("o", 10, 52.0),
    ]  # fmt: skip


def test_one_point_and_no_point_look_right():
    (axes,) = report.accuracy_curves([record(40, ipc=10)]).axes
    assert numbers(axes) == ["10"] and axes.get_xlim()[0] < 10 < axes.get_xlim()[1]
    left_out = Record.of((), label="DATM", method="m", dataset="cifar10", ipc=1, cell={})
    assert report.accuracy_curves([left_out]).texts[0].get_text() == "no cell was run"
    assert report.accuracy_against_iterations({"Early": [left_out]}).texts[0].get_text() == "no cell was run"
    (level,) = report.accuracy_curves([record(80, "whole set", None)]).axes
    assert numbers(level) == []


def test_numbers_below_the_axis_never_touch_and_the_last_is_there():
    (axes,) = report.accuracy_curves([record(40, ipc=ipc) for ipc in (10, 1000, 1250, 1500)]).axes
    assert numbers(axes) == ["10", "", "", "1500"] and list(axes.get_xticks()) == [10, 1000, 1250, 1500]


def test_each_network_has_a_panel():
    records = [record(40, tested_on=name) for name in ("convnet", "vgg11")]
    titles = [axes.get_title(loc="left") for axes in report.accuracy_curves(records).axes]
    assert titles == ["cifar10, tested on convnet", "cifar10, tested on vgg11"]


def test_accuracy_against_steps_has_a_panel_an_ipc_and_holds_zero_steps():
    early = [steps(mean, "Early", n, ipc) for ipc in (10, 1) for n, mean in ((1000, 50), (0, 30), (10, 40))]
    groups = {"Early": early, "Random": [record(20, "Random", 10)], "whole set": [record(90, "whole set", None)]}
    figure = report.accuracy_against_iterations(groups)
    one, ten = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["IPC 1", "IPC 10"]
    for axes in figure.axes:
        (line,) = named(axes, color="#0072b2", marker="o")
        assert line.get_xydata().tolist() == [[0, 30], [10, 40], [1000, 50]]
        assert axes.get_xscale() == "symlog" and numbers(axes) == ["0", "10", "1000"]
    levels = [[line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1] for axes in (one, ten)]
    assert [sorted(set(found) & {20, 90}) for found in levels] == [[90], [20, 90]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*groups, "95 % interval"]


def test_few_steps_stand_on_a_linear_axis():
    (axes,) = report.accuracy_against_iterations({"Late": [steps(30 + n, "Late", n) for n in (0, 5, 20)]}).axes
    assert axes.get_xscale() == "linear" and numbers(axes) == ["0", "5", "20"]
    (alone,) = report.accuracy_against_iterations({"Late": [steps(30, "Late", 20)]}).axes
    assert numbers(alone) == ["20"]


def test_the_same_records_give_the_same_files(tmp_path):
    records = [record(40, value=41.0), record(50, ipc=10), record(80, "whole set", None)]
    made = [report.save(report.accuracy_curves(records), name, folder=tmp_path) for name in ("a", "b")]
    assert [path.read_bytes() for path in made[0]] == [path.read_bytes() for path in made[1]]
