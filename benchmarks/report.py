"""The results: a table on stdout, and all data behind it as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

PACKAGES = ("rankscope", "numpy", "pandas", "pyarrow", "safetensors", "torch")


@dataclass(frozen=True)
class Spread:
    """Median and range of a quantity over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise values, one per round."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    what
        What is compared.
    value, unit
        The figure: ``×`` for a ratio, ``s`` or ``MB``.
    at_most, at_least
        The limit that the project sets, if any.
    detail
        The figures behind the ratio.
    """

    what: str
    value: Spread
    unit: str
    detail: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def asked(self) -> str:
        """The limit in words."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limit; None if there is no limit."""
        if self.at_most is not None:
            return self.value.median <= self.at_most
        return None if self.at_least is None else self.value.median >= self.at_least


def print_table(rows: Sequence[Row], missing: Sequence[str]) -> None:
    """Print the rows, then what could not be measured."""
    cells = [("", "median (min–max)", "asked", "", "")]
    verdicts = {True: "met", False: "MISSED", None: ""}
    cells += [(r.what, _figure(r), r.asked, verdicts[r.met], r.detail) for r in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    for line in cells:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        print("  ".join([*padded, line[4]]).rstrip())
    for reason in missing:
        print(f"not measured: {reason}")


def _figure(row: Row) -> str:
    numbers = (row.value.median, row.value.lowest, row.value.highest)
    middle, low, high = (f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in numbers)
    return f"{middle} {row.unit}" if low == high else f"{middle} {row.unit} ({low}–{high})"


def write_json(
    path: Path, rows: Sequence[Row], missing: Sequence[str], settings: dict[str, Any], runs: Any
) -> None:
    """Write the rows, every single run, and the machine that they ran on."""
    document = {
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": settings,
        "rows": [asdict(row) | {"met": row.met} for row in rows],
        "not_measured": list(missing),
        "runs": runs,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def machine() -> dict[str, Any]:
    """Processor, system, versions, and the load of the machine."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
