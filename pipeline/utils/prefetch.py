"""Bounded prefetching by threads."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def prefetch(
    work: Callable[[_Item], _Result], items: Iterable[_Item], count: int, threads: int = 1
) -> Generator[_Result, None, None]:
    """Yield `work(item)` for each item, in order, while threads compute up to `count` further results.

    An error is raised in place of its result. Close the generator to end the threads early. With 0 threads, each result
    is computed when it is requested.
    """
    if threads == 0:
        yield from map(work, items)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
