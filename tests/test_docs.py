"""The documentation builds offline, loads nothing from other hosts, and matches the code."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml
from cyclopts import App
from PIL import Image

import gald
from gald import cli
from gald.config import CONF_DIR, compose

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMPOSED = ("train", "eval", "profile", "probe")
BUILD = """
import socket, sys
def refuse(*_):
    raise OSError("the documentation must build without a network")
socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
"""

# A training of seconds, whatever else its words say.
TINY = ("debug=limit", "data.size=[48,64]", "data.train_transform.crop_size=[48,64]")
TINY += ("data.train_count=8", "data.val_count=2", "data.test_count=2", "data.num_workers=0")
TINY += ("model.channels=16", "model.backbone.name=test_resnet", "model.backbone.weights=null")
TINY += ("trainer.accelerator=cpu", "metrics=miou", "scheduler.warmup_steps=0")

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


def commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in re.sub(r" *\\\n *", " ", block).splitlines():
                yield page.stem, re.split(r" #| \| ", line)[0].strip()


GALD = sorted({(page, line) for page, line in commands() if line.startswith("gald ")})


def test_every_verb_is_shown():
    assert {line.split()[1] for _, line in GALD} == set(cli.VERBS)


class Accepted(Exception):
    """Raised when the parser has accepted the command line."""


@pytest.mark.parametrize(("page", "line"), GALD, ids=[line for _, line in GALD])
def test_commands_are_valid(page, line, monkeypatch, tmp_path):
    verb, *words = shlex.split(line)[1:]
    assert verb in cli.VERBS
    if verb in COMPOSED and "--check" not in words:
        check_composes(verb, [word for word in words if word != "-m"], monkeypatch)
    elif words:
        check_parses(verb, words, monkeypatch, tmp_path)
    else:
        assert verb in ("doctor", "modules")


def check_composes(name, words, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    # In a multirun every value of a key must exist; a list or dict in brackets is one value.
    values = {}
    for word in words:
        key, _, value = word.partition("=")
        values[key] = [value] if re.search(r"[\[{]", value) else value.split(",")
    for n in range(max(map(len, values.values()), default=1)):
        cell = [f"{key}={several[n % len(several)]}" for key, several in values.items()]
        compose(name, cell, hydra=True)


def check_parses(verb, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "street.jpg").touch()

    def parse(app, words, **options):
        app.parse_args(words, print_error=False, exit_on_error=False)
        raise Accepted

    monkeypatch.setattr(App, "__call__", parse)
    # `eval --check` parses no options, so it fails later, at the missing file.
    reached: tuple[type[Exception], str | None] = (Accepted, None)
    if verb == "eval":
        reached = (FileNotFoundError, "results.json")
    with pytest.raises(reached[0], match=reached[1]):
        monkeypatch.setattr(sys, "argv", ["gald", verb, *words])
        cli._call(cli.VERBS[verb][0], words)


def test_make_targets_of_the_pages_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = {line.split()[1] for _, line in commands() if line.startswith("make ")}
    assert "demo" in named
    assert all(re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE) for target in named)


def test_worked_example_is_a_valid_ga(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "extend.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1])
    package, _, name = config["_target_"].removeprefix("gald.model.ga.").rpartition(".")
    assert f"src/gald/model/ga/{package}.py" in text
    assert f"conf/model/ga/{package}.yaml" in text
    own = {}
    exec(code, own)
    ga = own[name](8)
    x = torch.rand(2, 8, 3, 5)
    means = x.mean(3, keepdim=True).expand_as(x) + x.mean(2, keepdim=True).expand_as(x)
    assert set(config) == {"_target_", "channels"}
    assert torch.allclose(ga(x), x + ga.project(means), atol=1e-6)


def test_answers_of_the_page_are_those_of_gald(monkeypatch, capsys, tmp_path):
    text = (ROOT / "docs" / "commands.md").read_text()
    pairs = re.findall(r"^\$ gald (.*)\n(gald: .*)$", text, flags=re.MULTILINE)
    assert len(pairs) > 5
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    for words, answer in pairs:
        monkeypatch.setattr(sys, "argv", ["gald", *shlex.split(words)])
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
        with pytest.raises(SystemExit):
            cli.main()
        assert capsys.readouterr().err.splitlines()[0] == answer
    assert not list(tmp_path.iterdir())


def test_python_examples_run(monkeypatch, tmp_path):
    """Each alone, as it stands; only its trainings are shorter."""
    text = "".join((ROOT / "docs" / page).read_text() for page in ("python.md", "hosts.md"))
    codes = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    for name in ("load", "train", "segmentor", "plug", "ga", "ld", "record"):
        assert sum(f"gald.{name}(" in code for code in codes) >= 1
    train = gald.train
    monkeypatch.setattr(gald, "train", lambda *words: train(*words, *TINY))
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((128, 96), 90).convert("RGB").save("street.jpg")
    for code in codes:
        exec(code, {})


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
