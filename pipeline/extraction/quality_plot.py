"""Pictures of a store's quality. They need the extra `plots`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ConfigError
from pipeline.extraction.quality import Array, Spread
from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60


def need_plots() -> None:
    """Raise ConfigError if the library that draws is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a picture needs matplotlib; pip install 'speaker-seed[plots]', or say --no-picture."
        ) from None


def draw(spread: Spread, title: str, path: Place) -> None:
    """Draw a PNG: histograms of distance and cosine to the first view by view, and of the cosine to the nearest other.

    The same values give the same bytes: no date and no version are written.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    need_plots()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(1, 3))
    for axes, values, name in zip(panels, (spread.distances, spread.cosines), ("distance", "cosine"), strict=False):
        edges = _edges(list(values.values()))
        for view, numbers in values.items():
            axes.hist(numbers, bins=edges, histtype="step", label=view)
        axes.set(xlabel=f"{name} to the first view", ylabel="pairs of crops")
        if values:
            axes.legend()
        else:
            axes.text(0.5, 0.5, "one view only", ha="center", va="center", transform=axes.transAxes)
    panels[2].hist(spread.nearest, bins=_edges([spread.nearest]), histtype="step", color="black")
    panels[2].set(xlabel="cosine to the nearest other utterance", ylabel="utterances")
    figure.suptitle(title)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def _edges(values: Sequence[Array]) -> list[float]:
    """Return the edges of bins that hold all values, and are not narrower than a float32 can tell apart."""
    there = [part for part in values if len(part)]
    low = min((float(part.min()) for part in there), default=0.0)
    high = max((float(part.max()) for part in there), default=1.0)
    spare = max(0.0, 0.01 - (high - low)) / 2
    return [float(edge) for edge in np.linspace(low - spare, high + spare, BINS + 1)]
