"""Shared fixtures: toy data, a tiny trained run, the installed console script, clean-up checks."""

import gc
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from typing import Any

import fake
import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import DefaultsList, Overrides
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

REPOSITORY = Path(__file__).parents[1]
PLACES = {"pkg://hydra.conf", f"file://{REPOSITORY / 'conf'}", "structured://"}  # of configs
LONG = ("test_readme.py", "test_docs.py", "test_wandb.py", "test_serve.py", "test_text.py")
PATIENCE = 10  # seconds to wait for threads and processes to end
# Services of libraries that live as long as the process: words in a thread's name or a command.
SERVICES = ("wandb", "Otel", "resource_tracker", "forkserver", "tqdm", "asyncio_", "execnet")
SERVICES += ("orted", "compile_worker", "InductorSubproc", "subproc_worker")  # MPI, torch.compile
SERVICES += ("slurmd",)
# Chromium contacts Google's hosts by itself; with these flags only the page makes requests.
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rows that one_in leaves to `make test-slow`, and start with the longest files.

    The longest come first so that no process works alone at the end.
    """
    rows: Counter[str] = Counter()
    for item in items:
        if (mark := item.get_closest_marker("one_in")) is not None:
            (count,) = mark.args
            test = item.nodeid.split("[")[0]
            if rows[test] % count:
                item.add_marker(pytest.mark.slow)
            rows[test] += 1
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep caches in temporary folders instead of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GALD_CACHE", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="session", autouse=True)
def hang_up_is_not_ignored() -> Iterator[None]:
    """Undo nohup for the processes that tests start: gald honours it, but tests send SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def configs_are_composed_once() -> Iterator[list[tuple[Any, str, Any]]]:
    """Keep what Hydra makes of the files and groups that a composition chooses.

    Two thousand compositions each read thirty files, but choose among a few hundred sets of groups.
    The values of a command line come after that, and Hydra sets them as ever.

    Yields:
        place, name and original of each replaced function.
    """
    load, listed = OmegaConf.load, config_loader_impl.create_defaults_list
    interpolated = defaults_list._create_interpolation_map
    merged = ConfigLoaderImpl._compose_config_from_defaults_list
    files: dict[Any, bytes] = {}  # a pickle is read in a sixth of the time of a deep copy
    lists: dict[Any, tuple[list[Any], dict[str, Any]]] = {}
    configs: dict[Any, bytes] = {}

    def load_once(file: Any) -> DictConfig | ListConfig:
        path = Path(file if isinstance(file, (str, Path)) else file.name).absolute()
        state = path.stat()
        key = path, state.st_mtime_ns, state.st_size, state.st_ino
        if key not in files:
            files[key] = pickle.dumps(load(file))
        return pickle.loads(files[key])

    def fixed(repo: Any) -> tuple[str, ...] | None:
        """The folders of the files; None if one of them may change during the tests."""
        places = tuple(source.full_path() for source in repo.get_sources())
        return places if set(places) <= PLACES else None

    def list_once(
        repo: Any, config_name: str, overrides_list: list[Any], **options: bool
    ) -> DefaultsList:
        overrides = Overrides(repo=repo, overrides_list=overrides_list)
        values = {id(override) for override in overrides.config_overrides}
        words = tuple(one.input_line for one in overrides_list if id(one) not in values)
        places = fixed(repo)
        key = places, config_name, words, *sorted(options.items())
        if places is None or key not in lists:
            found = listed(repo, config_name, overrides_list, **options)
            lists[key] = found.defaults, found.overrides.known_choices
            return found
        defaults, overrides.known_choices = lists[key]
        return DefaultsList(defaults, None, overrides.config_overrides, overrides)

    def merge_once(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> DictConfig:
        places = fixed(repo)
        if places is None:
            return merged(self, defaults, repo)
        key = places, repr(defaults)
        if key not in configs:
            configs[key] = pickle.dumps(merged(self, defaults, repo))
        return pickle.loads(configs[key])

    def choices(overrides: Overrides, defaults: list[Any], self_added: bool) -> DictConfig:
        """What `${...}` in a list of defaults refers to; few lists have one."""
        if "${" in repr(defaults):
            return interpolated(overrides, defaults, self_added)
        return OmegaConf.create()

    replaced = [
        (OmegaConf, "load", load, load_once),
        (defaults_list, "_create_interpolation_map", interpolated, choices),
        (config_loader_impl, "create_defaults_list", listed, list_once),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list", merged, merge_once),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for place, name, _, ours in replaced:
            patch.setattr(place, name, ours)
        # A shallow copy is enough for its list of folders; the files in memory are not changed.
        patch.setattr(ConfigRepository, "__deepcopy__", lambda self, _: copy(self), raising=False)
        yield [(place, name, own) for place, name, own, _ in replaced]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fail a test that leaves a thread or a process, and restore environment and folder."""
    environment, folder = dict(os.environ), Path.cwd()
    HydraConfig.instance().cfg = None  # of a training in this process, in another test
    before = threads(), children()
    yield
    os.chdir(folder)
    restore(environment)
    left = threads() - before[0] | children() - before[1]
    if left:
        gc.collect()  # the workers of a data loader end when it is collected
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = threads() - before[0] | children() - before[1]
    assert not left, f"the test left {sorted(left)} behind"


@pytest.fixture(scope="module", autouse=True)
def no_orphan_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a module if one of its tests left a process without a parent."""
    environment = dict(os.environ)
    yield
    restore(environment)
    base = str(tmp_path_factory.getbasetemp())
    deadline = time.monotonic() + PATIENCE
    while (left := orphans(base)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"a test left {left} behind"


def restore(environment: dict[str, str]) -> None:
    """Restore the environment variables, except those by which wandb finds its service."""
    for name in os.environ.keys() | environment.keys():
        if "WANDB" in name:
            continue
        if name not in environment:
            del os.environ[name]
        elif os.environ.get(name) != environment[name]:
            os.environ[name] = environment[name]


def threads() -> set[str]:
    """Names of the threads of this process that belong to a test."""
    names = {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}
    return {name for name in names if not any(word in name for word in SERVICES)}


def children() -> set[str]:
    """Commands of the living children of this process that belong to a test."""
    commands = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            pids = path.read_text().split()
        except OSError:  # the thread has just ended
            continue
        for pid in pids:
            command = command_of(Path("/proc") / pid)
            if command and not any(word in command for word in SERVICES):
                commands.add(f"process {pid} {command[:200]}")
    return commands


def orphans(folder: str) -> list[str]:
    """Commands of the processes without a parent that mention a folder, or run in it."""
    commands = []
    for process in Path("/proc").glob("[0-9]*"):
        command = command_of(process)
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            uses_folder = folder in command or str((process / "cwd").readlink()).startswith(folder)
        except OSError:  # it has just ended
            continue
        if uses_folder and parent == "1":
            commands.append(command[:200])
    return commands


def command_of(process: Path) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped without it."""
    root = (REPOSITORY / os.environ.get("GALD_DATA", "../shared/data")).resolve()
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set GALD_DATA")
    return root


@pytest.fixture
def published(real_data: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Return a function that reads a dataset's label table; the test is skipped without it."""

    def read(name: str) -> list[dict[str, Any]]:
        path = real_data / "labels" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"no label table {path}")
        return json.loads(path.read_text())

    return read


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A toy CamVid with 7 train, 3 val and 2 test images of 24x32 pixels, with lists."""
    return fake.camvid(tmp_path / "camvid")


@pytest.fixture
def gald_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs `gald ARGUMENTS` in this process and raises its errors."""

    def call(*arguments: str) -> None:
        from gald import cli

        monkeypatch.setattr(sys, "argv", ["gald", *arguments])
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
        monkeypatch.setenv("PYTHONSAFEPATH", "")
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()

    return call


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that starts the console script `gald` of an installed wheel.

    The wheel is installed in its own environment, which uses the other packages of this one.
    """
    home = tmp_path_factory.mktemp("console")
    build = "import sys; from hatchling import build; print(build.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(home)]
    wheel = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    venv.create(home / "env", symlinks=True)
    python = home / "env" / "bin" / "python"
    (packages,) = (home / "env" / "lib").glob("python*/site-packages")
    (packages / "other_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", wheel.stdout.split()[-1]]
    subprocess.run(install, cwd=home, check=True, capture_output=True)
    removed = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    removed += ("GALD_RUN_ID", "GALD_TRACEBACK", "PYTHONPATH", "PYTHONSAFEPATH")

    def start(
        *arguments: str | Path, cwd: Path, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in removed}
        return subprocess.run(
            [python.with_name("gald"), *arguments],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function of overrides that writes the run folder of a tiny random network."""

    def write(*overrides: str) -> Path:
        import torch
        from hydra.utils import instantiate

        from gald.config import compose
        from gald.data.synthetic import SyntheticStreets

        folder = tmp_path_factory.mktemp("trained") / "run"
        tiny = ["model.channels=16", "model.backbone.name=test_resnet", f"output_dir={folder}"]
        cfg = compose("train", [*tiny, *overrides])
        torch.manual_seed(0)
        model = instantiate(cfg.model, num_classes=len(SyntheticStreets.class_names))
        content = {
            "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
            "gald": {
                "config": OmegaConf.to_container(cfg, resolve=True),
                "class_names": list(SyntheticStreets.class_names),
                "palette": [list(colour) for colour in SyntheticStreets.palette],
            },
        }
        (folder / "checkpoints").mkdir(parents=True)
        torch.save(content, folder / "checkpoints" / "best.ckpt")
        return folder

    return write


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Return a driver of Chromium; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for flag in [*FLAGS, "--window-size=1280,1000", f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()
