"""Tables, figures and their files, from hand-made records and images."""

import inspect
import io
import operator
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image
from refusals import refuses

from ddlib import methods, report, study
from ddlib.methods import trajectory_matching
from ddlib.report import style
from ddlib.report.images import mosaic
from ddlib.results import Claim, Record, Reference, check_claim

PROVENANCE = {
    "commit": "0123456789abcdef",
    "dirty": True,
    "date": "2026-01-02",
    "versions": {"ddlib": "0.1.0", "torch": "2.15.0"},
    "device": "CPU",
}


def reference(method="dm", value=26.0, **fields):
    common = {"paper": "p", "table": "main", "dataset": "cifar10", "ipc": 1, "source": "a poster"}
    return Reference(method=method, value=value, **(common | fields))


def record(accuracies=(25.0, 26.0, 27.0), label="DM", **fields):
    common = {"method": label.lower(), "dataset": "cifar10", "ipc": 1, "cell": {}}
    return Record(accuracies=accuracies, label=label, **(common | fields))


RECORDS = [
    record((49.4, 50.6), "Random", ipc=10, reference=reference(value=50.0)),
    record((15.4, 15.5, 15.3), "Random", reference=reference(value=15.4, source="a leaderboard")),
    record(reference=reference(std=0.8, unverified=True)),
    record((40.0, 41.0), "Herding", reference=reference(value=21.5, comparable=False, note="without augmentation")),
    record((33.0, 34.0), "ATOM", reference=reference(value=None, state="not found", source="not read")),
    record((), "DM", ipc=50, reference=reference(value=63.0, std=0.4), cost={"estimated_hours": 3.41}),
    record((60.0, 62.0), "DM", dataset="digits", deviations=["digits instead of cifar10"], reference=reference()),
]

TEXT = """\
7 cells: 1 REPRODUCED, 1 CLOSE, 1 INCONCLUSIVE, 2 PROXY, 1 NOT RUN, 1 NO REFERENCE

cifar10, test accuracy in %
method   IPC  paper         ours                  verdict
-------  ---  ------------  --------------------  ------------
Random     1  15.4          15.4 ± 0.1 (3)        REPRODUCED
Random    10  50.0          50.0 ± 0.8 (2)        INCONCLUSIVE
DM         1  26.0 ± 0.8 †  26.0 ± 1.0 (3)        CLOSE
DM        50  63.0 ± 0.4    not run: about 3.4 h  NOT RUN
Herding    1  21.5       ‡  40.5 ± 0.7 (2)        PROXY
ATOM       1  not found     33.5 ± 0.7 (2)        NO REFERENCE

digits (paper: cifar10), test accuracy in %
method   IPC  paper         ours                  verdict
-------  ---  ------------  --------------------  ------------
DM         1  26.0          61.0 ± 1.4 (2)        PROXY

paper: as published, mean ± deviation. ours: mean ± sample deviation (number of
  networks).
† unverified, not read in a publication of those who measured it: a poster.
‡ not comparable (dm): without augmentation.
Sources: a poster; a leaderboard.
not found: not read.
PROXY, not the paper's setting: digits instead of cifar10."""


def test_table_as_text():
    assert str(report.table(RECORDS)) == repr(report.table(RECORDS)) == TEXT
    assert str(report.table([record()], paper="atom")).startswith("ATOM: Attention Mixer")
    assert " not run  NOT RUN" in str(report.table([record(())]))  # with no estimate of its hours


@pytest.mark.parametrize("table", [report.table, report.budget_table])
def test_networks_stand_apart_and_nothing_is_said(table):
    records = [record(cell={"hyperparameters": {}, "tested_on": network}) for network in ("convnet", "vgg11")]
    assert all(f"cifar10, tested on {network}, " in str(table(records)) for network in ("convnet", "vgg11"))
    assert str(table([])).startswith("0 ")


def test_table_as_html():
    page = report.table([*RECORDS, record(label="<b>&")])._repr_html_()
    assert page.count("<tr>") == 1 + 2 + 8 and "26.0 ± 0.8 †" in page
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert DisplayFormatter().format(report.table(RECORDS))[0].keys() == {"text/plain", "text/html"}
    assert "ddlib" not in page + TEXT  # a table of unknown origin claims none


