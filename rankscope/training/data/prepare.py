"""From texts or ids to a prepared folder, in two or three passes over the sources.

The first chooses what is held out, the second learns byte pairs from the rest if they are wanted,
and the last writes the ids. So a corpus need not fit into memory: only one document of it, a few
megabytes at a time, and 24 bytes per document (about 60 for a moment, while the choice is made).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from rankscope.durable import new_folder, write_file
from rankscope.errors import RankscopeError, WrongSettingError, require_folder
from rankscope.groups import iter_groups
from rankscope.training.data.corpus_tokenizer import GROUP, CorpusTokenizer
from rankscope.training.data.document_sources import Content, Source, find_sources, iter_source
from rankscope.training.data.held_out import Split, Survey, survey
from rankscope.training.data.prepare_settings import TRAINED_SIZE, PrepareSettings, Report
from rankscope.training.data.token_files import IdType, Tokens, id_dtype, tokens_digest
from rankscope.training.data.token_folder import (
    TOKENIZER,
    TOKENS,
    Sidecar,
    TokenWriter,
    token_writer,
    tokenizer_digest,
    write_sidecar,
)


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
        The folder, which must not exist unless it is empty.
    settings
        How to make it; by default of bytes.
    report
        Called now and then.

    Returns
    -------
    The description of what was written.

    Raises
    ------
    WrongSettingError
        If a source is not there, the settings do not fit the sources, or ``out`` exists.
    RankscopeError
        If a source cannot be read, or there is too little to hold a part of it out.
    OSError
        If the folder cannot be written.
    """
    preparation = _Preparation(
        find_sources(sources), settings or PrepareSettings(), report or _say_nothing
    )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise WrongSettingError("exists: choose another `out`, or remove it", path=out)
    require_folder(out)
    with new_folder(out) as folder:
        return preparation.write(folder)


class _Preparation:
    """What the passes over one corpus share."""

    def __init__(
        self, sources: Sequence[Source], settings: PrepareSettings, report: Report
    ) -> None:
        self.sources, self.settings, self.report = sources, settings, report
        self.tokenizer: CorpusTokenizer | None = None
        self.end = settings.end_id
        if settings.is_file:
            self.tokenizer = CorpusTokenizer.read(str(settings.tokenizer), settings.end_of_document)
            self.end = self.tokenizer.end_of_document

    def write(self, folder: Path) -> Sidecar:
        """Write all files of the folder, the description last."""
        vocab_size = self.settings.vocab_size
        if vocab_size is None and self.tokenizer is not None:
            vocab_size = self.tokenizer.vocab_size
        known = survey(
            self.iter_documents(), self.settings, vocab_size=vocab_size, report=self.report
        )
        if known.is_text:
            self.tokenizer = self.tokenizer or self.new_tokenizer(known.split)
            vocab_size = self.tokenizer.vocab_size
        dtype: IdType = "uint16" if (vocab_size or 0) <= 1 << 16 else "uint32"
        with token_writer(folder, dtype=dtype, is_text=known.is_text) as writer:
            self.write_documents(writer, known)
        sidecar = self.describe(folder, writer, vocab_size=vocab_size or 0)
        if self.tokenizer is not None:
            write_file(folder / TOKENIZER, self.tokenizer.stored.encode())
        write_sidecar(folder, sidecar)
        return sidecar

    def new_tokenizer(self, split: Split) -> CorpusTokenizer:
        """Tokenizer for texts that come without one; it learns nothing from what is held out."""
        if self.settings.tokenizer != "bpe":
            return CorpusTokenizer.of_bytes()
        self.report(0.0, "learning byte pairs")
        parts = (part for _, document in self.iter_documents() for part in split.parts(document))
        texts = (text for held_out, text in parts if not held_out and isinstance(text, str))
        return CorpusTokenizer.learned_from(texts, self.settings.vocab_size or TRAINED_SIZE)

    def write_documents(self, writer: TokenWriter, known: Survey) -> None:
        """Write the ids of all documents, which must be those of the survey."""
        documents = size = 0

        def parts() -> Iterator[tuple[bool, Content]]:
            nonlocal documents, size
            for _, document in self.iter_documents():
                documents, size = documents + 1, size + len(document)
                yield from (part for part in known.split.parts(document) if len(part[1]))

        for group in iter_groups(parts(), lambda part: len(part[1]), size=GROUP):
            contents = [content for _, content in group]
            for (held_out, content), ids in zip(group, self.encode(contents), strict=True):
                text = content if isinstance(content, str) else None
                writer.add(ids, held_out=held_out, text=text)
            self.report(size / known.size, f"wrote {documents:,} documents")
        if (documents, size) != (known.documents, known.size):
            raise RankscopeError(
                "changed while it was read: prepare it again", path=self.sources[0].name
            )

    def encode(self, contents: Sequence[Content]) -> list[Tokens]:
        """Ids of texts, all with the end of a document; those that are ids stay as they are."""
        texts = [content for content in contents if isinstance(content, str)]
        if self.tokenizer is None or not texts:
            return [content for content in contents if not isinstance(content, str)]
        return self.tokenizer.encode(texts)

    def describe(self, folder: Path, writer: TokenWriter, *, vocab_size: int) -> Sidecar:
        """Describe what was written."""
        training, validation = writer.amount(held_out=False), writer.amount(held_out=True)
        if not training.tokens or not validation.tokens:
            raise RankscopeError(
                f"holds {training.tokens + validation.tokens} tokens, too few to hold out "
                f"{self.settings.validation_fraction:g} of them",
                path=self.sources[0].name,
            )
        tokens = np.memmap(folder / TOKENS, dtype=id_dtype(writer.dtype), mode="r")
        parts = tokens[: training.tokens], tokens[training.tokens :]
        return Sidecar(
            dtype=writer.dtype,
            vocab_size=vocab_size,
            end_of_document=self.tokenizer.end_of_document if self.tokenizer else self.end,
            tokenizer=self.tokenizer.kind if self.tokenizer else None,
            tokenizer_blake2b=tokenizer_digest(self.tokenizer.stored) if self.tokenizer else None,
            training=training,
            validation=validation,
            row_tokens=writer.row_tokens(),
            validation_fraction=self.settings.validation_fraction,
            sources=[asdict(source) for source in self.sources],
            digest=tokens_digest(*parts, vocab_size=vocab_size),
        )

    def iter_documents(self) -> Iterator[tuple[Source, Content]]:
        """Yield the documents of all sources, in their order."""
        for source in self.sources:
            for document in iter_source(source, self.settings, end_of_document=self.end):
                yield source, document


def _say_nothing(share: float, label: str) -> None:
    pass
