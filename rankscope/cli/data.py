"""``rankscope data``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.command import Command
from rankscope.cli.options import require_installed
from rankscope.cli.progress import progress_bar

if TYPE_CHECKING:
    from rankscope.training.data.token_folder import Sidecar

SECONDS_BETWEEN_LINES = 10.0

data = typer.Typer(name="data", help="Prepare what models are trained on.", no_args_is_help=True)


@data.callback()
def _data() -> None:
    pass


@data.command(cls=Command)
def prepare(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Text (.txt, .jsonl, also .gz, .xz, .zst), .parquet, token files (.bin, .npy), "
            "folders of these, or hf:ORG/NAME[:config][:split]."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new folder, for data.source.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="bytes (the default), bpe: byte pairs learned from it, or PATH/tokenizer.json."
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Of bpe (default 4096), or of ids that are given.")
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the documents to hold out.")
    ] = 0.05,
    text_key: Annotated[
        str, typer.Option(help="Where the text stands in JSON lines and tables.")
    ] = "text",
    end_of_document: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="What ends a document: a token, or an id of ids."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="Of token files without header: uint16 or uint32."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Turn text or token ids into a folder that training opens at once.

    Whole documents are held out for validation, chosen by a hash of their text; of a single
    document the last part is. Nothing appears under the name of --out before it is complete.
    """
    require_installed("tokenizers", what="preparing data", extra="train")
    from rankscope.training.data.prepare import prepare_tokens
    from rankscope.training.data.prepare_settings import PrepareSettings

    settings = PrepareSettings(
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        validation_fraction=validation_fraction,
        text_key=text_key,
        end_of_document=end_of_document,
        dtype=dtype,
    )
    with progress_bar("preparing") as bar:
        report = bar or _ProgressLines().report
        sidecar = prepare_tokens(source, out, settings=settings, report=report)
    if as_json:
        described = {"schema_version": 1, "out": str(out)} | asdict(sidecar)
        typer.echo(json.dumps(described, indent=2))
        return
    for line in _description(sidecar):
        typer.echo(line)
    typer.echo(f"written to {out}; train on it with --data {out}")


class _ProgressLines:
    """A plain line on stderr now and then, where there is no terminal for a bar."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def report(self, share: float, label: str) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            typer.echo(f"preparing: {share:.0%}, {label}", err=True)


def _description(sidecar: Sidecar) -> list[str]:
    lines = [
        f"{sidecar.tokens:,} tokens as {sidecar.dtype}, vocabulary {sidecar.vocab_size:,}"
        f" ({sidecar.tokenizer or 'unknown tokenizer'})"
    ]
    for name, part in (("training", sidecar.training), ("held out", sidecar.validation)):
        size = "" if part.bytes is None else f", {part.bytes / part.tokens:.3f} bytes a token"
        share = part.tokens / sidecar.tokens
        lines.append(
            f"{name}: {part.tokens:,} tokens ({share:.2%}), {part.documents:,} documents{size}"
        )
    return lines
