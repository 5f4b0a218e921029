"""Models that come with this package, one for each of the encoders whose weights it fetches.

Each `<name>.safetensors` is compact (`pipeline.model.compact`), and `<name>.md` is its card: data, licences,
figures and limits. `python -m benchmarks.packaged_models` trains them again.
"""

from pathlib import Path

from pipeline.errors import ConfigError

SHA256 = {
    "campplus": "7833f922d003ee559437cb09ce1cd980e93db78ad12e3b5968a34c86797a6617",
    "ge2e": "e7ed0092d329552d0b1c211a950bd1e6e83d36428faf816e1cc454ba4f8857f1",
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
