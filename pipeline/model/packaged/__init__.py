"""Models that come with this package, one for each of the encoders whose weights it fetches.

Each `<name>.safetensors` is compact (`pipeline.model.compact`), and `<name>.md` is its card: data, licences,
figures and limits. `python -m benchmarks.packaged_models` trains them again.
"""

from pathlib import Path

from pipeline.errors import ConfigError

SHA256 = {
    "campplus": "e6edb8947b0930eb9c545a878f2c008832cc7eb4e810d551db37d7be242c6324",
    "ge2e": "da87002980a044989ba55026630e11984e65dfc7769ede0c3df6a0f5ad78b422",
}
"""SHA-256 of each file, by name."""


def find_packaged(name: str) -> Path | None:
    """Return the file of a packaged model, by its name; None if there is none, or if a file has this name."""
    if name not in SHA256 or Path(name).exists():
        return None
    return Path(__file__).with_name(f"{name}.safetensors")


def require_packaged(encoder: str) -> Path:
    """Return the file of the packaged model of an encoder; raise ConfigError if there is none."""
    if encoder not in SHA256:
        raise ConfigError(f"there is no packaged model for encoder {encoder!r}. Give one with --model.")
    return Path(__file__).with_name(f"{encoder}.safetensors")
