"""Why a cell's process ended, told from its exit code, its log and the kernel's count."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from gald.run.preemption import PREEMPTED, SIGNALS

MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|can't allocate memory|Cannot allocate memory|\bMemoryError\b"
    r"|_ALLOC_FAILED",
    re.IGNORECASE,
)
SENTENCE = "gald: "  # begins the sentence in which gald.cli ends a program


@dataclass(frozen=True)
class ExitStatus:
    """How a cell ended.

    Args:
        kind: done, failed, preempted (stopped in order, to go on later), killed (from outside, to
            go on at once) or memory (to be repeated with fewer images at once).
        reason: one sentence; null if all went well.
    """

    kind: str
    reason: str | None = None


def classify_exit(code: int, log: str, finished: bool, kernel_killed: bool) -> ExitStatus:
    """Say how a process ended.

    Args:
        code: its exit code; negative is the signal that ended it.
        log: what it and its further processes printed.
        finished: whether its results are written.
        kernel_killed: whether the kernel has killed processes for want of memory meanwhile.
    """
    if code == 0:
        reason = None if finished else "it ended before its results were written; see its log"
        return ExitStatus("done" if finished else "failed", reason)
    if code == PREEMPTED or -code in SIGNALS:
        return ExitStatus("preempted", "stopped by a signal; goes on from its last checkpoint")
    # A further process that fails says so in the log, and Lightning kills the first without a word.
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line.removeprefix(SENTENCE) for line in lines if line.startswith(SENTENCE)]
    memory = next((line for line in lines if MEMORY.search(line)), None)
    if memory or (kernel_killed and code == -signal.SIGKILL):
        return ExitStatus("memory", f"out of memory ({_short(memory or 'killed by the kernel')})")
    if said:
        return ExitStatus("failed", _short(said[0]))
    if code < 0:
        return ExitStatus("killed", f"ended by {signal.Signals(-code).name} from outside")
    return ExitStatus("failed", f"exit code {code}: {_short(lines[-1]) if lines else 'no output'}")


def kernel_kills() -> int:
    """How many processes the kernel has killed for want of memory, as far as it lets us know."""
    total = 0
    for path in ("/sys/fs/cgroup/memory.events", "/proc/vmstat"):
        try:
            words = Path(path).read_text().split()
        except OSError:
            continue
        if "oom_kill" in words:
            total += int(words[words.index("oom_kill") + 1])
    return total


def _short(line: str) -> str:
    return line if len(line) <= 300 else line[:297] + "..."
