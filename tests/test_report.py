"""Tables, figures and their files, from hand-made records and images."""

import io
import json
import sys
from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from ddlib import report
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
    return Record.of(accuracies, label=label, **(common | fields))


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
    assert str(report.table(RECORDS)) == TEXT
    assert repr(report.table(RECORDS)) == TEXT


def test_table_names_the_paper():
    assert str(report.table([record()], paper="atom")).startswith("ATOM: Attention Mixer")
    assert "1 cell: 1 NO REFERENCE" in str(report.table([record()]))
    assert str(report.table([])).startswith("0 cells")


def test_table_separates_networks():
    on_vgg = record(cell={"protocol": {"network": "vgg11"}})
    text = str(report.table([record(), on_vgg]))
    assert "cifar10, tested on convnet, test" in text and "cifar10, tested on vgg11, test" in text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(0.001, "1 min"), (0.5, "30 min"), (1.0, "1 h"), (30.0, "30 h"), (120, "5 days"), (None, "not run  ")],
)
def test_table_states_what_a_cell_would_cost(hours, text):
    cost = {} if hours is None else {"estimated_hours": hours}
    assert text in str(report.table([record((), cost=cost)]))


def test_table_as_html():
    page = report.table([*RECORDS, record(label="<b>&")])._repr_html_()
    assert page.count("<tr>") == 1 + 2 + 8
    assert "&lt;b&gt;&amp;" in page and "<b>" not in page
    assert "15.4 ± 0.1 (3)" in page and "26.0 ± 0.8 †" in page
    assert DisplayFormatter().format(report.table(RECORDS))[0].keys() == {"text/plain", "text/html"}


def test_claims_table():
    claim = Claim(
        paper="p", id="c", statement="ATOM is above DM.", where="table", source="abstract", unverified=True,
        higher="atom", lower="dm", datasets=("cifar10",), ipc=(1, 10, 50),
    )  # fmt: skip
    records = [record((35.0, 36.0, 37.0), "ATOM"), record(), record((9.0,), "ATOM", ipc=10), record((8.0,), ipc=10)]
    text = str(report.claims_table([check_claim(claim, records), check_claim(claim, [])]))
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
    claim = Claim(
        paper="p", id="c", statement="ATOM is above DM.", where="table", source="abstract", unverified=False,
        higher="atom", lower="dm", datasets=("cifar10",), ipc=(1,),
    )  # fmt: skip
    claims = report.claims_table([check_claim(claim, [*records, left_out]), check_claim(claim, [])])
    for shown in (table, claims):
        assert shown.provenance == PROVENANCE | {"commit": ["0123456789abcdef", "89abcdef"]}
        assert str(shown).replace("\n  ", " ").endswith(f"\n{FOOTER}")
        assert shown._repr_html_().endswith(f"<div>{FOOTER}</div></div></div>")


def test_a_table_of_unknown_origin_claims_none():
    assert "ddlib" not in str(report.table(RECORDS)) + report.table(RECORDS)._repr_html_()


def test_tables_become_frames():
    frame = report.table(RECORDS).frame()
    assert list(frame.columns) == ["method", "IPC", "paper", "ours", "verdict"] and len(frame) == len(RECORDS)
    assert frame[frame["method"] == "ATOM"]["ours"].tolist() == ["33.5 ± 0.7 (2)"]
    assert frame.index[-1] == "digits (paper: cifar10), test accuracy in %"


def test_tables_become_plain_json():
    content = json.loads(json.dumps(report.table([record(provenance=PROVENANCE)]).to_json()))
    assert content["columns"] == ["method", "IPC", "paper", "ours", "verdict"]
    assert content["groups"][0][1] == [["DM", "  1", "-", "26.0 ± 1.0 (3)", "NO REFERENCE"]]
    assert content["provenance"] == PROVENANCE and content["head"] == "1 cell: 1 NO REFERENCE"


