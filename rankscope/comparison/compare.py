"""`compare`: what differs between two runs beyond chance, and how far apart their weights are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rankscope.addresses import is_address, shown
from rankscope.errors import RankscopeError, WrongSettingError, printable

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.checkpoints.run import Run
    from rankscope.results.results import Results
    from rankscope.statistics.differences import Sides


@dataclass(frozen=True)
class Comparison:
    """Two runs, or groups of runs, compared.

    Attributes
    ----------
    a, b
        Their names.
    metrics
        Differences of metrics: see `rankscope.statistics.differences.differences` for the columns.
    weights
        Distances of the weights at the last common step: see
        `rankscope.comparison.distances.distances`. Empty for groups of several runs.
    notes
        What could not be compared, and why.
    confidence
        Confidence level that a difference must exceed.

    Examples
    --------
    >>> import rankscope as rs
    >>> found = rs.compare("full", "relora", results="results", weights=False)
    >>> rows = found.metrics.query("component == 'weight' and metric == 'per' and layer.isna()")
    >>> (found.a, found.b), sorted(rows["role"])[:2], bool(rows["differs"].all())
    (('full', 'relora'), ['down', 'gate'], False)
    >>> found
    Comparison of 'full' and 'relora': ... of ... differences stand out
    """

    a: str
    b: str
    metrics: pd.DataFrame
    weights: pd.DataFrame
    notes: tuple[str, ...] = ()
    confidence: float = 0.95

    def __repr__(self) -> str:
        differ, count = int(self.metrics["differs"].sum()), len(self.metrics)
        distances = f"; {len(self.weights)} distances of weights" if len(self.weights) else ""
        names = f"{self.a!r} and {self.b!r}"
        return f"Comparison of {names}: {differ} of {count} differences stand out{distances}"


def compare(
    a: str | Path,
    b: str | Path,
    *,
    results: str | Path | None = None,
    group: str | None = None,
    columns: Collection[str] | None = None,
    confidence: float = 0.95,
    weights: bool = True,
) -> Comparison:
    """Compare two runs: what differs beyond chance, at equal step, loss and distance.

    Parameters
    ----------
    a, b
        Names of runs in ``results``, or their folders.
    results
        Folder of results that holds both. If it is empty, both runs are analysed into it; None
        analyses them and keeps nothing. Existing results are not computed again.
    group
        A pattern that groups runs into replicates, such as seeds: see `rankscope.grouped`. ``a``
        and ``b`` are then names of groups in ``results``, or of runs outside any group.
    columns
        Metrics to compare, among those whose errors the table states; a selection by default.
    confidence
        Confidence level that a difference must exceed, above 0.5 and below 1: at 0.95, about 5 of
        100 comparisons of runs that differ by chance alone exceed it.
    weights
        Whether to compare the weights too, which reads both models at their last common step, or at
        their last steps. Both runs must be given as folders.

    Returns
    -------
    The differences, each with the value that it must exceed, the distances, and remarks.

    Raises
    ------
    WrongSettingError
        If a run is not in the results, or a setting is out of range.
    RankscopeError
        If the runs have no matrix in common, or their steps count different things.

    Examples
    --------
    >>> import rankscope as rs
    >>> found = rs.compare("ckpts/full", "ckpts/relora")
    >>> found.notes[0]
    'not compared at equal loss: no loss that all runs reached is on record'
    """
    if not 0.5 < confidence < 1:
        raise WrongSettingError(f"confidence is {confidence}: give a level above 0.5 and below 1")
    read = (a, b) if weights else ()
    if results is None:
        if group is not None:
            raise WrongSettingError("`group` needs `results`, which hold all runs of both groups")
        with TemporaryDirectory() as folder:
            opened = _analysed(a, b, Path(folder) / "results")
            return _compared(opened, _sides(opened, a, b, None), columns, confidence, read=read)
    there = Path(results)
    opened = _opened(there) if there.exists() or group is not None else _analysed(a, b, there)
    sides = _sides(opened, a, b, group)
    return _compared(opened, sides, columns, confidence, read=read)


def _opened(folder: Path) -> Results:
    from rankscope.results.results import open_results

    return open_results(folder)


def _analysed(a: str | Path, b: str | Path, out: Path) -> Results:
    from rankscope.analysis.analyze import analyze

    for path in (a, b):
        if not is_address(path) and not Path(path).exists():
            raise WrongSettingError(
                "is not a folder, and there are no `results` in which it could be a run", path=path
            )
    analyze([a, b], out=out)
    return _opened(out)


def _sides(results: Results, a: str | Path, b: str | Path, group: str | None) -> Sides:
    """The runs of both sides, by name, folder or group."""
    from rankscope.statistics.differences import Sides
    from rankscope.statistics.replicates import groups_of

    runs = [str(name) for name in results.distinct(["run"])["run"]]
    names = {run: run for run in runs} if group is None else groups_of(runs, group)
    meant = [_name(results, {*names.values()}, one) for one in (a, b)]
    if meant[0] == meant[1]:
        raise WrongSettingError(f"{meant[0]!r} is compared with itself: name two runs")
    first, second = (tuple(run for run in runs if names[run] == one) for one in meant)
    return Sides(first, second, meant[0], meant[1])


def _compared(
    results: Results,
    sides: Sides,
    columns: Collection[str] | None,
    confidence: float,
    *,
    read: Sequence[str | Path],
) -> Comparison:
    from rankscope.statistics.certified import ERRORS
    from rankscope.statistics.differences import METRICS, differences
    from rankscope.statistics.equal_loss import losses_of
    from rankscope.statistics.matching import TAKEN

    unit = _require_one_unit(results, sides)
    asked = METRICS if columns is None else tuple(columns)
    known = [name for name in asked if name in ERRORS]  # others are refused there
    found = differences(
        results.rows(dict.fromkeys([*TAKEN, *known]), run=sides.runs),
        sides,
        losses=losses_of(_only(results.evaluation, sides), _only(results.training, sides)),
        columns=asked,
        confidence=confidence,
    )
    found.attrs["unit"] = unit
    notes = _notes(found, results, sides)
    table, remarks = _distances(results, sides, read) if read else (_no_distances(), [])
    if found.empty and table.empty:
        raise RankscopeError(
            f"{sides.name_a} and {sides.name_b} have no matrix of one role, layer and shape in "
            "common"
        )
    return Comparison(
        sides.name_a, sides.name_b, found, table, (*notes, *remarks), confidence=confidence
    )


def _only(table: pd.DataFrame, sides: Sides) -> pd.DataFrame:
    """Rows of the runs that are compared; other runs may lack what these have."""
    return table[table["run"].isin(sides.runs)] if "run" in table else table


def _record(results: Results) -> list[dict[str, str]]:
    """What is on record of the analysed runs: name, path, unit of the steps."""
    from rankscope.results.columns import ANALYSIS_RECORD
    from rankscope.results.record import read_record

    return list(read_record(results.path / ANALYSIS_RECORD).get("runs", []))


def _require_one_unit(results: Results, sides: Sides) -> str:
    """What the steps of both sides count."""
    units = {run["name"]: run["unit"] for run in _record(results) if run["name"] in sides.runs}
    if len({*units.values()}) > 1:
        listing = ", ".join(f"{name} counts {unit}" for name, unit in units.items())
        raise RankscopeError(f"steps of different kinds cannot be matched: {listing}")
    return next(iter(units.values()), "step")


def _name(results: Results, there: Collection[str], run: str | Path) -> str:
    """Name of a run or group in the results, given by name or folder."""
    if str(run) in there:
        return str(run)
    for one in _record(results):
        if _is_same_place(one["path"], run) and one["name"] in there:
            return one["name"]
    listing = printable(", ".join(sorted(there))) or "none"
    raise WrongSettingError(
        f"{printable(str(run))!r} is not a run of the `results` in {printable(str(results.path))}, "
        f"which hold {listing}: name one of them, or choose another folder"
    )


def _is_same_place(recorded: str, given: str | Path) -> bool:
    """Whether two paths or addresses are the same."""
    return Path(shown(recorded)).resolve() == Path(shown(given)).resolve()


def _notes(found: pd.DataFrame, results: Results, sides: Sides) -> list[str]:
    """Why there is no comparison of one kind or the other."""
    notes: list[str] = []
    if found.empty:
        return notes
    if not (found["at"] == "step").any():
        last = results.distinct(["run", "step"]).groupby("run")["step"].max()
        steps = ", ".join(f"{run} {last[run]}" for run in sides.runs)
        notes.append(f"there is no common step: the last ones are compared ({steps})")
    if not (found["at"] == "loss").any():
        notes.append("not compared at equal loss: no loss that all runs reached is on record")
    if not (found["at"] == "distance").any():
        notes.append(
            f"not compared at equal distance from the start: {_no_distance(results, sides)}"
        )
    return notes


def _no_distance(results: Results, sides: Sides) -> str:
    """Why runs are not compared at equal distance, and what to do."""
    changes = results.distinct(["run", "since"], run=sides.runs, component="cumulative_update")
    without = [run for run in sides.runs if run not in {*changes["run"]}]
    if without:
        return (
            f"{', '.join(without)}: no rows of component cumulative_update, which `rankscope "
            "analyze` measures on request"
        )
    starts = changes["since"].dropna().unique()
    if len(starts) > 1:
        named = ", ".join(map(str, starts[:5])) + (" …" if len(starts) > 5 else "")
        return f"the cumulative updates begin at different steps, {named}"
    return "a run did not move further than rounding may have moved it, or no matrix is in all runs"


def _no_distances() -> pd.DataFrame:
    import pandas as pd

    from rankscope.comparison.distances import COLUMNS

    return pd.DataFrame(columns=list(COLUMNS))


def _distances(
    results: Results, sides: Sides, given: Sequence[str | Path]
) -> tuple[pd.DataFrame, list[str]]:
    """Distances of two runs, each the only one of its side, at their last common step.

    Results may come from anybody, and name folders of another machine: what they name is opened
    only if it was given.
    """
    from rankscope.checkpoints.discovery import open_run
    from rankscope.comparison.distances import distances

    if sides.has_replicates:
        return _no_distances(), []
    paths = {one["name"]: one["path"] for one in _record(results)}
    runs: list[Run] = []
    for name, folder in zip(sides.runs, given, strict=True):
        if not _is_same_place(paths[name], folder):
            return _no_distances(), [
                "the weights are not compared: give both runs by their folders"
            ]
        try:
            runs.append(open_run(folder))
        except RankscopeError as error:
            return _no_distances(), [f"the weights are not compared: {error}"]
    common = sorted({*runs[0].steps} & {*runs[1].steps})
    last = [run[common[-1] if common else run.steps[-1]] for run in runs]
    first = (runs[0][common[0]], runs[1][common[0]]) if len(common) > 1 else None
    return distances(last[0], last[1], start=first)
