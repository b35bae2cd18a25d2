"""``rankscope evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankscope.cli.options import LayoutName, require_installed
from rankscope.cli.output import end_with_skips, tell_skips

if TYPE_CHECKING:
    from rankscope.evaluation.scoring import Evaluation


def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs, trees of runs, or checkpoints.")
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Text to score: a file, a folder or a pattern of .txt or .jsonl; may be repeated.",
        ),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Score the text that each run held out itself.")
    ] = False,
    blimp: Annotated[
        Path | None, typer.Option(help="BLiMP: its folder, its zip, or a file of pairs.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("rankscope-results"),
    steps: Annotated[
        str | None, typer.Option(help="Which steps: FIRST:LAST:STRIDE, each may be left out.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Tokens of context; by default what the model takes.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens between windows; by default no overlap.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="What stands before every text: auto, bos, eos, none, or a token.")
    ] = "auto",
    document_perplexity: Annotated[
        bool, typer.Option(help="Also the mean of the perplexities of documents, in own passes.")
    ] = True,
    max_documents: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many of each text, from all its files alike."),
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="The first so many of each BLiMP paradigm.")
    ] = None,
    leading_space: Annotated[
        bool, typer.Option("--leading-space", help="A space before each sentence of a pair.")
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or a folder with a tokenizer.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where models run.")] = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="Of weights and products.")
    ] = "float32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; by default what torch finds.")
    ] = None,
    layout: LayoutName = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let models run code that they bring.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    strict: Annotated[bool, typer.Option(help="Fail if anything was skipped.")] = False,
) -> None:
    """Score every checkpoint of RUNs: loss, perplexity and bits per byte of text, and BLiMP.

    Writes evaluation.parquet and .csv, the scores and evaluation.json into --out, beside what
    analyze writes there. A second call computes only what is new or changed.
    """
    if not (text or held_out or blimp):
        raise typer.BadParameter("give something to evaluate on: --text, --held-out or --blimp")
    require_installed("torch", "tokenizers", what="evaluation", extra="train")
    from rankscope.checkpoints.discovery import open_runs
    from rankscope.cli.progress import progress_bar
    from rankscope.cli.selection import parse_steps
    from rankscope.evaluation.open_model import OpenOptions
    from rankscope.evaluation.scoring import evaluate_runs
    from rankscope.evaluation.tasks import Windows, tasks_of

    chosen = parse_steps(steps)
    opened = open_runs(runs, layout=layout)
    tasks = tasks_of(
        text=text or [],
        blimp=blimp,
        held_out=held_out,
        windows=Windows(window, stride, document_perplexity),
        max_documents=max_documents,
        pairs_each=pairs,
        leading_space=leading_space,
    )
    options = OpenOptions(
        tokenizer=None if tokenizer is None else str(tokenizer),
        prefix=prefix,
        device=device,
        precision=precision,
        trust_remote_code=trust_remote_code,
    )
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with progress_bar("evaluating") as progress:
        found = evaluate_runs(
            opened, tasks, out=out, options=options, steps=chosen, progress=progress
        )
    _write(out, found, as_json=as_json)
    end_with_skips(found.skips, strict=strict)


def _write(out: Path, found: Evaluation, *, as_json: bool) -> None:
    """Write the results and say what is in them."""
    from rankscope.cli.output import print_evaluations
    from rankscope.evaluation.evaluation_folder import write_results
    from rankscope.results.columns import EVALUATION_RECORD, EVALUATION_SKIPS
    from rankscope.results.record import read_record

    try:
        table = write_results(out, found)
    finally:  # where nothing was scored, they say why
        tell_skips(found.skips, file=EVALUATION_SKIPS)
    record = read_record(out / EVALUATION_RECORD)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    own = {(series.run, series.task) for series in found.series}
    print_evaluations([one for one in record["evaluations"] if (one["run"], one["task"]) in own])
    typer.echo(f"{len(table)} numbers, {found.computed} scores newly computed → {out}")