def lines(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def test_bars_show_means_intervals_and_references():
    figure = report.accuracy_bars(RECORDS)
    cifar10, digits = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["cifar10", "digits"]
    assert sorted(bar.get_height() for bar in cifar10.patches) == pytest.approx([15.4, 26.0, 33.5, 40.5, 50.0])
    assert [line.get_ydata()[0] for line in lines(cifar10, "D")] == [15.4, 50.0]  # verified
    assert [line.get_ydata()[0] for line in lines(cifar10, "o")] == [26.0]  # unverified
    assert not lines(digits, "D") and not lines(digits, "o")  # a proxy stands beside no reference
    assert (cifar10.get_ylabel(), digits.get_xlabel()) == ("test accuracy (%)", "images per class")
    assert [text.get_text() for text in cifar10.get_xticklabels()] == ["1", "10"]
    whiskers = [line.get_ydata() for line in cifar10.lines if np.isfinite(line.get_ydata()).sum() > 1]
    halves = [(np.nanmax(whisker) - np.nanmin(whisker)) / 2 for whisker in whiskers]
    assert max(halves) == pytest.approx(12.706 * 0.6, rel=1e-3)  # t(1) = 12.706, standard error 0.6
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Random", "DM", "Herding", "ATOM", "paper", "paper, unverified", "95 % interval"]


def test_networks_of_one_distilled_set_count_as_one_in_an_interval():
    (ax,) = report.accuracy_bars([record((10.0, 12.0, 20.0, 22.0), cell={"seeds": [0, 1]})]).axes
    (whisker,) = [line for line in ax.lines if len(line.get_ydata()) > 1]
    low, high = np.nanmin(whisker.get_ydata()), np.nanmax(whisker.get_ydata())
    assert (low, high) == pytest.approx((16 - 12.706 * 5, 16 + 12.706 * 5), rel=1e-3)  # of the means 11 and 21
    (bar,) = ax.patches
    assert bar.get_height() == 16


def test_bars_over_networks():
    nets = [record(cell={"protocol": {"network": name}}) for name in ("alexnet", "vgg11")]
    (axes,) = report.accuracy_bars(nets).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["alexnet", "vgg11"]
    assert axes.get_xlabel() == "network tested on"


def test_colours_differ_and_random_is_grey():
    bars = report.accuracy_bars([record(label=label) for label in ("Random", "a", "b", "c", "d", "e", "f")]).axes[0]
    shades = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in bars.patches]
    assert len(set(shades)) == 7 and shades[0] == "#999999"


def test_figures_of_nothing_say_so():
    assert report.accuracy_bars([record(())]).texts[0].get_text() == "no cell was run"
    assert report.image_grid({}).texts[0].get_text() == "no set was made"


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
    canvas = mosaic(images(), [2, 0], 3)
    assert canvas.shape == (3 * 4 + 2, 2 * 5 + 1, 3) and canvas.dtype == np.uint8
    assert [canvas[y, x, 0] for y, x in ((0, 0), (5, 0), (0, 6), (5, 6))] == [2, 5, 0, 3]
    assert (canvas[:, 5] == 255).all() and (canvas[10:] == 255).all()  # gaps, and a third row without images
    assert (canvas[:4, :5] == 2).all()


def test_mosaic_takes_soft_labels_and_one_channel():
    hard, soft = images(1), images(1)
    soft.labels = torch.nn.functional.one_hot(soft.labels, 3) * 2.5
    assert (mosaic(hard, [0, 1, 2], 2) == mosaic(soft, [0, 1, 2], 2)).all()
    with pytest.raises(ValueError, match=r"pixels are .6, 2, 4, 5.; allowed: .N, C, H, W. with 1 or 3 channels"):
        mosaic(images(2), [0], 1)


def test_image_grid_names_sets_and_classes():
    figure = report.image_grid({"Random": images(), "DM": images()}, classes=["sea_lion", 0])
    assert [text.get_text() for text in figure.texts] == ["Random", "DM", "sea lion", "cat"]
    shown = figure.axes[0].images[0]
    assert shown.get_interpolation() == "none" and (shown.get_array()[:, :5] == 2).all()


