"""A file from a stranger decides nothing about what code runs: attacks on every slot and verb."""

import copy
import json
import re
import signal
import time
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import audit
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

import gald
from gald.config import compose
from gald.evaluation.reproduce import SIGNED
from gald.install.extras import missing_packages
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.run import building, slots
from gald.run.plain import RefusedError
from gald.sweep.cells import declare

SOURCE = Path(gald.__file__).parent
SECRET = "a-secret-of-the-environment"
SECONDS = 2.0  # of the processor, so that a busy machine fails no test
PATIENCE = 20  # seconds by the clock, for what waits without working
TARGETS = (
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "importlib.import_module",
    "shutil.rmtree",
    "antigravity.geohash",
    "stranger.Network",
    "stranger",
    "hydra.utils.instantiate",
    "omegaconf.OmegaConf.load",
    "torch.load",
    "torch.hub.load",
    "torch.nn.Module",
    "torch.nn.Module.__init__",
    "torch.nn.Sequential",
    "torch.nn.Identity.__init__",
    "torch.jit.load",
    "timm.create_model",
    "gald.load",
    "gald.cli.os.system",
    "gald.cli.fail",
    "gald.run.building.build_own",
    "gald.sweep.launch.cell_process.Attempt",
    "gald.sweep.launch.cell_process.clear",
    "gald.sweep.launch.report.SweepReport",
    "gald.data.tools.download.fetch",
    "gald.data.loading.decoded.build",
    "gald.data.datamodule.DatasetDataModule",
    "gald.data.folder.Folder",
    "gald.inference.base.Inference",
    "gald.metrics.base.CountMetric",
    "gald.model.ga.cgnl.ConvNormAct",
    "gald.model.ga.cgnl.nn.Module",
    "gald.model.ga.cgnl.CGNL.forward",
    "gald.model.ga.cgnl.__builtins__",
    "gald.model.ga.nowhere.CGNL",
    "gald.model.ga",
    "gald..model.ga.cgnl.CGNL",
    "gald.model.ga.cgnl.CGNL ",
    "gald/model/ga/cgnl.CGNL",
    "",
    "CGNL",
    ".",
)
INTERPOLATIONS = (
    "${oc.env:GALD_SECRET}",
    "\\${oc.env:GALD_SECRET}",
    "\\\\\\${oc.env:GALD_SECRET}",
    "${oc.create:{_target_: os.system, command: 'touch planted'}}",
    "\\${oc.create:{_target_: os.system, command: 'touch planted'}}",
    "a ${name} b",
    "${",
)


class Slow(BaseException):
    """A constructor takes too long; no `except Exception` catches it."""


@contextmanager
def at_most(seconds):
    """Interrupt what takes longer."""

    def interrupt(*_):
        raise Slow

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def stranger(tmp_path, monkeypatch):
    """A module beside the file, which notes that it was imported; and a secret."""
    (tmp_path / "lair").mkdir()
    note = "import pathlib, torch\npathlib.Path(__file__).with_name('planted').touch()\n"
    note += "class Network(torch.nn.Identity):\n    pass\n"
    (tmp_path / "lair" / "stranger.py").write_text(note)
    monkeypatch.syspath_prepend(str(tmp_path / "lair"))
    monkeypatch.setenv("GALD_SECRET", SECRET)
    monkeypatch.setenv("GALD_TRUST", "stranger,os,torch")  # of earlier versions: no effect
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "lair" / "planted").exists() and not (tmp_path / "planted").exists()


@pytest.fixture(scope="module")
def run(trained):
    return trained("data.size=[32,48]", "data.val_count=2", "data.num_workers=0")


@pytest.fixture(scope="module")
def content(run):
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def planted(folder, content, place, value):
    """Write a checkpoint with one value of its config replaced."""
    content = content | {"gald": copy.deepcopy(content["gald"])}
    node = content["gald"]["config"]
    *keys, last = place.split(".")
    for key in keys:
        node = node[key]
    node[last] = value
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


def assert_refused(error, *words):
    """One sentence that names the words, and neither a way around nor the secret."""
    text = str(error)
    assert "\n" not in text and SECRET not in text
    assert "trust" not in text.lower(), text
    for word in words:
        assert word in text, text


# Arguments


