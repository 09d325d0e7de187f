"""The site of the documentation builds offline and loads nothing from other hosts."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import gald
from gald.config import CONF_DIR

pytestmark = pytest.mark.slow  # the workflow builds the site, too

ROOT = Path(__file__).parents[1]
BUILD = """
import socket, sys
def refuse(*_):
    raise OSError("the documentation must build without a network")
socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
"""

# Texts with too little contrast between their colour and the background (WCAG AA).
FAINT = """
const rgba = text => {
  const parts = text.match(/[\\d.]+/g).map(Number);
  return parts.length < 4 ? [...parts, 1] : parts;
};
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3]));
const light = c => c.map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const faint = [];
let seen = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, range = document.createRange();
  range.selectNode(walker.currentNode);
  const box = range.getBoundingClientRect(), style = getComputedStyle(element);
  const text = walker.currentNode.data.trim();
  if (!text || box.width < 2 || box.height < 2 || style.visibility === "hidden") continue;
  if (element.closest("script, style, noscript, svg")) continue;
  const chain = [];
  for (let node = element; node; node = node.parentElement) chain.unshift(getComputedStyle(node));
  const opacity = chain.reduce((product, one) => product * one.opacity, 1);
  if (opacity < 0.05) continue;
  const below = chain.reduce((c, one) => over(rgba(one.backgroundColor), c), [255, 255, 255]);
  const [red, green, blue, alpha] = rgba(style.color);
  const above = over([red, green, blue, alpha * opacity], below);
  const [dark, bright] = [light(above), light(below)].sort((a, b) => a - b);
  const size = parseFloat(style.fontSize), large = size >= (style.fontWeight >= 700 ? 18.66 : 24);
  const contrast = (bright + 0.05) / (dark + 0.05);
  seen += 1;
  if (contrast < (large ? 3 : 4.5)) faint.push(contrast.toFixed(2) + " " + text.slice(0, 40));
}
return [seen, faint];
"""


class Resources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.found += [attributes[key] for key in ("src", "srcset", "data") if attributes.get(key)]
        if tag == "link" and attributes.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(attributes.get("href", ""))
        if "mermaid" in (attributes.get("class") or "").split():
            self.found.append("https://the theme loads mermaid from another host")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-c", BUILD, "build", "--quiet", "--strict", "--site-dir", folder]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0 and "WARNING" not in output, output
    return folder


def test_pages_load_nothing_from_other_hosts(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text())
        assert resources.found
        outside = [name for name in resources.found if re.match(r"(\w+:)?//|https?:", name)]
        assert not outside, f"{page}: {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


def test_every_public_module_and_option_is_documented(site):
    for path in (ROOT / "src" / "gald").rglob("*.py"):
        if not path.name.startswith("_"):
            page = path.relative_to(ROOT / "src").with_suffix(".html")
            assert (site / "api" / page).is_file(), page
    for path in CONF_DIR.rglob("*.yaml"):
        group = "-".join(path.parent.relative_to(CONF_DIR).parts) or "index"
        assert f'id="{path.stem}"' in (site / "options" / f"{group}.html").read_text()


def test_formulas_in_docstrings_are_escaped(site):
    assert "&lt;p_i, g_i&gt;" in (site / "api/gald/model/ga/cgnl.html").read_text()


def test_links_inside_the_site_lead_to_its_files(site):
    """Those of pages copied from elsewhere in the repository too, which MkDocs does not check."""
    for page in [*site.glob("[a-z]*.html"), *site.glob("options/*.html")]:  # not 404.html
        links = re.findall(r'<a [^>]*?href="([^"#]+)', page.read_text())
        inside = [link for link in links if not re.match(r"\w+:|/", link)]
        missing = [link for link in inside if not (page.parent / link).exists()]
        assert inside and not missing, f"{page}: {missing}"


def test_site_shows_version_and_changelog(site):
    assert f"gald {gald.__version__}" in (site / "modules.html").read_text()
    assert '<a href="changelog.html"' in (site / "index.html").read_text()
    changes = (site / "changelog.html").read_text()
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = [line.removeprefix("## ") for line in text.splitlines() if line[:3] == "## "]
    assert headings and all(f">{heading}<" in changes for heading in headings)


def test_home_starts_with_the_question_a_picture_and_numbers(site):
    home = (site / "index.html").read_text()
    places = [home.index(part) for part in ("<h1", "assets/block.svg", "<table", 'id="quickstart"')]
    assert places == sorted(places)


def test_numbers_in_cells_stay_together(site):
    home = (site / "index.html").read_text()
    assert re.search(r'<td[^>]*>(<span class="together">[\d.]+ GB</span>)</td>', home)
    assert re.search(r'<span class="together">\d+ / \d+ / \d+ images</span>', home)
    assert 'together">' not in (site / "commands.html").read_text()  # it has only plain numbers


@pytest.mark.parametrize("name", ["index", "results"])
def test_home_and_results_page_have_the_results_of_the_readme(name, site):
    section = re.search(r"## Results\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    rows = [line.split("|")[3:-1] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 2
    page = (site / f"{name}.html").read_text()
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", page)]
    assert all(cell.strip(" *") in cells for row in rows for cell in row)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme, site, browser):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for name in ("index", "modules", "python", "options/model-ga", "api/gald/model/ga/cgnl"):
        browser.get((site / f"{name}.html").as_uri())
        shown = browser.execute_script("return document.body.dataset.mdColorScheme")
        assert shown == {"light": "default", "dark": "slate"}[scheme]
        seen, faint = browser.execute_script(FAINT)
        assert seen > 20 and not faint, f"{name}: {faint[:5]}"


def test_tables_of_modules_sort_and_scroll_in_their_own_box(site, browser):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for name in ("index", "results", "python", "commands", "modules"):
        browser.get((site / f"{name}.html").as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390, name

    def column(n):
        cells = "[...document.querySelector('table').tBodies[0].rows]"
        return browser.execute_script(f"return {cells}.map(row => row.cells[{n}].textContent)")

    def click(n):
        heads = "document.querySelectorAll('table:first-of-type thead th')"
        browser.execute_script(f"{heads}[{n}].querySelector('button').click()")
        return browser.execute_script(f"return {heads}[{n}].ariaSort")

    def number(text):
        below = text.startswith("<")
        return float(text.strip("< ").replace(",", "")) - below * 1e-9

    for n in (5, 6, 7):  # params, GMACs, ms
        before = column(n)
        assert click(n) == "ascending"
        assert column(n) == sorted(before, key=number)
        assert click(n) == "descending"
        assert column(n) == sorted(before, key=number, reverse=True)
    assert click(0) == "ascending"
    assert column(0) == sorted(column(0))
