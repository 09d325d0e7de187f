"""Works through scenes on all cores at once, and shows how far it has come."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")
_MOST_THREADS = 32  # writing what they decode is slower than this many


def in_order(work: Callable[[int], T], indices: range, title: str) -> Iterator[T]:
    """Call a function for each index on several threads, and give the results in order.

    Threads, because decoders let go of the interpreter's lock. A few calls for each thread are
    under way or wait for their turn, so memory is bounded by these. The first error ends it, after
    all results before it.

    Args:
        work: what to do with an index.
        indices: from which to which; the bar counts what lies before them as done.
        title: what the bar is called.
    """
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    under_way: deque[Future[T]] = deque()
    try:
        with progress.Progress(console=console()) as bar:
            task = bar.add_task(title, total=indices.stop, completed=indices.start)
            for index in indices:
                under_way.append(pool.submit(work, index))
                if len(under_way) == 2 * threads:
                    yield under_way.popleft().result()
                    bar.advance(task)
            while under_way:
                yield under_way.popleft().result()
                bar.advance(task)
    finally:
        pool.shutdown(cancel_futures=True)


def console() -> Console:
    """Where long work is reported; silent in all but one of a machine's training processes."""
    return Console(stderr=True, quiet=os.environ.get("LOCAL_RANK", "0") != "0", soft_wrap=True)


def say(line: str) -> None:
    """Report one line as it is."""
    console().print(line, markup=False, highlight=False)
