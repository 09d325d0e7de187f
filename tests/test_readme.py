"""The commands of the README work as written."""

import re
import shlex
import sys
from pathlib import Path

import fake
import pytest
from PIL import Image

from gald import cli
from gald.data.camvid import CamVid

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def lines_of(text):
    """The lines of the blocks of commands, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r" *\\\n *", " ", block).splitlines()]
    return [line.split("#")[0].strip() for line in lines]


def gald_lines(page):
    return [line for line in lines_of(page.read_text()) if line.startswith("gald ")]


LINES = lines_of(README)
TESTED_ELSEWHERE = ("export", "serve", "submit")  # slow, never ends, needs Cityscapes
CAMVID_SWEEP = "ablation_camvid"  # test_ablations composes its cells; my_ablation runs as a sweep
# Overrides for a tiny network and few batches, so that the commands are fast.
SMALL = [
    "model.backbone.name=test_resnet",
    "model.backbone.weights=null",
    "model.channels=16",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "scheduler.warmup_steps=0",
    "data.num_workers=0",
]


def shrunk(arguments):
    """The arguments of a command, changed so that it takes only seconds."""
    verb, line = arguments[0], " ".join(arguments)
    if verb == "train" and "output_dir=runs/mine" not in arguments:
        arguments = [*arguments, "report=false"]
    if arguments[:2] == ["sweep", "plan"]:
        return list(dict.fromkeys([*arguments, "--no-probe"]))
    if verb in ("compare", "table"):
        return [*arguments, "--samples", "100"]
    if "inference=multi_scale" in arguments:
        return [*arguments, "inference.scales=[0.75,1.0]"]
    if "--query" in arguments:
        return ["3" if word == "320" else "2" if word == "180" else word for word in arguments]
    if verb == "profile":
        return [*arguments, *SMALL[:3], "size=[64,64]", "rounds=1", "device=cpu"]
    if verb == "probe":
        small = ["data.size=[48,64]", "data.train_count=4", "data.val_count=2", "data.test_count=2"]
        probe = ["probe.size=[32,64]", "probe.steps=1", "probe.batch_size=2", "metrics=miou"]
        return [*arguments, *SMALL[:3], *small, *probe, "device=cpu"]
    return shrunk_training(arguments, line) if verb == "train" else arguments


def shrunk_training(arguments, line):
    if "model=plugged" in arguments:
        return [
            *arguments,
            *SMALL[3:],
            "data.size=[48,64]",
            "data.train_transform.crop_size=[48,64]",
        ]
    if "init_from=demo" in arguments:
        return [*arguments, *SMALL[3:]]
    arguments = [*arguments, *SMALL]
    if "ckpt_path=last" in arguments:
        arguments += ["trainer.max_epochs=2"]
    if "camvid" in line or "data=folder" in line:
        arguments += ["data.train_transform.crop_size=[24,32]", "data.global_batch_size=2"]
        arguments += ["trainer.limit_test_batches=2"]
    else:
        arguments += ["data.val_count=8", "data.test_count=8", "data.size=[48,64]"]
        arguments += ["data.train_transform.crop_size=[48,64]"]
    if "camvid_lite0" in line:
        arguments += ["model.head.low_stride=4"]
    return arguments


# Commands of the other pages that need a file or a machine of somebody else, or that never end.
ELSEWHERE = ("official", "resnet50.pth", "clip.mp4", "cuda", "hparams_search", "completion")
# Other layouts of a folder, which tests/data has.
ELSEWHERE += ("photos/SPLIT", "_truth", "lists/SPLIT", "street_masks", "unlabelled", "--class")
ELSEWHERE += ("val_fraction",)
# What a page takes for granted.
BEFORE = {
    "docs/evaluation.md": (
        "gald train experiment=camvid_lite0 data.root=/path/to/CamVid output_dir=runs/mine",
        "gald train data=camvid data.root=/path/to/CamVid model/ld=none output_dir=runs/ga_only",
        "gald train data=camvid data.root=/path/to/CamVid output_dir=runs/ga_ld",
    )
}


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(
            pytest.param(f"docs/{name}.md", marks=pytest.mark.slow)
            for name in (
                "index",
                "evaluation",
                "resume",
                "hosts",
                "commands",
                "ablations",
                "datasets",
            )
        ),
    ],
)
def test_commands_of_a_page_run_in_order(page, camvid, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    monkeypatch.setenv("GALD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GALD_DATA", str(camvid.parent))
    # The toy CamVid has fewer images, which gald data verify would report.
    monkeypatch.setattr(CamVid, "published_counts", {})
    picture = Image.open(next((camvid / "val").glob("*.png"))).convert("RGB")
    Path("photos").mkdir()
    for name in ("street.jpg", "photos/one.jpg"):
        picture.save(name)
    fake.folder(tmp_path / "street")
    lines = [*BEFORE.get(page, ()), *gald_lines(ROOT / page)]
    assert len(lines) >= 3, page
    if page != "README.md":
        (tmp_path / "zoo").symlink_to(ROOT / "zoo")
        lines = [line for line in lines if not any(word in line for word in ELSEWHERE)]
    for line in lines:
        if line.split()[1] in TESTED_ELSEWHERE or CAMVID_SWEEP in line:
            continue
        line = line.replace("/path/to/CamVid", str(camvid))
        if "experiment=ablation_synthetic" in line:
            line += " seed=0 model/ga=cgnl model/ld=none,mask"  # two of its cells
        if " -m " in line:
            for values in ("none,psp", "none,mask", "0,1"):  # one of eight cells
                line = line.replace(values + " ", values.split(",")[-1] + " ")
        monkeypatch.setattr(sys, "argv", ["gald", *shrunk(shlex.split(line)[1:])])
        try:
            cli.main()
        except SystemExit as stop:
            assert stop.code == 0, line
    if page != "README.md":
        return
    assert (tmp_path / "runs" / "mine" / "report" / "report.html").exists()
    assert len(list((tmp_path / "runs" / "my_ablation").rglob("results.json"))) == 1
    assert len(list((tmp_path / "runs" / "browse").glob("camvid_train_*.png"))) == 1


def test_make_targets_of_the_readme_exist():
    named = {line.split()[1] for line in LINES if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert named >= {"demo", "test"}
    assert all(re.search(rf"^{target}:.*## ", makefile, flags=re.MULTILINE) for target in named)


def test_options_in_the_readme_exist():
    rows = [line.split("|")[1:3] for line in README.splitlines() if line.startswith("| `model/ga`")]
    rows += [line.split("|")[1:3] for line in README.splitlines() if line.startswith("| `data`")]
    assert len(rows) == 2
    for group, words in rows:
        folder = ROOT / "conf" / group.strip(" `")
        for word in re.findall(r"`(\w+)`", words):
            assert (folder / f"{word}.yaml").is_file(), f"{folder.name} has no {word}"


def test_paths_in_the_readme_exist():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        name, _, anchor = path.partition("#")
        assert (ROOT / name).exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.*)$", (ROOT / name).read_text(), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
            assert anchor in slugs, path


def test_readme_stays_short():
    assert len(README.splitlines()) < 200
