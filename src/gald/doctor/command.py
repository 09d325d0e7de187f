"""`gald doctor`: versions, extras, devices and paths of this machine, and the problems found."""

import importlib
import os
import platform
import sys
import warnings
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from rich import box
from rich.console import Console
from rich.table import Table

from gald.doctor.machine import Driver, find_driver, free_disk, gib, memory
from gald.install.environment import is_of_make, make, pip
from gald.install.extras import EXTRAS, command, missing_packages

# Distribution -> module; training needs all of them.
_NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "pytorch-lightning": "pytorch_lightning",
    "hydra-core": "hydra",
    "omegaconf": "omegaconf",
    "torchmetrics": "torchmetrics",
    "timm": "timm",
    "albumentations": "albumentations",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scipy": "scipy",
    "safetensors": "safetensors",
    "huggingface-hub": "huggingface_hub",
    "filelock": "filelock",
    "pyyaml": "yaml",
    "jinja2": "jinja2",
    "packaging": "packaging",
    "typing-extensions": "typing_extensions",
    "cyclopts": "cyclopts",
    "matplotlib": "matplotlib",
    "rich": "rich",
}
# Distribution -> consequence if it is not installed.
_OPTIONAL = {
    "wandb": "logger=wandb fails, logger=csv works",
}
# Of all installers only uv knows the builds of torch for each CUDA.
_TORCH_AUTO = "uv pip install --reinstall --torch-backend=auto torch torchvision"
_LEAST_DISK = 2**30  # bytes that the checkpoints of a run may need


@dataclass
class _Report:
    """Rows to print, and one sentence for each problem that stops gald from working."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, section: str, name: str, value: str) -> None:
        self.rows.append((section, name, value))


def main() -> int:
    """Print versions, extras, devices and paths, then every problem and its remedy in one sentence.

    Returns:
        0 if gald can train on this machine, 1 if there is a problem.
    """
    report = _Report()
    # Deprecations in other packages are not problems of this machine.
    with (
        warnings.catch_warnings(),
        Console(markup=False, emoji=False, stderr=True).status("importing every package"),
    ):
        warnings.simplefilter("ignore")
        _report_versions(report)
        modules = _import_packages(report)
        _report_pairing(report, modules)
        _report_extras(report)
        if torch := modules.get("torch"):
            _report_driver(report, torch, find_driver())
            _report_hardware(report, torch)
        _report_memory(report)
        _report_paths(report)
    _print(report)
    return 1 if report.problems else 0


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _report_versions(report: _Report) -> None:
    """List installed versions, and report packages that are missing or outside gald's bounds."""
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    report.add("versions", "system", system)
    if os.name != "posix":
        report.problems.append(
            f"gald needs Linux or macOS, but this is {platform.system()}; run it in the Windows "
            "Subsystem for Linux"
        )
    report.add("versions", "python", f"{platform.python_version()} ({sys.executable})")
    report.add("versions", "gald", _version("gald") or "not installed")
    bounds = _bounds("gald")
    for name in _NEEDED:
        version = _version(name)
        report.add("versions", name, version or "not installed")
        if version is None:
            report.problems.append(f"{name} is not installed; run: {_install(name)}")
        elif name in bounds and not bounds[name].specifier.contains(version, prereleases=True):
            report.problems.append(
                f"{name} is {version}, but gald needs {bounds[name].specifier}; "
                f"run: {_install(str(bounds[name]))}"
            )
    for name, consequence in _OPTIONAL.items():
        report.add("versions", name, _version(name) or f"not installed ({consequence})")


def _install(*words: str) -> str:
    """Return the command that installs packages; make creates its environment anew."""
    return make("-B", "install") if is_of_make() else pip(*words)


def _report_extras(report: _Report) -> None:
    """List the extras, with the command for those that are missing."""
    for name, extra in EXTRAS.items():
        missing = missing_packages(name)
        state = f"not installed; run: {command(name)}" if missing else "installed"
        report.add("extras", name, f"{extra.purpose}: {state}")
        for package, wanted in _bounds("gald", name).items():
            version = _version(package)
            if version and not wanted.specifier.contains(version, prereleases=True):
                report.problems.append(
                    f"{package} is {version}, but gald[{name}] needs {wanted.specifier}; "
                    f"run: {command(name)}"
                )


