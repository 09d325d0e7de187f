"""Console script `gald VERB ...`; the module of a verb is imported only when it is called."""

import argparse
import functools
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

from typing_extensions import override

from gald.run.preemption import exit_on_signals
from gald.run.run_id import agree_on_run_id

T = TypeVar("T")

VERBS = {
    "train": (
        "gald.training.command:main",
        "train and evaluate a network: gald train data=camvid model/ga=psp",
    ),
    "eval": (
        "gald.evaluation.command:main",
        "evaluate a trained network: gald eval ckpt_path=RUN split=test",
    ),
    "sweep": (
        "gald.sweep.command:main",
        "plan, run and inspect an ablation: gald sweep status FOLDER",
    ),
    "compare": (
        "gald.comparison.compare:main",
        "compare two evaluations with intervals: gald compare RUN_A RUN_B",
    ),
    "table": (
        "gald.sweep.table.table:main",
        "show arms, effects and costs of an ablation: gald table runs/SWEEP",
    ),
    "submit": (
        "gald.prediction.submit:main",
        "write the zip for a test server: gald submit cityscapes RUN",
    ),
    "predict": (
        "gald.prediction.predict:main",
        "segment images and videos: gald predict RUN photos/ --to out",
    ),
    "viz": ("gald.viz.command:main", "show what LD does: gald viz RUN --image street.jpg"),
    "profile": (
        "gald.profiling.command:main",
        "measure the cost of each part: gald profile model/ga=psp",
    ),
    "data": (
        "gald.data.tools.command:main",
        "prepare, verify, summarise or browse a dataset: gald data verify camvid",
    ),
    "convert": (
        "gald.convert.convert:main",
        "convert a .pth of the authors to a run: gald convert FILE --to DIR",
    ),
    "export": (
        "gald.export.export:main",
        "export as pretrained, onnx or torch: gald export RUN --to FILE --format onnx",
    ),
    "serve": ("gald.prediction.serve:main", "open a web page for predictions: gald serve RUN"),
    "wandb": (
        "gald.logger.command:main",
        "send offline runs, create a workspace: gald wandb sync runs",
    ),
    "doctor": ("gald.doctor.command:main", "show versions, devices and data folders"),
}
_HYDRA_VERBS = (
    "gald.training.command:main",
    "gald.evaluation.command:main",
    "gald.profiling.command:main",
)
USAGE = "usage: gald VERB [OPTIONS]\n\n" + "\n".join(
    f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items()
)


def main() -> None:
    """Run one verb; on failure print one sentence to stderr and exit with a code above 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name must not end a run if it cannot be shown
            stream.reconfigure(errors="backslashreplace")
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if verb not in VERBS:
        fail(f"there is no verb {verb!r}; choose one of {', '.join(VERBS)}")
    if verb == "doctor" and len(sys.argv) > 2:
        fail(f"gald doctor takes no options, but got {' '.join(sys.argv[2:])}; run: gald doctor")
    target = VERBS[verb][0]
    _set_main_module(target.partition(":")[0])
    with exit_on_signals() if verb in ("train", "sweep") else nullcontext():
        run(target, sys.argv[2:])


def _set_main_module(module: str) -> None:
    """Make Lightning start further processes as `python -m MODULE`, with the same import path.

    Lightning starts them by the name of the main module, and the console script has no such name.
    If it started them by file name, the folder of that file would come first on the import path
    and hide modules of other packages. `-m` puts the current folder there, unless PYTHONSAFEPATH
    is set.
    """
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(module)
    os.environ.setdefault("PYTHONSAFEPATH", "1")


def run(target: str, arguments: list[str]) -> None:
    """Call a verb, given as MODULE:FUNCTION, with its command-line arguments."""
    # With this variable Hydra raises an error to us instead of printing its own long message.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    agree_on_run_id()
    code = report_errors(_call)(target, arguments)
    if isinstance(code, int) and not isinstance(code, bool):
        sys.exit(code)


def _call(target: str, arguments: list[str]) -> Any:
    module, function = target.split(":")
    verb = importlib.import_module(module)
    checked: AbstractContextManager[None] = nullcontext()
    if target in _HYDRA_VERBS:
        from gald.config import hints, quote_paths, refuse_flags

        name = next(name for name, (known, _) in VERBS.items() if known == target)
        if "--check" not in arguments:
            refuse_flags(name, arguments)
        checked, arguments = hints(name, arguments), quote_paths(arguments)
    # Hydra and Lightning read their arguments from sys.argv; its first entry is the program.
    sys.argv = [str(verb.__file__), *arguments]
    with checked:
        return getattr(verb, function)()


def report_errors(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function so that an exception ends the program with a message of one sentence.

    A Hydra job needs the wrapper too, because Hydra prints its own line when a job raises.
    """

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except KeyboardInterrupt:
            fail("interrupted; add ckpt_path=last output_dir=FOLDER to resume a training")
        except Exception as error:
            if _wants_traceback():
                raise
            from gald.errors import to_sentence

            fail(to_sentence(error))

    return wrapper


def _wants_traceback() -> bool:
    return os.environ.get("GALD_TRACEBACK", "") not in ("", "0")


def fail(sentence: str) -> NoReturn:
    """Print one sentence to stderr and exit with code 1."""
    print(f"gald: {sentence}", file=sys.stderr)
    if not _wants_traceback():
        print("(GALD_TRACEBACK=1 shows the traceback)", file=sys.stderr)
    sys.exit(1)


class Arguments(argparse.ArgumentParser):
    """Argument parser that raises its error, so that `gald.cli` prints it as one sentence."""

    def add_trust(self) -> None:
        """Add the option that lets files name classes of the user's own packages."""
        self.add_argument(
            "--trust",
            action="append",
            default=[],
            metavar="PACKAGE",
            help="let the files name classes of this package of your own; repeat for more",
        )

    @override
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")


def silence_warnings() -> None:
    """Silence messages of dependencies that require no action of the user."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 on torch 2.9 and later
        r"The number of training batches .* is smaller than the logging interval",
        r"The '\w+_dataloader' does not have many workers",  # num_workers is the user's choice
        r"Checkpoint directory .* exists and is not empty",  # only when a run is resumed
        r"The dirpath has changed from",
        r"The `srun` command is available on your system but is not used",  # on a login node
        r"Found \d+ module\(s\) in eval mode at the start of training",  # they are frozen
        r"It is recommended to use `self.log\(.*sync_dist=True",  # all processes log equal sums
    ):
        warnings.filterwarnings("ignore", message=noise)
