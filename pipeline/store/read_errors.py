"""Errors of damaged stores."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import PlaceError, StoreError, one_line
from pipeline.utils.paths import Place
from pipeline.utils.shortage import raise_shortage


def corrupt_error(path: Place, reason: str, rows: range | None = None) -> StoreError:
    """Return the error for a damaged store, or for damage in the shard of some rows."""
    where = f", in the shard of rows {rows.start} to {rows.stop - 1}" if rows else ""
    return StoreError(f"{path}: corrupt embedding store{where} ({reason}). Extract it again.")


@contextmanager
def store_errors(path: Place, rows: range | None = None) -> Iterator[None]:
    """Turn the errors of Zarr's codecs and parsers, which may be of any type, into StoreError.

    Raise ResourceError instead if the machine lacked handles, threads or memory, or refused access.
    """
    try:
        yield
    except (PlaceError, StoreError):
        raise
    except Exception as error:
        raise_shortage(error, path)
        raise corrupt_error(path, one_line(error), rows) from error
