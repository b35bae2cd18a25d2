"""From texts or ids to a prepared folder, reading the sources two or three times.

First to choose what is held out, then to learn byte pairs from the rest where they are wanted,
last to write the ids. So no corpus has to fit into memory: only one document of it, a few
megabytes at a time, and 24 bytes for each document (for a moment some 60, while the choice is
made).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rankscope.durable import new_folder, write_file
from rankscope.errors import RankscopeError
from rankscope.training.data.corpus import Tokens, tokens_digest
from rankscope.training.data.corpus_survey import Survey, survey
from rankscope.training.data.held_out import Document, Split
from rankscope.training.data.prepare_settings import TRAINED_SIZE, PrepareSettings, Report
from rankscope.training.data.text_pieces import iter_groups
from rankscope.training.data.text_sources import Reading, Source, find_sources, iter_source
from rankscope.training.data.token_files import RAW_TYPES
from rankscope.training.data.token_folder import (
    TOKENIZER,
    TOKENS,
    Sidecar,
    tokenizer_digest,
    write_sidecar,
)
from rankscope.training.data.token_writer import TokenWriter
from rankscope.training.data.tokenizer import Encoder, byte_encoder, read_encoder, trained_encoder


def prepare_tokens(
    sources: Sequence[str],
    out: Path,
    *,
    settings: PrepareSettings | None = None,
    report: Report | None = None,
) -> Sidecar:
    """Write a prepared folder, as `open_token_folder` reads it: all of it or nothing.

    Parameters
    ----------
    sources
        Files, folders of them, ``hf:ORG/NAME[:config][:split]``; all texts or all ids.
    out
        The folder, which must not exist.
    settings
        How to make it; by default bytes.
    report
        Called now and then.

    Returns
    -------
    What was written.

    Raises
    ------
    RankscopeError
        If something cannot be read, does not fit the settings, or is too little to hold a part
        of it out.
    OSError
        If the folder cannot be written.
    """
    preparation = _Preparation(
        find_sources(sources), settings or PrepareSettings(), report or _say_nothing
    )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise RankscopeError("exists: choose another `out`, or remove it", path=out)
    with new_folder(out) as folder:
        return preparation.write(folder)


class _Preparation:
    """What the readings of one corpus share."""

    def __init__(
        self, sources: Sequence[Source], settings: PrepareSettings, report: Report
    ) -> None:
        self.sources, self.settings, self.report = sources, settings, report
        self.encoder: Encoder | None = None
        if settings.is_file:
            self.encoder = read_encoder(str(settings.tokenizer), settings.end_of_document)
        end = settings.end_id if self.encoder is None else self.encoder.end_of_document
        self.reading = Reading(settings.text_key, settings.dtype, end)

    def write(self, folder: Path) -> Sidecar:
        """Write all files of the folder, the description last."""
        wanted = self.settings.vocab_size
        if wanted is None and self.encoder is not None:
            wanted = self.encoder.vocab_size
        found = survey(self.iter_documents(), self.settings, vocab_size=wanted, report=self.report)
        if found.is_text and self.encoder is None:
            self.encoder = self.new_encoder(found.split)
        vocab_size = self.encoder.vocab_size if self.encoder and found.is_text else wanted or 0
        dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
        with TokenWriter(folder, dtype=dtype, is_text=found.is_text) as writer:
            self.write_documents(writer, found)
            writer.finish()
        sidecar = self.describe(folder, writer, vocab_size=vocab_size)
        if self.encoder is not None:
            write_file(folder / TOKENIZER, self.encoder.tokenizer.encode())
        write_sidecar(folder, sidecar)
        return sidecar

    def new_encoder(self, split: Split) -> Encoder:
        """Encoder for texts that come without one; what is held out is not learned from."""
        if self.settings.tokenizer != "bpe":
            return byte_encoder()
        self.report(0.0, "learning byte pairs")
        parts = (part for _, document in self.iter_documents() for part in split.parts(document))
        texts = (text for held_out, text in parts if not held_out and isinstance(text, str))
        return trained_encoder(texts, self.settings.vocab_size or TRAINED_SIZE)

    def write_documents(self, writer: TokenWriter, found: Survey) -> None:
        """Write the ids of all documents, which must be those of the survey."""
        documents = size = 0

        def parts() -> Iterator[tuple[bool, Document]]:
            nonlocal documents, size
            for _, document in self.iter_documents():
                documents, size = documents + 1, size + len(document)
                yield from (part for part in found.split.parts(document) if len(part[1]))

        for group in iter_groups(parts()):
            for (held_out, part), ids in zip(group, self.encode(group), strict=True):
                writer.add(ids, held_out=held_out, document=part)
            self.report(size / found.size, f"wrote {documents:,} documents")
        if (documents, size) != (found.documents, found.size):
            raise RankscopeError(
                "changed while it was read: prepare it again", path=self.sources[0].name
            )

    def encode(self, group: list[tuple[bool, Document]]) -> list[Tokens]:
        """Ids of each part; those that are ids stay as they are."""
        texts = [part for _, part in group if isinstance(part, str)]
        if self.encoder is None or not texts:
            return [part for _, part in group if not isinstance(part, str)]
        return self.encoder.encode(texts)

    def describe(self, folder: Path, writer: TokenWriter, *, vocab_size: int) -> Sidecar:
        """Describe what was written."""
        training, validation = writer.part(held_out=False), writer.part(held_out=True)
        if not training.tokens or not validation.tokens:
            raise RankscopeError(
                f"holds {training.tokens + validation.tokens} tokens, too few to hold out "
                f"{self.settings.validation_fraction:g} of them",
                path=self.sources[0].name,
            )
        tokens = np.memmap(folder / TOKENS, dtype=RAW_TYPES[writer.dtype], mode="r")
        parts = tokens[: training.tokens], tokens[training.tokens :]
        end, encoder = self.reading.end_of_document, self.encoder
        return Sidecar(
            dtype=writer.dtype,
            vocab_size=vocab_size,
            end_of_document=encoder.end_of_document if encoder else end,
            tokenizer=encoder.kind if encoder else None,
            tokenizer_blake2b=tokenizer_digest(encoder.tokenizer) if encoder else None,
            training=training,
            validation=validation,
            row_tokens=writer.row_tokens(),
            validation_fraction=self.settings.validation_fraction,
            sources=[asdict(source) for source in self.sources],
            digest=tokens_digest(*parts, vocab_size=vocab_size),
        )

    def iter_documents(self) -> Iterator[tuple[Source, Document]]:
        """Yield the documents of all sources, in their order."""
        for source in self.sources:
            for document in iter_source(source, self.reading):
                yield source, document


def _say_nothing(share: float, label: str) -> None:
    pass
