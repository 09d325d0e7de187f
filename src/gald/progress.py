"""Work on many images in parallel threads, with a progress bar."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[T]] = deque()
    try:
        with progress.Progress(console=console()) as bar:
            lines = Lines(title, indices.stop)
            task = bar.add_task(escape(title), total=indices.stop, completed=indices.start)
            for index in indices:
                pending.append(pool.submit(work, index))
                if len(pending) == 2 * threads:
                    yield pending.popleft().result()
                    bar.advance(task)
                    lines.show(index - len(pending))
            while pending:
                yield pending.popleft().result()
                bar.advance(task)
    finally:
        pool.shutdown(cancel_futures=True)


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
