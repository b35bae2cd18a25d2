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

from rankscope.errors import RankscopeError
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


def score_path(out: Path, folder: str, step: int) -> Path:
    """File of one step in a folder of scores."""
    return out / folder / f"step-{step:08d}.safetensors"


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
        return ScoreFile(
            about["key"], about["step"], about["prefix"], about["seconds"], _scores(about, arrays)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error


def _scores(about: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Scores:
    if about["kind"] == "pairs":
        paradigms = tuple(Paradigm(**one) for one in about["paradigms"])
        return PairScores(paradigms, arrays["differences"])
    return DocumentScores(
        losses=arrays["losses"],
        tokens=arrays["tokens"],
        bytes=arrays["bytes"],
        words=arrays["words"],
        first_losses=arrays.get("first_losses"),
        first_tokens=arrays.get("first_tokens"),
        sources=tuple(about["sources"]),
        domains=tuple(about["domains"]),
        is_prefixed=about["is_prefixed"],
    )
