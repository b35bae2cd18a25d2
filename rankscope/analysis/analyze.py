"""`analyze`: from run folders to the table."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.analysis.engines import EngineName, OpenEngine, engine_of
from rankscope.analysis.execute import StepResult, execute
from rankscope.analysis.origin import open_origin
from rankscope.analysis.outcome import Analysis, Recalled, recall
from rankscope.analysis.plan import Plans, Selection, Windows, count_steps
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.run import Run, listed
from rankscope.checkpoints.survey import Survey
from rankscope.durable import require_writable
from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.results.columns import SPECTRA_FOLDER

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[float, str], None]  # share of all the work that is done; what is worked on


def analyze(
    paths: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    components: Iterable[str] | None = None,
    roles: Iterable[str] | None = None,
    layers: Iterable[int] | None = None,
    steps: tuple[int, int | None, int] | None = None,
    windows: Windows = "steps",
    jobs: int | None = None,
    engine: EngineName = "local",
    layout: str | None = None,
    family: str | Path | None = None,
    trust_pickle: bool = False,
    base: str | Path | None = None,
    since: str | Path | None = None,
) -> pd.DataFrame:
    """Measure every checkpoint of the runs at ``paths``.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    out
        Where to write the table and keep the spectra; what is there already and still true is
        not computed again. None keeps nothing.
    components
        Which matrices: ``weight``, ``update``, ``adapter``, ``merge``, ``merged_total``,
        ``gradient`` and ``ov`` by default; ``base``, ``cumulative_update``, ``ov_update`` and
        ``ov-published`` on request.
    roles
        Which roles: by default all but ``embed`` and ``unembed``.
    layers
        Which layers, by index; all by default.
    steps
        First step, last step (None: to the end) and stride; all by default. Updates are measured
        between the steps that are asked for.
    windows
        What updates span: ``steps``, from each checkpoint to the next; or ``cycles``, from one
        merge to the next where merges are on record. Parts of a cycle are other objects.
    jobs
        Number of worker processes; the number of processors by default.
    engine
        ``local`` worker processes; ``cuda``, the GPU that torch finds; or a ``dask`` cluster:
        that of Dask's configuration if there is one, whose workers see the checkpoints under the
        same paths.
    layout
        Read the checkpoints as this on-disk layout instead of recognising it.
    family
        Take the models for ones of this family: its name, or a TOML file that describes it.
    trust_pickle
        Let pickles make objects of any class, which may run code that their writer chose.
    base
        Folder of the model that adapters were put on, where it is not found.
    since
        A checkpoint, such as the model that a fine-tuning began with, for ``cumulative_update`` to
        begin at, which is then measured by default. If not given it begins at the base model of
        an adapter where that is found, and else at the first step.

    Returns
    -------
    One row a matrix a step: the columns run, step, layer, role, component, head, expert, name,
    rows, cols, dtype, status and the metrics. What was skipped is in ``attrs["skipped"]``, with
    a warning; what is worth a line besides is in ``attrs["notes"]``, and what the steps of the
    runs count in ``attrs["unit"]``.

    Raises
    ------
    RankscopeError
        If there is nothing to analyse, or an option names something unknown.
    OSError
        If ``out`` cannot be written.
    """
    start = None if since is None else open_origin(since, trust_pickle=trust_pickle)
    selection = Selection.of(
        components=components, roles=roles, layers=layers, steps=steps, since=start, windows=windows
    )
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    there = survey(given, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    workers = engine_of(engine, jobs)
    found = analyze_found(there, selection, out=None if out is None else Path(out), engine=workers)
    table = found.table
    table.attrs["unit"] = found.unit
    if found.notes or found.mended:
        table.attrs["notes"] = [vars(note) for note in (*found.mended, *found.notes)]
    if found.skips:
        table.attrs["skipped"] = [vars(skip) for skip in found.skips]
        message = f"{len(found.skips)} skipped, the first: {found.skips[0]}"
        warnings.warn(message, RankscopeWarning, stacklevel=2)
    if not found.measured and found.notes:
        message = f"nothing was measured: {found.notes[-1]}"
        warnings.warn(message, RankscopeWarning, stacklevel=2)
    return table


def analyze_found(
    there: Survey,
    selection: Selection,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
) -> Analysis | Recalled:
    """Analyse what a survey found, unless ``out`` holds the answer already."""
    if out is not None and there.runs:
        earlier = recall(out, there.runs, selection, (*there.skips, *there.notes))
        if earlier is not None:
            return earlier
    return analyze_runs(
        there.runs,
        selection,
        out=out,
        engine=engine,
        progress=progress,
        skips=there.skips,
        notes=there.notes,
    )


def analyze_runs(
    runs: Sequence[Run],
    selection: Selection,
    *,
    out: Path | None = None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
    skips: Sequence[Skip] = (),
    notes: Sequence[Skip] = (),
) -> Analysis:
    """Do the work of `analyze` on opened runs, and say all that came of it.

    ``skips`` and ``notes`` are those of the survey that found the runs.
    """
    total = _check(runs, selection, out)
    plans = Plans(runs, selection, (*skips, *notes))
    results: list[StepResult] = []
    with _store(out) as folder:
        for result in execute(
            plans,
            folder=folder,
            engine=engine or engine_of("local"),
            progress=_overall(progress, total),
        ):
            # Here and not at the top: what writes the tables loads while the workers are at work.
            from rankscope.analysis import results_folder

            results.append(result)
    places = {run.name: place for place, run in enumerate(runs)}
    results.sort(key=lambda result: (places[result.run], result.step))
    said = dict.fromkeys((*notes, *plans.notes, *plans.reasons))
    analysis = Analysis(
        tuple(runs),
        selection,
        tuple(row for result in results for row in result.rows),
        tuple(dict.fromkeys((*skips, *(skip for result in results for skip in result.skips)))),
        sum(result.computed for result in results),
        key=None if any(result.has_failed for result in results) else plans.key,
        notes=tuple(said),
        mended=tuple(skip for result in results for skip in result.mended),
        breaks=plans.breaks,
    )
    if out is not None and analysis.measured:
        results_folder.write_results(out, analysis)
    return analysis


def _check(runs: Sequence[Run], selection: Selection, out: Path | None) -> int:
    """Number of steps there are to do; an error if none, or if the results cannot go to ``out``."""
    total = sum(count_steps(run, selection) for run in runs)
    if not total:
        have = "; ".join(f"{run.name}: {listed(run.steps)}" for run in runs)
        raise WrongSettingError(f"no checkpoint at the requested `steps`; available: {have}")
    if out is not None:
        inputs = {path.resolve() for run in runs for path in (run.path, *(c.path for c in run))}
        if out.resolve() in inputs:
            raise WrongSettingError(
                "is one of the inputs: choose another folder for `out`", path=out
            )
        require_writable(out)
    return total


@contextmanager
def _store(out: Path | None) -> Iterator[Path]:
    if out is not None:
        yield out / SPECTRA_FOLDER
        return
    with tempfile.TemporaryDirectory(prefix="rankscope-") as folder:
        yield Path(folder)


def _overall(progress: Progress | None, steps: int) -> Progress | None:
    """Progress over all steps, each counting alike, from shares of single steps."""
    if progress is None:
        return None
    done = 0.0

    def tell(share: float, label: str) -> None:
        nonlocal done
        done += share / max(steps, 1)
        progress(min(done, 1.0), label)

    return tell
