"""Notes below a result table: models that do nothing, and warnings of the measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.model.domain import FAMILIAR
from pipeline.report.results import PROTOCOL
from pipeline.report.series import CsvRow


def list_notes(content: Mapping[str, Any], training: Sequence[CsvRow]) -> list[str]:
    """Return notes on the metrics of an encoder, given the loss curve of its training (empty if unknown)."""
    protocol = content[PROTOCOL]
    return [
        *_note_strengths(protocol.get("stores") or []),
        *_note_training(training),
        *protocol.get("warnings", []),
    ]


def _note_strengths(stores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return notes on systems that were not enhanced, or less than their model would on speech like its training's."""
    raw: dict[str, list[str]] = {}
    lowered: dict[str, tuple[float, float]] = {}
    for store in stores:
        system, _, condition = str(store.get("role")).rpartition("/")
        strength = (store.get("sampling") or {}).get("strength")
        if not system or strength is None:
            continue
        if strength == 0:
            raw.setdefault(system, []).append(condition)
        elif store.get("atypicality", 0) > FAMILIAR:
            lowered[system] = strength, store["atypicality"]
    unlike = {str(store.get("role")).rpartition("/")[0]: store.get("atypicality", 0) for store in stores}
    notes = []
    for system, conditions in raw.items():
        why = (
            f"the speech is unlike that of the training (atypicality {unlike[system]:.1f}; usual is 1)"
            if unlike[system] > FAMILIAR
            else "nothing was better than raw vectors on held-out speakers, or it was set so"
        )
        notes.append(
            f"{system} is NOT ENHANCED in {', '.join(conditions)}: the strength is 0, because {why}. Adapt the model"
            " (`seed enhance --adapt STORE`, `seed adapt`), or train on more speakers; `seed try` says what helps."
        )
    for system, (strength, atypicality) in lowered.items():
        notes.append(
            f"{system}: the speech is unlike that of the training (atypicality {atypicality:.1f}; usual is 1), so the"
            f" strength is only {strength:.2f}. Adapt the model: `seed enhance --adapt STORE`."
        )
    return notes


def _note_training(training: Sequence[CsvRow]) -> list[str]:
    """Return a note if no epoch of a training was better than the network that it began with."""
    losses = [float(row["validation_loss"]) for row in training if "validation_loss" in row]
    if len(losses) < 2 or min(losses) < losses[0]:
        return []
    return [
        "The network was not trained: no epoch was better than the network that training began with. A lower"
        " train.learning_rate or more pairs may help."
    ]
