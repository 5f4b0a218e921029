"""Which parameters of a sweep to take: by training speakers that were held out, and by nothing of the test set."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NOISY, CLEAN, RAW_CLEAN = "held_out_noisy_eer", "held_out_clean_eer", "held_out_raw_clean_eer"
OF_WHOM, SPEAKERS = "held_out_of", "held_out_speakers"
FAILED = "failed"
OF_DATA = "data."
"""How the names of parameters begin with which other speakers are held out."""

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Selection:
    """What to take, and what was not looked at."""

    parameters: dict[str, Any] | None
    """None where no speakers are known, or all parameters harm clean speech."""
    left_out: list[tuple[dict[str, Any], str]]
    """Parameters that have figures, and why."""


def select_parameters(rows: Rows) -> Selection:
    """Choose the parameters with the lowest noisy EER of held-out training speakers, clean speech being no worse.

    Both are means over the seeds, which hold out other speakers each, and over the models that find the strength. Only
    figures of the same speakers are compared, seed by seed: those like the run as the parameters are, or where there is
    none, like most runs. Others are of trainings on a part of the data, with other folds or shares to validate on, or
    that ended early.

    Args:
        rows: of `sweep.run_all`.
    """
    known, left_out = {}, []
    for name, same in by_parameters(rows).items():
        failed = sum(FAILED in row for row in same)
        if 0 < failed < len(same):
            left_out.append((json.loads(name), f"{failed} of {len(same)} runs failed"))
        elif any(key.startswith(OF_DATA) for key in same[0]["parameters"]):
            left_out.append((json.loads(name), "trained on a part of the data"))
        elif all(NOISY in row for row in same):
            known[name] = same
    if not known:
        return Selection(None, left_out)
    held = {name: _of_whom(same) for name, same in known.items()}
    reference = held.get("{}") or Counter(held.values()).most_common(1)[0][0]
    alike = {name: same for name, same in known.items() if held[name] == reference}
    usual = next(iter(alike.values()))
    for name in (each for each in known if each not in alike):
        why = f"held-out EERs of other speakers ({_count(known[name])}, not the same {_count(usual)})"
        left_out.append((json.loads(name), why))
    kept = {name: _mean(same, NOISY) for name, same in alike.items() if _mean(same, CLEAN) <= _mean(same, RAW_CLEAN)}
    return Selection(json.loads(min(kept, key=lambda name: kept[name])) if kept else None, left_out)


def by_parameters(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of all seeds together, by their parameters as JSON, in order."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(json.dumps(row["parameters"], sort_keys=True), []).append(row)
    return grouped


def _of_whom(rows: Rows) -> tuple[str, ...]:
    """Return what is the same for figures of the same speakers, by seed."""
    return tuple(sorted(f"{row['seed']} {row[OF_WHOM]}" for row in rows))


def _count(rows: Rows) -> str:
    """Return how many speakers figures are of, which may differ by seeds."""
    return " or ".join(map(str, sorted({row[SPEAKERS] for row in rows})))


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([row[name] for row in rows]))
