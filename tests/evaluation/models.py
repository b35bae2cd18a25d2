"""Small models of several makes with their tokenizers, on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.scoring.text_model import TextEncoder
from rankscope.training.config_file import config_from
from rankscope.training.data.tokenizer import train_bpe
from rankscope.training.train import train

DOCUMENTS = [
    "The cats sit on the mat, and the dog sits by the door.\n",
    "Which of the dogs has the cat seen?  None, it says.\n\nSo it goes.",
    "“Naïve” is said of <|endoftext|> too: 你好, мир! ",
    "a",
]
WORDS, WINDOW = 300, 24
NO_ENCODER = TextEncoder(lambda texts: [[1] for _ in texts], None, "none", "")

SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": WINDOW},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": WINDOW,
    },
    "gpt_neox": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": WINDOW,
    },
    "bert": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
}
MAKES: Mapping[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gpt2": (GPT2Config, GPT2LMHeadModel),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM),
    "bert": (BertConfig, BertForMaskedLM),
    "t5": (T5Config, T5ForConditionalGeneration),
}
CAUSAL = ("gpt2", "llama", "gpt_neox")


def new_model(make: str, *, std: float = 0.3, **settings: Any) -> Any:
    """A model whose weights are large enough for its words to depend on each other."""
    torch.manual_seed(3)
    config, model = MAKES[make]
    made = model(config(vocab_size=WORDS, **(SIZES[make] | settings)))
    for parameter in made.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=std)
    return made.eval()


def write_tokenizer(folder: Path, settings: Mapping[str, object] | None = None) -> None:
    """A byte-level ``tokenizer.json``, and ``tokenizer_config.json`` if there are settings."""
    folder.mkdir(parents=True, exist_ok=True)
    train_bpe(DOCUMENTS * 3, WORDS).save(str(folder / "tokenizer.json"))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_hugging_face(folder: Path, make: str = "llama", **settings: Any) -> Any:
    """A model and its tokenizer in a folder such as a Trainer writes; returns the model."""
    model = new_model(make, **settings)
    model.save_pretrained(folder)
    write_tokenizer(folder, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    return model


def write_own_run(folder: Path, **overrides: Any) -> Run:
    """A ReLoRA run of this package's trainer whose last checkpoints have live adapters."""
    data = folder.parent / f"{folder.name}.jsonl"
    if "data.source" not in overrides:
        lines = [json.dumps({"text": f"{i}: {text}"}) for i in range(8) for text in DOCUMENTS]
        data.write_text("\n".join(lines))
    settings: dict[str, Any] = {
        "method": "relora",
        "out": str(folder),
        "data.source": str(data),
        "data.validation_fraction": 0.2,
        "model.hidden_size": 16,
        "model.intermediate_size": 24,
        "model.num_hidden_layers": 2,
        "adapter.rank": 2,
        "adapter.alpha": 3.0,
        "schedule.steps": 6,
        "schedule.learning_rate": 0.05,
        "schedule.warmup_steps": 1,
        "schedule.restart_every": 4,
        "schedule.restart_warmup_steps": 1,
        "batch.sequences": 4,
        "batch.sequence_length": WINDOW,
        "log.eval_every": 6,
        "log.save_every": 3,
        "log.validation_tokens": 96,
        "log.probe_sequences": 2,
    }
    train(config_from(settings | {key.replace("__", "."): v for key, v in overrides.items()}))
    return open_run(folder)


def only_checkpoint(folder: Path) -> tuple[Checkpoint, Run]:
    """The checkpoint in a folder, and its run."""
    run = open_run(folder)
    return run.checkpoints[0], run