@pytest.mark.parametrize(
    ("sets", "fields", "match"),
    [
        ({"a": images(), "b": Images(images().images, images().labels, ("x", "y", "z"))}, {}, "the same class_names"),
        ({"a": images()}, {"classes": ["bird"]}, r"classes=\['bird'\]; known: cat, dog, sea_lion"),
        ({"a": images()}, {"classes": [3]}, r"classes=\[3\]; known"),
        ({"a": images()}, {"classes": []}, "known: cat"),
        ({"a": images()}, {"per_class": 0}, "per_class=0; allowed: from 1"),
    ],
)
def test_image_grid_refuses(sets, fields, match):
    with pytest.raises(ValueError, match=match):
        report.image_grid(sets, **fields)


def draw(kind):
    return report.accuracy_bars(RECORDS) if kind == "bars" else report.image_grid({"DM": images()}, per_class=2)


@pytest.mark.parametrize("kind", ["bars", "images"])
def test_the_same_data_give_the_same_files(tmp_path, kind):
    first, second = (
        report.save(draw(kind), "atom/accuracy.quick.bars", provenance=PROVENANCE, folder=tmp_path / name)
        for name in ("a", "b")
    )
    names = ["accuracy.quick.bars.png", "accuracy.quick.bars.svg"]
    assert [path.name for path in first] == names and first[0].parent == tmp_path / "a" / "atom"
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second]
    assert sorted(path.name for path in first[0].parent.iterdir()) == names
    assert all(path.stat().st_size <= report.LIMIT for path in first)


def test_saving_twice_changes_nothing(tmp_path):
    figure = draw("bars")
    before = len(figure.texts)
    first = [path.read_bytes() for path in report.save(figure, "x", provenance=PROVENANCE, folder=tmp_path)]
    again = [path.read_bytes() for path in report.save(figure, "x", provenance=PROVENANCE, folder=tmp_path)]
    assert first == again and len(figure.texts) == before


def test_files_carry_their_provenance_and_no_date(tmp_path):
    png, svg = report.save(draw("bars"), "x", provenance=PROVENANCE, folder=tmp_path)
    with Image.open(png) as image:
        assert image.info.keys() <= {"provenance", "dpi"}
        assert json.loads(image.info["provenance"]) == PROVENANCE
    text = svg.read_text()
    assert "0123456789abcdef" in text and "<dc:date>" not in text and "matplotlib.org" not in text
    with pytest.raises(ValueError, match="JSON compliant"):
        report.save(draw("bars"), "x", provenance={"loss": float("nan")}, folder=tmp_path)


def test_a_long_footer_does_not_widen_the_figure(tmp_path):
    several = PROVENANCE | {
        "commit": [f"{i}23456789" for i in range(9)],
        "device": ["CPU x86_64, 16 threads", "H" * 40],
    }
    for kind in ("bars", "images"):
        sizes = []
        for name, told in (("short", {"commit": "a123456"}), ("long", several)):
            with Image.open(report.save(draw(kind), name, provenance=told, folder=tmp_path)[0]) as image:
                sizes.append(image.size)
        assert sizes[1][1] > sizes[0][1]
        assert sizes[1][0] == sizes[0][0] or kind == "images"  # three tiles are narrower than the narrowest line


def test_small_print_keeps_clear_of_a_legend_below(tmp_path):
    path = report.save(report.cost_lines(COSTS), "x", provenance={"commit": "a123456"}, folder=tmp_path)[0]
    with Image.open(path) as image:
        rows = (np.asarray(image.convert("L")) < 200).any(1)[::-1]
        letters = 6 / 72 * image.info["dpi"][1]
    text = rows[rows.argmax() :]
    assert text.argmin() < 1.3 * letters  # the lowest line of ink is no higher than small print


