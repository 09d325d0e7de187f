"""Console script `gald VERB ...`; the module of a verb is imported only when it is called."""

import difflib
import functools
import importlib.util
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn, TypeVar

from gald.run.preemption import INTERRUPTED, exit_on_signals
from gald.run.run_id import agree_on_run_id

T = TypeVar("T")

# By heading of the help: the place of each verb, and what it does.
HEADINGS = {
    "Train and evaluate": {
        "train": (
            "gald.training.command:main",
            "train and evaluate a network: gald train data=camvid model/ga=psp",
        ),
        "eval": (
            "gald.evaluation.command:main",
            "evaluate a trained network: gald eval ckpt_path=RUN split=test",
        ),
        "compare": (
            "gald.comparison.command:main",
            "compare two evaluations with intervals: gald compare RUN_A RUN_B",
        ),
        "report": (
            "gald.report.command:main",
            "write one page about a run, with figures: gald report RUN",
        ),
        "profile": (
            "gald.profiling.command:main",
            "measure the cost of each part: gald profile model/ga=psp",
        ),
        "modules": (
            "gald.profiling.places_command:main",
            "list where GA and LD fit into another network: gald modules unet",
        ),
    },
    "Ablate": {
        "probe": (
            "gald.probe.command:main",
            "train hundreds of heads on frozen features: gald probe experiment=screen_camvid",
        ),
        "sweep": (
            "gald.sweep.command:app",
            "plan, run and inspect an ablation: gald sweep status FOLDER",
        ),
        "table": (
            "gald.sweep.table.command:main",
            "show arms, effects and costs of an ablation: gald table runs/SWEEP",
        ),
        "wandb": (
            "gald.logger.command:app",
            "send offline runs, create a workspace: gald wandb sync runs",
        ),
    },
    "Use a network": {
        "predict": (
            "gald.prediction.command:predict",
            "segment images and videos: gald predict RUN photos/ --to out",
        ),
        "serve": (
            "gald.prediction.command:serve",
            "open a web page for predictions: gald serve RUN",
        ),
        "viz": ("gald.viz.command:main", "show what LD does: gald viz RUN --image street.jpg"),
        "export": (
            "gald.export.command:main",
            "export as pretrained, onnx or torch: gald export RUN --to FILE --format onnx",
        ),
        "submit": (
            "gald.prediction.command:submit",
            "write the zip for a test server: gald submit cityscapes RUN",
        ),
        "convert": (
            "gald.convert.command:main",
            "convert a .pth of the authors to a run: gald convert FILE --to DIR",
        ),
    },
    "Data and machine": {
        "data": (
            "gald.data.tools.command:app",
            "prepare, verify, summarise or browse a dataset: gald data verify camvid",
        ),
        "doctor": ("gald.doctor.command:main", "show versions, devices and data folders"),
        "completion": (
            "gald.completion.command:main",
            "complete verbs, groups and options with TAB: gald completion bash",
        ),
    },
}
VERBS = {verb: entry for verbs in HEADINGS.values() for verb, entry in verbs.items()}
HYDRA_VERBS = ("train", "eval", "profile", "probe")


