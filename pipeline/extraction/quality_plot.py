"""Picture of a store's quality. It needs the extra `plots`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ConfigError
from pipeline.extraction.quality import PlotValues
from pipeline.utils.array_types import Float32Array
from pipeline.utils.charts import write_png
from pipeline.utils.paths import Place

if TYPE_CHECKING:
    import altair as alt

BINS = 60


def require_plots() -> None:
    """Raise ConfigError unless the libraries that draw are installed."""
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a picture needs Altair: pip install '.[plots]' (docs/install.md), or say --no-picture."
        ) from None


def draw_quality(spread: PlotValues, title: str, path: Place) -> None:
    """Draw a PNG of histograms: distances and cosines to the first view, by view, and cosines to the nearest other row.

    The same values give the same bytes. Raise ConfigError if Altair is not installed.
    """
    require_plots()
    import altair as alt

    chart = alt.hconcat(
        _histogram(spread.distances, "distance to the first view", "pairs of crops"),
        _histogram(spread.cosines, "cosine to the first view", "pairs of crops"),
        _histogram({"": spread.nearest}, "cosine to the nearest other utterance", "utterances"),
        title=title,
    )
    write_png(path, chart.resolve_scale(color="independent").to_dict(), ppi=100)


def _histogram(values: Mapping[str, Float32Array], x: str, y: str) -> "alt.Chart":
    """Return the outline of a histogram for each named array, in bins that they share."""
    import altair as alt

    if not values:
        empty: alt.Chart = alt.Chart(alt.Data(values=[{}]), width=290, height=230).mark_text(text="one view only")
        return empty
    edges = _edges(list(values.values()))
    corners = [
        {"view": view, "x": edge, "y": count}
        for view, numbers in values.items()
        for edge, count in zip([edges[0], *edges], [0, *np.histogram(numbers, edges)[0].tolist(), 0], strict=True)
    ]
    chart: alt.Chart = alt.Chart(alt.Data(values=corners), width=290, height=230)
    chart = chart.mark_line(interpolate="step-after", strokeWidth=1).encode(
        alt.X("x:Q", title=x, scale=alt.Scale(zero=False)), alt.Y("y:Q", title=y)
    )
    if "" not in values:
        chart = chart.encode(alt.Color("view:N", sort=list(values), legend=alt.Legend(title=None, orient="top")))
    return chart


def _edges(values: Sequence[Float32Array]) -> list[float]:
    """Return the edges of bins that hold all values, and are not narrower than float32 can resolve."""
    there = [part for part in values if len(part)]
    low = min((float(part.min()) for part in there), default=0.0)
    high = max((float(part.max()) for part in there), default=1.0)
    spare = max(0.0, 0.01 - (high - low)) / 2
    return [float(edge) for edge in np.linspace(low - spare, high + spare, BINS + 1)]