FILL = {
    "decoder": "unet",
    "encoder": "resnet18",
    "network": "lraspp_mobilenet_v3_large",
    "config": {"model_type": "mobilenet_v2"},
    "channels": 16,
    "module": {"_target_": "torch.nn.Identity"},
    "over": {"_target_": "gald.inference.whole.FullImage"},
    "name": "test_resnet",
}
GIVEN = {"in_channels": (16, 16, 16), "in_strides": (4, 8, 16), "num_classes": 3}
HOSTILE = (
    "{tmp}/victim",
    "../victim",
    "https://127.0.0.1:9/weights.pth",
    "file:///etc/passwd",
    "hf-hub:owner/name",
    "hf_hub:owner/name",
    "local-dir:{tmp}",
    "package:stranger",
    "timm",
    "//server/share",
    "${{oc.env:GALD_SECRET}}",
    {"_target_": "os.system", "command": "touch planted"},
    {"_target_": "gald.sweep.launch.cell_process.Attempt", "config": {}},
    {"_target_": "stranger.Network"},
    {"a": {"_target_": "stranger.Network"}},
    [{"_target_": "stranger.Network"}],
    {"_args_": ["touch planted"], "_call_": True},
    10**9,
    -1,
    2**62,
    10**30,
    -1e30,
    float("nan"),
    [10**9] * 3,
    [0.5] * 5000,
    [],
    True,
    None,
)


# It is built and probed for each try.
SMALL_HOST = ["model/host=unet", "model.host.encoder=tu-test_resnet"]
SMALL_HOST += ["+model.host.options.encoder_depth=4"]
SMALL_HOST += ["+model.host.options.decoder_channels=[16,8,8,8]"]
if missing_packages("smp"):
    SMALL_HOST = ["model/host=lraspp"]


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("slot", slots.SLOTS)
def test_no_argument_of_any_option_writes_starts_connects_or_hangs(slot, tmp_path):
    root = tmp_path / "folder"
    (root / "images" / "val").mkdir(parents=True)
    (root / "masks" / "val").mkdir(parents=True)
    (root / "classes.yaml").write_text("classes: [{name: road, ids: [1]}]\nvoid: rest\n")
    tiny = ["model.channels=16", "model.backbone.name=test_resnet", "output_dir=x"]
    network = OmegaConf.to_container(compose("train", tiny).model, resolve=True)
    words = ["model=plugged", *SMALL_HOST, "model.channels=16", "output_dir=x"]
    plugged = OmegaConf.to_container(compose("train", words).model, resolve=True)
    given = slots.SLOTS[slot].given
    device = "cpu" if slot in ("inference", "metric", "data") else "meta"
    tried = 0
    with audit.audited() as found:
        for cls in slots.options(slot):
            known, _ = slots.parameters(cls)
            target = next(t for t in names_of(slot, cls))
            needed = [n for n, p in known.items() if p.required and n not in given]
            config = {"_target_": target} | {n: (FILL | {"root": str(root)})[n] for n in needed
                                             if slot != "model"}  # fmt: skip
            if slot == "model":
                config = copy.deepcopy(plugged if cls.__name__ == "Plugged" else network)
            more = {n: GIVEN[n] for n in given if n in known}
            if more and slot != "model":
                config["_partial_"] = True
            build(slot, config, more, device)  # the tries below differ in one value from a good one
            names = [n for n in known if n not in given]
            if cls.__name__ == "Plugged":  # it is built and probed each time
                names = ["host", "at"]
            for name in [*names, "unknown", "_args_", "_recursive_"]:
                for value in HOSTILE:
                    value = value.format(tmp=tmp_path) if isinstance(value, str) else value
                    start = time.process_time()
                    try:
                        with at_most(PATIENCE):
                            build(slot, config | {name: value}, more, device)
                    except Slow:
                        pytest.fail(f"{target} {name}={value!r} takes more than {PATIENCE} s")
                    except (ValueError, FileNotFoundError) as error:
                        assert_refused(error)
                    assert time.process_time() - start < SECONDS, (target, name, value)
                    tried += 1
    assert not found
    assert tried > 100
    assert not (tmp_path / "victim").exists()


def names_of(slot, cls):
    """The names by which a file may call a class."""
    yield from (t for t in slots.SLOTS[slot].also if t.endswith(f".{cls.__name__}"))
    yield f"{cls.__module__}.{cls.__name__}"


def build(slot, config, more, device):
    """Build as a file's config is built: on torch's meta device first, for networks."""
    with torch.device(device):
        if slot == "model" or not more:
            return building.build(slot, config, "FILE", **more)
        make = building.build(slot, config, "FILE")
        try:
            return make(**more)
        except (RuntimeError, TypeError, IndexError) as error:
            # The network that calls it turns the error into a sentence.
            raise ValueError("it cannot be built") from error


