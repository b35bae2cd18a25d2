"""``rankscope represent``."""

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


def represent(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", readable=False, help="Runs, trees of runs, or checkpoints."),
    ],
    text: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Text that the models read: a file, a folder or a pattern of .txt or .jsonl; "
            "repeatable, all of it together. Without any, activations that pico-train stored.",
        ),
    ] = None,
    at: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Where to look: block, attention, mlp, or all."),
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
            help="Compare features with those at the last step, the previous step, of other "
            "layers, of other runs at the same step or at equal loss: last, previous, layers, "
            "runs, loss, all, or none.",
        ),
    ] = "last,previous",
    energy: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Measure how much of the features that weights read lies in the leading "
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
    prefix: Annotated[
        str,
        typer.Option(
            metavar="TOKEN", help="Token before every text: auto, bos, eos, none, or a token."
        ),
    ] = "auto",
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
    """Measure what the layers carry: the rank of their features, and how alike they are.

    Every model reads the same tokens of the text. Prints the rank of the features after the last
    block; and writes representations.parquet and .csv, similarities.parquet and .csv, with --energy
    input_energies.parquet and .csv, and representations.json into the folder that --out names, next
    to what analyze writes there. A second call computes only what is new or changed.
    """
    if text:
        require_installed("torch", "tokenizers", what="running models", extra="train")
    from rankscope.cli.output import end_call, print_representations
    from rankscope.cli.progress import progress_bar
    from rankscope.evaluation.evaluate import survey_here
    from rankscope.evaluation.open_model import OpenOptions
    from rankscope.representing.represent import (
        asked_for,
        comparisons_of,
        energy_of,
        represent_found,
    )
    from rankscope.results.columns import REPRESENTATIONS_RECORD, REPRESENTATIONS_SKIPS

    asked = asked_for(
        text=text or [],
        at=at,
        features=features,
        tokens=tokens,
        window=window,
        kept=kept,
        steps=steps,
        energy=energy_of(energy, out=out),
        options=OpenOptions(
            tokenizer=None if tokenizer is None else str(tokenizer),
            prefix=prefix,
            device=device,
            precision=precision,
            trust_remote_code=trust_remote_code,
        ),
    )
    comparisons = comparisons_of(compare, out=out)
    met = survey_here(runs, layout=layout)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with progress_bar("representing") as progress:
        found = represent_found(met, asked, compare=comparisons, out=out, progress=progress)

    def print_record(record: dict[str, Any]) -> None:
        # With these settings: others of the same run and text stay if nothing replaced them.
        curves = {(curve.path, curve.folder) for curve in found.curves}
        own = [one for one in record["representations"] if (one["path"], one["folder"]) in curves]
        print_representations(own)
        count = f"{found.measured} checkpoints looked into; {found.computed} results newly computed"
        typer.echo(f"{count} → {plain(str(out))}")

    end_call(
        found,
        record=out / REPRESENTATIONS_RECORD,
        skips=out / REPRESENTATIONS_SKIPS,
        print_record=None if as_json else print_record,
        nothing="no checkpoint could be looked into",
        strict=strict,
    )
