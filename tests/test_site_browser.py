"""The report in a real browser, from the file system: no error, nothing missing, and what can be moved moves."""

from pathlib import Path

import pytest
import small_report

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.browser

MAIN = ("index.html", "paper/atom.html", "paper/ld3m.html", "gallery.html", "notebook/atom/accuracy.quick.html")

LEFT = "net::ERR_ABORTED"
"""Of what was still loading, such as the icon, when the page was left; a file that is missing fails otherwise."""


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, without a window."""
    if not CHROMIUM.is_file():
        pytest.skip(f"{CHROMIUM} is not installed (Debian: apt-get install chromium)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with driver.sync_playwright() as playwright:
        with_browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield with_browser
        with_browser.close()


@pytest.fixture(scope="module")
def report(browser, tmp_path_factory):
    """The report's folder; asked for after the browser, without which nothing is built."""
    return small_report.built(tmp_path_factory.mktemp("output"))[0]


@pytest.fixture
def visit(browser, report):
    """(page of the report, size, scheme) -> the page, opened; at the end nothing may have gone wrong on any."""
    wrong, opened = [], []

    def visit(name, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        opened.append(page)
        page.on("console", lambda said: wrong.append(f"{name}: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"{name}: {error}"))
        page.on("requestfailed", lambda r: None if r.failure == LEFT else wrong.append(f"{name}: {r.url}: {r.failure}"))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        page.goto((report / name).as_uri())
        return page

    yield visit
    for page in opened:
        page.close()
    assert wrong == []


def test_every_page_loads_with_all_its_pictures(report, visit):
    page = visit("index.html")
    for path in sorted(report.rglob("*.html")):
        page.goto(path.as_uri())
        page.evaluate("Promise.all(Array.from(document.images, i => { i.loading = 'eager'; return i.decode(); }))")


@pytest.mark.parametrize("name", MAIN)
def test_a_phone_scrolls_down_alone(visit, name):
    assert visit(name, width=360, height=740).evaluate("document.documentElement.scrollWidth") <= 360


def test_the_slider_shows_other_iterations(visit):
    page = visit("gallery.html")
    atom = page.locator(".set", has_text="ATOM, digits, IPC 1")
    sprite = atom.locator(".sprite")
    before = sprite.screenshot()
    assert "step 8 of 8" in atom.inner_text()
    page.locator("#step").fill("0")
    assert "step 0 of 8" in atom.inner_text() and page.locator("#place").inner_text() == "start"
    assert sprite.screenshot() != before
    page.locator("#step").focus()
    page.keyboard.press("ArrowRight")
    assert "step 1 of 8" in atom.inner_text() and page.locator("#place").inner_text() == "1/8"
    page.locator("#step").fill("4")
    assert sprite.screenshot() == before


def test_a_claim_leads_to_its_figure_and_from_there_to_its_notebook(visit):
    page = visit("index.html")
    page.locator("#claim-dm_above_random").get_by_role("link", name="figure").first.click()
    figure = page.locator("[id='atom/accuracy.quick.bars']")
    assert figure.is_visible() and page.url.endswith("paper/atom.html#atom/accuracy.quick.bars")
    figure.get_by_role("link", name="parameters").click()
    assert "ATOM: accuracy" in page.locator("h1").inner_text() and page.locator("math").count() > 10
    assert "batch_real" in page.locator("[id='cell-id=parameters']").inner_text()
    page.get_by_role("link", name="Gallery").click()
    assert page.url.endswith("gallery.html")


CONTRAST = """() => {
  const channel = c => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll("p, a, td, th, li, .badge, .profile, summary, dt, dd, h1, h2, h3, label")) {
    if (!e.offsetParent || !e.textContent.trim()) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push(e.outerHTML.slice(0, 80));
  }
  return [...new Set(found)];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", MAIN)
def test_text_stands_out_from_its_ground(visit, name, scheme):
    page = visit(name, scheme=scheme)
    assert page.evaluate(CONTRAST) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(251, 250, 248)" if scheme == "light" else "rgb(21, 25, 29)")
