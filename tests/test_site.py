"""The report to read in a browser: everything is in it, every link leads somewhere, nothing comes from a network."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import small_report
import torch

from ddlib import ROOT, methods, results
from ddlib.batch import cli
from ddlib.data import snapshots
from ddlib.data.datasets import load
from ddlib.report import site
from ddlib.report.site import gallery, notebook, pages
from ddlib.store import files, loop
from ddlib.study import notebooks

LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """What a page links to, loads and names."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loaded, self.ids, self.text, self.images = path, [], [], set(), [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links += [attrs["href"]] if tag == "a" and "href" in attrs else []
        self.loaded += [attrs[LOADS[tag]]] if attrs.get(LOADS.get(tag)) else []
        self.loaded += re.findall(r"url\(([^)]*)\)", attrs.get("style") or "")
        self.images += [attrs] if tag == "img" else []

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def block(self, tag, id):
        """The source of the element with this id."""
        (block,) = re.findall(rf'<{tag} [^>]*id="{re.escape(id)}">(.*?)</{tag}>', self.source, re.DOTALL)
        return block


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The report's folder, and what the command printed."""
    return small_report.built(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def report(built):
    """Path within the report -> its page."""
    folder, _ = built
    return {path.relative_to(folder).as_posix(): Page(path) for path in sorted(folder.rglob("*.html"))}


def test_the_command_says_where_to_open_it(built):
    folder, printed = built
    assert re.search(r"^\d+ pages in \d+ s; open file://\S+/report/index\.html$", printed, re.MULTILINE)
    files.check_folder(folder)
    assert not list(folder.parent.glob(".*.part"))


def test_every_claim_stands_on_the_front_page_with_its_verdict(report):
    records = results.read(ROOT / "results/atom/accuracy.quick.json")
    for claim in (claim for paper in results.papers() for claim in results.claims(paper)):
        block = report["index.html"].block("article", f"claim-{claim.id}")
        words = re.sub(r"<[^>]*>", " ", block).replace("&#39;", "'").replace("&amp;", "&")
        assert " ".join(claim.statement.split()) in " ".join(words.split())
        here = re.search(r'badge (\S+)">[^<]*</span> <span class="profile">quick</span> <a [^>]*>atom/accuracy<', block)
        if claim.paper == "atom":
            check = results.check_claim(claim, records)
            assert (here[1] if here else None) == (check.outcome if check.tests else None)
        else:
            assert re.search(r'class="badge (holds|fails|undecided|not-run|not-tested|cannot-be-told-apart)"', block)


def test_cells_are_counted_by_verdict(report):
    paths = [path for path in (ROOT / "results/atom").glob("*.json") if results.read_measurements(path) is None]
    verdicts = [record.verdict for path in paths for record in results.read(path)]
    (row,) = re.findall(r'<a href="paper/atom.html">ATOM</a></th>(.*?)</tr>', report["index.html"].source)
    assert [int(n) for n in re.findall(r">(\d+)<", row)] == [verdicts.count(verdict) for verdict in results.VERDICTS]
    assert re.search(r"holds of these \d+ on digits alone", report["index.html"].words)


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(built, report):
    folder, _ = built
    missing = []
    for name, page in report.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            known = report.get(target.relative_to(folder.resolve()).as_posix()) if target.is_file() else None
            anchored = not parts.fragment or (known and unquote(parts.fragment) in known.ids)
            if not target.is_file() or not anchored:
                missing.append(f"{name}: {link}")
    assert missing == []


def test_nothing_is_loaded_from_a_network_and_all_that_is_loaded_is_there(built, report):
    folder, _ = built
    for name, page in report.items():
        for source in page.loaded:
            if not source.startswith("data:"):
                assert not urlsplit(source).scheme and not source.startswith("//"), f"{name} loads {source}"
                assert (page.path.parent / unquote(source)).is_file(), f"{name} loads {source}, which is missing"
    for asset in (folder / "assets").iterdir():
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//|fetch\(|import\(", asset.read_text()), asset.name


def test_every_page_can_be_read_by_everybody(report):
    for name, page in report.items():
        assert '<html lang="en">' in page.source and 'name="viewport"' in page.source, name
        assert page.source.count("<h1") == 1, name
        assert all(image.get("alt") for image in page.images), name
        tables = len(re.findall(r"<table\b", page.source))
        assert len(re.findall(r'<div class="scroll" tabindex="0">\s*<table\b', page.source)) == tables, name


def test_a_run_says_what_is_stale_damaged_or_not_run(report):
    assert "made from a modified tree" in report["paper/datm.html"].block("section", "datm/accuracy.quick")
    damaged = report["paper/dim.html"].block("section", small_report.DAMAGED)
    assert f"The results cannot be read: ./results/{small_report.DAMAGED}.json is not whole" in damaged
    assert "It takes days; the estimate is printed before it starts" in report["paper/atom.html"].block(
        "section", "atom/accuracy.paper"
    )
    assert "not run: about" in report["paper/atom.html"].block("section", "atom/accuracy.hour")


def test_a_figure_says_what_to_see_and_where_it_comes_from(report):
    page = report["paper/atom.html"]
    figure = page.block("figure", "atom/accuracy.quick.bars")
    commit = results.read(ROOT / "results/atom/accuracy.quick.json")[0].provenance["commit"]
    assert 'href="../notebook/atom/accuracy.quick.html#cell-id=parameters"' in figure and commit[:7] in figure
    assert "Bars are means over all networks" in figure
    assert "Bars are means" not in page.block("figure", "atom/accuracy.hour.bars")  # it is of the quick figure alone


def test_a_notebook_that_was_not_executed_says_so(report):
    assert "was not executed here" not in report["notebook/atom/accuracy.quick.html"].words
    assert "was not executed here" in report["notebook/datm/accuracy.html"].words


def test_the_gallery_has_every_set_with_its_steps_classes_and_accuracy(built, report):
    folder, _ = built
    page = report["gallery.html"]
    assert sorted(re.findall(r'data-steps="([\d,]+)"', page.source)) == ["0,1,2,4,8"] * 2 + ["1"] * 2
    assert "digits, IPC 1" in page.words and "digits, IPC 2" in page.words
    assert page.words.count("Columns: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9") == 4
    assert page.words.count("not evaluated") == 3 and re.search(r"\d+\.\d % over 1 × convnet", page.words)
    sprites = list((folder / "gallery").glob("*.png"))
    assert len(sprites) == 4 and all(path.stat().st_size < 60_000 for path in sprites)


def test_without_a_store_and_with_a_fifth_paper_the_pages_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "OUTPUT", tmp_path)
    monkeypatch.setattr(results, "papers", lambda: ("atom", "fifth"))
    for name in ("claims", "title"):
        known = getattr(results, name)
        monkeypatch.setattr(results, name, lambda paper, known=known: known("atom") if paper == "atom" else "")
    pages.write(tmp_path / "site", [])
    page = Page(tmp_path / "site" / "gallery.html")
    assert "make reproduce fills it" in page.words
    assert "paper/fifth.html" in page.links and "ATOM FIFTH Across papers Gallery" in page.words


