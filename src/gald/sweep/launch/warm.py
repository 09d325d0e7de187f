"""Warm start of cells: a process that has imported everything is copied for each of them.

A copy is a process like one that was started cold: it has a session, an environment, an output
and an exit code of its own, and it ends with the launcher. It only need not import again.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gald.sweep.launch import cell_process
from gald.sweep.launch.cell import LAUNCHER
from gald.sweep.launch.cell_process import MARK, Process, Start, start_cold
from gald.sweep.launch.warm_server import LIMIT

SERVER = ["-m", "gald.sweep.launch.warm_server"]
PRELOAD = "gald.sweep.launch.preload"
# Variables that differ between cells, and are set in each copy; no library reads them on import.
OF_A_CELL = (LAUNCHER, MARK, "CUDA_VISIBLE_DEVICES")
REMEDY = "start the cells cold: leave hydra.launcher.warm=true or --warm out"


class WarmStart:
    """Starts the first processes of cells as copies of a process that has imported everything.

    Libraries read environment variables on import, such as the number of threads. So there is one
    such process for each environment that cells need, which is one in most sweeps. When files of
    gald change, another one takes its place: a cell runs the code that there is at its start.

    Raises:
        ValueError: the system is not Linux.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise ValueError(
                f"a warm start copies a process, which only Linux does safely, and this is "
                f"{sys.platform}; {REMEDY}"
            )
        self.servers: dict[frozenset[tuple[str, str]], _Server] = {}
        self.outdated: list[_Server] = []

    def __call__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Start the first process of a cell; see `gald.sweep.launch.cell_process.start_cold`."""
        common = {key: value for key, value in environment.items() if key not in OF_A_CELL}
        own = {key: environment[key] for key in OF_A_CELL if key in environment}
        key = frozenset(common.items())
        server = self.servers.get(key)
        if server is not None and not server.has_ended():
            process = server.start(words, own, log)
            if process is not None:
                return process
        if server is not None:
            self.outdated.append(server)  # the parent of its cells until the end
        self.servers[key] = server = _Server(common)
        process = server.start(words, own, log)
        if process is None:
            raise ValueError(f"the code of gald changes while it is imported; {REMEDY}")
        return process

    def close(self) -> None:
        """End the processes that are copied; cells that still run end with them."""
        for server in (*self.outdated, *self.servers.values()):
            server.close()
        self.servers, self.outdated = {}, []


@contextmanager
def starting(warm: bool) -> Generator[Start]:
    """Return how cells start, warm or cold; after the block no process is left to copy."""
    if not warm:
        yield start_cold
        return
    start = WarmStart()
    try:
        yield start
    finally:
        start.close()


class _Server:
    """The process that is copied, as the launcher sees it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.asked = 0
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 (it is read when the process ends)
        # Each message arrives whole or not at all, also if a signal interrupts the launcher.
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        number = theirs.fileno()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *SERVER, str(number), PRELOAD, *cell_process.ENTRY],
                stdin=subprocess.DEVNULL,
                stdout=self.output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that Ctrl-C reaches the launcher alone
                pass_fds=[number],
            )

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def start(
        self, words: Sequence[str], variables: Mapping[str, str], log: Path
    ) -> "_Copy | None":
        """Return the first process of a cell; None if the code has changed since its import."""
        with log.open("ab") as output:
            question = {"words": list(words), "variables": dict(variables)}
            answer = self.ask(question, [output.fileno()])
        if answer is None:
            self.process.wait()
            code, last = self.process.returncode, self._last_line()
            raise ValueError(
                f"the process that imports for all cells ended with code {code} ({last}); {REMEDY}"
            )
        if "changed" in answer:
            return None
        if "refused" in answer:
            raise ValueError(
                f"the process that imports for all cells cannot be copied, because "
                f"{answer['refused']}; {REMEDY}"
            )
        if "errno" in answer:
            raise OSError(answer["errno"], answer["strerror"])
        return _Copy(self, answer["pid"])

    def ask(self, question: dict[str, Any], files: Sequence[int] = ()) -> dict[str, Any] | None:
        """Return the answer to a question; None if the process has ended.

        A signal may have left the answer to an earlier question unread; it is skipped.
        """
        self.asked += 1
        message = json.dumps({"number": self.asked, **question}).encode()
        try:
            socket.send_fds(self.channel, [message], files)
            while answer := self.channel.recv(LIMIT):
                content = json.loads(answer)
                if content["number"] == self.asked:
                    return content
        except (BrokenPipeError, ConnectionResetError):
            pass
        return None

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()
        self.output.close()

    def _last_line(self) -> str:
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


class _Copy:
    """First process of a cell, a child of the process that was copied."""

    def __init__(self, server: _Server, pid: int) -> None:
        self.server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._end(wait=False)

    def wait(self) -> int:
        """Wait for its end."""
        code = self._end(wait=True)
        assert code is not None, "it has ended"
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:  # its id is kept for it until then
            os.kill(self.pid, number)

    def _end(self, wait: bool) -> int | None:
        if self.returncode is None:
            answer = self.server.ask({"end_of": self.pid, "wait": wait})
            # Without its parent it kills itself, and nobody knows how it would have ended.
            self.returncode = -signal.SIGKILL if answer is None else answer["code"]
        return self.returncode
