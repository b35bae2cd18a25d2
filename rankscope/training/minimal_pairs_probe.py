"""Minimal pairs during training, judged by the code that evaluates finished runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankscope.errors import WrongSettingError, printable
from rankscope.scoring.accuracy import accuracy_measures
from rankscope.scoring.blimp import Paradigm, read_blimp
from rankscope.scoring.minimal_pairs import EncodedPairs, encode_pairs, pair_differences
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.config import Config
from rankscope.training.data.corpus import Corpus
from rankscope.training.data.corpus_tokenizer import text_encoder
from rankscope.training.model import LanguageModel
from rankscope.training.probe import evaluating


def open_minimal_pairs(config: Config, corpus: Corpus) -> MinimalPairsProbe | None:
    """Read and tokenise the pairs of ``log.blimp``; None if that is empty.

    Raises
    ------
    WrongSettingError
        If the corpus has no tokenizer, or a sentence with the end of document before it is longer
        than the sequences that the model learns from.
    RankscopeError
        If the pairs cannot be read.
    """
    if not config.log.blimp:
        return None
    if corpus.tokenizer is None or corpus.end_of_document is None:
        raise WrongSettingError(
            "holds token ids without a tokenizer, which log.blimp needs: leave log.blimp out, or "
            "train on text or on a folder of `rankscope data prepare`",
            path=config.data.source,
        )
    read = read_blimp(config.log.blimp, pairs=config.log.blimp_pairs or None)
    encoder = text_encoder(corpus.tokenizer, corpus.end_of_document)
    encoded = encode_pairs(encoder, read.pairs)
    inputs = int(encoded.lengths.max()) - 1
    if inputs > config.batch.sequence_length:
        raise WrongSettingError(
            f"the sentence {printable(encoded.longest, limit=60)!r} has {inputs} input tokens, "
            f"more than batch.sequence_length = {config.batch.sequence_length}: leave log.blimp "
            "out, or train on longer sequences",
            path=config.log.blimp,
        )
    return MinimalPairsProbe(config, encoder, encoded, read.paradigms)


@dataclass(frozen=True)
class MinimalPairsProbe:
    """Minimal pairs as token ids, for the models of one configuration."""

    config: Config
    encoder: TextEncoder
    encoded: EncodedPairs
    paradigms: tuple[Paradigm, ...]

    @property
    def tokens(self) -> int:
        """Input tokens of all sentences."""
        return int((self.encoded.lengths - 1).sum())

    @property
    def description(self) -> str:
        """What is judged and how often, in one line."""
        log, paradigms = self.config.log, len(self.paradigms)
        return (
            f"{log.blimp}: {len(self.encoded):,} minimal pairs of {paradigms} "
            f"paradigm{'s'[: paradigms != 1]}, judged every {log.blimp_steps:,} steps"
        )

    def judged(self, model: LanguageModel) -> dict[str, float]:
        """Accuracy on all pairs and on those of each phenomenon, for a line of the log.

        In eval mode and float32, adapters included; the model does not change. A tie, where both
        sentences are equally likely, counts as a half, and the number of ties is given too.
        Accuracies are NaN if a loss is.
        """
        with evaluating(model):
            differences = pair_differences(self._text_model(model), self.encoded)
        accuracies = {
            measure.group: measure.value
            for measure in accuracy_measures(differences, self.paradigms)
            if measure.metric == "accuracy"
        }
        phenomena = {
            f"blimp_{group.removeprefix('phenomenon:')}": value
            for group, value in accuracies.items()
            if group.startswith("phenomenon:")
        }
        return phenomena | {
            "blimp_accuracy": accuracies["all"],
            "blimp_ties": int(np.count_nonzero(differences == 0)),
            "blimp_pairs": len(differences),
        }

    def _text_model(self, model: LanguageModel) -> TextModel:
        batch = self.config.batch
        return TextModel(
            model.token_losses,
            self.encoder,
            len(model.lm_head.weight),
            context=batch.sequence_length,
            tokens_at_once=batch.sequences_at_once * batch.sequence_length,
            device=self.config.device,
        )
