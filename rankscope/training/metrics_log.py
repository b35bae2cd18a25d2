"""``metrics.jsonl``: one object a line, appended as the training goes."""

from __future__ import annotations

import json
import math
from pathlib import Path

from rankscope.training.saving import append, write_file


class MetricsLog:
    """The log of one run. ``step`` counts the optimizer steps completed before a measurement."""

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.jsonl"

    def rewind(self, step: int) -> None:
        """Drop what was logged after the state of this step had been saved.

        A validation is done before its step's state is saved, all other work of a step after it.
        A line that was cut off by the end of a process is dropped with the rest.
        """
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _is_before(line, step)]
        write_file(self.path, b"".join(line + b"\n" for line in kept))

    def write(self, step: int, **values: str | int | float) -> None:
        """Append a line; NaN and infinities, which JSON does not have, become strings."""
        valid = {
            k: v if not isinstance(v, float) or math.isfinite(v) else str(v)
            for k, v in values.items()
        }
        line = json.dumps({"step": step, **valid}) + "\n"
        append(self.path, line.encode())


def _is_before(line: bytes, step: int) -> bool:
    try:
        entry = json.loads(line)
        return entry["step"] < step or (entry["step"] == step and "validation_loss" in entry)
    except (ValueError, TypeError, KeyError):
        return False