CLAIM = Claim(
    paper="p", id="c", statement="ATOM is above DM.", where="table", source="abstract", unverified=True,
    higher="atom", lower="dm", datasets=("cifar10",), ipc=(1, 10, 50),
)  # fmt: skip


def test_claims_table():
    records = [record((35.0, 36.0, 37.0), "ATOM"), record(), record((9.0,), "ATOM", ipc=10), record((8.0,), ipc=10)]
    text = str(report.claims_table([check_claim(CLAIM, records), check_claim(CLAIM, [])]))
    assert text.startswith("2 claims: 2 undecided")
    assert text.count("ATOM is above DM. † Undecided.") == 2
    assert "cifar10, IPC 1            +10.0       [ +7.7, +12.3]  holds" in text  # +- 2.776 * sqrt(2 / 3)
    assert "cifar10, IPC 10            +1.0       unknown         undecided" in text
    assert "no records of both sides" in text and "† unverified, the numbers behind it were not read: abstract." in text


FOOTER = "ddlib 0.1.0 · commits 0123456, 89abcde (modified) · 2026-01-02 · torch 2.15.0 · CPU"
MADE = [PROVENANCE, PROVENANCE | {"commit": "89abcdef", "dirty": False}]


def test_tables_end_with_where_all_their_numbers_come_from():
    records = [record((35.0, 36.0), "ATOM", provenance=MADE[0]), record(provenance=MADE[1])]
    left_out = record((), label="DC", provenance=PROVENANCE | {"commit": "ffffffff"})
    table = report.table([*records, left_out])
    claims = report.claims_table([check_claim(CLAIM, [*records, left_out]), check_claim(CLAIM, [])])
    for shown in (table, claims):
        assert shown.provenance == PROVENANCE | {"commit": ["0123456789abcdef", "89abcdef"]}
        assert str(shown).replace("\n  ", " ").endswith(f"\n{FOOTER}")
        assert shown._repr_html_().endswith(f"<div>{FOOTER}</div></div></div>")


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


def spent(label="DiM", *, cost=None, **chosen):
    return record((59.4, 60.6), label, method="m", ipc=10, cell={"hyperparameters": chosen}, cost=cost or {})


def test_the_budget_of_every_cell():
    cost = {"bytes_stored": 14_273_516, "bits_per_class": 11_418_813, "images_shown": 100_000, "updates": 4000}
    cost |= {"generation_seconds": 3.456, "prerequisite_seconds": 678.1, "distil_seconds": 12345.6}
    frozen = {"bytes_stored": 9_872, "images_shown": 100, "generation_seconds": 0.0123, "distil_seconds": 0.0}
    not_run = record((), "DiM", method="m", ipc=50, cost={"estimated_hours": 3})
    records = [not_run, spent(cost=cost, redraw=1), spent("DiM, frozen", cost=frozen, redraw=None)]
    assert str(report.budget_table([*records, spent("Random")])).startswith(BUDGET)
    assert "anew every 10 epochs" in str(report.budget_table([spent(redraw=10)]))


