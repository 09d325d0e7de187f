"""Cause of the end of a cell, from its exit code, its log and the kernel's out-of-memory count."""

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from gald.run.preemption import INTERRUPTED, PREEMPTED, SIGNALS

# Errors of torch, CUDA, the C++ library and Python, as they begin the message or the last line of a
# traceback; any error may contain words such as "out of memory".
MEMORY = re.compile(
    r"(\[rank\d+\]: )?(gald: )?("
    r"(torch\.)?(cuda\.)?OutOfMemoryError\b|MemoryError\b|CUDA out of memory\. Tried"
    r"|(RuntimeError: )?(CUDA error: out of memory|cu\w+ error: CU\w+_ALLOC_FAILED"
    r"|\[enforce fail.*can't allocate memory|DefaultCPUAllocator: .*allocate memory)"
    r"|OSError: \[Errno 12\] Cannot allocate memory|(terminate called .*)?std::bad_alloc"
    r"|([\w.]+\.)?_?ArrayMemoryError\b)",
    re.IGNORECASE,
)
SENTENCE = "gald: "  # prefix of the error message with which gald.cli ends a program


@dataclass(frozen=True)
class ExitStatus:
    """How a cell ended.

    Args:
        kind: done, failed, preempted (stopped by a signal, can be resumed later), killed (from
            outside, is resumed at once) or memory (is restarted with smaller micro-batches).
        reason: one sentence; null if the cell is done.
    """

    kind: str
    reason: str | None = None


def classify_exit(code: int, log: str, finished: bool, kernel_killed: bool) -> ExitStatus:
    """Classify how a process ended.

    Args:
        code: exit code; if negative, the signal that ended the process.
        log: output of the process and of its further processes.
        finished: whether results.json is written.
        kernel_killed: whether the kernel has killed a process for lack of memory meanwhile.
    """
    if code == 0:
        reason = None if finished else "it ended without writing results.json; see log.txt"
        return ExitStatus("done" if finished else "failed", reason)
    if code in (PREEMPTED, INTERRUPTED) or -code in SIGNALS:
        return ExitStatus("preempted", "stopped by a signal; resumes from its last checkpoint")
    # If a further process fails, its error is in the log, and Lightning kills the first process
    # without a message.
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix(SENTENCE) for line in lines if line.startswith(SENTENCE)]
    memory = next((line for line in lines if MEMORY.match(line)), None)
    if memory or (kernel_killed and code == -signal.SIGKILL):
        return ExitStatus("memory", f"out of memory ({_short(memory or 'killed by the kernel')})")
    if errors:
        return ExitStatus("failed", _short(errors[0]))
    if code < 0:
        return ExitStatus("killed", f"ended by {signal.Signals(-code).name} from outside")
    return ExitStatus("failed", f"exit code {code}: {_short(lines[-1]) if lines else 'no output'}")


def kernel_kills() -> int:
    """Return how many processes the kernel has killed for lack of memory, if it is readable."""
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
