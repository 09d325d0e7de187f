"""Error messages as one sentence that names the cause and the remedy."""

import difflib
import errno
import os
import re

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from hydra.errors import MissingConfigException as NoSuchOption
from omegaconf.errors import OmegaConfBaseException

from gald.command_line.hints import unknown_option
from gald.install.extras import command, extra_of_module

# What to do about an error of the disk or of a limit of the system.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files with `ulimit -f unlimited`",
    errno.EMFILE: "raise the limit on open files with `ulimit -n 65536`",
    errno.ENFILE: "close other programs: all files that this machine can open are open",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose another place: its disk can only be read",
    errno.EIO: "check the disk",
    errno.ESTALE: "mount its disk again",
    errno.ENOENT: "restore its folder",
    errno.ENOTDIR: "name another place: a part of the path is a file",
    errno.EISDIR: "name another place: it is a folder",
    errno.EEXIST: "name another place: there is a file of that name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOMEM: "close other programs: the memory is full",
}
_SHARED = (
    "give it more shared memory (as with `docker run --shm-size=8g`), or lower data.num_workers"
)


def disk_remedy(error: BaseException) -> str:
    """Return what to do about an error of the disk, or of a limit of the system."""
    code = getattr(error, "errno", None) or _code_in(str(error))
    return _REMEDIES.get(code or 0, "check the disk and its permissions")


def is_of_the_system(error: BaseException) -> bool:
    """Return whether an error is of the disk, or of a limit of the system."""
    network = isinstance(error, ConnectionError | TimeoutError)
    known = isinstance(error, OSError) and error.errno is not None and not network
    return known or (isinstance(error, OSError | RuntimeError) and _code_in(str(error)) is not None)


def _code_in(text: str) -> int | None:
    """Return the number of the system's error that the text of another program reports."""
    return next((code for code in _REPORTED if os.strerror(code) in text), None)


def _with_remedy(text: str) -> str:
    """Add a remedy to the text of another program that reports an error of the system."""
    code = _code_in(text)
    if code is None or ";" in text:  # ours have a remedy
        return text
    shared = code == errno.ENOSPC and ("shared memory" in text or "</torch_" in text)
    return f"{text.rstrip('.')}; {_SHARED if shared else _REMEDIES[code]}"


_REPORTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EROFS)
# Errors of Optuna at the end of a search, in memory and in a database.
_NO_TRIAL = ("No trials are completed yet.", "Record does not exist.")
_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory", re.I)


def to_sentence(error: BaseException) -> str:
    """Describe an error and its remedy in one sentence, for a user of the program."""
    if isinstance(error, NoSuchOption) and (sentence := unknown_option(error)):
        return sentence
    if isinstance(error, InstantiationException):
        return _cannot_build(error)
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        return _bad_key(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _no_module(error.name)
    text = str(error).strip() or type(error).__name__
    if "Config group override must be a string or a list" in text:
        return (
            "a config group takes the name of an option, not null or a number; for none write "
            "'callbacks=[]' or 'logger=[]'"
        )
    if text in _NO_TRIAL:
        return (
            "no trial of the search has a score; gald sweep status FOLDER, with the folder of the "
            "sweep, names the reason of each"
        )
    if "in DataLoader worker process" in text:
        # The text contains the worker's whole traceback; its last line is the message.
        text = re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])
        return _with_remedy(text)
    if text == "Could not determine home directory.":  # of pathlib
        return "a path begins with ~, which stands for no home folder here; write it in full"
    if isinstance(error, HydraException):
        return " ".join(text.split())
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        detail = f" ({text.splitlines()[0][:200]})" if str(error) else ""
        return f"memory ran out{detail}; choose a smaller image, batch or network"
    if isinstance(error, OSError) and is_of_the_system(error) and error.strerror:
        place = error.filename or "a file"
        return f"cannot read or write {place} ({error.strerror}); {disk_remedy(error)}"
    text = " ".join(text.split())
    text = _with_remedy(text)
    ours = isinstance(error, ValueError | FileNotFoundError | KeyboardInterrupt)
    ours = ours or (isinstance(error, OSError) and error.errno is None)
    return text if ours else f"{type(error).__name__}: {text}"


def _unusable(error: OSError) -> str:
    """Say why a file or folder cannot be used, and the remedy."""
    path = os.fsdecode(error.filename)
    if isinstance(error, NotADirectoryError):
        return f"{path} cannot be used, because a part of its path is a file; name another path"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, where a file is needed; name a file"
    if isinstance(error, FileExistsError):
        return f"{path} cannot be created, because there is a file of that name; name another path"
    if isinstance(error, PermissionError):
        return f"{path} may not be used ({error.strerror}); change its permissions, or name another"
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist, and cannot be created there; correct the path"
    return f"{path} cannot be used ({error.strerror}); free the disk, or name another path"


def _no_module(name: str) -> str:
    top = name.partition(".")[0]
    remedy = "gald doctor lists what is missing, with the command that installs it"
    if extra := extra_of_module(top):
        remedy = f"run: {command(extra)}"
    return f"the module {name} is not installed; {remedy}"


def _cannot_build(error: InstantiationException) -> str:
    text = str(error)
    key = re.search(r"full_key: (\S+)", text)
    cause: BaseException = error
    while isinstance(cause, InstantiationException) and cause.__cause__ is not None:
        cause = cause.__cause__
    reason = " ".join(str(cause).split("full_key:")[0].split())
    return f"{key[1]}: {reason}" if key else reason


def _bad_key(error: ConfigCompositionException | OmegaConfBaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    full_key = getattr(cause, "full_key", None)
    parent = getattr(cause, "parent_node", None)
    if "is not in struct" in str(cause) and full_key and parent is not None:
        key = str(full_key).rpartition(".")[2]
        known = [str(k) for k in parent]
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the known keys are {', '.join(known)}"
        return f"there is no config key {full_key}; {hint}"
    if "InterpolationKeyError" in type(cause).__name__:
        missing = str(cause).splitlines()[0].removeprefix("Interpolation key ")
        return f"{full_key} refers to {missing.replace(' not found', ', which is not set')}; set it"
    if "MissingMandatoryValue" in type(cause).__name__:
        return f"{full_key} must be set; add {full_key}=VALUE to the command"
    first = str(error).splitlines()[0]
    detail = f" ({str(cause).splitlines()[0]})" if cause is not error else ""
    return f"{first}{detail}"
