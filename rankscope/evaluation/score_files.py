"""The score store: one file per run, step and task, from which all numbers of the table derive.

A file holds vectors (`rankscope.results.vectors`): the difference of every minimal pair, or loss,
tokens, bytes and words of every document; its description says which. Another measure, or a
comparison of two models pair by pair, need not run a model again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import DAMAGE, RankscopeError
from rankscope.results.vectors import read_vectors, write_vectors
from rankscope.scoring.accuracy import accuracy_measures
from rankscope.scoring.blimp import Paradigm
from rankscope.scoring.perplexity import DocumentScores, perplexity_measures
from rankscope.statistics.intervals import Measure

VERSION, OLDER = "2", ("1",)  # of arithmetic and file: numbers of other versions are never reused
_VECTORS = ("losses", "tokens", "bytes", "words", "first_losses", "first_tokens")


@dataclass(frozen=True)
class PairScores:
    """Scores of a model on minimal pairs: ln p(good) − ln p(bad) of each, in nats."""

    paradigms: tuple[Paradigm, ...]
    differences: NDArray[np.float64]  # (n,), paradigm after paradigm


Scores = PairScores | DocumentScores


@dataclass(frozen=True)
class ScoreFile:
    """The scores of one checkpoint on one task.

    Attributes
    ----------
    key
        Digest of everything that they depend on.
    prefix
        The token before every text, in words.
    seconds
        How long scoring took.
    """

    key: str
    step: int
    prefix: str
    seconds: float
    scores: Scores

    @cached_property
    def measures(self) -> list[Measure]:
        """Every number of the table that derives from these scores."""
        if isinstance(self.scores, PairScores):
            return accuracy_measures(self.scores.differences, self.scores.paradigms)
        return perplexity_measures(self.scores)

    @property
    def count(self) -> int:
        """Number of pairs, or of scored tokens."""
        scores = self.scores
        return (
            len(scores.differences) if isinstance(scores, PairScores) else int(scores.tokens.sum())
        )

    @property
    def non_finite(self) -> int:
        """Number of pairs or documents whose score is NaN or infinite."""
        scores = self.scores
        values = scores.differences if isinstance(scores, PairScores) else scores.losses
        return int((~np.isfinite(values)).sum())


def write_scores(path: Path, file: ScoreFile) -> None:
    """Write the scores of one checkpoint on one task, replacing the file in one go."""
    about: dict[str, Any] = {
        "key": file.key,
        "step": file.step,
        "prefix": file.prefix,
        "seconds": file.seconds,
    }
    if isinstance(file.scores, PairScores):
        about |= {"kind": "pairs", "paradigms": [asdict(one) for one in file.scores.paradigms]}
        arrays = {"differences": file.scores.differences}
    else:
        scores = file.scores
        about |= {"kind": "text", "is_prefixed": scores.is_prefixed}
        about |= {"sources": scores.sources, "domains": scores.domains}
        vectors = {name: getattr(scores, name) for name in _VECTORS}
        arrays = {name: vector for name, vector in vectors.items() if vector is not None}
    write_vectors(path, arrays, about, version=VERSION)


def read_scores(path: Path, *, older: Collection[str] = OLDER) -> ScoreFile:
    """Read the scores of one checkpoint on one task, also of these older versions.

    Raises
    ------
    OtherVersionError
        If the file is of yet another version.
    RankscopeError
        If it is damaged or missing.
    """
    arrays, about = read_vectors(path, version=VERSION, older=older)
    try:
        key, step, prefix, seconds = (about[name] for name in ("key", "step", "prefix", "seconds"))
        _require(type(step) is int and isinstance(seconds, int | float), "a step and a time")
        _require(isinstance(key, str) and isinstance(prefix, str), "a key and a prefix")
        return ScoreFile(key, step, prefix, seconds, _scores(about, arrays))
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error


def _scores(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Scores:
    if about["kind"] == "pairs":
        return _pairs(about["paradigms"], arrays["differences"])
    names = ("first_losses", "first_tokens") if "first_losses" in arrays else ()
    losses, *counts = (arrays[name] for name in _VECTORS[:4])
    first_losses, first_tokens = (arrays[name] for name in names) if names else (None, None)
    origins = about["sources"], about["domains"]
    _require(all(_is_vector(one, "f") for one in (losses, first_losses)), "losses")
    _require(all(_is_vector(one, "iu") for one in (*counts, first_tokens)), "counts")
    _require(all(isinstance(some, list) for some in origins), "lists of names")
    _require(all(one is None or isinstance(one, str) for some in origins for one in some), "names")
    vectors = (losses, *counts, *origins, *(arrays[name] for name in names))
    _require({len(one) for one in vectors} == {len(losses)} != {0}, "one of each for a document")
    return DocumentScores(
        losses=losses,
        tokens=counts[0],
        bytes=counts[1],
        words=counts[2],
        first_losses=first_losses,
        first_tokens=first_tokens,
        sources=tuple(about["sources"]),
        domains=tuple(about["domains"]),
        is_prefixed=bool(about["is_prefixed"]),
    )


def _pairs(listed: list[dict[str, Any]], differences: NDArray[Any]) -> PairScores:
    paradigms = tuple(Paradigm(**one) for one in listed)
    texts = (text for one in paradigms for text in (one.uid, one.phenomenon, one.field))
    counts = [one.count for one in paradigms]
    _require(all(isinstance(text, str) for text in texts), "names of paradigms")
    _require(all(type(count) is int and count > 0 for count in counts), "numbers of pairs")
    _require(_is_vector(differences, "f"), "differences")
    _require(sum(counts) == len(differences) > 0, "a difference for each pair")
    return PairScores(paradigms, differences)


def _is_vector(array: NDArray[Any] | None, kinds: str) -> bool:
    return array is None or (array.ndim == 1 and array.dtype.kind in kinds)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"it does not hold {what}")
