"""The probe: windows of text that every model with the same tokenizer is given.

Which documents are taken, and in which block each of them is, follows from their text alone, so two
runs with one tokenizer are looked into on the same tokens.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.representations.feature_sums import BLOCKS
from rankscope.scoring.text_documents import TextDocument
from rankscope.scoring.text_model import TextEncoder

Features = Literal["all", "last"]
Ids = NDArray[np.int64]
CHARACTERS = 16  # per token, at most: texts beyond what they can fill are not kept
WINDOW = 512  # tokens
LEAST = 1 << 14  # tokens of a probe of all tokens; four for each of 4096 dimensions
PER_DIMENSION = 4


@dataclass(frozen=True)
class ProbeOptions:
    """How a probe is cut, as in the parameters of `rankscope.represent`."""

    features: Features = "all"
    tokens: int | None = None
    window: int | None = None
    kept: int = 2048

    def wanted(self, dimensions: int) -> int:
        """Number of features to collect: a power of two unless it is given."""
        if self.tokens is not None:
            return self.tokens
        least = LEAST if self.features == "all" else 1
        return max(least, 1 << (PER_DIMENSION * dimensions - 1).bit_length())

    def reach(self, wanted: int, longest: int) -> int:
        """Tokens of text that the features are found in."""
        return wanted if self.features == "all" else wanted * longest

    def longest(self, context: int) -> int:
        """Tokens that a model with this context is given at once, including the prefix."""
        return min(WINDOW if self.window is None else self.window, context)


@dataclass(frozen=True)
class ProbeWindow:
    """Tokens that a model is given at once.

    Attributes
    ----------
    ids
        (t,), with the prefix.
    block
        The block that its document is in.
    counted
        Positions whose features are collected, ascending.
    kept
        Those of them whose features are kept for comparisons.
    """

    ids: Ids
    block: int
    counted: NDArray[np.int64]
    kept: NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """What every model with one tokenizer is given.

    Attributes
    ----------
    windows
        Ordered by block.
    documents
        Number of documents that they are from.
    digest
        Digest of the token ids, and of what is collected and kept of them.
    """

    windows: tuple[ProbeWindow, ...]
    documents: int
    digest: str

    @property
    def count(self) -> int:
        """Number of features that are collected."""
        return sum(len(window.counted) for window in self.windows)

    @property
    def kept_blocks(self) -> NDArray[np.int64]:
        """The block of each kept feature, in their order."""
        counts = [len(window.kept) for window in self.windows]
        return np.repeat(np.array([window.block for window in self.windows], np.int64), counts)


def probe_texts(documents: Iterable[TextDocument], tokens: int, longest: int) -> list[str]:
    """The texts that a probe is made of, in the order of a digest of each.

    Only as many as may fill the probe are in memory at any time. Documents with the same text are
    one.

    Parameters
    ----------
    tokens
        How many to collect.
    longest
        Tokens of a window: more of a document is taken only where there are too few documents.
    """
    room, first = tokens * CHARACTERS, longest * CHARACTERS
    kept: list[tuple[int, str]] = []  # the greatest digest is on top
    there, held = set[int](), 0
    for document in documents:
        digest = hashlib.blake2b(document.text.encode("utf-8", "surrogatepass"), digest_size=16)
        order = -int.from_bytes(digest.digest(), "big")
        if order in there:
            continue
        there.add(order)
        heapq.heappush(kept, (order, document.text[:room]))
        held += min(len(document.text), first)
        while held - min(len(kept[0][1]), first) >= room:
            gone, text = heapq.heappop(kept)
            there.remove(gone)
            held -= min(len(text), first)
    return [text for _, text in sorted(kept, reverse=True)]


def make_probe(
    encoder: TextEncoder, texts: Sequence[str], options: ProbeOptions, tokens: int, longest: int
) -> Probe:
    """Cut texts into the windows of a probe.

    The first windows of all texts come before the second windows of any, until there are enough
    tokens: many documents tell more than long ones.

    Parameters
    ----------
    texts
        As `probe_texts` orders them; text number i is in block i mod 16.
    tokens
        How many features to collect; fewer if the texts are shorter.
    longest
        Tokens of a window, including the prefix.

    Raises
    ------
    RankscopeError
        If no text gives a token, or a window has no room for one.
    """
    start = [] if encoder.prefix is None else [encoder.prefix]
    room = longest - len(start)
    if room < 1:
        raise RankscopeError(f"`window` is {longest}: it leaves no room for a token of text")
    encoded = [ids for ids in encoder.encode(texts) if ids]
    found: list[tuple[int, list[int], int]] = []  # block, ids, first position that counts
    numbers, missing = set[int](), tokens
    for begin in range(0, max(map(len, encoded), default=0), room):
        for number, ids in enumerate(encoded):
            part = ids[begin : begin + room]
            if not part or missing <= 0:
                continue
            part = part if options.features == "last" else part[:missing]
            missing -= 1 if options.features == "last" else len(part)
            numbers.add(number)
            found.append((number % BLOCKS, start + part, len(start)))
    if not found:
        raise RankscopeError(f"none of {len(texts)} documents gives a token: give other text")
    windows = _with_kept(sorted(found, key=lambda one: one[0]), options)
    return Probe(windows, len(numbers), _digest(encoder, windows))


def _with_kept(
    found: Sequence[tuple[int, list[int], int]], options: ProbeOptions
) -> tuple[ProbeWindow, ...]:
    """Windows with their counted positions, of which evenly spread ones are kept."""
    counted = [
        np.arange(len(ids) - 1 if options.features == "last" else first, len(ids))
        for _, ids, first in found
    ]
    total = sum(map(len, counted))
    is_kept = np.zeros(total, bool)
    is_kept[np.arange(min(options.kept, total)) * total // max(min(options.kept, total), 1)] = True
    starts = np.cumsum([0, *map(len, counted)])
    return tuple(
        ProbeWindow(np.array(ids, np.int64), block, some, some[is_kept[starts[i] : starts[i + 1]]])
        for i, ((block, ids, _), some) in enumerate(zip(found, counted, strict=True))
    )


def _digest(encoder: TextEncoder, windows: Iterable[ProbeWindow]) -> str:
    digest = hashlib.blake2b(encoder.digest.encode(), digest_size=16)
    for window in windows:
        sizes = [window.block, len(window.ids), len(window.counted), len(window.kept)]
        for numbers in (np.array(sizes), window.ids, window.counted, window.kept):
            digest.update(numbers.astype("<i8").tobytes())
    return digest.hexdigest()
