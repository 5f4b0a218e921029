"""The card of a model: what its file says of it, in Markdown with the front matter that the Hugging Face hub reads."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.model.model_file import FORMAT, ModelFile, load_model
from pipeline.model.training_stats import FALLBACK, UNUSUAL
from pipeline.utils.atomic import replacing
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
speaker embeddings that noise, music and reverberation have moved, and moves them back towards where the encoder puts
clean speech of the speaker. It works on the vectors of one frozen encoder, and hears no audio. It is for speaker
verification, search and clustering, where recordings are compared by the cosine of their vectors.
"""

_USE = """
## Use

`pip install speaker-seed`. The vectors here are random, in place of the encoder's, and so will be flagged:

```python
import numpy as np
from pipeline import Enhancer, scoring

enhancer = Enhancer.load("{file}", sha256="{sha256}")
# Where speech may be unlike training: enhancer = enhancer.for_domain(clean_vectors), which lowers the strength.
raw = np.random.default_rng(0).standard_normal((8, {dim})) * {norm:.4g} / {dim} ** 0.5
vectors, info = enhancer.enhance(raw, return_info=True)
print(info.out_of_distribution, info.reason)
print(scoring.score(vectors[:4], vectors[4:], trials=[(0, 0), (0, 1)]))
```
"""

_LIMITS = """
## Limits

- Made for vectors of this very encoder, weights and front end: others are not put right.
- Enhanced vectors are to be compared with vectors enhanced by this model at the same strength, never with raw ones.
- Speech unlike that of training (languages, channels, noise) gains less, or loses: see `for_domain`, and measure on
  trials of your own.{figures}
- {flags}
- This card names no licence: it follows from the recordings that the model was trained on, and from the encoder.
"""


def write_card(model: Place, path: Place) -> None:
    """Write the card of a model file, whole or not at all; the same file gives the same card.

    Raises:
        WeightsError: the model cannot be read.
        OutputError: `path` is something else than a file.
        PlaceError: a remote place does not answer, or refuses.
    """
    text = card(load_model(model), model.name)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def card(loaded: ModelFile, file: str) -> str:
    """Return the card of a model, whose file has the name `file`."""
    model, bounds, encoder = loaded.model, loaded.model.training_stats, loaded.encoder
    what = {
        "encoder": encoder.get("encoder"),
        "family of encoders": encoder.get("family"),
        "SHA-256 of its weights": encoder.get("weights_sha256") or "unknown",
        "front end, if not the family's own": encoder.get("front_end"),
        "denoiser before the encoder": encoder.get("denoise"),
        "dimension": model.dim,
        "file": f"{file}, format {FORMAT}",
        "SHA-256 of the file": loaded.sha256,
    }
    scale = loaded.metadata.get("scale", {})
    lines = ["", *_table(("", ""), _known(what)), "", "## Vectors in and out", ""]
    lines += [f"- {name}: {text}" for name, text in scale.items()]
    if bounds:
        norms = {"clean": bounds.clean_norm, "noisy": bounds.noisy_norm}
        rows = ((name, *(f"{value:.4g}" for value in each.model_dump().values())) for name, each in norms.items())
        lines += ["", *_table(("L2 norm of raw training vectors", "1st percentile", "median", "99th percentile"), rows)]
    lines += ["", "## Training", "", *_training(loaded)]
    norm = bounds.clean_norm.p50 if bounds else 1.0
    use = _USE.format(file=file, sha256=loaded.sha256, dim=model.dim, norm=norm)
    head = _HEAD.format(encoder=_cell(encoder.get("encoder") or "an unnamed encoder"))
    return head + "\n".join(lines) + "\n" + use + _LIMITS.format(flags=_flags(loaded), figures=_figures(loaded))


def _training(loaded: ModelFile) -> Iterator[str]:
    told, strength = loaded.metadata.get("training", {}), round(float(loaded.model.strength), 6)
    counted = {
        "utterances": told.get("utterances"),
        "speakers (their names serve the hold-out alone)": told.get("speakers"),
        "clean crops of each utterance": told.get("draws"),
        "noisy views of each crop": ", ".join(told.get("noisy_views", ())),
        "held out for validation": told.get("held_out"),
        "epoch kept": f"{told['best_epoch']} of {told.get('epochs', '?')}" if "best_epoch" in told else None,
        "validation loss": _loss(told),
        "strength, from raw (0) to enhanced (1)": f"{strength:g}",
        "timestep": told.get("timestep"),
        "seed": told.get("seed"),
        "began with the model of SHA-256": told.get("init_sha256"),
        "stopped early": told.get("stopped"),
    }
    yield from _table(("", ""), _known(counted))
    eers = told.get("held_out_eer")
    if eers:
        rows = ((name, *(f"{eers[name][kind]:.2f}" for kind in ("clean", "noisy"))) for name in ("raw", "enhanced"))
        yield ""
        yield from _table(("EER among held-out training speakers, %", "clean", "mean over noisy views"), rows)
    yield from ("", "Settings (docs/training.md):", "")
    for name, value in _flat(loaded.metadata.get("settings", {})):
        yield f"    {name}: {value}"


def _loss(told: Mapping[str, Any]) -> str | None:
    if "validation_loss" not in told:
        return None
    first = f" ({told['first_validation_loss']:.4f} before)" if "first_validation_loss" in told else ""
    return f"{told['validation_loss']:.4f}{first}"


def _figures(loaded: ModelFile) -> str:
    """Return what is to be known of the error rates, if there are any."""
    if not loaded.metadata.get("training", {}).get("held_out_eer"):
        return ""
    return " The figures above are of held-out training speakers, on whom the strength was chosen."


def _flags(loaded: ModelFile) -> str:
    """Return when a vector is flagged."""
    bounds = loaded.model.training_stats
    if bounds is None and not loaded.model.domain_matrix.any():
        return "It is not known what its training vectors looked like: only those of zeros or not finite are flagged."
    if bounds is None:
        return f"Vectors are flagged if their atypicality (usual is 1) is above {FALLBACK:g}."
    low, high = bounds.fences
    return (
        f"Vectors are flagged if their atypicality (usual is 1) is above {bounds.atypicality:.3g}, the {UNUSUAL:g}th"
        f" percentile of held-out vectors, or if their length is not from {low:.3g} to {high:.3g}."
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "null" if value is None else value


def _known(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in values.items() if value is not None)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Iterator[str]:
    head = tuple(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(value: Any) -> str:
    """Return a value as it can stand in a line of a table; names are anybody's."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
