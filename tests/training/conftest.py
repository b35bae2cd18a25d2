from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankscope.training.adapters.cycles import Cycles
from rankscope.training.config import Config
from rankscope.training.config_file import config_from
from rankscope.training.initial_model import initial_model
from rankscope.training.model import LanguageModel
from rankscope.training.probe import effective_gradients

VOCABULARY = 31
MakeConfig = Callable[..., Config]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Markov chain: something to learn, in no time."""
    rng = np.random.default_rng(0)
    following = rng.integers(VOCABULARY, size=(VOCABULARY, 3))
    ids = [0]
    for _ in range(4000):
        ids.append(int(rng.choice(following[ids[-1]])))
    path = tmp_path_factory.mktemp("data") / "ids.bin"
    np.array(ids, dtype="<u2").tofile(path)
    return path


@pytest.fixture
def make_config(tmp_path: Path, token_file: Path) -> MakeConfig:
    """A ReLoRA run of a second or less; overrides have dotted keys."""

    def make(overrides: dict[str, Any] | None = None) -> Config:
        settings: dict[str, Any] = {
            "method": "relora",
            "out": str(tmp_path / "run"),
            "data.source": str(token_file),
            "data.vocab_size": VOCABULARY,
            "model.hidden_size": 16,
            "model.intermediate_size": 24,
            "adapter.rank": 2,
            "adapter.alpha": 3.0,
            "relora.probe_sequences": 6,
            "schedule.steps": 18,
            "schedule.warmup_steps": 3,
            "schedule.restart_every": 5,
            "schedule.restart_warmup_steps": 2,
            "batch.sequences": 4,
            "batch.sequence_length": 12,
            "log.log_every": 1,
            "log.eval_every": 6,
            "log.save_every": 6,
            "log.validation_tokens": 96,
            "log.probe_sequences": 6,
        }
        return config_from(settings | (overrides or {}))

    return make


@pytest.fixture
def make_model(make_config: MakeConfig) -> Callable[..., LanguageModel]:
    """A model as it is before the first update, with adapters where the run has them."""

    def make(overrides: dict[str, Any] | None = None) -> LanguageModel:
        config = make_config(overrides)
        model = initial_model(config, VOCABULARY)
        if config.phase_methods[0] != "full":
            probe = torch.randint(VOCABULARY, (4, 13), generator=torch.Generator().manual_seed(8))
            gradients = effective_gradients(model, iter([probe]))
            Cycles(config).begin(
                model, None, gradients, cycle=0, cycles=1, merged={}, agree=lambda value: value
            )
        return model

    return make


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (4, 13), generator=torch.Generator().manual_seed(7))


@pytest.fixture
def read_log() -> Callable[[Path], list[dict[str, Any]]]:
    def read(run: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    return read
