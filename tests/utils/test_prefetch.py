import threading
import time
from contextlib import closing

import pytest

from pipeline.utils.prefetch import prefetch


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_surfaces_in_its_place_and_ends_the_threads(threads: int) -> None:
    def fail(item: int) -> str:
        if item == 3:
            raise LookupError("item 3")
        return str(item)

    parts = prefetch(fail, range(9), 2, threads)
    got = [next(parts) for _ in range(3)]
    with pytest.raises(LookupError, match="item 3"):
        next(parts)
    assert got == ["0", "1", "2"]
    assert not running()


def test_results_keep_their_order_whichever_is_ready_first() -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.02 / (item + 1))
        return item

    assert list(prefetch(slow_at_first, range(20), 5, 4)) == list(range(20))


def test_threads_go_no_further_ahead_than_they_may_and_end_when_closed() -> None:
    done: list[int] = []
    with closing(prefetch(done.append, range(99), 3)) as parts:
        next(parts)
        while len(done) < 4:
            time.sleep(0.001)
        time.sleep(0.05)  # in which it could go further
        assert done == [0, 1, 2, 3]
        assert running()
    assert not running()


def test_without_threads_nothing_is_done_before_it_is_asked_for() -> None:
    done: list[int] = []
    with closing(prefetch(done.append, range(99), 3, threads=0)) as parts:
        next(parts)
        assert done == [0]