@pytest.mark.parametrize("kind", ["bars", "images"])
def test_provenance_is_read_back_from_either_file(tmp_path, kind):
    told = PROVENANCE | {"device": '<CPU> & "GPU" ü', "commit": ["a", None], "distilled": {"seeds": [0, 1]}}
    for path in report.save(draw(kind), "x", provenance=told, folder=tmp_path):
        assert report.read_provenance(path) == told
    for path in report.save(draw(kind), "x", folder=tmp_path):
        assert report.read_provenance(path) == {}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("x.pdf", b"", r"path='.*x.pdf'; allowed: a .png or .svg file"),
        ("x.svg", b"<svg/>", "x.svg carries no provenance"),
        ("x.svg", b"<svg>", "x.svg is damaged"),
        ("x.png", b"\x89PNG", "x.png is damaged"),
    ],
)
def test_a_file_without_provenance_is_refused(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=match):
        report.read_provenance(tmp_path / name)


def test_a_foreign_picture_is_refused(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="x.png carries no provenance"):
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
        report.save(draw("bars"), name, folder=tmp_path)


def test_figures_show_themselves_and_change_nothing_global():
    before = dict(matplotlib.rcParams)
    figure = draw("bars")
    png = DisplayFormatter().format(figure)[0]["image/png"]
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        (PROVENANCE, "ddlib 0.1.0 · commit 0123456 (modified) · 2026-01-02 · torch 2.15.0 · CPU"),
        ({"commit": None, "dirty": None, "date": "2026-01-02"}, "ddlib · 2026-01-02"),
        ({"commit": "abcdefabcdef", "dirty": False}, "ddlib · commit abcdefa"),
        ({}, "ddlib"),
        (
            {
                "commit": ["a123456789", "b123456789"], "dirty": True, "date": ["2026-11-20", "2026-11-21"],
                "versions": {"ddlib": "0.1.0", "torch": ["2.14.0", "2.15.0"]}, "device": ["CPU, 1 threads", "H200"],
            },
            "ddlib 0.1.0 · commits a123456, b123456 (modified) · 2026-11-20 to 2026-11-21 · torch 2.14.0, 2.15.0"
            " · CPU, 1 threads and H200",
        ),
        (PROVENANCE | {"distilled": {"commit": "89abcdef0", "dirty": False, "date": "2025-12-31", "device": "GPU"}},
         "ddlib 0.1.0 · commits 0123456, 89abcde (modified) · 2025-12-31 to 2026-01-02 · torch 2.15.0 · CPU and GPU"),
        ({"commit": [None, *(f"{i}234567890" for i in range(5))]}, "ddlib · commits 0234567, 1234567, 2234567, 2 more"),
    ],
)  # fmt: skip
def test_footer(provenance, text):
    assert report.footer(provenance) == text


def test_attention_maps_show_a_row_an_image_and_two_columns_a_layer():
    pixels = torch.rand(2, 1, 8, 8)
    spatial, channel = [torch.rand(2, 64), torch.rand(2, 16)], [torch.rand(2, 5), torch.rand(2, 7)]
    figure = report.attention_maps(["a", "b"], pixels, spatial, channel)
    assert len(figure.axes) == 2 * (1 + 2 * 2)
    heights = [patch.get_height() for patch in figure.axes[2].patches]
    assert heights == sorted(channel[0][0].tolist(), reverse=True)


def test_attention_maps_of_unequal_rows_are_refused():
    with pytest.raises(ValueError, match="must agree in rows and layers"):
        report.attention_maps(["a"], torch.rand(2, 1, 8, 8), [torch.rand(2, 64)], [torch.rand(2, 5)])


def test_courses_have_a_panel_each_and_leave_out_what_has_no_course():
    figure = report.courses({"Random": [], "DM": [(1, 2.0), (5, 1.0)], "ATOM": [(1, 30.0), (5, 20.0)]})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["DM", "ATOM"]
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 2.0], [5, 1.0]]


def test_no_course_at_all_is_said():
    assert report.courses({"Random": []}).texts[0].get_text() == "nothing with a course was run"


