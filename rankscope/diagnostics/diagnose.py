"""`diagnose`: what is wrong with runs, or looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import override

from rankscope.addresses import shown
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.survey import Survey
from rankscope.diagnostics.conditioning import check_conditioning
from rankscope.diagnostics.dead_adapters import check_adapters
from rankscope.diagnostics.empty_restarts import check_resets
from rankscope.diagnostics.evidence import TAKEN, Check, Evidence
from rankscope.diagnostics.fewer_bits import check_bits
from rankscope.diagnostics.finding import SEVERITIES, Finding, Unchecked
from rankscope.diagnostics.identical_weights import check_identical
from rankscope.diagnostics.learning_rates import check_learning_rates
from rankscope.diagnostics.merges_checked import check_merges
from rankscope.diagnostics.new_directions import check_intruders
from rankscope.diagnostics.nonfinite import check_finite
from rankscope.diagnostics.optimizer_state import check_optimizer
from rankscope.diagnostics.other_runs import check_other_runs
from rankscope.diagnostics.rank_collapse import check_collapse
from rankscope.diagnostics.restart_log import check_restart_log
from rankscope.diagnostics.same_subspace import check_subspaces
from rankscope.diagnostics.step_gaps import check_gaps
from rankscope.diagnostics.unreadable_steps import check_readable, surveyed
from rankscope.diagnostics.unresolved_updates import check_resolved
from rankscope.errors import WrongSettingError
from rankscope.pipeline.calls import Paths, listed_paths
from rankscope.results.columns import ANALYSIS_RECORD, SUBSPACES_FILE
from rankscope.results.record import read_record

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.results.results import Results

# The last one also says which tensors the others could not read.
CHECKS: tuple[Check, ...] = (
    check_merges,
    check_resets,
    check_adapters,
    check_finite,
    check_other_runs,
    check_restart_log,
    check_optimizer,
    check_learning_rates,
    check_subspaces,
    check_conditioning,
    check_intruders,
    check_resolved,
    check_bits,
    check_identical,
    check_gaps,
    check_readable,
)
SCHEMA_VERSION = 1


@dataclass(frozen=True, repr=False)
class Diagnosis(Sequence[Finding]):
    """The findings about some runs, worst first, and the checks that could not be made.

    It is a sequence of `Finding`; ``table`` has them as a DataFrame.

    Attributes
    ----------
    findings
        Worst first.
    unchecked
        Checks that could not be made, and why. A check that is in neither list found nothing.
    runs
        Names of the runs.

    Examples
    --------
    >>> import rankscope as rs
    >>> found = rs.diagnose("ckpts/full")
    >>> found.worst, [finding.code for finding in found]
    (None, [])
    >>> found.table.columns[:4].tolist()
    ['severity', 'code', 'run', 'steps']
    """

    findings: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]
    runs: tuple[str, ...]

    @property
    def worst(self) -> str | None:
        """The worst severity; None if nothing was found."""
        return self.findings[0].severity if self.findings else None

    @property
    def table(self) -> pd.DataFrame:
        """One row per finding: severity, code, run, steps, unit, matrices, evidence and more."""
        import pandas as pd

        empty = Finding("note", "", "", (), (), "", "", "").as_row()
        return pd.DataFrame([one.as_row() for one in self.findings], columns=list(empty))

    def unchecked_by_reason(self) -> dict[str, list[str]]:
        """Codes of the checks that could not be made, by the reason why, for any of the runs."""
        codes: dict[str, dict[str, None]] = {}
        for one in self.unchecked:
            codes.setdefault(one.reason, {})[one.code] = None
        return {reason: list(those) for reason, those in codes.items()}

    def as_document(self) -> dict[str, Any]:
        """All of it in plain values, for JSON."""
        counts = Counter(finding.severity for finding in self.findings)
        return {
            "schema_version": SCHEMA_VERSION,
            "runs": list(self.runs),
            "counts": {severity: counts[severity] for severity in SEVERITIES},
            "findings": [finding.as_row() for finding in self.findings],
            "unchecked": [vars(one) for one in self.unchecked],
        }

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Finding, ...]: ...
    @override
    def __getitem__(self, index: int | slice) -> Finding | tuple[Finding, ...]:
        return self.findings[index]

    @override
    def __len__(self) -> int:
        return len(self.findings)

    def __repr__(self) -> str:
        lines = [f"{one.severity}: {one.code}: {one.where}: {one.evidence}" for one in self]
        return "\n".join(lines) if lines else f"no findings in {len(self.runs)} runs"


def diagnose(
    runs: Paths,
    *,
    results: str | Path | Results | None = None,
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
) -> Diagnosis:
    """Find what is wrong with runs or their checkpoints, with the evidence and what to do.

    Reads headers, logs, adapters, and samples of the weights; nothing is decomposed. Checks that
    need spectra (rank collapse, conditioning, noise, subspaces) use ``results``.

    Parameters
    ----------
    runs
        Folders: of a run, of a tree of runs, or of one checkpoint.
    results
        The folder that `analyze` wrote for these runs, or what `open_results` returns. With None,
        checks that need it are left out.
    layout, family, trust_pickle, base
        As for `analyze`.

    Returns
    -------
    The findings, worst first, and the checks that could not be made.

    Raises
    ------
    WrongSettingError
        If a setting is unknown, a path does not exist, or the results are of other runs.
    RankscopeError
        If there is no run, or the results cannot be read.

    Examples
    --------
    >>> import rankscope as rs
    >>> found = rs.diagnose("ckpts", results="results")
    >>> len(found), len(found.runs)
    (0, 2)
    >>> print(found.unchecked[0])
    relora: learning-rate-misaligned: the log has no learning rates
    """
    met = survey(
        listed_paths(runs), layout=layout, family=family, trust_pickle=trust_pickle, base=base
    )
    return diagnosed(met, results)


def diagnosed(met: Survey, results: str | Path | Results | None = None) -> Diagnosis:
    """Diagnose the runs that a survey found."""
    tables = _tables(results, met.runs)
    known = [Evidence.of(run, *tables.get(run.name, (None, None))) for run in met.runs]
    found = list(surveyed(known, met.skips, met.notes, met.places))
    checked = [one for evidence in known for check in CHECKS for one in check(evidence)]
    checked += check_collapse(known)
    found += [one for one in checked if isinstance(one, Finding)]
    unchecked = tuple(one for one in checked if isinstance(one, Unchecked))
    found.sort(key=_order)
    return Diagnosis(tuple(found), unchecked, tuple(run.name for run in met.runs))


def _order(finding: Finding) -> tuple[int, str, tuple[int, ...]]:
    return SEVERITIES.index(finding.severity), finding.run, finding.steps


Tables = dict[str, tuple["pd.DataFrame", "pd.DataFrame | None"]]


def _tables(given: str | Path | Results | None, runs: Sequence[Run]) -> Tables:
    """The rows of each run in the results, by its name."""
    if given is None:
        return {}
    from rankscope.results.results import Results, open_results

    results = given if isinstance(given, Results) else open_results(given)
    named = dict(names_in(results, runs))
    if not named:
        there = ", ".join(map(str, results.distinct(["run"])["run"][:5]))
        what = f"other runs: {there}" if there else "no analysis"
        raise WrongSettingError(f"`results` holds {what}", path=results.path)
    has_subspaces = (results.path / SUBSPACES_FILE).is_file()
    tables: Tables = {}
    for run, name in named.items():
        moved = results.subspaces
        own = moved[moved["run"] == name] if has_subspaces else None
        tables[run] = results.rows(TAKEN, run=name), own
    return tables


def names_in(results: Results, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """What the results call each run: by its path, else by its name.

    A run may have a longer or a shorter name if another folder above it was given then.
    """
    record = read_record(results.path / ANALYSIS_RECORD).get("runs", [])
    by_path: dict[Path, list[str]] = {}
    for one in record:
        by_path.setdefault(Path(shown(one["path"])).resolve(), []).append(one["name"])
    known = {one["name"] for one in record}
    for run in runs:
        there = by_path.get(Path(shown(run.path)).resolve(), ())
        alike = [name for name in there if _end_alike(name, run.name)]
        if alike:
            yield run.name, min(alike, key=lambda name: abs(len(name) - len(run.name)))
        elif run.name in known:
            yield run.name, run.name


def _end_alike(one: str, other: str) -> bool:
    short, long = sorted((f"/{one}", f"/{other}"), key=len)
    return long.endswith(short)
