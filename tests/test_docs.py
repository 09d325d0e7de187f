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

from gald import cli
from gald.config import CONF_DIR, compose

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMPOSED = ("train", "eval", "profile")
BUILD = """
import socket, sys
def refuse(*_):
    raise OSError("the documentation must build without a network")
socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
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
        if path.name != "__init__.py":
            page = path.relative_to(ROOT / "src").with_suffix(".html")
            assert (site / "api" / page).is_file(), page
    for path in CONF_DIR.rglob("*.yaml"):
        group = "-".join(path.parent.relative_to(CONF_DIR).parts) or "index"
        assert f'id="{path.stem}"' in (site / "options" / f"{group}.html").read_text()


def test_formulas_in_docstrings_are_escaped(site):
    assert "&lt;p_i, g_i&gt;" in (site / "api/gald/model/ga/cgnl.html").read_text()


def test_results_page_has_the_results_of_the_readme(site):
    section = re.search(r"## Results\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    rows = [line.split("|")[3:-1] for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 2
    page = (site / "results.html").read_text()
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?>(.*?)</td>", page)]
    assert all(cell.strip(" *") in cells for row in rows for cell in row)


def commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in re.sub(r" *\\\n *", " ", block).splitlines():
                yield page.stem, line.split(" #")[0].strip()


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
        assert verb == "doctor"


def check_composes(name, words, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    # In a multirun every value of a key must exist; a list in brackets is one value.
    values = {}
    for word in words:
        key, _, value = word.partition("=")
        values[key] = [value] if "[" in value else value.split(",")
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
