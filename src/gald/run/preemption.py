"""How a machine that is taken away says so, and what a run answers that goes on later."""

import signal

PREEMPTED = 75  # the exit code that says: try again later (EX_TEMPFAIL)
SIGNALS = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n))
