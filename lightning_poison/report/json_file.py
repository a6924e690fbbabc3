"""The report as data: valid JSON, every number with its unit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_poison.errors import UserError
from lightning_poison.report.metrics import describe, is_documented
from lightning_poison.report.run_report import Baseline, RunReport

__all__ = ["JSON_NAME", "read_baseline", "report_json"]

JSON_NAME = "report.json"


def report_json(report: RunReport, files: Sequence[str] = ()) -> str:
    """The text of ``report.json``; numbers that are not finite become null.

    Example:
        >>> json.loads(report_json(RunReport("A run", "now", metrics={"val/loss": float("nan")})))["metrics"]
        {'val/loss': None}
    """
    keys = [*report.metrics, *(key for key in report.history if key not in report.metrics)]
    content = {
        "title": report.title,
        "created": report.created,
        "command": report.command,
        "metrics": report.metrics,
        "metric_info": {key: _info(key, report.notes.get(key)) for key in keys},
        "baseline": None
        if report.baseline is None
        else {
            "label": report.baseline.label,
            "source": report.baseline.source,
            "metrics": report.baseline.metrics,
        },
        "history": {
            key: [{"epoch": epoch, "value": value} for epoch, value in points] for key, points in report.history.items()
        },
        "seeds": report.seeds,
        "versions": report.versions,
        "data": report.data,
        "poison": report.poison,
        "sections": [
            {
                "title": section.title,
                "text": section.text,
                "tables": [
                    {"caption": table.caption, "columns": table.columns, "rows": table.rows} for table in section.tables
                ],
                "figures": [{"file": figure.file, "caption": figure.caption} for figure in section.figures],
            }
            for section in report.sections
        ],
        "files": list(files),
    }
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_baseline(path: str | Path, label: str = "clean twin") -> Baseline:
    """The metrics of another run, from its ``report.json`` or the folder that holds it.

    Raises:
        UserError: there is no such file, or it is not a report.
    """
    file = _find(Path(path))
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        numbers = {str(key): float(value) for key, value in content["metrics"].items() if value is not None}
        fingerprint = content.get("data", {}).get("fingerprint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'baseline must be a report.json with numbers under "metrics", got {file}; '
            "give the file that the Report callback wrote for the other run"
        ) from error
    if not any(is_documented(key) for key in numbers):
        raise UserError(f"baseline must hold a metric to compare with such as val/acc, got none in {file}")
    return Baseline(numbers, label, str(file), fingerprint)


def _find(path: Path) -> Path:
    for candidate in (path, path / JSON_NAME, path / "report" / JSON_NAME):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"baseline must be an existing report.json or a folder that holds one, got {path}; "
        "run the other run with the Report callback first"
    )


def _info(key: str, note: str | None) -> dict[str, Any]:
    info = describe(key)
    return {
        "label": info.label,
        "unit": info.unit,
        "description": info.description,
        "higher_is_better": info.higher_is_better,
        "measured_with": note,
    }


def _plain(value: Any) -> Any:
    """Only what JSON knows: non-finite numbers become null, mappings get string keys, the rest its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value)
