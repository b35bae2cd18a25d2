"""What checkpoints are scored on: text sets, a run's held-out text, minimal pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rankscope.checkpoints.file_states import changed
from rankscope.checkpoints.run import Run
from rankscope.errors import WrongSettingError
from rankscope.evaluation.evaluate_question import EvaluateQuestion
from rankscope.evaluation.held_out_text import held_out_digest, held_out_documents
from rankscope.evaluation.score_files import PairScores, Scores
from rankscope.evaluation.text_sets import (
    AGREEMENT,
    BLIMP,
    HELD_OUT,
    TextSet,
    named_path,
    text_sets,
)
from rankscope.scoring.agreement import agreement_digest, agreement_pairs
from rankscope.scoring.blimp import Blimp, blimp_digest, read_blimp
from rankscope.scoring.document_spans import Cut
from rankscope.scoring.text_documents import (
    EncodedDocuments,
    TextDocument,
    encode_documents,
    score_documents,
)
from rankscope.scoring.text_model import ShareDone, TextEncoder, TextModel

if TYPE_CHECKING:
    from rankscope.scoring.minimal_pairs import EncodedPairs


class Benchmark(Protocol):
    """One thing that every checkpoint is scored on."""

    @property
    def name(self) -> str:
        """What the table calls it: the task."""

    def open(self) -> None:
        """Read what is the same for all runs, before any of them is scored.

        Raises
        ------
        RankscopeError
            If it cannot be read.
        """

    def settings(self, run: Run) -> dict[str, Any]:
        """All that the scores depend on except the model; plain values, for the record.

        Raises
        ------
        RankscopeError
            If the run lacks what it would be scored on.
        """

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Tokenise what is scored, once for all models with the same tokenizer.

        Raises
        ------
        RankscopeError
            If the text cannot be read.
        """

    def score(self, model: TextModel, run: Run, progress: ShareDone) -> Scores:
        """Score a model.

        Raises
        ------
        RankscopeError
            If the model cannot take the text.
        """


