"""Work on many images in parallel threads, with a progress bar."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

from rich import progress
from rich.console import Console
from rich.markup import escape

T = TypeVar("T")
EVERY = 30.0  # seconds between two lines
_MAX_THREADS = 32  # more threads decode faster than the results can be written


def in_order(work: Callable[[int], T], indices: range, title: str) -> Iterator[T]:
    """Call a function for each index on several threads, and yield the results in order.

    Threads suffice because image decoders release the interpreter lock. At most two calls per
    thread are submitted ahead of the consumer, which bounds the memory. The first error is raised
    after all results before it.

    Args:
        work: the function to call with an index.
        indices: the range of indices; the bar counts those below its start as done.
        title: title of the bar.
    """
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    with Beside[T](threads, 2 * threads - 1) as calls, progress.Progress(console=console()) as bar:
        lines = Lines(title, indices.stop)
        task = bar.add_task(escape(title), total=indices.stop, completed=indices.start)
        for index in indices:
            for call in calls.put(work, index):
                yield call.result()
                bar.advance(task)
                lines.show(index - len(calls))
        for call in calls.rest():
            yield call.result()
            bar.advance(task)


class Beside(Generic[T]):
    """Calls that run in threads beside the caller, who takes them in the order they were put.

    A call that is taken is a future: its `result()` waits for it, and raises its error. Leaving the
    context closes the threads.

    Args:
        threads: number of threads.
        ahead: number of calls that may wait to be taken, which bounds the memory.
    """

    def __init__(self, threads: int, ahead: int) -> None:
        self.ahead = ahead
        self._pool = ThreadPoolExecutor(threads)
        self._pending: deque[Future[T]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, work: Callable[..., T], *given: Any) -> list[Future[T]]:
        """Start a call, and return the oldest one if there are too many; the caller takes it."""
        self._pending.append(self._pool.submit(work, *given))
        return [self._pending.popleft()] if len(self._pending) > self.ahead else []

    def done(self) -> Iterator[Future[T]]:
        """Yield the oldest calls as long as they are done; it never waits."""
        while self._pending and self._pending[0].done():
            yield self._pending.popleft()

    def rest(self) -> Iterator[Future[T]]:
        """Yield all calls that are left."""
        while self._pending:
            yield self._pending.popleft()

    def close(self) -> None:
        """Wait for the calls that run, and drop those that have not begun."""
        self._pool.shutdown(cancel_futures=True)


class Lines:
    """Lines for a log file in the place of a progress bar: one every half a minute.

    Args:
        title: what is counted.
        total: the number at the end; None if it is not known.
        shown: how a number is written, as that of bytes.
    """

    def __init__(self, title: str, total: int | None, shown: Callable[[int], str] = str) -> None:
        self.title, self.total, self.shown = title, total, shown
        self.printed = time.monotonic()
        self.is_needed = not console().is_terminal

    def show(self, done: int) -> None:
        """Print how much is done, unless a line was printed just before."""
        if self.is_needed and time.monotonic() - self.printed >= EVERY:
            self.printed = time.monotonic()
            of = "" if self.total is None else f" of {self.shown(self.total)}"
            say(f"{self.title}: {self.shown(done)}{of}")


def console() -> Console:
    """Create a console on stderr for progress; only the first process of a machine prints."""
    return Console(
        markup=False,
        emoji=False,
        stderr=True,
        quiet=os.environ.get("LOCAL_RANK", "0") != "0",
        soft_wrap=True,
    )


def say(line: str) -> None:
    """Print one line to stderr without markup or wrapping."""
    console().print(line, markup=False, highlight=False)
