"""The report of a run: its parts, its page, its numbers."""

from lightning_poison.report.json_file import read_baseline, report_json
from lightning_poison.report.metrics import DOCUMENTED_KEYS, MetricInfo, describe, format_value, is_documented
from lightning_poison.report.page import render_page
from lightning_poison.report.run_report import Baseline, RunReport
from lightning_poison.report.section import ReportFigure, ReportTable, Section
from lightning_poison.report.summary import summarize
from lightning_poison.report.terminal import print_table
from lightning_poison.report.writing import write_report

__all__ = [
    "DOCUMENTED_KEYS",
    "Baseline",
    "MetricInfo",
    "ReportFigure",
    "ReportTable",
    "RunReport",
    "Section",
    "describe",
    "format_value",
    "is_documented",
    "print_table",
    "read_baseline",
    "render_page",
    "report_json",
    "summarize",
    "write_report",
]
