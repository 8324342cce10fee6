"""The report to read in a browser: everything is in it, every link leads somewhere, nothing comes from a network."""

import dataclasses
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
from ddlib.report.site import building, claims, equations, gallery, markdown, tables
from ddlib.report.site.runs import Run
from ddlib.results import Record
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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The report's folder, and what the command printed."""
    return small_report.built(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def report(made):
    """Path within the report -> its page."""
    folder, _ = made
    return {path.relative_to(folder).as_posix(): Page(path) for path in sorted(folder.rglob("*.html"))}


def test_the_command_says_where_to_open_it(made):
    folder, printed = made
    assert re.search(r"^\d+ pages in \d+ s; open file://\S+/report/index\.html$", printed, re.MULTILINE)
    files.check_folder(folder)
    assert not list(folder.parent.glob(".*.part"))


@pytest.mark.parametrize("paper", results.papers())
def test_every_claim_stands_on_the_front_page_with_a_verdict(report, paper):
    source = report["index.html"].source
    for claim in results.claims(paper):
        (block,) = re.findall(rf'<article [^>]*id="claim-{claim.id}">(.*?)</article>', source, re.DOTALL)
        words = re.sub(r"<[^>]*>", " ", block).replace("&#39;", "'").replace("&amp;", "&")
        assert " ".join(claim.statement.split()) in " ".join(words.split())
        assert re.search(r'class="badge (holds|fails|undecided|not-run|not-tested)"', block)


def test_a_claims_verdict_is_that_of_its_records(report):
    records = results.read(ROOT / "results/atom/accuracy.quick.json")
    for claim in results.claims("atom"):
        check = results.check_claim(claim, records)
        source = report["index.html"].source
        (block,) = re.findall(rf'id="claim-{claim.id}">(.*?)</article>', source, re.DOTALL)
        shown = re.findall(
            r'badge (\w+)">\w+</span>\s*<span class="profile">quick</span>\s*<a [^>]*>atom/accuracy<', block
        )
        assert shown == ([check.outcome] if check.tests else [])


def test_cells_are_counted_by_verdict(report):
    paths = [path for path in (ROOT / "results/atom").glob("*.json") if results.read_measurements(path) is None]
    found = [record for path in paths for record in results.read(path)]
    (row,) = re.findall(
        r'<tr><th scope="row"><a href="paper/atom.html">ATOM</a></th>(.*?)</tr>', report["index.html"].source
    )
    counts = [int(n) for n in re.findall(r">(\d+)<", row)]
    assert counts == [sum(r.verdict == verdict for r in found) for verdict in results.VERDICTS]


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(made, report):
    folder, _ = made
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


def test_nothing_is_loaded_from_a_network_and_all_that_is_loaded_is_there(made, report):
    folder, _ = made
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


def test_stale_results_are_marked_with_the_reason(report):
    page = report["paper/datm.html"]
    (run,) = re.findall(r'id="run-accuracy\.quick">(.*?)id="run-', page.source, re.DOTALL)
    assert "stale-mark" in run and "made from a modified tree" in run


def test_cells_not_run_stand_with_their_cost(report):
    records = results.read(ROOT / "results/atom/accuracy.hour.json")
    missing = [record for record in records if not record.n]
    assert missing
    words = report["paper/atom.html"].words
    for record in missing:
        assert f"{record.label}, {record.dataset}, IPC {record.ipc}{tables.cost(record)}" in words


def test_a_profile_without_results_says_what_it_takes(report):
    cells = len(notebooks.cells("atom/accuracy", "paper"))
    (run,) = re.findall(r'id="run-accuracy\.paper">(.*?)</section>', report["paper/atom.html"].source, re.DOTALL)
    assert f"{cells} cells. What it takes: days; the estimate is printed before it starts" in " ".join(run.split())


def test_damaged_results_are_named(report):
    words = report["paper/dim.html"].words
    assert f"The results cannot be read: ./results/{small_report.DAMAGED}.json is not whole" in words


def test_a_figure_tells_its_notebook_commit_and_parameters(report):
    (figure,) = re.findall(
        r'<figure id="fig-accuracy\.quick\.bars">(.*?)</figure>', report["paper/atom.html"].source, re.DOTALL
    )
    records = results.read(ROOT / "results/atom/accuracy.quick.json")
    made = results.provenance(records)
    assert 'href="../notebook/atom/accuracy.quick.html"' in figure and "#cell-id=parameters" in figure
    assert made["parameters"] in figure and "results/atom/accuracy.quick.json" in figure
    commits = made["commit"] if isinstance(made["commit"], list) else [made["commit"]]
    assert all(commit[:7] in figure for commit in commits)
    assert "Bars are means over all networks" in figure


def test_a_notebook_that_was_not_executed_says_so(report):
    assert "was not executed here" not in report["notebook/atom/accuracy.quick.html"].words
    assert "was not executed here" in report["notebook/datm/accuracy.html"].words


def test_the_gallery_has_every_set_with_its_steps(made, report):
    folder, _ = made
    page = report["gallery.html"]
    sets = re.findall(r'data-ipc="(\d)" data-steps="([\d,]+)"', page.source)
    assert sorted(sets) == [("1", "0,1,2,4,8"), ("1", "1"), ("2", "0,1,2,4,8"), ("2", "1")]
    sprites = list((folder / "gallery").glob("*.png"))
    assert len(sprites) == 4 and all(path.stat().st_size < 60_000 for path in sprites)


def test_a_report_without_a_store_says_how_to_fill_it(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "OUTPUT", tmp_path)
    assert gallery.sprites([], tmp_path) == []
    building._Pages(tmp_path).write("gallery.html", "gallery.html.j2", sprites=[], pictures=[], **building._choices([]))
    assert "make reproduce fills it" in Page(tmp_path / "gallery.html").words


def test_every_equation_of_the_notebooks_becomes_mathml():
    found = 0
    for name in notebooks.names():
        for cell in nbformat.read(notebooks.path_of(name), as_version=4).cells:
            if cell.cell_type == "markdown":
                html = markdown.rendered(cell.source)
                assert 'class="latex"' not in html and "$$" not in html, name
                found += html.count("<math")
    assert found > 100


@pytest.mark.parametrize(
    ("latex", "holds"),
    [
        (r"\big\lVert x\big\rVert", "‖"),
        (r"\Big\lfloor\frac{a}{b}\Big\rfloor", "<mfrac>"),
        (r"\unknowncommand{x} < 1", r'<code class="latex">\unknowncommand{x} &lt; 1</code>'),
        (r"\left( x", '<code class="latex">'),
    ],
)
def test_an_equation_that_cannot_be_converted_stands_as_it_is_written(latex, holds):
    found = equations.mathml(latex)
    assert holds in found or holds == "‖" and "&#x02016;" in found


def test_a_claim_with_evidence_both_ways_is_undecided():
    def evidence(outcome):
        return claims.Evidence(None, type("Check", (), {"outcome": outcome, "tests": ()})())

    def word(*outcomes):
        return claims.Verdict(None, tuple(map(evidence, outcomes))).outcome

    assert [word(), word("holds"), word("holds", "undecided"), word("undecided")] == [
        "not run", "holds", "holds", "undecided",
    ]  # fmt: skip
    assert word("holds", "fails") == "undecided" and word("fails", "undecided") == "fails"


def test_a_claim_that_waits_for_cells_says_how_long_they_take_and_on_what(tmp_path):
    claim = next(claim for claim in results.claims("atom") if claim.id == "dm_above_random")
    fields = {"method": "dm", "dataset": "cifar10", "cell": {}, "cost": {"estimated_hours": 1.5}}
    fields |= {"provenance": {"device": "One GPU"}}
    missing = (Record.of((), label="DM", ipc=1, **fields), Record.of((), label="DM", ipc=10, **fields))
    records = (*missing, Record.of((40.0, 41.0), label="Random", ipc=1, **fields | {"method": "random"}))
    one_sided = Run("atom/accuracy", "hour", missing)
    assert next(v for v in claims.verdicts("atom", [one_sided]) if v.claim == claim).waiting == ()
    run = Run("atom/accuracy", "hour", records)
    found = next(v for v in claims.verdicts("atom", [run]) if v.claim == claim)
    assert found.outcome == "not run" and found.waiting == (claims.Waiting(run, 3.0, "One GPU"),)
    told = {"runs": [], "figures": {}, "verdicts": {"atom": [found]}, "paper": "atom", "own": []}
    building._Pages(tmp_path).write("atom.html", "paper.html.j2", **told)
    words = Page(tmp_path / "atom.html").words
    assert f"would take up to {tables.hours(3.0)} on One GPU" in words


def test_a_claim_that_was_not_run_names_the_notebook_that_would_test_it(report):
    words = report["index.html"].words
    assert re.search(r"; paper atom/components would: \S+", words)


def one_claim(id, runs):
    return next(v for paper in results.papers() for v in claims.verdicts(paper, runs) if v.claim.id == id)


def accurate(label, mean, **fields):
    return Record.of(
        [mean - 1, mean, mean + 1], **({"label": label, "dataset": "digits", "ipc": 1, "cell": {}} | fields)
    )


def test_rows_that_cannot_be_told_apart_are_listed():
    records = tuple(accurate(label, 50.0, method="dm") for label in ("DM, few", "DM, fewer"))
    run = Run("compare/none", "quick", (*records, accurate("Random", 40.0, method="random")))
    found = one_claim("dm_above_random", [run])
    assert found.evidence == () and found.outcome == "not run"
    ((where, why),) = found.untold
    assert where == run and "'DM, few', 'DM, fewer'" in why


def test_one_measurement_in_two_notebooks_is_one_piece_of_evidence():
    records = (accurate("DM", 50.0, method="dm"), accurate("Random", 40.0, method="random"))
    a, b, c = (Run(f"compare/{name}", "quick", records) for name in "abc")
    other = Run("compare/d", "quick", (accurate("DM", 51.0, method="dm"), records[1]))
    first, second = one_claim("dm_above_random", [a, b, other, c]).evidence
    assert (first.run, first.also, second.run, second.also) == (a, (b, c), other, ())
    more = tuple(dataclasses.replace(record, ipc=10) for record in records)
    (both,) = one_claim("dm_above_random", [a, Run("compare/f", "quick", (*records, *more))]).evidence
    assert (both.run.name, both.also) == ("compare/f", (a,)) and len(both.check.tests) == 2
    (only,) = one_claim("dm_above_random", [a]).evidence
    assert only.also == () and one_claim("dm_above_random", [a]).on_digits_alone
    real = Run("compare/e", "hour", tuple(dataclasses.replace(r, dataset="cifar10") for r in records))
    assert not one_claim("dm_above_random", [a, real]).on_digits_alone


def across(label, method, mean, networks):
    return [
        accurate(label, mean, method=method, ipc=10, cell={"tested_on": name, "protocol": {"network": kind}})
        for name, kind in networks.items()
    ]


def test_unseen_are_networks_of_another_kind_than_the_convnet():
    networks = {"convnet": "convnet", "no DSA": "convnet", "vit": "vit"}
    records = [
        r for label, mean in (("LD3M, DM", 50.0), ("GLaD, DM", 40.0)) for r in across(label, "x", mean, networks)
    ]
    records = [dataclasses.replace(r, accuracies=(1.0, 2.0, 3.0)) if r.network == "no DSA" else r for r in records]
    (one,) = one_claim("ld3m_above_glad_by_dm", [Run("ld3m/none", "quick", tuple(records))]).evidence
    assert [(t.where, t.comparison.difference) for t in one.check.tests] == [("digits, unseen, IPC 10", 10.0)]
    bare = Run("ld3m/none", "quick", tuple(r for r in records if r.network != "vit"))
    assert (one_claim("ld3m_above_glad_by_dm", [bare]).evidence, one_claim("ld3m_above_glad_by_dm", [bare]).untold) == (
        (),
        (),
    )


def test_a_mean_that_cannot_be_formed_is_no_silence():
    records = [
        r for label in ("LD3M, DM", "GLaD, DM") for r in across(label, "x", 50.0, {"vit": "vit", "vgg11": "vgg11"})
    ]
    records[0] = dataclasses.replace(records[0], accuracies=(1.0, 2.0))
    ((_, why),) = one_claim("ld3m_above_glad_by_dm", [Run("ld3m/none", "quick", tuple(records))]).untold
    assert "has accuracies of 2 on vit, 3 on vgg11; allowed: as many on each" in why


def test_a_claim_that_a_notebook_measures_is_tested_by_its_table_or_shown():
    row = {"method": "ATOM", "kind": "spearman", "among": "all", "networks": 24}
    row |= {"gain": 0.2, "gain_low": 0.1, "gain_high": 0.3}
    tables = {"nas": {"correlations": [row]}, "cost": {"steps": [{"method": "ATOM", "seconds": 1.0}]}}
    runs = [Run(f"atom/{name}", "quick", measured=results.Measurements(t, (), {})) for name, t in tables.items()]
    ranked, cost = (one_claim(id, runs) for id in ("distilled_sets_rank_architectures", "atom_costs_as_datadam"))
    (one,) = ranked.evidence
    assert ranked.outcome == "holds" and ranked.on_digits_alone
    assert one.summary == "digits, 24 networks: +20.0 hundredths of a rank correlation [+10.0, +30.0]"
    assert (cost.outcome, cost.evidence, cost.shown) == ("not tested", (), (runs[1],))
    assert one_claim("distilled_sets_rank_architectures", []).outcome == "not run"


def test_the_text_on_a_quick_figure_describes_no_other(report):
    images = [image["alt"] for image in report["paper/atom.html"].images]
    assert any(alt.startswith("ATOM") and "quick: bars. Bars are" in alt for alt in images)
    assert not [alt for alt in images if re.search(r", hour: \w+\.", alt)]
    assert [alt for name, page in report.items() for alt in (i["alt"] for i in page.images) if alt.find(", hour: ") > 0]


def test_the_front_page_says_what_its_counts_stand_on(report):
    words = report["index.html"].words
    assert re.search(r"holds of these \d+ on digits alone", words)
    assert "fails where some interval lies wholly on the wrong side" in words and "uncorrected" in words


def test_each_set_of_the_gallery_names_its_classes_and_what_its_accuracy_is_of(tmp_path):
    names = {"a": ("cat", "dog"), "b": ("0", "1")}
    sets = [
        gallery.Sprite(path=f"gallery/{d}.png", label="DM", method="dm", dataset=d, ipc=1, steps=(0, 1), rows=1,
                       size=(10, 10), classes=named, run=Run("atom/accuracy", "hour"),
                       record=accurate("DM", 50.0, method="dm", cell={"tested_on": "vit"}))
        for d, named in names.items()
    ]  # fmt: skip
    pages = building._Pages(tmp_path)
    pages.write("gallery.html", "gallery.html.j2", sprites=sets, pictures=[], **building._choices(sets))
    words = Page(tmp_path / "gallery.html").words
    assert "Columns: cat, dog" in words and "Columns: 0, 1" in words
    assert words.count("50.0 % ± 1.0 of vit networks, hour") == 2


def test_only_the_profiles_asked_for_are_shown(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(building, "gathered", lambda profiles: shown.append(profiles) or [])
    monkeypatch.setattr(
        building, "_write", lambda folder, runs: folder.mkdir() or (folder / "index.html").write_text("")
    )
    site.build(tmp_path / "a", ["hour"])
    site.build(tmp_path / "b")
    assert shown == [("hour",), ("quick", "hour", "paper")]


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path, monkeypatch):
    def write(folder, runs):
        folder.mkdir()
        (folder / "index.html").write_text(str(len(runs)))

    monkeypatch.setattr(building, "gathered", lambda profiles: profiles)
    monkeypatch.setattr(building, "_write", write)
    assert site.build(tmp_path / "report", ["quick"]).read_text() == "1"
    assert site.build(tmp_path / "report").read_text() == "3"
    monkeypatch.setattr(building, "_write", lambda folder, runs: write(folder, runs) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.build(tmp_path / "report", ["quick"])
    assert (tmp_path / "report/index.html").read_text() == "3"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="is there and is no report; allowed: a new folder, or a report's"):
        site.build(tmp_path / "mine")
    with pytest.raises(ValueError, match="profiles contain 'week'; allowed: quick, hour, paper"):
        site.build(tmp_path / "report", ["week"])


def test_the_command_refuses_a_folder_that_is_no_report(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert cli.main(["report", "--output", str(tmp_path)]) == 2
    assert "is no report" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_no_folder_of_others_is_taken_for_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "gathered", lambda profiles: [])
    monkeypatch.setattr(
        building, "_write", lambda folder, runs: folder.mkdir() or (folder / "index.html").write_text("")
    )
    app = tmp_path / "app"
    app.mkdir()
    (app / "index.html").write_text("an app")
    (app / files.MANIFEST).write_text('{"name": "an app", "files": {"index.html": "0"}}')
    site.build(tmp_path / "report")
    (tmp_path / "report/notes.txt").write_text("mine")
    for folder in (app, tmp_path / "report"):
        before = sorted(folder.iterdir())
        with pytest.raises(ValueError, match="is there and is no report; allowed: a new folder, or a report's alone"):
            site.build(folder)
        assert sorted(folder.iterdir()) == before
    with files.whole_folder(tmp_path / "export") as part:
        part.mkdir()
    with pytest.raises(ValueError, match="is no report"):
        site.build(tmp_path / "export")


def test_snapshots_are_taken_early_and_change_nothing(tmp_path):
    method = methods.build("atom", ipc=4, iterations=8, batch_real=4, norm="instance", width=8, depth=2)
    train = load("digits", "train")
    plain = loop.run(method, method.start(train, {}, 0)).product
    told = snapshots.asked(method)
    looked = loop.run(method, method.start(train, {}, 0), **told)
    assert torch.equal(plain.images, looked.product.images)
    assert told["snapshot_steps"] == (0, 1, 2, 4, 8) == tuple(looked.snapshots)
    snapshots.write(looked.snapshots, tmp_path)
    kept = snapshots.read(tmp_path)
    assert list(kept) == [0, 1, 2, 4, 8] and kept[8].shape == (10, snapshots.SHOWN, 1, 16, 16)
    pixels = plain.pixels().unflatten(0, (10, 4))[:, : snapshots.SHOWN]
    assert (kept[8].float().div(255) - pixels).abs().max() <= 0.5 / 255 + 1e-6
    assert not torch.equal(kept[0], kept[8])


def test_what_is_chosen_has_no_snapshots(tmp_path):
    assert snapshots.asked(methods.build("random", ipc=1)) == {}
    assert snapshots.read(tmp_path) == {}
    assert snapshots.steps_of(1) == () and snapshots.steps_of(2) == (0, 1, 2)


def test_a_sprite_shows_classes_as_columns_and_steps_as_rows():
    picture = torch.zeros(2, 1, 1, 4, 4, dtype=torch.uint8)
    picture[1] = 200
    image = gallery._stacked([picture, picture + 5])
    assert image.size == (2 * 5, 2 * 5)
    assert image.getpixel((0, 0)) == (0, 0, 0, 255) and image.getpixel((5, 0)) == (200, 200, 200, 255)
    assert image.getpixel((4, 0))[3] == 0 and image.getpixel((5, 5)) == (205, 205, 205, 255)
    large = torch.zeros(2, 1, 3, 128, 128, dtype=torch.uint8)
    assert gallery._stacked([large]).width <= 2 * (gallery.GREATEST + 1)


def test_a_fifth_paper_has_a_page_and_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "papers", lambda: ("atom", "fifth"))
    pages = building._Pages(tmp_path)
    pages.write("gallery.html", "gallery.html.j2", sprites=[], pictures=[], **building._choices([]))
    page = Page(tmp_path / "gallery.html")
    assert "paper/fifth.html" in page.links and "ATOM FIFTH Across papers Gallery" in page.words
