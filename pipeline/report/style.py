"""The style of plots: colours, fonts, and the axes of a DET plot."""

import csv
import io
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np

from pipeline.metrics import probit

Layers = alt.LayerChart | alt.FacetChart
"""The types that Altair gives to layered charts."""


def inline(rows: Sequence[Mapping[str, str | float]]) -> alt.InlineData:
    """Return rows as the data of a chart, with the columns of the first row and five significant digits."""
    columns = list(rows[0])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_format_value(row.get(name, "")) for name in columns] for row in rows)
    parse = {name: "string" if isinstance(rows[0][name], str) else "number" for name in columns}
    return alt.InlineData(values=text.getvalue(), format=alt.CsvDataFormat(type="csv", parse=parse))


def _format_value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:z.5g}"


BASELINE = "#7d8590"
OTHERS = ("#1f7fc4", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#6a51a3")
"""The colours of systems, after Okabe and Ito: distinct also for the colour-blind, on white and on black."""
TARGETS, NONTARGETS = "#1f7fc4", "#e69f00"

DET_TICKS = (0.1, 0.5, 2, 5, 10, 20, 40)
"""The ticks of both axes of a DET plot, in percent."""
DET_WINDOW = (0.05, 60.0)


def colours(systems: Sequence[str]) -> list[str]:
    """Return a colour for each system, grey for the first."""
    return [BASELINE, *(OTHERS[number % len(OTHERS)] for number in range(len(systems) - 1))]


def on_probit(percent: float) -> float:
    """Return the coordinate of a rate in percent on an axis of a DET plot."""
    return float(probit(np.array([percent / 100]))[0])


def det_labels() -> str:
    """Return a Vega expression that labels the ticks of a DET plot in percent."""
    table = ", ".join(f"'{round(1000 * on_probit(tick))}': '{tick:g}'" for tick in DET_TICKS)
    return f"{{{table}}}[round(1000 * datum.value)]"
