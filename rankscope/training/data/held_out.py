"""Which documents are held out for validation: whole ones, chosen by a hash of what they hold.

The choice depends on no seed and on no order, and copies of a document are on the same side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.training.data.corpus import Tokens

Document = str | Tokens


def document_digest(document: Document) -> int:
    """First 64 bits of the BLAKE2b hash of a text's UTF-8 bytes, or of ids as uint32."""
    if isinstance(document, str):
        digest = hashlib.blake2b(document.encode(errors="surrogatepass"))
    else:
        digest = hashlib.blake2b()
        for start in range(0, len(document), 1 << 22):
            digest.update(document[start : start + (1 << 22)].astype("<u4").tobytes())
    return int.from_bytes(digest.digest()[:8], "big")


def held_out_below(
    digests: NDArray[np.uint64], sizes: NDArray[np.uint64], *, fraction: float
) -> int:
    """Digest below which documents are held out.

    Documents are taken in the order of their digests until ``fraction`` of the total size is
    reached; the last distinct one is always left to train on. So the part that is held out is
    never smaller than wanted, and larger by less than one document and its copies.

    Parameters
    ----------
    digests, sizes
        Of all documents, (n,) each with n >= 1; copies have the same digest.
    fraction
        In (0, 1).

    Returns
    -------
    A digest of one of the documents: 0 documents are below it only where all are copies of one.
    """
    order = np.argsort(digests)
    ordered, ordered_sizes = digests[order], sizes[order]
    before = np.cumsum(ordered_sizes) - ordered_sizes
    # Copies are taken together, so what counts is the size before the first of them.
    before = before[np.searchsorted(ordered, ordered)]
    enough = ordered[before >= fraction * float(sizes.sum())]
    return int(enough[0] if len(enough) else ordered[-1])


def hold_out(documents: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split documents into those to train on and those to validate on, see `held_out_below`.

    Nothing is held out where there is only one document.
    """
    digests = [document_digest(text) for text in documents]
    below = held_out_below(
        np.array(digests, dtype=np.uint64),
        np.array([len(text) for text in documents], dtype=np.uint64),
        fraction=fraction,
    )
    sides = list(zip(digests, documents, strict=True))
    return [t for d, t in sides if d >= below], [t for d, t in sides if d < below]


@dataclass(frozen=True)
class Split:
    """On which side each document of a corpus is."""

    below: int  # as `held_out_below` returns it
    cut: float = 0.0  # share of each document to hold out, where there is only one to choose from

    def parts(self, document: Document) -> Iterator[tuple[bool, Document]]:
        """Yield what is held out (True) and what is not: the whole, or the last part of it."""
        if not self.cut:
            yield document_digest(document) < self.below, document
            return
        place = len(document) - round(self.cut * len(document))
        yield False, document[:place]
        yield True, document[place:]
