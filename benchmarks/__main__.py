"""``python -m benchmarks NAME|all [--json FILE]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.runner import Row

NAMES = ("startup", "overhead", "paths", "attacks", "curve", "memory", "certificates", "flips")


def main() -> int:
    """Run the named benchmarks, print the table, write the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Print a table of ratios.")
    parser.add_argument("name", choices=[*NAMES, "all"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a list")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in NAMES if given.name == "all" else [given.name]:
        rows += importlib.import_module(f"benchmarks.{name}").run()
    _print(rows)
    if given.json is not None:
        given.json.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n", encoding="utf-8")
    return 0


def _print(rows: list[Row]) -> None:
    table = Table("benchmark", "subject", "against", "ratio", "target", "met", box=None, pad_edge=False)
    for row in rows:
        target = f"<= {row.target:g}"
        table.add_row(row.benchmark, row.subject, row.against, f"{row.ratio:.3f}", target, "yes" if row.met else "no")
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if rows:
        print(f"\n{rows[0].machine}")


if __name__ == "__main__":
    sys.exit(main())
