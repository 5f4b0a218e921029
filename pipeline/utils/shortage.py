"""Errors of the machine, not of the data: too few handles, threads, memory or space, no permission, a failing disk."""

import errno
import os
import re
from collections.abc import Container, Iterator

from pipeline.errors import ResourceError

_FREE_MEMORY = "Use a machine with more, end other programs, raise the limit (ulimit -v), or use fewer workers"
_THREADS = "Raise the limit of processes (ulimit -u), or use fewer workers and threads"
_REMEDIES = {
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or use fewer workers",
    errno.ENFILE: "End other programs, or raise the system's limit of open files",
    errno.ENOMEM: _FREE_MEMORY,
    errno.EAGAIN: _THREADS,
    errno.ENOSPC: "Free some space and run the command again: finished work is kept",
    errno.EDQUOT: "Free some space, or ask for a larger quota",
    errno.EACCES: "Give yourself the permission, or copy the file",
    errno.EPERM: "Give yourself the permission, or copy the file",
    errno.EIO: "Check the disk and the connection to it, then run the command again",
    errno.ESTALE: "Mount the file system again, and run the command again",
}
"""What to do, by error number."""
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""The errors that hit any file alike, so that they say nothing about the one that was read."""

_NO_MEMORY = re.compile(
    r"can't allocate memory|bad_alloc|out of memory|unable to allocate|malloc of size|failed to map segment"
)
_NO_THREAD = re.compile(r"can't start new thread|thread creation failed|pthread_create")
_NUMBER = re.compile(r"\b(?:os error|errno[ =:]+)\s*(\d+)", re.IGNORECASE)


def find_shortage(error: BaseException) -> int | None:
    """Return the error number of what the machine lacks or refuses, if that made an operation fail, else None.

    Libraries wrap such errors or only quote them, so causes and texts are searched as well.
    """
    for each in _causes(error):
        if isinstance(each, MemoryError):
            return errno.ENOMEM
        if isinstance(each, OSError) and each.errno is not None:
            if each.errno in _REMEDIES:
                return each.errno
            continue
        text = str(each)
        if _NO_THREAD.search(text):
            return errno.EAGAIN
        if _NO_MEMORY.search(text):
            return errno.ENOMEM
        numbers = [int(number) for number in _NUMBER.findall(text)]
        found = next((code for code in _REMEDIES if code in numbers or os.strerror(code) in text), None)
        if found is not None:
            return found
    return None


def raise_shortage(error: BaseException, where: object, codes: Container[int] = frozenset(_REMEDIES)) -> None:
    """Raise ResourceError if an operation failed for what the machine lacks or refuses, else return.

    Args:
        error: the error of the operation.
        where: path or name, for the message.
        codes: the error numbers to look for.
    """
    if isinstance(error, ResourceError):
        raise error
    code = find_shortage(error)
    if code is not None and code in codes:
        raise ResourceError(f"{where}: {describe_shortage(code)}") from error


def describe_shortage(code: int) -> str:
    """Return what the machine lacks or refuses, by error number, and what to do."""
    what = {errno.ENOMEM: "not enough memory", errno.EAGAIN: "cannot start another thread or process"}
    return f"{what.get(code) or os.strerror(code).lower()}. {_REMEDIES[code]}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from or after."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        yield error
        following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if following is None:
            return
        error = following
