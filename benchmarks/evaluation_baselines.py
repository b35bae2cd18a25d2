"""Three scorers of minimal pairs and text, with the same weights.

    python -m benchmarks.evaluation_baselines SCORER pairs|text [--case …]

scores once and prints the peak memory before that, and in all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.sentences import PREFIX, synthetic_pairs
from rankscope.evaluation.own_model import TOKENS_AT_ONCE
from rankscope.keyed import keyed_generator
from rankscope.scoring.document_spans import Cut
from rankscope.scoring.minimal_pairs import EncodedPairs, pair_differences
from rankscope.scoring.text_documents import EncodedDocuments, score_documents
from rankscope.scoring.text_model import TextEncoder, TextModel
from rankscope.training.config import ModelConfig
from rankscope.training.model import LanguageModel

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Sequences = list[NDArray[np.int64]]  # token ids, beginning with the prefix
Losses = Callable[[Sequences], NDArray[np.float64]]  # −ln p of all tokens after the prefix
OURS, SINGLY, BATCHED = "rankscope", "one by one", "padded batches"
SENTENCES_AT_ONCE, WINDOWS_AT_ONCE = 64, 4  # of padded batches; 64 windows would fill 13 GB


@dataclass(frozen=True)
class Case:
    """Size of a model, and how much it scores."""

    model: ModelConfig
    vocab_size: int
    pairs: int
    windows: int
    window: int

    @property
    def tokens(self) -> int:
        """Tokens of text that are scored."""
        return self.windows * self.window


SHAPE = ModelConfig(96, 384, 12, 12, 4, initialisation="torch")
CASES = {
    "weiss2025-tiny": Case(SHAPE, 50_304, 192, 8, 512),
    "weiss2025-tiny-cpu": Case(SHAPE, 4_096, 192, 8, 512),
}


@dataclass(frozen=True)
class Scorer:
    """One of the scorers that are compared.

    Attributes
    ----------
    pairs
        ln p(good) − ln p(bad) of each pair.
    text
        −ln p of each document.
    """

    pairs: Callable[[EncodedPairs], NDArray[np.float64]]
    text: Callable[[EncodedDocuments], NDArray[np.float64]]


def scorers(case: Case, names: Sequence[str] = (OURS, SINGLY, BATCHED)) -> dict[str, Scorer]:
    """The named scorers, with equal weights."""
    own = LanguageModel(case.model, case.vocab_size).eval()
    own.initialise(1)
    known: dict[str, Scorer] = {}
    if OURS in names:
        known[OURS] = _our_scorer(text_model(own, case))
    if SINGLY in names or BATCHED in names:
        theirs = _transformers_model(own, case)
        known |= {
            SINGLY: _their_scorer(theirs, sentences=1, windows=1),
            BATCHED: _their_scorer(theirs, sentences=SENTENCES_AT_ONCE, windows=WINDOWS_AT_ONCE),
        }
    return {name: known[name] for name in names}


def text_model(
    model: LanguageModel, case: Case, *, tokens_at_once: int = TOKENS_AT_ONCE["cpu"]
) -> TextModel:
    """Our model as `rankscope evaluate` opens it, except for its tokenizer."""
    encoder = TextEncoder(_refuse_text, PREFIX, "id 0", "none")
    context = max(case.window, 64)
    return TextModel(model.token_losses, encoder, case.vocab_size, context, tokens_at_once)


def documents(case: Case) -> EncodedDocuments:
    """Text of random ids, every document one window."""
    shape = (case.windows, case.window)
    ids = torch.randint(1, case.vocab_size, shape, generator=keyed_generator(1, "text"))
    nothing, unnamed = np.zeros(case.windows, dtype=np.int64), (None,) * case.windows
    rows = tuple(row.astype(np.uint32) for row in ids.numpy())
    return EncodedDocuments(rows, nothing, nothing, unnamed, unnamed, left_out=0)


def _refuse_text(texts: Sequence[str]) -> list[list[int]]:
    raise NotImplementedError("everything is encoded beforehand")


def _our_scorer(model: TextModel) -> Scorer:
    def text(encoded: EncodedDocuments) -> NDArray[np.float64]:
        return score_documents(model, encoded, Cut(document_perplexity=False)).losses

    return Scorer(lambda pairs: pair_differences(model, pairs), text)


def _their_scorer(model: LlamaForCausalLM, *, sentences: int, windows: int) -> Scorer:
    def pairs(encoded: EncodedPairs) -> NDArray[np.float64]:
        sequences = np.split(encoded.ids.astype(np.int64), encoded.lengths.cumsum()[:-1])
        losses = _sequence_losses(model, sequences, at_once=sentences)
        return losses[1::2] - losses[::2]

    def text(encoded: EncodedDocuments) -> NDArray[np.float64]:
        sequences = [np.append(PREFIX, ids).astype(np.int64) for ids in encoded.ids]
        return _sequence_losses(model, sequences, at_once=windows)

    return Scorer(pairs, text)


@torch.inference_mode()
def _sequence_losses(
    model: LlamaForCausalLM, sequences: Sequences, *, at_once: int
) -> NDArray[np.float64]:
    """Negative log-likelihoods from the logits of all tokens, in batches of similar length."""
    losses = np.zeros(len(sequences))
    for batch in _batches(sequences, at_once):
        ids, mask = _padded([sequences[i] for i in batch])
        asked: dict[str, Any] = {} if at_once == 1 else {"attention_mask": mask[:, :-1]}
        logits = model(input_ids=ids[:, :-1], use_cache=False, **asked).logits
        log_p = F.log_softmax(logits.float(), dim=-1)
        chosen = log_p.gather(2, ids[:, 1:, None]).squeeze(2)
        losses[batch] = -(chosen.double() * mask[:, 1:]).sum(1).numpy()
    return losses


def _batches(sequences: Sequences, at_once: int) -> Iterator[list[int]]:
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]), reverse=at_once > 1)
    for start in range(0, len(order), at_once):
        yield order[start : start + at_once]


def _padded(sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Ids, padded on the right, and a mask of those that are not padding."""
    lengths = torch.tensor([len(ids) for ids in sequences])
    ids = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = torch.from_numpy(sequence)
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()


def _transformers_model(own: LanguageModel, case: Case) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = case.model
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=case.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            max_position_embeddings=max(case.window, 64),
            rms_norm_eps=shape.rms_norm_eps,
            tie_word_embeddings=False,
        )
    )
    model.load_state_dict(own.state_dict())
    model.train(False)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Score once; print the peak memory in megabytes before that, and in all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scorer", choices=(OURS, SINGLY, BATCHED))
    parser.add_argument("task", choices=("pairs", "text"))
    parser.add_argument("--case", choices=CASES, default="weiss2025-tiny")
    given = parser.parse_args(arguments)
    case = CASES[given.case]
    [scorer] = scorers(case, [given.scorer]).values()
    pairs, text = synthetic_pairs(case.pairs, case.vocab_size), documents(case)
    before = _peak_megabytes()
    if given.task == "pairs":
        scorer.pairs(pairs)
    else:
        scorer.text(text)
    print(json.dumps({"before": before, "peak": _peak_megabytes()}))


def _peak_megabytes() -> float:
    """Largest resident set of this process so far; that of `resource` includes its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e6


if __name__ == "__main__":
    main()
