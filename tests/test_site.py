"""The report to read in a browser: everything is in it, and every link leads somewhere."""

import dataclasses
import itertools
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest

from ddlib import ROOT, results
from ddlib.batch import cli
from ddlib.report import site, stale
from ddlib.store import codeprint, files
from ddlib.study import notebooks


class Page(HTMLParser):
    """What a page links to, loads and names."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.loaded, self.ids, self.text = path, [], [], set(), []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs["id"]} if "id" in attrs else set()
        self.links += [attrs["href"]] if tag == "a" and "href" in attrs else []
        self.loaded += [attrs[name] for name in ("src", "href") if tag != "a" and attrs.get(name)]
        assert tag != "img" or attrs.get("alt"), self.path

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def block(self, tag, id):
        """The source of the element with this id."""
        (block,) = re.findall(rf'<{tag} [^>]*id="{re.escape(id)}">(.*?)</{tag}>', self.source, re.DOTALL)
        return block


STALE, DAMAGED = "datm/accuracy.quick", "dim/components.quick"
"""Results that say that they come from a modified tree, with a cell that was not run; and results cut short."""

TORN = "atom/cost.quick.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A report of some committed results and figures, and things that are wrong on purpose."""
    output = tmp_path_factory.mktemp("output")
    for kind in ("results", "figures"):
        shutil.copytree(ROOT / kind / "atom", output / kind / "atom")
        for path in [path for name in (STALE, DAMAGED) for path in (ROOT / kind).glob(f"{name}.*")]:
            (output / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, output / path.relative_to(ROOT))
    executed = output / "runs/notebooks/atom/accuracy.quick.ipynb"
    executed.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / "notebooks/atom/accuracy.ipynb", executed)
    executed.with_name("cost.quick.ipynb").write_text(executed.read_text()[:1000])
    records = results.read(output / f"results/{STALE}.json")
    records[0].provenance["dirty"] = True
    records[-1] = dataclasses.replace(records[-1], accuracies=(), cost={"estimated_hours": 1.0})
    results.write(records, output / f"results/{STALE}.json")
    damaged = output / f"results/{DAMAGED}.json"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.MonkeyPatch.context() as patch:
        for module in (site, stale):
            patch.setattr(module, "OUTPUT", output)
        patch.setattr(codeprint, "sources_at", lambda commit: None)  # git takes seconds to say how code has changed
        site.build()
    return output / "report"


@pytest.fixture(scope="module")
def report(folder):
    """Path within the report -> its page."""
    return {path.relative_to(folder).as_posix(): Page(path) for path in sorted(folder.rglob("*.html"))}


def test_every_claim_stands_on_the_front_page_with_its_evidence(report):
    page, records = report["index.html"], results.read(ROOT / "results/atom/accuracy.quick.json")
    for claim in (claim for paper in results.papers() for claim in results.claims(paper)):
        assert " ".join(claim.statement.split()) in page.words and f"claim-{claim.id}" in page.ids
        block = page.source.partition(f'id="claim-{claim.id}"')[2].partition('<tr id="claim-')[0]
        here = re.search(r'<span class="(\w+)">\w+</span> in <a href="atom.html#atom/accuracy.quick">', block)
        if claim.paper == "atom":
            check = results.check_claim(claim, records)
            assert (here[1] if here else None) == (check.outcome if check.tests else None)
        assert not ("to be tested by" in block and "<details>" in block)
    # the folder holds no results of this notebook
    assert 'to be tested by <a href="notebook/dim/architectures.html">' in page.source


def test_links_lead_to_what_is_there_and_nothing_is_loaded_from_a_network(folder, report):
    files.check_folder(folder)
    assert "@import" not in report["index.html"].source
    for name, page in report.items():
        if name.startswith("notebook/"):
            continue
        assert page.source.count("<h1") == 1, name
        for link in page.loaded:
            assert link.startswith("data:") or (page.path.parent / unquote(link)).is_file(), f"{name} loads {link}"
        for link in (link for link in page.links if urlsplit(link).scheme not in ("http", "https", "mailto")):
            parts = urlsplit(link)
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path.resolve()
            assert target.is_file(), f"{name}: {link}"
            ids = report[target.relative_to(folder.resolve()).as_posix()].ids if parts.fragment else ()
            assert not parts.fragment or unquote(parts.fragment) in ids, f"{name}: {link}"


def test_a_run_has_its_tables_figures_and_what_is_stale_or_damaged(report):
    changed = report["datm.html"].block("section", STALE)
    assert "made from a modified tree" in changed and "not run: about 1 h" in changed
    damaged = report["dim.html"].block("p", DAMAGED)
    assert f"The results cannot be read: ./results/{DAMAGED}.json is not whole" in damaged
    assert "cost.quick.ipynb: Notebook does not appear to be JSON" in report["atom.html"].block("p", TORN)
    quick = report["atom.html"].block("section", "atom/accuracy.quick")
    commit = results.read(ROOT / "results/atom/accuracy.quick.json")[0].provenance["commit"]
    assert 'src="figures/atom/accuracy.quick.bars.svg"' in quick and commit[:7] in quick
    paths = [path for path in (ROOT / "results/atom").glob("*.json") if results.read_measurements(path) is None]
    proxies = sum(record.verdict == "PROXY" for path in paths for record in results.read(path))
    assert f"{proxies} PROXY" in report["atom.html"].words


def test_notebooks_are_there_as_committed_and_as_executed(report):
    names = {f"notebook/{name}.html" for name in notebooks.names()}
    assert {*names, "notebook/atom/accuracy.quick.html"} == {name for name in report if name.startswith("notebook/")}
    assert 'href="notebook/atom/accuracy.quick.html"' in report["atom.html"].source


@pytest.fixture
def instant(monkeypatch):
    """A site that is written at once: the front page alone, with the number of sites so far."""
    numbers = itertools.count(1)

    def write(folder):
        folder.mkdir()
        (folder / "index.html").write_text(str(next(numbers)))

    monkeypatch.setattr(site, "write", write)
    return write


def test_a_report_replaces_an_earlier_one_and_is_there_whole_or_not_at_all(tmp_path, instant, monkeypatch):
    assert site.build(tmp_path / "report").read_text() == "1"
    assert site.build(tmp_path / "report").read_text() == "2"
    monkeypatch.setattr(site, "write", lambda folder: instant(folder) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        site.build(tmp_path / "report")
    assert (tmp_path / "report/index.html").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_the_command_says_where_to_open_it_and_takes_no_folder_of_others(tmp_path, instant, capsys):
    app, export, report = tmp_path / "app", tmp_path / "export", tmp_path / "report"
    app.mkdir()
    (app / "index.html").write_text("an app")
    (app / files.MANIFEST).write_text('{"name": "an app", "files": {"index.html": "0"}}')
    with files.whole_folder(export) as part:
        part.mkdir()
    assert cli.main(["report", "--output", str(report)]) == 0
    assert re.fullmatch(r"1 pages in 0 s; open file://\S+/report/index\.html\n", capsys.readouterr().out)
    (report / "notes.txt").write_text("mine")
    for folder in (app, report, export):
        before = sorted(folder.iterdir())
        with pytest.raises(ValueError, match="is there and is no report; allowed: a new folder, or a report's alone"):
            site.build(folder)
        assert sorted(folder.iterdir()) == before
    assert cli.main(["report", "--output", str(app)]) == 2
    assert "is no report" in capsys.readouterr().err