def test_every_equation_of_the_notebooks_becomes_mathml():
    equations = 0
    for name in notebooks.names():
        for cell in nbformat.read(notebooks.path_of(name), as_version=4).cells:
            if cell.cell_type == "markdown":
                text = notebook.rendered(cell.source)
                assert 'class="latex"' not in text and "$$" not in text, name
                equations += text.count("<math")
    assert equations > 100


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"\big\lVert x\big\rVert", "&#x02016;"),
        (r"\Big\lfloor\frac{a}{b}\Big\rfloor", "<mfrac>"),
        (r"\unknowncommand{x} < 1", r'<code class="latex">\unknowncommand{x} &lt; 1</code>'),
        (r"\left( x", '<code class="latex">'),
    ],
)
def test_an_equation_that_cannot_be_converted_stands_as_it_is_written(latex, expected):
    assert expected in notebook.mathml(latex)


@pytest.fixture
def instant(monkeypatch):
    """Pages that are written at once: the front page alone, with the number of runs; none are read."""

    def write(folder, runs):
        folder.mkdir()
        (folder / "index.html").write_text(str(len(runs)))

    monkeypatch.setattr(pages, "gathered", lambda profiles: profiles)
    monkeypatch.setattr(pages, "write", write)
    return write


def test_a_report_replaces_an_earlier_one_and_is_there_whole_or_not_at_all(tmp_path, instant, monkeypatch):
    assert site.build(tmp_path / "report", ["quick"]).read_text() == "1"
    assert site.build(tmp_path / "report").read_text() == "3"
    monkeypatch.setattr(pages, "write", lambda folder, runs: instant(folder, runs) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.build(tmp_path / "report", ["quick"])
    assert (tmp_path / "report/index.html").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    with pytest.raises(ValueError, match="profiles contain 'week'; allowed: quick, hour, paper"):
        site.build(tmp_path / "report", ["week"])


def test_no_folder_of_others_is_taken_for_a_report(tmp_path, instant, capsys):
    app, export, report = tmp_path / "app", tmp_path / "export", tmp_path / "report"
    app.mkdir()
    (app / "index.html").write_text("an app")
    (app / files.MANIFEST).write_text('{"name": "an app", "files": {"index.html": "0"}}')
    with files.whole_folder(export) as part:
        part.mkdir()
    site.build(report)
    (report / "notes.txt").write_text("mine")
    for folder in (app, report, export):
        before = sorted(folder.iterdir())
        with pytest.raises(ValueError, match="is there and is no report; allowed: a new folder, or a report's alone"):
            site.build(folder)
        assert sorted(folder.iterdir()) == before
    assert cli.main(["report", "--output", str(app)]) == 2
    assert "is no report" in capsys.readouterr().err


def test_snapshots_are_taken_early_and_change_nothing(tmp_path):
    method = methods.build("atom", ipc=4, iterations=8, batch_real=4, norm="instance", width=8, depth=2)
    train = load("digits", "train")
    plain = loop.run(method, method.start(train, {}, 0)).product
    options = {
        "snapshot": lambda state: snapshots.pictured(method.finish(state)),
        "snapshot_steps": snapshots.steps_of(method.iterations),
    }
    with_snapshots = loop.run(method, method.start(train, {}, 0), **options)
    assert torch.equal(plain.images, with_snapshots.product.images)
    assert options["snapshot_steps"] == (0, 1, 2, 4, 8) == tuple(with_snapshots.snapshots)
    snapshots.write(with_snapshots.snapshots, tmp_path)
    pictures = snapshots.read(tmp_path)
    assert list(pictures) == [0, 1, 2, 4, 8] and pictures[8].shape == (10, snapshots.SHOWN, 1, 16, 16)
    pixels = plain.pixels().unflatten(0, (10, 4))[:, : snapshots.SHOWN]
    assert (pictures[8].float().div(255) - pixels).abs().max() <= 0.5 / 255 + 1e-6
    assert not torch.equal(pictures[0], pictures[8])


def test_what_is_chosen_has_no_snapshots(tmp_path):
    assert snapshots.read(tmp_path) == {}
    assert snapshots.steps_of(1) == () and snapshots.steps_of(2) == (0, 1, 2)


def test_a_sprite_shows_classes_as_columns_and_steps_as_rows():
    picture = torch.zeros(2, 1, 1, 4, 4, dtype=torch.uint8)
    picture[1] = 200
    image = gallery.stacked([picture, picture + 5])
    assert image.size == (1 + 2 * 5, 2 * (1 + 5))
    assert image.getpixel((1, 1)) == (0, 0, 0) and image.getpixel((6, 1)) == (200, 200, 200)
    assert image.getpixel((5, 1)) == (128, 128, 128) and image.getpixel((6, 7)) == (205, 205, 205)
    large = torch.full((2, 1, 3, 128, 128), 200, dtype=torch.uint8)
    image = gallery.stacked([large])
    assert image.size == (1 + 2 * 65, 1 + 65) and image.getpixel((1, 1)) == (200, 200, 200)