@dataclass
class TextBenchmark:
    """Likelihood of documents."""

    name: str
    documents: Callable[[Run], Iterable[TextDocument]]
    digest: Callable[[Run], str]
    cut: Cut
    max_documents: int | None
    _encoded: dict[str, EncodedDocuments] = field(default_factory=dict, init=False)

    def open(self) -> None:
        """Nothing: text is read once, when it is tokenised."""

    def settings(self, run: Run) -> dict[str, Any]:
        """The data, and how documents are cut."""
        return {
            "kind": "text",
            "data": self.digest(run),
            "window": self.cut.context,
            "stride": self.cut.stride,
            "document_perplexity": self.cut.document_perplexity,
            "max_documents": self.max_documents,
        }

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Read and tokenise every document."""
        self._documents(encoder, run)

    def score(self, model: TextModel, run: Run, progress: ShareDone) -> Scores:
        """Losses of every document."""
        documents = self._documents(model.encoder, run)
        return score_documents(model, documents, self.cut, progress=progress)

    def _documents(self, encoder: TextEncoder, run: Run) -> EncodedDocuments:
        key = encoder.digest + self.digest(run)
        if key not in self._encoded:
            self._encoded = {key: encode_documents(encoder, self.documents(run))}
        return self._encoded[key]


@dataclass
class PairsBenchmark:
    """Choices between the sentences of minimal pairs."""

    name: str
    read: Callable[[], Blimp]
    digest: str
    pairs: int | None
    leading_space: bool
    _encoded: dict[str, EncodedPairs] = field(default_factory=dict, init=False)

    @cached_property
    def blimp(self) -> Blimp:
        """The pairs."""
        return self.read()

    def open(self) -> None:
        """Read the pairs."""
        _ = self.blimp

    def settings(self, run: Run) -> dict[str, Any]:
        """The data, and what precedes a sentence."""
        return {
            "kind": "pairs",
            "data": self.digest,
            "pairs": self.pairs,
            "leading_space": self.leading_space,
        }

    def prepare(self, encoder: TextEncoder, run: Run) -> None:
        """Read and tokenise every sentence."""
        self._pairs(encoder)

    def score(self, model: TextModel, run: Run, progress: ShareDone) -> Scores:
        """Difference of log-likelihoods of every pair."""
        from rankscope.scoring.minimal_pairs import pair_differences

        differences = pair_differences(model, self._pairs(model.encoder), progress=progress)
        return PairScores(self.blimp.paradigms, differences)

    def _pairs(self, encoder: TextEncoder) -> EncodedPairs:
        from rankscope.scoring.minimal_pairs import encode_pairs

        key, leading_space = encoder.digest, self.leading_space
        if key not in self._encoded:
            pairs = encode_pairs(encoder, self.blimp.pairs, leading_space=leading_space)
            self._encoded = {key: pairs}
        return self._encoded[key]


def benchmarks_of(question: EvaluateQuestion) -> list[Benchmark]:
    """All benchmarks that a question asks for.

    Raises
    ------
    WrongSettingError
        If a setting is wrong, or named data do not exist.
    RankscopeError
        If they cannot be read.
    """
    for name in ("max_documents", "pairs"):
        count = getattr(question, name)
        if count is not None and count < 1:
            raise WrongSettingError(f"`{name}` is {count}, which leaves nothing to score")
    cut = Cut(question.window, question.stride, question.document_perplexity)
    benchmarks: list[Benchmark] = [
        text_benchmark(text_set, cut, question.max_documents)
        for text_set in text_sets(map(str, question.text))
    ]
    if question.held_out:
        benchmarks.append(held_out_benchmark(cut, question.max_documents))
    if question.blimp is not None:
        name, path = named_path(str(question.blimp), otherwise=BLIMP)
        if name in (HELD_OUT, AGREEMENT, *(one.name for one in benchmarks)):
            message = f"`blimp` cannot be called {name!r}, the name of another task"
            raise WrongSettingError(message, path=path)
        benchmarks.append(blimp_benchmark(name, path, question))
    if question.agreement:
        benchmarks.append(agreement_benchmark(question))
    if not benchmarks:
        raise WrongSettingError(
            "nothing to evaluate on: give `text` or `blimp`, or set `held_out` or `agreement`"
        )
    return benchmarks


def text_benchmark(text_set: TextSet, cut: Cut, max_documents: int | None) -> TextBenchmark:
    """A text set, the same for every run."""
    digest = text_set.digest()
    return TextBenchmark(
        text_set.name,
        lambda _: text_set.iter_documents(max_documents),
        lambda _: digest,
        cut,
        max_documents,
    )


def held_out_benchmark(cut: Cut, max_documents: int | None) -> TextBenchmark:
    """The text that each run held out of its training."""

    def documents(run: Run) -> list[TextDocument]:
        return [TextDocument(text) for text in held_out_documents(run)[:max_documents]]

    return TextBenchmark(HELD_OUT, documents, held_out_digest, cut, max_documents)


def blimp_benchmark(name: str, path: Path, question: EvaluateQuestion) -> PairsBenchmark:
    """The pairs at a path; parsing them takes many times as long as their digest."""
    digest = blimp_digest(path)

    def read() -> Blimp:
        pairs = read_blimp(path, pairs=question.pairs)
        if blimp_digest(path) != digest:
            raise changed(path)
        return pairs

    return PairsBenchmark(name, read, digest, question.pairs, question.leading_space)


def agreement_benchmark(question: EvaluateQuestion) -> PairsBenchmark:
    """The built-in pairs."""
    pairs, leading_space = question.pairs, question.leading_space
    return PairsBenchmark(
        AGREEMENT, lambda: agreement_pairs(pairs=pairs), agreement_digest(), pairs, leading_space
    )
