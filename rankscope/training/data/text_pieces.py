"""Long texts in pieces, and short ones in groups, so that encoding takes little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

PIECE = 1 << 17  # characters
GROUP = 1 << 21  # characters: some for every core, each of which takes about 100 bytes meanwhile
_END_OF_LINE = re.compile(r"(?<=\S)\n")

Key = TypeVar("Key")
Part = TypeVar("Part", bound=Sized)


def iter_pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of about `PIECE` characters that end where a line does.

    Where `cuts_at_lines` holds, the ids of the pieces are the ids of the text.
    """
    start = 0
    while place := _END_OF_LINE.search(text, start + PIECE):
        yield text[start : place.start()]
        start = place.start()
    yield text[start:]


def cuts_at_lines(stored: str) -> bool:
    """Whether a tokenizer.json never joins the end of a line with what stands before it.

    GPT-2's expression for words, that of `train_bpe`, matches either white space or what is none,
    and what it matches does not depend on what stands before. Others join a full stop and the end
    of its line, or begin every text with a space, so they get texts as they are.
    """
    described = json.loads(stored)
    words = described.get("pre_tokenizer") or {}
    return (
        words.get("type") == "ByteLevel"
        and words.get("use_regex", True)
        and not words.get("add_prefix_space")
        and described.get("normalizer") is None
        and all(token["special"] for token in described.get("added_tokens") or ())
    )


def iter_groups(
    parts: Iterable[tuple[Key, Part]], *, size: int = GROUP
) -> Iterator[list[tuple[Key, Part]]]:
    """Yield the parts some at a time, until together they are at least as long as ``size``."""
    group, length = list[tuple[Key, Part]](), 0
    for key, part in parts:
        group.append((key, part))
        length += len(part)
        if length >= size:
            yield group
            group, length = [], 0
    if group:
        yield group
