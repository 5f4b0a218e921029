"""Named errors. Each message says on one line what is wrong, where, and what to do about it."""


class SeedError(Exception):
    """Base class of all errors that a user can cause and fix; the command line prints one line and exits with 1."""


class ConfigError(SeedError, ValueError):
    """A parameter file or corpus definition has an unknown, missing or ill-typed key."""


class CorpusError(SeedError, ValueError):
    """A corpus or a part of it is not where its definition says, or nothing in it matches."""


class FetchError(SeedError, RuntimeError):
    """A download failed, or its content is not the expected one."""


class AudioError(SeedError, ValueError):
    """An audio file is missing, empty, truncated or silent, holds NaN, or is not audio."""


class ManifestError(SeedError, ValueError):
    """A manifest has wrong columns, duplicate ids or unreadable rows."""


class WeightsError(SeedError, ValueError):
    """Encoder or model weights are missing, have another checksum, or do not fit the architecture."""


class ExportError(SeedError, RuntimeError):
    """An encoder or a model cannot be exported, or the exported file gives other results."""


class StoreError(SeedError, ValueError):
    """An embedding store is missing, corrupt, unfinished, or of the wrong kind."""


class ExchangeError(SeedError, ValueError):
    """A file of embeddings is malformed or has an unsupported format, or its rows do not match."""


class QualityError(SeedError, ValueError):
    """A store's figures exceed the thresholds in the section `quality` of the parameter file."""


class ExtractionError(SeedError, RuntimeError):
    """More utterances failed than `extract.max_failures` allows."""


class VectorError(SeedError, ValueError):
    """Given vectors have an unsupported type or shape, or hold NaN or infinite values."""


class TrialError(SeedError, ValueError):
    """A trial list is malformed, one-sided or empty."""


class UnknownUtteranceError(TrialError, LookupError):
    """A trial names an utterance that the store does not hold."""


class OutputError(SeedError, FileExistsError):
    """The output path is occupied by something that must not be replaced."""


class PlaceError(SeedError, RuntimeError):
    """A remote place does not answer, refuses a request, or does not exist."""


class ResourceError(SeedError):
    """The machine lacks handles, threads, memory or space, or refuses access; the data may be whole."""


class TrainingError(SeedError, RuntimeError):
    """There is nothing to train on, or the loss is NaN or infinite."""


class SeedWarning(UserWarning):
    """The input may be wrong, such as vectors of another encoder; the result is returned nevertheless."""


def one_line(error: Exception) -> str:
    """Return the type and message of a foreign error, short enough to quote in one of our messages."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
