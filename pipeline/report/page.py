"""The report as one HTML page that needs nothing but itself. It needs the extra `plots`."""

import itertools
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.data.corpora import Corpus
from pipeline.extraction.quality import StoreQuality, list_counts
from pipeline.report.plots import Plot, javascript
from pipeline.report.results import PROTOCOL, RESULTS, Table, marked
from pipeline.report.tables import FOOTNOTE, MEAN, counts, header, protocol_lines, rows, summary_line
from pipeline.utils.charts import CONFIG, FONT

TEMPLATE = Path(__file__).with_name("page.html")

VEGA = "Vega, Vega-Lite and Vega-Embed; BSD-3-Clause, copyright University of Washington Interactive Data Lab"
"""What the licence of the scripts on the page asks to be said."""

Facts = list[tuple[str, str]]
"""Names and values."""


def page(
    metrics: Mapping[str, Mapping[str, Any]],
    plots: Mapping[str, list[Plot]],
    params: Params,
    corpus: Corpus | None,
    quality: Mapping[str, StoreQuality],
) -> str:
    """Return the page: tables, plots and provenance of every encoder, and the scripts that draw them.

    Args:
        metrics: of every encoder, as `read_metrics` gives them.
        plots: of every encoder.
        params: that it was measured with.
        corpus: that it was measured on, if it is known.
        quality: of the training stores, where they were checked.
    """
    from jinja2 import Environment, StrictUndefined

    tables: dict[str, Table] = {name: content[RESULTS] for name, content in metrics.items()}
    anchors = {name: f"encoder-{number}" for number, name in enumerate(metrics, start=1)}
    specs = {f"{anchors[name]}-{plot.name}": plot.spec for name, found in plots.items() for plot in found}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        heading=f"Error rates on {params.corpus}",
        subtitle=corpus.title if corpus else None,
        protocol=protocol_lines(tables, params, corpus),
        encoders=[
            {
                "name": name,
                "anchor": anchors[name],
                "summary": summary_line(name, metrics[name]).removeprefix(f"{name}: ").replace("->", "→"),
                "caption": " ".join(line.removeprefix("- ") for line in counts(table)),
                "header": header(table),
                "groups": list(_groups(metrics[name])),
                "footnote": FOOTNOTE.replace("`", "") if marked(table) else None,
                "plots": plots.get(name, []),
                "quality": _quality(quality.get(name)),
            }
            for name, table in tables.items()
        ],
        provenance=provenance(metrics, params, corpus),
        plots=_embedded({"config": CONFIG, "specs": specs}),
        javascript=javascript(),
        font=FONT,
    )


def provenance(
    metrics: Mapping[str, Mapping[str, Any]], params: Params, corpus: Corpus | None
) -> list[tuple[str, Facts]]:
    """Return what the figures were made of and how, by title."""
    found: list[tuple[str, Facts]] = []
    if corpus:
        where = corpus.origin.page or corpus.origin.url
        facts = {"name": params.corpus, "what": corpus.title, "licence": corpus.licence, "from": where}
        found.append(("Corpus", [(name, text) for name, text in facts.items() if text]))
    used = params.model_dump(mode="json", include={"seed", "conditions", "score", "train", "enhance"})
    used["extract"] = params.extract.model_dump(mode="json", include={"eval_crops", "eval_frames"})
    found.append(("Parameters", list(flat(used))))
    for name, content in metrics.items():
        if content[PROTOCOL]:
            found.append((f"{name}: protocol", list(flat(content[PROTOCOL]))))
        if name in params.encoder:
            definition = params.encoder[name].model_dump(mode="json", exclude_none=True)
            found.append((f"{name}: encoder", list(flat(definition))))
    found.append(("Software", [("speaker-seed", version("speaker-seed")), ("plots", VEGA)]))
    return found


def flat(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested tables by dotted names; a list of plain values is one."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from flat(value, f"{name}.{key}" if name else str(key))
    elif isinstance(content, list) and any(isinstance(value, Mapping | list) for value in content):
        for number, value in enumerate(content, start=1):
            yield from flat(value, f"{name}.{number}")
    elif isinstance(content, list):
        yield name, ", ".join(map(_shown, content))
    else:
        yield name, _shown(content)


def _shown(value: Any) -> str:
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _groups(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the table, condition by condition."""
    for name, lines in itertools.groupby(rows(content), key=lambda line: line.condition):
        yield {"name": name, "mean": name == MEAN, "lines": list(lines)}


def _quality(found: StoreQuality | None) -> Facts:
    if found is None:
        return []
    views = [
        (f"{name}, median distance to clean", f"{view['distance']['50']:.3f} (cosine {view['cosine']['50']:.3f})")
        for name, view in found.views.items()
    ]
    return [*list_counts(found), *views]


def _embedded(content: Any) -> str:
    """Return JSON that no HTML parser takes for markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
