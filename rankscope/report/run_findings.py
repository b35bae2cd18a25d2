"""What `diagnose` finds about the runs of some results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.diagnostics.diagnose import Diagnosis, diagnosed
from rankscope.errors import RankscopeError, WrongSettingError
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


def run_findings(results: Results, runs: Iterable[str | Path]) -> RunFindings | None:
    """Diagnose the given runs, read as when they were analysed; None if no analysis is on record.

    The results may come from anybody. Their record says how to read a run, by names that rankscope
    knows, and never what to open.

    Raises
    ------
    WrongSettingError
        If a run does not exist, or the results hold none of them.
    """
    record = read_record(results.path / ANALYSIS_RECORD)
    if not record.get("runs"):
        return None
    options = record.get("options", {})
    layout, family = (options.get(k) and str(options[k]) for k in ("layout", "family"))
    own = [name for name in ("trust_pickle", "base") if options.get(name)]
    own += ["layout"] * (layout is not None and layout not in LAYOUTS)
    own += ["family"] * (family is not None and family not in families())
    if own:
        asked = " and ".join(f"`{name}`" for name in own)
        return RunFindings(missing=(f"they were read with {asked}, which a page does not do",))
    there, missing = [], []
    for run in runs:
        try:
            survey([run], layout=layout, family=family)
            there.append(run)
        except WrongSettingError:
            raise
        except (RankscopeError, OSError) as error:
            missing.append(str(error))
    found = diagnosed(survey(there, layout=layout, family=family), results) if there else None
    return RunFindings(found, tuple(missing[:MOST_LINES]), max(0, len(missing) - MOST_LINES))
