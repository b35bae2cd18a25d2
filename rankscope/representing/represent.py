"""`represent`: from run folders and text to tables of what the layers carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.survey import Survey
from rankscope.pipeline.call_results import reported, sweep_results
from rankscope.pipeline.calls import (
    Paths,
    carried_out,
    listed_paths,
    require_out,
    require_steps,
    results_folder,
)
from rankscope.pipeline.choices import Names, Steps
from rankscope.pipeline.execution import Executed, Meter, Progress
from rankscope.representing.comparison_engine import ComparisonEngine
from rankscope.representing.comparison_plans import (
    Compared,
    Comparing,
    ComparisonEntry,
    ComparisonFiles,
    ComparisonPlans,
    doubts,
    unlike,
)
from rankscope.representing.feature_engine import FeatureEngine
from rankscope.representing.feature_plans import FeaturePlans
from rankscope.representing.feature_store import FeatureFiles
from rankscope.representing.feature_tasks import FeatureRequest, FeatureTask, FoundFeatures
from rankscope.representing.loss_pairs import Losses, loss_pairs, losses_of_runs
from rankscope.representing.represent_question import NOTHING_SEEN, RepresentQuestion
from rankscope.representing.represent_settings import asked_for, comparisons_of
from rankscope.representing.representations_folder import write_results
from rankscope.representing.represented import CheckpointFeatures, ComparedSides, Representation

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.evaluation.open_model import Device, Precision
    from rankscope.representing.probe_windows import Features

FEATURES_SHARE = 0.9  # of the time, where something is compared


def represent(
    paths: Paths,
    *,
    text: Paths = (),
    out: str | Path | None = None,
    at: Names = "block",
    features: Features = "all",
    tokens: int | None = None,
    compare: Names | None = None,
    energy: Names = (),
    steps: Steps | None = None,
    window: int | None = None,
    kept: int = 2048,
    prefix: str = "auto",
    tokenizer: str | Path | None = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    layout: str | None = None,
    base: str | Path | None = None,
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Measure what the layers of every checkpoint carry: the rank of their features, and more.

    Every model with the same tokenizer is given the same tokens of text, the probe. Features are
    summed block by block of documents, and never all in memory.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    text
        Text sets, as in `rankscope.evaluate`, which together form one text here. Without any, the
        activations that pico-train stored beside its checkpoints are read, and no model is run.
    out
        Folder for the tables and the store. Results that are already there and still valid are not
        computed again, and rows of other calls stay in the tables. None keeps nothing.
    at
        Where features are read: ``block`` (the input of the first block, the output of each block,
        and the input of the output layer), ``attention``, ``mlp`` (what each block's attention and
        MLP add), several of them, or ``all``.
    features
        ``all`` for the features of all tokens, ``last`` for those of the last token of each window.
    tokens
        How many features to collect. For all tokens, by default 16384, or four for each dimension
        if that is more; for last tokens, four for each dimension, which takes as many windows.
    compare
        What each checkpoint's features are compared with, place by place: those at the ``last``
        step, at the ``previous`` step, of all other ``layers`` of the checkpoint, of all other
        ``runs`` at the same step, or of each other run at equal ``loss``; several of them, or
        ``all``. By default the first two, and nothing if ``out`` is None. Losses come from an
        evaluation in ``out``, or from the training logs, as in `rankscope.compare`.
    energy
        Matrices whose leading directions are compared with the features that they read: ``weight``,
        ``adapter``, ``update`` (since the previous checkpoint), several of them, or ``all``; none
        by default. The share of the features' energy in these directions goes into a separate
        table, `rankscope.Results.input_energies`.
    steps
        Which steps, as in `rankscope.evaluate`; all by default.
    window
        Tokens that a model is given at once, including the one before every text; by default 512,
        or what the model takes if that is less.
    kept
        Features of at most this many tokens are kept for comparisons.
    prefix, tokenizer, device, precision, layout, base, trust_remote_code
        As in `rankscope.evaluate`. Sums are float64 in any case. The features of the token before
        every text are not counted.

    Returns
    -------
    One row per run, step and place, with the columns of `rankscope.Results.representations`. What
    was skipped is in ``attrs["skipped"]``, with a warning.

    Raises
    ------
    WrongSettingError
        If a setting is unknown, contradicts another, or names data or steps that do not exist.
    RankscopeError
        If the text cannot be read, or no checkpoint can be measured.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    Text is read by complete models only. These checkpoints are weights without a tokenizer, so the
    error says what is missing:

    >>> import rankscope as rs
    >>> from pathlib import Path
    >>> _ = Path("novel.txt").write_text("It was a bright cold day in April.")
    >>> try:
    ...     table = rs.represent("ckpts/full", text="novel.txt", steps=100)
    ... except rs.RankscopeError as error:
    ...     print(error)
    no checkpoint could be measured; 1 skipped, the first: ckpts/full/checkpoint-100: no
    tokenizer found here or in its run ...: pass the `tokenizer` that it was trained with ...
    """
    question = RepresentQuestion(
        paths=tuple(listed_paths(paths)),
        text=tuple(listed_paths(text)),
        at=at,
        features=features,
        tokens=tokens,
        compare=compare,
        energy=energy,
        steps=steps,
        window=window,
        kept=kept,
        prefix=prefix,
        tokenizer=tokenizer,
        device=device,
        precision=precision,
        layout=layout,
        base=base,
        trust_remote_code=trust_remote_code,
    )
    folder = None if out is None else Path(out)
    recalled = None if folder is None else question.recalled(folder)
    return reported(recalled or answer(question, out=folder), nothing=NOTHING_SEEN)


