"""Names of a store's arrays and attributes, status codes and fixed sizes."""

SCHEMA = 1


MISSING, OK, FAILED = 0, 1, 2


SPACE = ("family", "weights_sha256", "front_end", "dim")
"""Attributes that tell one encoder's vectors from another's."""


DENOISE = "denoise"
"""Attribute of a store of denoised audio: by what; no other has it."""


CHUNK_ROWS = 16
"""Rows that can be read without decoding a whole shard."""


TRACES, FINGERPRINTS = "traces", "fingerprints"
"""Names of arrays."""


FINGERPRINT = 16
"""Bytes of one."""
