"""`analyze`: from run folders to the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.engines import EngineName, OpenEngine, engine_of
from rankscope.analysis.jobs import AnalysisEngine
from rankscope.analysis.kept_steps import kept_rows
from rankscope.analysis.plan import SpectraPlans, count_steps
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection, Windows
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.checkpoints.skip import Skip
from rankscope.checkpoints.survey import Survey
from rankscope.errors import WrongSettingError
from rankscope.pipeline.call_results import reported, sweep_results
from rankscope.pipeline.calls import (
    Paths,
    carried_out,
    listed_paths,
    require_out,
    require_steps,
    results_folder,
)
from rankscope.pipeline.choices import Layers, Names, Steps
from rankscope.pipeline.execution import Meter, Progress
from rankscope.pipeline.seen_files import Seen
from rankscope.results.columns import SHARDS_FOLDER
from rankscope.results.measure import Row
from rankscope.results.step_rows import Spool

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
    recheck: bool = False,
    shard: str | None = None,
    scheduler: str | None = None,
    wait: float | None = None,
) -> pd.DataFrame:
    """Measure every checkpoint of the runs at ``paths``.

    Settings with several values also accept text, as on the command line: ``"q,v"``.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    out
        Folder for the table and the spectra. Results that are already there and still valid are not
        computed again. None keeps nothing.
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
        merge to the next where merges were recorded. Updates within a cycle are a different kind of
        object.
    jobs
        Number of worker processes; the number of processors by default.
    engine
        ``local`` worker processes; ``cuda``, the GPU that torch finds; or a ``dask`` cluster: that
        of ``scheduler``, whose workers see the checkpoints under the same paths, or else one on
        this machine.
    layout
        Read the checkpoints as this on-disk layout instead of recognising it.
    family
        Read the models as members of this family: its name, or a TOML file that describes it.
    trust_pickle
        Let pickles create objects of any class, which may run code that their writer chose.
    base
        Folder of the adapters' base model, if it is not found automatically.
    since
        Checkpoint where ``cumulative_update`` begins, such as the model before fine-tuning; the
        component is then measured by default. Without it, the change begins at an adapter's base
        model if that is found, and otherwise at the first step.
    subspaces
        Also compare the singular subspaces of weights, adapters and merges, of up to this many
        dimensions, with those at other steps. They have a separate table in ``out``:
        `Results.subspaces`. Singular vectors are computed on the CPU, whatever the engine.
    against
        The steps that subspaces are compared with: by default ``previous`` and ``first``; ``last``
        only on request, since a new checkpoint changes every row that was compared with it.
    recheck
        Open every checkpoint, even if ``out`` holds the answer and no file has changed in size or
        time since.
    shard
        Compute and store only one of N shares, as in ``"3/16"``. Each share is a separate call, at
        any time, on any machine that has ``out``. No table is written, and the one returned has no
        rows; the same call without ``shard`` then finds everything in ``out``.
    scheduler
        Address of the scheduler of the Dask cluster, as ``"tcp://10.0.0.1:8786"``; by default that
        of Dask's configuration.
    wait
        For how many minutes the cluster may have no worker, 10 by default. After that, the
        remaining matrices are skipped, and the next call computes them.

    Returns
    -------
    One row per matrix and step: the columns run, step, layer, role, component, head, expert, name,
    rows, cols, dtype, status and the metrics. ``attrs["skipped"]`` lists what was skipped, with a
    warning; ``attrs["notes"]`` has remarks about things that cost nothing, ``attrs["unit"]`` says
    what the steps count, and ``attrs["breaks"]`` has the last step of each run at which another
    model begins.

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
    Every merge of a ReLoRA run adds its rank to the sum of merges so far:

    >>> import rankscope as rs
    >>> table = rs.analyze("ckpts/relora", components="merged_total", roles="q")
    >>> table.groupby("step")["numerical_rank"].mean().tolist()
    [2.0, 4.0]
    """
    question = Question(
        paths=tuple(listed_paths(paths)),
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        windows=windows,
        layout=layout,
        family=family,
        trust_pickle=trust_pickle,
        base=base,
        since=since,
        subspaces=subspaces,
        against=against,
    )
    workers = engine_of(engine, jobs, scheduler=scheduler, wait=wait)
    folder = None if out is None else Path(out)
    if shard is not None:
        from rankscope.analysis.analyze_shard import answer_share
        from rankscope.analysis.shards import Shard

        return reported(answer_share(question, Shard.of(shard), out=folder, engine=workers))
    looked = None if folder is None else question.recall(folder).look()
    recalled = None if folder is None or recheck else question.recalled(folder, looked)
    return reported(
        recalled or answer(question, out=folder, engine=workers, before=looked, recheck=recheck)
    )


def answer(
    question: Question,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
    before: Seen | None = None,
    recheck: bool = False,
) -> Analysis:
    """Answer a question, computing what ``out`` lacks; ``recheck`` plans every step again.

    Parameters
    ----------
    before
        All files that it is about, as they were before the call, if the caller has looked.
    """
    selection = question.selection()
    if selection.subspaces is not None and out is None:
        raise WrongSettingError("`subspaces` writes a separate table: choose a folder for `out`")
    recall = None if out is None else question.recall(out)
    before = before or (None if recall is None else recall.look())
    found = question.survey()

    def seen(folders: Iterable[str]) -> dict[str, Any] | None:
        if recall is None or before is None:
            return None
        return recall.seen(before, folders, runs=[run.path for run in found.runs])

    return analyze_runs(
        found, selection, out=out, engine=engine, progress=progress, seen=seen, recheck=recheck
    )


def analyze_runs(
    found: Survey,
    selection: Selection,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
    revised: Callable[[Analysis], Analysis] | None = None,
    seen: Callable[[Iterable[str]], dict[str, Any] | None] | None = None,
    recheck: bool = False,
) -> Analysis:
    """Analyse the runs that a survey found, computing what the store lacks.

    Parameters
    ----------
    revised
        May change the result before it is written.
    seen
        Says what to record of the files, given the folders that tensors were read from: see
        `rankscope.pipeline.recall.Recall.seen`.
    recheck
        Plan every step again, although no file has changed.
    """
    count = sum(count_steps(run, selection) for run in found.runs)
    require_steps(count, found.runs)
    require_out(out, found.runs)
    sweep_results(out)
    damaged = () if out is None else _gathered(out)
    spool = None if out is None else Spool(out)
    plans = SpectraPlans(found, selection, spool=spool, recheck=recheck)
    with results_folder(out) as folder, engine or engine_of("local") as workers:
        fields, parts = carried_out(
            plans,
            partial(kept_rows, spool=spool),
            store=SpectraFiles(folder),
            engine=nullcontext(workers),
            meter=Meter(progress, count),
            found=found,
        )
        fields["mended"] = (*damaged, *fields["mended"])
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
        parts=tuple(parts),
        breaks=plans.breaks,
        subspaces=compared,
        subspaces_key=key,
    )
    if revised is not None:
        analysis = revised(analysis)
    if seen is not None and analysis.key is not None and plans.is_certain:
        analysis = replace(analysis, seen=seen(plans.folders))
    if out is not None and analysis.measured:
        from rankscope.analysis.results_folder import write_results

        write_results(out, analysis)
        return replace(analysis, out=out)
    return analysis


def _gathered(out: Path) -> tuple[Skip, ...]:
    """Put what shards have computed, if there are any, where this call keeps it."""
    if not (out / SHARDS_FOLDER).is_dir():
        return ()
    from rankscope.analysis.shard_stores import gather

    return gather(out)


def _compared(
    found: Survey,
    selection: Selection,
    folder: Path,
    workers: AnalysisEngine,
    progress: Progress | None,
) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Compare singular subspaces of the runs: fields of a call's result, and rows of the table."""
    from rankscope.analysis.subspace_plans import SubspaceFiles, SubspacePlans, subspace_rows

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
