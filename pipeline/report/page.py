"""The report as one self-contained HTML page. It needs the extra `plots`."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.data.corpora import Corpus
from pipeline.extraction.quality import StoreQuality, list_counts
from pipeline.report.plots import Plot, javascript
from pipeline.report.results import PROTOCOL, RESULTS, Table, any_significant
from pipeline.report.tables import (
    FOOTNOTE,
    MEAN,
    column_names,
    describe_trials,
    format_rows,
    protocol_lines,
    summary_line,
)
from pipeline.utils.charts import CONFIG, FONT

TEMPLATE = Path(__file__).with_name("page.html")

VEGA = "Vega, Vega-Lite and Vega-Embed; BSD-3-Clause, copyright University of Washington Interactive Data Lab"
"""The attribution that the licence of the scripts on the page requires."""

Facts = list[tuple[str, str]]
"""Names and values for a two-column table."""


def render_page(
    metrics: Mapping[str, Mapping[str, Any]],
    plots: Mapping[str, list[Plot]],
    params: Params,
    corpus: Corpus | None,
    quality: Mapping[str, StoreQuality],
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the page: tables, plots and provenance of every encoder, and the scripts that draw the plots.

    Args:
        metrics: metrics of every encoder, from `read_metrics`.
        plots: plots of every encoder.
        params: parameters of the measurement.
        corpus: corpus of the measurement, if known.
        quality: quality of the training stores, if checked.
        notes: notes on every encoder, see `notes.list_notes`.
    """
    from jinja2 import Environment, StrictUndefined

    tables: dict[str, Table] = {name: content[RESULTS] for name, content in metrics.items()}
    anchors = {name: f"encoder-{number}" for number, name in enumerate(metrics, start=1)}
    specs = {f"{anchors[name]}-{plot.name}": plot.spec for name, own in plots.items() for plot in own}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        heading=f"Error rates on {params.tested_corpus}",
        subtitle=corpus.title if corpus else None,
        protocol=protocol_lines(tables, params, corpus),
        encoders=[
            {
                "name": name,
                "anchor": anchors[name],
                "summary": summary_line(name, metrics[name]).removeprefix(f"{name}: ").replace("->", "→"),
                "caption": " ".join(line.removeprefix("- ") for line in describe_trials(table)),
                "header": column_names(table),
                "groups": list(_group_rows(metrics[name])),
                "footnote": FOOTNOTE.replace("`", "") if any_significant(table) else None,
                "notes": (notes or {}).get(name, []),
                "plots": plots.get(name, []),
                "quality": _describe_quality(quality.get(name)),
            }
            for name, table in tables.items()
        ],
        provenance=collect_provenance(metrics, params, corpus),
        plots=_to_safe_json({"config": CONFIG, "specs": specs}),
        javascript=javascript(),
        font=FONT,
    )


def collect_provenance(
    metrics: Mapping[str, Mapping[str, Any]], params: Params, corpus: Corpus | None
) -> list[tuple[str, Facts]]:
    """Return the sections on provenance by title: corpus, parameters, protocols, encoders, software."""
    sections: list[tuple[str, Facts]] = []
    if corpus:
        address = corpus.origin.page or corpus.origin.url
        facts = {
            "name": params.tested_corpus,
            "description": corpus.title,
            "licence": corpus.licence,
            "source": address,
        }
        sections.append(("Corpus", [(name, text) for name, text in facts.items() if text]))
    used = params.model_dump(mode="json", include={"seed", "conditions", "score", "train", "enhance"})
    used["extract"] = params.extract.model_dump(mode="json", include={"eval_crops", "eval_frames"})
    sections.append(("Parameters", list(flatten_values(used))))
    for name, content in metrics.items():
        if content[PROTOCOL]:
            sections.append((f"{name}: protocol", list(flatten_values(content[PROTOCOL]))))
        if name in params.encoder:
            definition = params.encoder[name].model_dump(mode="json", exclude_none=True)
            sections.append((f"{name}: encoder", list(flatten_values(definition))))
    sections.append(("Software", [("speaker-seed", version("speaker-seed")), ("plots", VEGA)]))
    return sections


def flatten_values(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested mappings by dotted names; a list of plain values is one value."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from flatten_values(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list) and any(isinstance(value, Mapping | list) for value in content):
        for number, value in enumerate(content, start=1):
            yield from flatten_values(value, f"{name}.{number}")
    elif isinstance(content, list):
        yield name, ", ".join(map(_format_value, content))
    else:
        yield name, _format_value(content)


def _format_value(value: Any) -> str:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _group_rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table, condition by condition."""
    for name, rows in itertools.groupby(format_rows(content), key=lambda row: row.condition):
        yield {"name": name, "mean": name == MEAN, "rows": list(rows)}


def _describe_quality(quality: StoreQuality | None) -> Facts:
    if quality is None:
        return []
    views = [
        (f"{name}, median distance to clean", f"{view['distance']['50']:.3f} (cosine {view['cosine']['50']:z.3f})")
        for name, view in quality.views.items()
    ]
    return [*list_counts(quality), *views]


def _to_safe_json(content: Any) -> str:
    """Return JSON that HTML parsers do not mistake for markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