def main() -> None:
    """Run one verb; on failure print one sentence to stderr and exit with a code above 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name must not end a run if it cannot be shown
            stream.reconfigure(errors="backslashreplace")
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(_usage())
        sys.exit(0 if len(sys.argv) > 1 else 2)
    if verb == "--version":
        print(f"gald {sys.modules['gald'].__version__}")
        return
    if verb not in VERBS:
        fail(_no_such_verb(verb))
    target = VERBS[verb][0]
    _set_main_module(target.partition(":")[0])
    with nullcontext() if verb == "serve" else exit_on_signals():  # a server ends by SIGTERM
        run(target, sys.argv[2:])


def _usage() -> str:
    lines = ["usage: gald VERB [OPTIONS]"]
    for heading, verbs in HEADINGS.items():
        lines += ["", f"{heading}:", *(f"  {v:<10} {text}" for v, (_, text) in verbs.items())]
    return "\n".join([*lines, "", "gald VERB --help lists the options; gald --version"])


def _no_such_verb(verb: str) -> str:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    if not near and "=" in verb:  # the options of gald train, without its name
        near = [f"train {verb}"]
    meant = f"did you mean gald {near[0]}? Otherwise " if near else ""
    return f"there is no verb {verb!r}; {meant}choose one of {', '.join(VERBS)}"


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
    verb = next(verb for verb, (place, _) in VERBS.items() if place == target)
    if verb in HYDRA_VERBS:
        return _call_hydra(verb, target, arguments)
    from cyclopts import App, CycloptsError

    from gald.command_line.app import new_app

    app = new_app("gald", "")
    app.command(target, name=verb)
    # Hydra and Lightning read their arguments from sys.argv; its first entry is the program.
    sys.argv = [sys.argv[0], *arguments]
    if not arguments and isinstance(_resolved(target), App):
        app.help_print([verb])
        return 2
    # cyclopts takes a lone dash for an option; gald predict reads a list of names from there.
    words = ["/dev/stdin" if word == "-" else word for word in arguments]
    try:
        return app([verb, *words], exit_on_error=False, print_error=False, help_on_error=False)
    except CycloptsError as error:
        raise ValueError(_sentence(verb, error)) from error


def _sentence(verb: str, error: Any) -> str:
    """Return what is wrong with a command line in one sentence, and the command for help."""
    program = " ".join(["gald", *(error.command_chain or [verb])])
    if type(error).__name__ == "UnusedCliTokensError":
        return f"{program} does not take {' '.join(error.unused_tokens)!r}; see {program} --help"
    if unknown := re.match(
        r'Unknown command "(.*?)"\.(?: Did you mean "(.*?)"\?)? Available commands: (.*)',
        str(error),
    ):
        word, near, known = unknown.groups()
        meant = f"did you mean {near}? Otherwise " if near else ""
        return f"{program} has no action {word!r}; {meant}choose one of {known.rstrip('.')}"
    text = re.sub(r"\. (Did|Choose)", lambda m: f"; {m[1].lower()}", " ".join(str(error).split()))
    text = re.sub(r'^Command ".*?" parameter (\S+) requires an argument', r"it needs \1", text)
    text = text.rstrip(".")
    return f"{program}: {text}{' See' if text.endswith('?') else '; see'} {program} --help"


def _resolved(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _call_hydra(verb: str, target: str, arguments: list[str]) -> Any:
    from gald.config import hints, quote_paths, refuse_flags

    checked: AbstractContextManager[None] = nullcontext()
    if verb == "eval" and (joined := [x for x in arguments if x.startswith("--check=")]):
        place = arguments.index(joined[0])
        arguments = [*arguments[:place], *joined[0].split("=", 1), *arguments[place + 1 :]]
    if "--check" not in arguments:
        refuse_flags(verb, arguments)
        checked = hints(verb, arguments)
    function = _resolved(target)
    # Hydra reads its arguments from sys.argv; the name of the program is in its messages.
    sys.argv = [str(sys.modules[function.__module__].__file__), *quote_paths(arguments)]
    with checked:
        return function()


def report_errors(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function so that an exception ends the program with a message of one sentence.

    A Hydra job needs the wrapper too, because Hydra prints its own line when a job raises.
    """

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> T:
        try:
            return function(*arguments)
        except BrokenPipeError:
            if not _reader_has_gone():
                raise
            sys.exit(141)  # as shells report it: head has read enough
        except KeyboardInterrupt:
            fail(_how_to_repeat(), INTERRUPTED)
        except Exception as error:
            if _wants_traceback():
                raise
            from gald.errors import to_sentence

            fail(to_sentence(error))

    return wrapper


def _how_to_repeat() -> str:
    main_module = getattr(sys.modules["__main__"].__spec__, "name", "")
    is_training = main_module == "gald.training.command"
    how = " with ckpt_path=auto output_dir=FOLDER to resume the training" if is_training else ""
    return f"interrupted; repeat the command{how}"


def _reader_has_gone() -> bool:
    """Return whether nobody reads our output any more, and drop what is left of it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _wants_traceback() -> bool:
    return os.environ.get("GALD_TRACEBACK", "") not in ("", "0")


def fail(sentence: str, code: int = 1) -> NoReturn:
    """Print one sentence to stderr and exit with a code above 0."""
    print(f"gald: {sentence}", file=sys.stderr)
    if not _wants_traceback():
        print("(GALD_TRACEBACK=1 shows the traceback)", file=sys.stderr)
    sys.exit(code)


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