def answer(
    question: RepresentQuestion, *, out: Path | None = None, progress: Progress | None = None
) -> Representation:
    """Answer a question, looking into the checkpoints that ``out`` has no numbers of."""
    asked, compare = asked_for(question, out=out), comparisons_of(question.compare, out=out)
    recall = None if out is None else question.recall(out)
    before = None if recall is None else recall.look()
    found = _found(question.survey(), asked, compare=compare, out=out, progress=progress)
    if recall is not None:
        recall.remember(found, before)
    return found


def _found(
    met: Survey,
    asked: FeatureRequest,
    *,
    compare: Sequence[Comparing],
    out: Path | None,
    progress: Progress | None,
) -> Representation:
    """Look into the runs that a survey found, and compare what is found."""
    losses = losses_of_runs(met.runs, out) if out is not None and "loss" in compare else None
    plans = FeaturePlans(met, asked)
    require_steps(plans.count, met.runs)
    sweep_results(out)
    if asked.text is not None:  # a text that is none should not cost the opening of a model
        next(asked.text.iter_documents(None))
    require_out(out, met.runs)
    end = FEATURES_SHARE if compare else 1.0
    meter = Meter(_part(progress, 0.0, end), plans.count)
    with results_folder(out) as folder:
        fields, features = carried_out(
            plans,
            lambda executed: _features_of(executed, FeatureFiles(folder)),
            store=FeatureFiles(folder),
            engine=FeatureEngine(asked, meter),
            meter=meter,
            found=met,
        )
        there = tuple(one for one in features if one is not None)
        more, compared = _compared(
            there,
            compare,
            folder=folder,
            losses=losses,
            progress=_part(progress, end, 1.0),
            found=met,
        )
        whole = Representation(
            **_together(fields, more), **plans.found, features=there, compared=tuple(compared)
        )
        return write_results(folder, whole)


def _features_of(
    executed: Executed[FeatureTask, FoundFeatures], store: FeatureFiles
) -> CheckpointFeatures | None:
    """The numbers of a plan, if it has any."""
    if not executed.entries:
        return None
    path = store.path(executed.plan)
    return CheckpointFeatures(executed.plan.tasks[0].curve, executed.entries[0].numbers, path)


def _compared(
    features: Sequence[CheckpointFeatures],
    compare: Sequence[Comparing],
    *,
    folder: Path,
    losses: Losses | None,
    progress: Progress | None,
    found: Survey,
) -> tuple[dict[str, Any], list[ComparedSides]]:
    """Compare what was found; what that skipped, and what is to be said of it."""
    sides = [one.side for one in features if not one.is_of_inputs]
    pairs, without = ([], []) if losses is None else loss_pairs(sides, losses)
    plans = ComparisonPlans(sides, compare, pairs)
    meter = Meter(progress, plans.count)
    fields, compared = carried_out(
        plans,
        lambda executed: _sides(executed.plan.tasks, executed.entries),
        store=ComparisonFiles(folder),
        engine=ComparisonEngine(),
        meter=meter,
        found=replace(found, skips=(), notes=()),
    )
    listed = [one for some in compared for one in some]
    notes = [*without, *doubts((side, entry) for side, entry, _ in listed)]
    notes += unlike(sides) if {"runs", "loss"} & {*compare} else []
    fields["notes"] = (*fields["notes"], *notes)
    given = {str(run.path.absolute()): str(run.path) for run in found.runs}
    for name in ("skips", "notes"):  # runs by the paths that were given
        lines = [replace(line, path=given.get(line.path, line.path)) for line in fields[name]]
        fields[name] = tuple(lines)
    return fields, listed


def _sides(tasks: Iterable[Compared], entries: Iterable[ComparisonEntry]) -> list[ComparedSides]:
    """Each comparison with the two that it compares."""
    of = {task.key: task for task in tasks}
    return [(of[entry.key].side, entry, of[entry.key].against) for entry in entries]


def _together(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Fields of a result of two parts."""
    said = {name: (*first[name], *second[name]) for name in ("skips", "notes", "mended")}
    has_failed = first["key"] is None or second["key"] is None
    return said | {
        "computed": first["computed"] + second["computed"],
        "key": None if has_failed else first["key"],
    }


def _part(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Progress of the whole, from that of a part."""
    if progress is None:
        return None
    return lambda share, label: progress(start + share * (end - start), label)
