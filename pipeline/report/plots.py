"""The plots of an encoder. They need the extra `plots`."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

from pipeline.report.results import Table, system_names
from pipeline.report.series import Series
from pipeline.utils.charts import VEGA_LITE

Spec = dict[str, Any]
"""A chart in Vega-Lite's format."""

NEEDED = ("altair", "vl_convert", "jinja2")
INSTALL_HINT = "plots and page need Altair: pip install '.[plots]' (docs/install.md)"


@dataclass(frozen=True)
class Plot:
    """A chart with its title and caption."""

    name: str
    title: str
    caption: str
    spec: Spec


def can_plot() -> bool:
    """Return True if the plotting libraries are installed."""
    return all(find_spec(name) for name in NEEDED)


def build_plots(table: Table, series: Series) -> list[Plot]:
    """Return the plots of an encoder for which there is data."""
    from pipeline.report.embedding_charts import distance_chart, map_chart, training_chart
    from pipeline.report.error_charts import det_chart, eer_chart, histogram_chart, snr_chart

    systems, names = system_names(table), list(table)
    charts = [
        ("eer", "Equal error rates", "Lines are 95 % intervals.", eer_chart(table)),
        (
            "snr",
            "EER against SNR",
            "Vertical lines are 95 % intervals, slightly shifted to stay apart. Dotted lines are EERs on clean speech.",
            snr_chart(table),
        ),
        (
            "det",
            "DET curves",
            "Both axes have a probit scale. A curve crosses the dotted line at its equal error rate.",
            det_chart(series.det, systems, names),
        ),
        (
            "histogram",
            "Scores",
            "Shares of target and of non-target trials. The score axes of the systems differ.",
            histogram_chart(series.histogram, systems, names),
        ),
        (
            "distances",
            "Distance between clean and noisy embeddings",
            "Distance between an utterance's clean and noisy vector: median, middle half, and 5 to 95 %. Each system"
            " has its own vector space, so compare with its last rows: clean vectors of two utterances.",
            distance_chart(series.distances, systems),
        ),
        (
            "map",
            "Map of embeddings",
            "First two principal axes of the clean vectors of some speakers, in each system's vector space. Each"
            " speaker has a colour. Dots are clean vectors, connected to the mean of their speaker. Dashed lines lead"
            " to the noisy vectors, drawn as rings.",
            map_chart(series.map),
        ),
        (
            "training",
            "Training",
            "Loss by epoch. The orange dot marks the lowest loss on held-out speakers: this model is kept.",
            training_chart(series.training),
        ),
    ]
    return [
        Plot(name, title, caption, {"description": f"{title}. {caption}", **chart.to_dict()})
        for name, title, caption, chart in charts
        if chart is not None
    ]


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that defines `vegaEmbed`."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return script.replace("</script", r"<\/script").replace(
        "<!--", r"<\!--"
    )  # either would end or hide the script in HTML
