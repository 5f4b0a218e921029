"""The limits as CSV files, a column telling the encoder."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.report.limits import gain, gaps, stability, transfer
from pipeline.report.limits.gain import STARTS, STOPS
from pipeline.report.limits.limits import Findings
from pipeline.utils.atomic import write_table
from pipeline.utils.paths import Place

All = Mapping[str, Findings]
"""By encoder."""


def write_tables(found: All, out: Place) -> list[Place]:
    """Write a CSV file each of gaps, gain, turns, transfer, matched, kept and, of trainings, stability."""
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]] = {
        "gaps": (gaps.COLUMNS, (row for name, each in found.items() for row in gaps.cells(name, each.gaps))),
        "gain": (gain.COLUMNS, _bins(found)),
        "turns": (gain.TURN_COLUMNS, _turns(found)),
        "transfer": (
            transfer.COLUMNS,
            (row for name, each in found.items() for row in transfer.cells(name, each.groups)),
        ),
        "matched": (("encoder", "group", "condition", *gain.COLUMNS[2:]), _matched(found)),
        "kept": (transfer.KEPT_COLUMNS, _kept(found)),
    }
    trained = [row for each in found.values() for row in each.trainings]
    if trained:
        lines = (line for name, each in found.items() for line in stability.table(name, each.trainings))
        tables["stability"] = stability.columns(trained), lines
    written = [out / f"{name}.csv" for name in tables]
    for path, (columns, rows) in zip(written, tables.values(), strict=True):
        write_table(path, columns, rows)
    return written


def _bins(found: All) -> Iterable[Sequence[object]]:
    for name, each in found.items():
        for space, bins in each.bins.items():
            for one in bins:
                yield name, space, *_cells(one)


def _matched(found: All) -> Iterable[Sequence[object]]:
    for name, each in found.items():
        for group, condition, one in each.matched:
            yield name, group, condition, *_cells(one)


def _cells(one: gain.Bin) -> Iterable[object]:
    figures = (*one.raw, *one.seed, *one.gain, one.p_value)
    yield from (f"{value:.6f}" for value in (one.low, one.high, one.mean))
    yield from (one.targets, one.nontargets, *(f"{value:.6f}" for value in figures))


def _turns(found: All) -> Iterable[Sequence[object]]:
    for name, each in found.items():
        for space, pair in each.turns.items():
            for what, turn in zip((STARTS, STOPS), pair, strict=True):
                yield name, space, what, *(f"{value:.6f}" for value in turn)


def _kept(found: All) -> Iterable[Sequence[object]]:
    for name, each in found.items():
        for row in each.kept:
            yield name, row.condition, row.source, row.goal, *(f"{value:.6f}" for value in row.share)
