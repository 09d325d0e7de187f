"""Imports of a cell, done once for all cells of a sweep that starts warm."""

import importlib
import pkgutil
from contextlib import suppress

# What a training imports at its start or later, some of it only for certain options.
TRAINING = (
    "gald.training.command",
    "gald.training.train",
    "gald.optimizer",
    "gald.scheduler",
    "gald.sweep.compose",
    "hydra._internal.logging_config",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
)
LATE = ("wandb.sdk.launch",)  # what libraries that may be missing import when they are used
# Packages with a module for each option; those that need an extra which is missing are left out.
OPTIONS = ("callbacks", "data", "inference", "logger", "loss", "metrics", "model", "report")


def preload() -> None:
    """Import what a cell needs, and compose a config, which imports more and fills Hydra's caches.

    Only modules of gald and of its libraries: those of the user may start threads or CUDA, which
    no copy of a process survives. Each cell imports them itself.
    """
    for name in TRAINING:
        importlib.import_module(name)
    for name in LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    for package in OPTIONS:
        path = importlib.import_module(f"gald.{package}").__path__
        for module in pkgutil.walk_packages(path, f"gald.{package}."):
            with suppress(ImportError):
                importlib.import_module(module.name)
    compose = importlib.import_module("gald.config").compose
    compose("train", ["seed=0"])
    provenance = importlib.import_module("gald.run.provenance")
    provenance.commit(), provenance.versions()  # of the code that has just been imported
