"""Speaker Embedding Enhancement Diffusion: the library behind the `seed` commands (docs/api.md).

The public names are imported on first use, so `import pipeline` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import metrics, scoring
    from pipeline.model.enhancer import Enhancer
    from pipeline.store.embedding_store import EmbeddingStore
    from pipeline.training.api import train

__all__ = ["EmbeddingStore", "Enhancer", "metrics", "scoring", "train"]

_MODULES = {
    "EmbeddingStore": "pipeline.store.embedding_store",
    "Enhancer": "pipeline.model.enhancer",
    "train": "pipeline.training.api",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name) if name in _MODULES else import_module(f"pipeline.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
