"""Signals that announce a preemption, and the exit code of a run that can be resumed."""

import signal

PREEMPTED = 75  # EX_TEMPFAIL: try again later
INTERRUPTED = 130  # ended by Ctrl-C, as shells report it
SIGNALS = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n))
