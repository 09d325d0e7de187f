"""Processes that run one command of gald and are killed at a chosen point.

They are forked from a server that has imported gald, so that a start takes no seconds.
"""

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["gald.training.train", "gald.logger.metrics_csv", "gald.callbacks.progress"]
)


def run(words, point=None, log=os.devnull, after=None, limits=None, patch=None):
    """Run `gald WORDS`; return its exit code, -9 if it was killed.

    Args:
        words: the command.
        point: (when, name, number): kill `before`, `in` or `after` the writing of the file `name`
            for the `number`-th time, or at the `number`-th `call` of the function MODULE:NAME.
        log: file for the output.
        after: kill after so many seconds.
        limits: limits of the process, such as {"RLIMIT_FSIZE": 1000}; those on open files are
            beyond what is open at the start.
        patch: (MODULE:NAME, value), an attribute to replace.
    """
    environment = dict(os.environ)  # the server has the one of its start
    arguments = (words, point, str(log), limits or {}, patch, environment)
    process = CONTEXT.Process(target=_run, args=arguments)
    process.start()
    process.join(after)
    if after is not None and process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


def _run(words, point, log, limits, patch, environment):
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # read TMPDIR again
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if patch is not None:
        owner, last = _owner(*patch[0].split(":"))
        setattr(owner, last, patch[1])
    if point is not None:
        _arm(*point)
    from gald import cli

    for name, value in limits.items():
        kind = getattr(resource, name)
        opened = os.dup(0) if name == "RLIMIT_NOFILE" else 0
        resource.setrlimit(kind, (value + opened, resource.getrlimit(kind)[1]))

    sys.argv = ["gald", *words]
    sys.modules["__main__"].__spec__ = None
    cli.main()


def _arm(when, name, number):
    if when == "call":
        _at_call(*name.split(":"), number)
        return
    seen = []

    def hook(event, arguments):
        if event == "open" and seen == ["renamed"]:
            _die()  # the folder is opened to be flushed
        path = str(arguments[0]) if arguments else ""
        flushed = event == "open" and path.endswith(".part") and arguments[1] is None
        ours = flushed and f"/{name}." in path and os.path.isfile(path)
        if when == "in" and ours and os.path.getsize(path) and not _left():
            os.truncate(path, os.path.getsize(path) // 2)
            _die()
        if event == "os.rename" and name in ("*", Path(str(arguments[1])).name):
            if when == "before":
                _count()
            if when == "after" and not _left():
                seen.append("renamed")

    left = [number]

    def _left():
        left[0] -= 1
        return left[0]

    def _count():
        if not _left():
            _die()

    sys.addaudithook(hook)


def _owner(module, name):
    owner = importlib.import_module(module)
    *parts, last = name.split(".")
    for part in parts:
        owner = getattr(owner, part)
    return owner, last


def _at_call(module, name, number):
    owner, last = _owner(module, name)
    function, calls = getattr(owner, last), []

    def killed(*arguments, **options):
        calls.append(name)
        if len(calls) == number:
            _die()
        return function(*arguments, **options)

    setattr(owner, last, killed)


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
