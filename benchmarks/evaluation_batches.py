"""Measure with how many tokens at once `rankscope evaluate` is fastest on a CPU.

    python -m benchmarks.evaluation_batches [--threads 2]

It takes a quarter of an hour. Every size is timed once per round, and the median time of each over
that of the fastest is printed. They decided
``TOKENS_AT_ONCE`` in rankscope/evaluation/own_model.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

import torch

from benchmarks.evaluation_baselines import CASES, Case, documents, text_model
from benchmarks.rounds import tell
from benchmarks.sentences import synthetic_pairs
from rankscope.scoring.document_spans import Cut
from rankscope.scoring.minimal_pairs import pair_differences
from rankscope.scoring.text_documents import score_documents
from rankscope.training.model import LanguageModel

SIZES = (512, 1024, 2048, 4096, 8192, 16_384)
WINDOWS = (128, 512, 2048)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per vocabulary and content to score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--tokens", type=int, default=16_384, help="number of tokens to score with every size"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    print(" " * 36 + "".join(f"{size:>8,}" for size in SIZES))
    for name, case in CASES.items():
        for title, score in _contents(case, given.tokens).items():
            tell(f"{name}, {title}")
            times = slowness(score, rounds=given.rounds)
            print(f"{name + ', ' + title:36}" + "".join(f"{times[size]:8.2f}" for size in SIZES))


def slowness(score: Callable[[int], object], *, rounds: int) -> dict[int, float]:
    """Time for each number of tokens at once, over that of the fastest."""
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            start = time.perf_counter()
            score(size)
            times[size].append(time.perf_counter() - start)
    medians = {size: median(measured) for size, measured in times.items()}
    return {size: time / min(medians.values()) for size, time in medians.items()}


def _contents(case: Case, tokens: int) -> dict[str, Callable[[int], object]]:
    """Functions, by name, that score pairs or text with a given number of tokens at once."""
    model = LanguageModel(case.model, case.vocab_size).eval()
    model.initialise(1)
    pairs = synthetic_pairs(tokens // 20, case.vocab_size)

    def score_pairs(size: int) -> object:
        return pair_differences(text_model(model, case, tokens_at_once=size), pairs)

    contents: dict[str, Callable[[int], object]] = {"pairs": score_pairs}
    for window in WINDOWS:
        contents[f"windows of {window}"] = _text(model, case, tokens, window)
    return contents


def _text(model: LanguageModel, case: Case, tokens: int, window: int) -> Callable[[int], object]:
    cut = replace(case, window=window, windows=max(1, tokens // window))
    text = documents(cut)

    def score(size: int) -> object:
        scorer = text_model(model, cut, tokens_at_once=size)
        return score_documents(scorer, text, Cut(document_perplexity=False))

    return score


if __name__ == "__main__":
    main()
