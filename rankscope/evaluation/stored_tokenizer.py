"""Tokenizers as stored with a model: ``tokenizer.json``, or older files that transformers reads.

A ``tokenizer.json`` is read by the tokenizers library directly. Transformers 5 keeps only its
vocabulary and merges where ``tokenizer_config.json`` or the model names one of its tokenizer
classes, and builds the rest by the rules of that class: a model that was trained with other rules
would get ids that it never saw.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.files.config_files import read_json
from rankscope.errors import RankscopeError, first_line
from rankscope.evaluation.libraries import quiet_transformers
from rankscope.evaluation.prefix import Vocabulary
from rankscope.training.data.corpus_tokenizer import encoding_by
from rankscope.training.data.tokenizer import USUAL_ENDS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
OLDER_FILES = (
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class StoredTokenizer:
    """A tokenizer from disk.

    Attributes
    ----------
    encode
        Ids of each text, without special tokens; the name of one within a text is plain text.
    ids
        Id of every token by its text.
    special
        Ids of the tokens that were added to the vocabulary.
    bos, eos
        The tokens that begin and end a text, where the tokenizer's files name them.
    stored
        Everything that the ids depend on.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    ids: Mapping[str, int]
    special: frozenset[int]
    bos: str | None
    eos: str | None
    stored: str

    def vocabulary(self, config: Mapping[str, Any], *, is_own: bool) -> Vocabulary:
        """Its tokens; its own files, else the model's, say which begin and end a text.

        Parameters
        ----------
        config
            The model's ``config.json``.
        is_own
            Whether this package's trainer wrote the model, whose config states what ended its
            documents. Other configs often state ids of another tokenizer, so they count only if
            they are special tokens here.
        """
        known = frozenset(self.ids.values()) if is_own else self.special
        bos, eos = self._special(self.bos), self._special(self.eos)
        bos = _stated_id(config, "bos_token_id", known) if bos is None else bos
        eos = _stated_id(config, "eos_token_id", known) if eos is None else eos
        if eos is None:
            eos = next((self.ids[name] for name in USUAL_ENDS if name in self.ids), None)
        return Vocabulary(self.ids, bos, eos)

    def _special(self, token: str | None) -> int | None:
        return None if token is None else self.ids.get(token)


def find_tokenizer(paths: Sequence[Path], *, trust_remote_code: bool) -> StoredTokenizer | None:
    """Read the tokenizer of the first path that has one; None if none does.

    Parameters
    ----------
    paths
        Folders, or files such as ``tokenizer.json``.
    trust_remote_code
        Whether code next to an older tokenizer's files may be run.

    Raises
    ------
    RankscopeError
        If its files are damaged, or are older ones and transformers is not installed.
    """
    for path in paths:
        if path.is_file():
            return _read_file(path)
        if (path / FILE).is_file():
            return _read_file(path / FILE)
        if _has_older(path):
            return _read_older(path, trust_remote_code=trust_remote_code)
    return None


def _has_older(folder: Path) -> bool:
    """Whether there is a vocabulary, or code to read one; settings alone are not a tokenizer."""
    has_code = "auto_map" in read_json(folder / SETTINGS)
    return has_code or any((folder / name).is_file() for name in OLDER_FILES)


def _read_file(path: Path) -> StoredTokenizer:
    try:
        found = _from_file(path.read_bytes())
    except Exception as error:  # the library raises nothing more specific
        raise _unreadable(path, error) from None
    bos, eos = (_stated_token(path.parent, name) for name in ("bos_token", "eos_token"))
    return replace(found, bos=bos, eos=eos)


@lru_cache(maxsize=4)  # checkpoints of a run often have a copy of the same file each
def _from_file(content: bytes) -> StoredTokenizer:
    from tokenizers import Tokenizer

    stored = content.decode()
    return _of_library(Tokenizer.from_str(stored), stored, bos=None, eos=None)


def _of_library(
    tokenizer: Tokenizer, stored: str, *, bos: str | None, eos: str | None
) -> StoredTokenizer:
    encode = encoding_by(tokenizer, stored)
    return StoredTokenizer(
        encode=lambda texts: [ids.tolist() for ids in encode(texts)],
        ids=tokenizer.get_vocab(with_added_tokens=True),
        special=frozenset(tokenizer.get_added_tokens_decoder()),
        bos=bos,
        eos=eos,
        stored=stored,
    )


def _read_older(folder: Path, *, trust_remote_code: bool) -> StoredTokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise RankscopeError(
            f"has a tokenizer without {FILE}, and reading it needs transformers: "
            'pip install "rankscope[transformers]"',
            path=folder,
        ) from None
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust_remote_code
            )
        except Exception as error:  # a library of many authors, or the folder's own code
            raise _unreadable(folder, error) from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # Transformers builds a tokenizer even where it finds no vocabulary.
        raise RankscopeError("lacks the vocabulary of its tokenizer", path=folder)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        return _of_library(
            backend, backend.to_str(), bos=tokenizer.bos_token, eos=tokenizer.eos_token
        )
    ids = tokenizer.get_vocab()
    settings = {name: str(value) for name, value in sorted(tokenizer.init_kwargs.items())}
    return StoredTokenizer(
        encode=_encode_with(tokenizer),
        ids=ids,
        special=frozenset(tokenizer.all_special_ids),
        bos=tokenizer.bos_token,
        eos=tokenizer.eos_token,
        stored=json.dumps([type(tokenizer).__name__, ids, settings], sort_keys=True),
    )


def _encode_with(tokenizer: Any) -> Callable[[Sequence[str]], list[list[int]]]:
    """Encoding by a tokenizer that is written in Python."""

    def encode(texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        with quiet_transformers():
            found = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)
        return [list(map(int, ids)) for ids in found["input_ids"]]

    return encode


def _stated_token(folder: Path, name: str) -> str | None:
    for file in (SETTINGS, SPECIAL):
        token = read_json(folder / file).get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return None


def _stated_id(config: Mapping[str, Any], name: str, known: frozenset[int]) -> int | None:
    stated = config.get(name)
    first = stated[0] if isinstance(stated, list) and stated else stated
    return first if isinstance(first, int) and first in known else None


def _unreadable(path: Path, error: Exception) -> RankscopeError:
    reason = getattr(error, "strerror", None) or first_line(error)
    return RankscopeError(f"cannot be read as a tokenizer: {reason}", path=path)
