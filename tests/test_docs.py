"""The pages of the documentation match the code; `test_site.py` tests the site."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import torch
import yaml
from cyclopts import App
from PIL import Image

import gald
from gald import cli
from gald.config import compose

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMPOSED = ("train", "eval", "profile", "probe")
# A training of seconds, whatever else its words say.
TINY = ("debug=limit", "data.size=[48,64]", "data.train_transform.crop_size=[48,64]")
TINY += ("data.train_count=8", "data.val_count=2", "data.test_count=2", "data.num_workers=0")
TINY += ("model.channels=16", "model.backbone.name=test_resnet", "model.backbone.weights=null")
TINY += ("trainer.accelerator=cpu", "metrics=miou", "scheduler.warmup_steps=0")


def commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL):
            for line in re.sub(r" *\\\n *", " ", block).splitlines():
                yield page.stem, re.split(r" #| \| ", line)[0].strip()


GALD = sorted({(page, line) for page, line in commands() if line.startswith("gald ")})


def test_leaderboard_is_current_and_has_every_published_sweep():
    board = runpy.run_path(str(ROOT / "docs" / "leaderboard.py"))
    published = {path.parent.name for path in (ROOT / "docs").glob("*/table.csv")}
    assert {study.folder for study in board["STUDIES"]} == published
    current = (ROOT / "docs" / "leaderboard.md").read_text()
    assert current == board["page"](), "renew it: python docs/leaderboard.py"


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


@pytest.mark.integration
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
