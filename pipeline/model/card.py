"""Write the card of a model: the metadata of its file in Markdown, with the front matter of the Hugging Face hub."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.model.metadata import FORMAT
from pipeline.model.model_file import ModelFile, load_model
from pipeline.model.training_stats import DEFAULT_ATYPICALITY_LIMIT, OUTLIER_PERCENTILE
from pipeline.utils.atomic import replacing
from pipeline.utils.markdown import escape_markdown
from pipeline.utils.paths import Place

_HEAD = """\
---
library_name: speaker-seed
pipeline_tag: feature-extraction
tags:
- speaker-verification
- speaker-recognition
- speaker-embeddings
- denoising
---

# SEED for embeddings of {encoder}

A SEED model (Speaker Embedding Enhancement Diffusion, [arXiv 2505.16798](https://arxiv.org/abs/2505.16798)) takes
speaker embeddings that noise, music and reverberation have shifted, and moves them back towards the encoder's
embeddings of clean speech. It works on the vectors of one frozen encoder and needs no audio. It is for speaker
verification, search and clustering that compare vectors by cosine similarity.
"""

_USE = """
## Use

`pip install speaker-seed`. The vectors below are random, so they are flagged; replace them with the encoder's:

```python
import numpy as np
from pipeline import Enhancer, scoring

enhancer = Enhancer.load({file}, sha256="{sha256}")
# If your speech is unlike that of the training: enhancer = enhancer.adapt(vectors), with 30 vectors of it or more.
raw = np.random.default_rng(0).standard_normal((8, {dim})) * {norm:.4g} / {dim}**0.5
vectors, info = enhancer.enhance(raw, return_info=True)
print(info.out_of_distribution, info.reason)
print(scoring.score(vectors[:4], vectors[4:], trials=[(0, 0), (0, 1)]))
```
"""

_LIMITS = """
## Limits

- The model is for vectors of exactly this encoder, with these weights and this front end. It does not help others.
- Compare enhanced vectors only with vectors enhanced by this model at the same strength, adapted or not, never with raw
  vectors.
- Speech unlike the training speech (languages, channels, noise) gains less or gets worse: adapt the model to it, and
  measure on trials of your own.{figures}
- {flags}
- This card names no licence: the licence depends on the recordings of the training, and on the encoder.
"""

_PRECONDITIONERS: Mapping[str, str] = {
    "none": "are not preconditioned",
    "center": "have a mean vector subtracted",
    "whiten": "have a mean vector subtracted and are multiplied by a matrix that makes noise about equally large in all"
    " directions",
    "project": "have a mean vector subtracted and are projected away from the directions that noise moves them in most",
    "ridge": "have a mean vector subtracted and are multiplied by a regression matrix from noisy to clean vectors",
    "wiener": "have a mean vector subtracted and are multiplied by the matrix of a Wiener filter from noisy to clean"
    " vectors",
}
"""Effects of `train.network.precondition` on vectors."""


def write_card(model: Place, path: Place) -> None:
    """Write the card of a model file atomically; the same file always gives the same card.

    Raises:
        WeightsError: the model cannot be read.
        OutputError: `path` is not a file.
        PlaceError: a remote place does not answer, or refuses.
    """
    text = card(load_model(model), model.name)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def card(loaded: ModelFile, file: str) -> str:
    """Return the card of a model whose file is named `file`."""
    model, stats, encoder = loaded.model, loaded.model.training_stats, loaded.encoder
    facts = {
        "encoder": encoder.get("encoder"),
        "encoder family": encoder.get("family"),
        "SHA-256 of its weights": encoder.get("weights_sha256") or "unknown",
        "front end, if not the family's own": encoder.get("front_end"),
        "denoiser before the encoder": encoder.get("denoise"),
        "dimension": model.dim,
        "file": f"{file}, format {FORMAT}",
        "SHA-256 of the file": loaded.sha256,
    }
    lines = ["", *_table(("", ""), _known(facts)), "", "## Vectors in and out", "", *_scales(loaded)]
    if stats:
        norms = {"clean": stats.clean_norm, "noisy": stats.noisy_norm}
        rows = ((name, *(f"{value:.4g}" for value in each.model_dump().values())) for name, each in norms.items())
        lines += ["", *_table(("L2 norm of raw training vectors", "1st percentile", "median", "99th percentile"), rows)]
    lines += ["", "## Training", "", *_training(loaded)]
    norm = stats.clean_norm.p50 if stats else 1.0
    use = _USE.format(file=json.dumps(file, ensure_ascii=False), sha256=loaded.sha256, dim=model.dim, norm=norm)
    head = _HEAD.format(encoder=escape_markdown(encoder.get("encoder") or "an unnamed encoder"))
    return head + "\n".join(lines) + "\n" + use + _LIMITS.format(flags=_flags(loaded), figures=_figures(loaded))


def _scales(loaded: ModelFile) -> Iterator[str]:
    """Yield a line each for the scale of the input, inside the network, and of the output."""
    dim, settings = loaded.model.dim, loaded.model.settings
    trained = " (in training they kept their length)" if settings.scale == "sampling" else ""
    yield "- input: vectors exactly as the encoder returns them, neither normalised, scaled nor centred."
    yield (
        f"- network: vectors {_PRECONDITIONERS[settings.network.precondition]}, and are then scaled to L2 norm"
        f" sqrt({dim}) = {dim**0.5:.4f}{trained}."
    )
    yield (
        f"- output: at strength 0 the raw vector; at strength 1 the network's output, of L2 norm about sqrt({dim}) in"
        " the preconditioned space; in between, a point on the great circle between the two directions, at the raw"
        " vector's length."
    )


def _training(loaded: ModelFile) -> Iterator[str]:
    training, strength = loaded.metadata.get("training", {}), round(loaded.model.default_strength, 6)
    epochs = training.get("epochs", "?")
    facts = {
        "utterances": training.get("utterances"),
        "speakers (names are used for holding out only)": training.get("speakers"),
        "domains, each moved to one mean": _several(training.get("domains")),
        "clean crops per utterance": training.get("draws"),
        "noisy views per crop": ", ".join(training.get("noisy_views", ())),
        "held out for validation": training.get("held_out"),
        "best epoch": f"{training['best_epoch']} of {epochs}" if "best_epoch" in training else None,
        "validation loss": _loss(training),
        "strength, from raw (0) to enhanced (1)": f"{strength:g}",
        "timestep": training.get("timestep"),
        "seed": training.get("seed"),
        "initial model, SHA-256": training.get("init_sha256"),
        "adapted to": _adaptation(loaded),
        "stopped early": training.get("stopped"),
    }
    for warning in _warnings(loaded):
        yield from (f"**{warning}**", "")
    yield from _table(("", ""), _known(facts))
    eers = training.get("held_out_eer")
    if eers:
        rows = ((name, *(f"{eers[name][kind]:.2f}" for kind in ("clean", "noisy"))) for name in ("raw", "enhanced"))
        yield ""
        yield from _table(("EER of held-out training speakers, %", "clean", "mean over noisy views"), rows)
    yield from ("", "Settings (docs/training.md):", "")
    for name, value in _flatten(loaded.metadata.get("settings", {})):
        yield f"    {name}: {value}"


def _warnings(loaded: ModelFile) -> Iterator[str]:
    """Yield what keeps the model from doing anything, with the next step."""
    training, model = loaded.metadata.get("training", {}), loaded.model
    if training.get("best_epoch") == 0 and training.get("epochs") and "init_sha256" not in training:
        yield (
            "The network is untrained: no epoch was better than the network that training began with. A lower"
            " train.learning_rate or more pairs may help."
        )
    if not round(model.default_strength, 6):
        yield (
            "The strength is 0: vectors are returned unchanged, because nothing was better than raw vectors on held-out"
            " speakers. Train on more speakers or corpora (`seed train --store`, repeated), or adapt the model to your"
            " speech (`seed adapt`)."
        )
    if model.adaptation and (problem := model.adaptation.describe_problem()):
        yield f"The adaptation is limited: {problem}."


def _several(count: int | None) -> int | None:
    return count if count and count > 1 else None


def _adaptation(loaded: ModelFile) -> str | None:
    record = loaded.model.adaptation
    if record is None:
        return None
    what = f"{record.recordings} recordings, mean and whitening" if record.recordings else f"{record.vectors} vectors"
    return (
        f"{what}, without labels; their mean has a weight of {record.weight:.3g}; base model"
        f" {record.base_sha256 or 'without a file'}"
    )


def _loss(training: Mapping[str, Any]) -> str | None:
    if "validation_loss" not in training:
        return None
    first = f" ({training['first_validation_loss']:.4f} untrained)" if "first_validation_loss" in training else ""
    return f"{training['validation_loss']:.4f}{first}"


def _figures(loaded: ModelFile) -> str:
    """Return a caveat about the error rates, if the card has any."""
    if not loaded.metadata.get("training", {}).get("held_out_eer"):
        return ""
    return " The error rates above are those of held-out training speakers, who also determined the strength."


def _flags(loaded: ModelFile) -> str:
    """Return a sentence on the vectors that are flagged."""
    stats = loaded.model.training_stats
    if stats is None and not loaded.model.domain_matrix.any():
        return "The training vectors are unknown: only vectors that are zero or not finite are flagged."
    if stats is None:
        return f"Vectors are flagged if their atypicality (usually 1) is above {DEFAULT_ATYPICALITY_LIMIT:g}."
    low, high = stats.fences
    return (
        f"Vectors are flagged if their atypicality (usually 1) is above {stats.atypicality:.3g}, the"
        f" {OUTLIER_PERCENTILE:g}th percentile of held-out vectors, or if their length is not between {low:.3g} and"
        f" {high:.3g}."
    )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "null" if value is None else value


def _known(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in values.items() if value is not None)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    head = tuple(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(escape_markdown, row))} |"
