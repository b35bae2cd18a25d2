"""`Finding`, one thing that is wrong with a run, and `Kind`, what findings of a kind mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from rankscope.checkpoints.name_words import Unit

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # worst first
Number = float | int | str | None
FEW = 6  # steps that a line lists one by one


@dataclass(frozen=True)
class Finding:
    """One thing that is, or looks, wrong with a run.

    Attributes
    ----------
    severity
        ``error``: the training does not do what it should, or its files cannot be read.
        ``warning``: this is likely, or numbers about the training mislead. ``note``: worth knowing.
    code
        What kind of finding it is.
    run, steps, matrices
        Where: steps ascending; names of matrices as in the table, none for a whole checkpoint.
    evidence
        What was found, in numbers.
    numbers
        The same numbers by name.
    meaning, remedy
        What it means, and what to do.
    unit
        What the steps count.

    Examples
    --------
    >>> import rankscope as rs
    >>> with open("ckpts/full/checkpoint-10/model.safetensors", "r+b") as file:
    ...     size = file.truncate(5000)
    >>> finding = rs.diagnose("ckpts/full")[0]
    >>> finding.severity, finding.code, finding.where
    ('error', 'step-unreadable', 'full, step 10')
    >>> print(finding.evidence)
    checkpoint-10/model.safetensors: is cut short: ...
    """

    severity: Severity
    code: str
    run: str
    steps: tuple[int, ...]
    matrices: tuple[str, ...]
    evidence: str
    meaning: str
    remedy: str
    numbers: Mapping[str, Number] = field(default_factory=dict)
    unit: Unit = "step"

    @property
    def where(self) -> str:
        """Run, steps and matrices, in words."""
        return ", ".join(filter(None, (self.run, self._steps(), self._matrices())))

    def _steps(self) -> str:
        steps = list(map(str, self.steps))
        if len(steps) > FEW:
            steps = [*steps[: FEW - 2], "…", steps[-1]]
        words = f"{self.unit}s" if len(steps) > 1 and self.unit != "tokens" else self.unit
        return f"{words} {', '.join(steps)}" if steps else ""

    def _matrices(self) -> str:
        if not self.matrices:
            return ""
        more = len(self.matrices) - 1
        return self.matrices[0] + (f" and {more} more" if more else "")

    def as_row(self) -> dict[str, Any]:
        """All of it in plain values, as JSON and tables hold them."""
        return {
            "severity": self.severity,
            "code": self.code,
            "run": self.run,
            "steps": list(self.steps),
            "unit": self.unit,
            "matrices": list(self.matrices),
            "evidence": self.evidence,
            "numbers": dict(self.numbers),
            "meaning": self.meaning,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Kind:
    """A kind of finding: its code, how bad it usually is, what it means and what to do."""

    code: str
    severity: Severity
    meaning: str
    remedy: str

    def at(
        self,
        place: Place,
        evidence: str,
        numbers: Mapping[str, Number] | None = None,
        *,
        severity: Severity | None = None,
        remedy: str = "",
    ) -> Finding:
        """A finding of this kind; ``severity`` and ``remedy`` replace the usual ones."""
        return Finding(
            severity or self.severity,
            self.code,
            place.run,
            place.steps,
            place.matrices,
            evidence,
            self.meaning,
            remedy or self.remedy,
            numbers or {},
            place.unit,
        )


@dataclass(frozen=True)
class Place:
    """Where something was found."""

    run: str
    unit: Unit = "step"
    steps: tuple[int, ...] = ()
    matrices: tuple[str, ...] = ()

    def of(self, steps: Iterable[int] = (), matrices: Iterable[str] = ()) -> Place:
        """The place in the same run with these steps and matrices, each once."""
        ordered = tuple(sorted(set(steps)))
        return Place(self.run, self.unit, ordered, tuple(dict.fromkeys(matrices)))


@dataclass(frozen=True)
class Unchecked:
    """What could not be looked for in a run, and why."""

    run: str
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.run}: {self.code}: {self.reason}"