@pytest.mark.parametrize("slot", slots.SLOTS)
def test_no_slot_takes_anything_but_its_options(slot):
    with audit.audited() as found:
        options = {name for cls in slots.options(slot) for name in names_of(slot, cls)}
        others = {n for s in slots.SLOTS for c in slots.options(s) for n in names_of(s, c)}
        for target in {*TARGETS, *others} - options:
            with pytest.raises(RefusedError) as caught:
                slots.check_part(slot, {"_target_": target}, "FILE")
            assert_refused(caught.value, f"FILE would call {target} as {slot}, and")
        for value in (None, 3, "gald.model.ga.cgnl.CGNL", [], {}, {"_target_": ["os.system"]}):
            with pytest.raises(ValueError, match="names no class as its _target_"):
                slots.check_part(slot, value, "FILE")
    assert options and not found


def test_an_option_is_found_by_its_file_alone():
    names = {cls.__name__ for cls in slots.options("ga")}
    assert {"CGNL", "PSP", "AtStride", "Identity"} <= names and len(names) > 20
    files = {path.stem for path in (SOURCE / "model" / "ga").glob("[a-z]*.py")}
    assert files <= {cls.__module__.rpartition(".")[2] for cls in slots.options("ga")}


# Verbs


CALL = "would call gald.sweep.launch.cell_process.Attempt"
ATTEMPT = {"_target_": "gald.sweep.launch.cell_process.Attempt", "config": {"output_dir": "victim"}}