def test_bars_show_means_intervals_and_references():
    figure = report.accuracy_bars(RECORDS)
    cifar10, digits = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["cifar10", "digits"]
    assert sorted(bar.get_height() for bar in cifar10.patches) == pytest.approx([15.4, 26.0, 33.5, 40.5, 50.0])
    assert sorted(y for _, y in points(cifar10, marker="D")) == [15.4, 50.0]  # verified
    assert [y for _, y in points(cifar10, marker="o")] == [26.0]  # unverified
    assert not points(digits, marker="D") and not points(digits, marker="o")  # a proxy stands beside no reference
    assert (cifar10.get_ylabel(), digits.get_xlabel()) == ("test accuracy (%)", "images per class")
    assert numbers(cifar10) == ["1", "10"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Random", "DM", "Herding", "ATOM", "paper", "paper, unverified", "95 % interval"]
    (over,) = report.accuracy_bars([record(cell={"tested_on": name}) for name in ("alexnet", "vgg11")]).axes
    assert numbers(over) == ["alexnet", "vgg11"] and over.get_xlabel() == "network tested on"


def test_bars_stand_about_their_tick_however_many_there_are_and_random_rows_are_told_apart():
    rows = [two(40), two(30, "Random"), two(50, ipc=10), two(35, "Random", ipc=10), two(45, "Random, soft", ipc=17)]
    (axes,) = report.accuracy_bars(rows).axes
    centres = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert centres[4] == pytest.approx(2)
    assert [sum(centres[i : i + 2]) / 2 for i in (0, 2)] == pytest.approx([0, 1])
    assert len({bar.get_facecolor() for bar in axes.patches}) == 3


@pytest.mark.parametrize(("seeds", "half"), [([0, 1], 12.706 * 5), ([0], 3.182 * 2.944)])
def test_networks_of_one_distilled_set_count_as_one_in_an_interval(seeds, half):
    """Of the means 11 and 21, by t(1); of one set the four networks, by t(3) and their standard error 2.944."""
    (ax,) = report.accuracy_bars([record((10.0, 12.0, 20.0, 22.0), cell={"seeds": seeds})]).axes
    (whisker,) = [line.get_ydata() for line in ax.lines if len(line.get_ydata()) > 1]
    assert (np.nanmin(whisker), np.nanmax(whisker)) == pytest.approx((16 - half, 16 + half), rel=1e-3)
    assert [bar.get_height() for bar in ax.patches] == [16]


def two(mean, label="DATM", ipc=1, *, value=None, unverified=False, **cell):
    """A record of two networks 1.2 apart."""
    theirs = None if value is None else reference("m", value, ipc=ipc, unverified=unverified)
    return record((mean - 0.6, mean + 0.6), label, method="m", ipc=ipc, cell=cell, reference=theirs)


def numbers(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def points(axes, **look):
    """The points of all lines of a panel that look so."""
    found = [line for line in axes.lines if all(getattr(line, f"get_{key}")() == look[key] for key in look)]
    return sorted({tuple(point) for line in found for point in line.get_xydata().tolist()})


def test_a_line_a_row_with_whiskers_on_a_logarithmic_axis_with_a_tick_at_every_ipc():
    records = [two(60, ipc=50), two(40), two(50, ipc=10), two(20, "Random"), two(80, "whole set", None)]
    figure = report.accuracy_curves(records)
    (axes,) = figure.axes
    assert points(axes, color="#0072b2") == [(1, 40), (10, 50), (50, 60)] and points(axes, color="#999999") == [(1, 20)]
    whiskers = [whisker for lines in axes.collections for whisker in lines.get_segments()]
    found = sorted((whisker[0, 0], whisker[:, 1].min(), whisker[:, 1].max()) for whisker in whiskers)
    half = 12.706 * 0.6  # t(1) times the standard error
    expected = [(x, mean - half, mean + half) for x, mean in [(1, 20), (1, 40), (10, 50), (50, 60)]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    low, high = axes.get_ylim()
    assert low <= 20 - half and 80 < high <= 100  # all is in sight
    assert axes.get_xscale() == "log" and list(axes.get_xticks()) == [1, 10, 50]
    assert numbers(axes) == ["1", "10", "50"] and not list(axes.get_xticks(minor=True))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("images per class", "test accuracy (%)")
    assert {y for _, y in points(axes, linestyle="--", color="black")} == {80}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["DATM", "Random", "whole set", "95 % interval"]


def test_what_the_paper_reports_is_a_hollow_marker_where_it_is_comparable():
    proxy = record((1.0, 2.0), "DATM", method="m", ipc=50, deviations=["narrow"], reference=reference("m", 9.0))
    records = [two(40, value=41.0), two(50, ipc=10, value=52.0, unverified=True), proxy]
    (axes,) = report.accuracy_curves([*records, two(80, "whole set", None, value=84.8)]).axes
    assert points(axes, linestyle="None", markerfacecolor="white", marker="D") == [(0.02, 84.8), (1, 41.0)]
    assert points(axes, linestyle="None", markerfacecolor="white", marker="o") == [(10, 52.0)]
    assert axes.get_ylim()[1] > 84.8


def test_numbers_below_the_axis_never_touch_and_the_last_is_there():
    (axes,) = report.accuracy_curves([two(40, ipc=10)]).axes
    assert numbers(axes) == ["10"] and axes.get_xlim()[0] < 10 < axes.get_xlim()[1]
    (level,) = report.accuracy_curves([two(80, "whole set", None)]).axes
    assert numbers(level) == []
    titles = [ax.get_title(loc="left") for ax in report.accuracy_curves([two(40), two(40, tested_on="vgg11")]).axes]
    assert titles == ["cifar10, tested on convnet", "cifar10, tested on vgg11"]
    (axes,) = report.accuracy_curves([two(40, ipc=ipc) for ipc in (10, 1000, 1250, 1500)]).axes
    assert numbers(axes) == ["10", "", "", "1500"] and list(axes.get_xticks()) == [10, 1000, 1250, 1500]


@dataclass
class Images:
    """A stand-in for a synthetic set."""

    images: torch.Tensor
    labels: torch.Tensor
    class_names: tuple[str, ...] = ("cat", "dog", "sea_lion")

    def pixels(self):
        return self.images


def images(channels=3, ipc=2):
    """Image i is uniformly i / 255."""
    n = 3 * ipc
    values = torch.arange(n).view(n, 1, 1, 1) / 255
    return Images(values.expand(n, channels, 4, 5), torch.arange(n) % 3)


def test_mosaic_puts_every_image_in_its_class():
    canvas = mosaic(images(), 2, 3)
    assert canvas.shape == (3 * 4 + 2, 2 * 5 + 1, 3) and canvas.dtype == torch.uint8
    assert [int(canvas[y, x, 0]) for y, x in ((0, 0), (5, 0), (0, 6), (5, 6))] == [0, 3, 1, 4]
    assert (canvas[:, 5] == 255).all() and (canvas[10:] == 255).all()  # gaps, and a third row without images
    assert (canvas[:4, 6:] == 1).all()
    hard, soft = images(1), images(1)
    soft.labels = torch.nn.functional.one_hot(soft.labels, 3) * 2.5
    assert torch.equal(mosaic(hard, 3, 2), mosaic(soft, 3, 2))


SETS = {"Random": images(), "DM": images()}


def test_image_grid_names_sets_and_classes():
    figure = report.image_grid(SETS)
    first, second = figure.axes
    assert numbers(first) == ["cat", "dog", "sea lion"] and numbers(second) == []
    assert [ax.get_yticklabels()[0].get_text() for ax in figure.axes] == ["Random", "DM"]
    shown = figure.axes[0].images[0]
    assert shown.get_interpolation() == "none" and (shown.get_array()[:, 12:] == 2).all()


def test_a_strip_an_image_with_titled_columns():
    pixels = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    columns = {"real": pixels, "encoded": 1 - pixels, 0: pixels / 2, 1000: pixels.mean(1, keepdim=True)}
    figure = report.image_strips(["golf_ball", "church"], columns)
    titles = [ax.get_title().replace("\n", " ") for ax in figure.axes]
    assert titles == ["real", "encoded", "after 0", "after 1,000"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["golf ball", "church"]
    drawn = np.asarray(figure.axes[1].images[0].get_array())
    wanted = ((1 - pixels) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert (drawn[:8] == wanted[0]).all() and (drawn[9:17] == wanted[1]).all() and (drawn[8] == 255).all()


test_images_that_do_not_fit_are_refused = refuses(
    operator.call,
    [
        (lambda: report.image_grid({"a": images(), "b": Images(images().images, images().labels, ("x", "y", "z"))}),
         "the same class_names"),
        (lambda: report.image_grid({"a": images()}, per_class=0), "per_class=0; allowed: from 1"),
        (lambda: report.image_strips(["a", "b"], {"real": torch.zeros(3, 3, 8, 8)}),
         r"columns\['real'\] is \(3, 3, 8, 8\); allowed: \(2, C, H, W\), as names"),
        (lambda: report.image_strips(["a", "b"], {"real": torch.zeros(2, 4, 8, 8)}),
         r"pixels are \(2, 4, 8, 8\); allowed: \(N, C, H, W\) with 1 or 3 channels"),
    ],
)  # fmt: skip


@pytest.mark.parametrize("kind", ["bars", "images"])
def test_the_same_data_give_the_same_files_with_their_provenance_and_no_date(tmp_path, kind):
    origin = PROVENANCE | {"device": '<CPU> & "GPU" ü', "commit": ["a", None], "distilled": {"seeds": [0, 1]}}
    figure, alike = (report.accuracy_bars(RECORDS) if kind == "bars" else report.image_grid(SETS) for _ in range(2))
    before, whole = len(figure.texts), {"a": figure, "b": figure, "c": alike}
    saved = [report.save(f, "atom/x.quick", provenance=origin, folder=tmp_path / name) for name, f in whole.items()]
    assert [path.name for path in saved[0]] == ["x.quick.png", "x.quick.svg"]
    assert [path.name for path in sorted((tmp_path / "a" / "atom").iterdir())] == ["x.quick.png", "x.quick.svg"]
    assert len({tuple(path.read_bytes() for path in paths) for paths in saved}) == 1 and len(figure.texts) == before
    assert all(path.stat().st_size <= report.LIMIT and report.read_provenance(path) == origin for path in saved[0])
    with Image.open(saved[0][0]) as image:
        assert image.info.keys() <= {"provenance", "dpi"}
    text = saved[0][1].read_text()
    assert "<dc:date>" not in text and "matplotlib.org" not in text


def test_provenance_may_be_missing_but_not_broken(tmp_path):
    figure = report.image_grid({"DM": images()})
    assert all(report.read_provenance(path) == {} for path in report.save(figure, "x", folder=tmp_path))
    with pytest.raises(ValueError, match="JSON compliant"):
        report.save(figure, "x", provenance={"loss": float("nan")}, folder=tmp_path)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (lambda: report.accuracy_bars([record(())]), "no cell was run"),
        (lambda: report.accuracy_curves([record(())]), "no cell was run"),
        (lambda: report.image_grid({}), "no set was made"),
        (lambda: report.image_strips([], {}), "no image was made"),
        (lambda: report.metric_panels({"skipped": []}), "nothing with a course was run"),
        (lambda: report.loss_against_start([]), "nothing was matched"),
    ],
)
def test_nothing_to_draw_is_said(figure, text):
    assert figure().texts[0].get_text() == text


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.pdf", b"", r"path='.*x.pdf'; allowed: a .png or .svg file"),
        ("x.svg", b"<svg/>", "x.svg carries no provenance"),
        ("x.svg", b"<svg>", "x.svg is damaged"),
        ("x.png", b"\x89PNG", "x.png is damaged"),
        ("x.png", bytes.fromhex("89504e470d0a1a0a0000000d49484452"), "x.png is damaged"),
    ],
)
def test_a_file_without_provenance_is_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        report.read_provenance(tmp_path / name)


def test_a_folder_is_no_damaged_picture(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(IsADirectoryError):
        report.read_provenance(tmp_path / "x.png")


def test_large_pictures_are_kept_small(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    noise = Images(torch.rand(3, 3, 32, 32, generator=generator), torch.arange(3))
    figure = report.image_grid({"DM": noise})
    fine, _ = (path.stat().st_size for path in report.save(figure, "x", folder=tmp_path))
    monkeypatch.setattr(style, "LIMIT", fine - 1)
    paths = report.save(figure, "x", folder=tmp_path)
    assert [path.name for path in paths] == ["x.png"] and paths[0].stat().st_size < fine
    assert not (tmp_path / "x.svg").exists()
    monkeypatch.setattr(style, "LIMIT", 1000)
    with pytest.raises(ValueError, match="y: [0-9]+ bytes at 80 dpi, more than 1000; show fewer images"):
        report.save(figure, "y", folder=tmp_path)
    assert not (tmp_path / "y.png").exists()


@pytest.mark.parametrize("name", ["", "/x", "../x", "a/../../x", "x.png"])
def test_save_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="allowed: a path within the folder, without an ending"):
        report.save(report.image_grid({}), name, folder=tmp_path)


def test_figures_show_themselves_and_change_nothing_global():
    before = dict(matplotlib.rcParams)
    figure = report.image_grid(SETS)
    png = DisplayFormatter().format(figure)[0]["image/png"]
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        ({"commit": None, "dirty": None, "date": "2026-01-02"}, "ddlib · 2026-01-02"),
        (
            {"date": ["2026-11-20", "2026-11-21"], "versions": {"ddlib": "0.1.0", "torch": ["2", "3"]}},
            "ddlib 0.1.0 · 2026-11-20 to 2026-11-21 · torch 2, 3",
        ),
        (PROVENANCE | {"distilled": {"commit": "89abcdef0", "dirty": False, "date": "2025-12-31", "device": "GPU"}},
         "ddlib 0.1.0 · commits 0123456, 89abcde (modified) · 2025-12-31 to 2026-01-02 · torch 2.15.0 · CPU and GPU"),
        ({"commit": [None, *(f"{i}234567890" for i in range(5))]}, "ddlib · commits 0234567, 1234567, 2234567, 2 more"),
    ],
)  # fmt: skip
def test_footer(provenance, text):
    assert report.footer(provenance) == text


