"""Trouble with configs and adapters."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.conftest import write_adapter
from tests.reliability.spoiled_run import (
    CONFIG,
    DEEP,
    OTHERS,
    SHAPES,
    STEPS,
    Bad,
    Make,
    Q,
    fine,
    of,
    skipped,
    step_2,
)


def config_says(run: Path, content: object) -> None:
    """Give step 2 this config.json: an object is merged into the honest one."""
    if isinstance(content, dict):
        content = json.dumps(CONFIG | content)
    (step_2(run) / "config.json").write_text(str(content))


def configs_say(run: Path, content: dict[str, object]) -> None:
    """Give every step the honest config.json with these entries."""
    for step in STEPS:
        (run / f"checkpoint-{step}" / "config.json").write_text(json.dumps(CONFIG | content))


def with_adapter(run: Path, change: Make = lambda _: None) -> None:
    """Put an adapter beside the weights of step 2, and change its folder."""
    rng = np.random.default_rng(7)
    factors = {
        m: (rng.normal(size=(s[0], 2)), rng.normal(size=(2, s[1]))) for m, s in SHAPES.items()
    }
    write_adapter(step_2(run) / "adapter", factors, scale=2.0)
    change(step_2(run) / "adapter")


def adapter_config(run: Path, **changes: Any) -> None:
    """Put an adapter at step 2 whose config differs in these entries."""

    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        entries = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in entries.items() if v is not None}))

    with_adapter(run, change)


def without_factor(run: Path, letter: str) -> None:
    """Remove one factor of the query matrix from the adapter of step 2."""

    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        gone = f"base_model.model.{Q}.lora_{letter}.weight"
        save_file({k: v for k, v in load_file(path).items() if k != gone}, path)

    with_adapter(run, change)


def adapter_factors(run: Path, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Put an adapter at step 2 whose factors of the query matrix have these shapes."""

    def change(folder: Path) -> None:
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors[f"base_model.model.{Q}.lora_A.weight"] = np.ones(right, np.float32)
        tensors[f"base_model.model.{Q}.lora_B.weight"] = np.ones(left, np.float32)
        save_file(tensors, path)

    with_adapter(run, change)


def config_is_fifo(adapter: Path) -> None:
    """Put a pipe in place of the config of an adapter."""
    (adapter / "adapter_config.json").unlink()
    os.mkfifo(adapter / "adapter_config.json")


def beside_the_weights(run: Path) -> None:
    """Put the weights of an adapter beside those of step 2, and nothing that describes them."""
    with_adapter(run)
    (step_2(run) / "adapter" / "adapter_config.json").unlink()
    path = step_2(run) / "adapter" / "adapter_model.safetensors"
    path.rename(step_2(run) / path.name)


LIES = {
    "heads that do not divide": {"num_attention_heads": 3},
    "no heads": {"num_attention_heads": 0},
    "more heads for keys": {"num_key_value_heads": 9},
    "heads for keys that do not divide": {"num_attention_heads": 4, "num_key_value_heads": 3},
    "heads that are words": {"num_attention_heads": "two"},
    "heads that are a list": {"num_attention_heads": [2]},
    "heads of 400 digits": {"num_attention_heads": 10**400},
    "heads that are not a number": {"num_attention_heads": float("nan")},
    "another width": {"hidden_size": 64},
    "a type that is a list": {"model_type": ["llama"]},
    "a type that is a table": {"model_type": {"a": 1}},
}
CONFIGS = of(
    "config.json",
    skipped("not JSON", lambda r: config_says(r, "{"), "not valid JSON"),
    skipped("deep", lambda r: config_says(r, DEEP), "not valid JSON"),
    skipped("a list", lambda r: config_says(r, "[]"), "JSON object"),
    fine("missing", lambda r: (step_2(r) / "config.json").unlink()),
    fine("10^9 layers", lambda r: config_says(r, {"num_hidden_layers": 10**9})),
    fine("architectures that are a number", lambda r: config_says(r, {"architectures": 5})),
    fine("a quantisation of words", lambda r: config_says(r, {"quantization_config": "none"})),
    fine("keys twice", lambda r: config_says(r, '{"model_type": "gpt2", "model_type": "llama"}')),
    skipped(
        "a file of 65 MB",
        lambda r: os.truncate(step_2(r) / "config.json", 65 * 2**20),
        "too many",
        reason="too-large",
    ),
    *(
        skipped(
            f"{name}, at one step",
            partial(config_says, content=lie),
            "does not continue",
            reason="break",
            steps=STEPS,
        )
        for name, lie in LIES.items()
    ),
    *(
        fine(f"{name}, at all steps", partial(configs_say, content=lie))
        for name, lie in LIES.items()
    ),
)


def half(name: str, make: Make, reason: str = "adapter-incomplete") -> Bad:
    """A case in which the adapter of one matrix cannot be formed, which costs that matrix."""
    return skipped(name, make, Q, reason=reason, steps=STEPS)


def no_alpha(name: str, alpha: object) -> Bad:
    """A case in which the scale of an adapter is no number."""
    make = partial(adapter_config, lora_alpha=alpha)
    return skipped(name, make, "lora_alpha", reason="adapter-config")


ADAPTERS = of(
    "adapters",
    fine("in order", with_adapter),
    half("A without B", partial(without_factor, letter="B")),
    half("B without A", partial(without_factor, letter="A")),
    half("ranks that differ", lambda r: adapter_factors(r, (4, 2), (3, 4))),
    half("of another model", lambda r: adapter_factors(r, (9, 2), (2, 9)), "adapter-misfit"),
    skipped(
        "a config that is not JSON",
        lambda r: with_adapter(r, lambda a: (a / "adapter_config.json").write_text("{")),
        "not valid JSON",
    ),
    skipped(
        "weights that are missing",
        lambda r: with_adapter(r, lambda a: (a / "adapter_model.safetensors").unlink()),
        "adapter",
    ),
    fine(
        "no config, as while it is being written",
        lambda r: with_adapter(r, lambda a: (a / "adapter_config.json").unlink()),
        "no file states the scale",
        steps=OTHERS,
    ),
    skipped(
        "a config that is a FIFO",
        lambda r: with_adapter(r, config_is_fifo),
        "not a regular file",
    ),
    fine("no config, beside the weights", beside_the_weights, "the scale", steps=OTHERS),
    fine("a rank that is not that of the factors", partial(adapter_config, r=7), steps=OTHERS),
    fine("a rank of words", partial(adapter_config, r="two"), steps=OTHERS),
    fine("a rank for one module of 0", partial(adapter_config, rank_pattern={Q: 0}), "the scale"),
    fine("no scale", partial(adapter_config, lora_alpha=None), "no file states", steps=OTHERS),
    no_alpha("a scale of 400 digits", 10**400),
    no_alpha("a scale that is no number", float("nan")),
    no_alpha("a scale that is infinite", float("inf")),
    no_alpha("a scale of words", "big"),
    *(
        skipped(
            f"a pattern that is {name}",
            partial(adapter_config, alpha_pattern=lie),
            "pattern",
            reason="adapter-config",
        )
        for name, lie in {"not one": {"((": 4}, "a list": [1]}.items()
    ),
    skipped(
        "a type that is a list",
        partial(adapter_config, peft_type=["LORA"]),
        "is not read",
        reason="adapter-type",
    ),
)
