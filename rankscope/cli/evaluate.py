"""``rankscope evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from rankscope.evaluation.evaluate_question import EvaluateQuestion
    from rankscope.evaluation.evaluation_folder import Evaluation


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
            "NAME, or blimp; once per call.",
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
    from rankscope.evaluation.evaluate_question import NOTHING_EVALUATED, EvaluateQuestion
    from rankscope.results.columns import EVALUATION_RECORD, EVALUATION_SKIPS

    if blimp and len(blimp) > 1:
        raise WrongSettingError(
            f"`blimp` was given {len(blimp)} times: give one set of pairs per call, each with a "
            "NAME of its own; `out` keeps those of earlier calls"
        )
    question = EvaluateQuestion(
        paths=tuple(runs),
        text=tuple(text or ()),
        blimp=blimp[0] if blimp else None,
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
    found = question.recalled(out) or _answered(question, out, threads)

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


def _answered(question: EvaluateQuestion, out: Path, threads: int | None) -> Evaluation:
    from rankscope.cli.progress import progress_bar
    from rankscope.evaluation.evaluate import answer

    set_threads(threads)
    with progress_bar("evaluating") as progress:
        return answer(question, out=out, progress=progress)
