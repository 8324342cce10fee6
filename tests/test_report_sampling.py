"""What the report shows of LD3M: gradients, accuracy and cost against T, losses, and images row by row."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from ddlib import report, results
from ddlib.results import Record

TABLE_1 = results.references("ld3m")


def norms(residual, values):
    """Rows of norms whose a_K is 1 / T."""
    return [{"residual": residual, "T": t, "norm": norm, "noising": 1 / t} for t, norm in values]


def lines(axes, **look):
    """The lines of a panel that look so, longest first."""
    found = [line for line in axes.lines if all(getattr(line, f"get_{key}")() == look[key] for key in look)]
    return sorted(found, key=lambda line: -len(line.get_xdata()))


def whiskers(axes, color):
    """The (x, low, high) of every interval drawn in a colour."""
    own = [found for found in axes.collections if to_hex(found.get_colors()[0]) == color]
    segments = [segment for found in own for segment in found.get_segments() if np.ndim(segment) == 2 and len(segment)]
    return [(float(s[0, 0]), float(s[0, 1]), float(s[1, 1])) for s in segments]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_norms_stand_as_they_are_and_less_the_noising():
    rows = norms("none", [(10, 4.0), (5, 8.0), (20, 2.0)]) + norms("x0", [(10, 6.0), (10, 10.0), (20, 8.0)])
    figure = report.gradient_norms(rows)
    raw, divided = figure.axes
    assert lines(raw, color="#0072b2")[0].get_xydata().tolist() == [[5, 8], [10, 4], [20, 2]]
    assert lines(divided, color="#0072b2")[0].get_xydata().tolist() == [[5, 40], [10, 40], [20, 40]]
    assert lines(raw, color="#e69f00")[0].get_xydata().tolist() == [[10, 8], [20, 8]]
    assert whiskers(raw, "#e69f00") == [(10, 6, 10)]
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", "sampling steps T")
        assert list(axes.get_xticks()) == [5, 10, 20]
    assert [axes.get_ylabel() for axes in figure.axes] == ["‖dL/dZ‖", "‖dL/dZ‖ / a_K"]
    assert legend(figure) == ["none (plain DDIM)", "x0 (clean estimate)"]


def test_what_the_paper_reports_meets_ours_at_ten_steps_in_both_panels():
    figure = report.gradient_norms(norms("none", [(10, 4.0), (90, 4.0)]), reported=TABLE_1)
    raw, divided = (dict(lines(axes, color="#999999")[0].get_xydata().tolist()) for axes in figure.axes)
    assert len(raw) == len(divided) == 9
    assert (raw[10], divided[10]) == pytest.approx((4.0, 40.0))
    assert raw[90] / raw[10] == pytest.approx(6.5 / 58.1) and divided[90] / divided[10] == pytest.approx(504 / 1984)
    assert legend(figure)[-1] == "paper, scaled to ours at T = 10"
    assert list(figure.axes[0].get_xticks()) == list(range(10, 100, 10))


def test_no_norms_are_said():
    assert report.gradient_norms([]).texts[0].get_text() == "nothing was measured"


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"residual": "none", "T": 5, "norm": 1.0}], "lacks noising; it must have residual, T, norm, noising"),
        (norms("none", [(10, 0.0)]), "norm=0.0 of a row; it must be > 0"),
        (norms("none", [(10, float("nan"))]), "norm=nan of a row; it must be > 0"),
        (norms("none", [(20, 1.0)]), "rows hold no norm at T = 10 without residual"),
        (norms("x0", [(10, 1.0)]), "rows hold no norm at T = 10 without residual"),
    ],
)
def test_norms_are_refused(rows, match):
    with pytest.raises(ValueError, match=match):
        report.gradient_norms(rows, reported=TABLE_1)


def test_a_reported_course_without_ten_steps_is_refused():
    late = [r for r in TABLE_1 if r.condition != "T = 10"]
    with pytest.raises(
        ValueError, match="reported hold no norm at T = 10 without residual; what is reported is scaled"
    ):
        report.gradient_norms(norms("none", [(10, 1.0)]), reported=late)


def record(mean, steps=None, label="LD3M", **cost):
    """Two networks 1.2 apart."""
    cell = {"hyperparameters": {} if steps is None else {"steps": steps}}
    fields = {"method": "m", "dataset": "digits", "ipc": 1, "cell": cell, "cost": cost}
    return Record.of((mean - 0.6, mean + 0.6), label=label, **fields)


def test_accuracy_time_and_memory_stand_side_by_side_over_the_steps():
    ours = [record(50 + t, t, steps_per_second=1 / t, peak_memory_bytes=t * 10**6) for t in (20, 5, 10)]
    glad = record(40, label="GLaD", steps_per_second=0.5, peak_memory_bytes=7 * 10**6)
    figure = report.course_over_steps({"LD3M": ours, "GLaD": [glad], "Random": [record(20, label="Random")]})
    accuracy, time, memory = figure.axes
    for axes, expected in ((accuracy, [55, 60, 70]), (time, [5, 10, 20]), (memory, [5, 10, 20])):
        (line, *_) = lines(axes, color="#0072b2")
        assert np.allclose(line.get_xydata(), list(zip((5, 10, 20), expected, strict=True)))
        assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [5, 10, 20]
    assert [set(lines(axes, color="black")[0].get_ydata()) for axes in figure.axes] == [{40}, {2}, {7}]
    assert [len(lines(axes, color="#999999")) for axes in figure.axes] == [1, 0, 0]
    half = 12.706 * 0.6  # of the 95 % interval of two values 1.2 apart
    expected = [(t, 50 + t - half, 50 + t + half) for t in (5, 10, 20)]
    assert np.allclose(whiskers(accuracy, "#0072b2"), expected, rtol=1e-4)
    assert [(band.get_y(), band.get_height()) for band in accuracy.patches] == [
        pytest.approx((mean - half, 2 * half), rel=1e-4) for mean in (40, 20)
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["test accuracy (%)", "seconds per iteration", "MB"]
    assert legend(figure) == ["LD3M", "GLaD", "Random", "95 % interval"]


def test_a_set_that_took_no_time_has_no_seconds():
    encoded = record(30, label="Encoded", steps_per_second=0.0, distil_seconds=0.0)
    figure = report.course_over_steps({"LD3M": [record(50, 10, steps_per_second=2.0)], "Encoded": [encoded]})
    assert [len(lines(axes, color="black")) for axes in figure.axes] == [1, 0, 0]


def test_no_course_over_steps_is_said():
    not_run = Record.of((), label="LD3M", method="m", dataset="digits", ipc=1, cell={"hyperparameters": {"steps": 5}})
    for groups in ({}, {"LD3M": [not_run]}, {"Random": [record(20)]}):
        assert report.course_over_steps(groups).texts[0].get_text() == "no cell was run"


def test_losses_are_compared_as_they_are_and_by_what_is_left_of_them():
    steps = range(100)
    figure = report.loss_reduction(
        {"LD3M": [(i, 200.0 - i) for i in steps], "GLaD": [(i, 50.0) for i in steps], "one": [(0, 1.0)]}
    )
    loss, left = figure.axes
    smooth, raw = lines(loss, color="#0072b2", linewidth=1.4)[0], lines(loss, color="#0072b2", linewidth=0.8)[0]
    assert raw.get_ydata()[50] == smooth.get_ydata()[50] == 150  # means of a straight line are on it
    first = 200 - 2.5  # of the losses 200 to 195, a twentieth of all
    assert np.allclose(
        lines(left, color="#0072b2")[0].get_ydata()[5:95], [100 * (200 - i) / first for i in steps[5:95]]
    )
    assert set(lines(left, color="#e69f00")[0].get_ydata()) == {100}
    assert legend(figure) == ["LD3M", "GLaD"] and loss.get_yscale() == "log"


def test_single_losses_are_averaged_over_a_tenth():
    figure = report.loss_reduction({"LD3M": [(i, 3.0 if i % 2 else 1.0) for i in range(40)]})
    (smooth,) = lines(figure.axes[0], color="#0072b2", linewidth=1.4)
    assert (smooth.get_ydata()[0], smooth.get_ydata()[20]) == (pytest.approx(5 / 3), pytest.approx(9 / 5))


def test_no_losses_are_said():
    assert report.loss_reduction({"LD3M": [(0, 1.0)]}).texts[0].get_text() == "nothing with a course was run"


def test_a_strip_an_image_with_titled_columns():
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    columns = {"real": pixels, "encoded": 1 - pixels, 0: pixels / 2, 1000: pixels.mean(1, keepdim=True)}
    figure = report.image_strips(["golf_ball", "church"], columns)
    texts = [text.get_text().replace("\n", " ") for text in figure.texts]
    assert texts == ["real", "encoded", "after 0", "after 1,000", "golf ball", "church"]
    assert len(figure.axes) == 4
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    wanted = ((1 - pixels) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (drawn[:8] == wanted[0]).all() and (drawn[9:17] == wanted[1]).all() and (drawn[8] == 255).all()


def test_strips_of_nothing_are_said():
    assert report.image_strips([], {}).texts[0].get_text() == "no image was made"


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"real": torch.zeros(3, 3, 8, 8)}, r"columns\['real'\] is \(3, 3, 8, 8\); allowed: \(2, C, H, W\), as names"),
        ({100: torch.zeros(2, 8, 8)}, r"columns\[100\] is \(2, 8, 8\); allowed"),
        ({"real": torch.zeros(2, 4, 8, 8)}, r"pixels are \(2, 4, 8, 8\); allowed: \(N, C, H, W\) with 1 or 3 channels"),
    ],
)
def test_strips_are_refused(columns, match):
    with pytest.raises(ValueError, match=match):
        report.image_strips(["a", "b"], columns)