@pytest.fixture
def scene(tmp_path, content):
    """Return a function that plants a value in every file of a run, and in a sweep of it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "results.json").write_text("precious")
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "street.png")

    def write(place, value):
        for name in ("runs/a", "runs/b", "sweep/cell"):
            folder = planted(tmp_path / name, content, place, value)
            config = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["gald"][
                "config"
            ]
            (folder / "config.yaml").write_text(json.dumps(config))
            rng = np.random.default_rng(len(name))
            counts, total = ImageCounts(), np.zeros((2, 2), np.int64)
            for index in range(4):
                hits = rng.integers(50, 99, 2) if name == "runs/b" else np.array([50, 50])
                matrix = np.array([[hits[0], 99 - hits[0]], [99 - hits[1], hits[1]]])
                counts.add(f"val_{index:04d}", "confusion", torch.from_numpy(matrix.ravel()))
                total += matrix
            counts.save(folder / "images_val.npz")
            scores = ConfusionMatrix(2).scores(torch.from_numpy(total.ravel()), ("road", "pole"))
            receipt = {part: config[part] for part in ("data", "inference", "metrics")}
            receipt |= {"checkpoint": "checkpoints/best.ckpt", "precision": "32-true"}
            receipt |= dict.fromkeys(SIGNED, "")
            results = {f"val/{k}": v for k, v in scores.items()} | {"val/receipt": receipt}
            (folder / "results.json").write_text(json.dumps(results | {"seed": 0}))
        words = ["gald", "train", "-m"]
        declare(tmp_path / "sweep", "sweep", words, [["model/ga=cgnl", "seed=0"]])
        path = tmp_path / "sweep" / "cells.jsonl"
        path.write_text(re.sub(r'"folder": "[^"]+"', '"folder": "cell"', path.read_text()))

    yield write
    assert (tmp_path / "victim" / "results.json").read_text() == "precious"


VERBS = {
    "eval": ("eval", "ckpt_path=runs/a", "output_dir=out", "trainer.accelerator=cpu"),
    "rest": ("eval", "~metrics", "ckpt_path=runs/a", "output_dir=out"),
    "check": ("eval", "--check", "runs/a/results.json", "trainer.accelerator=cpu"),
    "predict": ("predict", "runs/a", "street.png", "--to", "out", "--device", "cpu"),
    "viz": ("viz", "runs/a", "--image", "street.png", "--to", "out", "--device", "cpu"),
    "export": ("export", "runs/a", "--to", "out", "--format", "pretrained"),
    "serve": ("serve", "runs/a", "--port", "0"),
    "compare": ("compare", "runs/a", "runs/b", "--to", "out", "--samples", "100"),
    "report": ("report", "runs/a", "--to", "out", "--device", "cpu"),
    "table": ("table", "sweep", "--to", "out", "--samples", "100"),
    "measure": ("table", "sweep", "--to", "out", "--samples", "100", "--measure"),
    "audit": ("sweep", "audit", "sweep"),
    "convert": ("convert", "runs/a/checkpoints/best.ckpt", "--to", "out"),
}
NETWORK = ("eval", "predict", "viz", "export", "serve", "compare", "report", "measure")
ATTACKS = [
    *((verb, "model.ga", ATTEMPT, CALL) for verb in NETWORK),
    *((verb, "model.ga.channels", ATTEMPT, CALL) for verb in ("eval", "predict", "measure")),
    *((verb, "inference", ATTEMPT, CALL) for verb in ("eval", "check", "predict", "viz", "serve")),
    *((verb, "data", ATTEMPT, CALL) for verb in ("eval", "check", "compare", "report", "measure")),
    *((verb, "metrics.thin", ATTEMPT, CALL) for verb in ("rest", "check", "compare", "table")),
    *(("report", part, ATTEMPT, CALL) for part in ("inference", "metrics.thin")),
    *((verb, "name", "\\${oc.env:GALD_SECRET}", "as the value of name") for verb in NETWORK),
    ("audit", "name", "${oc.env:GALD_SECRET}", "as the value of name"),
    ("eval", "data.root", "${oc.env:GALD_SECRET}", "as the value of data.root"),
    ("export", "name", "${oc.env:GALD_SECRET}", "as the value of name"),
    ("check", "data.cache_dir", "${oc.env:GALD_SECRET}", "cache_dir"),
    ("compare", "metrics.thin.max_width", "${oc.env:GALD_SECRET}", "max_width"),
    ("predict", "model.ga._args_", ["touch planted"], "model.ga._args_"),
    ("predict", "model.ga._recursive_", False, "model.ga._recursive_"),
    ("predict", "model.head._partial_", "yes", "model.head._partial_"),
    ("predict", "model.backbone.name", "hf-hub:owner/name", "hf-hub:owner/name"),
    ("predict", "model.backbone.name", "local-dir:lair", "local-dir:lair"),
    ("eval", "data.num_workers", 100_000, "would start 100000 processes"),
    ("convert", "name", "x", "is already a checkpoint of gald"),
    ("eval", "data.root", "//server/share", "a path on another machine"),
    ("check", "data.root", "\\\\server\\share", "a path on another machine"),
    ("eval", "data.size", {"_target_": "stranger.Network"}, "would call stranger.Network"),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("verb", "place", "value", "words"), ATTACKS)
def test_a_verb_refuses_a_file_that_calls_code(verb, place, value, words, scene, gald_cli):
    scene(place, value)
    start = time.process_time()
    with audit.audited() as found, pytest.raises(ValueError) as caught:
        gald_cli(*VERBS[verb])
    assert time.process_time() - start < 5
    file = r"(best\.ckpt|results\.json|config\.yaml)"
    assert_refused(caught.value, words)
    assert re.search(file, str(caught.value)) or "model.backbone.name" in str(caught.value)
    assert not [event for event in found if not is_own_work(event, Path.cwd())]
    left = [path.name for path in Path("out").rglob("*") if path.is_file()]
    assert all(name.endswith((".log", ".yaml", ".lock")) for name in left), left  # of Hydra


FOLDERS = ["/etc", "..", ".", "", "a/b", "~", "cell\n", "${oc.env:GALD_SECRET}", 3]


@pytest.mark.parametrize(
    ("verb", "folder"),
    [  # every verb reads the cells with the same function
        *product(("status", "retry", "run", "audit", "table", "train"), ["../victim", None]),
        *product(["status"], FOLDERS),
    ],
)
def test_the_folder_of_a_cell_is_a_name_in_its_sweep(verb, folder, scene, gald_cli):
    scene("name", "sweep")
    path = Path("runs/sweep/cells.jsonl")
    path.parent.mkdir()
    first, cell = Path("sweep/cells.jsonl").read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(cell) | {'folder': folder})}\n")
    words = {"table": ("table", "runs/sweep"), "train": ("train", "-m", "name=sweep", "seed=0")}
    with audit.audited() as found, pytest.raises(ValueError) as caught:
        gald_cli(*words.get(verb, ("sweep", verb, "runs/sweep")))
    assert_refused(caught.value, "runs/sweep/cells.jsonl h", "folder")
    assert not [event for event in found if event.startswith(("subprocess", "shutil", "import"))]


def is_own_work(event, folder):
    """Whether a verb prepares its own output, finds a free port or reads what is installed."""
    words = event.split()
    if words[0].startswith(("os.", "open", "shutil.")):
        path = words[1].strip("(',b)")
        inside = Path(folder, path).is_relative_to(folder / "out") or "/.out." in path
        # The folder exists; a file without a name is opened there to see if it can be written.
        return inside or (words[0] in ("os.mkdir", "open") and Path(path) == folder)
    return words[0] in ("socket.__new__", "socket.bind") or words[0].startswith("socket.gethost")


@pytest.mark.parametrize("text", INTERPOLATIONS)
@pytest.mark.parametrize("place", ["name", "trainer.precision", "model.ga.channels", "key"])
def test_no_interpolation_is_resolved_wherever_it_is(text, place, content, tmp_path):
    config = copy.deepcopy(content["gald"]["config"])
    about = content["gald"] | {"config": config}
    if place == "key":
        config["callbacks"][text] = {"a": [1]}
    else:
        group, _, key = place.rpartition(".")
        slots_of = config if not group else OmegaConf.select(OmegaConf.create(config), group)
        node = config
        for part in filter(None, group.split(".")):
            node = node[part]
        assert key in slots_of
        node[key] = text
    torch.save(content | {"gald": about}, tmp_path / "stranger.ckpt")
    with audit.audited() as found, pytest.raises(RefusedError) as caught:
        gald.load(tmp_path / "stranger.ckpt")
    where = "a key in callbacks" if place == "key" else f"the value of {place}"
    assert_refused(caught.value, "stranger.ckpt", where, "write the value itself")
    assert not found


def cycle():
    table = {}
    table["again"] = table
    return table


def bomb():
    table = "x"
    for _ in range(40):
        table = {"a": table, "b": table}
    return table


def wide():
    table = list(range(10))
    for _ in range(12):
        table = [table] * 10
    return table


def deep():
    table = {}
    for _ in range(200):
        table = {"a": table}
    return table


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("model.channels", 10**9, "a whole number >= 1 and <= 65536"),
        ("model.channels", 10**4, "where this network has"),
        ("model.channels", -1, "a whole number >= 1"),
        ("model.channels", 2**70, "a whole number"),
        ("model.channels", "16", "Segmentor takes a whole number"),
        ("model.channels", True, "a whole number"),
        ("model.channels", {"a": 1}, "a whole number"),
        ("model.align_corners", "yes", "true or false"),
        ("model.order", ["ga_ld"], "one of ga_ld, ld_ga, parallel"),
        ("model.ld.steps", 10**9, "at least 1 and at most 16"),
        ("model.aux_head.index", 99, "cannot be built"),
        ("model.ga", None, "a part with a _target_"),
        ("model.ga.groups", [8], "a whole number"),
        ("model.num_classes", 3, "takes no num_classes from a file"),
        ("model.head.num_classes", 3, "takes no num_classes from a file"),
        ("model.weights", "x", "takes no weights"),
        ("inference", [], "names no class"),
        ("inference.align_corners", 2, "true or false"),
        ("callbacks.a", cycle(), "contains itself"),
        ("callbacks.a", bomb(), "more than 50000 values"),
        ("callbacks.a", wide(), "more than 50000 values"),
        ("callbacks.a", deep(), "more than 100 levels"),
        ("callbacks.a", torch.zeros(2), "a Tensor as callbacks.a"),
        ("callbacks.a", {3: {(1, 2): 3}}, "a tuple as a key in callbacks.a.3"),
    ],
)
def test_a_config_that_cannot_be_is_refused_soon(place, value, words, content, tmp_path):
    folder = planted(tmp_path / "run", content, place, value)
    start = time.process_time()
    with at_most(PATIENCE), audit.audited() as found, pytest.raises(ValueError) as caught:
        gald.load(folder)
    assert time.process_time() - start < SECONDS
    assert_refused(caught.value, "best.ckpt", words)
    assert not found


def test_a_deep_config_json_is_refused(content, tmp_path):
    gald.load(planted(tmp_path / "run", content, "name", "x")).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json nests more than 100 levels"):
        gald.load(tmp_path / "saved")


def test_nothing_outside_one_module_builds_a_config():
    calls = re.compile(r"\b(instantiate|get_method|hydra\.utils\.call)\b")
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if calls.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"run/building.py"}


def test_what_a_file_holds_reaches_only_the_checked_builder():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "build_own(" not in text or path.name == "building.py":
            continue
        for call in re.findall(r"build_own\(([^)]*)\)", text):
            assert not re.search(r"checkpoint|receipt|stored|\bfile\b", call), (path, call)
