"""All plots of an encoder, and their PNG files. They need the extra `plots`."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pipeline.report.results import Table, systems_of
from pipeline.report.series import Series
from pipeline.utils.charts import VEGA_LITE

Spec = dict[str, Any]
"""A chart as Vega-Lite has it."""

NEEDED = ("altair", "vl_convert", "jinja2")
HOW_TO = "plots and page need Altair: pip install 'speaker-seed[plots]'"


@dataclass(frozen=True)
class Plot:
    """One chart, and what there is to say about it."""

    name: str
    title: str
    caption: str
    spec: Spec


def can_plot() -> bool:
    """Return whether the libraries that draw are installed."""
    return all(find_spec(name) for name in NEEDED)


def plots_of(table: Table, series: Series) -> list[Plot]:
    """Return the plots of an encoder that there is data for."""
    from pipeline.report.embedding_charts import distance_chart, map_chart, training_chart
    from pipeline.report.error_charts import det_chart, eer_chart, histogram_chart, snr_chart

    systems, names = systems_of(table), list(table)
    charts = [
        ("eer", "Equal error rates", "Lines are 95 % intervals.", eer_chart(table)),
        (
            "snr",
            "EER against SNR",
            "Vertical lines are 95 % intervals, drawn a little apart at the same SNR; dotted, the EER on clean speech.",
            snr_chart(table),
        ),
        (
            "det",
            "DET curves",
            "Both axes are on the probit scale; a curve crosses the dotted line at its equal error rate.",
            det_chart(series.det, systems, names),
        ),
        (
            "histogram",
            "Scores",
            "Shares of the target and of the non-target trials; each system has a scale of its own.",
            histogram_chart(series.histogram, systems, names),
        ),
        (
            "distances",
            "Distance between clean and noisy embeddings",
            "Of an utterance's clean vector and its noisy one: median, middle half, and 5 to 95 %. Compare with the"
            " last rows, distances between clean vectors of different utterances: each system has its own space.",
            distance_chart(series.distances, systems),
        ),
        (
            "map",
            "Map of embeddings",
            "First two principal axes of the clean vectors of some speakers, a colour each, in each system's space."
            " Dots are clean, joined to the middle of their speaker; a dashed line leads to the noisy vector, a ring.",
            map_chart(series.map),
        ),
        (
            "training",
            "Training",
            "Loss by epoch; the orange dot is the epoch of the lowest loss on held-out speakers, whose model is kept.",
            training_chart(series.training),
        ),
    ]
    return [
        Plot(name, title, caption, {"description": f"{title}. {caption}", **chart.to_dict()})
        for name, title, caption, chart in charts
        if chart is not None
    ]


def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed in one script, which gives the page `vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")  # what ends or hides a script in HTML
