"""Signals end a process at any moment."""

import os
import signal
import sys
import time
import weakref

import pytest

from gald.run.preemption import exit_on_signals


class Thing:
    pass


@pytest.mark.parametrize(
    ("number", "stop"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_during_a_callback_of_the_garbage_collector_ends_the_process(number, stop):
    hook = sys.unraisablehook
    with pytest.raises(stop), exit_on_signals():
        thing = Thing()
        callback = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
        del thing  # Python ignores what the callback raises
        time.sleep(10)
    assert callback() is None and sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
