"""Signals that announce a preemption, and the exit code of a run that can be resumed."""

import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

PREEMPTED = 75  # EX_TEMPFAIL: try again later
INTERRUPTED = 130  # ended by Ctrl-C, as shells report it
_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Preempted(SystemExit):
    """Exit with code 75, once the state is saved.

    Args:
        number: the signal; null if another process of the run got it.
    """

    def __init__(self, number: int | None) -> None:
        super().__init__(PREEMPTED)
        self.number = number


def hand_on(number: int | None, handler: object) -> None:
    """Call the handler that was there before ours, such as submitit's, which queues its job again.

    Args:
        number: the signal that arrived; nothing happens without one.
        handler: what `signal.getsignal` returned for it before the work began.
    """
    if number is not None and callable(handler) and not is_ours(handler):
        signal.signal(number, handler)
        os.kill(os.getpid(), number)


@contextmanager
def exit_on_signals() -> Generator[None]:
    """Exit with code 75 on a signal of a cluster, from the first moment of a process.

    The training installs its own handlers, which save first. Signals that are ignored, as SIGHUP
    under nohup, stay ignored. A signal during a callback of the garbage collector, where Python
    ignores exceptions, is sent again.
    """
    for number in SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)
    hook = sys.unraisablehook

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        stop = ignored.exc_value
        if isinstance(stop, KeyboardInterrupt | Preempted):
            number = getattr(stop, "number", signal.SIGINT)
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()  # after the callback
        else:
            hook(ignored)

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number in SIGNALS:
            if is_ours(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def is_ours(handler: object) -> bool:
    """Return whether a signal handler is the one of `exit_on_signals`."""
    return handler is _exit


def _exit(number: int, frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    print(f"stopped by {name}; repeat the command", file=sys.stderr)
    raise Preempted(number)
