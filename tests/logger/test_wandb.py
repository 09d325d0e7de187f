"""wandb without a network: content of its files, names of runs, and no waiting."""

import csv
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import wandb
import yaml
from omegaconf import OmegaConf
from wandb.proto import wandb_internal_pb2
from wandb.sdk.launch.sweeps import utils as agents

from gald import cli
from gald.config import compose
from gald.logger.reachable import reachable
from gald.logger.wandb import wandb_logger
from gald.sweep.cells import Sweep, declare
from gald.sweep.run_labels import run_labels

TINY = [
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=4",
    "data.val_count=2",
    "data.test_count=2",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "model.backbone.name=test_resnet",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "logger=[csv,wandb]",
    "report=false",
]


def records(path):
    """All records of a .wandb file, which has 32 KiB blocks in LevelDB's log format."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind == 0:
            break
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a full record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def keyed(items):
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


class Offline:
    """One run as read from its file."""

    def __init__(self, folder):
        (path,) = folder.glob("wandb/offline-run-*/*.wandb")
        self.config, self.summary, self.history = {}, {}, []
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config |= keyed(record.run.config.update)
            elif kind == "config":
                self.config |= keyed(record.config.update)
            elif kind == "summary":
                self.summary |= keyed(record.summary.update)
            elif kind == "history":
                self.history.append(keyed(record.history.item))

    @property
    def points(self):
        step = "trainer/global_step"
        return {
            (row[step], key): value
            for row in self.history
            for key, value in row.items()
            if step in row and isinstance(value, float | int)
        }


def table(folder):
    """Every number of metrics.csv by step and name."""
    with (folder / "metrics.csv").open() as file:
        return {
            (int(row["step"]), key): float(value)
            for row in csv.DictReader(file)
            for key, value in row.items()
            if key != "step" and value
        }


def write_sweep(folder, seeds=(0, 1)):
    words = ["model/ld=mask", *(["seed=0"] if seeds == (0,) else [])]
    cells = [
        ["model/ld=mask", f"model/ga={ga}", f"seed={seed}"]
        for ga in ("none", "psp")
        for seed in seeds
    ]
    return declare(folder, folder.name, ["gald", "train", "-m", *words], cells)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two cells, trained one after the other in this process."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    cells = write_sweep(folder, seeds=(0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALD_TRACEBACK", "1")
        patch.setenv("WANDB_MODE", "offline")
        for cell in cells:
            words = [*TINY, *cell.overrides, f"output_dir={folder / cell.folder}"]
            patch.setattr(sys, "argv", ["gald", "train", *words])
            cli.main()
    return folder


@pytest.mark.slow
def test_files_of_a_sweep_contain_config_metrics_summary_and_masks(sweep):
    ids = set()
    for cell in Sweep.load(sweep).cells:
        folder = sweep / cell.folder
        offline = Offline(folder)
        ids.add(offline.run.run_id)

        assert offline.run.run_group == "mine" and offline.run.job_type == "cell"
        assert list(offline.run.tags) == ["model/ga=" + cell.folder.split("-")[1].split("_")[0]]
        assert offline.run.display_name == cell.folder

        resolved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        assert {key: offline.config[key] for key in resolved} == resolved
        assert offline.config["arm"] == offline.run.tags[0]

        numbers = table(folder)
        names = {key for _, key in numbers}
        assert {"train/loss", "val/miou", "val/iou/road"} <= names
        points = offline.points
        for key, value in numbers.items():
            assert points[key] == pytest.approx(value, rel=1e-12, nan_ok=True), key

        results = json.loads((folder / "results.json").read_text())
        for key in ("val/miou", "test/miou", "val/boundary_f/3", "params", "seed"):
            assert offline.summary[f"best/{key}"] == results[key]

        masks = "val/masks/all_masks"
        logged = [row[masks] for row in offline.history if masks in row]
        assert len(logged) == 2
        (run_folder,) = folder.glob("wandb/offline-run-*")
        for image in logged[0]:
            for layer in ("ground_truth", "prediction"):
                assert (run_folder / "files" / image[layer]["path"]).is_file()
    assert len(ids) == 2


@pytest.mark.slow
def test_each_process_of_a_real_sweep_logs_its_own_run(tmp_path):
    words = ["-m", "model/ga=none,psp", "seed=0,1", "name=real", *TINY, "trainer.max_epochs=1"]
    command = [sys.executable, "-m", "gald", "train", *words]
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=tmp_path, check=True, env=environment, timeout=600)
    folder = tmp_path / "runs" / "real"
    runs = [Offline(folder / cell.folder) for cell in Sweep.load(folder).cells]
    assert len({offline.run.run_id for offline in runs}) == 4
    assert {offline.run.run_group for offline in runs} == {"real"}
    assert sorted(tuple(offline.run.tags) for offline in runs) == [
        (f"model/ga={ga}", f"seed={seed}") for ga in ("none", "psp") for seed in (0, 1)
    ]
    assert [offline.config["arm"] for offline in runs].count("model/ga=psp") == 2


def test_seeds_of_an_arm_share_a_key_to_average_over(tmp_path):
    cells = write_sweep(tmp_path / "s")
    labels = [run_labels(tmp_path / "s" / cell.folder) for cell in cells[2:]]
    assert [label.config["arm"] for label in labels] == ["model/ga=psp"] * 2
    assert labels[1].tags == ["model/ga=psp", "seed=1"]
    assert labels[1].config["factor"] == {"model_ga": "psp", "seed": "1"}


def test_the_first_trial_of_an_optimizer_has_its_values_as_tags(tmp_path):
    command = ["gald", "train", "-m", "seed=3", "report=false", "x=interval(0,1)"]
    (cell,) = declare(tmp_path / "s", "s", command, [["seed=3", "report=False", "x=0.25"]])
    assert cell.folder.startswith("x-0.25_")
    assert run_labels(tmp_path / "s" / cell.folder).tags == ["x=0.25"]


def test_single_run_is_named_by_its_folder(tmp_path):
    labels = run_labels(tmp_path / "runs" / "demo" / "first")
    assert (labels.name, labels.job_type) == ("demo/first", "train")
    assert labels.tags == [] and labels.config == {} and labels.group is None


@pytest.mark.integration
def test_resumed_run_keeps_its_id_and_an_agent_can_set_it(tmp_path, monkeypatch):
    def run_id():
        logger = wandb_logger(str(tmp_path / "run"))
        logger.experiment.finish()
        return logger.experiment.id

    first = run_id()
    assert run_id() == first
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "r1")
    assert run_id() == "r1"


def test_offline_run_makes_no_connection(tmp_path, monkeypatch):
    """Neither this process nor wandb's own process connects; a proxy would see the request.

    Other programs may try the port too, for example a kernel's client: only HTTP counts.
    """
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)
    stopped, callers = threading.Event(), []

    def listen():
        while not stopped.is_set():
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(1)
                    callers.append(connection.recv(200))
        server.close()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)

    def refuse(*a, **k):
        raise AssertionError(f"looked up {a}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    wandb.teardown()  # so that a new wandb process uses the proxy
    logger = wandb_logger(str(tmp_path / "run"))
    logger.log_metrics({"x": 1.0}, 0)
    start = time.monotonic()
    logger.experiment.finish()
    assert time.monotonic() - start < 10  # no retries against a server
    wandb.teardown()
    stopped.set()
    listener.join()
    assert [request for request in callers if b" HTTP/" in request] == []


@pytest.fixture
def silent_resolver(monkeypatch):
    """A resolver that does not answer before the test ends."""
    stopped = threading.Event()

    def wait(*_, **__):
        stopped.wait(60)
        raise OSError("the test is over")

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield
    stopped.set()


def test_name_that_is_not_resolved_takes_only_a_second(monkeypatch, silent_resolver):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    assert not reachable("https://nowhere.invalid")
    assert time.monotonic() - start < 2


def test_server_that_accepts_connections_is_reachable(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reachable(f"http://127.0.0.1:{port}", seconds=20)
        # If there is a proxy, the connection goes to the proxy.
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        assert reachable("https://nowhere.invalid", seconds=20)
    assert not reachable(f"http://127.0.0.1:{port}", seconds=20)


def test_online_without_a_network_logs_offline_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    with pytest.warns(UserWarning, match="cannot be reached, logging offline"):
        logger = wandb_logger(str(tmp_path), mode="online")
    logger.experiment.finish()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["gald", "wandb", *map(str, words)])
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    cli.main()


@pytest.fixture
def keyless(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))


def test_sync_lists_unsent_runs(sweep, monkeypatch, capsys, keyless):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "sync", sweep, "--dry-run")
    assert not stop.value.code
    assert capsys.readouterr().out.splitlines()[-1] == "2 offline runs to send"


def test_sync_without_a_key_is_refused_in_one_sentence(sweep, monkeypatch, keyless):
    with pytest.raises(ValueError, match="key to send 2 offline runs with; run `wandb login`"):
        call(monkeypatch, "sync", sweep)


def test_sync_passes_the_unsent_runs_to_wandb(tmp_path, monkeypatch):
    from gald.logger import command

    for name in ("a", "b"):
        run = tmp_path / "s" / name / "wandb" / f"offline-run-1-{name}"
        run.mkdir(parents=True)
        (run / f"run-{name}.wandb").touch()
    (run / "run-b.wandb.synced").touch()
    ran = []

    def fake(command, **_):
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(command.subprocess, "run", fake)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "sync", tmp_path / "s", "--entity", "us")
    assert stop.value.code == 3
    unsent = tmp_path / "s" / "a" / "wandb" / "offline-run-1-a"
    assert ran == [[sys.executable, "-m", "wandb", "sync", "--entity=us", str(unsent)]]


def test_wandb_accepts_the_options_that_sync_passes():
    text = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--help"], capture_output=True, text=True
    ).stdout
    assert "--entity" in text and "--project" in text and "[PATHS]" in text


def test_sync_of_a_folder_without_runs_is_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="contains no offline wandb run; give a run"):
        call(monkeypatch, "sync", tmp_path)


def test_dashboard_shows_factors_classes_boundaries_and_images(sweep, tmp_path, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    file = tmp_path / "board.json"
    call_ok(monkeypatch, "dashboard", sweep, "--entity", "us", "--project", "p", "--to", file)
    board = json.loads(file.read_text())
    assert (board["entityName"], board["projectName"]) == ("us", "p")
    assert board["displayName"] == "gald mine"
    section = board["spec"]["section"]
    panels = {part["name"]: part["panels"] for part in section["panelBankConfig"]["sections"]}
    details = "Boundaries, thin classes, small objects"
    assert list(panels) == ["mIoU", "Classes", details, "Images"]
    titles = [panel["config"].get("chartTitle") for panel in panels["mIoU"]]
    assert "val/miou by model/ga" in titles
    grouped = {panel["config"].get("groupBy") for panel in panels["mIoU"]}
    assert {"arm", "factor.model_ga"} <= {str(g).replace(".value", "") for g in grouped}
    bars = json.dumps(panels["Classes"])
    assert bars.count("best/val/iou/road") and bars.count("best/test/iou/pole")
    fine = json.dumps(panels[details])
    assert "best/val/boundary_f/3" in fine and "boundary_f/3/road" not in fine
    assert "val/masks" in json.dumps(panels["Images"])
    assert "mine" in json.dumps(section["runSets"])
    # wandb's own library can read the content that would be sent.
    from wandb_workspaces.workspaces import internal

    internal.WorkspaceViewspec.model_validate(board["spec"])


def call_ok(monkeypatch, *words):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *words)
    assert not stop.value.code


def test_dashboard_without_a_key_names_both_remedies(sweep, monkeypatch, keyless):
    pytest.importorskip("wandb_workspaces")
    with pytest.raises(ValueError, match=r"no wandb key .* `wandb login`, or .* --to FILE"):
        call(monkeypatch, "dashboard", sweep, "--entity", "us")


def test_dashboard_of_an_unfinished_sweep_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    write_sweep(tmp_path / "s")
    with pytest.raises(ValueError, match=r"no cell of .* is done"):
        call(monkeypatch, "dashboard", tmp_path / "s", "--entity", "us")


def test_dashboard_does_not_overwrite_a_file(sweep, tmp_path, monkeypatch):
    pytest.importorskip("wandb_workspaces")
    (tmp_path / "b.json").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        call(monkeypatch, "dashboard", sweep, "--entity", "us", "--to", tmp_path / "b.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="already exists"):
        call(monkeypatch, "dashboard", sweep, "--entity", "us", "--to=~/b.json")


def test_command_of_the_wandb_sweep_composes_for_every_cell(monkeypatch):
    path = Path(__file__).parents[2] / "sweeps" / "ga_ld.yaml"
    content = yaml.safe_load(path.read_text())
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    folders = set()
    for index, ga in enumerate(content["parameters"]["model/ga"]["values"]):
        monkeypatch.setenv("WANDB_RUN_ID", f"r{index}")
        chosen = {"model/ga": ga, "model/ld": "mask", "seed": 2}
        assert set(chosen) == set(content["parameters"])
        # The agent does the same, with one list for all its runs.
        words = agents.create_sweep_command(content["command"])
        variables = agents.create_sweep_command_args(
            {"args": {key: {"value": value} for key, value in chosen.items()}}
        )
        command = []
        for word in words:
            macro = word.startswith("${") and word.endswith("}")
            command += variables[word[2:-1]] if macro else [word]
        assert command[:2] == ["gald", "train"]
        cfg = compose("train", command[2:])
        assert cfg.seed == 2 and cfg.logger.wandb.mode == "online"
        folders.add(cfg.output_dir)
    assert folders == {f"runs/wandb_ga_ld/r{index}" for index in range(3)}
    assert content["metric"]["name"] == "best/val/miou"
