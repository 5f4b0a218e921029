"""The choice among the parameters of a sweep, by held-out training speakers and without the test set."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NOISY, CLEAN, RAW_CLEAN = "held_out_noisy_eer", "held_out_clean_eer", "held_out_raw_clean_eer"
SPEAKERS_HASH, SPEAKERS = "held_out_of", "held_out_speakers"
FAILED = "failed"
DATA_PREFIX = "data."
"""The prefix of parameters that select a subset of the training store."""

SweepRows = Sequence[Mapping[str, Any]]
"""Rows of `run_sweep`."""


@dataclass(frozen=True)
class Selection:
    """The chosen parameters, and those that were left out of the choice."""

    parameters: dict[str, Any] | None
    """The best parameters; None if speakers are unknown or all parameters harm clean speech."""
    left_out: list[tuple[dict[str, Any], str]]
    """Parameters that have figures, with the reason for leaving them out."""


def select_parameters(rows: SweepRows) -> Selection:
    """Choose the parameters with the lowest noisy EER of held-out training speakers that do not harm clean speech.

    EERs are means over the seeds, each of which holds out other speakers, and over the models that find the strength.
    Only EERs of the same speakers are compared, seed by seed: those of the run with unchanged parameters, or without
    one, those of most runs. Other runs trained on a subset of the data, with other folds or validation shares, or
    stopped early.
    """
    known, left_out = {}, []
    for name, same in group_by_parameters(rows).items():
        failed = sum(FAILED in row for row in same)
        if 0 < failed < len(same):
            left_out.append((json.loads(name), f"{failed} of {len(same)} runs failed"))
        elif any(key.startswith(DATA_PREFIX) for key in same[0]["parameters"]):
            left_out.append((json.loads(name), "trained on a part of the data"))
        elif all(NOISY in row for row in same):
            known[name] = same
    if not known:
        return Selection(None, left_out)
    held = {name: _identify_speakers(same) for name, same in known.items()}
    reference = held.get("{}") or Counter(held.values()).most_common(1)[0][0]
    alike = {name: same for name, same in known.items() if held[name] == reference}
    first = next(iter(alike.values()))
    for name in (each for each in known if each not in alike):
        counts = f"{_count_speakers(known[name])}, not the same {_count_speakers(first)}"
        left_out.append((json.loads(name), f"held-out EERs of other speakers ({counts})"))
    kept = {name: _mean(same, NOISY) for name, same in alike.items() if _mean(same, CLEAN) <= _mean(same, RAW_CLEAN)}
    return Selection(json.loads(min(kept, key=lambda name: kept[name])) if kept else None, left_out)


def group_by_parameters(rows: SweepRows) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of all seeds by their parameters as JSON, in order."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(json.dumps(row["parameters"], sort_keys=True), []).append(row)
    return grouped


def _identify_speakers(rows: SweepRows) -> tuple[str, ...]:
    """Return a key that is equal for rows with EERs of the same speakers, by seed."""
    return tuple(sorted(f"{row['seed']} {row[SPEAKERS_HASH]}" for row in rows))


def _count_speakers(rows: SweepRows) -> str:
    """Return the number of held-out speakers as text; it may differ between seeds."""
    return " or ".join(map(str, sorted({row[SPEAKERS] for row in rows})))


def _mean(rows: SweepRows, name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