def test_metrics_have_a_linear_panel_each():
    figure = report.metric_panels({"step size": [(1, 0.01), (5, 0.02)], "skipped": [], "distance": [(1, 0.0)]})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["step size", "distance"]
    assert {(ax.get_yscale(), ax.get_xlabel()) for ax in figure.axes} == {("linear", "step")}
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 0.01], [5, 0.02]]
    (ax,) = report.metric_panels({"distance": [(0, 1.0), (1, 2.0)]}, over="epoch of the expert").axes
    assert ax.get_xlabel() == "epoch of the expert"


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "1 min"), (0.5, "30 min"), (1.0, "1 h"), (30.0, "30 h"), (120, "5 days"), (None, "not run  ")],
)
def test_a_table_states_what_a_cell_would_cost(hours, text):
    cost = {} if hours is None else {"estimated_hours": hours}
    assert text in str(report.table([record((), cost=cost)]))


def test_losses_stand_over_their_start_epochs_with_the_mean_of_each():
    (ax,) = report.loss_against_start([(3, 0.5), (0, 0.9), (3, 0.7)]).axes
    means, one = ax.lines
    assert means.get_xydata().tolist() == [[0, 0.9], [3, 0.6]] and set(one.get_ydata()) == {1}
    assert ax.collections[0].get_offsets().tolist() == [[3, 0.5], [0, 0.9], [3, 0.7]]
    assert ax.get_ylim() == (0, 1.06)


