"""``rankscope evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rankscope.cli.options import (
    AsJson,
    LayoutName,
    ResultsFolder,
    StepChoice,
    Strict,
    require_installed,
)
from rankscope.errors import plain


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", readable=False, help="Runs, trees of runs, or checkpoints."),
    ],
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
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Minimal pairs to score: BLiMP's folder or zip, or a file of pairs.",
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
            min=1, metavar="N", help="Tokens of context; by default as many as the model takes."
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
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TOKEN", help="Token before every text: auto, bos, eos, none, or a token."
        ),
    ] = "auto",
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
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="A tokenizer.json, or a folder with a tokenizer; by default the model's.",
        ),
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")] = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Precision of weights and products.")
    ] = "float32",
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads; by default torch decides."),
    ] = None,
    layout: LayoutName = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Let models run the code that comes with them; for models that you trust.",
        ),
    ] = False,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Score every checkpoint on text and on minimal pairs, such as BLiMP.

    Prints loss, perplexity and bits per byte, and accuracy on minimal pairs; and writes
    evaluation.parquet and .csv, the scores and evaluation.json into the folder that --out names,
    next to what analyze writes there. A second call computes only what is new or changed.
    """
    require_installed("torch", "tokenizers", what="evaluation", extra="train")
    from rankscope.cli.output import end_call, print_evaluations
    from rankscope.cli.progress import progress_bar
    from rankscope.evaluation.benchmark import BenchmarkOptions, benchmarks_of
    from rankscope.evaluation.evaluate import evaluate_found, survey_here
    from rankscope.evaluation.open_model import OpenOptions
    from rankscope.pipeline.choices import steps_of
    from rankscope.results.columns import EVALUATION_RECORD, EVALUATION_SKIPS
    from rankscope.scoring.document_spans import Cut

    benchmarks = benchmarks_of(
        BenchmarkOptions(
            text=text or [],
            blimp=blimp,
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
    met = survey_here(runs, layout=layout)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with progress_bar("evaluating") as progress:
        found = evaluate_found(met, benchmarks, options, out=out, steps=chosen, progress=progress)

    def print_record(record: dict[str, Any]) -> None:
        # With these settings: others of the same run and task stay if nothing replaced them.
        curves = {(curve.path, curve.folder) for curve in found.curves}
        own = [one for one in record["evaluations"] if (one["path"], one["folder"]) in curves]
        print_evaluations(own)
        typer.echo(f"{found.measured} scores, {found.computed} newly computed → {plain(str(out))}")

    end_call(
        found,
        record=out / EVALUATION_RECORD,
        skips=out / EVALUATION_SKIPS,
        print_record=None if as_json else print_record,
        nothing="no checkpoint could be evaluated",
        strict=strict,
    )
