"""The console script: `gald VERB ...`. Verbs import what they need when they are called."""

import argparse
import functools
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from typing_extensions import override

from gald.run.run_id import agree_on_run_id

T = TypeVar("T")

VERBS = {
    "train": ("gald.train:main", "train and judge a network: gald train data=camvid model/ga=psp"),
    "eval": (
        "gald.evaluation.command:main",
        "judge a trained network: gald eval ckpt_path=RUN split=test",
    ),
    "sweep": (
        "gald.sweep.command:main",
        "ablations: gald sweep status FOLDER, gald sweep retry FOLDER",
    ),
    "compare": (
        "gald.comparison.compare:main",
        "where is B better, how surely: gald compare RUN_A RUN_B",
    ),
    "table": (
        "gald.sweep.table.table:main",
        "an ablation's arms, effects and costs: gald table runs/SWEEP",
    ),
    "submit": (
        "gald.prediction.submit:main",
        "predict for a test server: gald submit cityscapes RUN",
    ),
    "predict": (
        "gald.prediction.predict:main",
        "parse pictures and videos: gald predict RUN photos/ --to out",
    ),
    "viz": ("gald.viz.command:main", "see what LD does: gald viz RUN --image street.jpg"),
    "profile": ("gald.profiling.command:main", "what each part costs: gald profile model/ga=psp"),
    "data": (
        "gald.data.tools.command:main",
        "prepare, verify, stats, browse: gald data verify camvid",
    ),
    "convert": (
        "gald.convert.convert:main",
        "take over a .pth of the authors: gald convert FILE --to DIR",
    ),
    "export": (
        "gald.export.export:main",
        "pretrained, onnx or torch: gald export RUN --to FILE --format onnx",
    ),
    "serve": ("gald.prediction.serve:main", "a web page to drop images on: gald serve RUN"),
    "wandb": (
        "gald.logger.command:main",
        "send offline runs, build a workspace: gald wandb sync runs",
    ),
    "doctor": ("gald.doctor.command:main", "show versions, devices and data folders"),
}
USAGE = "usage: gald VERB [OPTIONS]\n\n" + "\n".join(
    f"  {verb:<8} {text}" for verb, (_, text) in VERBS.items()
)


def main() -> None:
    """Run one verb; a failure ends in one sentence on stderr and an exit code above 0."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(USAGE)
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if verb not in VERBS:
        fail(f"there is no verb {verb!r}; choose one of {', '.join(VERBS)}")
    if verb == "doctor" and len(sys.argv) > 2:
        fail(f"doctor takes no options, but got {' '.join(sys.argv[2:])}; run it alone")
    target = VERBS[verb][0]
    _name_the_program(target.partition(":")[0])
    run(target, sys.argv[2:])


def _name_the_program(module: str) -> None:
    """Make further processes of this run start as `python -m MODULE`, with this one's path.

    Lightning starts them by the name of the main module. The console script has none; by file name
    the folder of that file would come first on the path, and hide modules of other packages. `-m`
    puts the current folder there, unless PYTHONSAFEPATH is set.
    """
    sys.modules["__main__"].__spec__ = importlib.util.find_spec(module)
    os.environ.setdefault("PYTHONSAFEPATH", "1")


def run(target: str, arguments: list[str]) -> None:
    """Call a verb, given as MODULE:FUNCTION, with the rest of the command line."""
    # Hydra would print its own many lines; asked for the whole error it raises it to us instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    agree_on_run_id()
    code = report_errors(_call)(target, arguments)
    if isinstance(code, int) and not isinstance(code, bool):
        sys.exit(code)


def _call(target: str, arguments: list[str]) -> Any:
    module, function = target.split(":")
    verb = importlib.import_module(module)
    # Hydra and Lightning take the arguments from here; the first one names the program.
    sys.argv = [str(verb.__file__), *arguments]
    return getattr(verb, function)()


def report_errors(function: Callable[..., T]) -> Callable[..., T]:
    """Make a function end the program with one sentence where it would raise.

    A Hydra job needs it too: what it raises, Hydra announces with a line of its own.
    """

    @functools.wraps(function)
    def worded(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except KeyboardInterrupt:
            fail("interrupted; `ckpt_path=last output_dir=FOLDER` goes on from the last checkpoint")
        except Exception as error:
            if _wants_traceback():
                raise
            from gald.errors import to_sentence

            fail(to_sentence(error))

    return worded


def _wants_traceback() -> bool:
    return os.environ.get("GALD_TRACEBACK", "") not in ("", "0")


def fail(sentence: str) -> NoReturn:
    """Print one sentence to stderr and end with exit code 1."""
    print(f"gald: {sentence}", file=sys.stderr)
    if not _wants_traceback():
        print("(GALD_TRACEBACK=1 shows where this happened)", file=sys.stderr)
    sys.exit(1)


class Arguments(argparse.ArgumentParser):
    """A parser whose complaint is one sentence, worded by `gald.cli` as all others are."""

    @override
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{self.prog}: {message}; see {self.prog} --help")


def silence_warnings() -> None:
    """Silence notes of our dependencies that ask nothing of the user."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for noise in (
        r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6 on torch 2.9 and later
        r"The number of training batches .* is smaller than the logging interval",
        r"The '\w+_dataloader' does not have many workers",  # num_workers is the user's choice
        r"Checkpoint directory .* exists and is not empty",  # a resume; a fresh run is refused
        r"The dirpath has changed from",
        r"The `srun` command is available on your system but is not used",  # a login node
        r"It is recommended to use `self.log\(.*sync_dist=True",  # all processes log one sum
    ):
        warnings.filterwarnings("ignore", message=noise)