def test_metrics_have_a_linear_panel_each():
    figure = report.metric_panels({"step size": [(1, 0.01), (5, 0.02)], "skipped": [], "distance": [(1, 0.0)]})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["step size", "distance"]
    assert {ax.get_yscale() for ax in figure.axes} == {"linear"}
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[1, 0.01], [5, 0.02]]
    assert {ax.get_xlabel() for ax in figure.axes} == {"step"}
    (ax,) = report.metric_panels({"distance": [(0, 0.0), (1, 0.4)]}, over="epoch of the expert").axes
    assert ax.get_xlabel() == "epoch of the expert"
    assert report.metric_panels({"skipped": []}).texts[0].get_text() == "nothing with a course was run"


def test_losses_stand_over_their_start_epochs_with_the_mean_of_each():
    (ax,) = report.loss_against_start([(3, 0.5), (0, 0.9), (3, 0.7)]).axes
    means, one = ax.lines
    assert means.get_xydata().tolist() == [[0, 0.9], [3, 0.6]] and set(one.get_ydata()) == {1}
    assert ax.collections[0].get_offsets().tolist() == [[3, 0.5], [0, 0.9], [3, 0.7]]
    assert ax.get_ylim() == (0, 1.06)
    assert report.loss_against_start([]).texts[0].get_text() == "nothing was matched"


COSTS = [
    {"method": method, "N": N, "B": 128, "seconds": seconds * N, "bytes": size * 1e6}
    for method, seconds, size in (("adjoint", 0.1, 60), ("unrolled", 0.08, 600))
    for N in (50, 10)
]


def test_costs_are_lines_against_what_varies():
    time, memory = report.cost_lines(COSTS).axes
    assert [line.get_xydata().tolist() for line in time.lines] == [[[10, 1], [50, 5]], [[10, 0.8], [50, 4]]]
    assert [line.get_ydata().tolist() for line in memory.lines] == [[60, 60], [600, 600]]
    assert (time.get_xscale(), memory.get_yscale(), memory.get_ylabel()) == ("log", "log", "MB")
    assert [text.get_text() for text in time.get_xticklabels()] == ["10", "50"]
    by_batch = report.cost_lines([row | {"N": 10, "B": row["N"], "bytes": None} for row in COSTS])
    assert [ax.get_xlabel() for ax in by_batch.axes] == ["images in a mini-batch B"]  # no memory was measured
    both = report.cost_lines([*COSTS, *(row | {"B": 32} for row in COSTS)])
    names = [text.get_text() for text in both.legends[0].get_texts()]
    assert names == ["adjoint, B = 128", "unrolled, B = 128", "adjoint, B = 32", "unrolled, B = 32"]
    assert len({(line.get_color(), line.get_linestyle()) for line in both.axes[0].lines}) == 4
    assert report.cost_lines([]).texts[0].get_text() == "nothing was measured"


def test_costs_without_what_they_need_are_refused():
    with pytest.raises(ValueError, match=r"row .* lacks N, bytes; it must have method, N, B, seconds, bytes"):
        report.cost_lines([{"method": "adjoint", "B": 1, "seconds": 1.0}])


def test_the_same_images_of_several_sets_stand_side_by_side():
    figure = report.image_panels({"source": images(), "late": images()}, [4, 2])
    assert [text.get_text() for text in figure.texts] == ["source", "late", "dog", "sea lion"]
    for ax in figure.axes:
        shown = ax.images[0].get_array()
        assert (shown[:4] == 4).all() and (shown[5:9] == 2).all() and (shown[4] == 255).all()
    assert report.image_panels({}, [0]).texts[0].get_text() == "no set was made"


@pytest.mark.parametrize(
    ("sets", "rows", "match"),
    [
        ({"a": images(), "b": Images(images().images, images().labels, ("x", "y", "z"))}, [0], "the same class_names"),
        ({"a": images(), "b": images(ipc=1)}, [3], r"rows=\[3\]; allowed: indices in 0..2, at least one"),
        ({"a": images()}, [-1], r"rows=\[-1\]; allowed: indices in 0..5"),
        ({"a": images()}, [], r"rows=\[\]; allowed: indices"),
        ({"a": images(2)}, [0], "with 1 or 3 channels"),
    ],
)
def test_image_panels_refuse(sets, rows, match):
    with pytest.raises(ValueError, match=match):
        report.image_panels(sets, rows)
