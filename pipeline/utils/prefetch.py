"""Work done ahead of need, by threads, no further than a bound."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def prefetch(
    work: Callable[[_Item], _Result], items: Iterable[_Item], count: int, threads: int = 1
) -> Generator[_Result, None, None]:
    """Yield `work(item)` of each item, in order, while threads do up to `count` more.

    An error is raised where its result would have come. Close the generator to end the threads early.

    Args:
        work: what the threads do.
        items: what they do it to.
        count: results that may wait, or be under way, beside the one yielded.
        threads: how many there are; 0: none, each result is made when it is asked for.
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
