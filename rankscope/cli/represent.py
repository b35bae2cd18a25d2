"""``rankscope represent``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from rankscope.errors import plain

if TYPE_CHECKING:
    from rankscope.representing.represent_question import RepresentQuestion
    from rankscope.representing.represented import Representation


def represent(
    runs: Runs,
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Text that the models read: a file, a folder or a pattern of .txt or .jsonl; "
            "repeatable, read as one text. Without it, stored activations of pico-train are read.",
        ),
    ] = None,
    at: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Places to measure: block, attention, mlp, or all."),
    ] = "block",
    features: Annotated[
        Literal["all", "last"],
        typer.Option(help="Features of all tokens, or of the last token of each window."),
    ] = "all",
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Collect the features of N tokens; by default 16384 or four per dimension, "
            "whichever is more.",
        ),
    ] = None,
    compare: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Compare features with those at the last step, at the previous step, in other "
            "layers, or in other runs at the same step or at equal loss: last, previous, layers, "
            "runs, loss, all, or none.",
        ),
    ] = "last,previous",
    energy: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Measure how much of the energy of a weight's input lies in the leading "
            "directions of these matrices: weight, adapter, update, all, or none.",
        ),
    ] = "none",
    out: ResultsFolder = Path("rankscope-results"),
    steps: StepChoice = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Tokens of context; by default 512, or what the model takes."
        ),
    ] = None,
    kept: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Keep the features of at most N tokens for comparisons."
        ),
    ] = 2048,
    prefix: PrefixToken = "auto",
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
    """Measure what the layers carry: the rank of their features, and how similar they are.

    Every model reads the same tokens of the text. Prints the rank of the features after the last
    block, and writes representations.parquet and .csv, similarities.parquet and .csv, with --energy
    input_energies.parquet and .csv, and representations.json into the folder that --out names,
    beside the files of analyze. A second call computes only what is new or changed.
    """
    if text:
        require_installed("torch", "tokenizers", what="running models", extra="train")
    from rankscope.cli.output import end_call, of_curves, print_representations
    from rankscope.representing.represent_question import NOTHING_SEEN, RepresentQuestion
    from rankscope.results.columns import REPRESENTATIONS_RECORD, REPRESENTATIONS_SKIPS

    question = RepresentQuestion(
        paths=tuple(runs),
        text=tuple(text or ()),
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
    found = question.recalled(out) or _answered(question, out, threads)

    def print_record(record: dict[str, Any]) -> None:
        print_representations(of_curves(record["representations"], found.curves))
        count = f"{found.measured} checkpoints measured; {found.computed} results newly computed"
        typer.echo(f"{count} → {plain(str(out))}")

    end_call(
        found,
        record=out / REPRESENTATIONS_RECORD,
        skips=out / REPRESENTATIONS_SKIPS,
        print_record=None if as_json else print_record,
        nothing=NOTHING_SEEN,
        strict=strict,
    )


def _answered(question: RepresentQuestion, out: Path, threads: int | None) -> Representation:
    from rankscope.cli.progress import progress_bar
    from rankscope.representing.represent import answer

    set_threads(threads)
    with progress_bar("representing") as progress:
        return answer(question, out=out, progress=progress)
