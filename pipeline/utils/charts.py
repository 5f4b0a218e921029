"""The look of all charts, and their PNG and SVG files. Drawing needs the extra `plots`."""

from collections.abc import Mapping
from typing import Any

from pipeline.utils.atomic import replacing
from pipeline.utils.paths import Place

VEGA_LITE = "6.4"
"""The version of Vega-Lite that the charts are made for, one of those that vl-convert brings."""

FAINT = "#8b949e"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_TEXT = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
_LINES = dict.fromkeys(("gridColor", "domainColor", "tickColor"), FAINT)
CONFIG: Mapping[str, Any] = {
    "font": FONT,
    "background": None,
    "view": {"stroke": None},
    "axis": {**_TEXT, "labelFontSize": 11, "gridOpacity": 0.35, **_LINES},
    "legend": {**_TEXT, "symbolStrokeWidth": 2, "symbolOpacity": 1},
    "header": {"labelFontSize": 12, "titleFontSize": 12},
    "title": {"fontSize": 14, "anchor": "start", "fontWeight": 600, "offset": 12},
}
"""The configuration of Vega-Lite that every plot shares; the page adds the colours of text, light or dark."""

_ON_WHITE = {**CONFIG, "background": "white", "font": "sans-serif"}


def write_png(path: Place, spec: dict[str, Any], ppi: int) -> None:
    """Draw a chart, as Vega-Lite has it, on white; 72 units of the chart are one inch, of `ppi` pixels."""
    import vl_convert

    with replacing(path) as temporary:
        temporary.write_bytes(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, ppi=ppi, config=_ON_WHITE))


def write_svg(path: Place, spec: dict[str, Any]) -> None:
    """Draw a chart, as Vega-Lite has it, on white as vector graphics."""
    import vl_convert

    with replacing(path) as temporary:
        text = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, config=_ON_WHITE)
        temporary.write_text(text, encoding="utf-8")
