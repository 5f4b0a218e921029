"""Named errors. Each message says what is wrong, where, and what to do about it, on one line."""


class SeedError(Exception):
    """Base of every error a user can cause and mend; the command line prints it as one line and exits with 1."""


class ConfigError(SeedError, ValueError):
    """A parameter file or corpus definition has an unknown, missing or ill-typed key."""


class CorpusError(SeedError, ValueError):
    """A corpus, or a part of it, is not where its definition says, or has nothing that matches."""


class FetchError(SeedError, RuntimeError):
    """A download failed, or what arrived is not what was promised."""


class AudioError(SeedError, ValueError):
    """An audio file is missing, empty, truncated, silent, holds NaN, or is no audio at all."""


class ManifestError(SeedError, ValueError):
    """An utterance list has wrong columns, duplicate ids or unreadable rows."""


class WeightsError(SeedError, ValueError):
    """Encoder or model weights are missing, of another checksum, or do not fit the architecture."""


class ExportError(SeedError, RuntimeError):
    """An encoder or a model cannot be exported, or the exported file gives something else than it."""


class StoreError(SeedError, ValueError):
    """An embedding store is missing, corrupt, unfinished, or of another kind than asked for."""


class ExchangeError(SeedError, ValueError):
    """A file of embeddings is malformed, or of a form that cannot be read; or its rows do not fit."""


class QualityError(SeedError, ValueError):
    """A store's figures exceed the thresholds `quality` of the parameter file."""


class ExtractionError(SeedError, RuntimeError):
    """More utterances failed than `extract.max_failures` allows."""


class VectorError(SeedError, ValueError):
    """Vectors that were given are of a type or shape that cannot be used, or hold NaN or infinite values."""


class TrialError(SeedError, ValueError):
    """A trial list is malformed, one-sided or empty."""


class UnknownUtteranceError(TrialError, LookupError):
    """A trial names an utterance that the store does not hold."""


class OutputError(SeedError, FileExistsError):
    """What stands where a result is to go is not to be replaced."""


class PlaceError(SeedError, RuntimeError):
    """A remote place does not answer, refuses, or is not there."""


class TrainingError(SeedError, RuntimeError):
    """There is nothing to train on, or the loss is no longer a number."""


class SeedWarning(UserWarning):
    """Something may be wrong with what was given, such as vectors of another encoder; the result is there, though."""


def one_line(error: Exception) -> str:
    """Return what somebody else's error says, short enough for a message of ours."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
