"""Answers within a time limit, a few at once, so that a slow one stops no other."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class TimeLimit(Generic[T]):
    """Caller of functions that gives up after some seconds; a few functions run at once.

    Nothing can end a function that computes in C, so one that takes too long goes on until it ends,
    and others wait for its place; but every call returns in time.

    Args:
        seconds: longest time from a call to its result or error.
        at_once: number of functions that run at the same time.
    """

    def __init__(self, seconds: float, at_once: int) -> None:
        self.seconds = seconds
        self.places = Semaphore(at_once)

    def __call__(self, function: Callable[[], T]) -> T:
        """Return the result of a function.

        Raises:
            TimeoutError: it did not start or end in time.
            BaseException: the function raised it.
        """
        end = time.monotonic() + self.seconds
        if not self.places.acquire(timeout=self.seconds):
            raise TimeoutError("others are still being worked on")
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except BaseException as error:  # the caller raises it
                future.set_exception(error)
            finally:
                self.places.release()

        Thread(target=run, name="time-limit", daemon=True).start()
        try:
            return future.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise TimeoutError("it takes longer") from None
