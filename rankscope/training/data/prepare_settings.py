"""How `rankscope data prepare` makes tokens, and which settings fit texts and which fit ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rankscope.errors import WrongSettingError
from rankscope.training.data.token_files import ID_TYPES, IdType

Report = Callable[[float, str], None]  # share of the ids that is written, and the current work
TRAINED_SIZE = 4096  # of a vocabulary of byte pairs, by default
_SMALLEST = 257  # the bytes and an end of document


@dataclass(frozen=True)
class PrepareSettings:
    """How documents become ids, and how many are held out."""

    tokenizer: str | None = None  # "bytes", "bpe", a tokenizer.json; None: bytes, or the ids' own
    vocab_size: int | None = None  # of byte pairs to learn, or of the ids
    validation_fraction: float = 0.05
    text_key: str = "text"
    end_of_document: str | None = None  # a token of tokenizer.json, or an id where there is none
    dtype: IdType | None = None  # of token files without a header

    def __post_init__(self) -> None:
        if not (self.tokenizer in (None, "bytes", "bpe") or self.is_file):
            raise WrongSettingError(
                f"unknown `tokenizer` {self.tokenizer!r}: choose from bytes, bpe, "
                "PATH/tokenizer.json"
            )
        if not 0 < self.validation_fraction <= 0.5:
            raise WrongSettingError(
                f"`validation_fraction` {self.validation_fraction} is not in (0, 0.5]"
            )
        if self.dtype not in (None, *ID_TYPES):
            raise WrongSettingError(
                f"unknown `dtype` {self.dtype!r}: choose from {', '.join(ID_TYPES)}"
            )
        smallest = _SMALLEST if self.tokenizer == "bpe" else 1
        if self.vocab_size is not None and not smallest <= self.vocab_size <= 1 << 32:
            raise WrongSettingError(f"`vocab_size` {self.vocab_size} is not at least {smallest}")

    @property
    def is_file(self) -> bool:
        """Whether the tokenizer is a file."""
        return self.tokenizer is not None and self.tokenizer.endswith(".json")

    @property
    def end_id(self) -> int | None:
        """Id that ends a document, where it was given as an id."""
        if self.end_of_document is None or self.is_file:
            return None
        try:
            return int(self.end_of_document)
        except ValueError:
            raise WrongSettingError(
                f"`end_of_document` {self.end_of_document!r} is not an id, and only a "
                "tokenizer.json as `tokenizer` says which id a token has"
            ) from None

    def check_for_texts(self) -> None:
        """Raise `WrongSettingError` if something is given that texts have no use for."""
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise WrongSettingError(
                f"`vocab_size` {self.vocab_size} is for token ids and for byte pairs, which are "
                "`tokenizer` bpe; other tokenizers have a fixed size"
            )
        if self.end_of_document is not None and not self.is_file:
            raise WrongSettingError(
                f"`end_of_document` {self.end_of_document!r} is for token ids and for a "
                "tokenizer.json; other tokenizers have one already"
            )

    def check_for_ids(self) -> None:
        """Raise `WrongSettingError` if something is given or missing that ids need."""
        if self.tokenizer is not None and not self.is_file:
            raise WrongSettingError(
                f"`tokenizer` {self.tokenizer} is for text, but the source holds token ids: leave "
                "it out, or give the tokenizer.json that they were made with"
            )
        if self.tokenizer is None and self.vocab_size is None:
            raise WrongSettingError(
                "the source holds token ids: state the size of their vocabulary as `vocab_size`, "
                "or give their tokenizer.json as `tokenizer`"
            )
