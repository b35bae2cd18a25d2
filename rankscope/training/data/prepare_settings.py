"""What `rankscope data prepare` is told about tokens, and which of it fits texts or ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rankscope.errors import RankscopeError
from rankscope.training.data.token_files import RAW_TYPES

Report = Callable[[float, str], None]  # share of the ids that is written, and what is being done
TRAINED_SIZE = 4096  # of a vocabulary of byte pairs, where none is given
_SMALLEST = 257  # the bytes and an end of document


@dataclass(frozen=True)
class PrepareSettings:
    """How documents become ids, and how many are held out."""

    tokenizer: str | None = None  # "bytes", "bpe", a tokenizer.json; None: bytes, or the ids' own
    vocab_size: int | None = None  # to learn, or that of the ids
    validation_fraction: float = 0.05
    text_key: str = "text"
    end_of_document: str | None = None  # a token of tokenizer.json, or an id where there is none
    dtype: str | None = None  # of token files without a header

    def __post_init__(self) -> None:
        if not (self.tokenizer in (None, "bytes", "bpe") or self.is_file):
            raise RankscopeError(
                f"--tokenizer {self.tokenizer} is none of bytes, bpe, PATH/tokenizer.json"
            )
        if not 0 < self.validation_fraction <= 0.5:
            raise RankscopeError(
                f"--validation-fraction {self.validation_fraction} must lie in (0, 0.5]"
            )
        if self.dtype not in (None, *RAW_TYPES):
            raise RankscopeError(f"--dtype {self.dtype} is none of {', '.join(RAW_TYPES)}")
        smallest = _SMALLEST if self.tokenizer == "bpe" else 1
        if self.vocab_size is not None and not smallest <= self.vocab_size <= 1 << 32:
            raise RankscopeError(f"--vocab-size {self.vocab_size} must be at least {smallest}")

    @property
    def is_file(self) -> bool:
        """Whether the tokenizer is a file."""
        return self.tokenizer is not None and self.tokenizer.endswith(".json")

    @property
    def end_id(self) -> int | None:
        """Id that ends a document, where it was given as one."""
        if self.end_of_document is None or self.is_file:
            return None
        try:
            return int(self.end_of_document)
        except ValueError:
            raise RankscopeError(
                f"--end-of-document {self.end_of_document} is no id, and without --tokenizer "
                "PATH/tokenizer.json nothing says which id it has"
            ) from None

    def check_for_texts(self) -> None:
        """Raise `RankscopeError` if something is given that texts have no use for."""
        if self.vocab_size is not None and self.tokenizer != "bpe":
            raise RankscopeError(
                f"--vocab-size {self.vocab_size} is for --tokenizer bpe and for token ids; "
                "another tokenizer has its own"
            )
        if self.end_of_document is not None and not self.is_file:
            raise RankscopeError(
                f"--end-of-document {self.end_of_document} is for a tokenizer.json and for token "
                "ids; another tokenizer has its own"
            )

    def check_for_ids(self) -> None:
        """Raise `RankscopeError` if something is given or missing that ids cannot be read with."""
        if self.tokenizer is not None and not self.is_file:
            raise RankscopeError(
                f"--tokenizer {self.tokenizer} is for text, but the source holds token ids: leave "
                "it out, or give the tokenizer.json that they were made with"
            )
        if self.tokenizer is None and self.vocab_size is None:
            raise RankscopeError(
                "the source holds token ids: say what their vocabulary is, with --vocab-size or "
                "--tokenizer PATH/tokenizer.json"
            )
