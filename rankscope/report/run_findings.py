"""What `diagnose` finds about the runs of some results, where their checkpoints are still there."""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.checkpoints.discovery import survey
from rankscope.diagnostics.diagnose import Diagnosis, diagnosed
from rankscope.errors import RankscopeError
from rankscope.results.columns import ANALYSIS_RECORD
from rankscope.results.record import read_record
from rankscope.results.results import Results

MOST_LINES = 5


@dataclass(frozen=True)
class RunFindings:
    """The findings, and why some of the runs were not looked at.

    Attributes
    ----------
    diagnosis
        None if no run was looked at.
    missing
        One line per folder, at most `MOST_LINES`.
    more_missing
        How many folders have no line.
    """

    diagnosis: Diagnosis | None = None
    missing: tuple[str, ...] = ()
    more_missing: int = 0


def run_findings(results: Results) -> RunFindings | None:
    """Diagnose the runs that were analysed, read as then; None if no analysis is on record."""
    record = read_record(results.path / ANALYSIS_RECORD)
    options = record.get("options", {})
    paths = dict.fromkeys(str(run.get("path", "")) for run in record.get("runs", ()))
    if not paths:
        return None
    if options.get("trust_pickle"):
        return RunFindings(
            missing=("they were read with `trust_pickle`, which a page does not do",)
        )
    layout, family, base = (options.get(name) for name in ("layout", "family", "base"))
    there, missing = [], []
    for path in paths:
        try:
            survey([path], layout=layout, family=family, base=base)
            there.append(path)
        except (RankscopeError, OSError) as error:
            missing.append(str(error))
    found = None
    if there:
        try:
            found = diagnosed(survey(there, layout=layout, family=family, base=base), results)
        except (RankscopeError, OSError) as error:
            missing.append(str(error))
    return RunFindings(found, tuple(missing[:MOST_LINES]), max(0, len(missing) - MOST_LINES))
