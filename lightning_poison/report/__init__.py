"""The report of a run: its parts, its page, its numbers."""

from lightning_poison.report.json_file import read_baseline, report_json, write_report
from lightning_poison.report.logged_metric import LoggedMetric, format_value
from lightning_poison.report.page import render_page
from lightning_poison.report.run_report import Baseline, RunReport, summarize
from lightning_poison.report.section import ReportFigure, ReportTable, Section
from lightning_poison.report.terminal import print_table

__all__ = [
    "Baseline",
    "LoggedMetric",
    "ReportFigure",
    "ReportTable",
    "RunReport",
    "Section",
    "format_value",
    "print_table",
    "read_baseline",
    "render_page",
    "report_json",
    "summarize",
    "write_report",
]
