"""Which parameters of a sweep to take: by training speakers that were held out, and by nothing of the test set."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NOISY, CLEAN, RAW_CLEAN = "held_out_noisy_eer", "held_out_clean_eer", "held_out_raw_clean_eer"
OF_DATA = "data."
"""How the names of parameters begin with which other speakers are held out."""


def choose(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the parameters with the lowest noisy EER of held-out training speakers, clean speech being no worse.

    Both are means over the seeds, which hold out other speakers each, and over the models that find the strength.
    Trainings on a part of the data hold out speakers of their own, and are not looked at. It is None where no speakers
    are known, or all parameters harm clean speech.

    Args:
        rows: of `sweep.run_all`.
    """
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if NOISY in row and not any(name.startswith(OF_DATA) for name in row["parameters"]):
            grouped.setdefault(json.dumps(row["parameters"], sort_keys=True), []).append(row)
    kept = {name: _mean(same, NOISY) for name, same in grouped.items() if _mean(same, CLEAN) <= _mean(same, RAW_CLEAN)}
    return json.loads(min(kept, key=lambda name: kept[name])) if kept else None


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