def _bounds(distribution: str, extra: str = "") -> dict[str, Requirement]:
    """Return the requirements of an installed distribution by name: of all runs, or of an extra."""
    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(line) for line in lines]
    if extra:
        requirements = [r for r in requirements if "extra" in str(r.marker)]
    kept = (r for r in requirements if r.marker is None or r.marker.evaluate({"extra": extra}))
    return {r.name: r for r in kept}


def _import_packages(report: _Report) -> dict[str, ModuleType]:
    """Import every installed package, because an installed package may still be broken."""
    modules = {}
    for name, module in _NEEDED.items():
        if _version(name) is None:
            continue
        try:
            modules[name] = importlib.import_module(module)
        except Exception as error:  # a broken binary can raise any exception
            if not _is_mismatch(error):
                report.problems.append(
                    f"{name} {_version(name)} does not import ({_first_line(error)}); "
                    f"run: {_install('--force-reinstall', name)}"
                )
            elif not any(problem.startswith("torchvision") for problem in report.problems):
                # Report it once: timm and others import torchvision and fail in the same way.
                report.problems.append(
                    f"torchvision {_version('torchvision')} was not built for torch "
                    f"{_version('torch')} ({_first_line(error)}); "
                    f"run: {_install('--force-reinstall', 'torch', 'torchvision')}"
                )
    return modules


def _is_mismatch(error: Exception) -> bool:
    """Return whether torchvision raised the error because it was built for another torch."""
    text = str(error)
    return "torchvision::" in text or "partially initialized module 'torchvision'" in text


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _report_pairing(report: _Report, modules: dict[str, ModuleType]) -> None:
    """Compare torch with the version that torchvision's metadata requires."""
    torch, torchvision = _version("torch"), _version("torchvision")
    wanted = _bounds("torchvision").get("torch")
    if torch is None or torchvision is None or wanted is None:
        return
    # 2.13.0+cpu satisfies ==2.13.0: the part after the plus names the build.
    if not wanted.specifier.contains(torch.split("+")[0], prereleases=True):
        report.problems.append(
            f"torchvision {torchvision} needs torch{wanted.specifier}, but torch is {torch}; "
            f"run: {_install('--upgrade', 'torch', 'torchvision')}"
        )
    elif "torch" in modules and "torchvision" in modules:
        report.add("versions", "torch and torchvision", "compatible")


