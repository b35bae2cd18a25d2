"""Minimal pairs judged in training: the right numbers, at the right steps, and nothing else."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rankscope.dry_run.report import iter_dry_run
from rankscope.errors import RankscopeError
from rankscope.scoring.blimp import read_blimp
from rankscope.training.config import Config
from rankscope.training.data.corpus import load_corpus
from rankscope.training.minimal_pairs_probe import MinimalPairsProbe, open_minimal_pairs
from rankscope.training.model import LanguageModel
from rankscope.training.run_folder import state
from rankscope.training.run_folder.trained_model import trained_model
from rankscope.training.train import train
from tests.scoring.agreement import good_sentences, write_agreement

MakeConfig = Callable[..., Config]
ReadLog = Callable[[Path], list[dict[str, Any]]]
CLOCKS = ("time", "tokens_per_second")
FULL = {"method": "full", "schedule.restart_every": 0}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_agreement(tmp_path / "agreement")


@pytest.fixture
def make_text_config(make_config: MakeConfig, tmp_path: Path, pairs: Path) -> MakeConfig:
    """A short run on sentences as bytes, which judges 10 pairs of two paradigms each."""
    source = tmp_path / "sentences.txt"
    source.write_text("\n".join(good_sentences() * 4))
    settings = {
        "data.source": str(source),
        "batch.sequence_length": 48,
        "log.blimp": str(pairs),
        "log.blimp_pairs": 10,
    }
    return lambda overrides=None: make_config(settings | (overrides or {}))


def opened(config: Config) -> MinimalPairsProbe:
    probe = open_minimal_pairs(config, load_corpus(config.data, config.batch))
    assert probe is not None
    return probe


def entries(log: list[dict[str, Any]], *, of_pairs: bool) -> list[dict[str, Any]]:
    """Lines of the log that are about minimal pairs, or all others; without what clocks say."""
    return [
        {k: v for k, v in entry.items() if k not in CLOCKS}
        for entry in log
        if ("blimp_accuracy" in entry) == of_pairs
    ]


def results(run: Path) -> dict[str, bytes]:
    """Every file that training leaves, but for the log and what says with which settings."""
    files = [p for part in ("checkpoints", "merges") for p in (run / part).rglob("*")]
    files += list(next(state.iter_states(run)).glob("*.safetensors"))
    return {str(p.relative_to(run)): p.read_bytes() for p in files if p.is_file()}


@torch.no_grad()
def sentence_score(model: LanguageModel, sentence: str) -> float:
    """Sum of log-probabilities of the bytes after an end of document, of one sentence alone."""
    ids = torch.tensor([256, *sentence.encode()])
    log_p = model(ids[None, :-1])[0].double().log_softmax(-1)
    return log_p.gather(1, ids[1:, None]).sum().item()


@pytest.mark.parametrize("method", [{}, FULL], ids=["relora", "full"])
@pytest.mark.slow
def test_the_log_agrees_with_the_checkpoint_on_single_sentences(
    make_text_config: MakeConfig, read_log: ReadLog, method: dict[str, Any]
) -> None:
    config = make_text_config({**method, "log.blimp_pairs": 7})  # odd: a wrong sign would be seen
    train(config)
    model = trained_model(Path(config.out) / "checkpoints/step-00000018")  # adapters added
    choices = [
        sentence_score(model, good) > sentence_score(model, bad)
        for good, bad in read_blimp(config.log.blimp, pairs=7).pairs
    ]
    logged = entries(read_log(Path(config.out)), of_pairs=True)[-1]
    assert logged == {
        "step": 18,
        "blimp_accuracy": pytest.approx(np.mean(choices)),
        "blimp_ties": 0,
        "blimp_pairs": 14,
        "blimp_determiner_noun_agreement": pytest.approx(np.mean(choices[:7])),
        "blimp_subject_verb_agreement": pytest.approx(np.mean(choices[7:])),
    }


@pytest.mark.parametrize("every", [0, 5], ids=["with-validation", "every-fifth"])
@pytest.mark.slow
def test_judging_changes_nothing_else(
    make_text_config: MakeConfig, read_log: ReadLog, tmp_path: Path, every: int
) -> None:
    without = make_text_config({"out": str(tmp_path / "without"), "log.blimp": ""})
    config = make_text_config({"out": str(tmp_path / "with"), "log.blimp_every": every})
    logs = []
    for one in (without, config):
        torch.manual_seed(5)
        train(one)
        logs.append(read_log(Path(one.out)))
    assert results(tmp_path / "with") == results(tmp_path / "without")
    assert entries(logs[1], of_pairs=False) == entries(logs[0], of_pairs=False)
    assert not entries(logs[0], of_pairs=True)
    steps = [entry["step"] for entry in entries(logs[1], of_pairs=True)]
    assert steps == [step for step in range(19) if step % (every or 6) == 0 or step == 18]


def test_a_model_and_the_random_numbers_are_left_as_they_were(
    make_text_config: MakeConfig, make_model: Callable[..., LanguageModel]
) -> None:
    probe = opened(make_text_config())
    model = make_model({"model.vocab_size": 257}).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    asked = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    probe.judged(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert [p.requires_grad for p in model.parameters()] == asked
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


@pytest.mark.slow
def test_a_resumed_run_logs_each_judgement_once(
    make_text_config: MakeConfig,
    read_log: ReadLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "KEPT_STATES", 100)
    whole = tmp_path / "whole"
    train(make_text_config({"out": str(whole), "log.blimp_every": 4}))
    for step in (5, 12):  # saved before a restart, and with a judgement
        part = tmp_path / f"part{step}"
        shutil.copytree(whole, part)
        for later in range(step + 1, 19):
            shutil.rmtree(part / "state" / f"step-{later:08d}", ignore_errors=True)
        train(make_text_config({"out": str(part), "log.blimp_every": 4}), resume=True)
        assert results(part) == results(whole)
        for of_pairs in (True, False):
            both = [entries(read_log(run), of_pairs=of_pairs) for run in (whole, part)]
            assert both[0] == both[1]


@pytest.mark.slow
def test_pairs_may_come_and_go_when_a_run_is_resumed(
    make_text_config: MakeConfig, read_log: ReadLog, tmp_path: Path
) -> None:
    config = make_text_config({"log.blimp": ""})
    train(config, max_minutes=0.0)
    train(make_text_config({"log.blimp_every": 9, "log.blimp_pairs": 3}), resume=True)
    judged = entries(read_log(Path(config.out)), of_pairs=True)
    assert [(entry["step"], entry["blimp_pairs"]) for entry in judged] == [(9, 6), (18, 6)]


def test_equal_sentences_tie_and_count_a_half(
    make_text_config: MakeConfig, make_model: Callable[..., LanguageModel], pairs: Path
) -> None:
    shutil.rmtree(pairs)
    pairs.mkdir()
    line = json.dumps({"sentence_good": "A goose.", "sentence_bad": "A goose."})
    (pairs / "same.jsonl").write_text(line)
    judged = opened(make_text_config()).judged(make_model({"model.vocab_size": 257}))
    assert judged == {"blimp_accuracy": 0.5, "blimp_ties": 1, "blimp_pairs": 1}


def test_a_broken_model_has_no_accuracy(
    make_text_config: MakeConfig, make_model: Callable[..., LanguageModel]
) -> None:
    model = make_model({"model.vocab_size": 257})
    torch.nn.init.constant_(model.lm_head.weight, math.nan)
    judged = opened(make_text_config()).judged(model)
    assert math.isnan(judged["blimp_accuracy"])
    assert (judged["blimp_ties"], judged["blimp_pairs"]) == (0, 20)


FAULTS = {
    "missing": ({"log.blimp": "no/such/pairs.zip"}, r"no/such/pairs\.zip: does not exist"),
    "damaged": ({}, "line 2 is not a minimal pair"),
    "too-long": ({"batch.sequence_length": 20}, r"input tokens, more than batch.* = 20"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_pairs_is_one_line_before_anything_is_written(
    make_text_config: MakeConfig, pairs: Path, fault: str
) -> None:
    settings, said = FAULTS[fault]
    if fault == "damaged":
        with (pairs / "own_subject_verb.jsonl").open("r+") as file:
            file.readline()
            file.seek(file.tell())
            file.write("#")
    config = make_text_config(settings)
    for attempt in (lambda: train(config), lambda: list(iter_dry_run(config, timing_seconds=0))):
        with pytest.raises(RankscopeError, match=said) as error:
            attempt()
        assert "\n" not in str(error.value)
    assert not Path(config.out).exists()


def test_token_ids_without_a_tokenizer_cannot_be_judged(
    make_config: MakeConfig, pairs: Path
) -> None:
    config = make_config({"log.blimp": str(pairs)})
    for attempt in (lambda: train(config), lambda: list(iter_dry_run(config, timing_seconds=0))):
        with pytest.raises(RankscopeError, match=r"ids\.bin: holds token ids without a tokenizer"):
            attempt()
    assert not Path(config.out).exists()


def test_a_dry_run_says_what_is_judged_and_how_long_it_takes(make_text_config: MakeConfig) -> None:
    config = make_text_config({"log.blimp_every": 9})
    tokens = sum(
        len(sentence.encode())
        for pair in read_blimp(config.log.blimp, pairs=10).pairs
        for sentence in pair
    )
    said = "\n".join(iter_dry_run(config, timing_seconds=0.2))
    assert "20 minimal pairs of 2 paradigms, judged every 9 steps" in said
    assert f"minimal pairs, {tokens:,} tokens: about" in said
    assert "minimal pairs" not in "\n".join(iter_dry_run(make_text_config({"log.blimp": ""})))