def test_independent_accuracies_are_sets_where_there_are_several_and_else_networks():
    several = record((10.0, 12.0, 20.0, 22.0), "several", cell={"seeds": [0, 1]})
    single = record((30.0, 32.0), "single", ipc=None, cell={"seeds": [0]})
    table = report.independent([several, single, record((), "not run")])
    assert list(zip(table["label"], table["unit"], table["accuracy"], strict=True)) == [
        ("several", 0, 11.0), ("several", 1, 21.0), ("single", 0, 30.0), ("single", 1, 32.0),
    ]  # fmt: skip


def test_families_are_of_methods_that_there_are():
    assert set(report.FAMILY) == set(methods.discover()) and report.FAMILY["a fifth"] == "another"
    assert "a fifth" not in report.FAMILY


def test_the_source_is_the_code_that_runs():
    text = report.source(methods.ATOM.vectors, methods.DM.vectors).data
    assert text.startswith("`ATOM.vectors` in `ddlib/methods/feature_matching.py`, line ")
    assert "```python\ndef vectors(self" in text and text.count("```") == 4
    assert report.source(study.run).data.startswith("`run` in `ddlib/study/__init__.py`, line ")
    decorated = trajectory_matching.ensemble_logits  # by torch.no_grad(), which wraps it in a function of its own
    assert "`ensemble_logits` in `ddlib/methods/trajectory_matching.py`, line " in report.source(decorated).data
    outside = report.source(inspect.unwrap).data
    assert f"`unwrap` in `{Path(inspect.__file__).resolve().as_posix()}`" in outside
    with pytest.raises(TypeError):
        report.source(len)
