"""What checkpoints are evaluated on: text sets, the text a run held out, minimal pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError
from rankscope.evaluation.held_out_text import held_out_digest, held_out_documents
from rankscope.evaluation.score_files import PairScores, Scores
from rankscope.evaluation.text_sets import BLIMP, HELD_OUT, TextSet, text_sets
from rankscope.scoring.blimp import Blimp, read_blimp
from rankscope.scoring.text_documents import (
    Document,
    EncodedDocuments,
    encode_documents,
    score_documents,
)
from rankscope.scoring.text_model import TextEncoder, TextModel

if TYPE_CHECKING:
    from rankscope.scoring.minimal_pairs import EncodedPairs

Progress = Callable[[float], None]  # share of the task that is done


class Task(Protocol):
    """One thing that every checkpoint is scored on."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    def settings(self, run: Run) -> dict[str, Any]:
        """All that the scores depend on but the model; plain values, for the record.

        Raises
        ------
        RankscopeError
            If the run has not got what it would be scored on.
        """

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Tokenise what is scored, once for all models with the same tokenizer.

        Raises
        ------
        RankscopeError
            If the text cannot be read.
        """

    def score(self, model: TextModel, run: Run, progress: Progress) -> Scores:
        """Score a model.

        Raises
        ------
        RankscopeError
            If the model does not take it.
        """


@dataclass(frozen=True)
class Windows:
    """How documents are cut for a model that takes only so many tokens at once.

    Attributes
    ----------
    length
        Input tokens of a window; None for what the model takes.
    stride
        Tokens from one window to the next; None for the length, and no overlap.
    document_perplexity
        Whether the study's number is wanted too, the mean of the perplexities of the documents'
        first windows without a prefix; it takes passes of its own.
    """

    length: int | None = None
    stride: int | None = None
    document_perplexity: bool = True

    def __post_init__(self) -> None:
        for name, tokens in (("window", self.length), ("stride", self.stride)):
            if tokens is not None and tokens < 1:
                raise RankscopeError(f"a {name} of {tokens} tokens takes nothing: give 1 or more")
        if self.length is not None and self.stride is not None and self.stride > self.length:
            raise RankscopeError(
                f"a stride of {self.stride} tokens passes over some, with a window of "
                f"{self.length}: give one of 1 to the window"
            )


@dataclass
class TextTask:
    """Likelihood of documents."""

    name: str
    documents: Callable[[Run], Iterable[Document]]
    digest: Callable[[Run], str]
    windows: Windows
    max_documents: int | None
    _encoded: dict[str, EncodedDocuments] = field(default_factory=dict, init=False)

    def settings(self, run: Run) -> dict[str, Any]:
        """Data, and how it is cut into windows."""
        return {
            "kind": "text",
            "data": self.digest(run),
            "window": self.windows.length,
            "stride": self.windows.stride,
            "document_perplexity": self.windows.document_perplexity,
            "max_documents": self.max_documents,
        }

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Token ids of every document."""
        self._documents(encoder, run)

    def score(self, model: TextModel, run: Run, progress: Progress) -> Scores:
        """Losses of every document."""
        return score_documents(
            model,
            self._documents(model.encoder, run),
            window=self.windows.length,
            stride=self.windows.stride,
            document_perplexity=self.windows.document_perplexity,
            progress=progress,
        )

    def _documents(self, encoder: TextEncoder, run: Run) -> EncodedDocuments:
        key = encoder.digest + self.digest(run)
        if key not in self._encoded:
            self._encoded = {key: encode_documents(encoder, self.documents(run))}
        return self._encoded[key]


@dataclass
class BlimpTask:
    """Choices between the sentences of minimal pairs."""

    blimp: Blimp
    path: Path
    leading_space: bool
    name: str = BLIMP
    _encoded: dict[str, EncodedPairs] = field(default_factory=dict, init=False)

    def settings(self, run: Run) -> dict[str, Any]:
        """Data, and what stands before a sentence."""
        return {
            "kind": "pairs",
            "data": self.blimp.digest,
            "leading_space": self.leading_space,
        }

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Token ids of every sentence."""
        self._pairs(encoder)

    def score(self, model: TextModel, run: Run, progress: Progress) -> Scores:
        """Difference of log-likelihoods of every pair."""
        from rankscope.scoring.minimal_pairs import pair_differences

        differences = pair_differences(model, self._pairs(model.encoder), progress=progress)
        return PairScores(self.blimp.paradigms, differences)

    def _pairs(self, encoder: TextEncoder) -> EncodedPairs:
        from rankscope.scoring.minimal_pairs import encode_pairs

        key = encoder.digest
        if key not in self._encoded:
            pairs = encode_pairs(encoder, self.blimp.pairs, leading_space=self.leading_space)
            self._encoded = {key: pairs}
        return self._encoded[key]


def tasks_of(
    *,
    text: Sequence[str],
    blimp: Path | None,
    held_out: bool,
    windows: Windows,
    max_documents: int | None,
    pairs_each: int | None,
    leading_space: bool,
) -> list[Task]:
    """Tasks that the arguments of `rankscope.evaluate` ask for.

    Raises
    ------
    RankscopeError
        If there are none, or the data of one cannot be read.
    """
    tasks: list[Task] = [
        text_task(found, windows, max_documents=max_documents) for found in text_sets(text)
    ]
    if held_out:
        tasks.append(held_out_task(windows, max_documents=max_documents))
    if blimp is not None:
        pairs = read_blimp(blimp, pairs_each=pairs_each)
        tasks.append(BlimpTask(pairs, blimp, leading_space))
    if not tasks:
        raise RankscopeError("nothing to evaluate on was given: text, held-out text or BLiMP")
    return tasks


def text_task(text: TextSet, windows: Windows, *, max_documents: int | None = None) -> TextTask:
    """Task of a text set, the same for every run."""
    digest = text.digest()
    return TextTask(
        text.name,
        lambda _: text.iter_documents(max_documents),
        lambda _: digest,
        windows,
        max_documents,
    )


def held_out_task(windows: Windows, *, max_documents: int | None = None) -> TextTask:
    """Task of the text that each run held out of its own training."""

    def documents(run: Run) -> list[Document]:
        return [Document(text) for text in held_out_documents(run)[:max_documents]]

    return TextTask(HELD_OUT, documents, held_out_digest, windows, max_documents)
