"""``rankscope evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankscope.cli.options import (
    AsJson,
    BaseModel,
    DeviceChoice,
    LayoutName,
    PrecisionChoice,
    PrefixToken,
    ResultsFolder,
    Runs,
    StepChoice,
    Strict,
    Threads,
    TokenizerPath,
    TrustRemoteCode,
    require_installed,
    set_threads,
)
from rankscope.errors import WrongSettingError, plain


def evaluate(
    runs: Runs,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Text to score: a file, a folder or a pattern of .txt or .jsonl; repeatable.",
        ),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Score the text that each run held out.")
    ] = False,
    blimp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Minimal pairs to score: BLiMP's folder or zip, or a file of pairs; as the task "
            "NAME, or blimp; once a call.",
        ),
    ] = None,
    agreement: Annotated[
        bool,
        typer.Option(
            "--agreement",
            help="Score built-in minimal pairs of agreement in number, which take no file.",
        ),
    ] = False,
    out: ResultsFolder = Path("rankscope-results"),
    steps: StepChoice = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Tokens of context; by default as many as the model allows."
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Tokens from the start of one context to that of the next; by default no overlap.",
        ),
    ] = None,
    prefix: PrefixToken = "auto",
    document_perplexity: Annotated[
        bool,
        typer.Option(help="Also compute the mean per-document perplexity (takes extra passes)."),
    ] = True,
    max_documents: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Score at most N documents of each text, equally from each of its files.",
        ),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Score only the first N pairs of each paradigm."),
    ] = None,
    leading_space: Annotated[
        bool, typer.Option("--leading-space", help="Put a space before each sentence of a pair.")
    ] = False,
    tokenizer: TokenizerPath = None,
    device: DeviceChoice = "cpu",
    precision: PrecisionChoice = "float32",
    threads: Threads = None,
    layout: LayoutName = None,
    base: BaseModel = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Score every checkpoint on text and on minimal pairs, such as BLiMP.

    Prints loss, perplexity and bits per byte, and accuracy on minimal pairs; and writes
    evaluation.parquet and .csv, the scores and evaluation.json into the folder that --out names,
    next to what analyze writes there. A second call computes only what is new or changed.
    """
    require_installed("torch", "tokenizers", what="evaluation", extra="train")
    from rankscope.cli.output import end_call, of_curves, print_evaluations
    from rankscope.cli.progress import progress_bar
    from rankscope.evaluation.benchmark import BenchmarkOptions, benchmarks_of
    from rankscope.evaluation.evaluate import NOTHING_EVALUATED, evaluate_found
    from rankscope.evaluation.open_model import OpenOptions
    from rankscope.pipeline.choices import steps_of
    from rankscope.pipeline.curves import survey_here
    from rankscope.results.columns import EVALUATION_RECORD, EVALUATION_SKIPS
    from rankscope.scoring.document_spans import Cut

    if blimp and len(blimp) > 1:
        raise WrongSettingError(
            f"`blimp` was given {len(blimp)} times: give one set of pairs a call, each with a "
            "NAME of its own; `out` keeps those of earlier calls"
        )
    benchmarks = benchmarks_of(
        BenchmarkOptions(
            text=text or [],
            blimp=blimp[0] if blimp else None,
            held_out=held_out,
            cut=Cut(window, stride, document_perplexity),
            max_documents=max_documents,
            pairs=pairs,
            leading_space=leading_space,
            agreement=agreement,
        )
    )
    options = OpenOptions(
        tokenizer=None if tokenizer is None else str(tokenizer),
        prefix=prefix,
        device=device,
        precision=precision,
        trust_remote_code=trust_remote_code,
    )
    chosen = steps_of(steps)
    met = survey_here(runs, layout=layout, base=base)
    set_threads(threads)
    with progress_bar("evaluating") as progress:
        found = evaluate_found(met, benchmarks, options, out=out, steps=chosen, progress=progress)

    def print_record(record: dict[str, Any]) -> None:
        print_evaluations(of_curves(record["evaluations"], found.curves))
        typer.echo(f"{found.measured} scores, {found.computed} newly computed → {plain(str(out))}")

    end_call(
        found,
        record=out / EVALUATION_RECORD,
        skips=out / EVALUATION_SKIPS,
        print_record=None if as_json else print_record,
        nothing=NOTHING_EVALUATED,
        strict=strict,
    )
