"""Names of a store's arrays and attributes, status codes and fixed sizes."""

SCHEMA = 2
"""The version of the layout. Stores of version 1 have no checksums in their attributes; they are read, too."""

MISSING, OK, FAILED = 0, 1, 2
"""Status codes of an utterance."""

SPACE = ("family", "weights_sha256", "front_end", "dim")
"""Attributes that distinguish the vectors of one encoder from another's."""

DENOISE = "denoise"
"""The attribute that names the denoiser; only stores of denoised audio have it."""

CHUNK_ROWS = 16
"""Number of rows that can be read without decoding a whole shard."""

TRACES, FINGERPRINTS = "traces", "fingerprints"
"""Names of the arrays that only stores of audio have."""

ARRAYS = ("embeddings", "status", "utterances", TRACES, FINGERPRINTS)
"""Names of all arrays."""

CONTENT_SHA256, STORE_SHA256 = "content_sha256", "store_sha256"
"""Attributes that hold the checksums of a finished store, see `integrity`."""

FINGERPRINT = 16
"""Number of bytes of a fingerprint."""
