"""`evaluate`: from run folders and text to the table of model performance."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.evaluation.benchmark import benchmarks_of
from rankscope.evaluation.evaluate_question import NOTHING_EVALUATED, EvaluateQuestion
from rankscope.evaluation.evaluation_folder import Evaluation, Scored, write_results
from rankscope.evaluation.model_engine import ModelEngine
from rankscope.evaluation.open_model import Device, Precision
from rankscope.evaluation.score_files import ScoreFile
from rankscope.evaluation.score_plans import ScoreFiles, ScorePlans, ScoreTask
from rankscope.pipeline.call_results import reported, sweep_results
from rankscope.pipeline.calls import (
    Paths,
    carried_out,
    listed_paths,
    require_out,
    require_steps,
    results_folder,
)
from rankscope.pipeline.choices import Steps, steps_of
from rankscope.pipeline.curves import Curve
from rankscope.pipeline.execution import Executed, Meter, Progress

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    paths: Paths,
    *,
    text: Paths = (),
    blimp: str | Path | None = None,
    held_out: bool = False,
    agreement: bool = False,
    out: str | Path | None = None,
    steps: Steps | None = None,
    window: int | None = None,
    stride: int | None = None,
    document_perplexity: bool = True,
    max_documents: int | None = None,
    pairs: int | None = None,
    leading_space: bool = False,
    prefix: str = "auto",
    tokenizer: str | Path | None = None,
    device: Device = "cpu",
    precision: Precision = "float32",
    layout: str | None = None,
    base: str | Path | None = None,
    trust_remote_code: bool = False,
) -> pd.DataFrame:
    """Score every checkpoint of the runs at ``paths`` on text and on minimal pairs.

    Parameters
    ----------
    paths
        Folders: of a run, of a tree of runs, or of one checkpoint.
    text
        Text sets: each a file, a folder of files or a pattern, or ``NAME=`` and one of these.
        Plain text is one document per file; JSONL one per line under ``text``, with ``source``
        and ``subdomain`` as in Paloma.
    blimp
        BLiMP: its folder, its zip, or a JSONL file of minimal pairs; or ``NAME=`` and one of these.
        The table calls it ``NAME``, by default ``blimp``.
    held_out
        Whether to score each run of rankscope's trainer on the text that it held out.
    agreement
        Whether to score on built-in minimal pairs of agreement in number, for which no file is
        needed: see `rankscope.scoring.agreement.agreement_pairs`.
    out
        Folder for the table and the scores. Scores that are already there and still valid are not
        computed again, and rows of other calls stay in the table. None keeps nothing.
    steps
        Which steps: ``[0, 100]``, or a range as ``"0:1000:100"`` or ``(0, 1000, 100)``: first step,
        last step, which is included (None: to the end), and stride; all by default.
    window
        Number of input tokens that a model is given at once; by default its maximum.
    stride
        Tokens from one window to the next, at most ``window``; by default the same, so that
        windows do not overlap.
    document_perplexity
        Whether to also compute the number of Weiss et al. 2025, the mean of the perplexities of the
        documents' first windows without a prefix. It takes extra passes.
    max_documents
        At most this many documents of each text set, equally from all its files; all by default.
    pairs
        Only the first pairs of each paradigm, at most this many; all by default.
    leading_space
        Whether to put a space before every sentence of a pair, as evaluation harnesses do.
    prefix
        The token before every text: ``auto`` (the one that begins texts if the tokenizer has it,
        else the one that ends them), ``bos``, ``eos``, ``none``, or a token.
    tokenizer
        A tokenizer.json, or a folder with a tokenizer, instead of those with the checkpoints.
    device
        ``cpu`` or ``cuda``.
    precision
        ``float32`` or ``bfloat16``, of weights and activations; losses are float32 in any case.
    layout
        Read the checkpoints as this on-disk layout instead of recognising it.
    base
        Folder of the adapters' base model, where it is not found.
    trust_remote_code
        Let a model run code that comes with it.

    Returns
    -------
    One row per number: the columns run, step, task, group, metric, value, ci_low, ci_high, n. What
    was skipped is in ``attrs["skipped"]``, with a warning.

    Raises
    ------
    WrongSettingError
        If a setting is unknown, contradicts another, or names data or steps that do not exist.
    RankscopeError
        If the data cannot be read, or no checkpoint can be evaluated.
    OSError
        If ``out`` cannot be written.

    Examples
    --------
    Text is scored by complete models only. These checkpoints are weights without a tokenizer, so
    the error says what is missing:

    >>> import rankscope as rs
    >>> from pathlib import Path
    >>> _ = Path("novel.txt").write_text("It was a bright cold day in April.")
    >>> try:
    ...     table = rs.evaluate("ckpts/full", text="novel.txt", steps=100)
    ... except rs.RankscopeError as error:
    ...     print(error)
    no checkpoint could be evaluated; 1 skipped, the first: ckpts/full/checkpoint-100: no tokenizer
    found here or in its run ...: pass the `tokenizer` that it was trained with ...
    """
    question = EvaluateQuestion(
        paths=tuple(listed_paths(paths)),
        text=tuple(listed_paths(text)),
        blimp=blimp,
        held_out=held_out,
        agreement=agreement,
        steps=steps,
        window=window,
        stride=stride,
        document_perplexity=document_perplexity,
        max_documents=max_documents,
        pairs=pairs,
        leading_space=leading_space,
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
    return reported(recalled or answer(question, out=folder), nothing=NOTHING_EVALUATED)


def answer(
    question: EvaluateQuestion, *, out: Path | None = None, progress: Progress | None = None
) -> Evaluation:
    """Answer a question, scoring the checkpoints that ``out`` has no scores of."""
    recall = None if out is None else question.recall(out)
    before = None if recall is None else recall.look()  # before the data are read for their digests
    benchmarks, options = benchmarks_of(question), question.options()
    steps = steps_of(question.steps)
    met = question.survey()
    plans = ScorePlans(met, benchmarks, options, steps)
    require_steps(plans.count, met.runs)
    sweep_results(out)
    for benchmark in benchmarks:
        benchmark.open()
    require_out(out, met.runs)
    meter = Meter(progress, plans.count)
    with results_folder(out) as folder:
        fields, files = carried_out(
            plans,
            lambda executed: executed,
            store=ScoreFiles(folder),
            engine=ModelEngine(options, meter),
            meter=meter,
            found=met,
        )
        found = write_results(folder, Evaluation(**fields, **plans.found, scored=_scored(files)))
    if recall is not None:
        recall.remember(found, before)
    return found


def _scored(all_executed: Iterable[Executed[ScoreTask, ScoreFile]]) -> tuple[Scored, ...]:
    """The curves with the files of their plans, by run and task."""
    files: dict[tuple[str, str], tuple[Curve, list[ScoreFile]]] = {}
    for executed in all_executed:
        for task in executed.plan.tasks:
            curve = task.curve
            files.setdefault((curve.run, curve.task), (curve, []))[1].extend(executed.entries)
    ordered = (files[place] for place in sorted(files))
    return tuple(Scored(curve, tuple(some)) for curve, some in ordered if some)
