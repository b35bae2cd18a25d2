from __future__ import annotations

from collections.abc import Callable

import pytest

from rankscope.training.config import AdapterConfig, Config, ModelConfig
from rankscope.training.data import load_corpus
from rankscope.training.model import LanguageModel
from rankscope.training.relora import wrap
from rankscope.training.summary import parameter_counts, summary

MakeConfig = Callable[..., Config]


def test_the_counts_are_those_of_the_published_tiny_model() -> None:
    # Weiss et al. 2025: 11.2M parameters; with adapters of rank 16, 11.6M, of which 10.0M trainable
    shape = ModelConfig(
        hidden_size=96,
        intermediate_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
    )
    model = LanguageModel(shape, vocab_size=50304)
    linear, norms = 2 * 96**2 + 2 * 96 * 32 + 3 * 96 * 384, 2 * 96
    assert parameter_counts(model)["total"] == 2 * 50304 * 96 + 12 * (linear + norms) + 96
    assert parameter_counts(model)["total"] // 100_000 == 112
    wrap(model, AdapterConfig(rank=16), seed=0)
    counts = parameter_counts(model)
    assert counts["total"] // 100_000 == 116
    assert counts["trainable"] // 100_000 == 100
    assert counts["projections"] == 12 * linear
    assert counts["trainable"] == counts["total"] - counts["projections"]


@pytest.mark.parametrize(("every", "restarts"), [(5, 3), (6, 2), (18, 0)])
def test_the_summary_tells_what_will_happen(
    make_config: MakeConfig, every: int, restarts: int
) -> None:
    config = make_config({"schedule.restart_every": every})
    model = LanguageModel(config.model, 31)
    text = " ".join(summary(config, load_corpus(config.data, config.batch), model))
    assert f"18 steps of 48 tokens, {restarts} restarts" in text
    assert config.out in text
