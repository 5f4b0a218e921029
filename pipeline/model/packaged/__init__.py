"""Models that come with this package, one for each of the encoders whose weights it fetches.

Each `<name>.safetensors` is compact (`pipeline.model.compact`), and `<name>.md` is its card: data, licences,
figures and limits. `python -m benchmarks.packaged_models` trains them again.
"""

from pathlib import Path

from pipeline.errors import ConfigError

SHA256 = {
    "campplus": "21fcc8002dec14b0827eb4c5e8a1dfe3bf2c22e6b60a35fe13aef5cf47707ce0",
    "ge2e": "2b991f8104c895701764d6be99d8addc836a0d5df93952e3ecdf5d6e3d3c3e97",
}
"""SHA-256 of each file, by name."""


def find_packaged(name: str) -> Path | None:
    """Return the file of a packaged model, by its name; None if there is none, or if a file has this name."""
    if name not in SHA256 or Path(name).exists():
        return None
    return Path(__file__).with_name(f"{name}.safetensors")


def require_packaged(encoder: str) -> Path:
    """Return the file of the packaged model of an encoder; raise ConfigError if there is none."""
    found = find_packaged(encoder)
    if found is None:
        raise ConfigError(f"there is no packaged model for encoder {encoder!r}. Give one with --model.")
    return found
