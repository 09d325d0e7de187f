"""Files are read and written by threads, beside the network."""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from gald.device import threads_beside
from gald.progress import Beside

Item = TypeVar("Item")
Read = TypeVar("Read")
Predicted = TypeVar("Predicted")
Encoded = TypeVar("Encoded")


def pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    predict: Callable[[Read], Predicted],
    encode: Callable[[Predicted], Encoded],
) -> Generator[Encoded]:
    """Yield `encode(predict(read(item)))` of each item, in order.

    The caller's thread runs the network; others read the next items and encode the last ones.
    A few items per thread are in memory at once. The first error of a function is raised after the
    results before it.

    Args:
        items: what to predict.
        read: returns the input of the network; in a thread.
        predict: runs the network; in the thread of the caller.
        encode: returns what to yield; in a thread.
    """
    threads = threads_beside()
    with (
        Beside[Read](threads, threads) as reading,
        Beside[Encoded](threads, 2 * threads) as encoding,
    ):

        def forward(call: Future[Read]) -> Iterator[Future[Encoded]]:
            try:
                predicted = predict(call.result())
            except BaseException:  # Ctrl-C too: what is predicted is written
                yield from encoding.rest()
                raise
            yield from encoding.put(encode, predicted)
            yield from encoding.done()

        def encoded() -> Iterator[Future[Encoded]]:
            for item in items:
                for call in reading.put(read, item):
                    yield from forward(call)
            for call in reading.rest():
                yield from forward(call)
            yield from encoding.rest()

        for call in encoded():
            yield call.result()