def _report_hardware(report: _Report, torch: ModuleType) -> None:
    """List devices, and the values of trainer.precision and trainer.strategy that they support."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    report.add("devices", "cpu", f"{cores} cores, torch uses {torch.get_num_threads()}")
    cuda = torch.cuda.is_available()
    for index in range(torch.cuda.device_count() if cuda else 0):
        device = torch.cuda.get_device_properties(index)
        memory = f"{device.total_memory / 2**30:.1f} GiB"
        report.add("devices", f"cuda:{index}", f"{device.name}, {memory}")
    if not cuda:
        build = (
            f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
        )
        report.add("devices", "cuda", f"none ({build})")
    report.add("devices", "mps", "yes" if torch.backends.mps.is_available() else "none")

    precisions = ["32-true", "bf16-mixed"]
    if cuda:
        precisions.append("16-mixed")
    report.add("trainer", "precision", ", ".join(precisions))
    strategies = ["auto"]
    if torch.distributed.is_available():
        strategies += ["ddp", "ddp_spawn"]
        if hasattr(os, "fork"):
            strategies.append("ddp_fork (cpu only)")
    report.add("trainer", "strategy", ", ".join(strategies))


def _report_driver(report: _Report, torch: ModuleType, driver: Driver | None) -> None:
    """Compare NVIDIA's driver with the CUDA that torch is built for.

    A driver runs programs of older versions of CUDA, and of newer ones with the same first number.
    """
    if driver is None:
        report.add("devices", "nvidia driver", "none")
        return
    built: str | None = getattr(getattr(torch, "version", None), "cuda", None)
    newest = ".".join(map(str, driver.cuda))
    remedy = make("install", "TORCH=auto") if is_of_make() else _TORCH_AUTO
    row = f"{driver.version} runs CUDA up to {newest}".strip()
    if built is None:
        report.add("devices", "nvidia driver", f"{row}, but torch has no CUDA; run: {remedy}")
        return
    report.add("devices", "nvidia driver", f"{row}; torch is built for CUDA {built}")
    if int(built.partition(".")[0]) > driver.cuda[0]:
        name = f"NVIDIA's driver {driver.version}".rstrip()
        report.problems.append(
            f"{name} runs CUDA up to {newest}, but torch {_version('torch')} is built for CUDA "
            f"{built}; update the driver, or install a torch for it: {remedy}"
        )


def _report_memory(report: _Report) -> None:
    """List free memory, and that which the worker processes of a data loader share."""
    free, whole = memory()
    if whole is not None:
        known = f"{gib(free)} free of {gib(whole)}" if free is not None else gib(whole)
        report.add("memory", "memory", known)
    shared = Path("/dev/shm")
    if shared.is_dir() and (space := free_disk(shared)) is not None:
        report.add("memory", "shared memory", f"{gib(space)} free in {shared}")


def _with_space(path: Path) -> str:
    space = free_disk(path)
    return str(path) if space is None else f"{path}, {gib(space)} free"


def _report_paths(report: _Report) -> None:
    """List the folders of configuration, runs and datasets, free disk, and the mode of wandb."""
    conf_dir = _conf_dir()
    if (conf_dir / "train.yaml").is_file():
        report.add("paths", "conf", str(conf_dir))
    else:
        report.add("paths", "conf", f"{conf_dir} (no train.yaml)")
        report.problems.append(f"{conf_dir} has no train.yaml; reinstall gald")
    root = os.environ.get("GALD_DATA")
    origin = "from GALD_DATA" if root else "set GALD_DATA to change it"
    runs = Path("runs").absolute()
    report.add("paths", "runs", f"{_with_space(runs)} (output_dir=FOLDER changes it)")
    space = free_disk(runs)
    if space is not None and space < _LEAST_DISK:
        report.problems.append(
            f"the disk of {runs} has {space / 2**20:.0f} MiB free, but the checkpoints of a run "
            f"may need {_LEAST_DISK / 2**20:.0f}; free some space, or set output_dir=FOLDER to "
            "another disk"
        )
    data = Path(root or "data").expanduser().absolute()
    report.add("paths", "data", f"{_with_space(data)} ({origin})")
    for name, path in _data_roots(conf_dir).items():
        report.add("paths", f"data={name}", path)
    mode = os.environ.get("WANDB_MODE")
    report.add("paths", "wandb mode", f"{mode} (WANDB_MODE)" if mode else "offline")


def _conf_dir() -> Path:
    from gald.config import CONF_DIR

    return CONF_DIR


def _data_roots(conf_dir: Path) -> dict[str, str]:
    """Resolve the `root` of each option in conf/data, with the keys of train.yaml."""
    try:
        from omegaconf import OmegaConf
    except ImportError:  # already reported
        return {}
    train = conf_dir / "train.yaml"
    roots = {}
    for file in sorted((conf_dir / "data").glob("*.yaml")):
        try:
            data = OmegaConf.load(file)
            if "root" not in data:
                continue
            context = OmegaConf.load(train) if train.is_file() else OmegaConf.create()
            path = Path(OmegaConf.merge(context, {"data": data}).data.root).expanduser().absolute()
            # A root is a folder or a zip.
            roots[file.stem] = f"{path} ({'found' if path.exists() else 'not found'})"
        except Exception as error:  # one unreadable option must not hide the others
            roots[file.stem] = f"unknown: {_first_line(error)}"
    return roots


def _print(report: _Report) -> None:
    # Output to a file has no fixed width, and a folded path cannot be copied.
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(
            markup=False,
            emoji=False,
            width=sum(max(map(len, column)) + 2 for column in zip(*report.rows, strict=True)) + 2,
        )
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    previous = ""
    for section, name, value in report.rows:
        if previous and section != previous:
            table.add_section()
        table.add_row("" if section == previous else section, name, value)
        previous = section
    console.print(table, highlight=False)
    for problem in report.problems:
        console.print(f"problem: {problem}", markup=False, soft_wrap=True)
    if not report.problems:
        console.print("gald is ready.")
