"""Signals that announce a preemption, and the exit code of a run that can be resumed."""

import signal

PREEMPTED = 75  # EX_TEMPFAIL: try again later
SIGNALS = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n))
