"""Error messages as one sentence that names the cause and the remedy."""

import difflib
import os
import re

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from hydra.errors import MissingConfigException as NoSuchOption
from omegaconf.errors import OmegaConfBaseException

_NO_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory", re.I)


def to_sentence(error: BaseException) -> str:
    """Describe an error and its remedy in one sentence, for a user of the program."""
    if isinstance(error, NoSuchOption) and error.missing_cfg_file:
        return _no_such_option(error)
    if isinstance(error, InstantiationException):
        return _cannot_build(error)
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        return _bad_key(error)
    text = str(error).strip() or type(error).__name__
    if "Config group override must be a string or a list" in text:
        return (
            "a config group takes the name of an option, not null or a number; for none write "
            "'callbacks=[]' or 'logger=[]'"
        )
    if "in DataLoader worker process" in text:
        # The text contains the worker's whole traceback; its last line is the message.
        text = re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])
        return text
    if isinstance(error, HydraException):
        return " ".join(text.split())
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        detail = f" ({text.splitlines()[0][:200]})" if str(error) else ""
        return f"memory ran out{detail}; choose a smaller image, batch or network"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return _unusable(error)
    text = " ".join(text.split())
    ours = isinstance(error, ValueError | FileNotFoundError | KeyboardInterrupt)
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


def _no_such_option(error: NoSuchOption) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = [str(o) for o in error.options or ()]
    if not group or not options:
        return " ".join(str(error).split())
    return f"{group} has no option {option!r}; choose one of {', '.join(options)}"


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
