"""Writer of the limits as CSV files, with the encoder in the first column."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.report.limits import gain, gaps, stability, transfer
from pipeline.report.limits.limits import Findings
from pipeline.utils.atomic import write_table
from pipeline.utils.paths import Place


def write_tables(findings: Mapping[str, Findings], out: Place) -> list[Place]:
    """Write one CSV file for each table, given the findings of each encoder, and return their paths."""
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]] = {
        "gaps": (gaps.COLUMNS, (row for name, each in findings.items() for row in gaps.format_gaps(name, each.gaps))),
        "gain": (gain.COLUMNS, _format_gains(findings)),
        "turns": (gain.SIGN_CHANGE_COLUMNS, _format_sign_changes(findings)),
        "transfer": (
            transfer.COLUMNS,
            (row for name, each in findings.items() for row in transfer.format_results(name, each.groups)),
        ),
        "matched": (("encoder", "group", "condition", *gain.COLUMNS[2:]), _format_matched(findings)),
        "kept": (transfer.RETAINED_COLUMNS, _format_retained(findings)),
    }
    trained = [row for each in findings.values() for row in each.trainings]
    if trained:
        rows = (row for name, each in findings.items() for row in stability.format_trainings(name, each.trainings))
        tables["stability"] = stability.training_columns(trained), rows
    paths = [out / f"{name}.csv" for name in tables]
    for path, (columns, lines) in zip(paths, tables.values(), strict=True):
        write_table(path, columns, lines)
    return paths


def _format_gains(findings: Mapping[str, Findings]) -> Iterable[Sequence[object]]:
    for name, each in findings.items():
        for space, bins in each.bins.items():
            for gap_bin in bins:
                yield name, space, *_format_bin(gap_bin)


def _format_matched(findings: Mapping[str, Findings]) -> Iterable[Sequence[object]]:
    for name, each in findings.items():
        for group, condition, gap_bin in each.matched:
            yield name, group, condition, *_format_bin(gap_bin)


def _format_bin(gap_bin: gain.GapBin) -> Iterable[object]:
    figures = (*gap_bin.raw, *gap_bin.seed, *gap_bin.gain, gap_bin.p_value)
    yield from (f"{value:z.6f}" for value in (gap_bin.low, gap_bin.high, gap_bin.mean))
    yield from (gap_bin.targets, gap_bin.nontargets, *(f"{value:z.6f}" for value in figures))


def _format_sign_changes(findings: Mapping[str, Findings]) -> Iterable[Sequence[object]]:
    for name, each in findings.items():
        for space, changes in each.sign_changes.items():
            for kind, change in zip((gain.STARTS, gain.STOPS), changes, strict=True):
                yield name, space, kind, *(f"{value:z.6f}" for value in change)


def _format_retained(findings: Mapping[str, Findings]) -> Iterable[Sequence[object]]:
    for name, each in findings.items():
        for row in each.retained:
            yield name, row.condition, row.from_group, row.to_group, *(f"{value:z.6f}" for value in row.share)
