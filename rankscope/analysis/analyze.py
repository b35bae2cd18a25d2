"""`analyze`: from run folders to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.analyzed import Analysis, RecalledAnalysis
from rankscope.analysis.engines import EngineName, OpenEngine, engine_of
from rankscope.analysis.jobs import AnalysisEngine
from rankscope.analysis.origin import open_origin
from rankscope.analysis.plan import Selection, SpectraPlans, SpectraTask, Windows, count_steps
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.analysis.subspace_plans import SubspaceFiles, SubspacePlans, subspace_rows
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.survey import Survey
from rankscope.errors import WrongSettingError
from rankscope.pipeline.calls import (
    Paths,
    carried_out,
    listed_paths,
    recalled,
    recorded,
    reported,
    require_out,
    require_steps,
    results_folder,
    sweep_results,
)
from rankscope.pipeline.choices import Layers, Names, Steps
from rankscope.pipeline.execution import Executed, Meter, Progress
from rankscope.results.columns import ANALYSIS_RECORD
from rankscope.results.measure import Row, row_of
from rankscope.results.spectra_store import Entry

if TYPE_CHECKING:
    import pandas as pd


def analyze(
    paths: Paths,
    *,
    out: str | Path | None = None,
    components: Names | None = None,
    roles: Names | None = None,
    layers: Layers | None = None,
    steps: Steps | None = None,
    windows: Windows = "steps",
    jobs: int | None = None,
    engine: EngineName = "local",
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
    since: str | Path | None = None,
    subspaces: int | None = None,
    against: Names | None = None,
) -> pd.DataFrame:
    """Measure every checkpoint of the runs at ``paths``.

    Settings with several values also take them as text, as on the command line: ``"q,v"``.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    out
        Folder for the table and the spectra. What is already there and still valid is not computed
        again. None keeps nothing.
    components
        Which matrices: ``weight``, ``update``, ``adapter``, ``merge``, ``merged_total``,
        ``factor``, ``gradient`` and ``ov`` by default; ``base``, ``cumulative_update``,
        ``ov_update``, ``ov-published``, ``qk`` and ``qk_update`` on request; or ``"all"``.
    roles
        Which roles: by default all but ``embed`` and ``unembed``.
    layers
        Which layers, by index: ``3``, ``[0, 3]``, or ``"0:3"`` for 0 to 3; all by default.
    steps
        Which steps: ``[0, 100]``, or a range as ``"0:1000:100"`` or ``(0, 1000, 100)``: first step,
        last step (None: to the end) and stride. A range of steps or layers includes its last
        number. All by default. Updates are measured between the requested steps.
    windows
        What updates span: ``steps``, from each checkpoint to the next; or ``cycles``, from one
        merge to the next where merges were recorded. Updates within a cycle are different objects.
    jobs
        Number of worker processes; the number of processors by default.
    engine
        ``local`` worker processes; ``cuda``, the GPU that torch finds; or a ``dask`` cluster: the
        one that Dask's configuration names, whose workers see the checkpoints under the same
        paths, or else one on this machine.
    layout
        Read the checkpoints as this on-disk layout instead of recognising it.
    family
        Read the models as members of this family: its name, or a TOML file that describes it.
    trust_pickle
        Let pickles create objects of any class, which may run code that their writer chose.
    base
        Folder of the adapters' base model, where it is not found.
    since
        Checkpoint where ``cumulative_update`` begins, such as the model before fine-tuning; it is
        then measured by default. Otherwise it begins at an adapter's base model if that is found,
        else at the first step.
    subspaces
        Also compare the singular subspaces of weights, adapters and merges, of up to this many
        dimensions, with those at other steps. They have a separate table in ``out``:
        `Results.subspaces`. Singular vectors are found on the processor, whatever the engine.
    against
        The steps that they are compared with: by default ``previous`` and ``first``; ``last``, on
        request, since a new checkpoint changes all that was compared with it.

    Returns
    -------
    One row per matrix and step: the columns run, step, layer, role, component, head, expert, name,
    rows, cols, dtype, status and the metrics. What was skipped is in ``attrs["skipped"]``, with
    a warning; ``attrs["notes"]`` has remarks where nothing is missing, ``attrs["unit"]`` what the
    steps count, and ``attrs["breaks"]`` the last step of each run at which another model begins.

    Raises
    ------
    WrongSettingError
        If a setting is unknown, contradicts another, or asks for steps that do not exist.
    RankscopeError
        If there is nothing to analyse.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    Every merge of a ReLoRA run adds its rank to what was merged so far:

    >>> import rankscope as rs
    >>> table = rs.analyze("ckpts/relora", components="merged_total", roles="q")
    >>> table.groupby("step")["numerical_rank"].mean().tolist()
    [2.0, 4.0]
    """
    start = None if since is None else open_origin(since, trust_pickle=trust_pickle)
    selection = Selection.of(
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        since=start,
        windows=windows,
        subspaces=subspaces,
        against=against,
    )
    if subspaces is not None and out is None:
        raise WrongSettingError("`subspaces` writes a separate table: choose a folder for `out`")
    runs = survey(
        listed_paths(paths), layout=layout, family=family, trust_pickle=trust_pickle, base=base
    )
    folder = None if out is None else Path(out)
    found = analyze_found(runs, selection, out=folder, engine=engine_of(engine, jobs))
    return reported(found)


def analyze_found(
    found: Survey,
    selection: Selection,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
) -> Analysis | RecalledAnalysis:
    """Analyse the runs that a survey found, unless ``out`` holds the answer already."""
    require_steps(sum(count_steps(run, selection) for run in found.runs), found.runs)
    sweep_results(out)
    return recall(out, found, selection) or analyze_runs(
        found, selection, out=out, engine=engine, progress=progress
    )


def recall(out: Path | None, found: Survey, selection: Selection) -> RecalledAnalysis | None:
    """Return the last analysis in ``out`` if it made the same request of the same files."""
    if out is None:
        return None
    plans = SpectraPlans(found, selection)
    record = recorded(out / ANALYSIS_RECORD, plans, SpectraFiles(out))
    if record is None:
        return None
    if selection.subspaces is not None and not _holds_subspaces(out, record, found, selection):
        return None
    return RecalledAnalysis(**recalled(record), out=out, record=record)


def analyze_runs(
    found: Survey,
    selection: Selection,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
    revised: Callable[[Analysis], Analysis] | None = None,
) -> Analysis:
    """Analyse the runs that a survey found, computing what the store lacks.

    ``revised`` may change the result before it is written.
    """
    count = sum(count_steps(run, selection) for run in found.runs)
    require_out(out, found.runs)
    plans = SpectraPlans(found, selection)
    with results_folder(out) as folder, engine or engine_of("local") as workers:
        fields, rows = carried_out(
            plans,
            _rows,
            store=SpectraFiles(folder),
            engine=nullcontext(workers),
            meter=Meter(progress, count),
            found=found,
        )
        compared: tuple[Row, ...] = ()
        key: str | None = None
        if selection.subspaces is not None:
            others, compared = _compared(found, selection, folder, workers, progress)
            key = others["key"]
            for name in ("skips", "mended"):
                fields[name] = tuple(dict.fromkeys((*fields[name], *others[name])))
            fields["computed"] += others["computed"]
    analysis = Analysis(
        **fields,
        runs=found.runs,
        selection=selection,
        rows=tuple(row for some in rows for row in some),
        breaks=plans.breaks,
        subspaces=compared,
        subspaces_key=key,
    )
    if revised is not None:
        analysis = revised(analysis)
    if out is not None and analysis.measured:
        from rankscope.analysis.results_folder import write_results

        write_results(out, analysis)
    return analysis


def _compared(
    found: Survey,
    selection: Selection,
    folder: Path,
    workers: AnalysisEngine,
    progress: Progress | None,
) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Compare singular subspaces of the runs: fields of a call's result, and rows of the table."""
    plans = SubspacePlans(found, selection)
    fields, rows = carried_out(
        plans,
        subspace_rows,
        store=SubspaceFiles(folder),
        engine=nullcontext(workers),
        meter=Meter(progress, plans.count),
        found=found,
    )
    return fields, tuple(row for some in rows for row in some)


def _holds_subspaces(
    out: Path, record: Mapping[str, Any], found: Survey, selection: Selection
) -> bool:
    """Whether the table of subspaces is of the same files and its store is complete."""
    plans, store = SubspacePlans(found, selection), SubspaceFiles(out)
    are_there = [store.path(plan).is_file() for plan in plans]
    return all(are_there) and record.get("subspaces_key") == plans.key


def _rows(executed: Executed[SpectraTask, Entry]) -> list[Row]:
    # Imported here, not at the top, so that it loads while the workers compute.
    import rankscope.analysis.results_folder  # noqa: F401

    plan = executed.plan
    return [row_of(plan.run, plan.step, entry) for entry in executed.entries]
