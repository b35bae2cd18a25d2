"""``metrics.jsonl``: one JSON object per line, appended as the training proceeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rankscope.durable import append, flush_file, read_file, write_file
from rankscope.errors import cannot_be_read

Value = str | int | float
# Keys of lines that are written before the state of their step is saved.
MEASURED = {"validation_loss", "blimp_accuracy", "rank_change"}


class MetricsLog:
    """The log of one run. ``step`` counts the optimizer steps completed before a measurement.

    Parameters
    ----------
    run
        The run's folder.
    mirror
        Called with the step and the values of every line, NaN and infinities as strings.
    """

    def __init__(
        self, run: Path, mirror: Callable[[int, Mapping[str, Value]], None] | None = None
    ) -> None:
        self.path = run / "metrics.jsonl"
        self._mirror = mirror

    def rewind(self, step: int) -> None:
        """Drop what was logged after the state of this step was saved.

        Measurements of a step are logged before its state is saved, and all other work after that.
        A line that was cut off when a process ended is dropped too.

        Raises
        ------
        RankscopeError
            If the log cannot be read.
        """
        try:
            lines = read_file(self.path).splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise cannot_be_read(error, self.path) from error
        kept = [line for line in lines if _is_before(line, step)]
        write_file(self.path, b"".join(line + b"\n" for line in kept))

    def write(self, step: int, **values: Value) -> None:
        """Append a line; NaN and infinities, which JSON lacks, become strings."""
        valid = {
            k: v if not isinstance(v, float) or math.isfinite(v) else str(v)
            for k, v in values.items()
        }
        line = json.dumps({"step": step, **valid}) + "\n"
        append(self.path, line.encode())
        if self._mirror is not None:
            self._mirror(step, valid)

    def flush(self) -> None:
        """Wait until all lines are on the disk: a state must not outlive the log before it."""
        flush_file(self.path)

    def iter_lines(self) -> Iterator[tuple[int, dict[str, Value]]]:
        """Step and values of each line; `rewind` must have repaired the log before."""
        with self.path.open(encoding="utf-8") as file:
            for line in file:
                values = json.loads(line)
                yield values.pop("step"), values


def _is_before(line: bytes, step: int) -> bool:
    try:
        entry = json.loads(line.decode())
        measured = MEASURED & entry.keys()
        return bool(entry["step"] < step or (entry["step"] == step and measured))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
