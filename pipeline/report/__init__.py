"""Results for people and for programs: tables, files, plots and a page."""

from pipeline.report.results import of_lists, read_metrics
from pipeline.report.tables import markdown_report, summary_line, terminal_table
from pipeline.report.writers import write_curve, write_det, write_groups, write_histogram, write_histograms

__all__ = [
    "markdown_report",
    "of_lists",
    "read_metrics",
    "summary_line",
    "terminal_table",
    "write_curve",
    "write_det",
    "write_groups",
    "write_histogram",
    "write_histograms",
]
