"""``rankscope data``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankscope.cli.command import Command
from rankscope.cli.options import AsJson, require_installed
from rankscope.cli.progress import progress_bar
from rankscope.errors import plain

if TYPE_CHECKING:
    from rankscope.training.data.token_folder import Sidecar

SECONDS_BETWEEN_LINES = 10.0

data = typer.Typer(name="data", help="Prepare data for training.", no_args_is_help=True)


@data.callback()
def _data() -> None:
    pass


@data.command(cls=Command)
def prepare(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Text (.txt, .jsonl, also .gz, .xz, .zst), .parquet, token files (.bin, .npy), "
            "folders of these, or hf:ORG/NAME[:config][:split].",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="The folder to make, for `rankscope train --data`."),
    ],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="bytes|bpe|PATH",
            help="bytes (the default), bpe (byte pairs learned from the text), or the path of a "
            "tokenizer.json.",
        ),
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Size of the vocabulary: of bpe (default 4096), or of a source of token ids.",
        ),
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the text or ids to hold out.")
    ] = 0.05,
    text_key: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Key of the text in JSON lines, or its column in tables."
        ),
    ] = "text",
    end_of_document: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN", help="Token that ends a document: one of tokenizer.json, or an id."
        ),
    ] = None,
    dtype: Annotated[
        Literal["uint16", "uint32"] | None,
        typer.Option(help="How token files without a header store ids."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn text or token ids into a folder that training opens at once.

    Whole documents are held out for validation, chosen by a hash of their content; if there is
    only one, its last part is held out. The folder appears under its name when it is complete.
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
    folder = plain(str(out))
    typer.echo(f"written to {folder}; train on it with --data {folder}")


class _ProgressLines:
    """A plain line on stderr every few seconds, if there is no terminal for a bar."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def report(self, share: float, label: str) -> None:
        if time.monotonic() - self.last >= SECONDS_BETWEEN_LINES:
            self.last = time.monotonic()
            typer.echo(f"preparing: {share:.0%}, {plain(label)}", err=True)


def _description(sidecar: Sidecar) -> list[str]:
    lines = [
        f"{sidecar.tokens:,} tokens as {sidecar.dtype}, vocabulary {sidecar.vocab_size:,}"
        f" ({sidecar.tokenizer or 'unknown tokenizer'})"
    ]
    for name, part in (("training", sidecar.training), ("held out", sidecar.validation)):
        size = "" if part.bytes is None else f", {part.bytes / part.tokens:.3f} bytes per token"
        share = part.tokens / sidecar.tokens
        documents = "1 document" if part.documents == 1 else f"{part.documents:,} documents"
        lines.append(f"{name}: {part.tokens:,} tokens ({share:.2%}), {documents}{size}")
    return lines
