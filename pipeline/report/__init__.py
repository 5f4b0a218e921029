"""Reports of results: tables, files, plots and an HTML page."""

from pipeline.report.results import read_metrics
from pipeline.report.tables import markdown_report, summary_line, terminal_table
from pipeline.report.writers import write_det, write_groups, write_histogram, write_histograms, write_roc

__all__ = [
    "markdown_report",
    "read_metrics",
    "summary_line",
    "terminal_table",
    "write_det",
    "write_groups",
    "write_histogram",
    "write_histograms",
    "write_roc",
]
